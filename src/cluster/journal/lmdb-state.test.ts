import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { test } from 'node:test'
import { setImmediate as nextTurn } from 'node:timers/promises'

import fc from 'fast-check'
import * as lmdb from 'lmdb'

import { openLmdbState } from './lmdb-state.ts'
import { MemoryState } from './memory-state.ts'
import { notRoot, Place } from './place-fixture.ts'
import { type Change, KEY_BYTES_MAX, type StateReader } from './state.ts'

const RAW = { encoding: 'binary', keyEncoding: 'binary', overlappingSync: false } as const
type Pair = readonly [key: string, value: string]

function pairsOf(state: StateReader, from = '', to = '\xff\xff\xff\xff', count = Infinity): Pair[] {
  const pairs: Pair[] = []
  state.range(from, to, (key, value) => pairs.push([key, value.toString('latin1')]) < count)
  return pairs
}

function pairsBackwards(state: StateReader, from = '', to = '\xff\xff\xff\xff', count = Infinity): Pair[] {
  const pairs: Pair[] = []
  state.rangeBackwards(from, to, (key, value) => pairs.push([key, value.toString('latin1')]) < count)
  return pairs
}

/** What every key of a generation has. */
function generation(count: number, number: number): Change[] {
  return Array.from({ length: count }, (_, index) => [`k${index}`, Buffer.from(`${number}`.padStart(40, '.'))])
}

/** The generation that all of the state is of. */
function generationOf(state: StateReader, count: number): number {
  const found = new Set(pairsOf(state).map(([, value]) => Number(value.replaceAll('.', ''))))
  assert.equal(found.size, 1, `one generation: ${[...found].join()}`)
  assert.equal(pairsOf(state).length, count)
  return [...found][0] ?? -1
}

const KEY = fc
  .uint8Array({ minLength: 1, maxLength: 3 })
  .map((bytes) => Buffer.from(bytes.map((byte) => byte & 0xc1)).toString('latin1'))
const BOUND = fc.oneof({ weight: 8, arbitrary: KEY }, { weight: 1, arbitrary: fc.constant('') })

test('it is what a state in memory is, with all bytes in keys and values of all sizes, also by the next start', async () => {
  const value = fc.oneof(
    { weight: 8, arbitrary: fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes)) },
    { weight: 1, arbitrary: fc.integer({ min: 1000, max: 200_000 }).map((length) => Buffer.alloc(length, length)) },
    { weight: 3, arbitrary: fc.constant(null) },
  )
  const commits = fc.array(fc.array(fc.tuple(KEY, value), { maxLength: 60 }), { minLength: 1, maxLength: 6 })
  await fc.assert(
    fc.asyncProperty(commits, fc.array(fc.tuple(BOUND, BOUND), { maxLength: 30 }), async (all, ranges) => {
      using place = new Place()
      const model = new MemoryState()
      let state = await openLmdbState(place.directory)
      for (const [index, changes] of all.entries()) {
        await state.commit(changes, (index + 1) * 2 ** 46)
        await model.commit(changes, (index + 1) * 2 ** 46)
        assert.deepEqual(pairsOf(state), pairsOf(model))
        if (index % 2 === 1) {
          await state.close()
          state = await openLmdbState(place.directory)
        }
        assert.equal(state.applied, model.applied)
        for (const [from, to] of ranges) {
          assert.deepEqual(state.get(from === '' ? 'x' : from), model.get(from === '' ? 'x' : from))
          assert.deepEqual(pairsOf(state, from, to), pairsOf(model, from, to))
          assert.deepEqual(pairsBackwards(state, from, to), pairsBackwards(model, from, to))
          assert.deepEqual(pairsBackwards(state, from, to, 2), pairsBackwards(model, from, to, 2))
        }
      }
      await state.close()
    }),
    { seed: 5, numRuns: 25 },
  )
})

test('values that were read stay, ranges can be nested and may throw, and the longest key is held', async () => {
  using place = new Place()
  const state = await openLmdbState(place.directory)
  const longest = '\xff'.repeat(KEY_BYTES_MAX)
  await state.commit([...generation(100, 1), [longest, Buffer.from('longest')]], 1)
  const kept = state.get('k7')
  const first: Buffer[] = []
  state.range('', 'z', (_, value) => first.push(value) < 10)
  await state.commit(generation(100, 2), 2)
  for (const value of [kept, ...first]) assert.equal(value?.toString(), '1'.padStart(40, '.'))
  assert.equal(state.get(longest)?.toString(), 'longest')
  state.range('k1', 'k2', (outer) => {
    const inner: string[] = []
    state.range(outer, 'k2', (key) => inner.push(key) < 2)
    assert.equal(inner[0], outer)
    return true
  })
  assert.throws(() => {
    state.range('', 'z', () => {
      throw new RangeError('of the caller')
    })
  }, RangeError)
  assert.equal(pairsOf(state, '', 'z').length, 100)
  await state.close()
})

test('reads during a commit of many changes see all of them or none, and others are served meanwhile', async () => {
  using place = new Place()
  const state = await openLmdbState(place.directory)
  const count = 5000
  await state.commit(generation(count, 1), 1)
  for (let number = 2; number <= 3; number++) {
    let isDone = false
    const committing = state.commit(generation(count, number), number).finally(() => (isDone = true))
    let looks = 0
    while (!isDone) {
      assert.equal(generationOf(state, count), number - 1)
      assert.equal(state.get('k0')?.toString(), state.get('k4999')?.toString())
      assert.equal(state.applied, number - 1)
      looks++
      await nextTurn()
    }
    await committing
    assert.ok(looks >= 10, `${looks} turns`)
    assert.deepEqual([generationOf(state, count), state.applied], [number, number])
  }
  await state.close()
})

test('after SIGKILL at any moment it is as of one commit, none before the last that was acknowledged', async () => {
  using place = new Place()
  const count = 1500
  const program = `
    import { openLmdbState } from ${JSON.stringify(new URL('lmdb-state.ts', import.meta.url).href)}
    const generation = ${generation.toString()}
    const state = await openLmdbState(process.argv[1])
    for (let number = state.applied + 1; ; number++) {
      const committing = state.commit(generation(number % 3 === 0 ? 100 : ${count}, number), number)
      process.stdout.write(-number + '\\n')
      await committing
      if (number % 3 === 0) await state.commit(generation(${count}, number), number)
      process.stdout.write(number + '\\n')
    }`
  let acknowledged = 0
  for (let round = 0; round < 14; round++) {
    const child = spawn(process.execPath, ['--input-type=module-typescript', '-e', program, place.directory], {
      stdio: ['ignore', 'pipe', 'inherit'],
      cwd: import.meta.dirname,
    })
    const from = acknowledged
    for await (const line of createInterface(child.stdout)) {
      const number = Number(line)
      if (number > 0) acknowledged = number
      // Within a commit, at another moment in each round.
      if (number < 0 && acknowledged > from + 1) setTimeout(() => child.kill('SIGKILL'), round)
    }
    if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
    const state = await openLmdbState(place.directory)
    assert.ok(state.applied >= acknowledged, `${state.applied} of ${acknowledged}`)
    if (state.applied % 3 !== 0) assert.equal(generationOf(state, count), state.applied)
    await state.close()
  }
})

/** CRC32C bit by bit, as docs/formats/blocks.md says. */
function crcOf(bytes: Buffer): number {
  let remainder = 0xffffffff
  for (const byte of bytes) {
    remainder ^= byte
    for (let bit = 0; bit < 8; bit++) remainder = (remainder >>> 1) ^ ((remainder & 1) * 0x82f63b78)
  }
  return ~remainder >>> 0
}

function sealed(key: Buffer, value: Buffer): Buffer {
  const seal = Buffer.alloc(4)
  seal.writeUInt32LE(crcOf(Buffer.concat([key, value])))
  return Buffer.concat([value, seal])
}

/** Writes into the file as docs/formats/journal.md says, past the code. */
async function writeLots(file: string, count: number, hasHappened: boolean): Promise<void> {
  const root = lmdb.open<Buffer, Buffer>({ path: file, noSubdir: true, pageSize: 4096, maxDbs: 4, ...RAW })
  const [lots, facts] = ['lots', 'facts'].map((name) => root.openDB<Buffer, Buffer>({ name, ...RAW }))
  for (let index = 0; index < count; index++) {
    const put = Buffer.concat([Buffer.from([2, 0, 1, 0, 0, 0]), Buffer.from(`p${index}!`)])
    const removed = Buffer.concat([Buffer.from([2, 0, 255, 255, 255, 255]), Buffer.from(`k${index}`)])
    const key = Buffer.from([0, 0, 0, 0, 0, 0, index])
    await lots?.put(key, sealed(key, Buffer.concat([put, removed])))
  }
  const happened = Buffer.from([0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, count])
  if (hasHappened) await facts?.put(Buffer.from('lots'), sealed(Buffer.from('lots'), happened))
  await root.close()
}

test('a start finishes a commit of many lots that a crash broke off, and drops one that has not happened', async () => {
  using place = new Place()
  for (const hasHappened of [false, true]) {
    const state = await openLmdbState(place.directory)
    await state.commit(generation(5, 1), 7)
    await state.close()
    await writeLots(place.stateFile, 3, hasHappened)
    // The second start finds it done.
    for (let start = 0; start < 2; start++) {
      const next = await openLmdbState(place.directory)
      assert.equal(next.applied, hasHappened ? 258 : 7)
      const keys = pairsOf(next).map(([key]) => key)
      assert.deepEqual(keys, hasHappened ? ['k3', 'k4', 'p0', 'p1', 'p2'] : ['k0', 'k1', 'k2', 'k3', 'k4'])
      if (hasHappened) assert.equal(next.get('p1')?.toString(), '!')
      await next.close()
    }
  }
})

test('[S168] a value, or a key, of which the disk has turned a bit over is damage, and others are read on', async () => {
  using place = new Place()
  const state = await openLmdbState(place.directory)
  const long = Buffer.alloc(10_000, 'long value;')
  await state.commit([...generation(50, 1), ['long', long], ['name/a', Buffer.alloc(0)]], 1)
  await state.close()
  const sound = readFileSync(place.stateFile)
  const damaged = { code: 'JOURNAL_CORRUPT', message: /^Cannot read the state: the value of key [0-9a-f]+ is damaged$/ }
  const flips: [what: string, key: string][] = [
    [`${'.'.repeat(39)}1`, 'k'],
    ['long value;long', 'long'],
    ['name/a', 'name/'],
  ]
  for (const [what, prefix] of flips) {
    const flipped = Buffer.from(sound)
    // Earlier versions of a page may be in the file, too.
    for (let at = sound.indexOf(what); at !== -1; at = sound.indexOf(what, at + what.length)) {
      flipped.writeUInt8(flipped.readUInt8(at + what.length - 1) ^ 1, at + what.length - 1)
    }
    writeFileSync(place.stateFile, flipped)
    const opened = await openLmdbState(place.directory)
    assert.throws(() => pairsOf(opened, prefix, `${prefix}\xff`), damaged, what)
    if (prefix === 'k') assert.throws(() => opened.get('k7'), damaged)
    else assert.equal(opened.get('k7')?.toString(), '1'.padStart(40, '.'))
    await opened.close()
  }
  // How far the state is, and whose it is.
  const at = sound.lastIndexOf(Buffer.concat([Buffer.from('applied'), Buffer.from([0, 0, 0, 0, 0, 0, 1])]))
  const flipped = Buffer.from(sound)
  flipped.writeUInt8(3, at + 13)
  writeFileSync(place.stateFile, flipped)
  await assert.rejects(openLmdbState(place.directory), damaged)
})

test('a full disk undoes a commit, and there are others when there is room', { skip: notRoot }, async () => {
  using place = new Place()
  place.mountSmall('3m')
  let state = await openLmdbState(place.directory)
  await state.commit(generation(400, 1), 1)
  const failed = { code: 'JOURNAL_FAILED', message: /^Cannot write the state: .*, with \d+ bytes free/ }
  await assert.rejects(state.commit([['big', Buffer.alloc(8 << 20)]], 2), failed)
  assert.deepEqual([generationOf(state, 400), state.applied], [1, 1])
  const many: Change[] = Array.from({ length: 3000 }, (_, index) => [`k${index}`, Buffer.alloc(2000)])
  await assert.rejects(state.commit(many, 2), failed)
  assert.deepEqual([generationOf(state, 400), state.applied], [1, 1])
  await state.close()
  state = await openLmdbState(place.directory)
  assert.deepEqual([generationOf(state, 400), state.applied], [1, 1])
  await state.commit(generation(400, 2), 2)
  place.grow('40m')
  await state.commit(many, 3)
  assert.deepEqual([pairsOf(state).length, state.applied], [3000, 3])
  await state.close()
})

test('one process has it at a time; what is no state is refused, and stays', async () => {
  using place = new Place()
  const state = await openLmdbState(place.directory)
  await assert.rejects(openLmdbState(place.directory), { code: 'JOURNAL_FAILED', message: /process \d+ uses it/ })
  await state.commit(generation(10, 1), 1)
  await state.close()
  await assert.rejects(state.commit([], 2), { code: 'JOURNAL_FAILED' })
  const other = Buffer.from(readFileSync(place.stateFile)).fill(0, 0, 8192)
  writeFileSync(place.stateFile, other)
  await assert.rejects(openLmdbState(place.directory), { code: 'JOURNAL_CORRUPT' })
  assert.ok(readFileSync(place.stateFile).equals(other))
})
