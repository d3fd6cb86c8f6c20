/**
 * Static large objects of a Swift: a file in segments, and a manifest that names them, which is put last. Until then nothing shows,
 * and what was there is whole, as the segments of an upload have names that no other upload has.
 *
 * Segments are in the container `NAME_segments`, as with the `swift` client and rclone, under `eider/HASH/UPLOAD/NUMBER`: the hash of
 * the path rather than the path, so that no name grows too long, and none begins with another file's. Once a manifest is in place,
 * segments of the replaced one go, and with them what uploads of that path left that were cut short. Only segments in that container
 * do: a manifest that somebody else made may share others.
 */
import { createHash, randomBytes } from 'node:crypto'
import * as v from 'valibot'

import { OperationError } from '#base/errors.ts'
import { logger } from '#base/log.ts'
import type { Version } from '#store/store.ts'
import type { FileToSend } from '#sync/actor.ts'

import { guardedStream, headerOf, refusal } from './http-client.ts'
import { jsonOf } from './json-answer.ts'
import type { SwiftAccount, SwiftLimits } from './swift-account.ts'
import { encodedName, largeVersion } from './swift-object.ts'
import type { SwiftRemoval } from './swift-removal.ts'

const log = logger('sync/swift')
/** Swift looks at each of a thousand segments before it answers. */
const MANIFEST_MS_MAX = 600_000
/** For giving up what was sent, which the caller waits for. */
const CLEANING_MS_MAX = 15_000

const MANIFEST = v.array(v.looseObject({ name: v.optional(v.string()) }))
const NAMES = v.array(v.looseObject({ name: v.string() }))

interface Segment {
  readonly path: string
  readonly etag: string
  readonly size_bytes: number
}

export class SwiftSegments {
  readonly #account: SwiftAccount
  readonly #removal: SwiftRemoval
  readonly #container: string
  readonly #limits: SwiftLimits
  readonly #segmentBytes: number

  /** `container`: of the files; not encoded. */
  constructor(
    account: SwiftAccount,
    removal: SwiftRemoval,
    container: string,
    limits: SwiftLimits,
    segmentBytes: number,
  ) {
    this.#account = account
    this.#removal = removal
    this.#container = container
    this.#limits = limits
    this.#segmentBytes = segmentBytes
  }

  /** Names of the segments of the large object at `path`, as far as they are in the container of segments. */
  async named(path: string, signal: AbortSignal | undefined): Promise<readonly string[]> {
    const action = `read the manifest of "${path}"`
    const at = `${objectPath(this.#container, path)}?multipart-manifest=get`
    const answer = await this.#account.request({ action, method: 'GET', path: at, signal })
    if (answer.status === 404) return []
    if (answer.status !== 200) throw refusal(action, answer)
    // What was a large object may have been replaced since by one that is none.
    if (headerOf(answer.headers, 'x-static-large-object') === undefined) return []
    const prefix = `/${this.#own}/`
    return jsonOf(action, MANIFEST, answer).flatMap(({ name = '' }) =>
      name.startsWith(prefix) ? [name.slice(prefix.length)] : [],
    )
  }

  /** Sends a file in segments; `old` are those of what it replaces. */
  async upload(
    file: FileToSend,
    metadata: Readonly<Record<string, string>>,
    action: string,
    old: readonly string[],
    signal: AbortSignal | undefined,
  ): Promise<Version> {
    const { segmentsMax, fileBytesMax } = this.#limits
    const segmentBytes = Math.max(this.#segmentBytes, Math.ceil(file.size / Math.max(1, segmentsMax)))
    if (segmentsMax === 0 || segmentBytes > fileBytesMax) {
      const detail = `${file.size} bytes are more than ${Math.max(1, segmentsMax) * fileBytesMax}`
      throw new OperationError('STORE_FILE_TOO_LARGE', `Cannot ${action}: ${detail}`, { hint: 'Split the file.' })
    }
    for (const container of [this.#container, this.#own]) await this.#create(container, signal)
    const upload = `${prefixOf(file.path)}${Date.now()}-${randomBytes(4).toString('hex')}/`
    const sent: string[] = []
    let version: Version
    try {
      const segments = await this.#send(file, upload, segmentBytes, action, sent, signal)
      version = await this.#finish(file.path, segments, metadata, action, signal)
    } catch (error) {
      // A manifest whose answer was lost may be in place: then its segments are those of the file.
      if (!(error instanceof LostAnswer)) await this.#giveUp(sent)
      throw error instanceof LostAnswer ? error.cause : error
    }
    await this.removeOld(file.path, old, upload, signal)
    return version
  }

  /**
   * Removes segments that no manifest names any more: `old`, and what lies under the path's own prefix but for the upload `kept`.
   * What stays is told to the log alone, as the file itself is right.
   */
  async removeOld(
    path: string,
    old: readonly string[],
    kept: string | undefined,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    try {
      const left = (await this.#list(prefixOf(path), signal)).filter(
        (name) => kept === undefined || !name.startsWith(kept),
      )
      const errors = await this.#removal.removeAll(
        `/${encodeURIComponent(this.#own)}`,
        [...new Set([...old, ...left])],
        signal,
      )
      const failed = errors.find((error) => error !== undefined)
      if (failed !== undefined) throw failed
    } catch (error) {
      log.warn({ err: error, path, container: this.#own }, 'old segments of a file could not be removed')
    }
  }

  get #own(): string {
    return `${this.#container}_segments`
  }

  async #create(container: string, signal: AbortSignal | undefined): Promise<void> {
    const action = `create the container "${container}"`
    const path = `/${encodeURIComponent(container)}`
    const answer = await this.#account.request({ action, method: 'PUT', path, signal })
    if (answer.status !== 201 && answer.status !== 202) throw refusal(action, answer)
  }

  async #send(
    file: FileToSend,
    upload: string,
    segmentBytes: number,
    action: string,
    sent: string[],
    signal: AbortSignal | undefined,
  ): Promise<readonly Segment[]> {
    const segments: Segment[] = []
    const pieces = new Pieces(guardedStream(file, () => undefined))
    try {
      for (let at = 0; at < file.size; at += segmentBytes) {
        const size = Math.min(segmentBytes, file.size - at)
        const name = `${upload}${String(segments.length).padStart(8, '0')}`
        const hash = createHash('md5')
        sent.push(name)
        const answer = await this.#account.request({
          action,
          method: 'PUT',
          path: objectPath(this.#own, name),
          headers: { 'content-length': String(size), 'content-type': 'application/octet-stream' },
          body: () => pieces.take(size, (chunk) => hash.update(chunk)),
          isOnce: true,
          signal,
        })
        if (answer.status !== 201) throw refusal(action, answer)
        const etag = hash.digest('hex')
        if ((headerOf(answer.headers, 'etag') ?? '').replaceAll('"', '') !== etag) {
          throw new OperationError('STORE_CORRUPT', `Cannot ${action}: a segment has other bytes than were sent`)
        }
        segments.push({ path: `/${this.#own}/${name}`, etag, size_bytes: size })
      }
    } finally {
      await pieces.end()
    }
    return segments
  }

  async #finish(
    path: string,
    segments: readonly Segment[],
    metadata: Readonly<Record<string, string>>,
    action: string,
    signal: AbortSignal | undefined,
  ): Promise<Version> {
    const request = {
      action,
      method: 'PUT',
      path: `${objectPath(this.#container, path)}?multipart-manifest=put`,
      headers: { ...metadata, accept: 'application/json' },
      body: Buffer.from(JSON.stringify(segments)),
      timeoutMs: MANIFEST_MS_MAX,
      signal,
    }
    const answer = await this.#account.request(request).catch((error: unknown) => {
      throw new LostAnswer(error)
    })
    if (answer.status >= 500) throw new LostAnswer(refusal(action, answer))
    if (answer.status !== 201) throw refusal(action, answer)
    return largeVersion(headerOf(answer.headers, 'etag') ?? '')
  }

  async #giveUp(names: readonly string[]): Promise<void> {
    const signal = AbortSignal.timeout(CLEANING_MS_MAX)
    try {
      await this.#removal.removeAll(`/${encodeURIComponent(this.#own)}`, names, signal)
    } catch (error) {
      log.info({ err: error }, 'segments of an upload that failed stay until the next one of that path')
    }
  }

  async #list(prefix: string, signal: AbortSignal | undefined): Promise<string[]> {
    const action = `list the segments under "${prefix}"`
    const names: string[] = []
    for (;;) {
      const query = new URLSearchParams({ format: 'json', prefix, marker: names.at(-1) ?? '' })
      const path = `/${encodeURIComponent(this.#own)}?${query.toString()}`
      const answer = await this.#account.request({ action, method: 'GET', path, signal })
      if (answer.status === 404 || answer.status === 204) return names
      if (answer.status !== 200) throw refusal(action, answer)
      const page = jsonOf(action, NAMES, answer)
      if (page.length === 0) return names
      names.push(...page.map(({ name }) => name))
    }
  }
}

/** What may have taken effect: `cause` is why that is not known. */
class LostAnswer extends Error {
  constructor(cause: unknown) {
    super('the answer is lost', { cause })
  }
}

/** One stream, taken piece by piece. */
class Pieces {
  readonly #stream: AsyncIterator<Uint8Array>
  #rest: Uint8Array = new Uint8Array(0)

  constructor(stream: AsyncIterable<Uint8Array>) {
    this.#stream = stream[Symbol.asyncIterator]()
  }

  /** The next `size` bytes, told to `each` on their way. */
  async *take(size: number, each: (chunk: Uint8Array) => void): AsyncGenerator<Uint8Array, void, undefined> {
    for (let left = size; left > 0;) {
      if (this.#rest.length === 0) {
        const next = await this.#stream.next()
        if (next.done === true) return
        this.#rest = next.value
      }
      const chunk = this.#rest.subarray(0, left)
      this.#rest = this.#rest.subarray(chunk.length)
      left -= chunk.length
      each(chunk)
      yield chunk
    }
  }

  async end(): Promise<void> {
    await this.#stream.return?.()
  }
}

function prefixOf(path: string): string {
  return `eider/${createHash('sha256').update(path).digest('hex').slice(0, 32)}/`
}

function objectPath(container: string, name: string): string {
  return `/${encodeURIComponent(container)}/${encodedName(name)}`
}
