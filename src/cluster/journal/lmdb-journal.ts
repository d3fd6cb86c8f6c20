/**
 * A journal in an lmdb file (docs/formats/journal.md): each group of entries is one value, with a checksum of its own, under the
 * number of its first entry. A group is there whole or not at all, by lmdb's transactions; the checksum finds what the disk made of it since.
 *
 * Groups follow each other without a gap. The last one is never let go of: it tells the number of the last entry.
 */
import { join } from 'node:path'

import { assert } from '#base/assert.ts'
import { isOperationError, OperationError } from '#base/errors.ts'
import { crc32c } from '#cluster/erasure/crc32c.ts'

import { numberKey, numberOfKey } from './keys.ts'
import type { Journal } from './journal.ts'
import { LmdbEnvironment } from './lmdb-environment.ts'
import type { Key } from './state.ts'

export const JOURNAL_FORMAT = 'eider journal 1\n'
export const JOURNAL_FORMAT_KEY: Key = '\0'.repeat(8)
/** Beyond all numbers. */
export const JOURNAL_END_KEY: Key = '\xff'
const HEAD_BYTES = 16
const TWO_32 = 2 ** 32
/** Groups beyond that are rare, and their memory is not kept. */
const FRAME_BYTES_KEPT = 1 << 20
/** Groups that are let go of in one transaction: while it is written, no group is. */
const TRIMMED_AT_ONCE = 256

/** The journal in `DIRECTORY/journal`, made where there is none. @throws JOURNAL_FAILED also where another process has it; JOURNAL_CORRUPT */
export async function openLmdbJournal(directory: string): Promise<Journal> {
  const environment = await LmdbEnvironment.open(join(directory, 'journal'), 'journal')
  try {
    return await LmdbJournal.open(environment)
  } catch (error) {
    await environment.close()
    throw error
  }
}

class LmdbJournal implements Journal {
  readonly #environment: LmdbEnvironment
  /** The first entry of each group, and the last entry of all. */
  readonly #starts: number[]
  #last: number
  /** One group is written at a time, and its memory is used again. */
  #frame = Buffer.allocUnsafeSlow(16 << 10)
  #isAppending = false
  #failure: OperationError | undefined

  private constructor(environment: LmdbEnvironment, starts: number[], last: number) {
    this.#environment = environment
    this.#starts = starts
    this.#last = last
  }

  static async open(environment: LmdbEnvironment): Promise<LmdbJournal> {
    const { root } = environment
    const format = environment.read(() => root.get(JOURNAL_FORMAT_KEY))?.toString('latin1')
    const starts = environment.read(() =>
      [...root.getKeys({ start: groupKey(1), end: JOURNAL_END_KEY })].map(numberOfGroup),
    )
    if (format === undefined && starts.length === 0) {
      await environment.committed(root.put(JOURNAL_FORMAT_KEY, Buffer.from(JOURNAL_FORMAT)))
    } else if (format !== JOURNAL_FORMAT) {
      throw new OperationError('JOURNAL_CORRUPT', 'Cannot open the journal: its format is none that this release knows')
    }
    const start = starts.at(-1)
    if (start === undefined) return new LmdbJournal(environment, starts, 0)
    const group = environment.read(() => root.get(groupKey(start)))
    return new LmdbJournal(environment, starts, start + decodeGroup(start, group).length - 1)
  }

  get first(): number {
    return this.#starts[0] ?? this.#last + 1
  }

  get last(): number {
    return this.#last
  }

  async append(at: number, entries: readonly Uint8Array[]): Promise<void> {
    this.#checkUsable()
    assert(!this.#isAppending, 'groups are appended one after the other')
    assert(at === this.#last + 1, 'a group follows on the last one')
    assert(entries.length > 0, 'a group has entries')
    this.#isAppending = true
    try {
      await this.#environment.committed(this.#environment.root.put(groupKey(at), this.#encode(at, entries)))
    } catch (error) {
      if (isOperationError(error)) this.#failure = error
      throw error
    }
    this.#starts.push(at)
    this.#last += entries.length
    this.#isAppending = false
  }

  async read(from: number, each: (number: number, entry: Buffer) => void): Promise<void> {
    const { root } = this.#environment
    const last = this.#last
    if (from > last) return
    let next = this.#starts.findLast((start) => start <= from)
    if (next === undefined)
      throw new OperationError('JOURNAL_CORRUPT', `Cannot read the journal: entry ${from} is gone`)
    while (next <= last) {
      const start: number = next
      for (const entry of decodeGroup(
        start,
        this.#environment.read(() => root.get(groupKey(start))),
      )) {
        if (next >= from) each(next, entry)
        next++
      }
    }
  }

  async trim(through: number): Promise<void> {
    this.#checkUsable()
    assert(through <= this.#last, 'only what is durable is let go of')
    for (;;) {
      const kept = this.#starts.findIndex((_, index) => (this.#starts[index + 1] ?? Infinity) > through + 1)
      const gone = this.#starts.splice(0, Math.min(kept, TRIMMED_AT_ONCE))
      if (gone.length === 0) return
      await this.#environment.batch(() => {
        for (const start of gone) void this.#environment.root.remove(groupKey(start))
      })
    }
  }

  async close(): Promise<void> {
    this.#failure ??= new OperationError('JOURNAL_FAILED', 'Cannot use the journal: it is closed')
    await this.#environment.close()
  }

  #checkUsable(): void {
    if (this.#failure !== undefined) throw this.#failure
  }

  #encode(at: number, entries: readonly Uint8Array[]): Buffer {
    let place = HEAD_BYTES + 4 * entries.length
    const bytes = entries.reduce((sum, entry) => sum + entry.length, place)
    let room = this.#frame
    if (room.length < bytes) {
      room = Buffer.allocUnsafeSlow(Math.max(bytes, Math.min(2 * room.length, FRAME_BYTES_KEPT)))
      if (bytes <= FRAME_BYTES_KEPT) this.#frame = room
    }
    const frame = room.subarray(0, bytes)
    frame.writeUInt32LE(entries.length, 4)
    frame.writeUInt32LE(at % TWO_32, 8)
    frame.writeUInt32LE(Math.floor(at / TWO_32), 12)
    for (const [index, entry] of entries.entries()) {
      frame.writeUInt32LE(entry.length, HEAD_BYTES + 4 * index)
      frame.set(entry, place)
      place += entry.length
    }
    frame.writeUInt32LE(crc32c(frame.subarray(4)), 0)
    return frame
  }
}

/** The entries of the group that begins with entry `at`. @throws JOURNAL_CORRUPT where it is not that group as it was written */
export function decodeGroup(at: number, frame: Buffer | undefined): Buffer[] {
  if (frame === undefined) throw damaged(at, 'is missing')
  if (frame.length < HEAD_BYTES || frame.readUInt32LE(0) !== crc32c(frame.subarray(4))) throw damaged(at, 'is damaged')
  const count = frame.readUInt32LE(4)
  if (frame.readUInt32LE(8) + frame.readUInt32LE(12) * TWO_32 !== at) throw damaged(at, 'is another one')
  const entries: Buffer[] = []
  let place = HEAD_BYTES + 4 * count
  for (let index = 0; index < count; index++) {
    const length = frame.readUInt32LE(HEAD_BYTES + 4 * index)
    entries.push(frame.subarray(place, (place += length)))
  }
  if (count === 0 || place !== frame.length) throw damaged(at, 'is not well formed')
  return entries
}

function damaged(at: number, detail: string): OperationError {
  return new OperationError('JOURNAL_CORRUPT', `Cannot read the journal: the group from entry ${at} on ${detail}`)
}

/** Of a group, by the number of its first entry: eight bytes, the highest first. */
export function groupKey(number: number): Key {
  return `\0${numberKey(number)}`
}

export function numberOfGroup(key: Key): number {
  return numberOfKey(key, 1)
}
