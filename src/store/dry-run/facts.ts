/**
 * What a step of a dry run has to know of the store within. A step is synchronous, so that nothing comes between its checks
 * and its change; where it meets a question whose answer is not known yet, it ends, the answer is fetched, and the step is
 * made anew, on whatever tree there is by then. A step asks for all it needs before it changes anything.
 */
import { isOperationError, type OperationError } from '#base/errors.ts'
import { nameOf } from '#store/path.ts'
import type { Entry, Kind, Store } from '#store/store.ts'

/** Runs `step` until it has met no question without an answer; gives what it gives. */
export async function withFacts<T>(facts: Facts, step: (facts: Facts) => T): Promise<T> {
  for (;;) {
    try {
      return step(facts)
    } catch (error) {
      if (!(error instanceof Unanswered)) throw error
      await error.fetch()
    }
  }
}

export class Facts {
  readonly #inner: Store
  readonly #options: { readonly signal?: AbortSignal }
  readonly #expected: Kind | undefined
  readonly #entries = new Map<string, Entry | OperationError>()
  readonly #names = new Map<string, { readonly count: number; readonly names: readonly string[] }>()

  /** `expected` is what the inner store is told to look for first. */
  constructor(inner: Store, signal: AbortSignal | undefined, expected?: Kind) {
    this.#inner = inner
    this.#expected = expected
    this.#options = signal === undefined ? {} : { signal }
  }

  /** What the inner store has at the path, or its error of nothing there or no directory on the way. */
  entry(path: string): Entry | OperationError {
    const known = this.#entries.get(path)
    if (known !== undefined) return known
    const expected = this.#expected === undefined ? {} : { expected: this.#expected }
    throw new Unanswered(async () => {
      this.#entries.set(path, await orMissing(this.#inner.stat(path, { ...this.#options, ...expected })))
    })
  }

  /** What somebody else has found out already. */
  tell(path: string, fact: Entry | OperationError): void {
    this.#entries.set(path, fact)
  }

  /** The first names in the inner directory: `count` of them, or all that there are; none where it is not there. */
  names(path: string, count: number): readonly string[] {
    const known = this.#names.get(path)
    if (known !== undefined && known.count >= count) return known.names
    throw new Unanswered(async () => {
      const names: string[] = []
      const found = await orMissing(this.#collect(path, count, names))
      this.#names.set(path, { count, names: isOperationError(found) ? [] : names })
    })
  }

  async #collect(path: string, count: number, names: string[]): Promise<void> {
    for await (const page of this.#inner.list(path, { ...this.#options, pageEntries: count })) {
      for (const entry of page) names.push(nameOf(entry.path))
      if (names.length >= count) return
    }
  }
}

class Unanswered extends Error {
  readonly fetch: () => Promise<void>

  constructor(fetch: () => Promise<void>) {
    super('A fact about the store within is to be fetched')
    this.fetch = fetch
  }
}

async function orMissing<T>(promise: Promise<T>): Promise<T | OperationError> {
  try {
    return await promise
  } catch (error) {
    if (isOperationError(error, 'STORE_NOT_FOUND', 'STORE_NOT_DIRECTORY')) return error
    throw error
  }
}
