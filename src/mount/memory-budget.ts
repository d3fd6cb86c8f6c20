/**
 * One bound for what all open files of a mount fetch ahead. Who gets no share does without: a read that somebody waits
 * for never asks here.
 */
import { assert } from '#base/assert.ts'

export class MemoryBudget {
  readonly bytesMax: number
  #used = 0

  constructor(bytesMax: number) {
    this.bytesMax = bytesMax
  }

  get used(): number {
    return this.#used
  }

  /** Takes a share, or says that there is none left. */
  take(bytes: number): boolean {
    if (this.#used + bytes > this.bytesMax) return false
    this.#used += bytes
    return true
  }

  give(bytes: number): void {
    this.#used -= bytes
    assert(this.#used >= 0, 'no more memory is given back than was taken')
  }
}
