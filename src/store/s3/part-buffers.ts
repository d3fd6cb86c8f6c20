/**
 * Buffers for the parts of uploads, lent and used again: a part has megabytes, which the process would hold until the next
 * collection, and whose pages the kernel would clear anew for each. What is given back is kept only while other parts are
 * under way, so at most as much as was under way at once.
 *
 * Only to be given back after the server has answered that it has the part: until then a connection may still be reading.
 */
export class PartBuffers {
  readonly #bytes: number
  readonly #idle: Buffer[] = []
  #lent = 0

  /** `bytes`: of a part. */
  constructor(bytes: number) {
    this.#bytes = bytes
  }

  /** A buffer of so many bytes, with anything in it. */
  take(length: number): Buffer {
    this.#lent++
    // Of uploads with very many parts the later ones are larger.
    if (length > this.#bytes) return Buffer.allocUnsafeSlow(length)
    return (this.#idle.pop() ?? Buffer.allocUnsafeSlow(this.#bytes)).subarray(0, length)
  }

  /** Nobody will read or write it any more. */
  give({ buffer }: Buffer): void {
    if (buffer.byteLength === this.#bytes) this.#idle.push(Buffer.from(buffer))
    this.lose()
  }

  /** It was taken, and somebody may still be reading it. */
  lose(): void {
    this.#lent--
    if (this.#lent === 0) this.#idle.length = 0
  }
}
