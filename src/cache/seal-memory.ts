/** Remembers which whole files were checked in this process, and when they had been changed last: the latest many of them. */
import type { DataId } from './cache-index.ts'
import type { Seal, Seals } from './cached-file.ts'

/** Some 10 MB. */
const SEALS_MAX = 65_536

export class SealMemory implements Seals {
  readonly #seals = new Map<DataId, Seal>()

  get(id: DataId): Seal | undefined {
    return this.#seals.get(id)
  }

  set(id: DataId, seal: Seal): void {
    this.#seals.delete(id)
    this.#seals.set(id, seal)
    if (this.#seals.size > SEALS_MAX) for (const oldest of this.#seals.keys()) return void this.#seals.delete(oldest)
  }

  delete(id: DataId): void {
    this.#seals.delete(id)
  }
}
