/**
 * Staged files: what is being written, on local disk until it is in the store. A staged file has no name, so a process that
 * dies leaves nothing behind; where the file system has no files without names it has one, which the next start sweeps.
 * Writes and reads are synchronous: they go to the page cache, and an answer at once is cheaper than any promise.
 *
 * What could not be published and must not be lost is kept under `conflicts/`: the staged file gets a name there, which
 * takes no more room, since the disk may be full by then. Only where that cannot be its bytes are copied.
 */
import { createHash, randomBytes } from 'node:crypto'
import {
  closeSync,
  constants,
  ftruncateSync,
  futimesSync,
  openSync,
  readSync,
  renameSync,
  unlinkSync,
  write,
  writeSync,
} from 'node:fs'
import { copyFile, readdir, rm, utimes } from 'node:fs/promises'
import { join } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import { promisify } from 'node:util'

import { OperationError } from '#base/errors.ts'
import { timestampToMs, type Timestamp } from '#base/time.ts'
import { makeDirectories } from '#os/make-directories.ts'
import { linkDescriptor, O_TMPFILE } from '#os/at.ts'

const PREFIX = 'staged-'
const DIGEST_BYTES = 1 << 20
const CONFLICTS = 'conflicts'
/** How file systems and old kernels say that they know no `O_TMPFILE`. */
const NO_NAMELESS: ReadonlySet<string> = new Set(['EOPNOTSUPP', 'ENOTSUP', 'EISDIR', 'EINVAL'])
const writeAsync = promisify(write)

/** One file being written. Not to be used after `close`. */
export class StagedFile {
  readonly fd: number
  size: number
  /** Its name, where it could not be made without one. */
  #path: string | undefined

  constructor(fd: number, path?: string) {
    this.fd = fd
    this.size = 0
    this.#path = path
  }

  /** @throws OperationError `STAGING_NO_SPACE`, and then nothing has been written. */
  write(offset: number, data: Uint8Array): number {
    let done = 0
    try {
      while (done < data.length) done += writeSync(this.fd, data, done, data.length - done, offset + done)
    } catch (error) {
      // What went in before the disk was full is written, as write(2) has it.
      if (done === 0) throw stagingError('write', error)
    }
    if (done > 0) this.size = Math.max(this.size, offset + done)
    return done
  }

  /** Fewer bytes than `size` only at the end. */
  read(offset: number, size: number): Uint8Array {
    const length = Math.max(0, Math.min(size, this.size - offset))
    const buffer = Buffer.allocUnsafe(length)
    let done = 0
    while (done < length) {
      const got = readSync(this.fd, buffer, done, length - done, offset + done)
      if (got === 0) {
        throw new OperationError('LOCAL_FAILED', `Cannot read a staged file: it ends at ${offset + done} bytes`)
      }
      done += got
    }
    return buffer
  }

  /** SHA-256 of the bytes, in hexadecimal digits; nobody may write meanwhile. */
  async digest(): Promise<string> {
    const hash = createHash('sha256')
    for (let offset = 0; offset < this.size; offset += DIGEST_BYTES) {
      hash.update(this.read(offset, DIGEST_BYTES))
      // Others get their turn between the slices of a large file.
      await setImmediate()
    }
    return hash.digest('hex')
  }

  /** Cuts, or extends with zeros. */
  truncate(size: number): void {
    try {
      ftruncateSync(this.fd, size)
    } catch (error) {
      throw stagingError('truncate', error)
    }
    this.size = size
  }

  /** Writes a body from the start, off the thread that answers the kernel. */
  async fill(body: AsyncIterable<Uint8Array>): Promise<void> {
    for await (const chunk of body) {
      let done = 0
      try {
        while (done < chunk.length) {
          const { bytesWritten } = await writeAsync(this.fd, chunk, done, chunk.length - done, this.size + done)
          done += bytesWritten
        }
      } catch (error) {
        throw stagingError('fill', error)
      }
      this.size += chunk.length
    }
  }

  /** Makes it an ordinary file with that name, which stays when this is closed; copies nothing. */
  giveName(path: string): void {
    if (this.#path === undefined) {
      linkDescriptor(this.fd, path)
    } else {
      renameSync(this.#path, path)
      this.#path = undefined
    }
  }

  close(): void {
    closeSync(this.fd)
    if (this.#path !== undefined) unlinkSync(this.#path)
  }
}

export class StagingArea {
  readonly directory: string
  #count = 0
  /** The file system has no files without names. */
  #named = false

  private constructor(directory: string) {
    this.directory = directory
  }

  /** Makes the directory where it is missing, and removes what a dead process may have left in it. */
  static async open(directory: string): Promise<StagingArea> {
    try {
      makeDirectories(join(directory, CONFLICTS), 0o700)
      for (const name of await readdir(directory)) {
        const pid = /^staged-(\d+)-\d+$/.exec(name)?.[1]
        if (pid !== undefined && !isAlive(Number(pid))) await rm(join(directory, name), { force: true })
      }
    } catch (error) {
      throw new OperationError('LOCAL_FAILED', `Cannot stage files in "${directory}": ${messageOf(error)}`, {
        cause: error,
      })
    }
    return new StagingArea(directory)
  }

  /** A new, empty file. */
  create(): StagedFile {
    try {
      return this.#createNameless() ?? this.#createNamed()
    } catch (error) {
      throw stagingError('create', error)
    }
  }

  #createNameless(): StagedFile | undefined {
    if (this.#named) return undefined
    try {
      return new StagedFile(openSync(this.directory, constants.O_RDWR | O_TMPFILE, 0o600))
    } catch (error) {
      const { code = '' } = error as NodeJS.ErrnoException
      if (!NO_NAMELESS.has(code)) throw error
      this.#named = true
      return undefined
    }
  }

  #createNamed(): StagedFile {
    const path = join(this.directory, `${PREFIX}${process.pid}-${++this.#count}`)
    return new StagedFile(openSync(path, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL, 0o600), path)
  }

  /** Keeps the bytes of a file that could not be published under `conflicts/`; gives the path. */
  async keep(staged: StagedFile, name: string, modified: Timestamp): Promise<string> {
    const path = this.#conflictPath(name)
    try {
      this.#giveName(staged, path, modified)
      return path
    } catch {
      // `conflicts` lies in another file system, or this one does not link: the copy tells why that cannot be either.
    }
    try {
      // This link to the descriptor stands for a name. COPYFILE_FICLONE shares blocks.
      await copyFile(`/proc/self/fd/${staged.fd}`, path, constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE)
      await utimes(path, new Date(), new Date(timestampToMs(modified)))
      return path
    } catch (error) {
      throw stagingError(`keep as "${path}"`, error)
    }
  }

  /** As `keep`, in one go, for a process that ends at once; copies nothing, so there are file systems where it fails. */
  keepAtOnce(staged: StagedFile, name: string, modified: Timestamp): string {
    const path = this.#conflictPath(name)
    this.#giveName(staged, path, modified)
    return path
  }

  #giveName(staged: StagedFile, path: string, modified: Timestamp): void {
    // Its owner may have tidied up.
    makeDirectories(join(this.directory, CONFLICTS), 0o700)
    futimesSync(staged.fd, new Date(), new Date(timestampToMs(modified)))
    staged.giveName(path)
  }

  /** 255 bytes are the bound of a name; the front says when and which, so the end of a long name may go. */
  #conflictPath(name: string): string {
    const stamp = new Date().toISOString().replaceAll(':', '-')
    return join(this.directory, CONFLICTS, clip(`${stamp}-${randomBytes(2).toString('hex')}-${name}`))
  }
}

function clip(name: string): string {
  const bytes = Buffer.from(name)
  if (bytes.length <= 255) return name
  let end = 255
  while (end > 0 && ((bytes[end] ?? 0) & 0xc0) === 0x80) end--
  return bytes.toString('utf8', 0, end)
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}

function stagingError(action: string, error: unknown): unknown {
  if (error instanceof OperationError) return error
  const code = (error as NodeJS.ErrnoException | undefined)?.code
  const options = { cause: error }
  if (code === 'ENOSPC' || code === 'EDQUOT') {
    return new OperationError('STAGING_NO_SPACE', `Cannot ${action} a staged file: no space is left`, options)
  }
  if (code === 'EFBIG' || code === 'EINVAL') {
    return new OperationError('STORE_FILE_TOO_LARGE', `Cannot ${action} a staged file: ${messageOf(error)}`, options)
  }
  return new OperationError('LOCAL_FAILED', `Cannot ${action} a staged file: ${messageOf(error)}`, options)
}
