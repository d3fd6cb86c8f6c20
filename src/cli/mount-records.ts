/**
 * Who serves which mount: a small file for each, written by the process that serves it, so that `eider unmount` knows
 * whom to wait for and what could not be stored. A record without its process is of one that crashed.
 *
 * Root reads those of all users. They are input from outside: only what lies in a directory that the user alone may write to is
 * read, and a record cannot send root to a socket elsewhere, speak for the mount of another user, or be without end.
 */
import { createHash } from 'node:crypto'
import {
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as v from 'valibot'
import { isOperationError } from '#base/errors.ts'
import { mounts } from '#os/mount-table.ts'
import { runtimeDirectory } from './places.ts'

/** As in the mount table. */
export const MOUNT_TYPE = 'fuse.eider'
/** Many thousands of paths fit; more is not one of ours. */
const RECORD_BYTES_MAX = 4 * 1024 ** 2
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

function readRecord({ path, uid }: RecordFolder, file: string): MountRecord | undefined {
  let fd: number | undefined
  try {
    // A fifo would have its reader wait, and a link lead elsewhere.
    fd = openSync(file, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
    const found = fstatSync(fd)
    if (!found.isFile() || found.uid !== uid || found.size > RECORD_BYTES_MAX) return undefined
    const record = v.parse(RecordSchema, JSON.parse(readFileSync(fd, 'utf8')))
    return record.socket === undefined ? record : { ...record, socket: socketFile(path, record.directory) }
  } catch {
    // None, or none of this version.
    return undefined
  } finally {
    if (fd !== undefined) closeSync(fd)
  }
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

/** Where records of one user lie. */
export interface RecordFolder {
  readonly path: string
  readonly uid: number
}

function recordFolders(): RecordFolder[] {
  const own: RecordFolder[] = []
  const uid = process.getuid?.() ?? 0
  try {
    own.push({ path: runtimeDirectory(), uid })
  } catch (error) {
    // No folder of its own means no records of its own; it is told where one is to be written.
    if (!isOperationError(error)) throw error
  }
  return uid === 0 ? [...own, ...foldersOfUsers('/run/user', [...new Set(['/tmp', tmpdir()])])] : own
}

/**
 * The folders of users other than root: `/run/user/1001/eider` and, of those without a session, `/tmp/eider-1001`. Only those
 * that are what they seem: a directory of that very user, which nobody else may write to.
 */
export function foldersOfUsers(sessions: string, temporaries: readonly string[]): RecordFolder[] {
  const candidates = [
    ...namesIn(sessions).map((name) => ({ path: join(sessions, name, 'eider'), user: name })),
    ...temporaries.flatMap((place) =>
      namesIn(place)
        .filter((name) => name.startsWith('eider-'))
        .map((name) => ({ path: join(place, name), user: name.slice('eider-'.length) })),
    ),
  ]
  return candidates.flatMap(({ path, user }) => {
    const folder = { path, uid: Number(user) }
    return /^\d{1,10}$/.test(user) && isAlone(folder) ? [folder] : []
  })
}

function isAlone({ path, uid }: RecordFolder): boolean {
  const found = lstatSync(path, { throwIfNoEntry: false })
  return found !== undefined && found.isDirectory() && found.uid === uid && (found.mode & 0o022) === 0
}

/** Nothing where there is no such folder, or it is gone by now. */
function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder)
  } catch {
    return []
  }
}

function recordFile(folder: string, directory: string): string {
  return join(folder, `mount-${createHash('sha256').update(directory).digest('hex').slice(0, 24)}.json`)
}

/** Short, as the path of a socket must be. */
function socketFile(folder: string, directory: string): string {
  return recordFile(folder, directory).replace(/json$/, 'sock')
}
