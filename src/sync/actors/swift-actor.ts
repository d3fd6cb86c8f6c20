/**
 * The actor of a container of OpenStack Swift, by Swift's own API. A file is an object of its path's name, with its time of
 * modification in `X-Object-Meta-Mtime`, as rclone and the `swift` client keep it. What is larger than a segment is a static large
 * object (`swift-segments.ts`).
 *
 * Etags are taken for MD5 only where Swift promises it. Listings do not tell times: of what a sync does not remember, it asks one
 * by one (`stat`).
 */
import { createHash, getHashes } from 'node:crypto'
import * as v from 'valibot'

import { isOperationError, OperationError } from '#base/errors.ts'
import { timestampFromDecimal, timestampToDecimal } from '#base/time.ts'
import { untilAborted } from '#store/abort.ts'
import { canRetry } from '#store/s3/errors.ts'
import { pause, pauseMs } from '#store/s3/retry.ts'
import type { CallOptions, Version } from '#store/store.ts'
import type {
  Actor,
  ActorContext,
  ActorKeeps,
  ActorListOptions,
  ActorModule,
  FileToSend,
  Listed,
  RenameCallOptions,
} from '#sync/actor.ts'
import { entriesUnder } from '#sync/actor-listing.ts'
import { callOptions } from '#sync/call-options.ts'
import type { ContentHash } from '#sync/equality.ts'
import type { TreeEntry } from '#sync/tree.ts'

import { guardedStream, headerOf, HttpClient, refusal, wholeOf, type HttpAnswer } from './http-client.ts'
import { jsonOf } from './json-answer.ts'
import { SwiftAccount, type SwiftLimits } from './swift-account.ts'
import { swiftLogin } from './swift-login.ts'
import { SwiftMoves } from './swift-moves.ts'
import { encodedName, entryOf, isLarge, objectName, versionOf, type ObjectRow } from './swift-object.ts'
import { SwiftRemoval } from './swift-removal.ts'
import { SwiftSegments } from './swift-segments.ts'

/** What is no larger is held while it is sent, and its MD5 goes ahead of it: Swift then stores no other bytes. */
const HELD_BYTES_MAX = 256 * 1024
/** Attempts at a page of a listing: a listing that breaks off costs all of it again. */
const PAGE_ATTEMPTS_MAX = 5
const PAGE_PAUSE_MS = 250
const BYTES_OF_UNIT: Readonly<Record<string, number>> = { '': 1, k: 2 ** 10, m: 2 ** 20, g: 2 ** 30 }

const OBJECTS = v.array(
  v.looseObject({
    name: v.string(),
    bytes: v.pipe(v.number(), v.safeInteger(), v.minValue(0)),
    hash: v.string(),
    slo_etag: v.optional(v.string()),
  }),
)

/** What `--actor swift` is. */
export const swiftActor: ActorModule = {
  options: {
    authUrl: { help: 'where tokens are asked for; ST_AUTH or OS_AUTH_URL otherwise', placeholder: 'URL' },
    user: {
      help: 'ACCOUNT:USER, or the name of a user of Keystone; ST_USER or OS_USERNAME otherwise',
      placeholder: 'NAME',
    },
    key: { help: 'key or password of the user; ST_KEY or OS_PASSWORD otherwise', secret: true },
    osProjectName: { help: 'project of Keystone; OS_PROJECT_NAME otherwise', placeholder: 'NAME' },
    osUserDomainName: { help: 'domain of the user; OS_USER_DOMAIN_NAME otherwise, or "default"', placeholder: 'NAME' },
    osProjectDomainName: {
      help: 'domain of the project; OS_PROJECT_DOMAIN_NAME otherwise, or "default"',
      placeholder: 'NAME',
    },
    osRegionName: { help: 'region of the object store; OS_REGION_NAME otherwise', placeholder: 'NAME' },
    segmentSize: { help: 'files that are larger are sent in segments of it', placeholder: 'SIZE', default: '5g' },
  },
  open: openSwift,
}

async function openSwift({ options, container, threads, signal }: ActorContext): Promise<Actor> {
  if (container === undefined || container === '' || container.includes('/')) {
    const detail = container === undefined ? 'no container is named' : `"${container}" is no name of a container`
    throw new OperationError('INPUT_INVALID', `Cannot open the actor "swift": ${detail}`, {
      hint: 'Name it by --target-container.',
    })
  }
  const segmentBytes = bytesOf(options['segmentSize'] ?? '5g')
  const login = swiftLogin(options, process.env)
  const client = new HttpClient(threads + 1)
  try {
    const account = new SwiftAccount(client, login)
    const limits = await account.limits(signal)
    const url = `${await account.url(signal)}/${container}`
    return new SwiftActor(client, account, { url, container, limits, segmentBytes, threads })
  } catch (error) {
    await client.close()
    throw error
  }
}

function bytesOf(text: string): number {
  const match = /^(\d+)([kmg]?)$/i.exec(text)
  const bytes = Number(match?.[1] ?? 0) * (BYTES_OF_UNIT[(match?.[2] ?? '').toLowerCase()] ?? 0)
  if (bytes > 0 && Number.isSafeInteger(bytes)) return bytes
  throw new OperationError('INPUT_INVALID', `Cannot use "${text}" as a segment size`, {
    hint: 'As 5g, 500m or a number of bytes.',
  })
}

interface SwiftPlace {
  readonly url: string
  readonly container: string
  readonly limits: SwiftLimits
  readonly segmentBytes: number
  readonly threads: number
}

class SwiftActor implements Actor {
  readonly url: string
  readonly alreadySorted = true
  readonly keeps: ActorKeeps
  readonly #client: HttpClient
  readonly #account: SwiftAccount
  /** Encoded, with a slash before it. */
  readonly #container: string
  readonly #pieceBytesMax: number
  readonly #segments: SwiftSegments
  readonly #removal: SwiftRemoval
  readonly #moves: SwiftMoves
  /** As the last listing has found. */
  #isMissing = false
  #creating: Promise<HttpAnswer> | undefined

  constructor(client: HttpClient, account: SwiftAccount, place: SwiftPlace) {
    const { url, container, limits, segmentBytes, threads } = place
    this.url = url
    this.keeps = { mtimePrecisionNs: 1, pathBytesMax: limits.nameBytesMax }
    this.#client = client
    this.#account = account
    this.#container = `/${encodeURIComponent(container)}`
    this.#pieceBytesMax = limits.segmentsMax === 0 ? limits.fileBytesMax : Math.min(segmentBytes, limits.fileBytesMax)
    this.#removal = new SwiftRemoval(account, limits.deletesMax, threads)
    this.#moves = new SwiftMoves(account, this.#removal, this.#container, threads)
    this.#segments = new SwiftSegments(account, this.#removal, container, limits, this.#pieceBytesMax)
  }

  async *list({ under, signal, onSkipped }: ActorListOptions): AsyncGenerator<readonly Listed[], void, undefined> {
    if (under !== '') {
      const single = await this.stat(under, callOptions({ signal }))
      if (single !== undefined) yield [single]
    }
    let marker = ''
    for (;;) {
      const rows = await this.#page(under === '' ? '' : `${under}/`, marker, signal)
      const last = rows.at(-1)?.name
      if (last === undefined) return
      const entries: Listed[] = []
      for (const row of rows) {
        // Elsewhere a "/" in front stands for the root; here it is a part of another name.
        if (row.name.startsWith('/'))
          onSkipped?.({ path: row.name, reason: 'invalid-name', detail: 'it begins with "/"' })
        else entries.push(entryOf(row))
      }
      if (entries.length > 0) yield entries
      marker = last
    }
  }

  async upload(file: FileToSend, { signal }: CallOptions): Promise<Listed> {
    const metadata = { 'x-object-meta-mtime': timestampToDecimal(file.mtime) }
    const old = isLarge(file.replaced) ? await this.#segments.named(file.path, signal) : []
    const isLargeNow = file.size > this.#pieceBytesMax
    const action = `send "${file.path}" to ${this.url}`
    const version = isLargeNow
      ? await this.#segments.upload(file, metadata, action, old, signal)
      : await this.#withContainer(signal, () => this.#put(file, metadata, action, signal))
    if (!isLargeNow && isLarge(file.replaced)) await this.#segments.removeOld(file.path, old, undefined, signal)
    return { path: file.path, size: file.size, kind: 'file', mtime: file.mtime, version }
  }

  async delete(file: TreeEntry, options: CallOptions): Promise<void> {
    const [error] = await this.deleteAll([file], options)
    if (error !== undefined) throw error
  }

  async deleteAll(files: readonly TreeEntry[], { signal }: CallOptions): Promise<readonly (Error | undefined)[]> {
    const errors: (Error | undefined)[] = files.map(() => undefined)
    const plain: number[] = []
    for (const [index, file] of files.entries()) {
      const isPlain = file.kind === 'directory' || (file.version !== undefined && !isLarge(file))
      if (isPlain) plain.push(index)
      else errors[index] = await settled(this.#deleteWithSegments(file, signal))
    }
    const names = plain.flatMap((index) => files.slice(index, index + 1)).map(objectName)
    const outcomes = await this.#removal.removeAll(this.#container, names, signal)
    for (const [at, index] of plain.entries()) errors[index] = outcomes[at]
    return errors
  }

  async stat(path: string, { signal }: CallOptions): Promise<TreeEntry | undefined> {
    const action = `look at "${path}" in ${this.url}`
    const answer = await this.#account.request({ action, method: 'HEAD', path: this.#pathOf(path), signal })
    if (answer.status === 404) return undefined
    if (answer.status !== 200) throw refusal(action, answer)
    const { headers } = answer
    return {
      path,
      kind: 'file',
      size: Number(headerOf(headers, 'content-length') ?? 0),
      mtime: timestampFromDecimal(headerOf(headers, 'x-object-meta-mtime') ?? ''),
      version: versionOf(headers),
    }
  }

  async copy(from: TreeEntry, to: string, { signal }: CallOptions): Promise<void> {
    await this.#replacing(to, signal, () => this.#moves.copy(from.path, to, signal))
  }

  async rename(from: TreeEntry, to: string, options: RenameCallOptions): Promise<void> {
    const { signal } = options
    const move = (entries: readonly TreeEntry[]): Promise<void> => this.#moves.rename(entries, from.path, to, options)
    if (from.kind !== 'directory') return this.#replacing(to, signal, () => move([from]))
    const entries = await entriesUnder(this, from.path, callOptions({ signal }))
    return move(entries.length === 0 ? [] : [...entries, { ...from, kind: 'directory' }])
  }

  /** MD5 is known of what is in one piece; anything else is read. */
  async hash(
    { path, version }: TreeEntry,
    algorithm: string,
    { signal }: CallOptions,
  ): Promise<ContentHash | undefined> {
    if (!getHashes().includes(algorithm)) return undefined
    const action = `hash "${path}" in ${this.url}`
    if (algorithm === 'md5') {
      const head = await this.#account.request({ action, method: 'HEAD', path: this.#pathOf(path), signal })
      const etag = versionOf(head.headers)
      const isWhole =
        head.status === 200 && /^[0-9a-f]{32}$/.test(etag) && head.headers['x-object-manifest'] === undefined
      if (isWhole) return version === undefined || etag === version ? { algorithm, digest: etag } : undefined
    }
    const hash = createHash(algorithm)
    const request = { action, method: 'GET', path: this.#pathOf(path), signal }
    const answer = await this.#account.receive(request, (chunk) => hash.update(chunk))
    if (answer.status === 404) return undefined
    if (answer.status !== 200) throw refusal(action, answer)
    if (version !== undefined && versionOf(answer.headers) !== version) return undefined
    return { algorithm, digest: hash.digest('hex') }
  }

  async close(): Promise<void> {
    await this.#client.close()
  }

  /** Puts something in the place of what is at `path`, and removes the segments that had. */
  async #replacing(path: string, signal: AbortSignal | undefined, put: () => Promise<unknown>): Promise<void> {
    const there = await this.stat(path, callOptions({ signal }))
    const old = isLarge(there) ? await this.#segments.named(path, signal) : []
    await put()
    if (isLarge(there)) await this.#segments.removeOld(path, old, undefined, signal)
  }

  #pathOf(name: string): string {
    return `${this.#container}/${encodedName(name)}`
  }

  /** One page of objects after `marker`; none where there is no container yet. */
  async #page(prefix: string, marker: string, signal: AbortSignal | undefined): Promise<readonly ObjectRow[]> {
    const action = `list ${this.url}`
    const query = new URLSearchParams({
      format: 'json',
      ...(prefix === '' ? {} : { prefix }),
      ...(marker === '' ? {} : { marker }),
    })
    for (let attempt = 1; ; attempt++) {
      try {
        const answer = await this.#account.request({
          action,
          method: 'GET',
          path: `${this.#container}?${query.toString()}`,
          signal,
        })
        if (answer.status === 404 && marker === '') {
          this.#isMissing = true
          return []
        }
        if (answer.status === 204) return []
        if (answer.status !== 200) throw refusal(action, answer)
        return jsonOf(action, OBJECTS, answer)
      } catch (error) {
        if (attempt === PAGE_ATTEMPTS_MAX || !canRetry(error)) throw error
        await pause(action, pauseMs(PAGE_PAUSE_MS, attempt), signal)
      }
    }
  }

  async #put(
    file: FileToSend,
    metadata: Readonly<Record<string, string>>,
    action: string,
    signal: AbortSignal | undefined,
  ): Promise<Version> {
    const whole = file.size <= HELD_BYTES_MAX ? await wholeOf(file) : undefined
    let hash = createHash('md5')
    const stream = (): AsyncIterable<Uint8Array> => {
      hash = createHash('md5')
      return guardedStream(file, (chunk) => hash.update(chunk))
    }
    if (whole !== undefined) hash.update(whole)
    const known = whole === undefined ? undefined : hash.digest('hex')
    const answer = await this.#account.request({
      action,
      method: 'PUT',
      path: this.#pathOf(file.path),
      headers: { ...metadata, 'content-length': String(file.size), ...(known === undefined ? {} : { etag: known }) },
      body: whole ?? stream,
      signal,
    })
    if (answer.status !== 201) throw refusal(action, answer)
    const version = versionOf(answer.headers)
    const md5 = known ?? hash.digest('hex')
    if (version === md5) return version
    throw new OperationError(
      'STORE_CORRUPT',
      `Cannot ${action}: it has other bytes than were sent (MD5 ${version}, not ${md5})`,
    )
  }

  /** The container comes into being with its first file: before that one is sent, where a listing has found that there is none. */
  async #withContainer<T>(signal: AbortSignal | undefined, call: () => Promise<T>): Promise<T> {
    if (this.#isMissing) await this.#create(signal)
    try {
      return await call()
    } catch (error) {
      if (!isOperationError(error, 'STORE_NOT_FOUND')) throw error
      await this.#create(signal)
      return call()
    }
  }

  async #create(signal: AbortSignal | undefined): Promise<void> {
    const action = `create ${this.url}`
    this.#creating ??= this.#account
      .request({ action, method: 'PUT', path: this.#container, signal: undefined })
      .finally(() => (this.#creating = undefined))
    const answer = await untilAborted(action, this.#creating, signal)
    if (answer.status !== 201 && answer.status !== 202) throw refusal(action, answer)
    this.#isMissing = false
  }

  async #deleteWithSegments(file: TreeEntry, signal: AbortSignal | undefined): Promise<void> {
    // One whose version was not told may be large.
    const found = file.version === undefined ? await this.stat(file.path, callOptions({ signal })) : file
    if (found === undefined) return
    const segments = isLarge(found) ? await this.#segments.named(file.path, signal) : []
    const [error] = await this.#removal.removeAll(this.#container, [file.path], signal)
    if (error !== undefined) throw error
    if (isLarge(found)) await this.#segments.removeOld(file.path, segments, undefined, signal)
  }
}

async function settled(work: Promise<void>): Promise<Error | undefined> {
  try {
    await work
    return undefined
  } catch (error) {
    if (error instanceof Error && !isOperationError(error, 'ABORTED')) return error
    throw error
  }
}
