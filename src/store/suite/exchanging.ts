/** Cases of the store suite: exchange of two entries of any kind. */
import assert from 'node:assert/strict'

import { isOperationError } from '#base/errors.ts'
import { ABSENT, ANY, ifVersion, type Version } from '#store/store.ts'

import { assertContent, assertGone, keysOf, listAll, noise, rejectsWith, type SuiteCase } from './case.ts'

const FREE = { guard: ANY, otherGuard: ANY }

export const exchangingCases: readonly SuiteCase[] = [
  {
    name: '[S81] exchange: two files, with their attributes',
    run: async ({ store, at }) => {
      await store.put(at('a'), noise(1000, 160), { guard: ABSENT, attributes: { mode: 0o640 } })
      await store.put(at('dir/b'), noise(20, 161), { guard: ABSENT, attributes: { mode: 0o604 } })
      await store.exchange(at('a'), at('dir/b'), FREE)
      await assertContent(store, at('a'), noise(20, 161))
      await assertContent(store, at('dir/b'), noise(1000, 160))
      if (!store.capabilities.attributes) return
      assert.equal((await store.stat(at('a'))).attributes?.mode, 0o604)
      assert.equal((await store.stat(at('dir/b'))).attributes?.mode, 0o640)
    },
  },
  {
    name: '[S81] exchange: under every guard of both sides',
    run: async ({ store, at }) => {
      const old = await store.put(at('a'), noise(10, 162), { guard: ABSENT })
      const a = await store.put(at('a'), noise(10, 163), { guard: ANY })
      const b = await store.put(at('b'), noise(10, 164), { guard: ABSENT })
      const stale = ifVersion(old.version)
      await rejectsWith(store.exchange(at('a'), at('b'), { guard: stale, otherGuard: ANY }), 'STORE_CONFLICT')
      await rejectsWith(store.exchange(at('a'), at('b'), { guard: ANY, otherGuard: stale }), 'STORE_CONFLICT')
      await rejectsWith(store.exchange(at('a'), at('b'), { guard: ABSENT, otherGuard: ANY }), 'STORE_CONFLICT')
      await rejectsWith(store.exchange(at('a'), at('b'), { guard: ANY, otherGuard: ABSENT }), 'STORE_CONFLICT')
      await assertContent(store, at('a'), noise(10, 163))
      await assertContent(store, at('b'), noise(10, 164))
      await store.exchange(at('a'), at('b'), { guard: ifVersion(a.version), otherGuard: ifVersion(b.version) })
      await assertContent(store, at('a'), noise(10, 164))
      await assertContent(store, at('b'), noise(10, 163))
    },
  },
  {
    name: '[S81] exchange: needs both sides, and neither within the other',
    run: async ({ store, at }) => {
      await store.put(at('file'), noise(10, 165), { guard: ABSENT })
      await store.put(at('dir/sub/x'), noise(10, 166), { guard: ABSENT })
      await rejectsWith(store.exchange(at('file'), at('nothing'), FREE), 'STORE_NOT_FOUND')
      await rejectsWith(store.exchange(at('nothing'), at('file'), FREE), 'STORE_NOT_FOUND')
      await rejectsWith(store.exchange(at('file'), at('none/at/all'), FREE), 'STORE_NOT_FOUND')
      await rejectsWith(store.exchange(at('dir'), at('dir/sub'), FREE), 'INPUT_INVALID')
      await rejectsWith(store.exchange(at('dir/sub/x'), at('dir'), FREE), 'INPUT_INVALID')
      await rejectsWith(store.exchange('', at('file'), FREE), 'INPUT_INVALID')
      await rejectsWith(store.exchange(at('file'), '', FREE), 'INPUT_INVALID')
      await store.exchange(at('file'), at('file'), FREE)
      await assertContent(store, at('file'), noise(10, 165))
      await assertContent(store, at('dir/sub/x'), noise(10, 166))
      await assertGone(store, at('nothing'))
      await assertGone(store, at('none'))
    },
  },
  {
    name: '[S81] exchange: two directories with all that lies under them',
    run: async ({ store, at }) => {
      for (const [index, name] of ['a/1', 'a/2/3', 'b/1', 'b/4/5/6'].entries()) {
        await store.put(at(name), noise(50 + index, index), { guard: ABSENT })
      }
      await store.makeDirectory(at('a/empty'), { guard: ABSENT })
      await store.put(at('a-not'), noise(1, 167), { guard: ABSENT })
      await store.exchange(at('a'), at('b'), FREE)
      assert.deepEqual(keysOf(await listAll(store, at('a')), at('a')), ['1', '4/'])
      assert.deepEqual(keysOf(await listAll(store, at('b')), at('b')), ['1', '2/', 'empty/'])
      await assertContent(store, at('a/1'), noise(52, 2))
      await assertContent(store, at('a/4/5/6'), noise(53, 3))
      await assertContent(store, at('b/1'), noise(50, 0))
      await assertContent(store, at('b/2/3'), noise(51, 1))
      assert.equal((await store.stat(at('b/empty'))).kind, 'directory')
      await assertContent(store, at('a-not'), noise(1, 167))
    },
  },
  {
    name: '[S81] exchange: a file with a directory, and a symlink with a file',
    run: async ({ store, at }) => {
      await store.put(at('file'), noise(10, 168), { guard: ABSENT })
      await store.put(at('dir/x'), noise(10, 169), { guard: ABSENT })
      await store.makeDirectory(at('empty'), { guard: ABSENT })
      await store.exchange(at('file'), at('dir'), FREE)
      await assertContent(store, at('dir'), noise(10, 168))
      await assertContent(store, at('file/x'), noise(10, 169))
      await store.exchange(at('file'), at('dir'), FREE)
      await assertContent(store, at('file'), noise(10, 168))
      await assertContent(store, at('dir/x'), noise(10, 169))
      await store.exchange(at('empty'), at('file'), FREE)
      await assertContent(store, at('empty'), noise(10, 168))
      assert.deepEqual(await listAll(store, at('file')), [])
      if (!store.capabilities.attributes) return
      await store.symlink(at('link'), 'dir/x', { guard: ABSENT })
      await store.exchange(at('link'), at('empty'), FREE)
      assert.equal(await store.readLink(at('empty')), 'dir/x')
      await assertContent(store, at('link'), noise(10, 168))
    },
  },
  {
    name: '[S81] exchange: of racing exchanges under versions exactly one happens (where moves are one step)',
    run: async ({ store, at, skip }) => {
      if (!store.capabilities.renameAtomic) return skip('moves are several steps')
      const a = await store.put(at('a'), noise(10, 190), { guard: ABSENT })
      const b = await store.put(at('b'), noise(10, 191), { guard: ABSENT })
      const guards = { guard: ifVersion(a.version), otherGuard: ifVersion(b.version) }
      const calls = Array.from({ length: 9 }, () => store.exchange(at('a'), at('b'), guards))
      const results = await Promise.allSettled(calls)
      assert.equal(results.filter(({ status }) => status === 'fulfilled').length, 1)
      for (const result of results) {
        if (result.status === 'rejected') assert.ok(isOperationError(result.reason, 'STORE_CONFLICT'))
      }
      await assertContent(store, at('a'), noise(10, 191))
      await assertContent(store, at('b'), noise(10, 190))
    },
  },
  {
    name: 'exchange: files whose versions changed are told, by their new paths',
    run: async ({ store, at }) => {
      const versions = new Map<string, Version>()
      for (const [index, name] of ['a', 'b', 'd/1', 'd/2', 'e/3'].entries()) {
        versions.set(name, (await store.put(at(name), noise(60 + index, index), { guard: ABSENT })).version)
      }
      const moves = new Map([
        ['a', 'b'],
        ['b', 'a'],
        ['d/1', 'e/1'],
        ['d/2', 'e/2'],
        ['e/3', 'd/3'],
      ])
      const told = new Map<string, readonly [Version, Version]>()
      const onVersionChanged = (path: string, before: Version, after: Version): void => {
        told.set(path, [before, after])
      }
      await store.exchange(at('a'), at('b'), { ...FREE, onVersionChanged })
      await store.exchange(at('d'), at('e'), { ...FREE, onVersionChanged })
      for (const [from, to] of moves) {
        const { version } = await store.stat(at(to))
        const before = versions.get(from)
        const [said, after] = told.get(at(to)) ?? [before, before]
        assert.deepEqual([said, after], [before, version], `${from} became ${to}`)
      }
    },
  },
]
