/**
 * Keys of a bucket for paths of a store, and back. A file or symlink is the key `PREFIX/PATH`, a directory that was made
 * `PREFIX/PATH/`, the root `PREFIX/` or, without a prefix, `.`.
 */
import { OperationError } from '#base/errors.ts'
import { checkPath } from '#store/path.ts'

export const KEY_BYTES_MAX = 1024
/** The key of the root's own object where there is no prefix, as yas3fs has it. */
const ROOT_KEY = '.'

export class Keys {
  /** Before every key: empty, or with a slash at its end. */
  readonly base: string
  readonly #baseBytes: number

  constructor(prefix: string) {
    this.base = prefix === '' ? '' : `${prefix}/`
    this.#baseBytes = Buffer.byteLength(this.base)
  }

  get pathBytesMax(): number {
    // One for the slash of a directory.
    return KEY_BYTES_MAX - this.#baseBytes - 1
  }

  /** Of a file. @throws OperationError `STORE_NAME_INVALID`, `STORE_NAME_TOO_LONG`. */
  file(path: string): string {
    checkPath(path)
    this.#checkLength(path, 0)
    return this.base + path
  }

  /** Of a directory that was made. */
  directory(path: string): string {
    checkPath(path)
    if (path === '') return this.base === '' ? ROOT_KEY : this.base
    this.#checkLength(path, 1)
    return `${this.base}${path}/`
  }

  /** What every key under a directory starts with. */
  under(path: string): string {
    return path === '' ? this.base : `${this.base}${path}/`
  }

  #checkLength(path: string, more: number): void {
    const room = KEY_BYTES_MAX - this.#baseBytes - more
    if (path.length * 3 <= room) return
    const bytes = Buffer.byteLength(path)
    if (bytes <= room) return
    throw new OperationError(
      'STORE_NAME_TOO_LONG',
      `Cannot use the path "${path.slice(0, 40)}…": its key has ${this.#baseBytes + bytes + more} bytes, S3 holds ${KEY_BYTES_MAX}`,
    )
  }
}
