/** Daemons on a machine whose clock is set by days for a moment: as they are put together, over TCP and on disk. */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { mock, test } from 'node:test'

import { isOperationError } from '#base/errors.ts'
import { setLogLevel } from '#base/log.ts'
import { startRegistry } from '#cluster/daemons/registry-daemon.ts'
import { startShard } from '#cluster/daemons/shard-daemon.ts'
import { ROOT_INODE } from '#cluster/inode-id.ts'
import { shardMessages } from '#cluster/shard/shard-messages.ts'
import { systemSurroundings } from '#cluster/system-surroundings.ts'
import { Caller } from '#cluster/wire/caller.ts'
import { ANYTHING } from '#cluster/wire/forms.ts'

const DAY_MS = 86_400_000

test('[S166] a shard on a machine whose clock leaps by days takes no write meanwhile, and goes on where it was', async () => {
  setLogLevel('silent')
  const scratch = mkdtempSync(join(tmpdir(), 'eider-clock-'))
  const onFailed = (error: Error): void => assert.fail(error)
  const listen = '127.0.0.1:0'
  await using opened = new AsyncDisposableStack()
  opened.defer(() => {
    mock.restoreAll()
    rmSync(scratch, { recursive: true, force: true })
  })
  const registry = await startRegistry({ data: join(scratch, 'registry'), listen, onFailed })
  opened.defer(() => registry.close())
  const shards = { first: 0, last: 255, reserveBytes: 0, location: '', registry: registry.address }
  const shard = await startShard({ data: join(scratch, 'shards'), listen, onFailed, ...shards })
  opened.defer(() => shard.close())
  const caller = new Caller(systemSurroundings())
  opened.defer(() => caller.close())
  const target = { name: 'the shard', address: () => shard.address }
  const attributes = { mode: 0o644, uid: 0, gid: 0, mtime: undefined, atime: undefined }
  const file = { type: 'file', attributes, size: 0, crc: 0, bytes: Buffer.alloc(0), xattrs: [] } as const
  const create = (name: string, deadlineMs: number) => {
    const place = { directory: ROOT_INODE, name, guard: ANYTHING }
    return caller.call(target, shardMessages.create, { ...place, ...file }, { deadlineMs })
  }
  const isNow = (us: number): boolean => Math.abs(us / 1000 - Date.now()) < 60_000
  const first = await create('first', 30_000)
  assert.ok(isNow(first.created))

  const real = Date.now.bind(Date)
  for (const leapMs of [9 * DAY_MS, -9 * DAY_MS]) {
    mock.method(Date, 'now', () => real() + leapMs)
    await assert.rejects(create('leapt', 500), (error) => isOperationError(error, 'CLOCK_UNTRUSTED'))
    const { inode } = await caller.call(target, shardMessages.lookup, { directory: ROOT_INODE, name: 'first' })
    assert.equal(inode, first.inode)
    mock.restoreAll()
  }
  const last = await create('last', 30_000)
  assert.ok(last.created > first.created && isNow(last.created), new Date(last.created / 1000).toISOString())
})
