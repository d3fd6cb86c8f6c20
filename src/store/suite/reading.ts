/** Cases of the store suite: stat and read, whole, in ranges, pinned to a version, given up. */
import assert from 'node:assert/strict'
import { crc32 } from 'node:zlib'

import { ABSENT, ANY } from '#store/store.ts'

import { assertContent, contentOf, noise, rejectsWith, type SuiteCase } from './case.ts'

export const readingCases: readonly SuiteCase[] = [
  {
    name: 'stat: the root is a directory, a file is what was put, and nothing is STORE_NOT_FOUND',
    run: async ({ store, at, options }) => {
      assert.equal((await store.stat('')).kind, 'directory')
      const put = await store.put(at('file'), noise(1000, 1), { guard: ABSENT })
      const found = await store.stat(at('file'))
      assert.equal(found.path, at('file'))
      assert.equal(found.kind, 'file')
      assert.equal(found.size, 1000)
      assert.equal(found.version, put.version)
      assert.notEqual(found.attributes, undefined)
      // The store's clock may differ from ours; the year must not.
      assert.ok(Math.abs(found.modified.seconds - Date.now() / 1000) < 86_400, 'modified is about now')
      await rejectsWith(store.stat(at('nothing')), 'STORE_NOT_FOUND')
      await rejectsWith(store.stat(at('nothing/under/it')), 'STORE_NOT_FOUND')
      await rejectsWith(store.stat(at('fil')), 'STORE_NOT_FOUND')
      if (options.treeChecked) await rejectsWith(store.stat(at('file/x')), 'STORE_NOT_DIRECTORY')
    },
  },
  {
    name: 'read: whole, by chunks and in one buffer, with the entry that is being read',
    run: async ({ store, at }) => {
      const bytes = noise(100_001, 2)
      const put = await store.put(at('file'), bytes, { guard: ABSENT })
      const whole = await store.read(at('file'))
      assert.equal(whole.length, bytes.length)
      assert.equal(whole.entry.version, put.version)
      assert.equal(whole.entry.size, bytes.length)
      assert.notEqual(whole.entry.attributes, undefined)
      assert.ok((await whole.bytes()).equals(bytes))
      const chunks: Uint8Array[] = []
      for await (const chunk of (await store.read(at('file'))).body) chunks.push(chunk)
      assert.ok(Buffer.concat(chunks).equals(bytes))
    },
  },
  {
    name: 'read: an empty file has no bytes',
    run: async ({ store, at }) => {
      await store.put(at('empty'), new Uint8Array(0), { guard: ABSENT })
      const reading = await store.read(at('empty'))
      assert.equal(reading.length, 0)
      assert.equal(reading.entry.size, 0)
      for await (const chunk of reading.body) assert.equal(chunk.length, 0)
      assert.equal((await (await store.read(at('empty'), { offset: 5, length: 3 })).bytes()).length, 0)
    },
  },
  {
    name: 'read: ranges, at the ends and past them',
    run: async ({ store, at }) => {
      const bytes = noise(10_000, 3)
      await store.put(at('file'), bytes, { guard: ABSENT })
      const ranges: readonly (readonly [number | undefined, number | undefined])[] = [
        [0, 1],
        [0, 0],
        [9_999, 1],
        [9_999, 100],
        [10_000, 1],
        [20_000, 5],
        [17, undefined],
        [undefined, 17],
        [4_096, 4_096],
        [9_000, undefined],
      ]
      for (const [offset, length] of ranges) {
        const reading = await store.read(at('file'), {
          ...(offset === undefined ? {} : { offset }),
          ...(length === undefined ? {} : { length }),
        })
        const start = offset ?? 0
        const expected = bytes.subarray(start, length === undefined ? undefined : start + length)
        assert.equal(reading.length, expected.length, `length of ${offset}+${length}`)
        assert.equal(reading.entry.size, bytes.length)
        assert.ok((await reading.bytes()).equals(expected), `bytes of ${offset}+${length}`)
      }
    },
  },
  {
    name: '[S5] read: pinned to a version, and what a replaced and a removed version answer',
    run: async ({ store, at }) => {
      const first = await store.put(at('file'), noise(5000, 4), { guard: ABSENT })
      const pinned = await store.read(at('file'), { version: first.version, offset: 100, length: 50 })
      assert.ok((await pinned.bytes()).equals(noise(5000, 4).subarray(100, 150)))
      const second = await store.put(at('file'), noise(5000, 5), { guard: ANY })
      assert.notEqual(second.version, first.version)
      await rejectsWith(store.read(at('file'), { version: first.version }), 'STORE_CONFLICT')
      await rejectsWith(store.read(at('file'), { version: first.version, offset: 1, length: 1 }), 'STORE_CONFLICT')
      await assertContent(store, at('file'), noise(5000, 5))
      await store.remove(at('file'), { guard: ANY })
      await rejectsWith(store.read(at('file'), { version: second.version }), 'STORE_NOT_FOUND')
    },
  },
  {
    name: '[S5] read: one that has begun gives one version, or an error, when the file is replaced and removed meanwhile',
    run: async ({ store, at }) => {
      const old = noise(3 << 20, 6)
      await store.put(at('file'), old, { guard: ABSENT })
      for (const change of ['replace', 'remove'] as const) {
        const reading = await store.read(at('file'))
        const chunks: Uint8Array[] = []
        let failed = false
        try {
          for await (const chunk of reading.body) {
            if (chunks.length === 0) {
              if (change === 'replace') await store.put(at('file'), noise(3 << 20, 7), { guard: ANY })
              else await store.remove(at('file'), { guard: ANY })
            }
            chunks.push(chunk)
          }
        } catch {
          failed = true
        }
        const expected = change === 'replace' ? old : noise(3 << 20, 7)
        assert.ok(failed || Buffer.concat(chunks).equals(expected), `one version when the file is ${change}d`)
      }
    },
  },
  {
    name: 'read: what is not a file',
    run: async ({ store, at }) => {
      await store.makeDirectory(at('made'), { guard: ABSENT })
      await store.put(at('implied/file'), noise(1, 8), { guard: ABSENT })
      await rejectsWith(store.read(at('made')), 'STORE_IS_DIRECTORY')
      await rejectsWith(store.read(at('implied')), 'STORE_IS_DIRECTORY')
      await rejectsWith(store.read(''), 'STORE_IS_DIRECTORY')
      await rejectsWith(store.read(at('nothing')), 'STORE_NOT_FOUND')
      await rejectsWith(store.readLink(at('implied/file')), 'INPUT_INVALID')
      await rejectsWith(store.readLink(at('made')), 'INPUT_INVALID')
      await rejectsWith(store.readLink(at('nothing')), 'STORE_NOT_FOUND')
    },
  },
  {
    name: 'read: cancelled and left alone, then read again',
    run: async ({ store, at }) => {
      const bytes = noise(4 << 20, 9)
      await store.put(at('file'), bytes, { guard: ABSENT })
      const untouched = await store.read(at('file'))
      untouched.cancel()
      untouched.cancel()
      const begun = await store.read(at('file'))
      for await (const chunk of begun.body) {
        assert.ok(chunk.length > 0)
        break
      }
      begun.cancel()
      assert.ok((await contentOf(store, at('file'))).equals(bytes))
    },
  },
  {
    name: '[S6] read: an abort before and during the body is ABORTED, never a short read',
    run: async ({ store, at }) => {
      await store.put(at('file'), noise(8 << 20, 10), { guard: ABSENT })
      await rejectsWith(store.read(at('file'), { signal: AbortSignal.abort() }), 'ABORTED')
      await rejectsWith(store.stat(at('file'), { signal: AbortSignal.abort() }), 'ABORTED')
      const controller = new AbortController()
      const reading = await store.read(at('file'), { signal: controller.signal })
      await rejectsWith(
        (async () => {
          for await (const chunk of reading.body) {
            assert.ok(chunk.length > 0)
            controller.abort()
          }
        })(),
        'ABORTED',
      )
    },
  },
  {
    name: 'read: a large body, streamed and in ranges',
    run: async ({ store, at, options }) => {
      const bytes = noise(options.largeBytes + 13, 11)
      const put = await store.put(at('large'), bytes, { guard: ABSENT })
      let crc = 0
      let size = 0
      for await (const chunk of (await store.read(at('large'))).body) {
        crc = crc32(chunk, crc)
        size += chunk.length
      }
      assert.equal(size, bytes.length)
      assert.equal(crc, crc32(bytes))
      const middle = bytes.length >> 1
      const ranged = await store.read(at('large'), { version: put.version, offset: middle, length: 3 << 20 })
      assert.ok((await ranged.bytes()).equals(bytes.subarray(middle, middle + (3 << 20))))
      const end = await store.read(at('large'), { version: put.version, offset: bytes.length - 13 })
      assert.ok((await end.bytes()).equals(bytes.subarray(-13)))
    },
  },
]
