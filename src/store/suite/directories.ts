/** Cases of the store suite: directories that were made, and directories that came into being. */
import assert from 'node:assert/strict'

import { ABSENT, ANY } from '#store/store.ts'

import { assertGone, keysOf, listAll, noise, rejectsWith, type SuiteCase } from './case.ts'

export const directoryCases: readonly SuiteCase[] = [
  {
    name: 'directories: one that was made stays without entries',
    run: async ({ store, at, directory }) => {
      const made = await store.makeDirectory(at('made'), { guard: ABSENT })
      assert.deepEqual([made.path, made.kind, made.size], [at('made'), 'directory', 0])
      assert.equal((await store.stat(at('made'))).version, made.version)
      await store.put(at('made/file'), noise(1, 80), { guard: ABSENT })
      await store.remove(at('made/file'), { guard: ANY })
      assert.equal((await store.stat(at('made'))).kind, 'directory')
      assert.deepEqual(keysOf(await listAll(store, directory), directory), ['made/'])
    },
  },
  {
    name: '[S13] directories: those above a path come into being with it',
    run: async ({ store, at }) => {
      await store.put(at('a/b/c/file'), noise(1, 81), { guard: ABSENT })
      await store.makeDirectory(at('d/e/made'), { guard: ABSENT })
      for (const path of ['a', 'a/b', 'a/b/c', 'd', 'd/e', 'd/e/made']) {
        assert.equal((await store.stat(at(path))).kind, 'directory', path)
      }
      assert.deepEqual(keysOf(await listAll(store, at('a')), at('a')), ['b/'])
    },
  },
  {
    name: 'directories: made twice conflicts with ABSENT, also where the first came into being by itself',
    run: async ({ store, at }) => {
      await store.makeDirectory(at('made'), { guard: ABSENT })
      await rejectsWith(store.makeDirectory(at('made'), { guard: ABSENT }), 'STORE_CONFLICT')
      await store.put(at('implied/file'), noise(1, 82), { guard: ABSENT })
      await rejectsWith(store.makeDirectory(at('implied'), { guard: ABSENT }), 'STORE_CONFLICT')
      assert.equal((await store.makeDirectory(at('made'), { guard: ANY })).kind, 'directory')
      assert.equal((await store.makeDirectory(at('implied'), { guard: ANY })).kind, 'directory')
      await store.remove(at('implied/file'), { guard: ANY })
      assert.equal((await store.stat(at('implied'))).kind, 'directory')
    },
  },
  {
    name: 'directories: only an empty one is removed, and only as a directory',
    run: async ({ store, at }) => {
      await store.makeDirectory(at('made'), { guard: ABSENT })
      await store.put(at('made/sub/file'), noise(1, 83), { guard: ABSENT })
      await rejectsWith(store.removeDirectory(at('made')), 'STORE_NOT_EMPTY')
      await rejectsWith(store.removeDirectory(at('made/sub')), 'STORE_NOT_EMPTY')
      await rejectsWith(store.removeDirectory(at('made/sub/file')), 'STORE_NOT_DIRECTORY')
      await rejectsWith(store.removeDirectory(at('nothing')), 'STORE_NOT_FOUND')
      await rejectsWith(store.remove(at('made'), { guard: ANY }), 'STORE_IS_DIRECTORY')
      await rejectsWith(store.remove(at('made/sub'), { guard: ANY }), 'STORE_IS_DIRECTORY')
      await store.makeDirectory(at('made/sub'), { guard: ANY })
      await store.remove(at('made/sub/file'), { guard: ANY })
      await store.removeDirectory(at('made/sub'))
      await store.removeDirectory(at('made'))
      await assertGone(store, at('made'))
    },
  },
  {
    name: 'directories: the root can be listed and made, and neither removed nor moved',
    run: async ({ store, at }) => {
      assert.equal((await store.makeDirectory('', { guard: ANY })).kind, 'directory')
      await rejectsWith(store.makeDirectory('', { guard: ABSENT }), 'STORE_CONFLICT')
      await rejectsWith(store.removeDirectory(''), 'INPUT_INVALID')
      await rejectsWith(store.remove('', { guard: ANY }), 'STORE_IS_DIRECTORY')
      await rejectsWith(store.rename('', at('x'), { guard: ANY, targetGuard: ANY }), 'INPUT_INVALID')
      await store.put(at('x'), noise(1, 84), { guard: ABSENT })
      await rejectsWith(store.rename(at('x'), '', { guard: ANY, targetGuard: ANY }), 'INPUT_INVALID')
    },
  },
]
