/** What people read of a mount: rounded sizes and counts in words. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { deadLines, notStored, statusLines } from './status-screen.ts'

const STATUS = {
  directory: '/mnt',
  store: 's3://bucket',
  pid: 12,
  since: '2026-01-01T00:00:00.000Z',
  state: 'mounted' as const,
  openFiles: 0,
  dirtyFiles: 0,
  dirtyBytes: 0,
  failing: null,
  waiting: null,
  memoryBytes: 0,
  memoryBytesMax: 174_483_046,
  cache: { files: 1, bytes: 4096, bytesMax: 21_810_380, hitBytes: 1, missBytes: 1, evictedBytes: 0, corruptBlocks: 1 },
  requests: {},
  cost: null,
}

test('[S118] files that the store does not take are told of, with the reason', () => {
  const failing = { files: 2, error: 'Cannot put "f": not allowed' }
  const lines = statusLines({ ...STATUS, dirtyFiles: 3, failing })
  assert.match(lines, /^ {2}not stored +3 files.*\n {2}failing +2 of them, tried again: Cannot put "f": not allowed$/m)
  assert.doesNotMatch(statusLines(STATUS), /failing/)
})

test('sizes are rounded, and one is singular', () => {
  const lines = statusLines(STATUS)
  assert.match(lines, /^ {2}memory +0 B of 166 MiB$/m)
  assert.match(
    lines,
    /^ {2}cache +4 KiB of 20\.8 MiB in 1 file, 50 % of what the mount read came from it, 1 corrupt block fetched again$/m,
  )
  assert.match(statusLines({ ...STATUS, cache: { ...STATUS.cache, files: 2 } }), /in 2 files,/)
  assert.equal(notStored({ dirtyFiles: 1, dirtyBytes: 5 }), '1 file, 5 B')
  assert.equal(notStored({ dirtyFiles: 1200, dirtyBytes: 10 * 1024 ** 3 }), '1200 files, 10 GiB')
})

test('what steers a terminal is not shown of a name', () => {
  const directory = '/mnt\u001b[2J'
  assert.match(statusLines({ ...STATUS, directory }), /^\/mnt\?\[2J {2}s3/)
  assert.match(deadLines({ directory, store: 'memory:' }), /^\/mnt\?\[2J {2}memory:\n/)
})
