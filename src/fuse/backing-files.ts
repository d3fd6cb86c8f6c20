/**
 * Backing files of one connection to the kernel: registers and gives back, and says once why the kernel refuses. Whether
 * a refusal is of one file (its file system is stacked) or of all (no privilege) makes no difference to who asks: without
 * an id, reads and writes come to the file system as ever.
 */
import type { BackingFiles, BackingId } from './file-system.ts'
import { logger } from '#base/log.ts'
import { closeBacking, openBacking } from '#os/fuse-passthrough.ts'
import { SystemCallError } from '#os/libc.ts'

const log = logger('fuse')
/** These say that no file will do: to ask again costs a system call at every open. */
const REFUSED_FOR_GOOD = new Set(['EPERM', 'EACCES', 'EOPNOTSUPP', 'ENOTTY', 'ENOSYS'])

export class DeviceBackingFiles implements BackingFiles {
  readonly #fd: number
  #ended = false
  #refused = false
  readonly #logged = new Set<string>()

  /** `fd` is of /dev/fuse, after INIT. */
  constructor(fd: number) {
    this.#fd = fd
  }

  /** The connection ends: its ids are no more, and the descriptor's number may soon be another file's. */
  end(): void {
    this.#ended = true
  }

  open(fd: number): BackingId | undefined {
    if (this.#ended || this.#refused) return undefined
    try {
      return openBacking(this.#fd, fd)
    } catch (error) {
      if (!(error instanceof SystemCallError)) throw error
      const { code } = error
      this.#refused = REFUSED_FOR_GOOD.has(code)
      if (!this.#logged.has(code)) {
        this.#logged.add(code)
        log.warn({ code }, `Cannot pass reads and writes through to local files: the kernel answers ${code}`)
      }
      return undefined
    }
  }

  close(id: BackingId): void {
    if (this.#ended) return
    try {
      closeBacking(this.#fd, id)
    } catch (error) {
      log.error({ err: error, id }, 'a backing file cannot be given back')
    }
  }
}
