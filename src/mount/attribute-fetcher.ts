/**
 * `ls -l` on a store whose listings do not tell attributes: the kernel asks name by name, in the order of the listing. Who
 * follows a listing is recognised as a sequential reader is, and attributes are fetched ahead of it, 2, 4, ... up to 64 at
 * once; who looks at one file costs one request. Each name is asked for once. Once the kernel sees that a reader looks at what
 * it lists, it asks for names with their attributes, and gets them in the same answers.
 */
import type { MountState } from './mount-state.ts'
import { stateOf } from './node-table.ts'
import type { Node } from './node.ts'

/** 64 at once: some 4,000 a second from an endpoint 15 ms away, which is what one process can take in. */
export const WINDOW_MAX = 64

export class AttributeFetcher {
  readonly #state: MountState
  readonly #fetch: (parent: Node, name: string) => Promise<unknown>

  constructor(state: MountState, fetch: (parent: Node, name: string) => Promise<unknown>) {
    this.#state = state
    this.#fetch = fetch
  }

  /** Tells of a lookup of `node`; may begin to fetch it and those after it. */
  passed(parent: Node, node: Node): void {
    const { walk, visit } = stateOf(parent)
    if (node.directory === undefined) visit?.walk.looked()
    const position = node.listPosition
    if (walk === undefined || walk.names[position] !== node.name) return
    // A reader that skips a few (files that it knows, names that it filters) still follows the listing.
    const follows = position >= walk.next && position <= walk.next + WINDOW_MAX
    walk.window = follows ? Math.min(WINDOW_MAX, Math.max(1, walk.window * 2)) : 1
    walk.asked = follows ? Math.max(walk.asked, position) : position
    walk.next = position + 1
    const end = Math.min(walk.names.length, position + walk.window)
    for (; walk.asked < end; walk.asked++) this.#ask(parent, walk.names[walk.asked])
  }

  /** Asks for the name at `position` and those after it; gives a promise to wait for where that one is not known yet. */
  follow(parent: Node, position: number): Promise<unknown> | undefined {
    const { walk, children, pending } = stateOf(parent)
    const name = walk?.names[position]
    if (walk === undefined || name === undefined) return undefined
    walk.window = WINDOW_MAX
    walk.asked = position >= walk.next ? Math.max(walk.asked, position) : position
    walk.next = position + 1
    const end = Math.min(walk.names.length, position + WINDOW_MAX)
    for (; walk.asked < end; walk.asked++) this.#ask(parent, walk.names[walk.asked])
    const node = children.get(name)
    if (node === undefined || this.#state.isFresh(node)) return undefined
    return pending.get(name)?.catch(() => undefined)
  }

  #ask(parent: Node, name: string | undefined): void {
    if (name === undefined) return
    const { children, pending } = stateOf(parent)
    const node = children.get(name)
    if (node === undefined || this.#state.isFresh(node) || pending.has(name)) return
    this.#fetch(parent, name).catch((error: unknown) => {
      // Whoever looks the name up asks again and gets the error; nobody waits for this one.
      this.#state.log.debug({ err: error, name }, 'Cannot fetch attributes ahead')
    })
  }
}
