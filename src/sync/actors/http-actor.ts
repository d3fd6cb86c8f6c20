/**
 * The actor of anybody's own web service: files are listed, put and deleted under a URL by requests that are signed with a secret
 * which both sides know, and so are the answers that are acted upon. docs/formats/http-actor.md is the protocol, for who writes the
 * service; examples/media-files-server.ts is one.
 *
 * The hash of a body is part of what is signed, so a file that is too large to be held is read twice: once for its hash and
 * once to be sent. The service refuses bytes that have another hash, so what changed in between never shows.
 */
import { createHash, createHmac, randomBytes, timingSafeEqual } from 'node:crypto'
import * as v from 'valibot'

import { isOperationError, OperationError } from '#base/errors.ts'
import { timestampFromDecimal, timestampToDecimal } from '#base/time.ts'
import type { CallOptions, Version } from '#store/store.ts'

import type { Actor, ActorContext, ActorListOptions, ActorModule, FileToSend, Listed } from '#sync/actor.ts'
import type { ContentHash } from '#sync/equality.ts'
import type { TreeEntry } from '#sync/tree.ts'
import { guardedStream, headerOf, HttpClient, refusal, wholeOf, type HttpAnswer } from './http-client.ts'
import { jsonOf } from './json-answer.ts'

const PROTOCOL = 'eider-http-1'
const NO_BYTES = new Uint8Array(0)
/** What is no larger is read once, and held while it is sent: as many at once as there are threads. */
const HELD_BYTES_MAX = 256 * 1024
/** How far a service lets the clocks differ, by the protocol. */
const CLOCK_SECONDS_MAX = 300
const SECRET_HINT =
  'Check --secret: it has to be the one that the service has; and that nothing on the way changes the URL.'

const COUNT = v.pipe(v.number(), v.safeInteger(), v.minValue(0))
const RECORD = v.looseObject({
  path: v.string(),
  size: COUNT,
  mtime: v.optional(v.pipe(v.string(), v.regex(/^-?\d{1,15}(?:\.\d{1,9})?$/, 'decimal seconds are expected'))),
  version: v.optional(v.string()),
  sha256: v.optional(v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/, '64 hexadecimal digits are expected'))),
})
type FileRecord = v.InferOutput<typeof RECORD>
const PAGE = v.looseObject({ files: v.array(RECORD), next: v.optional(v.string()) })

/** What `--actor http` is. */
export const httpActor: ActorModule = {
  options: {
    url: { help: 'URL under which the files of the service are', placeholder: 'URL', required: true },
    secret: { help: 'what requests are signed with; the service has the same', required: true, secret: true },
  },
  open: ({ options, threads }: ActorContext) => new HttpActor(options['url'] ?? '', options['secret'] ?? '', threads),
}

class HttpActor implements Actor {
  readonly url: string
  readonly alreadySorted = true
  readonly keeps = { mtimePrecisionNs: 1 }
  readonly #origin: string
  /** Encoded, without a slash at its end. */
  readonly #base: string
  readonly #key: Buffer
  readonly #client: HttpClient

  constructor(text: string, secret: string, threads: number) {
    const url = checkedUrl(text)
    if (secret === '') {
      throw new OperationError('INPUT_INVALID', 'Cannot open the actor "http": the secret is empty', {
        hint: 'Give the secret of the service by --secret.',
      })
    }
    this.url = url.href
    this.#origin = url.origin
    this.#base = url.pathname.replace(/\/+$/, '')
    this.#key = Buffer.from(secret)
    this.#client = new HttpClient(threads + 1)
  }

  async *list({ under, signal }: ActorListOptions): AsyncGenerator<readonly Listed[], void, undefined> {
    const action = `list ${this.url}`
    let after: string | undefined
    for (;;) {
      const query = new URLSearchParams({
        ...(under === '' ? {} : { under }),
        ...(after === undefined ? {} : { after }),
      })
      const text = query.toString()
      const path = `${this.#base}${text === '' ? '' : `?${text}`}`
      const { files, next } = jsonOf(action, PAGE, await this.#send(action, 'GET', path, { signal }))
      if (files.length > 0) yield files.map(listedOf)
      if (next === undefined) return
      // A service that ignores the marker would give the same page for ever.
      if (next === after || (files.length > 0 && next !== files.at(-1)?.path)) {
        const detail = `it names ${JSON.stringify(next)} as the last of a page that does not end there`
        throw new OperationError('STORE_PROTOCOL', `Cannot ${action}: ${detail}`, { hint: 'Mend the service.' })
      }
      after = next
    }
  }

  async upload(file: FileToSend, { signal }: CallOptions): Promise<Listed> {
    const action = `send "${file.path}" to ${this.url}`
    const whole = file.size <= HELD_BYTES_MAX ? await wholeOf(file) : undefined
    const sha256 = whole === undefined ? await hashOf(file) : sha256Of(whole)
    const body = whole ?? guardedStream(file, () => undefined)
    const mtime = timestampToDecimal(file.mtime)
    const sent = { body, sha256, size: file.size, mtime, signal }
    const record = jsonOf(action, RECORD, await this.#send(action, 'PUT', this.#pathOf(file.path), sent))
    if (record.size !== file.size || (record.sha256 !== undefined && record.sha256 !== sha256)) {
      throw new OperationError('STORE_CORRUPT', `Cannot ${action}: the service has other bytes than were sent`)
    }
    return { ...listedOf(record), path: file.path }
  }

  async delete({ path }: TreeEntry, { signal }: CallOptions): Promise<void> {
    const action = `delete "${path}" from ${this.url}`
    try {
      await this.#send(action, 'DELETE', this.#pathOf(path), { signal })
    } catch (error) {
      if (!isOperationError(error, 'STORE_NOT_FOUND')) throw error
    }
  }

  async stat(path: string, options: CallOptions): Promise<TreeEntry | undefined> {
    const record = await this.#record(path, options)
    return record === undefined ? undefined : { mtime: undefined, ...listedOf(record), path, kind: 'file' }
  }

  async hash(file: TreeEntry, algorithm: string, options: CallOptions): Promise<ContentHash | undefined> {
    if (algorithm !== 'sha256') return undefined
    const record = await this.#record(file.path, options)
    if (record?.sha256 === undefined || (file.version !== undefined && record.version !== file.version))
      return undefined
    return { algorithm, digest: record.sha256 }
  }

  async close(): Promise<void> {
    await this.#client.close()
  }

  async #record(path: string, { signal }: CallOptions): Promise<FileRecord | undefined> {
    const action = `look at "${path}" on ${this.url}`
    try {
      return jsonOf(action, RECORD, await this.#send(action, 'GET', this.#pathOf(path), { signal }))
    } catch (error) {
      if (isOperationError(error, 'STORE_NOT_FOUND')) return undefined
      throw error
    }
  }

  #pathOf(path: string): string {
    return `${this.#base}/${path.split('/').map(encodeURIComponent).join('/')}`
  }

  /** Sends one signed request; gives its answer once that is known to be the service's, and to this very request. */
  async #send(action: string, method: string, path: string, request: Signed): Promise<HttpAnswer> {
    const { body, sha256 = sha256Of(NO_BYTES), size = 0, mtime, signal } = request
    const date = String(Math.floor(Date.now() / 1000))
    const nonce = randomBytes(16).toString('hex')
    const signature = this.#sign([PROTOCOL, method, path, date, nonce, sha256, String(size), mtime ?? ''])
    const answer = await this.#client.request({
      action,
      method,
      origin: this.#origin,
      path,
      headers: {
        authorization: `Eider-HMAC-SHA256 ${signature.toString('hex')}`,
        'eider-date': date,
        'eider-nonce': nonce,
        'eider-content-sha256': sha256,
        ...(mtime === undefined ? {} : { 'eider-mtime': mtime }),
        ...(body === undefined ? {} : { 'content-length': String(size), 'content-type': 'application/octet-stream' }),
      },
      ...(body === undefined ? {} : { body }),
      signal,
    })
    if (answer.status < 200 || answer.status > 299) throw refused(action, answer)
    const said = Buffer.from(headerOf(answer.headers, 'eider-signature') ?? '', 'hex')
    const right = this.#sign([`${PROTOCOL}-answer`, nonce, String(answer.status), sha256Of(answer.body)])
    if (said.length !== right.length || !timingSafeEqual(said, right)) {
      throw new OperationError('STORE_CORRUPT', `Cannot ${action}: the answer is not signed by the service`, {
        hint: 'Nothing of it was used: something on the way answers in the place of the service, or changes what it says.',
      })
    }
    return answer
  }

  #sign(lines: readonly string[]): Buffer {
    return createHmac('sha256', this.#key).update(lines.join('\n')).digest()
  }
}

interface Signed {
  readonly body?: Uint8Array | AsyncIterable<Uint8Array>
  readonly sha256?: string
  readonly size?: number
  readonly mtime?: string
  readonly signal: AbortSignal | undefined
}

function checkedUrl(text: string): URL {
  const url = URL.parse(text)
  // What may hold a password is not shown.
  const shown = url !== null && url.username === '' && url.password === '' ? `"${text}"` : 'the URL'
  const hint = 'Give the URL under which the files are, as --url=https://HOST/api/media_files.'
  const cannot = (detail: string): OperationError =>
    new OperationError('INPUT_INVALID', `Cannot open the actor "http": ${detail}`, { hint })
  if (url === null || !/^https?:$/.test(url.protocol)) throw cannot(`${shown} is no http or https URL`)
  if (url.username !== '' || url.password !== '') throw cannot('the URL has a user name in it, and requests are signed')
  if (url.search !== '' || url.hash !== '') throw cannot(`${shown} has a query or a fragment`)
  return url
}

/** A refusal. A clock that is wrong looks like a wrong secret otherwise. */
function refused(action: string, answer: HttpAnswer): OperationError {
  if (answer.status !== 401 && answer.status !== 403) return refusal(action, answer)
  const theirs = Date.parse(headerOf(answer.headers, 'date') ?? '')
  const seconds = Math.round(Math.abs(Date.now() - theirs) / 1000)
  if (seconds <= CLOCK_SECONDS_MAX || Number.isNaN(seconds)) return refusal(action, answer, SECRET_HINT)
  const detail = `the clock of this machine and that of the service are ${seconds} seconds apart`
  return new OperationError('CLOCK_SKEWED', `Cannot ${action}: ${detail}`)
}

function listedOf({ path, size, mtime, version }: FileRecord): Listed {
  const time = mtime === undefined ? undefined : timestampFromDecimal(mtime)
  return { path, size, kind: 'file', mtime: time, ...(version === undefined ? {} : { version: version as Version }) }
}

async function hashOf(file: FileToSend): Promise<string> {
  const hash = createHash('sha256')
  for await (const _ of guardedStream(file, (chunk) => hash.update(chunk)));
  return hash.digest('hex')
}

function sha256Of(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex')
}
