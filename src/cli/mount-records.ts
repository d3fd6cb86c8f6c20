/**
 * Who serves which mount: a small file for each, written by the process that serves it, so that `eider unmount` knows
 * whom to wait for and what could not be stored. A record without its process is of one that crashed.
 */
import { createHash } from 'node:crypto'
import { readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import * as v from 'valibot'
import { isOperationError } from '#base/errors.ts'
import { runtimeDirectory } from './places.ts'

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
  for (const folder of recordFolders()) {
    const record = readRecord(recordFile(folder, directory))
    if (record !== undefined) return record
  }
  return undefined
}

function readRecord(file: string): MountRecord | undefined {
  try {
    return v.parse(RecordSchema, JSON.parse(readFileSync(file, 'utf8')))
  } catch {
    // None, or none of this version.
    return undefined
  }
}

/** All records that this user may see, also those of processes that have died. */
export function mountRecords(): MountRecord[] {
  return recordFolders().flatMap((folder) => {
    const names = readdirSync(folder).filter((name) => /^mount-[0-9a-f]+\.json$/.test(name))
    return names.flatMap((name) => readRecord(join(folder, name)) ?? [])
  })
}

/** Where the process that serves the mount on that directory tells how it stands: beside its record, and short, as it must be. */
export function statusSocket(directory: string): string {
  return recordFile(runtimeDirectory(), directory).replace(/json$/, 'sock')
}

/** Removes the record of that directory, if `pid` wrote it: by now another mount may be there. */
export function removeMountRecord(directory: string, pid: number): void {
  for (const folder of recordFolders()) {
    if (readMountRecord(directory)?.process.pid === pid) rmSync(recordFile(folder, directory), { force: true })
  }
}

function recordFolders(): string[] {
  const folders = new Set<string>()
  try {
    folders.add(runtimeDirectory())
  } catch (error) {
    // No folder of its own means no records of its own; it is told where one is to be written.
    if (!isOperationError(error)) throw error
  }
  if (process.getuid?.() === 0) {
    try {
      for (const user of readdirSync('/run/user')) folders.add(`/run/user/${user}/eider`)
    } catch {
      // No user has a session here.
    }
  }
  return [...folders]
}

function recordFile(folder: string, directory: string): string {
  return join(folder, `mount-${createHash('sha256').update(directory).digest('hex').slice(0, 24)}.json`)
}
