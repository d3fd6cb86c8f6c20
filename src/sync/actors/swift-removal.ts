/**
 * Removing objects of a Swift: many in one request where the service has bulk deletes, else one by one, several at a time. What is
 * not there counts as removed. A bulk delete tells of each object that stayed; where it ends early it does not tell which ones
 * it never came to, so those are asked for one by one, which may be done twice.
 */
import * as v from 'valibot'

import { isOperationError, type OperationError } from '#base/errors.ts'

import { refusal, type HttpAnswer } from './http-client.ts'
import { jsonOf } from './json-answer.ts'
import type { SwiftAccount } from './swift-account.ts'
import { encodedName } from './swift-object.ts'

/** In one request, however many more are allowed: Swift deletes two at a time, and a caller waits for all of them. */
const BULK_NAMES_MAX = 1000
/** For a thousand, with a second for each. */
const BULK_MS_MAX = 1_000_000

const OUTCOME = v.looseObject({
  'Number Deleted': v.number(),
  'Number Not Found': v.number(),
  'Response Status': v.string(),
  Errors: v.array(v.tuple([v.string(), v.string()])),
})

export class SwiftRemoval {
  readonly #account: SwiftAccount
  readonly #bulkNamesMax: number
  readonly #threads: number

  /** `deletesMax`: names in a bulk delete, 0 where there are none. */
  constructor(account: SwiftAccount, deletesMax: number, threads: number) {
    this.#account = account
    this.#bulkNamesMax = Math.min(deletesMax, BULK_NAMES_MAX)
    this.#threads = threads
  }

  /** `container`: encoded, with a slash before it. For each name, undefined or what kept it. */
  async removeAll(
    container: string,
    names: readonly string[],
    signal: AbortSignal | undefined,
  ): Promise<readonly (Error | undefined)[]> {
    if (this.#bulkNamesMax === 0 || names.length < 2) return this.#oneByOne(container, names, signal)
    const errors: (Error | undefined)[] = []
    for (let at = 0; at < names.length; at += this.#bulkNamesMax) {
      errors.push(...(await this.#bulk(container, names.slice(at, at + this.#bulkNamesMax), signal)))
    }
    return errors
  }

  async #oneByOne(
    container: string,
    names: readonly string[],
    signal: AbortSignal | undefined,
  ): Promise<(Error | undefined)[]> {
    const errors: (Error | undefined)[] = names.map(() => undefined)
    const left = names.entries()
    const work = async (): Promise<void> => {
      for (const [index, name] of left) errors[index] = await this.#one(container, name, signal)
    }
    await Promise.all(Array.from({ length: Math.min(this.#threads, names.length) }, work))
    return errors
  }

  async #one(container: string, name: string, signal: AbortSignal | undefined): Promise<Error | undefined> {
    const action = `delete "${name}"`
    try {
      const path = `${container}/${encodedName(name)}`
      const answer = await this.#account.request({ action, method: 'DELETE', path, signal })
      const isGone = answer.status === 404 || (answer.status >= 200 && answer.status < 300)
      return isGone ? undefined : refusal(action, answer)
    } catch (error) {
      if (isOperationError(error) && error.code !== 'ABORTED') return error
      throw error
    }
  }

  async #bulk(
    container: string,
    names: readonly string[],
    signal: AbortSignal | undefined,
  ): Promise<readonly (Error | undefined)[]> {
    const action = `delete ${names.length} objects`
    const answer = await this.#account.request(
      {
        action,
        method: 'POST',
        path: '?bulk-delete',
        headers: { 'content-type': 'text/plain', accept: 'application/json' },
        body: Buffer.from(names.map((name) => `${container}/${encodedName(name)}\n`).join('')),
        timeoutMs: BULK_MS_MAX,
        signal,
      },
      // It answers 200 before it begins, and tells at the end how it went.
      (whole) => whole.status === 200 && outcomeOf(action, whole)['Response Status'].startsWith('401'),
    )
    if (answer.status !== 200) throw refusal(action, answer)
    const outcome = outcomeOf(action, answer)
    const refused = new Map(outcome.Errors.map(([name, status]) => [decoded(name), status]))
    const told = outcome['Number Deleted'] + outcome['Number Not Found'] + refused.size
    const errors = names.map((name): Error | undefined => {
      const status = refused.get(`${decoded(container)}/${name}`)
      return status === undefined ? undefined : refusalOf(name, status)
    })
    if (told >= names.length) return errors
    const open = errors.flatMap((error, index) => (error === undefined ? [index] : []))
    const rest = await this.#oneByOne(
      container,
      open.map((index) => names[index] ?? ''),
      signal,
    )
    for (const [at, index] of open.entries()) errors[index] = rest[at]
    return errors
  }
}

function outcomeOf(action: string, answer: HttpAnswer): v.InferOutput<typeof OUTCOME> {
  return jsonOf(action, OUTCOME, answer)
}

function refusalOf(name: string, status: string): OperationError {
  return refusal(`delete "${name}"`, { status: Number.parseInt(status, 10), body: Buffer.alloc(0) })
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    // Not one of the names that were sent, so it is as good as none.
    return text
  }
}
