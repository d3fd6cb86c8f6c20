/**
 * A journal in plain files (docs/formats/journal.md): segments of some megabytes, written from front to back, each group of entries by one write that
 * comes back when it is durable. A segment has all of its room on the disk before it is used, and is used again when its entries are let go of: so a
 * write changes nothing but bytes of a file, the least that a disk can be asked for, and does not fail for want of room.
 *
 *   spare --renamed--> the last segment, appended to --> full --let go of--> spare again, or removed
 *
 * After an error nothing more is appended: what the file has then is known only to who opens it anew.
 */
import { randomBytes } from 'node:crypto'
import { closeSync, constants, fsync, fsyncSync, readFileSync, statfsSync, write } from 'node:fs'
import { open, readdir, readFile, rename, unlink, type FileHandle } from 'node:fs/promises'
import { join } from 'node:path'

import { assert } from '#base/assert.ts'
import { isOperationError, OperationError } from '#base/errors.ts'
import { logger } from '#base/log.ts'
import { withDeadline } from '#os/deadline.ts'

import type { Journal } from './journal.ts'
import { lockedDirectory } from './locked-directory.ts'
import {
  damagedGroup,
  groupBytes,
  HEAD_BYTES,
  isOfLineage,
  LINEAGE_BYTES,
  newHead,
  otherLineage,
  readHead,
  readSegment,
  segmentName,
  writeGroup,
} from './segment.ts'
import { newestFirst, readEntries, type SegmentFile, segmentFilesIn } from './segment-files.ts'

const log = logger('cluster/journal')

const TORN =
  'The journal ends in a part of a group: it was being written when the power went, or the disk has damaged it since'
const SEGMENT_BYTES = 4 * 1024 ** 2
/** Groups beyond that are rare, and their memory is not kept. */
const FRAME_BYTES_KEPT = 1 << 20
const ZEROS = Buffer.alloc(1 << 20)
const CLOSE_MS = 10_000
/** One more than a machine that is kept busy fills until its state is stored: so all of them go round. */
const SPARES_MAX = 4
const SPARE_NAME = /^\d+\.spare$/

export interface FileJournalOptions {
  /** A segment is full at so many bytes; a group that is larger has one of its own. */
  readonly segmentBytes?: number
  /** That it belongs to: the journal of another is refused. */
  readonly state?: StateOfLineage
}

/** A state that knows of which lineage its journal is: of one, or two while another is begun. */
export interface StateOfLineage {
  readonly lineages: readonly Buffer[]
  /** Durable when it resolves. */
  setLineages(lineages: readonly Buffer[]): Promise<void>
}

/** A file that is to be a segment. */
interface Spare {
  readonly path: string
  readonly salt: Buffer
}

/** The one that is appended to. */
interface Open extends Spare {
  readonly file: FileHandle
  /** Where the next group goes. */
  end: number
}

/** The journal in `DIRECTORY/journal`, made where there is none. @throws JOURNAL_FAILED also where another process has it; JOURNAL_CORRUPT */
export async function openFileJournal(
  directory: string,
  { segmentBytes = SEGMENT_BYTES, state }: FileJournalOptions = {},
): Promise<Journal> {
  const path = join(directory, 'journal')
  let lock: number | undefined
  try {
    lock = lockedDirectory(path, 'journal')
    const lineage = randomBytes(LINEAGE_BYTES)
    return await FileJournal.open({ directory: path, lock, segmentBytes, lineage }, state)
  } catch (error) {
    if (lock !== undefined) closeSync(lock)
    if (isOperationError(error)) throw error
    const { message } = error as Error
    throw new OperationError('JOURNAL_FAILED', `Cannot open the journal in "${path}": ${message}`, { cause: error })
  }
}

/** Where it lies, and how. */
interface Ground {
  readonly directory: string
  readonly lock: number
  readonly segmentBytes: number
  /** Of this start, and of all segments that it makes: two copies of a directory that go on apart are told apart by it. */
  readonly lineage: Buffer
}

class FileJournal implements Journal {
  readonly #ground: Ground
  /** Until the first append of this start. */
  #state: StateOfLineage | undefined
  /** The first one first; the last one is open. */
  readonly #segments: SegmentFile[]
  #open: Open
  #last: number
  /** On their way, or ready. */
  readonly #spares = new Set<Promise<Spare>>()
  #sparesMade = 0
  /** For the next segment: where that fails, it is tried once more when it is needed, and not with each group. */
  #isSpareAsked = false
  /** One group is written at a time, and its memory is used again. */
  #frame = Buffer.allocUnsafeSlow(16 << 10)
  #appending: Promise<void> | undefined
  #trimming: Promise<void> | undefined
  #failure: OperationError | undefined
  #closed: Promise<void> | undefined

  private constructor(
    ground: Ground,
    state: StateOfLineage | undefined,
    segments: SegmentFile[],
    opened: Open,
    last: number,
  ) {
    this.#ground = ground
    this.#state = state
    this.#segments = segments
    this.#open = opened
    this.#last = last
  }

  static async open(ground: Ground, state: StateOfLineage | undefined): Promise<FileJournal> {
    const { directory, lock } = ground
    const segments = segmentFilesIn(directory)
    if (state !== undefined && !isOfLineage(newestFirst(segments), state.lineages)) throw otherLineage()
    // What they hold was let go of, or never used.
    for (const name of await readdir(directory)) if (SPARE_NAME.test(name)) await unlink(join(directory, name))
    if (segments.length === 0) {
      const { path: spare, salt } = await makeSpare(join(directory, '0.spare'), ground)
      const path = join(directory, segmentName(1))
      await rename(spare, path)
      segments.push({ first: 1, path })
      fsyncSync(lock)
      return new FileJournal(ground, state, segments, await openSegment(path, salt, HEAD_BYTES), 0)
    }
    const { first, path } = segments.at(-1) as SegmentFile
    const bytes = await readFile(path)
    const { salt, last, lastGroupAt, end, hasPart } = readSegment(bytes, first, () => undefined)
    if (hasPart) log.warn({ path, entry: last + 1 }, TORN)
    const opened = await openSegment(path, Buffer.from(salt), end)
    // A write that failed may have left its bytes in memory alone, where whoever reads the file finds them; now they are on the disk, too.
    if (lastGroupAt !== undefined) await writeAll(opened.file, bytes.subarray(lastGroupAt, end), lastGroupAt)
    return new FileJournal(ground, state, segments, opened, last)
  }

  get first(): number {
    return this.#segments[0]?.first ?? this.#last + 1
  }

  get last(): number {
    return this.#last
  }

  append(at: number, entries: readonly Uint8Array[]): Promise<void> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure)
    assert(this.#appending === undefined, 'groups are appended one after the other')
    assert(at === this.#last + 1, 'a group follows on the last one')
    assert(entries.length > 0, 'a group has entries')
    this.#appending = this.#append(at, entries).finally(() => (this.#appending = undefined))
    return this.#appending
  }

  async read(from: number, each: (number: number, entry: Buffer) => void): Promise<void> {
    if (from > this.#last) return
    const last = readEntries(this.#segments, from, each, (path) => {
      try {
        return readFileSync(path)
      } catch (error) {
        throw this.#failed('read', error)
      }
    })
    if (last !== this.#last) throw damagedGroup(last + 1)
  }

  trim(through: number): Promise<void> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure)
    assert(through <= this.#last, 'only what is durable is let go of')
    assert(this.#trimming === undefined, 'entries are let go of one time after the other')
    this.#trimming = this.#trim(through).finally(() => (this.#trimming = undefined))
    return this.#trimming
  }

  close(): Promise<void> {
    this.#closed ??= this.#close()
    return this.#closed
  }

  async #close(): Promise<void> {
    this.#failure ??= new OperationError('JOURNAL_FAILED', 'Cannot use the journal: it is closed')
    const underWay = [...this.#spares, this.#appending ?? Promise.resolve(), this.#trimming ?? Promise.resolve()]
    // How those end is told to who waits for them.
    const ended = Promise.allSettled(underWay).then(() => this.#open.file.close())
    // Its directory is let go of, unless its disk answers no more: then nobody else shall have it while this process lives.
    await withDeadline('close the journal', ended, CLOSE_MS)
    closeSync(this.#ground.lock)
  }

  async #append(at: number, entries: readonly Uint8Array[]): Promise<void> {
    if (this.#state !== undefined) await this.#beginLineage(this.#state, at)
    const bytes = groupBytes(entries)
    if (this.#open.end + bytes > this.#ground.segmentBytes && this.#open.end > HEAD_BYTES) {
      await this.#tried('write', () => this.#beginSegment(at))
    }
    const { file, salt, end } = this.#open
    const frame = this.#room(bytes)
    writeGroup(frame, salt, at, entries)
    await this.#tried('write', () => writeAll(file, frame, end))
    this.#open.end += bytes
    this.#last += entries.length
    // While there is time, so that nobody has to wait for it.
    if (this.#spares.size === 0 && !this.#isSpareAsked && this.#open.end > this.#ground.segmentBytes / 2) {
      this.#isSpareAsked = true
      this.#expect(makeSpare(this.#sparePath(), this.#ground))
    }
  }

  #expect(spare: Promise<Spare>): void {
    this.#spares.add(spare)
    // Who needs it tries once more, and is told then.
    spare.catch(() => this.#spares.delete(spare))
  }

  #sparePath(): string {
    return join(this.#ground.directory, `${++this.#sparesMade}.spare`)
  }

  async #beginSegment(at: number): Promise<void> {
    const [next] = this.#spares
    if (next !== undefined) this.#spares.delete(next)
    const ready = await next?.catch(() => undefined)
    const { path: spare, salt } = ready ?? (await makeSpare(this.#sparePath(), this.#ground))
    const path = join(this.#ground.directory, segmentName(at))
    await rename(spare, path)
    await syncFile(this.#ground.lock)
    const full = this.#open.file
    this.#open = await openSegment(path, salt, HEAD_BYTES)
    // One that nothing was written to has given its name to this.
    if (this.#segments.at(-1)?.first === at) this.#segments.pop()
    this.#segments.push({ first: at, path })
    this.#isSpareAsked = false
    await full.close()
  }

  /** The state knows of the new lineage before any segment has it, and lets go of the old one after that. */
  async #beginLineage(state: StateOfLineage, at: number): Promise<void> {
    const { lineage } = this.#ground
    await state.setLineages([...state.lineages, lineage])
    await this.#tried('write', () => this.#beginSegment(at))
    await state.setLineages([lineage])
    this.#state = undefined
  }

  async #trim(through: number): Promise<void> {
    for (;;) {
      const [oldest, next] = this.#segments
      if (oldest === undefined || next === undefined || next.first > through + 1) return
      this.#segments.shift()
      await this.#tried('let go of', () => this.#letGo(oldest.path))
    }
  }

  async #letGo(path: string): Promise<void> {
    if (this.#spares.size >= SPARES_MAX) return unlink(path)
    const spare = this.#sparePath()
    // Its old name is gone before its head changes: under that name it would be a segment without entries.
    const renewed = rename(path, spare)
      .then(() => syncFile(this.#ground.lock))
      .then(() => renewSegment(spare, this.#ground))
    this.#expect(renewed)
    await renewed
  }

  #room(bytes: number): Buffer {
    if (this.#frame.length >= bytes) return this.#frame.subarray(0, bytes)
    const room = Buffer.allocUnsafeSlow(Math.max(bytes, Math.min(2 * this.#frame.length, FRAME_BYTES_KEPT)))
    if (bytes <= FRAME_BYTES_KEPT) this.#frame = room
    return room.subarray(0, bytes)
  }

  /** @throws JOURNAL_FAILED; from then on all is refused that changes anything */
  async #tried<T>(action: string, work: () => Promise<T>): Promise<T> {
    try {
      return await work()
    } catch (error) {
      throw this.#failed(action, error)
    }
  }

  #failed(action: string, cause: unknown): OperationError {
    const { message } = cause as Error
    const room = `with ${freeBytes(this.#ground.directory)} bytes free on its disk`
    const failure = new OperationError('JOURNAL_FAILED', `Cannot ${action} the journal: ${message}, ${room}`, { cause })
    this.#failure ??= failure
    return failure
  }
}

/** A file of that size that has its room on the disk, and the head of an empty segment. */
async function makeSpare(path: string, { segmentBytes, lineage }: Ground): Promise<Spare> {
  const file = await open(path, 'wx', 0o600)
  try {
    for (let at = 0; at < segmentBytes; at += ZEROS.length) {
      await writeAll(file, ZEROS.subarray(0, Math.min(ZEROS.length, segmentBytes - at)), at)
    }
    const head = newHead(lineage)
    await writeAll(file, head, 0)
    await file.sync()
    return { path, salt: readHead(head, path).salt }
  } catch (error) {
    // It would take what room there is; that this fails, too, tells less than what it comes from.
    await unlink(path).catch(() => undefined)
    throw error
  } finally {
    await file.close()
  }
}

/** Makes an empty segment of one that was used. */
async function renewSegment(path: string, { segmentBytes, lineage }: Ground): Promise<Spare> {
  const file = await open(path, 'r+')
  try {
    const head = newHead(lineage)
    await writeAll(file, head, 0)
    // One that had a large group.
    await file.truncate(segmentBytes)
    await file.sync()
    return { path, salt: readHead(head, path).salt }
  } finally {
    await file.close()
  }
}

async function openSegment(path: string, salt: Buffer, end: number): Promise<Open> {
  return { path, salt, end, file: await open(path, constants.O_RDWR | constants.O_DSYNC) }
}

/** With the callback: a promise of Node's own for each group costs several times as much. */
function writeAll({ fd }: FileHandle, bytes: Buffer, place: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const writeFrom = (done: number): void => {
      write(fd, bytes, done, bytes.length - done, place + done, (error, written) => {
        if (error !== null) reject(error)
        else if (done + written === bytes.length) resolve()
        else writeFrom(done + written)
      })
    }
    writeFrom(0)
  })
}

function syncFile(fd: number): Promise<void> {
  return new Promise((resolve, reject) => {
    fsync(fd, (error) => (error === null ? resolve() : reject(error)))
  })
}

function freeBytes(directory: string): number | string {
  try {
    const { bavail, bsize } = statfsSync(directory)
    return bavail * bsize
  } catch (error) {
    return (error as Error).message
  }
}
