/** Times and link counts that nobody sets: they follow from what happens to names. */
import assert from 'node:assert/strict'
import { setTimeout as delay } from 'node:timers/promises'
import { test } from 'node:test'

import { setLogLevel } from '#base/log.ts'
import { compareTimestamps, timestamp } from '#base/time.ts'
import { openMemoryStore } from '#store/memory-store.ts'
import { ABSENT } from '#store/store.ts'

import { rig, untold, type Rig } from './kernel-double.ts'

setLogLevel('silent')

const CHANGES: readonly [string, (it: Rig) => Promise<unknown>, readonly string[]][] = [
  ['a file made', (it) => it.kernel.writeFile('a/new', ''), ['a']],
  ['a directory made', (it) => it.kernel.mkdir('a/new'), ['a']],
  ['a symlink made', (it) => it.kernel.symlink('a/new', 'target'), ['a']],
  ['a file removed', (it) => it.kernel.unlink('a/file'), ['a']],
  ['a directory removed', (it) => it.kernel.rmdir('a/dir'), ['a']],
  ['a rename to another directory', (it) => it.kernel.rename('a/file', 'b/file'), ['a', 'b']],
  ['an exchange with another directory', (it) => it.kernel.rename('a/file', 'b/other', 2), ['a', 'b']],
]
for (const [what, change, changed] of CHANGES) {
  test(`[S85] ${what} changes the times of its directories, and of no other`, async () => {
    await using it = await rig(untold(openMemoryStore()))
    for (const path of ['a', 'b', 'c', 'a/dir']) await it.kernel.mkdir(path)
    for (const path of ['a/file', 'b/other']) await it.kernel.writeFile(path, 'x')
    const before = new Map<string, Awaited<ReturnType<typeof it.kernel.stat>>>()
    for (const path of ['a', 'b', 'c']) before.set(path, await it.kernel.stat(path))
    await delay(2)
    await change(it)
    for (const [path, { mtime, ctime }] of before) {
      const after = await it.kernel.stat(path)
      const later = [compareTimestamps(after.mtime, mtime) > 0, compareTimestamps(after.ctime, ctime) > 0]
      assert.deepEqual(later, changed.includes(path) ? [true, true] : [false, false], path)
    }
  })
}

test('[S85] a time that is set on a directory stays, and its ctime moves on', async () => {
  await using it = await rig(openMemoryStore())
  await it.kernel.mkdir('dir')
  await it.kernel.writeFile('dir/file', 'x')
  const { ctime } = await it.kernel.stat('dir')
  const mtime = timestamp(1_000_000_000, 123_456_789)
  await delay(2)
  await it.kernel.setattr('dir', { mtime })
  const after = await it.kernel.stat('dir')
  assert.deepEqual(after.mtime, mtime)
  assert.ok(compareTimestamps(after.ctime, ctime) > 0)
})

test('[S85] a directory that was listed counts its subdirectories, one that was not says 1', async () => {
  const store = openMemoryStore()
  for (const path of ['dir', 'dir/a', 'dir/b']) await store.makeDirectory(path, { guard: ABSENT })
  await store.put('dir/file', Buffer.from('x'), { guard: ABSENT })
  await using it = await rig(untold(store))
  assert.equal((await it.kernel.stat('dir')).nlink, 1)
  await it.kernel.names('dir')
  assert.equal((await it.kernel.stat('dir')).nlink, 4)
  await it.kernel.mkdir('other')
  await it.kernel.rename('dir/a', 'other/a')
  assert.deepEqual([(await it.kernel.stat('dir')).nlink, (await it.kernel.stat('other')).nlink], [3, 3])
  await it.kernel.rename('dir/file', 'other/a', 2)
  assert.deepEqual([(await it.kernel.stat('dir')).nlink, (await it.kernel.stat('other')).nlink], [4, 2])
  it.clock.ms += 2000
  assert.equal((await it.kernel.stat('dir')).nlink, 1)
})

test('[S85] set-id bits go with the owner, but not from directories', async () => {
  await using it = await rig(openMemoryStore())
  await it.kernel.writeFile('file', 'x')
  await it.kernel.mkdir('dir')
  await it.fs.mknod(1, 'pipe', 0o010644, 0, 0, it.kernel.caller)
  for (const path of ['file', 'dir', 'pipe']) {
    await it.kernel.setattr(path, { mode: 0o6755 })
    await it.kernel.setattr(path, { uid: 7, gid: 8 })
  }
  const modes = await Promise.all(
    ['file', 'dir', 'pipe'].map(async (path) => (await it.kernel.stat(path)).mode & 0o7777),
  )
  assert.deepEqual(modes, [0o755, 0o6755, 0o755])
})
