/** A journal that keeps for the simulator what its machine has let go of, so that the whole history can be replayed in the end. */
import type { Journal } from '#cluster/journal/journal.ts'
import type { MemoryJournal } from '#cluster/journal/memory-journal.ts'

export class KeptJournal implements Journal {
  readonly #inner: MemoryJournal
  /** Entries from the first one on, among them all that are let go of. */
  readonly #history: Buffer[]

  constructor(inner: MemoryJournal, history: Buffer[]) {
    this.#inner = inner
    this.#history = history
  }

  get first(): number {
    return this.#inner.first
  }

  get last(): number {
    return this.#inner.last
  }

  append(at: number, entries: readonly Uint8Array[]): Promise<void> {
    return this.#inner.append(at, entries)
  }

  read(from: number, each: (number: number, entry: Buffer) => void): Promise<void> {
    return this.#inner.read(from, each)
  }

  async trim(through: number): Promise<void> {
    await this.#keep(through)
    await this.#inner.trim(through)
  }

  close(): Promise<void> {
    return this.#inner.close()
  }

  /** Every entry that there ever was and that is durable. */
  async all(): Promise<readonly Buffer[]> {
    await this.#keep(this.#inner.last)
    return this.#history
  }

  async #keep(through: number): Promise<void> {
    if (through <= this.#history.length) return
    await this.#inner.read(this.#history.length + 1, (number, entry) => {
      if (number <= through) this.#history.push(Buffer.from(entry))
    })
  }
}
