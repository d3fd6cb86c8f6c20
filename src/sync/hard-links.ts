/**
 * Files with several names: a write by one of them changes what is at the others, of which nobody tells. Holds the names of such
 * files alone, as far as they were met.
 */
import type { TreeEntry } from './tree.ts'

export class HardLinks {
  readonly #names = new Map<string, Set<string>>()

  note({ path, identity }: TreeEntry): void {
    if (identity?.links === undefined) return
    const key = `${identity.device} ${identity.inode}`
    const names = this.#names.get(key)
    if (names === undefined) this.#names.set(key, new Set([path]))
    else names.add(path)
  }

  /** Names that the file of `entry` had when they were met; they may be another's by now. */
  of({ identity }: TreeEntry): readonly string[] {
    if (identity === undefined) return []
    const key = `${identity.device} ${identity.inode}`
    const names = [...(this.#names.get(key) ?? [])]
    // It has one name again, or none.
    if (identity.links === undefined) this.#names.delete(key)
    return names
  }
}
