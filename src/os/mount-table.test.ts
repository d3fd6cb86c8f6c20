import assert from 'node:assert/strict'
import { mkdtempSync, mkdirSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { mountPath, mounts, mountsOf, parseMountInfo } from './mount-table.ts'

test('a line of the table, with escapes, optional fields and names that are not ASCII', () => {
  const line =
    '36 35 98:0 /mnt1 /mnt/with\\040space\\011tab\\134back\\012line rw,noatime shared:1 master:2 - fuse.eider s3://b/naïve\\040x rw,fd=3\n'
  assert.deepEqual(parseMountInfo(Buffer.from(line)), [
    {
      id: 36,
      parentId: 35,
      device: '98:0',
      root: '/mnt1',
      directory: '/mnt/with space\ttab\\back\nline',
      options: 'rw,noatime',
      type: 'fuse.eider',
      source: 's3://b/naïve x',
      superOptions: 'rw,fd=3',
    },
  ])
})

test('lines that are not well formed are left out', () => {
  assert.deepEqual(parseMountInfo(Buffer.from('\n36 35 98:0\n1 2 3:4 / /x rw - \n')), [])
})

test('the table of this process has the root and /proc', () => {
  assert.ok(mounts().some(({ directory }) => directory === '/'))
  assert.equal(mountsOf('/proc').at(-1)?.type, 'proc')
  assert.deepEqual(mountsOf('/proc/self'), [])
})

test('a mount point is known by its real path', () => {
  const directory = mkdtempSync(join(tmpdir(), 'eider-mount-table-'))
  try {
    mkdirSync(join(directory, 'real'))
    symlinkSync('real', join(directory, 'link'))
    symlinkSync('link', join(directory, 'twice'))
    symlinkSync('loop', join(directory, 'loop'))
    assert.equal(mountPath(join(directory, 'twice')), join(directory, 'real'))
    assert.equal(mountPath(join(directory, 'missing', 'deep')), join(directory, 'missing', 'deep'))
    assert.equal(mountPath('/'), '/')
    // A loop has no real path; what matters is that the walk ends.
    assert.equal(mountPath(join(directory, 'loop')), join(directory, 'loop'))
  } finally {
    rmSync(directory, { recursive: true })
  }
})
