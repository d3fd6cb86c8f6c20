/**
 * The root of a watched tree: a directory that stays the same one, by device and inode. It is opened anew for each use, since
 * whoever keeps a descriptor keeps its volume from being unmounted.
 */
import { closeSync, constants, openSync, realpathSync } from 'node:fs'
import { OperationError } from '#base/errors.ts'
import { O_PATH } from '#os/at.ts'
import { mounts } from '#os/mount-table.ts'
import { statusOf } from '#os/status.ts'

/** Thrown where the root is not there, or is another directory. */
export class RootGone extends Error {
  override name = 'RootGone'
}

export class Root {
  readonly directory: string
  readonly #id: string

  /** @throws OperationError INPUT_INVALID where there is no such directory, LOCAL_FAILED where it cannot be opened */
  constructor(directory: string) {
    try {
      this.directory = realpathSync(directory)
      const fd = openSync(this.directory, O_PATH | constants.O_DIRECTORY)
      try {
        this.#id = statusOf(fd).id
      } finally {
        closeSync(fd)
      }
    } catch (error) {
      const code = error instanceof Error && 'code' in error ? error.code : undefined
      const missing = code === 'ENOENT' || code === 'ENOTDIR'
      const detail = missing ? 'there is no such directory' : String(code ?? error)
      throw new OperationError(missing ? 'INPUT_INVALID' : 'LOCAL_FAILED', `Cannot watch "${directory}": ${detail}`, {
        cause: error,
      })
    }
  }

  /** A descriptor of the root (O_PATH), to be closed soon. @throws RootGone */
  open(): number {
    let fd: number
    try {
      fd = openSync(this.directory, O_PATH | constants.O_DIRECTORY | constants.O_NOFOLLOW)
    } catch (error) {
      throw new RootGone(`"${this.directory}" cannot be opened`, { cause: error })
    }
    if (statusOf(fd).id === this.#id) return fd
    closeSync(fd)
    throw new RootGone(`"${this.directory}" is another directory than before`)
  }

  isSame(): boolean {
    try {
      closeSync(this.open())
      return true
    } catch (error) {
      if (error instanceof RootGone) return false
      throw error
    }
  }

  /** What is mounted below: path in the tree -> which mount, in the order of the mount table. */
  mountsBelow(): Map<string, string> {
    const below = new Map<string, string>()
    const prefix = this.directory === '/' ? '/' : `${this.directory}/`
    for (const { directory, id, device } of mounts()) {
      if (directory.startsWith(prefix) && directory !== prefix)
        below.set(directory.slice(prefix.length), `${id} ${device}`)
    }
    return below
  }
}
