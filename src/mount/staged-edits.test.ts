/** Edits of files that are too large to be fetched before their first write: what is asked of the store, and what is kept. */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'

import fc from 'fast-check'

import { isOperationError, OperationError } from '#base/errors.ts'
import { setLogLevel } from '#base/log.ts'
import { openFaultyStore } from '#store/faulty-store.ts'
import { openMemoryStore } from '#store/memory-store.ts'
import { ABSENT, ANY, isStored, type Segment, type Store } from '#store/store.ts'
import { withUploads } from '#store/suite/upload-double.ts'

import { codeOf, counting, Gate, O_RDONLY, O_RDWR, replacing, rig, type Rig } from './kernel-double.ts'
import { StagedFile } from './staged-file.ts'

setLogLevel('silent')

const MIB = 1 << 20
const LARGE = 40 * MIB
const NOTHING_WHOLE = { wholeBytesMax: 0 }
const SEED = 1_300_135

function pattern(length: number): Buffer {
  return Buffer.alloc(length, Buffer.from(Array.from({ length: 251 }, (_, index) => index)))
}

async function bytesOf(store: Store, path: string): Promise<Buffer> {
  return (await store.read(path)).bytes()
}

/** `inner` that tells of the segments of puts. */
function telling(inner: Store): { store: Store; puts: Segment[][] } {
  const puts: Segment[][] = []
  const put: Store['put'] = (path, source, options) => {
    if ('segments' in source) puts.push([...source.segments])
    return inner.put(path, source, options)
  }
  return { store: replacing(inner, { put }), puts }
}

function kept(it: Rig): string[] {
  const directory = join(it.stagingDirectory, 'conflicts')
  return readdirSync(directory)
    .toSorted()
    .map((name) => join(directory, name))
}

test('[S43] a small edit of a large file asks for nothing before its close, and moves only what was written', async () => {
  const inner = withUploads(openMemoryStore(), 8 * MIB)
  const expected = pattern(LARGE)
  await inner.put('file', expected, { guard: ABSENT })
  const { store: told, puts } = telling(inner)
  const { store, taken } = counting(told)
  await using it = await rig(store)
  const file = await it.kernel.open('file', O_RDWR)
  taken()
  await it.kernel.write(file, 20 * MIB, 'edited')
  expected.write('edited', 20 * MIB)
  assert.deepEqual(taken(), {})
  await it.kernel.close(file)
  assert.deepEqual(taken(), { put: 1 })
  const moved = puts.flat().filter((segment) => !isStored(segment))
  assert.equal(
    moved.reduce((sum, { length }) => sum + length, 0),
    6,
  )
  assert.ok((await bytesOf(inner, 'file')).equals(expected))
})

test('[S43] an edited file reads as it was written, before and after it is stored', async () => {
  const inner = openMemoryStore()
  const expected = pattern(3 * MIB)
  await inner.put('file', expected, { guard: ABSENT })
  const { store, taken } = counting(inner)
  await using it = await rig(store, NOTHING_WHOLE)
  const file = await it.kernel.open('file', O_RDWR)
  for (const at of [0, MIB - 3, 2 * MIB + 7]) {
    await it.kernel.write(file, at, 'other')
    expected.write('other', at)
  }
  assert.ok((await it.kernel.read(file, 0, expected.length)).equals(expected))
  await it.kernel.fsync(file)
  taken()
  await it.kernel.write(file, MIB, 'later')
  expected.write('later', MIB)
  assert.deepEqual(taken(), {})
  assert.ok((await it.kernel.read(file, MIB - 10, 100)).equals(expected.subarray(MIB - 10, MIB + 90)))
  await it.kernel.close(file)
  assert.ok((await bytesOf(inner, 'file')).equals(expected))
  assert.ok((await it.kernel.readFile('file')).equals(expected))
})

test('[S44] what was cut off a large file is zeros when it is made longer again', async () => {
  const inner = openMemoryStore()
  const before = pattern(3 * MIB)
  await inner.put('file', before, { guard: ABSENT })
  await using it = await rig(inner, NOTHING_WHOLE)
  const file = await it.kernel.open('file', O_RDWR)
  await it.kernel.setattr('file', { size: MIB })
  await it.kernel.setattr('file', { size: 2 * MIB })
  const expected = Buffer.concat([before.subarray(0, MIB), Buffer.alloc(MIB)])
  assert.ok((await it.kernel.read(file, 0, 4 * MIB)).equals(expected))
  await it.kernel.close(file)
  assert.ok((await bytesOf(inner, 'file')).equals(expected))
})

test('[S45] a large edit that meets another writer is kept, with a list of what was written', async () => {
  const inner = openMemoryStore()
  await inner.put('file', pattern(3 * MIB), { guard: ABSENT })
  await using it = await rig(inner, NOTHING_WHOLE)
  const file = await it.kernel.open('file', O_RDWR)
  await it.kernel.write(file, MIB, 'mine')
  const { version } = await inner.stat('file')
  await inner.put('file', Buffer.from('their'), { guard: ANY })
  assert.equal(await codeOf(it.kernel.read(file, 0, 10)), 'FILE_STALE')
  assert.equal((await it.kernel.read(file, MIB, 4)).toString(), 'mine')
  assert.equal(await codeOf(it.kernel.close(file)), 'STORE_CONFLICT')
  assert.equal((await bytesOf(inner, 'file')).toString(), 'their')
  const [path = '', list = ''] = kept(it)
  assert.equal(list, `${path}.ranges.json`)
  assert.equal(
    readFileSync(path)
      .subarray(MIB, MIB + 4)
      .toString(),
    'mine',
  )
  assert.deepEqual(JSON.parse(readFileSync(list, 'utf8')), {
    size: 3 * MIB,
    base: { path: 'file', version },
    written: [{ offset: MIB, length: 4 }],
    missing: [
      { offset: 0, length: MIB },
      { offset: MIB + 4, length: 2 * MIB - 4 },
    ],
  })
})

test('[S45] a large edit that the store refuses is kept whole where the edited version can be had', async () => {
  const inner = openMemoryStore()
  const expected = pattern(3 * MIB)
  await inner.put('file', expected, { guard: ABSENT })
  const store = openFaultyStore(inner)
  await using it = await rig(store, NOTHING_WHOLE)
  const file = await it.kernel.open('file', O_RDWR)
  await it.kernel.write(file, MIB, 'mine')
  expected.write('mine', MIB)
  store.failNext('put', { kind: 'error', code: 'STORE_UNAVAILABLE' })
  assert.equal(await codeOf(it.kernel.close(file)), 'STORE_UNAVAILABLE')
  store.failNext('put', { kind: 'error', code: 'STORE_FILE_TOO_LARGE' })
  await it.fs.publishFailed()
  const paths = kept(it)
  assert.equal(paths.length, 1)
  assert.ok(readFileSync(paths[0] ?? '').equals(expected))
})

test('[S27] a large file that is removed while it is edited is brought here before', async () => {
  const inner = openMemoryStore()
  const expected = pattern(3 * MIB)
  await inner.put('file', expected, { guard: ABSENT })
  const { store, taken } = counting(inner)
  await using it = await rig(store, NOTHING_WHOLE)
  const file = await it.kernel.open('file', O_RDWR)
  for (const at of [100, MIB, MIB + 200]) {
    await it.kernel.write(file, at, 'mine')
    expected.write('mine', at)
  }
  taken()
  await it.kernel.unlink('file')
  // What lies near to each other is fetched as one.
  assert.equal(taken()['read'], 1)
  assert.ok((await it.kernel.read(file, 0, 4 * MIB)).equals(expected))
  await it.kernel.close(file)
  assert.equal(await codeOf(inner.stat('file')), 'STORE_NOT_FOUND')
})

test('[S27, S33] where there is no room for what is missing of a removed file its readers get ESTALE', async (t) => {
  const inner = openMemoryStore()
  await inner.put('file', pattern(3 * MIB), { guard: ABSENT })
  await using it = await rig(inner, NOTHING_WHOLE)
  const file = await it.kernel.open('file', O_RDWR)
  const reader = await it.kernel.open('file', O_RDONLY)
  await it.kernel.write(file, MIB, 'mine')
  t.mock.method(StagedFile.prototype, 'bring', () => {
    throw new OperationError('STAGING_NO_SPACE', 'Cannot fetch into a staged file: no space is left')
  })
  await it.kernel.unlink('file')
  assert.equal((await it.kernel.read(reader, MIB, 4)).toString(), 'mine')
  assert.equal(await codeOf(it.kernel.read(reader, 0, 4)), 'FILE_STALE')
  await it.kernel.close(file)
  await it.kernel.close(reader)
})

test('a large edit whose answer was lost is known again, and is no conflict', async () => {
  const inner = openMemoryStore()
  const expected = pattern(3 * MIB)
  await inner.put('file', expected, { guard: ABSENT })
  const store = openFaultyStore(inner)
  await using it = await rig(store, NOTHING_WHOLE)
  const file = await it.kernel.open('file', O_RDWR)
  await it.kernel.write(file, MIB, 'one')
  store.failNext('put', { kind: 'lost' })
  assert.equal(await codeOf(it.kernel.fsync(file)), 'STORE_TIMEOUT')
  await it.kernel.write(file, 2 * MIB, 'two')
  await it.kernel.close(file)
  expected.write('one', MIB)
  expected.write('two', 2 * MIB)
  assert.ok((await bytesOf(inner, 'file')).equals(expected))
  assert.deepEqual(kept(it), [])
})

test('who writes to a small file does not wait while it is stored, and its close stores the rest', async () => {
  const inner = openMemoryStore()
  const gate = new Gate()
  const put: Store['put'] = async (...args) => {
    await gate.pass()
    return inner.put(...args)
  }
  await using it = await rig(replacing(inner, { put }))
  const file = await it.kernel.create('file')
  await it.kernel.write(file, 0, 'first')
  const synced = it.kernel.fsync(file)
  await gate.reached
  assert.equal(await it.kernel.write(file, 0, 'other'), 5)
  gate.open()
  await synced
  assert.equal((await bytesOf(inner, 'file')).toString(), 'first')
  assert.equal(it.fs.status.dirtyFiles, 1)
  await it.kernel.close(file)
  assert.equal((await bytesOf(inner, 'file')).toString(), 'other')
})

test('who writes to a large file waits while it is stored, so that one state of it is', async () => {
  const inner = openMemoryStore()
  const gate = new Gate()
  const put: Store['put'] = async (...args) => {
    await gate.pass()
    return inner.put(...args)
  }
  await using it = await rig(replacing(inner, { put }))
  const file = await it.kernel.create('file')
  const first = Buffer.alloc(2 * MIB, 'a')
  await it.kernel.write(file, 0, first)
  const synced = it.kernel.fsync(file)
  await gate.reached
  let isWritten = false
  const written = it.kernel.write(file, 0, 'other').then(() => {
    isWritten = true
  })
  await new Promise(setImmediate)
  assert.equal(isWritten, false)
  gate.open()
  await synced
  await written
  assert.ok((await bytesOf(inner, 'file')).equals(first))
  await it.kernel.close(file)
  assert.equal((await bytesOf(inner, 'file')).subarray(0, 6).toString(), 'othera')
})

type Step =
  | { readonly do: 'write'; readonly at: number; readonly text: string }
  | { readonly do: 'truncate'; readonly size: number }
  | { readonly do: 'read'; readonly at: number; readonly size: number }
  | { readonly do: 'fsync' }

const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({
    do: fc.constant('write' as const),
    at: fc.nat(90),
    text: fc.string({ minLength: 1, maxLength: 9, unit: 'grapheme-ascii' }),
  }),
  fc.record({ do: fc.constant('truncate' as const), size: fc.nat(90) }),
  fc.record({ do: fc.constant('read' as const), at: fc.nat(90), size: fc.integer({ min: 1, max: 60 }) }),
  fc.constant({ do: 'fsync' as const }),
)

/** Whether `work` succeeds; an operating error is a "no", anything else a defect. */
async function succeeds(work: Promise<unknown>): Promise<boolean> {
  try {
    await work
    return true
  } catch (error) {
    if (isOperationError(error)) return false
    throw error
  }
}

for (const wholeBytesMax of [0, 30]) {
  test(`[S18] edits laid over files of more than ${wholeBytesMax} bytes are right over a store that fails`, async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 4, maxLength: 40 }), fc.nat(1000), async (steps, seed) => {
        const inner = openMemoryStore()
        let model = pattern(80)
        await inner.put('file', model, { guard: ABSENT })
        const rates = { error: 0.15, lost: 0.15, throttled: 0.05, cut: 0.1 }
        const store = openFaultyStore(inner, { seed, rates })
        await using it = await rig(store, { wholeBytesMax })
        const again = async (work: () => Promise<unknown>): Promise<void> => {
          for (let tries = 0; !(await succeeds(work())); tries++) assert.ok(tries < 100, 'it succeeds at last')
        }
        let open: Awaited<ReturnType<typeof it.kernel.open>> | undefined
        await again(async () => {
          open = await it.kernel.open('file', O_RDWR)
        })
        assert.ok(open !== undefined)
        const file = open
        const grown = (size: number): Buffer => Buffer.concat([model, Buffer.alloc(Math.max(0, size - model.length))])
        for (const at of steps) {
          if (at.do === 'write') {
            if (!(await succeeds(it.kernel.write(file, at.at, at.text)))) continue
            model = grown(at.at + at.text.length)
            model.write(at.text, at.at)
          } else if (at.do === 'truncate') {
            if (!(await succeeds(it.fs.setattr(file.node, { size: at.size })))) continue
            model = grown(at.size).subarray(0, at.size)
          } else if (at.do === 'read') {
            const size = Math.min(at.size, model.length - at.at)
            await it.kernel.read(file, at.at, at.size).then(
              (bytes) => assert.deepEqual(bytes, model.subarray(at.at, at.at + Math.max(0, size))),
              (error: unknown) => assert.ok(isOperationError(error), String(error)),
            )
          } else if (await succeeds(it.kernel.fsync(file))) {
            assert.deepEqual(await bytesOf(inner, 'file'), model)
          }
        }
        await again(() => it.kernel.fsync(file))
        await it.kernel.close(file)
        assert.deepEqual(await bytesOf(inner, 'file'), model)
        assert.deepEqual(kept(it), [], 'nobody else has written')
        assert.equal(it.fs.status.dirtyFiles, 0)
      }),
      { seed: SEED, numRuns: 150 },
    )
  })
}
