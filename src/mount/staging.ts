/**
 * The staging area: the directory where files are while they are written. A staged file has no name, so a process that dies
 * leaves nothing behind; where the file system has no files without names it has one, which the next start sweeps.
 *
 * What could not be published and must not be lost is kept under `conflicts/`: the staged file gets a name there, which
 * takes no more room, since the disk may be full by then. Only where that cannot be its bytes are copied. A file of whose
 * bytes some are only in the store is kept with holes in their place, and a second file beside it says where they are.
 */
import { randomBytes } from 'node:crypto'
import { constants, futimesSync, openSync, renameSync, writeFileSync } from 'node:fs'
import { copyFile, readdir, rm, utimes } from 'node:fs/promises'
import { basename, join } from 'node:path'

import { OperationError } from '#base/errors.ts'
import { logger } from '#base/log.ts'
import { timestampToMs, type Timestamp } from '#base/time.ts'
import { O_TMPFILE } from '#os/at.ts'
import { makeDirectories } from '#os/make-directories.ts'
import type { Version } from '#store/store.ts'

import type { RangeSet } from './ranges.ts'
import { StagedFile, stagingError } from './staged-file.ts'

const log = logger('mount')
const PREFIX = 'staged-'
const CONFLICTS = 'conflicts'
/** Two requests for parts of 8 MiB: below that an edit by parts costs no less than the whole. */
const WHOLE_BYTES_MAX = 16 * 1024 * 1024
const RANGES_SUFFIX = '.ranges.json'
/** A name's bound less what may be put after it. */
const NAME_BYTES_MAX = 255 - RANGES_SUFFIX.length
/** How file systems and old kernels say that they know no `O_TMPFILE`. */
const NO_NAMELESS: ReadonlySet<string> = new Set(['EOPNOTSUPP', 'ENOTSUP', 'EISDIR', 'EINVAL'])

/** What is known of a file that is kept. */
export interface KeptFile {
  readonly name: string
  readonly modified: Timestamp
  /** What it lies over; undefined: nothing. */
  readonly base: { readonly path: string; readonly version: Version } | undefined
}

export class StagingArea {
  readonly directory: string
  /** Larger files are laid over what the store has, rather than fetched, before their first write. */
  readonly wholeBytesMax: number
  /** Apart from those of a process with the same number, as the first ones of two containers are. */
  readonly #session = randomBytes(6).toString('hex')
  #count = 0
  /** The file system has no files without names. */
  #named = false

  private constructor(directory: string, wholeBytesMax: number) {
    this.directory = directory
    this.wholeBytesMax = wholeBytesMax
  }

  /** Makes the directory where it is missing, and removes what a dead process may have left in it. */
  static async open(directory: string, wholeBytesMax: number = WHOLE_BYTES_MAX): Promise<StagingArea> {
    try {
      makeDirectories(join(directory, CONFLICTS), 0o700)
      for (const name of await readdir(directory)) {
        const pid = Number(/^staged-(\d+)-[0-9a-f-]+$/.exec(name)?.[1])
        // Of this process nothing is here yet: in a container the one before had the same number.
        if (pid === process.pid || (pid > 0 && !isAlive(pid))) await rm(join(directory, name), { force: true })
      }
    } catch (error) {
      throw new OperationError('LOCAL_FAILED', `Cannot stage files in "${directory}": ${messageOf(error)}`, {
        cause: error,
      })
    }
    return new StagingArea(directory, wholeBytesMax)
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

  /** A name here that nothing has; what a process that died left under it is swept by the next start. */
  newPath(): string {
    return join(this.directory, `${PREFIX}${process.pid}-${this.#session}-${++this.#count}`)
  }

  #createNamed(): StagedFile {
    const path = this.newPath()
    return new StagedFile(openSync(path, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL, 0o600), path)
  }

  /** Keeps the bytes of a file that could not be published under `conflicts/`; gives the path. */
  async keep(staged: StagedFile, { name, modified, base }: KeptFile): Promise<string> {
    const path = this.#conflictPath(name)
    try {
      this.#giveName(staged, path, modified)
    } catch {
      // `conflicts` lies in another file system, or this one does not link: the copy tells why that cannot be either.
      await this.#copy(staged, path, modified)
    }
    this.#tellRanges(staged, path, base)
    return path
  }

  /** Keeps a file that has a name here under `conflicts/`; gives the path. */
  keepNamed(path: string): string {
    const kept = this.#conflictPath(basename(path))
    makeDirectories(join(this.directory, CONFLICTS), 0o700)
    renameSync(path, kept)
    return kept
  }

  async #copy(staged: StagedFile, path: string, modified: Timestamp): Promise<void> {
    try {
      // This link to the descriptor stands for a name. COPYFILE_FICLONE shares blocks.
      await copyFile(`/proc/self/fd/${staged.fd}`, path, constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE)
      await utimes(path, new Date(), new Date(timestampToMs(modified)))
    } catch (error) {
      throw stagingError(`keep as "${path}"`, error)
    }
  }

  /** As `keep`, in one go, for a process that ends at once; copies nothing, so there are file systems where it fails. */
  keepAtOnce(staged: StagedFile, { name, modified, base }: KeptFile): string {
    const path = this.#conflictPath(name)
    this.#giveName(staged, path, modified)
    this.#tellRanges(staged, path, base)
    return path
  }

  /** Beside a file of which some bytes are not here: which of them were written, and which only the store has had. */
  #tellRanges(staged: StagedFile, path: string, base: KeptFile['base']): void {
    if (staged.isComplete) return
    const { size, dirty, missing } = staged
    const told = { size, base, written: pairsOf(dirty), missing: pairsOf(missing) }
    log.warn(
      { path, ...told },
      `Not all bytes of "${path}" are there; "${path}${RANGES_SUFFIX}" tells which were written`,
    )
    try {
      writeFileSync(path + RANGES_SUFFIX, `${JSON.stringify(told, undefined, 2)}\n`, { mode: 0o600 })
    } catch (error) {
      log.error({ err: error, path }, `Cannot write "${path}${RANGES_SUFFIX}"; the line before tells what was written`)
    }
  }

  #giveName(staged: StagedFile, path: string, modified: Timestamp): void {
    // Its owner may have tidied up.
    makeDirectories(join(this.directory, CONFLICTS), 0o700)
    futimesSync(staged.fd, new Date(), new Date(timestampToMs(modified)))
    staged.giveName(path)
  }

  /** The front says when and which, so the end of a long name may go. */
  #conflictPath(name: string): string {
    const stamp = new Date().toISOString().replaceAll(':', '-')
    return join(this.directory, CONFLICTS, clip(`${stamp}-${randomBytes(2).toString('hex')}-${name}`))
  }
}

function pairsOf(ranges: RangeSet): { offset: number; length: number }[] {
  return [...ranges.within(0, Infinity)].map(({ start, end }) => ({ offset: start, length: end - start }))
}

/** No longer than a name may be, with a suffix. */
function clip(name: string): string {
  const bytes = Buffer.from(name)
  if (bytes.length <= NAME_BYTES_MAX) return name
  let end = NAME_BYTES_MAX
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
