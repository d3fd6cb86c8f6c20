/** A store that has what it cannot show, for tests of who lists it. */
import { isWithin } from '#store/path.ts'
import type { Entry, ListOptions, Store } from '#store/store.ts'

/** The same store, whose listings hide these, too: what lies next in a directory, or in all of it where it is recursive. */
export function withHidden<S extends Store>(store: S, hidden: readonly string[]): S {
  const list = store.list.bind(store)
  async function* listing(path: string, options: ListOptions = {}): AsyncGenerator<readonly Entry[]> {
    const { recursive = false, onHidden } = options
    for (const each of hidden) {
      const relative = path === '' ? each : each.slice(path.length + 1)
      if (isWithin(each, path) && (recursive || !relative.includes('/'))) onHidden?.({ path: each, detail: 'hidden' })
    }
    yield* list(path, options)
  }
  return Object.assign(store, { list: listing })
}
