/** Staged files on real disks: a full one, one without zeroed ranges, and holes. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'

import type { StagedFile } from './staged-file.ts'
import { StagingArea } from './staging.ts'

const KIB = 1024
const MIB = 1 << 20
const NO_SPACE = { code: 'STAGING_NO_SPACE' }

let base = ''
before(() => {
  base = mkdtempSync(join(tmpdir(), 'eider-staged-'))
})
after(() => rmSync(base, { recursive: true, force: true }))

async function staged(directory: string): Promise<StagedFile> {
  return (await StagingArea.open(directory)).create()
}

function holesAndData(file: StagedFile): void {
  file.write(0, Buffer.alloc(2 * MIB, 'a'))
  file.zero(512 * KIB, 512 * KIB, true, true)
  assert.equal(file.seekHole(0), 512 * KIB)
  assert.equal(file.seekData(512 * KIB), MIB)
  assert.equal(file.seekHole(MIB), 2 * MIB, 'the end is a hole')
  assert.equal(file.seekData(2 * MIB), undefined)
  assert.equal(file.seekHole(2 * MIB), undefined)
  file.zero(MIB + 10, 100, false, true)
  file.zero(2 * MIB - 10, 20, false, false)
  assert.equal(file.size, 2 * MIB + 10)
  const bytes = file.read(0, 3 * MIB)
  assert.equal(bytes.length, 2 * MIB + 10)
  const zeros = (start: number, end: number): boolean => bytes.subarray(start, end).every((byte) => byte === 0)
  assert.ok(zeros(512 * KIB, MIB) && zeros(MIB + 10, MIB + 110) && zeros(2 * MIB - 10, 2 * MIB + 10))
  assert.equal(bytes[MIB + 110], 97)
  assert.equal(bytes[2 * MIB - 11], 97)
}

test('holes are found, and zeroed ranges are zeros', async () => {
  const file = await staged(join(base, 'holes'))
  holesAndData(file)
  file.close()
})

test('what lies over a stored version has its bytes for data, wherever nothing was made a hole', async () => {
  const file = await staged(join(base, 'over'))
  file.layOver(2 * MIB)
  assert.equal(file.seekData(5), 5)
  assert.equal(file.seekHole(5), 2 * MIB)
  file.zero(MIB, 512 * KIB, true, true)
  assert.equal(file.seekHole(5), MIB)
  assert.equal(file.seekData(MIB), MIB + 512 * KIB)
  file.allocate(2 * MIB, MIB, false)
  assert.equal(file.size, 3 * MIB)
  assert.equal(file.holds(2 * MIB, MIB), true)
  assert.equal(file.holds(MIB - 1, 2), false)
  file.close()
})

test('bytes that are fetched go nowhere but where they are missing', async () => {
  const file = await staged(join(base, 'brought'))
  file.layOver(30)
  file.write(10, Buffer.from('written'))
  file.truncate(25)
  file.bring(0, Buffer.alloc(30, 'b'))
  assert.equal(file.read(0, 100).toString(), `${'b'.repeat(10)}written${'b'.repeat(8)}`)
  assert.equal(file.isComplete, true)
  assert.deepEqual([...file.dirty.within(0, 100)], [{ start: 10, end: 17 }])
  file.close()
})

test('what was not stored is dirty again, with what was written meanwhile', async () => {
  const file = await staged(join(base, 'sent'))
  file.layOver(100)
  file.write(10, Buffer.from('one'))
  const sent = file.sending()
  file.write(20, Buffer.from('two'))
  file.notStored(sent)
  assert.deepEqual(
    [...file.dirty.within(0, 100)],
    [
      { start: 10, end: 13 },
      { start: 20, end: 23 },
    ],
  )
  file.sending()
  file.write(30, Buffer.from('three'))
  file.truncate(90)
  file.truncate(95)
  file.stored()
  assert.equal(file.baseEnd, 90)
  assert.deepEqual(
    [...file.dirty.within(0, 100)],
    [
      { start: 30, end: 35 },
      { start: 90, end: 95 },
    ],
  )
  file.close()
})

const isRoot = process.getuid?.() === 0
describe('on a full disk', { skip: isRoot ? false : 'only root makes a small disk' }, () => {
  let disk = ''
  before(() => {
    disk = join(base, 'disk')
    mkdirSync(disk)
    const { status, stderr } = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=4m', 'eider-test', disk])
    assert.equal(status, 0, stderr.toString())
  })
  after(() => {
    spawnSync('umount', ['-l', disk])
  })

  test('[S33] no room is told to who asks for it, and what is there stays', async () => {
    const file = await staged(disk)
    file.write(0, Buffer.from('what is there'))
    assert.throws(() => file.allocate(0, 8 * MIB, false), NO_SPACE)
    assert.equal(file.size, 13)
    file.allocate(0, MIB, true)
    file.write(MIB, Buffer.alloc(2 * MIB))
    const { size } = file
    const written = file.write(size, Buffer.alloc(4 * MIB))
    assert.ok(written < 4 * MIB, 'what went in before the disk was full is written')
    assert.equal(file.size, size + written)
    assert.throws(() => file.write(file.size, Buffer.alloc(MIB)), NO_SPACE)
    assert.equal(file.size, size + written)
    assert.equal(file.read(0, 13).toString(), 'what is there')
    file.close()
  })

  test('[S33] what could not be fetched is still missing', async () => {
    const file = await staged(disk)
    file.layOver(16 * MIB)
    const bytes = Buffer.alloc(8 * MIB, 'b')
    assert.throws(() => file.bring(0, bytes), NO_SPACE)
    const { start = 0 } = file.missing.first(0) ?? {}
    assert.ok(start < 8 * MIB)
    assert.equal(file.holds(start, 1), false)
    if (start > 0) assert.equal(file.read(start - 1, 1).toString(), 'b')
    assert.deepEqual([...file.dirty.within(0, Infinity)], [])
    file.close()
  })

  test('a disk without zeroed ranges has them all the same', async () => {
    const file = await staged(disk)
    holesAndData(file)
    file.close()
  })
})
