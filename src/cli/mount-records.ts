/**
 * Who serves which mount: a small file for each, written by the process that serves it, so that `eider unmount` knows
 * whom to wait for and what could not be stored. A record without its process is of one that crashed.
 *
 * Root reads those of all users (`record-folders.ts`). They are input from outside: a record cannot send root to a socket
 * elsewhere, or speak for the mount of another user.
 */
import { createHash } from 'node:crypto'
import { renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import * as v from 'valibot'
import { mounts } from '#os/mount-table.ts'
import { runtimeDirectory } from './places.ts'
import { namesIn, readRecordFile, type RecordFolder, recordFolders } from './record-folders.ts'

/** As in the mount table. */
export const MOUNT_TYPE = 'fuse.eider'
const RECORD_NAME = /^mount-[0-9a-f]+\.json$/

const RecordSchema = v.object({
  /** As the mount table has it. */
  directory: v.string(),
  /** The URL of the store, without secrets. */
  store: v.string(),
  process: v.object({ pid: v.number(), startTicks: v.number() }),
  /** Where its log goes; absent: its standard error. */
  log: v.optional(v.string()),
  /** Where what could not be stored is kept, once the mount has ended. */
  unpublished: v.optional(v.array(v.string())),
  /** Paths in the mount of what can be neither stored nor kept; while the process runs it goes on trying. */
  lost: v.optional(v.array(v.string())),
  /** What was removed in the mount and not in the store, once the mount has ended: how many, and the first of them. */
  notRemoved: v.optional(v.object({ count: v.number(), paths: v.array(v.string()) })),
  /** Where the process tells how it stands. */
  socket: v.optional(v.string()),
})

export type MountRecord = v.InferOutput<typeof RecordSchema>

/** Writes the record of a mount, in place of an older one of that directory. */
export function writeMountRecord(record: MountRecord): void {
  const file = recordFile(runtimeDirectory(), record.directory)
  const temporary = `${file}.${process.pid}`
  writeFileSync(temporary, JSON.stringify(record), { mode: 0o600 })
  renameSync(temporary, file)
}

/** The record of the mount on that directory, which must be as the mount table has it; root sees those of all users. */
export function readMountRecord(directory: string): MountRecord | undefined {
  const owner = ownersByMount().get(directory)
  for (const folder of recordFolders()) {
    const record = readRecord(folder, recordFile(folder.path, directory))
    if (record?.directory === directory && isOf(owner, folder)) return record
  }
  return undefined
}

/** All records that this user may see, also those of processes that have died. */
export function mountRecords(): MountRecord[] {
  const owners = ownersByMount()
  return recordsIn(recordFolders()).flatMap(({ folder, record }) =>
    isOf(owners.get(record.directory), folder) ? [record] : [],
  )
}

/** What lies in these folders; one that is not there has nothing. */
export function recordsIn(folders: readonly RecordFolder[]): { folder: RecordFolder; record: MountRecord }[] {
  return folders.flatMap((folder) =>
    namesIn(folder.path)
      .filter((name) => RECORD_NAME.test(name))
      .flatMap((name) => {
        const file = join(folder.path, name)
        const record = readRecord(folder, file)
        return record !== undefined && recordFile(folder.path, record.directory) === file ? [{ folder, record }] : []
      }),
  )
}

function readRecord(folder: RecordFolder, file: string): MountRecord | undefined {
  const read = v.safeParse(RecordSchema, readRecordFile(folder, file))
  if (!read.success) return undefined
  const record = read.output
  return record.socket === undefined ? record : { ...record, socket: socketFile(folder.path, record.directory) }
}

/** Who mounted what is on each directory, of those that Eider is mounted on. */
function ownersByMount(): Map<string, number> {
  const owners = new Map<string, number>()
  for (const { type, directory, superOptions } of mounts()) {
    const uid = type === MOUNT_TYPE ? /(?:^|,)user_id=(\d+)/.exec(superOptions)?.[1] : undefined
    if (uid !== undefined) owners.set(directory, Number(uid))
  }
  return owners
}

/** A record speaks for a mount of its own user, or for one that is in the table no more. */
function isOf(owner: number | undefined, { uid }: RecordFolder): boolean {
  return owner === undefined || owner === uid
}

/** Where the process that serves the mount on that directory tells how it stands: beside its record, and short, as it must be. */
export function statusSocket(directory: string): string {
  return socketFile(runtimeDirectory(), directory)
}

/** Removes the record of that directory, if `pid` wrote it: by now another mount may be there. */
export function removeMountRecord(directory: string, pid: number): void {
  for (const folder of recordFolders()) {
    const file = recordFile(folder.path, directory)
    if (readRecord(folder, file)?.process.pid === pid) rmSync(file, { force: true })
  }
}

function recordFile(folder: string, directory: string): string {
  return join(folder, `mount-${createHash('sha256').update(directory).digest('hex').slice(0, 24)}.json`)
}

/** Short, as the path of a socket must be. */
function socketFile(folder: string, directory: string): string {
  return recordFile(folder, directory).replace(/json$/, 'sock')
}
