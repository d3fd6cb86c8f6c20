/**
 * One account of a Swift: requests with a token that is renewed before it ends, and where it is refused. A file's body is made anew
 * for the second sending; one that cannot be is refused with a code by which the sync begins it again.
 *
 * A Swift that refuses a token does not take in the body, and may drop the connection before its answer is read. So after an upload
 * that broke, a small request proves the token before the next one: else a file could be sent in vain for ever.
 */
import * as v from 'valibot'

import { isOperationError, OperationError } from '#base/errors.ts'
import { untilAborted } from '#store/abort.ts'

import { refusal, type HttpAnswer, type HttpClient, type HttpRequest } from './http-client.ts'
import { jsonOf } from './json-answer.ts'
import { logIn, type SwiftLogin, type SwiftSession } from './swift-login.ts'

/** What Swift holds where it does not tell. */
const DEFAULT_LIMITS = { nameBytesMax: 1024, segmentsMax: 1000, fileBytesMax: 5 * 2 ** 30, deletesMax: 0 }

export interface SwiftLimits {
  readonly nameBytesMax: number
  /** Segments of a static large object. */
  readonly segmentsMax: number
  /** Of a file in one piece. */
  readonly fileBytesMax: number
  /** Names in one bulk delete; 0 where there are none. */
  readonly deletesMax: number
}

export interface SwiftRequest {
  readonly action: string
  readonly method: string
  /** Below the account, encoded, with the query. */
  readonly path: string
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: Uint8Array | (() => AsyncIterable<Uint8Array>)
  /** The body can be made only once. */
  readonly isOnce?: boolean
  readonly timeoutMs?: number
  readonly signal: AbortSignal | undefined
}

const COUNT = v.optional(v.pipe(v.number(), v.minValue(1)))
const INFO = v.looseObject({
  swift: v.optional(v.looseObject({ max_object_name_length: COUNT, max_file_size: COUNT })),
  slo: v.optional(v.looseObject({ max_manifest_segments: COUNT })),
  bulk_delete: v.optional(v.looseObject({ max_deletes_per_request: COUNT })),
})

export class SwiftAccount {
  readonly #client: HttpClient
  readonly #login: SwiftLogin
  #session: SwiftSession | undefined
  #renewing: Promise<SwiftSession> | undefined
  #isDoubtful = false

  constructor(client: HttpClient, login: SwiftLogin) {
    this.#client = client
    this.#login = login
  }

  /** The storage URL as it was told at first. */
  async url(signal: AbortSignal | undefined): Promise<string> {
    return (await this.#current(signal)).storageUrl.href
  }

  /** What the service tells of itself; defaults where it does not. */
  async limits(signal: AbortSignal | undefined): Promise<SwiftLimits> {
    const { storageUrl } = await this.#current(signal)
    const action = `ask ${storageUrl.origin} for its limits`
    // Next to the version of the API: "/info" for "/v1/AUTH_x", "/swift/info" for "/swift/v1".
    const path = `${storageUrl.pathname.replace(/\/v1(?:\.0)?(?:\/.*)?$/, '')}/info`
    const answer = await this.#client.request({
      action,
      method: 'GET',
      origin: storageUrl.origin,
      path,
      headers: { accept: 'application/json' },
      signal,
    })
    // An operator can turn it off.
    if (answer.status !== 200) return DEFAULT_LIMITS
    const { swift, slo, bulk_delete: bulk } = jsonOf(action, INFO, answer)
    return {
      nameBytesMax: swift?.max_object_name_length ?? DEFAULT_LIMITS.nameBytesMax,
      segmentsMax: slo === undefined ? 0 : (slo.max_manifest_segments ?? DEFAULT_LIMITS.segmentsMax),
      // Swift's own has two bytes more than 5 GiB.
      fileBytesMax: swift?.max_file_size ?? DEFAULT_LIMITS.fileBytesMax,
      deletesMax: bulk === undefined ? 0 : (bulk.max_deletes_per_request ?? 1000),
    }
  }

  /**
   * Sends a request; gives its answer, whatever its status but 401. `isRefused` finds a token that was refused in the midst of what
   * the answer tells.
   */
  async request(request: SwiftRequest, isRefused: (answer: HttpAnswer) => boolean = () => false): Promise<HttpAnswer> {
    const send = (sent: HttpRequest): Promise<HttpAnswer> => this.#client.request(sent)
    return this.#withToken(request, send, (answer) => answer.status === 401 || isRefused(answer))
  }

  /** The same, with the body of a good answer given to `take` as it comes. */
  async receive(request: SwiftRequest, take: (chunk: Buffer) => void): Promise<HttpAnswer> {
    const send = (sent: HttpRequest): Promise<HttpAnswer> => this.#client.receive(sent, take)
    return this.#withToken(request, send, ({ status }) => status === 401)
  }

  async #withToken(
    request: SwiftRequest,
    send: (request: HttpRequest) => Promise<HttpAnswer>,
    isRefused: (answer: HttpAnswer) => boolean,
  ): Promise<HttpAnswer> {
    const { action, body, isOnce = false, signal } = request
    if (this.#isDoubtful && body !== undefined) await this.#prove(signal)
    for (let attempt = 1; ; attempt++) {
      const session = await this.#current(signal)
      const answer = await this.#attempt(request, session, send)
      if (!isRefused(answer)) return answer
      if (this.#session === session) this.#session = undefined
      if (attempt === 2) throw refusal(action, { status: 401, body: Buffer.alloc(0) })
      if (isOnce && typeof body === 'function') {
        throw new OperationError('STORE_UNAVAILABLE', `Cannot ${action}: the token was refused in its midst`)
      }
    }
  }

  async #attempt(
    request: SwiftRequest,
    session: SwiftSession,
    send: (request: HttpRequest) => Promise<HttpAnswer>,
  ): Promise<HttpAnswer> {
    const { body, headers, path, isOnce: _, ...rest } = request
    const { storageUrl, token } = session
    try {
      return await send({
        ...rest,
        origin: storageUrl.origin,
        path: storageUrl.pathname + path,
        headers: { ...headers, 'x-auth-token': token },
        ...(body === undefined ? {} : { body: typeof body === 'function' ? body() : body }),
      })
    } catch (error) {
      if (body !== undefined && isOperationError(error, 'STORE_UNAVAILABLE')) this.#isDoubtful = true
      throw error
    }
  }

  async #prove(signal: AbortSignal | undefined): Promise<void> {
    this.#isDoubtful = false
    await this.request({ action: 'prove the token', method: 'HEAD', path: '', signal })
  }

  /** The session, renewed where its token ends soon. Whoever else needs one meanwhile waits for the same. */
  async #current(signal: AbortSignal | undefined): Promise<SwiftSession> {
    const session = this.#session
    if (session !== undefined && Date.now() < session.renewAtMs) return session
    this.#renewing ??= this.#renew().finally(() => {
      this.#renewing = undefined
    })
    return untilAborted('get a token', this.#renewing, signal)
  }

  async #renew(): Promise<SwiftSession> {
    // Without a signal, as it is for all that wait: the deadlines of the client end it.
    this.#session = await logIn(this.#client, this.#login)
    return this.#session
  }
}
