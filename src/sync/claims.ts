/** Paths that somebody works on, each with all that lies under it: tells in the depth of a path whether they meet it. */
import { parentOf } from '#store/path.ts'

export class Claims {
  /** Claimed themselves, and how often. */
  readonly #paths = new Map<string, number>()
  /** Directories above what is claimed, with the claims below each. */
  readonly #above = new Map<string, Map<string, number>>()

  add(path: string): void {
    count(this.#paths, path, 1)
    for (let at = path; at !== '';) {
      at = parentOf(at)
      const below = this.#above.get(at)
      if (below === undefined) this.#above.set(at, new Map([[path, 1]]))
      else count(below, path, 1)
    }
  }

  delete(path: string): void {
    count(this.#paths, path, -1)
    for (let at = path; at !== '';) {
      at = parentOf(at)
      const below = this.#above.get(at)
      if (below === undefined) continue
      count(below, path, -1)
      if (below.size === 0) this.#above.delete(at)
    }
  }

  /** The claim that `path` is, lies under or lies above; one of them, undefined where there is none. */
  meets(path: string): string | undefined {
    if (this.#paths.size === 0) return undefined
    for (const claim of this.#above.get(path)?.keys() ?? []) return claim
    for (let at = path; ; at = parentOf(at)) {
      if (this.#paths.has(at)) return at
      if (at === '') return undefined
    }
  }
}

function count(counts: Map<string, number>, path: string, by: number): void {
  const now = (counts.get(path) ?? 0) + by
  if (now === 0) counts.delete(path)
  else counts.set(path, now)
}
