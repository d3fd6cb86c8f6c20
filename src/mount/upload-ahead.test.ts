/** New files that are sent while they are written. */
import assert from 'node:assert/strict'
import { constants, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import { test } from 'node:test'

import fc from 'fast-check'

import { isOperationError, OperationError } from '#base/errors.ts'
import { setLogLevel } from '#base/log.ts'
import { FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE } from '#os/fallocate.ts'
import { openFaultyStore } from '#store/faulty-store.ts'
import { openMemoryStore } from '#store/memory-store.ts'
import { ANY, type Attributes, type Store, type Upload } from '#store/store.ts'
import { withUploads } from '#store/suite/upload-double.ts'

import { codeOf, O_RDWR, replacing, rig, untold, type KernelDouble, type OpenedFile } from './kernel-double.ts'

setLogLevel('silent')

const MIB = 1 << 20
const PART = 4 * MIB
const SEED = 5_201_314

/** What was asked of uploads. */
interface Asked {
  begun: number
  /** Indexes of parts, in the order of their sends. */
  readonly sent: number[]
  readonly changed: number[]
  readonly attributes: (Attributes | undefined)[]
  aborted: number
}

interface Watched {
  readonly inner: Store
  readonly store: Store
  readonly asked: Asked
  readonly open: ReadonlySet<Upload>
  readonly puts: () => number
}

function watched(send: (index: number) => Promise<void> = async () => undefined): Watched {
  const inner = openMemoryStore()
  const uploads = withUploads(inner, PART)
  const asked: Asked = { begun: 0, sent: [], changed: [], attributes: [], aborted: 0 }
  let puts = 0
  const store = replacing(uploads, {
    put: (path, source, options) => {
      puts++
      return uploads.put(path, source, options)
    },
    beginUpload: async (path, options) => {
      asked.begun++
      const upload = await uploads.beginUpload?.(path, options)
      assert.ok(upload !== undefined)
      return {
        part: (index) => upload.part(index),
        send: async (index, fd, sendOptions) => {
          asked.sent.push(index)
          await send(index)
          await upload.send(index, fd, sendOptions)
        },
        commit: (source, changed, commitOptions) => {
          asked.changed.push(...changed)
          asked.attributes.push(commitOptions.attributes)
          return upload.commit(source, changed, commitOptions)
        },
        abort: () => {
          asked.aborted++
          return upload.abort()
        },
      }
    },
  })
  return { inner, store, asked, open: uploads.uploadsOpen, puts: () => puts }
}

function pattern(length: number): Buffer {
  return Buffer.alloc(length, Buffer.from(Array.from({ length: 251 }, (_, index) => index)))
}

async function writeAll(kernel: KernelDouble, file: OpenedFile, bytes: Buffer, from = 0): Promise<void> {
  for (let at = 0; at < bytes.length; at += MIB) await kernel.write(file, from + at, bytes.subarray(at, at + MIB))
}

/** Turns until `isSo`; fails where it never is. */
async function until(isSo: () => boolean): Promise<void> {
  for (let turns = 0; !isSo(); turns++) {
    assert.ok(turns < 10_000, 'it comes to be so')
    await setImmediate()
  }
}

async function bytesOf(store: Store, path: string): Promise<Buffer> {
  return (await store.read(path)).bytes()
}

const FIVE = Array.from({ length: 5 }, (_, index) => index)

test('[S46] the parts of a new file are sent while it is written, and nothing shows before its close', async () => {
  const { inner, store, asked, open, puts } = watched()
  const bytes = pattern(22 * MIB)
  await using it = await rig(store)
  const file = await it.kernel.create('file')
  await writeAll(it.kernel, file, bytes)
  await until(() => asked.sent.length === 5)
  assert.deepEqual(asked.sent, FIVE)
  assert.equal(await codeOf(inner.stat('file')), 'STORE_NOT_FOUND')
  await it.kernel.close(file)
  assert.ok((await bytesOf(inner, 'file')).equals(bytes))
  assert.deepEqual(asked.changed, [])
  assert.equal(puts(), 0)
  assert.equal(open.size, 0)
})

test('a file that fits into one request begins no upload', async () => {
  const { inner, store, asked, puts } = watched()
  const bytes = pattern(16 * MIB)
  await using it = await rig(store)
  const file = await it.kernel.create('file')
  await writeAll(it.kernel, file, bytes)
  await it.kernel.close(file)
  assert.equal(asked.begun, 0)
  assert.equal(puts(), 1)
  assert.ok((await bytesOf(inner, 'file')).equals(bytes))
})

test('[S46] what is written to a part after it was sent is stored, by sending that part again', async () => {
  const { inner, store, asked } = watched()
  const bytes = pattern(22 * MIB)
  await using it = await rig(store)
  const file = await it.kernel.create('file')
  await writeAll(it.kernel, file, bytes)
  await until(() => asked.sent.length === 5)
  for (const at of [0, 2 * PART - 2]) {
    await it.kernel.write(file, at, 'head')
    bytes.write('head', at)
  }
  await it.fs.fallocate(
    file.node,
    file.handle,
    4 * PART + 5,
    10,
    FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
    it.kernel.caller,
  )
  bytes.fill(0, 4 * PART + 5, 4 * PART + 15)
  await it.kernel.close(file)
  assert.deepEqual(
    asked.changed.toSorted((a, b) => a - b),
    [0, 1, 2, 4],
  )
  assert.ok((await bytesOf(inner, 'file')).equals(bytes))
})

test('a file that is written over from its start again, or cut, stores what it has at its close', async () => {
  const { inner, store, asked, open } = watched()
  await using it = await rig(store)
  const file = await it.kernel.create('file')
  await writeAll(it.kernel, file, pattern(22 * MIB))
  await until(() => asked.sent.length === 5)
  await it.kernel.setattr('file', { size: 18 * MIB })
  await it.kernel.setattr('file', { size: 21 * MIB })
  await it.kernel.fsync(file)
  const expected = Buffer.concat([pattern(18 * MIB), Buffer.alloc(3 * MIB)])
  assert.ok((await bytesOf(inner, 'file')).equals(expected))
  await it.kernel.close(file)
  const again = await it.kernel.open('file', O_RDWR | constants.O_TRUNC)
  await writeAll(it.kernel, again, pattern(30 * MIB))
  await it.kernel.setattr('file', { size: 0 })
  await it.kernel.write(again, 0, 'short')
  await it.kernel.close(again)
  assert.equal((await bytesOf(inner, 'file')).toString(), 'short')
  await until(() => open.size === 0)
})

test('[S46] a file that is replaced is sent ahead under the guard of what was opened', async () => {
  const { inner, store, asked, open } = watched()
  await using it = await rig(store)
  await it.kernel.writeFile('file', 'before')
  const file = await it.kernel.open('file', O_RDWR | constants.O_TRUNC)
  await writeAll(it.kernel, file, pattern(22 * MIB))
  await until(() => asked.sent.length === 5)
  await inner.put('file', Buffer.from('their'), { guard: ANY })
  assert.equal(await codeOf(it.kernel.close(file)), 'STORE_CONFLICT')
  assert.equal((await bytesOf(inner, 'file')).toString(), 'their')
  assert.equal(readdirSync(join(it.stagingDirectory, 'conflicts')).length, 1)
  await until(() => open.size === 0)
})

test('[S46] what was sent of a file that is removed before its close is given up', async () => {
  const { store, asked, open } = watched()
  await using it = await rig(store)
  const file = await it.kernel.create('file')
  await writeAll(it.kernel, file, pattern(22 * MIB))
  await until(() => asked.sent.length === 5)
  await it.kernel.unlink('file')
  await it.kernel.write(file, 0, 'more')
  await it.kernel.close(file)
  await until(() => open.size === 0)
  assert.equal(asked.aborted, 1)
})

test('a file that gets another name before its close is stored under that', async () => {
  const { inner, store, asked, open, puts } = watched()
  const bytes = pattern(22 * MIB)
  await using it = await rig(store)
  const file = await it.kernel.create('file')
  await writeAll(it.kernel, file, bytes)
  await until(() => asked.sent.length === 5)
  await it.kernel.rename('file', 'other')
  await it.kernel.close(file)
  assert.ok((await bytesOf(inner, 'other')).equals(bytes))
  assert.equal(await codeOf(inner.stat('file')), 'STORE_NOT_FOUND')
  assert.equal(puts(), 1)
  await until(() => open.size === 0)
})

test('sends that fail are no error, and are not tried for ever before the close', async () => {
  const { inner, store, asked } = watched(async () => {
    throw new OperationError('STORE_UNAVAILABLE', 'Cannot send: gone')
  })
  const bytes = pattern(60 * MIB)
  await using it = await rig(store)
  const file = await it.kernel.create('file')
  for (let at = 0; at < bytes.length; at += MIB) {
    await it.kernel.write(file, at, bytes.subarray(at, at + MIB))
    await setImmediate()
  }
  await it.kernel.close(file)
  assert.ok(asked.sent.length < 12, 'the store is left alone after some failures')
  assert.ok((await bytesOf(inner, 'file')).equals(bytes))
})

test('a bounded number of parts is under way, of all files together, and writers do not wait for them', async () => {
  const gate = Promise.withResolvers<void>()
  let underWay = 0
  const { inner, store } = watched(async () => {
    underWay++
    await gate.promise
  })
  await using it = await rig(store)
  const bytes = pattern(40 * MIB)
  const names = ['a', 'b']
  const files = await Promise.all(names.map((name) => it.kernel.create(name)))
  for (const file of files) await writeAll(it.kernel, file, bytes)
  await until(() => underWay === 8)
  for (let turns = 0; turns < 100; turns++) await setImmediate()
  assert.equal(underWay, 8)
  gate.resolve()
  for (const file of files) await it.kernel.close(file)
  for (const name of names) assert.ok((await bytesOf(inner, name)).equals(bytes))
})

test('[S47] a large new file has the time at which its upload began, unless one was set', async () => {
  const { inner, store, asked } = watched()
  await using it = await rig(untold(store))
  const plain = await it.kernel.create('plain')
  await writeAll(it.kernel, plain, pattern(22 * MIB))
  await it.kernel.close(plain)
  const { mtime: stored } = (await inner.stat('plain')).attributes ?? {}
  const shown = (await it.kernel.stat('plain')).mtime
  assert.deepEqual(shown, stored)
  it.clock.ms += 5000
  assert.deepEqual((await it.kernel.stat('plain')).mtime, stored)

  const set = await it.kernel.create('set')
  await writeAll(it.kernel, set, pattern(22 * MIB))
  const mtime = { seconds: 1_000_000_000, nanoseconds: 5 }
  await it.kernel.setattr('set', { mtime, mode: 0o600 })
  await it.kernel.close(set)
  const { attributes } = await inner.stat('set')
  assert.deepEqual(attributes?.mtime, mtime)
  assert.equal(attributes?.mode, 0o600)
  assert.equal(asked.begun, 2)
  assert.deepEqual(asked.attributes[0]?.mtime, stored)
})

type Step =
  | { readonly do: 'append'; readonly mib: number }
  | { readonly do: 'write'; readonly at: number; readonly length: number }
  | { readonly do: 'truncate'; readonly size: number }
  | { readonly do: 'turns' }
  | { readonly do: 'fsync' }

const MAX = 40 * MIB
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 6, arbitrary: fc.record({ do: fc.constant('append' as const), mib: fc.integer({ min: 1, max: 6 }) }) },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant('write' as const),
      at: fc.nat(MAX),
      length: fc.integer({ min: 1, max: MIB }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('truncate' as const), size: fc.nat(MAX) }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('turns' as const) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('fsync' as const) }) },
)

/** Until it succeeds. */
async function persistently<T>(work: () => Promise<T>): Promise<T> {
  for (let tries = 1; ; tries++) {
    try {
      return await work()
    } catch (error) {
      if (!isOperationError(error) || tries === 100) throw error
    }
  }
}

test('[S18, S46] whatever is written when, and whatever fails, a close that succeeds has stored all', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 8, maxLength: 24 }), fc.nat(1000), async (steps, seed) => {
      const inner = openMemoryStore()
      const uploads = withUploads(inner, PART)
      const store = openFaultyStore(uploads, { seed, rates: { error: 0.1, lost: 0.1, throttled: 0.1 } })
      await using it = await rig(store)
      let model = Buffer.alloc(0)
      const file = await persistently(() => it.kernel.create('file'))
      const put = async (at: number, bytes: Buffer): Promise<void> => {
        const grown = Buffer.alloc(Math.max(model.length, at + bytes.length))
        model.copy(grown)
        bytes.copy(grown, at)
        model = grown
        await writeAll(it.kernel, file, bytes, at)
      }
      let salt = 0
      const fresh = (length: number): Buffer => Buffer.alloc(length, `${++salt} `)
      const synced = (): Promise<boolean> =>
        it.kernel.fsync(file).then(
          () => true,
          () => false,
        )
      for (const at of steps) {
        if (at.do === 'append') await put(model.length, fresh(at.mib * MIB))
        else if (at.do === 'write') await put(Math.min(at.at, model.length), fresh(at.length))
        else if (at.do === 'turns') for (let turns = 0; turns < 20; turns++) await setImmediate()
        else if (at.do === 'fsync') {
          if (await synced()) assert.ok((await bytesOf(inner, 'file')).equals(model))
        } else {
          model = Buffer.concat([model.subarray(0, at.size), Buffer.alloc(Math.max(0, at.size - model.length))])
          const { size } = at
          await persistently(() => it.fs.setattr(file.node, { size }))
        }
      }
      await persistently(() => it.kernel.fsync(file))
      await it.kernel.close(file)
      assert.ok((await bytesOf(inner, 'file')).equals(model))
      assert.deepEqual(readdirSync(join(it.stagingDirectory, 'conflicts')), [], 'nobody else has written')
      await until(() => uploads.uploadsOpen.size === 0)
    }),
    { seed: SEED, numRuns: 15 },
  )
})
