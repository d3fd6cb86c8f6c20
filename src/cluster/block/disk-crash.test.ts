/**
 * Crashes of a machine at every step of what a disk does: a block is whole or absent, what was acknowledged is there, and what
 * was erased stays so.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'

import type { ClusterId } from '#cluster/cluster-id.ts'

import { blockPath } from './block-id.ts'
import { blockFileBytes } from './block-trailer.ts'
import { chooser, Clock, codeOf, idAt, madeUp, openDisk, put } from './disk-fixture.ts'
import { ERASE_AGE_MS_MIN } from './disk.ts'
import { MemoryBlockFiles, type StepCall, systemError } from './memory-block-files.ts'
import { erasePermit } from './permit.ts'

/** Each has three pages, so that a torn one has a middle. */
const BLOCK_BYTES = 10_000

/** What changes nothing makes no step: the power that goes before it goes before what comes next, too. */
const LOOKS: ReadonlySet<StepCall> = new Set(['open', 'read', 'readBack', 'list', 'room', 'close'])

/** Has the power go right before the `last`th step from now on: that one and all after it fail. Gives whether it came so far. */
function crashAt(files: MemoryBlockFiles, last: number): () => boolean {
  let steps = 0
  files.before = ({ call }) => {
    if (!LOOKS.has(call)) steps++
    if (steps > last) throw systemError('crash', 'ENODEV')
  }
  return () => {
    files.before = undefined
    return steps > last
  }
}

/**
 * Does `work` with the power failing at each of its steps in turn, until it needs fewer; then `look` after each. What was not
 * synced falls in another way in each of the crashes of a step.
 */
async function everyCrash<T>(
  prepare: (files: MemoryBlockFiles, clock: Clock) => Promise<void>,
  work: (files: MemoryBlockFiles, clock: Clock) => Promise<T>,
  look: (files: MemoryBlockFiles, clock: Clock, acknowledged: T | undefined) => Promise<void>,
  crashesPerStep = 20,
): Promise<number> {
  for (let step = 0; ; step++) {
    let crashed = false
    for (let seed = 0; seed < crashesPerStep; seed++) {
      const files = new MemoryBlockFiles()
      const clock = new Clock()
      await prepare(files, clock)
      const ended = crashAt(files, step)
      const acknowledged = await work(files, clock).catch(() => undefined)
      crashed = ended()
      files.crash(chooser(step * crashesPerStep + seed))
      await look(files, clock, acknowledged)
    }
    if (!crashed) return step
  }
}

const made = async (files: MemoryBlockFiles, clock: Clock): Promise<void> => (await openDisk(files, clock)).close()

test('a block is whole or absent after a crash at any step of its write, and there once it was acknowledged', async () => {
  const id = idAt()
  const bytes = madeUp(BLOCK_BYTES)
  const outcomes = { absent: 0, whole: 0, acknowledged: 0 }
  const steps = await everyCrash(
    made,
    async (files, clock) => put(await openDisk(files, clock), id, bytes),
    async (files, clock, receipt) => {
      const disk = await openDisk(files, clock)
      const isThere = files.bytesOf(blockPath(id)) !== undefined
      if (isThere) {
        assert.equal((await disk.check(id)).outcome, 'whole')
        const read = await disk.fetch(id, 0, BLOCK_BYTES)
        assert.ok(read.outcome === 'whole' && bytes.equals(read.bytes))
      } else {
        assert.equal(await codeOf(disk.fetch(id, 0, 1)), 'BLOCK_NOT_FOUND')
      }
      assert.ok(isThere || receipt === undefined, 'what was acknowledged is there')
      outcomes[isThere ? 'whole' : 'absent']++
      if (receipt !== undefined) outcomes.acknowledged++
      assert.deepEqual(
        files.paths().filter((path) => path.startsWith('tmp/')),
        [],
        'nothing is left in tmp',
      )
      assert.equal((await disk.usage()).usedBytes, isThere ? blockFileBytes(BLOCK_BYTES) : 0)
      // Who was not answered asks again, and gets the receipt.
      const again = await put(disk, id, bytes)
      if (receipt !== undefined) assert.deepEqual(again, receipt)
      await disk.close()
    },
  )
  assert.ok(steps >= 6, `a write has ${steps} steps`)
  assert.ok(outcomes.absent > 0 && outcomes.whole > outcomes.acknowledged, JSON.stringify(outcomes))
})

test('an acknowledged write that is repeated is durable, also where the first one was not acknowledged', async () => {
  const id = idAt()
  const bytes = madeUp(BLOCK_BYTES)
  await everyCrash(
    async (files, clock) => {
      await made(files, clock)
      const disk = await openDisk(files, clock)
      files.before = ({ call }) => {
        // The block has its name, and the process ends before that is durable.
        if (call === 'syncDirectory') throw systemError('fsync', 'ENODEV')
      }
      await assert.rejects(put(disk, id, bytes))
      files.before = undefined
      await disk.close()
    },
    async (files, clock) => put(await openDisk(files, clock), id, bytes),
    async (files, clock, receipt) => {
      if (receipt === undefined) return
      const disk = await openDisk(files, clock)
      assert.equal((await disk.check(id)).outcome, 'whole')
      await disk.close()
    },
  )
})

test('a block is whole or gone after a crash at any step of its erasure, and gone once that was acknowledged', async () => {
  const id = idAt()
  const bytes = madeUp(BLOCK_BYTES)
  const found = { whole: 0, gone: 0 }
  await everyCrash(
    async (files, clock) => {
      const disk = await openDisk(files, clock)
      await put(disk, id, bytes)
      await disk.close()
      clock.forwardMs(ERASE_AGE_MS_MIN)
    },
    async (files, clock) => {
      const disk = await openDisk(files, clock)
      return disk.erase(id, erasePermit(disk.identity, id))
    },
    async (files, clock, receipt) => {
      const disk = await openDisk(files, clock)
      const code = await codeOf(disk.check(id))
      assert.ok(code === undefined || code === 'BLOCK_NOT_FOUND', code)
      if (receipt !== undefined) assert.equal(code, 'BLOCK_NOT_FOUND')
      found[code === undefined ? 'whole' : 'gone']++
      const again = await disk.erase(id, erasePermit(disk.identity, id))
      if (receipt !== undefined) assert.deepEqual(again, receipt)
      await disk.close()
    },
  )
  assert.ok(found.whole > 0 && found.gone > 0, JSON.stringify(found))
})

test('a disk whose making was cut short at any step is made anew, and keeps its identity from the first use on', async () => {
  const steps = await everyCrash(
    async () => undefined,
    async (files, clock) => (await openDisk(files, clock)).identity,
    async (files, clock, identity) => {
      const disk = await openDisk(files, clock)
      if (identity !== undefined) assert.deepEqual(disk.identity, identity)
      const id = idAt()
      await put(disk, id, madeUp(10))
      assert.equal((await disk.check(id)).outcome, 'whole')
      await disk.close()
      const again = await openDisk(files, clock)
      assert.deepEqual(again.identity, disk.identity)
      await again.close()
    },
    1,
  )
  assert.ok(steps > 256)
})

test('of many writes and crashes nothing acknowledged is lost, and nothing is there in part', async () => {
  const choose = chooser(7)
  const files = new MemoryBlockFiles()
  const clock = new Clock()
  await made(files, clock)
  const acknowledged = new Map<number, Buffer>()
  let written = 0
  for (let round = 0; round < 60; round++) {
    const disk = await openDisk(files, clock, { limits: { writes: 4 } })
    for (const [n, bytes] of acknowledged) {
      const read = await disk.fetch(idAt(undefined, n), 0, bytes.length)
      assert.ok(read.outcome === 'whole' && bytes.equals(read.bytes), `block ${n} in round ${round}`)
    }
    const ended = crashAt(files, choose(60))
    const writes = Array.from({ length: 8 }, async () => {
      const n = written++
      const bytes = madeUp(1 + choose(3 * 4096), n)
      await put(disk, idAt(undefined, n), bytes)
      acknowledged.set(n, bytes)
    })
    await Promise.allSettled(writes)
    ended()
    files.crash(choose)
    for (const path of files.paths()) if (/^\d\d\//.test(path)) assert.ok((files.bytesOf(path)?.length ?? 0) > 36)
  }
  assert.ok(acknowledged.size > 30 && acknowledged.size < written, `${acknowledged.size} of ${written}`)
})

test('[S165] after a crash at any step of joining a cluster a disk belongs to none or to that one, and to that one once it was said', async () => {
  const [one, other] = ['1', '2'].map((digit) => digit.repeat(32) as ClusterId)
  assert.ok(one !== undefined && other !== undefined)
  const found = { none: 0, one: 0 }
  await everyCrash(
    made,
    async (files, clock) => {
      const disk = await openDisk(files, clock)
      await disk.join(one)
      return disk.cluster
    },
    async (files, clock, acknowledged) => {
      const disk = await openDisk(files, clock)
      assert.ok(disk.cluster === one || (disk.cluster === undefined && acknowledged === undefined))
      found[disk.cluster === undefined ? 'none' : 'one']++
      if (disk.cluster === undefined) await disk.join(other)
      const cluster = disk.cluster
      await disk.close()
      const again = await openDisk(files, clock)
      assert.equal(again.cluster, cluster)
      await again.close()
    },
  )
  assert.ok(found.none > 0 && found.one > 0, JSON.stringify(found))
})

test('a disk whose cluster cannot be read is refused, and stays as it is', async () => {
  const [files, clock] = [new MemoryBlockFiles(), new Clock()]
  const disk = await openDisk(files, clock)
  await disk.join('3'.repeat(32) as ClusterId)
  await disk.close()
  const whole = Buffer.from(files.bytesOf('cluster') ?? [])
  for (let at = 0; at < whole.length; at++) {
    const damaged = Buffer.from(whole)
    damaged[at] = (damaged[at] ?? 0) ^ 1
    files.place('cluster', damaged)
    assert.equal(await codeOf(openDisk(files, clock)), 'DISK_UNUSABLE')
    assert.ok(files.bytesOf('cluster')?.equals(damaged))
  }
})
