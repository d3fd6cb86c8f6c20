/** Keeping what is staged, on real disks. */
import assert from 'node:assert/strict'
import {
  closeSync,
  existsSync,
  fstatSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { after, before, describe, test } from 'node:test'

import { StagedFile } from './staged-file.ts'
import { StagingArea } from './staging.ts'

const OTHER_DISK = '/dev/shm'
const MODIFIED = { seconds: 1_000_000_000, nanoseconds: 0 }

describe('staged files', () => {
  let base = ''
  before(() => {
    base = mkdtempSync(join(tmpdir(), 'eider-staging-'))
  })
  after(() => rmSync(base, { recursive: true, force: true }))

  test('a staged file has no name until it is kept, and is then that very file, with its time', async () => {
    const directory = join(base, 'linked')
    const area = await StagingArea.open(directory)
    const staged = area.create()
    staged.write(0, Buffer.from('bytes'))
    assert.deepEqual(readdirSync(directory), ['conflicts'])
    const path = await area.keep(staged, { name: 'name', modified: MODIFIED, base: undefined })
    assert.equal(statSync(path).ino, fstatSync(staged.fd).ino, 'no bytes are copied')
    assert.equal(statSync(path).mtimeMs, 1_000_000_000_000)
    staged.close()
    assert.equal(readFileSync(path, 'utf8'), 'bytes')
    assert.match(path, /\/conflicts\/[^/]+-name$/)
  })

  test('keeping works after its owner has removed the directory of what was kept before', async () => {
    const directory = join(base, 'tidied')
    const area = await StagingArea.open(directory)
    const staged = area.create()
    staged.write(0, Buffer.from('bytes'))
    rmSync(join(directory, 'conflicts'), { recursive: true })
    const path = await area.keep(staged, { name: 'name', modified: MODIFIED, base: undefined })
    staged.close()
    assert.equal(readFileSync(path, 'utf8'), 'bytes')
  })

  test('a staged file with a name loses it when it is closed, and is renamed when it is kept', () => {
    const staged = (name: string): StagedFile =>
      new StagedFile(openSync(join(base, name), 'wx+', 0o600), join(base, name))
    staged('dropped').close()
    assert.equal(existsSync(join(base, 'dropped')), false)
    const kept = staged('staged')
    kept.write(0, Buffer.from('bytes'))
    kept.giveName(join(base, 'kept'))
    kept.close()
    assert.equal(existsSync(join(base, 'staged')), false)
    assert.equal(readFileSync(join(base, 'kept'), 'utf8'), 'bytes')
  })

  const oneDisk = !existsSync(OTHER_DISK) || statSync(OTHER_DISK).dev === statSync(tmpdir()).dev
  test('what cannot be linked is copied', { skip: oneDisk ? 'there is but one file system' : false }, async () => {
    const directory = join(base, 'copied')
    await StagingArea.open(directory)
    const other = mkdtempSync(join(OTHER_DISK, 'eider-conflicts-'))
    try {
      rmSync(join(directory, 'conflicts'), { recursive: true })
      symlinkSync(other, join(directory, 'conflicts'))
      const area = await StagingArea.open(directory)
      const staged = area.create()
      staged.write(0, Buffer.from('bytes'))
      const path = await area.keep(staged, { name: 'name', modified: MODIFIED, base: undefined })
      closeSync(staged.fd)
      assert.equal(readFileSync(path, 'utf8'), 'bytes')
      assert.equal(statSync(path).mtimeMs, 1_000_000_000_000)
    } finally {
      rmSync(other, { recursive: true })
    }
  })
})

test("what a process of the same number has left is swept, and in nobody's way", async () => {
  const directory = mkdtempSync(join(tmpdir(), 'eider-staging-'))
  try {
    const first = await StagingArea.open(directory)
    writeFileSync(first.newPath(), 'left by one that died')
    const second = await StagingArea.open(directory)
    assert.deepEqual(readdirSync(directory), ['conflicts'])
    assert.notEqual(basename(first.newPath()), basename(second.newPath()))
  } finally {
    rmSync(directory, { recursive: true })
  }
})
