/** Paths that somebody works on, each with all that lies under it: tells in the depth of a path whether they meet it. */
import { parentOf } from '#store/path.ts'

export class Claims {
  /** Claimed themselves, and how often. */
  readonly #paths = new Map<string, number>()
  /** Directories above what is claimed. */
  readonly #above = new Map<string, number>()

  add(path: string): void {
    count(this.#paths, path, 1)
    for (let at = path; at !== '';) count(this.#above, (at = parentOf(at)), 1)
  }

  delete(path: string): void {
    count(this.#paths, path, -1)
    for (let at = path; at !== '';) count(this.#above, (at = parentOf(at)), -1)
  }

  /** Whether `path` is claimed, or lies under what is, or something under it is. */
  meet(path: string): boolean {
    if (this.#paths.size === 0) return false
    if (this.#above.has(path)) return true
    for (let at = path; ; at = parentOf(at)) {
      if (this.#paths.has(at)) return true
      if (at === '') return false
    }
  }
}

function count(counts: Map<string, number>, path: string, by: number): void {
  const now = (counts.get(path) ?? 0) + by
  if (now === 0) counts.delete(path)
  else counts.set(path, now)
}
