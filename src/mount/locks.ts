/**
 * Who waits for whom inside the mount. `Mutex` puts the publishes, removals and moves of one inode in a row. `TreeLock`
 * lets all other operations run side by side, except that the move of a directory (on S3 minutes of copying) has all that
 * lies under it to itself: nothing is published below it meanwhile under a path that is about to go.
 *
 * Order, which excludes deadlock: first the tree, then inodes; no operation takes the tree twice.
 */
import type { Node } from './node.ts'

/** Runs one piece of work after another. */
export class Mutex {
  #tail: Promise<unknown> = Promise.resolve()
  #count = 0

  /** Whether something runs or waits. */
  get busy(): boolean {
    return this.#count > 0
  }

  /** Runs `work` after all that came before; settles as it does. */
  run<T>(work: () => Promise<T>): Promise<T> {
    this.#count++
    const result = this.#tail.then(work).finally(() => {
      this.#count--
    })
    this.#tail = result.catch(() => undefined)
    return result
  }

  /** Resolves when all that has been asked for until now has ended. */
  async idle(): Promise<void> {
    await this.#tail
  }
}

interface Claim {
  /** Nodes whose paths must not change meanwhile. */
  readonly points: readonly Node[]
  /** Directories that the holder has to itself, with all that lies under them. */
  readonly wholes: readonly Node[]
  granted: boolean
  wake: (() => void) | undefined
}

/** Whether `node` is `directory` or lies under it. */
function isUnder(node: Node, directory: Node): boolean {
  for (let at: Node | undefined = node; at !== undefined; at = at.parent) if (at === directory) return true
  return false
}

function collide(a: Claim, b: Claim): boolean {
  const within = (nodes: readonly Node[], wholes: readonly Node[]): boolean =>
    wholes.some((whole) => nodes.some((node) => isUnder(node, whole)))
  return (
    within(a.points, b.wholes) || within(a.wholes, b.wholes) || within(b.points, a.wholes) || within(b.wholes, a.wholes)
  )
}

/** Claims on parts of the tree, granted in the order they were made in unless they do not meet. */
export class TreeLock {
  /** In order of arrival, granted or not. */
  readonly #claims: Claim[] = []
  #wholes = 0

  /** Runs `work` while no directory move touches the paths of `nodes`. */
  async shared<T>(nodes: readonly Node[], work: () => Promise<T>): Promise<T> {
    return this.#run({ points: nodes, wholes: [], granted: false, wake: undefined }, work)
  }

  /** Runs `work` with the directories `wholes` to itself, while the paths of `points` stay. */
  async exclusive<T>(wholes: readonly Node[], points: readonly Node[], work: () => Promise<T>): Promise<T> {
    return this.#run({ points, wholes, granted: false, wake: undefined }, work)
  }

  /**
   * Undefined while nothing moves above `node`; else a promise to wait for. A move that only waits does not count: it may
   * be waiting for the very operation that asks.
   */
  settled(node: Node): Promise<void> | undefined {
    if (this.#wholes === 0) return undefined
    const claim = this.#claims.find(({ wholes, granted }) => granted && wholes.some((whole) => isUnder(node, whole)))
    return claim === undefined ? undefined : this.shared([node], async () => undefined)
  }

  async #run<T>(claim: Claim, work: () => Promise<T>): Promise<T> {
    this.#claims.push(claim)
    if (claim.wholes.length > 0) this.#wholes++
    try {
      // Evaluated anew at each wake-up: a move that has ended may have changed who lies under whom.
      while (this.#wholes > 0 && this.#isBlocked(claim)) {
        await new Promise<void>((resolve) => {
          claim.wake = resolve
        })
        claim.wake = undefined
      }
      claim.granted = true
      return await work()
    } finally {
      this.#claims.splice(this.#claims.indexOf(claim), 1)
      if (claim.wholes.length > 0) this.#wholes--
      for (const waiting of this.#claims) waiting.wake?.()
    }
  }

  #isBlocked(claim: Claim): boolean {
    for (const earlier of this.#claims) {
      if (earlier === claim) return false
      if (collide(earlier, claim)) return true
    }
    return false
  }
}
