import assert from 'node:assert/strict'
import { test } from 'node:test'

import { AssertionError } from '#base/assert.ts'
import { OperationError } from '#base/errors.ts'

import type { Machine } from './process.ts'
import { World } from './world.ts'

const HOUR_US = 3_600_000_000

function entry(text: string): Buffer[] {
  return [Buffer.from(text)]
}

async function entriesOf(machine: Machine): Promise<string[]> {
  const found: string[] = []
  await machine.disk.journal('j').read(1, (_, bytes) => found.push(bytes.toString()))
  return found
}

test('what was acknowledged is there after a kill; what was not is there in some worlds and not in others', async () => {
  const outcomes = new Set<string>()
  for (let seed = 0; seed < 40; seed++) {
    const world = new World(seed)
    const { timeline } = world
    const process = world.process('a', (machine) => machine)
    const story = async (): Promise<string[]> => {
      const { disk } = await process.start()
      const journal = disk.journal('j')
      await journal.append(1, entry('one'))
      await disk.state('s').commit([['key', Buffer.from('value')]], 1)
      void journal.append(2, entry('two'))
      process.kill()
      const again = await process.start()
      assert.equal(again.disk.state('s').get('key')?.toString(), 'value')
      return entriesOf(again)
    }
    outcomes.add((await timeline.until('it', story(), HOUR_US)).join())
  }
  assert.deepEqual(outcomes, new Set(['one', 'one,two']))
})

test('code of a dead process that still runs can touch nothing any more', async () => {
  const world = new World(1)
  const { timeline } = world
  const heard: string[] = []
  const listener = world.process('listener', async ({ surroundings }) => {
    await surroundings.network.listen('listener:1', () => ({
      onFrame: (frame) => heard.push(frame.toString()),
      onClosed: () => undefined,
    }))
  })
  const process = world.process('a', (machine) => machine)
  const story = async (): Promise<void> => {
    await listener.start()
    const { surroundings, disk, exit } = await process.start()
    const link = surroundings.network.connect('listener:1', { onFrame() {}, onClosed: () => heard.push('closed') })
    await timeline.delay(10_000)
    const journal = disk.journal('j')
    surroundings.clock.after(1, () => heard.push('timer before'))
    process.kill()
    link.send(Buffer.from('frame'))
    link.close()
    surroundings.clock.after(1, () => heard.push('timer'))
    surroundings.clock.soon(() => heard.push('soon'))
    surroundings.network.connect('listener:1', { onFrame() {}, onClosed() {} }).send(Buffer.from('other frame'))
    void surroundings.network.listen('a:1', () => assert.fail('nobody connects')).then(() => heard.push('listens'))
    journal.append(1, entry('late')).then(
      () => heard.push('appended'),
      () => undefined,
    )
    exit(new Error('nobody minds'))
    await timeline.delay(10_000_000)
    const again = await process.start()
    const appended = again.disk.journal('j').append(1, entry('new'))
    await journal.append(1, entry('stale')).catch(() => undefined)
    await appended
    assert.deepEqual(await entriesOf(again), ['new'])
  }
  await timeline.until('it', story(), HOUR_US)
  assert.deepEqual(heard, [])
})

test('a process that ends by itself fails the run, unless it may for that reason; a broken invariant always does', async () => {
  const full = new OperationError('JOURNAL_FAILED', 'Cannot append to the journal: no room')
  const mayExit = (why: unknown): boolean => why === full
  async function lives(why: unknown): Promise<void> {
    const world = new World(1)
    const process = world.process('a', ({ exit, surroundings }) => surroundings.clock.after(5, () => exit(why)), {
      mayExit,
    })
    await world.timeline.until('it', Promise.all([process.start(), world.timeline.delay(100_000)]), HOUR_US)
    assert.equal(process.isAlive, false)
  }
  await lives(full)
  await assert.rejects(lives(new Error('other')), /a ended by itself: Error: other/)
  const world = new World(1)
  const broken = world.process('b', () => Promise.reject(new AssertionError('Broken invariant: x')), {
    mayExit: () => true,
  })
  await assert.rejects(world.timeline.until('it', broken.start(), HOUR_US), /b ended by itself: AssertionError/)
})

test('when the power goes, files of blocks lose what was not synced, and nothing else', async () => {
  const outcomes = new Set<string>()
  for (let seed = 0; seed < 40; seed++) {
    const world = new World(seed)
    const process = world.process('a', (machine) => machine)
    const story = async (): Promise<string> => {
      const files = (await process.start()).disk.blocks('d')
      const write = async (name: string, isSynced: boolean): Promise<void> => {
        const file = await files.create(name)
        await file.append(entry(name))
        if (!isSynced) return
        await file.sync()
        await files.syncDirectory('')
      }
      await write('synced', true)
      await write('unsynced', false)
      process.cutPower()
      const again = (await process.start()).disk.blocks('d')
      const kept = again.paths().map((path) => `${path}=${again.bytesOf(path)?.toString()}`)
      assert.ok(kept.includes('synced=synced'))
      return kept.toSorted().join()
    }
    outcomes.add(await world.timeline.until('it', story(), HOUR_US))
  }
  assert.ok(outcomes.has('synced=synced') && outcomes.size >= 3, [...outcomes].join(' '))
})

test('a killed process, whose machine goes on, has lost nothing that it had written to files', async () => {
  const world = new World(1)
  const process = world.process('a', (machine) => machine)
  const story = async (): Promise<void> => {
    const file = await (await process.start()).disk.blocks('d').create('unsynced')
    await file.append(entry('all of it'))
    void file.append(entry(', and more'))
    process.kill()
    const files = (await process.start()).disk.blocks('d')
    assert.equal(files.bytesOf('unsynced')?.toString(), 'all of it')
    await world.timeline.delay(10_000_000)
    assert.equal(files.bytesOf('unsynced')?.toString(), 'all of it')
  }
  await world.timeline.until('it', story(), HOUR_US)
})

test('a full disk refuses what needs room and no more; a bad one fails, and a slow one takes its time', async () => {
  const world = new World(1)
  const process = world.process('a', (machine) => machine)
  const story = async (): Promise<void> => {
    const { disk } = await process.start()
    disk.faults.isFull = true
    await assert.rejects(disk.journal('j').append(1, entry('one')), { code: 'JOURNAL_FAILED' })
    await assert.rejects(disk.blocks('d').makeDirectory('x'), { code: 'ENOSPC' })
    assert.deepEqual(await disk.blocks('d').list(''), [])
    disk.faults.isFull = false
    disk.faults.errors = 1
    await assert.rejects(disk.blocks('d').list(''), { code: 'EIO' })
    disk.faults.errors = 0
    disk.faults.slow = 1
    const beginUs = world.timeline.nowUs
    for (let at = 1; at <= 10; at++) await disk.journal('other').append(at, entry('entry'))
    assert.ok(world.timeline.nowUs - beginUs > 2_000_000)
  }
  await world.timeline.until('it', story(), HOUR_US)
})

test('a test ends a process at any step of its disk, counted from the beginning', async () => {
  const found: number[] = []
  for (let step = 1; step <= 4; step++) {
    const world = new World(1)
    const process = world.process('a', (machine) => machine)
    process.disk.onStep = (number) => {
      if (number === step) process.kill()
    }
    const story = async (): Promise<string[]> => {
      const { disk } = await process.start()
      for (let at = 1; at <= 3; at++) {
        await Promise.race([disk.journal('j').append(at, entry(`${at}`)), world.timeline.delay(1_000_000)])
        if (!process.isAlive) break
      }
      if (!process.isAlive) await process.start()
      return entriesOf({ ...(process.running ?? assert.fail('it runs')), disk: process.disk })
    }
    found.push((await world.timeline.until('it', story(), HOUR_US)).length)
  }
  // The write that the process died in may be there.
  for (const [index, count] of found.entries())
    assert.ok(count >= Math.min(index, 3) && count <= Math.min(index + 1, 3))
})

test('rot damages the bytes of a block, and only there', async () => {
  const world = new World(3)
  const process = world.process('a', (machine) => machine)
  const story = async (): Promise<void> => {
    const { disk } = await process.start()
    assert.equal(disk.rot(), false)
    const files = disk.blocks('d')
    await files.makeDirectory('ab')
    await files.makeDirectory('tmp')
    for (const path of ['identity', 'ab/block', 'tmp/new']) files.place(path, Buffer.alloc(100, 7))
    for (let index = 0; index < 20; index++) disk.rot()
    assert.ok(files.bytesOf('ab/block')?.equals(Buffer.alloc(100, 7)) === false)
    for (const path of ['identity', 'tmp/new']) assert.ok(files.bytesOf(path)?.equals(Buffer.alloc(100, 7)))
  }
  await world.timeline.until('it', story(), HOUR_US)
})
