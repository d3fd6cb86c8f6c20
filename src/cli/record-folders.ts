/**
 * The folders in which running processes keep records of what they do, one for each user, and the reading of such a file. Root
 * reads those of all users. They are input from outside: only what lies in a directory that the user alone may write to is read,
 * and no file of it is followed elsewhere, waited for, or without end.
 */
import { closeSync, constants, fstatSync, lstatSync, openSync, readdirSync, readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { isOperationError } from '#base/errors.ts'
import { runtimeDirectory } from './places.ts'

/** Many thousands of paths fit; more is not one of ours. */
const RECORD_BYTES_MAX = 4 * 1024 ** 2

/** Where records of one user lie. */
export interface RecordFolder {
  readonly path: string
  readonly uid: number
}

/** This user's, and those of all users for root. */
export function recordFolders(): RecordFolder[] {
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

/** Whether it is a directory of that user, which nobody else may write to. */
export function isAlone({ path, uid }: RecordFolder): boolean {
  const found = lstatSync(path, { throwIfNoEntry: false })
  return found !== undefined && found.isDirectory() && found.uid === uid && (found.mode & 0o022) === 0
}

/** Nothing where there is no such folder, or it is gone by now. */
export function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder)
  } catch {
    return []
  }
}

/** The JSON of a record that lies in the folder; undefined where there is none, or it is not a plain file of that user. */
export function readRecordFile({ uid }: RecordFolder, file: string): unknown {
  let fd: number | undefined
  try {
    // A fifo would have its reader wait, and a link lead elsewhere.
    fd = openSync(file, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
    const found = fstatSync(fd)
    if (!found.isFile() || found.uid !== uid || found.size > RECORD_BYTES_MAX) return undefined
    return JSON.parse(readFileSync(fd, 'utf8'))
  } catch {
    // None, or none of this version.
    return undefined
  } finally {
    if (fd !== undefined) closeSync(fd)
  }
}
