/**
 * A set of inodes, of which there may be hundreds of millions: shards give out the counters of ids one after another, so bits by counter are dense. Memory: an
 * eighth of a byte for each id around those that are in it.
 */
import { type InodeId, inodeShard, inodeType } from '#cluster/inode-id.ts'

const CHUNK_BITS = 2 ** 15
const COUNTERS = 2 ** 43

export class InodeSet {
  readonly #chunks = new Map<string, Uint8Array>()

  has(inode: InodeId): boolean {
    const { key, bit } = placeOf(inode)
    return (((this.#chunks.get(key)?.[bit >>> 3] ?? 0) >>> (bit & 7)) & 1) === 1
  }

  /** Whether it was not there before. */
  add(inode: InodeId): boolean {
    const { key, bit } = placeOf(inode)
    let chunk = this.#chunks.get(key)
    if (chunk === undefined) {
      chunk = new Uint8Array(CHUNK_BITS / 8)
      this.#chunks.set(key, chunk)
    }
    const before = chunk[bit >>> 3] ?? 0
    chunk[bit >>> 3] = before | (1 << (bit & 7))
    return ((before >>> (bit & 7)) & 1) === 0
  }
}

function placeOf(inode: InodeId): { readonly key: string; readonly bit: number } {
  const counter = inode % COUNTERS
  const chunk = Math.floor(counter / CHUNK_BITS)
  return { key: `${inodeType(inode)[0]}${inodeShard(inode)}:${chunk}`, bit: counter % CHUNK_BITS }
}
