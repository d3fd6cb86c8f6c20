/**
 * Files that are written without being closed: each told when it begins, then at most once in an interval, and once
 * more after the last write. Plain state; its owner brings the time.
 */
import { isWithin } from '#store/path.ts'

interface OpenFile {
  toldAt: number
  isPending: boolean
}

export class OpenFiles {
  readonly #files = new Map<string, OpenFile>()
  readonly #everyMs: number

  constructor(everyMs: number) {
    this.#everyMs = everyMs
  }

  get isEmpty(): boolean {
    return this.#files.size === 0
  }

  /** It was written: whether to tell so now. */
  modified(path: string, now: number): boolean {
    const file = this.#files.get(path)
    if (file === undefined) {
      this.#files.set(path, { toldAt: now, isPending: false })
      return true
    }
    file.isPending = true
    return false
  }

  closed(path: string): void {
    this.#files.delete(path)
  }

  /** Renamed, or in a directory that was. */
  moved(from: string, to: string): void {
    for (const [path, file] of [...this.#files]) {
      if (!isWithin(path, from)) continue
      this.#files.delete(path)
      this.#files.set(to + path.slice(from.length), file)
    }
  }

  /** Those to tell now; those that were not written for an interval are let go. */
  due(now: number): string[] {
    const paths: string[] = []
    for (const [path, file] of this.#files) {
      if (now - file.toldAt < this.#everyMs) continue
      if (!file.isPending) this.#files.delete(path)
      else {
        paths.push(path)
        file.toldAt = now
        file.isPending = false
      }
    }
    return paths
  }
}
