/**
 * Keys of a bucket for paths of a store, and back. A file or symlink is the key `PREFIX/PATH`, a directory that was made
 * `PREFIX/PATH/`, the root `PREFIX/` or, without a prefix, `.`.
 */
import { OperationError } from '#base/errors.ts'
import { checkPath, OWN_NAME } from '#store/path.ts'

const KEY_BYTES_MAX = 1024
/** The key of the root's own object where there is no prefix, as yas3fs has it. */
const ROOT_KEY = '.'
/** The name that the store reserves at its root. */

export class Keys {
  /** Before every key: empty, or with a slash at its end. */
  readonly base: string
  readonly #baseBytes: number

  constructor(prefix: string) {
    this.base = prefix === '' ? '' : `${prefix}/`
    this.#baseBytes = Buffer.byteLength(this.base)
  }

  get pathBytesMax(): number {
    return KEY_BYTES_MAX - this.#baseBytes
  }

  /** Of a file. @throws OperationError `STORE_NAME_INVALID`, `STORE_NAME_TOO_LONG`. */
  file(path: string): string {
    checkPath(path)
    this.#checkOwn(path)
    this.#checkLength(path, 0)
    return this.base + path
  }

  /** Whether a directory can be at a path where a file can: its key has a slash more. */
  directoryFits(path: string): boolean {
    return this.#room(1, path) >= 0
  }

  /** Of a directory that was made. */
  directory(path: string): string {
    checkPath(path)
    if (path === '') return this.base === '' ? ROOT_KEY : this.base
    this.#checkOwn(path)
    this.#checkLength(path, 1)
    return `${this.base}${path}/`
  }

  /** What the keys that this program keeps for itself start with: at the root of the store, and never shown. */
  get own(): string {
    return `${this.base}${OWN_NAME}/`
  }

  /** Whether a key, or a common prefix, is this program's own. */
  isOwn(key: string): boolean {
    return key.startsWith(this.own)
  }

  /** What every key under a directory starts with. */
  under(path: string): string {
    return path === '' ? this.base : `${this.base}${path}/`
  }

  #checkOwn(path: string): void {
    if (!path.startsWith(OWN_NAME) || (path.length > OWN_NAME.length && path[OWN_NAME.length] !== '/')) return
    throw new OperationError('STORE_NAME_INVALID', `Cannot use the path "${path}": "${OWN_NAME}" is the store's own`)
  }

  #checkLength(path: string, more: number): void {
    const room = this.#room(more, path)
    if (room >= 0) return
    throw new OperationError(
      'STORE_NAME_TOO_LONG',
      `Cannot use the path "${path.slice(0, 40)}…": its key has ${KEY_BYTES_MAX - room} bytes, S3 holds ${KEY_BYTES_MAX}`,
    )
  }

  /** How many bytes the key of a path is shorter than the longest. */
  #room(more: number, path: string): number {
    const room = KEY_BYTES_MAX - this.#baseBytes - more
    return path.length * 3 <= room ? 0 : room - Buffer.byteLength(path)
  }
}
