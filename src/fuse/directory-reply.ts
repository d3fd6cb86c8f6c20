/**
 * Packs a directory listing straight into the answer of READDIR or READDIRPLUS. A listing that is given at once uses
 * one buffer of the session again and again; one that is given later takes a buffer of its own, with what was packed so far.
 */
import { ReplyBuffer, encodeDirectoryItem } from './encode.ts'
import type { DirectoryItem } from './file-system.ts'
import { OUT_HEADER_BYTES } from './protocol.ts'

export class DirectoryReply {
  readonly plus: boolean
  /** Bytes of the answer so far, its header included. */
  length = OUT_HEADER_BYTES
  reply: ReplyBuffer
  readonly #limit: number
  #full = false

  constructor(shared: ReplyBuffer, sizeBytes: number, plus: boolean) {
    this.reply = shared
    this.plus = plus
    this.#limit = Math.min(OUT_HEADER_BYTES + sizeBytes, shared.bytes.length)
  }

  /** Takes an item unless the answer is full; after a refusal it takes none, or the next offset would skip the refused one. */
  readonly sink = (item: DirectoryItem): boolean => {
    if (this.#full) return false
    const next = encodeDirectoryItem(this.reply, this.length, this.#limit, item, this.plus)
    if (next < 0) {
      this.#full = true
      return false
    }
    this.length = next
    return true
  }

  /** Moves out of the shared buffer. */
  detach(): void {
    const own = Buffer.allocUnsafe(this.#limit)
    this.reply.bytes.copy(own, 0, 0, this.length)
    this.reply = new ReplyBuffer(own)
  }
}
