import assert from 'node:assert/strict'
import { test } from 'node:test'

import { type FaultKind, Faults, ORDINARY_FAULTS } from './faults.ts'
import { NO_FRAME_FAULTS } from './network.ts'
import { World } from './world.ts'

const HOUR_US = 3_600_000_000
const ALL: readonly FaultKind[] = [...ORDINARY_FAULTS, 'clock-leaps', 'full-disks', 'disk-errors', 'rot']
const MINUTE_US = 60_000_000

function worldWith(seed: number): World {
  const world = new World(seed)
  for (const name of ['a', 'b', 'c']) {
    world.process(name, async ({ disk, surroundings }) => {
      const journal = disk.journal('j')
      const write = async (): Promise<void> => {
        await journal.append(journal.last + 1, [Buffer.from('entry')]).catch(() => undefined)
        surroundings.clock.after(100, () => void write())
      }
      await write()
    })
  }
  return world
}

test('seeds differ in what goes wrong: nothing in some, everything in few, each kind in many', () => {
  const counts = new Map<FaultKind, number>()
  let healthy = 0
  const combinations = new Set<string>()
  for (let seed = 0; seed < 300; seed++) {
    const { kinds } = new Faults(new World(seed), ALL, () => false)
    if (kinds.length === 0) healthy++
    combinations.add(kinds.join())
    for (const kind of kinds) counts.set(kind, (counts.get(kind) ?? 0) + 1)
  }
  assert.ok(healthy >= 20 && healthy <= 90, `${healthy} without faults`)
  assert.ok(combinations.size > 150)
  for (const kind of ALL) assert.ok((counts.get(kind) ?? 0) > 90, `${kind} in ${counts.get(kind)} of 300`)
})

test('faults happen while they last; healing ends them, and everybody runs', async () => {
  const seen = new Set<string>()
  for (let seed = 0; seed < 40; seed++) {
    const world = worldWith(seed)
    const { timeline } = world
    timeline.trace.onLine = (line) => {
      for (const what of ['is killed', 'vanishes', 'loses its power', 'is paused', 'cannot reach']) {
        if (line.includes(what)) seen.add(what)
      }
    }
    const faults = new Faults(world, ALL, () => false)
    await timeline.until('the start', Promise.all(world.processes.map((process) => process.start())), HOUR_US)
    faults.begin()
    await timeline.until('the faults', timeline.delay(MINUTE_US), HOUR_US)
    faults.heal()
    await timeline.until('the end', timeline.delay(MINUTE_US), HOUR_US)
    const starts = world.processes.map(({ startCount }) => startCount)
    for (const process of world.processes) {
      assert.ok(process.isAlive)
      assert.deepEqual(process.disk.faults, { slow: 0, isFull: false, errors: 0 })
      assert.equal(process.clockError.offsetMs, 0)
    }
    assert.deepEqual(world.network.faults, NO_FRAME_FAULTS)
    await timeline.until('the quiet', timeline.delay(MINUTE_US), HOUR_US)
    assert.deepEqual(
      world.processes.map(({ startCount }) => startCount),
      starts,
    )
  }
  assert.equal(seen.size, 5, [...seen].join())
})

test('who is spared a kind of fault does not suffer it', async () => {
  for (let seed = 0; seed < 30; seed++) {
    const world = worldWith(seed)
    const faults = new Faults(world, ['kills', 'power-cuts'], (_, { name }) => name === 'b')
    await world.timeline.until('the start', Promise.all(world.processes.map((each) => each.start())), HOUR_US)
    faults.begin()
    await world.timeline.until('the faults', world.timeline.delay(MINUTE_US), HOUR_US)
    const [a, b] = world.processes
    assert.equal(b?.startCount, 1)
    if (faults.kinds.length === 2) assert.ok((a?.startCount ?? 0) > 1)
  }
})
