/**
 * After an end that was not clean the index may be behind the data files: what each takes is looked up, records without a
 * file and files without a record are removed. In slices, since there may be a million: some 2 ms a turn of the event loop.
 */
import { lstatSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { setImmediate } from 'node:timers/promises'

import { SEGMENT_BLOCKS, type CacheIndex, type FileRecord, type IndexKey, type Totals } from './cache-index.ts'
import { blockCount } from './blocks.ts'
import { FAN_OUT, type DataFiles } from './data-files.ts'

/** Each is a system call of some microseconds. */
const SLICE = 256
const DATA_NAME = /^[0-9a-f]{16}$/

/** What there is in all; undefined where `signal` fired first. */
export async function countAndSweep(
  index: CacheIndex,
  data: DataFiles,
  signal: AbortSignal,
): Promise<Totals | undefined> {
  for (let fan = 0; fan < FAN_OUT; fan++) {
    const names = await data.names(fan)
    for (let at = 0; at < names.length; at += SLICE) {
      if (signal.aborted) return undefined
      for (const name of names.slice(at, at + SLICE)) {
        if (!DATA_NAME.test(name) || !index.hasData(name))
          await rm(data.pathOfName(fan, name), { force: true, recursive: true })
      }
      await setImmediate()
    }
  }
  let files = 0
  let bytes = 0
  let after: IndexKey | undefined
  for (;;) {
    if (signal.aborted) return undefined
    const records = index.recordsAfter(after, SLICE)
    after = records.at(-1)?.[0]
    if (after === undefined) return index.isBroken ? undefined : { files, bytes }
    const changes: (() => void)[] = []
    for (const [key, record] of records) {
      if (record === undefined) continue
      const allocated = allocatedOf(data.path(record.id))
      if (allocated === undefined) changes.push(() => removeRecord(index, key, record))
      else if (allocated !== record.allocated) changes.push(() => correctRecord(index, key, record, allocated))
      if (allocated === undefined) continue
      files++
      bytes += allocated
    }
    if (changes.length > 0) await index.commit(() => changes.forEach((change) => change()))
    await setImmediate()
  }
}

function removeRecord(index: CacheIndex, key: IndexKey, { id, usedAt, size }: FileRecord): void {
  index.remove({ key, usedAt, id }, Math.ceil(blockCount(size) / SEGMENT_BLOCKS))
}

function correctRecord(index: CacheIndex, key: IndexKey, record: FileRecord, allocated: number): void {
  index.place(key, { ...record, allocated }, { key, usedAt: record.usedAt, id: record.id })
}

function allocatedOf(path: string): number | undefined {
  const status = lstatSync(path, { throwIfNoEntry: false })
  return status === undefined ? undefined : status.blocks * 512
}
