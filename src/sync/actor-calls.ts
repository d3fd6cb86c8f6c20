/**
 * What the calls of somebody's actor are held to: each ends, in errors that name the actor, and an upload that tells nothing has
 * taken all bytes. A call may last as long as bytes are read for it; one that stands still for minutes is given up, though
 * nothing can be done about what it goes on doing.
 */
import { isOperationError, OperationError } from '#base/errors.ts'

import type { Actor, ActorListOptions, FileToSend, Listed } from './actor.ts'

/** As long as the stores here wait for an answer. */
const QUIET_MS = 5 * 60_000

/** The same actor, so held. `quietMs` is for tests. */
export function heldActor(name: string, actor: Actor, quietMs = QUIET_MS): Actor {
  const held: Record<string, unknown> = { ...actor }
  for (const [call, member] of Object.entries(actor)) {
    if (typeof member !== 'function' || call === 'list' || call === 'upload') continue
    const plain = member as (...args: unknown[]) => Promise<unknown>
    held[call] = (...args: unknown[]) => new Patience(name, call, quietMs).until(() => plain(...args))
  }
  held['list'] = (options: ActorListOptions) => heldList(name, actor.list(options), quietMs)
  held['upload'] = async (file: FileToSend, options: Parameters<Actor['upload']>[1]) => {
    const patience = new Patience(name, `upload of "${file.path}"`, quietMs)
    let bytes = 0
    let isSource = false
    const counted: FileToSend = {
      ...file,
      stream: () => {
        bytes = 0
        return noted(file.stream(), (chunk) => {
          bytes += chunk.length
          patience.renew()
        })
      },
      source: () => {
        isSource = true
        return file.source()
      },
    }
    const listed = (await patience.until(() => actor.upload(counted, options))) ?? undefined
    if (listed === undefined && !isSource && bytes < file.size) {
      throw new OperationError(
        'STORE_PROTOCOL',
        `Cannot take it that the actor "${name}" has sent "${file.path}": it has read ${bytes} of ${file.size} bytes`,
        { hint: 'An upload that needs no bytes gives the entry that is there: { path, size, … }.' },
      )
    }
    return listed
  }
  return held as unknown as Actor
}

/** A listing keeps what it says of itself. */
function heldList(
  name: string,
  given: AsyncIterable<Listed | readonly Listed[]>,
  quietMs: number,
): AsyncIterable<Listed | readonly Listed[]> {
  if (typeof given?.[Symbol.asyncIterator] !== 'function') return given
  const { alreadySorted } = given as { readonly alreadySorted?: unknown }
  return {
    ...(alreadySorted === undefined ? {} : { alreadySorted }),
    [Symbol.asyncIterator]: () => {
      const iterator = given[Symbol.asyncIterator]()
      return {
        next: () => new Patience(name, 'list', quietMs).until(() => iterator.next()),
        return: async () => (await iterator.return?.()) ?? { done: true, value: undefined },
      }
    },
  }
}

async function* noted(
  stream: AsyncIterable<Uint8Array>,
  note: (chunk: Uint8Array) => void,
): AsyncGenerator<Uint8Array, void, undefined> {
  for await (const chunk of stream) {
    note(chunk)
    yield chunk
  }
}

/** Of one call. Its timer also keeps the process from ending while nothing else is waited for. */
class Patience {
  readonly #name: string
  readonly #what: string
  readonly #quietMs: number
  #timer: NodeJS.Timeout | undefined

  constructor(name: string, what: string, quietMs: number) {
    this.#name = name
    this.#what = what
    this.#quietMs = quietMs
  }

  /** The call has not come to a stop. */
  renew(): void {
    this.#timer?.refresh()
  }

  /** @throws OperationError `STORE_TIMEOUT`; `STORE_UNAVAILABLE` for what the author's code throws that is no error of Eider's */
  async until<T>(call: () => Promise<T>): Promise<T> {
    const { promise: late, reject } = Promise.withResolvers<never>()
    this.#timer = setTimeout(() => {
      const minutes = this.#quietMs / 60_000
      const detail = `nothing has come of it for ${minutes} minutes`
      reject(
        new OperationError(
          'STORE_TIMEOUT',
          `Cannot wait for the ${this.#what} of the actor "${this.#name}": ${detail}`,
        ),
      )
    }, this.#quietMs)
    try {
      return await Promise.race([call(), late])
    } catch (error) {
      if (isOperationError(error)) throw error
      const detail = error instanceof Error ? error.message : String(error)
      throw new OperationError('STORE_UNAVAILABLE', `The actor "${this.#name}" failed (${this.#what}): ${detail}`, {
        cause: error,
        hint: 'The words are those of the actor itself.',
      })
    } finally {
      clearTimeout(this.#timer)
    }
  }
}
