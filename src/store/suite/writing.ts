/** Cases of the store suite: put from memory, streams and files; what fails or is given up leaves no trace. */
import assert from 'node:assert/strict'
import { closeSync, openSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { crc32 } from 'node:zlib'

import { OperationError } from '#base/errors.ts'
import { ABSENT, ANY, ifVersion } from '#store/store.ts'

import { assertContent, assertGone, keysOf, listAll, noise, rejectsWith, streamOf, type SuiteCase } from './case.ts'

export const writingCases: readonly SuiteCase[] = [
  {
    name: 'put: from memory, of many sizes; the answer is what stat says',
    run: async ({ store, at }) => {
      for (const size of [0, 1, 511, 4096, 65_537, 1_000_000]) {
        const path = at(`of-${size}`)
        const put = await store.put(path, noise(size, size), { guard: ABSENT })
        assert.deepEqual([put.path, put.kind, put.size], [path, 'file', size])
        assert.equal((await store.stat(path)).version, put.version)
        await assertContent(store, path, noise(size, size))
      }
    },
  },
  {
    name: 'put: the bytes are those at the time of the call',
    run: async ({ store, at }) => {
      const bytes = noise(2000, 20)
      await store.put(at('file'), bytes, { guard: ABSENT })
      bytes.fill(0)
      await assertContent(store, at('file'), noise(2000, 20))
    },
  },
  {
    name: '[S1] put: from a file that its reader finds changed at the end stores nothing',
    run: async ({ store, at, scratch, options }) => {
      const kept = await store.put(at('kept'), noise(10, 22), { guard: ABSENT })
      for (const size of [0, 1000, options.largeBytes]) {
        const file = join(scratch, 'changing')
        writeFileSync(file, noise(size, 24))
        const fd = openSync(file, 'r')
        try {
          let asked = 0
          const check = (): void => {
            asked++
            throw new OperationError('FILE_STALE', 'Cannot send it: it was changed meanwhile')
          }
          const source = { kind: 'file', segments: [{ fd, offset: 0, length: size }], check } as const
          await rejectsWith(store.put(at('new'), source, { guard: ABSENT }), 'FILE_STALE')
          await rejectsWith(store.put(at('kept'), source, { guard: ifVersion(kept.version) }), 'FILE_STALE')
          assert.equal(asked, 2)
          await assertGone(store, at('new'))
          assert.equal((await store.stat(at('kept'))).version, kept.version)
          const put = await store.put(at(`right-${size}`), { ...source, check: () => asked++ }, { guard: ABSENT })
          assert.deepEqual([put.size, asked], [size, 3])
        } finally {
          closeSync(fd)
        }
      }
    },
  },
  {
    name: 'put: from a stream of known and of unknown size, in chunks of all sizes',
    run: async ({ store, at }) => {
      const bytes = noise(3_000_000, 21)
      const cuts = [0, 1, 1, 4096, 300_000, 300_001, 2_000_000, 2_999_999, bytes.length]
      const chunks = (): Uint8Array[] => cuts.slice(1).map((cut, index) => bytes.subarray(cuts[index], cut))
      const known = await store.put(at('known'), streamOf(chunks(), bytes.length), { guard: ABSENT })
      const unknown = await store.put(at('unknown'), streamOf(chunks()), { guard: ABSENT })
      assert.equal(known.size, bytes.length)
      assert.equal(unknown.size, bytes.length)
      await assertContent(store, at('known'), bytes)
      await assertContent(store, at('unknown'), bytes)
      await store.put(at('empty-known'), streamOf([], 0), { guard: ABSENT })
      await store.put(at('empty-unknown'), streamOf([new Uint8Array(0)]), { guard: ABSENT })
      await assertContent(store, at('empty-known'), new Uint8Array(0))
      await assertContent(store, at('empty-unknown'), new Uint8Array(0))
    },
  },
  {
    name: '[S1] put: a stream that lies about its size is INPUT_INVALID and stores nothing',
    run: async ({ store, at }) => {
      const kept = await store.put(at('kept'), noise(10, 22), { guard: ABSENT })
      for (const said of [0, 999, 1001, 5_000_000]) {
        const bytes = noise(1000, 23)
        await rejectsWith(store.put(at('new'), streamOf([bytes], said), { guard: ABSENT }), 'INPUT_INVALID')
        await rejectsWith(
          store.put(at('kept'), streamOf([bytes], said), { guard: ifVersion(kept.version) }),
          'INPUT_INVALID',
        )
      }
      await assertGone(store, at('new'))
      await assertContent(store, at('kept'), noise(10, 22))
      assert.equal((await store.stat(at('kept'))).version, kept.version)
    },
  },
  {
    name: '[S1] put: a stream that fails stores nothing and gives its own error',
    run: async ({ store, at, directory }) => {
      const failing = (error: Error): AsyncIterable<Uint8Array> =>
        (async function* () {
          yield noise(400_000, 24)
          throw error
        })()
      const ours = new OperationError('STORE_UNAVAILABLE', 'Cannot go on: cut')
      const put = store.put(at('cut'), { kind: 'stream', stream: failing(ours), size: 800_000 }, { guard: ANY })
      await rejectsWith(put, 'STORE_UNAVAILABLE')
      const foreign = { kind: 'stream', stream: failing(new Error('reset')) } as const
      await rejectsWith(store.put(at('cut'), foreign, { guard: ANY }), 'INPUT_INVALID')
      await assertGone(store, at('cut'))
      await store.put(at('other'), noise(1, 25), { guard: ANY })
      assert.deepEqual(keysOf(await listAll(store, directory), directory), ['other'])
    },
  },
  {
    name: 'put: from segments of files, by offset',
    run: async ({ store, at, scratch, options }) => {
      const a = noise(options.largeBytes, 26)
      const b = noise(100_000, 27)
      writeFileSync(join(scratch, 'a'), a)
      writeFileSync(join(scratch, 'b'), b)
      const fdA = openSync(join(scratch, 'a'), 'r')
      const fdB = openSync(join(scratch, 'b'), 'r')
      try {
        const segments = [
          { fd: fdB, offset: 50_000, length: 50_000 },
          { fd: fdA, offset: 1, length: a.length - 1 },
          { fd: fdB, offset: 0, length: 0 },
          { fd: fdB, offset: 3, length: 4 },
        ]
        const put = await store.put(at('joined'), { kind: 'file', segments }, { guard: ABSENT })
        const expected = Buffer.concat([b.subarray(50_000), a.subarray(1), b.subarray(3, 7)])
        assert.equal(put.size, expected.length)
        let crc = 0
        for await (const chunk of (await store.read(at('joined'))).body) crc = crc32(chunk, crc)
        assert.equal(crc, crc32(expected))
        await store.put(at('none'), { kind: 'file', segments: [] }, { guard: ABSENT })
        await assertContent(store, at('none'), new Uint8Array(0))
        const past = [{ fd: fdB, offset: 99_999, length: 2 }]
        await rejectsWith(store.put(at('past'), { kind: 'file', segments: past }, { guard: ABSENT }), 'INPUT_INVALID')
        await assertGone(store, at('past'))
      } finally {
        closeSync(fdA)
        closeSync(fdB)
      }
    },
  },
  {
    name: '[S1] put: an abort before and during leaves what was there',
    run: async ({ store, at, directory }) => {
      const kept = await store.put(at('kept'), noise(10, 28), { guard: ABSENT })
      const aborted = { guard: ANY, signal: AbortSignal.abort() }
      await rejectsWith(store.put(at('kept'), noise(20, 29), aborted), 'ABORTED')
      await rejectsWith(store.put(at('new'), noise(20, 29), aborted), 'ABORTED')
      for (const path of [at('kept'), at('new')]) {
        const controller = new AbortController()
        let ended = false
        const stream = (async function* () {
          try {
            yield noise(700_000, 30)
            setImmediate(() => controller.abort())
            for (;;) yield await new Promise<Uint8Array>((resolve) => setImmediate(resolve, noise(1000, 31)))
          } finally {
            ended = true
          }
        })()
        await rejectsWith(
          store.put(path, { kind: 'stream', stream }, { guard: ANY, signal: controller.signal }),
          'ABORTED',
        )
        while (!ended) await new Promise((resolve) => setImmediate(resolve))
      }
      assert.deepEqual(keysOf(await listAll(store, directory), directory), ['kept'])
      assert.equal((await store.stat(at('kept'))).version, kept.version)
    },
  },
  {
    name: 'put: an abort ends one whose stream gives nothing',
    run: async ({ store, at }) => {
      const controller = new AbortController()
      const stream: AsyncIterable<Uint8Array> = {
        [Symbol.asyncIterator]: () => ({
          next: () => {
            setImmediate(() => controller.abort())
            return new Promise(() => undefined)
          },
        }),
      }
      await rejectsWith(
        store.put(at('stuck'), { kind: 'stream', stream }, { guard: ANY, signal: controller.signal }),
        'ABORTED',
      )
      await assertGone(store, at('stuck'))
    },
  },
  {
    name: 'put: over a directory and under a file is refused (where the store checks its tree)',
    run: async ({ store, at, options, skip }) => {
      if (!options.treeChecked) return skip('the store does not look for directories when it puts')
      await store.put(at('dir/file'), noise(1, 32), { guard: ABSENT })
      await store.makeDirectory(at('made'), { guard: ABSENT })
      await rejectsWith(store.put(at('dir'), noise(1, 33), { guard: ANY }), 'STORE_IS_DIRECTORY')
      await rejectsWith(store.put(at('made'), noise(1, 33), { guard: ANY }), 'STORE_IS_DIRECTORY')
      await rejectsWith(store.put(at('made'), noise(1, 33), { guard: ABSENT }), 'STORE_CONFLICT')
      await rejectsWith(store.put('', noise(1, 33), { guard: ANY }), 'STORE_IS_DIRECTORY')
      await rejectsWith(store.put(at('dir/file/x'), noise(1, 33), { guard: ANY }), 'STORE_NOT_DIRECTORY')
      await rejectsWith(store.makeDirectory(at('dir/file'), { guard: ANY }), 'STORE_NOT_DIRECTORY')
      await rejectsWith(store.makeDirectory(at('dir/file/x/y'), { guard: ANY }), 'STORE_NOT_DIRECTORY')
      await assertContent(store, at('dir/file'), noise(1, 32))
    },
  },
  {
    name: 'put: many at once, each with its own bytes',
    run: async ({ store, at, directory }) => {
      const count = 200
      await Promise.all(
        Array.from({ length: count }, (_, index) =>
          store.put(at(`d${index % 7}/f${index}`), noise(1000 + index, index), { guard: ABSENT }),
        ),
      )
      const files = (await listAll(store, directory, { recursive: true })).filter((entry) => entry.kind === 'file')
      assert.equal(files.length, count)
      for (let index = 0; index < count; index += 17) {
        await assertContent(store, at(`d${index % 7}/f${index}`), noise(1000 + index, index))
      }
    },
  },
]
