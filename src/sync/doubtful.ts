/** Paths whose absence from a listing proves nothing, in bounded memory. */
import { parentOf } from '#store/path.ts'

/** One by one; past that many nothing is proven of any path. */
const PATHS_MAX = 100_000

export class Doubtful {
  readonly #max: number
  readonly #trees = new Set<string>()
  readonly #directories = new Set<string>()

  constructor(max = PATHS_MAX) {
    this.#max = max
  }

  /** What is at the path, and all that lies under it, may be there; the directories above it are. */
  add(path: string): void {
    if (this.#isFull) return
    this.#trees.add(path)
    for (let above = parentOf(path); above !== '' && !this.#directories.has(above); above = parentOf(above)) {
      this.#directories.add(above)
    }
  }

  /** Whether a path that the listing has passed without naming it is not there. */
  provesAbsence(path: string): boolean {
    if (this.#isFull || this.#directories.has(path) || this.#trees.has('')) return false
    for (let at = path; at !== ''; at = parentOf(at)) if (this.#trees.has(at)) return false
    return true
  }

  get #isFull(): boolean {
    return this.#trees.size + this.#directories.size >= this.#max
  }
}
