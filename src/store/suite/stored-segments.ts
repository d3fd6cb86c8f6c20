/** Cases of the store suite: puts of which pieces are stored already. */
import assert from 'node:assert/strict'
import { closeSync, openSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

import { ABSENT, ANY, ifVersion, type Segment, type Version } from '#store/store.ts'

import { assertContent, assertGone, noise, rejectsWith, type SuiteCase } from './case.ts'

export const storedSegmentCases: readonly SuiteCase[] = [
  {
    name: 'stored segments: one, whole and in part, and several of several files',
    run: async ({ store, at }) => {
      const [a, b] = [noise(10_000, 180), noise(300_000, 181)]
      const { version: versionA } = await store.put(at('a'), a, { guard: ABSENT })
      const { version: versionB } = await store.put(at('b'), b, { guard: ABSENT })
      const ofA = (offset: number, length: number): Segment => ({ path: at('a'), version: versionA, offset, length })
      const ofB = (offset: number, length: number): Segment => ({ path: at('b'), version: versionB, offset, length })
      const cases: readonly (readonly [string, readonly Segment[], Buffer])[] = [
        ['whole', [ofA(0, 10_000)], a],
        ['middle', [ofB(100_000, 50_001)], b.subarray(100_000, 150_001)],
        ['none', [ofA(10_000, 0)], Buffer.alloc(0)],
        [
          'several',
          [ofB(200_000, 100_000), ofA(1, 9), ofA(0, 0), ofA(9_999, 1), ofB(0, 3)],
          Buffer.concat([b.subarray(200_000), a.subarray(1, 10), a.subarray(9_999), b.subarray(0, 3)]),
        ],
      ]
      for (const [name, segments, expected] of cases) {
        const put = await store.put(at(name), { kind: 'file', segments }, { guard: ABSENT })
        assert.deepEqual([put.path, put.kind, put.size], [at(name), 'file', expected.length])
        assert.equal((await store.stat(at(name))).version, put.version)
        await assertContent(store, at(name), expected)
      }
      await assertContent(store, at('a'), a)
      await assertContent(store, at('b'), b)
    },
  },
  {
    name: 'stored segments: an edit of a large file itself, between bytes of a local one',
    run: async ({ store, at, scratch, options }) => {
      const before = noise(options.largeBytes, 182)
      const local = noise(70_000, 183)
      writeFileSync(join(scratch, 'edit'), local)
      const fd = openSync(join(scratch, 'edit'), 'r')
      try {
        const attributes = { mode: 0o640 }
        const { version } = await store.put(at('file'), before, { guard: ABSENT, attributes })
        const middle = before.length >> 1
        const stored = (offset: number, length: number): Segment => ({ path: at('file'), version, offset, length })
        const segments: readonly Segment[] = [
          { fd, offset: 5, length: 100 },
          stored(100, middle - 100),
          { fd, offset: 1_000, length: 60_000 },
          stored(middle + 60_000, before.length - middle - 60_000),
          { fd, offset: 0, length: 7 },
        ]
        const expected = Buffer.concat([
          local.subarray(5, 105),
          before.subarray(100, middle),
          local.subarray(1_000, 61_000),
          before.subarray(middle + 60_000),
          local.subarray(0, 7),
        ])
        const source = { kind: 'file', segments } as const
        const edited = await store.put(at('file'), source, { guard: ifVersion(version), attributes })
        assert.equal(edited.size, expected.length)
        if (store.capabilities.attributes) assert.equal(edited.attributes?.mode, 0o640)
        await assertContent(store, at('file'), expected)
        // The version that its segments are of is gone now.
        await rejectsWith(store.put(at('file'), source, { guard: ANY }), 'STORE_CONFLICT')
        await rejectsWith(store.put(at('other'), source, { guard: ABSENT }), 'STORE_CONFLICT')
        await assertContent(store, at('file'), expected)
        await assertGone(store, at('other'))
      } finally {
        closeSync(fd)
      }
    },
  },
  {
    name: '[S3] stored segments: a version that is not there stores nothing',
    run: async ({ store, at }) => {
      const old = await store.put(at('a'), noise(5_000, 184), { guard: ABSENT })
      const kept = await store.put(at('b'), noise(5_000, 185), { guard: ABSENT })
      await store.put(at('a'), noise(5_000, 186), { guard: ANY })
      const none = '0123456789abcdef0123456789abcdef' as Version
      const first: Segment = { path: at('b'), version: kept.version, offset: 0, length: 5_000 }
      for (const [path, version] of [
        [at('a'), old.version],
        [at('b'), none],
        [at('nothing'), kept.version],
      ] as const) {
        const segments = [first, { path, version, offset: 0, length: 5_000 }]
        const source = { kind: 'file', segments } as const
        await rejectsWith(store.put(at('new'), source, { guard: ABSENT }), 'STORE_CONFLICT')
        await rejectsWith(store.put(at('b'), source, { guard: ifVersion(kept.version) }), 'STORE_CONFLICT')
      }
      await assertGone(store, at('new'))
      await assertContent(store, at('b'), noise(5_000, 185))
      assert.equal((await store.stat(at('b'))).version, kept.version)
    },
  },
  {
    name: '[S3] stored segments: the guard of the put holds as ever',
    run: async ({ store, at }) => {
      const { version } = await store.put(at('a'), noise(5_000, 187), { guard: ABSENT })
      const other = await store.put(at('b'), noise(10, 188), { guard: ABSENT })
      const source = { kind: 'file', segments: [{ path: at('a'), version, offset: 0, length: 5_000 }] } as const
      await rejectsWith(store.put(at('b'), source, { guard: ABSENT }), 'STORE_CONFLICT')
      await rejectsWith(store.put(at('b'), source, { guard: ifVersion(version) }), 'STORE_CONFLICT')
      await assertContent(store, at('b'), noise(10, 188))
      await store.put(at('b'), source, { guard: ifVersion(other.version) })
      await assertContent(store, at('b'), noise(5_000, 187))
    },
  },
  {
    name: '[S1] stored segments: past the end of a version stores nothing',
    run: async ({ store, at }) => {
      const { version } = await store.put(at('a'), noise(5_000, 189), { guard: ABSENT })
      for (const [offset, length] of [
        [4_999, 2],
        [5_001, 1],
      ] as const) {
        const source = { kind: 'file', segments: [{ path: at('a'), version, offset, length }] } as const
        await rejectsWith(store.put(at('new'), source, { guard: ABSENT }), 'INPUT_INVALID')
      }
      await assertGone(store, at('new'))
    },
  },
]
