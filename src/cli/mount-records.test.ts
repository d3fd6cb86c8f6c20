/** Which records root reads of other users: those in places that nobody else can have prepared. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { chmodSync, chownSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { type MountRecord, recordsIn, removeMountRecord, statusSocket, writeMountRecord } from './mount-records.ts'
import { foldersOfUsers } from './record-folders.ts'

const scratch = mkdtempSync(join(tmpdir(), 'eider-records-'))
after(() => rmSync(scratch, { recursive: true }))
const uid = process.getuid?.() ?? 0
const skip = uid === 0 ? false : 'only root makes directories of other users'

const directory = join(scratch, 'mounted')
const record: MountRecord = {
  directory,
  store: 'memory:',
  process: { pid: process.pid, startTicks: 1 },
  socket: statusSocket(directory),
}

/** The name of the file that has the record of `directory`. */
const name = statusSocket(directory).replace(/^.*\//, '').replace(/sock$/, 'json')

function folder(path: string, owner: number, mode = 0o700): string {
  mkdirSync(path, { recursive: true })
  chownSync(path, owner, owner)
  chmodSync(path, mode)
  return path
}

test('users without a directory of Eider are passed over', () => {
  mkdirSync(join(scratch, 'run', String(uid)), { recursive: true })
  mkdirSync(join(scratch, 'run', 'not-a-number', 'eider'), { recursive: true })
  assert.deepEqual(foldersOfUsers(join(scratch, 'run'), [join(scratch, 'absent')]), [])
  assert.deepEqual(recordsIn([{ path: join(scratch, 'run', String(uid), 'eider'), uid }]), [])
})

test(
  'of each user the places with and without a session are looked at, where they are of that user alone',
  { skip },
  () => {
    const [run, temporary] = [join(scratch, 'sessions'), join(scratch, 'tmp')]
    const session = folder(join(run, '1001', 'eider'), 1001)
    const plain = folder(join(temporary, 'eider-1002'), 1002)
    folder(join(run, '1003', 'eider'), 1001)
    folder(join(temporary, 'eider-1004'), 1004, 0o770)
    folder(join(temporary, 'eider-1005'), 1005, 0o702)
    symlinkSync(plain, join(temporary, 'eider-1006'))
    folder(join(temporary, 'eider-x'), 1007)
    writeFileSync(join(temporary, 'eider-1008'), '')
    assert.deepEqual(foldersOfUsers(run, [temporary]), [
      { path: session, uid: 1001 },
      { path: plain, uid: 1002 },
    ])
  },
)

test('a record is a file of its user, and names no socket elsewhere', () => {
  const path = join(scratch, 'records')
  mkdirSync(path)
  const found = (): MountRecord[] => recordsIn([{ path, uid }]).map((each) => each.record)
  const file = join(path, name)
  writeFileSync(file, JSON.stringify({ ...record, socket: '/run/another.sock' }))
  assert.deepEqual(found(), [{ ...record, socket: file.replace(/json$/, 'sock') }])
  // Under the name of another directory it would stand for a mount that it does not tell of.
  writeFileSync(file, JSON.stringify({ ...record, directory: '/elsewhere' }))
  assert.deepEqual(found(), [])
  rmSync(file)
  writeFileSync(join(scratch, 'outside'), JSON.stringify(record))
  symlinkSync(join(scratch, 'outside'), file)
  assert.deepEqual(found(), [])
  rmSync(file)
  execFileSync('mkfifo', [file])
  assert.deepEqual(found(), [])
  rmSync(file)
  writeFileSync(file, JSON.stringify({ ...record, lost: ['x'.repeat(5 * 1024 ** 2)] }))
  assert.deepEqual(found(), [])
})

test('a record of another user is not read from the folder of this one', { skip }, () => {
  const path = join(scratch, 'foreign')
  mkdirSync(path)
  writeFileSync(join(path, name), JSON.stringify(record))
  chownSync(join(path, name), 1001, 1001)
  assert.deepEqual(recordsIn([{ path, uid }]), [])
})

test('only the process that wrote a record removes it', () => {
  writeMountRecord(record)
  const file = statusSocket(directory).replace(/sock$/, 'json')
  const own = { path: file.slice(0, file.lastIndexOf('/')), uid }
  const isThere = (): boolean => recordsIn([own]).some((each) => each.record.directory === directory)
  removeMountRecord(directory, process.pid + 1)
  assert.ok(isThere())
  removeMountRecord(directory, process.pid)
  assert.ok(!isThere())
})
