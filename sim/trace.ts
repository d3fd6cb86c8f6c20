/**
 * What happened in a world, line by line: a hash over all of it, by which two runs are compared, and the last lines for people.
 * Lines are put into words only when somebody reads them.
 */
import { hashText } from './random.ts'

export type Detail = string | number | Uint8Array | undefined

/** How many of the last lines are kept. */
const LINES_KEPT = 400
/** Of bytes, so many of the start, and one in so many of the rest, go into the hash. */
const BYTES_DENSE = 64
const BYTES_STRIDE = 61

export type Describe = (frame: Buffer, receiver: string, sender: string) => string

interface Line {
  atUs: number
  who: string
  what: string
  detail: Detail
  /** Of a frame: its sender. */
  other: string
}

export class Trace {
  /** Is given each line as it happens. */
  onLine: ((line: string) => void) | undefined
  /** Puts frames into words; without it only their length is told. */
  describe: Describe | undefined
  readonly #lines: Line[] = []
  #count = 0
  #high = 0x811c9dc5 | 0
  #low = 0x01234567

  /** How many lines there were. */
  get count(): number {
    return this.#count
  }

  note(atUs: number, who: string, what: string, detail?: Detail, other = ''): void {
    let hash = hashText(hashText(this.#low, who), other)
    hash = hashText(hash ^ (atUs | 0), what)
    if (typeof detail === 'number') hash = Math.imul(hash ^ (detail | 0), 0x01000193)
    else if (typeof detail === 'string') hash = hashText(hash, detail)
    else if (detail !== undefined) hash = hashBytes(hash, detail)
    this.#low = hash ^ (hash >>> 15)
    this.#high = (Math.imul(this.#high, 0x5bd1e995) + hash) | 0

    const slot = this.#count++ % LINES_KEPT
    const line = this.#lines[slot]
    if (line === undefined) this.#lines.push({ atUs, who, what, detail, other })
    else {
      line.atUs = atUs
      line.who = who
      line.what = what
      line.detail = detail
      line.other = other
    }
    if (this.onLine !== undefined) this.onLine(this.#inWords(this.#lines[slot]))
  }

  /** Of all that was noted; 16 hexadecimal digits. */
  hash(): string {
    return [this.#high, this.#low].map((half) => (half >>> 0).toString(16).padStart(8, '0')).join('')
  }

  /** The last lines, oldest first. */
  last(): string[] {
    const from = Math.max(0, this.#count - LINES_KEPT)
    return Array.from({ length: this.#count - from }, (_, index) =>
      this.#inWords(this.#lines[(from + index) % LINES_KEPT]),
    )
  }

  #inWords(line: Line | undefined): string {
    if (line === undefined) return ''
    const { atUs, who, what, detail, other } = line
    const seconds = (atUs / 1e6).toFixed(6).padStart(12)
    const told = detail instanceof Uint8Array ? this.#frameInWords(detail, who, other) : (detail ?? '')
    return `${seconds}  ${who.padEnd(14)} ${other === '' ? what : `${what} ${other}`} ${told}`.trimEnd()
  }

  #frameInWords(bytes: Uint8Array, who: string, other: string): string {
    const length = `${bytes.length} bytes`
    if (this.describe === undefined) return length
    try {
      const frame = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
      return `${this.describe(frame, who, other)} (${length})`
    } catch {
      // A defect may make frames that nobody can read: those are told by their length.
      return length
    }
  }
}

function hashBytes(basis: number, bytes: Uint8Array): number {
  const dense = Math.min(bytes.length, BYTES_DENSE)
  let hash = basis ^ bytes.length
  for (let at = 0; at < dense; at++) hash = Math.imul(hash ^ (bytes[at] ?? 0), 0x01000193)
  for (let at = dense; at < bytes.length; at += BYTES_STRIDE) hash = Math.imul(hash ^ (bytes[at] ?? 0), 0x01000193)
  return hash
}
