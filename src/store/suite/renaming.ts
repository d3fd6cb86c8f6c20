/** Cases of the store suite: rename of files and directories with every guard and target, and copy. */
import assert from 'node:assert/strict'

import { ABSENT, ANY, ifVersion } from '#store/store.ts'

import { assertContent, assertGone, inParallel, keysOf, listAll, noise, rejectsWith, type SuiteCase } from './case.ts'

const FREE = { guard: ANY, targetGuard: ABSENT }
const OVER = { guard: ANY, targetGuard: ANY }

export const renamingCases: readonly SuiteCase[] = [
  {
    name: 'rename: a file, within a directory, into another, into one that is not there yet, and onto itself',
    run: async ({ store, at }) => {
      const attributes = { mode: 0o640, xattrs: new Map([['user.kept', Buffer.from('yes')]]) }
      await store.put(at('a'), noise(1000, 100), { guard: ABSENT, attributes })
      await store.makeDirectory(at('dir'), { guard: ABSENT })
      const renamed = await store.rename(at('a'), at('b'), FREE)
      assert.deepEqual([renamed.path, renamed.kind, renamed.size], [at('b'), 'file', 1000])
      assert.equal((await store.stat(at('b'))).version, renamed.version)
      await assertGone(store, at('a'))
      await store.rename(at('b'), at('dir/c'), FREE)
      const last = await store.rename(at('dir/c'), at('new/er/d'), FREE)
      await assertGone(store, at('dir/c'))
      await assertContent(store, at('new/er/d'), noise(1000, 100))
      if (store.capabilities.attributes) {
        assert.equal(last.attributes?.mode, 0o640)
        assert.equal(Buffer.from(last.attributes?.xattrs?.get('user.kept') ?? []).toString(), 'yes')
      }
      assert.equal((await store.rename(at('new/er/d'), at('new/er/d'), OVER)).path, at('new/er/d'))
      await assertContent(store, at('new/er/d'), noise(1000, 100))
      await rejectsWith(store.rename(at('new/er/d'), at('new/er/d'), FREE), 'STORE_CONFLICT')
      await rejectsWith(store.rename(at('nothing'), at('x'), FREE), 'STORE_NOT_FOUND')
    },
  },
  {
    name: 'rename: a file under every guard of source and target',
    run: async ({ store, at }) => {
      const old = await store.put(at('a'), noise(10, 101), { guard: ABSENT })
      const a = await store.put(at('a'), noise(10, 102), { guard: ANY })
      const b = await store.put(at('b'), noise(10, 103), { guard: ABSENT })
      const stale = ifVersion(old.version)
      await rejectsWith(store.rename(at('a'), at('b'), { guard: ANY, targetGuard: ABSENT }), 'STORE_CONFLICT')
      await rejectsWith(store.rename(at('a'), at('b'), { guard: stale, targetGuard: ANY }), 'STORE_CONFLICT')
      await rejectsWith(store.rename(at('a'), at('b'), { guard: ANY, targetGuard: stale }), 'STORE_CONFLICT')
      await rejectsWith(store.rename(at('a'), at('c'), { guard: ANY, targetGuard: stale }), 'STORE_CONFLICT')
      await assertContent(store, at('a'), noise(10, 102))
      await assertContent(store, at('b'), noise(10, 103))
      const both = { guard: ifVersion(a.version), targetGuard: ifVersion(b.version) }
      await store.rename(at('a'), at('b'), both)
      await assertGone(store, at('a'))
      await assertContent(store, at('b'), noise(10, 102))
      await store.put(at('e'), noise(10, 104), { guard: ABSENT })
      await store.rename(at('b'), at('e'), OVER)
      await assertContent(store, at('e'), noise(10, 102))
    },
  },
  {
    name: 'rename: a directory with all that lies under it',
    run: async ({ store, at, options }) => {
      const names = ['1', '2/3', '2/4/5', '2/odd %2F+ name', 'z']
      await inParallel(names.length, options.parallel, async (index) => {
        await store.put(at(`dir/${names[index] ?? ''}`), noise(100, index), { guard: ABSENT })
      })
      await store.makeDirectory(at('dir/empty'), { guard: ABSENT })
      await store.put(at('dir-not/x'), noise(1, 105), { guard: ABSENT })
      const renamed = await store.rename(at('dir'), at('moved/here'), FREE)
      assert.deepEqual([renamed.path, renamed.kind], [at('moved/here'), 'directory'])
      await assertGone(store, at('dir'))
      for (const [index, name] of names.entries()) {
        await assertContent(store, at(`moved/here/${name}`), noise(100, index))
      }
      assert.equal((await store.stat(at('moved/here/empty'))).kind, 'directory')
      assert.equal((await store.stat(at('dir-not/x'))).kind, 'file')
      assert.deepEqual(keysOf(await listAll(store, at('moved/here')), at('moved/here')), ['1', '2/', 'empty/', 'z'])
    },
  },
  {
    name: 'rename: onto what is there, by kind',
    run: async ({ store, at, options }) => {
      await store.put(at('file'), noise(10, 106), { guard: ABSENT })
      await store.put(at('full/x'), noise(10, 107), { guard: ABSENT })
      await store.put(at('dir/y'), noise(10, 108), { guard: ABSENT })
      await store.makeDirectory(at('empty'), { guard: ABSENT })
      if (options.treeChecked) {
        await rejectsWith(store.rename(at('file'), at('full'), OVER), 'STORE_IS_DIRECTORY')
        await rejectsWith(store.rename(at('file'), at('empty'), OVER), 'STORE_IS_DIRECTORY')
        await rejectsWith(store.rename(at('file'), at('file/x'), FREE), 'STORE_NOT_DIRECTORY', 'INPUT_INVALID')
      }
      await rejectsWith(store.rename(at('dir'), at('file'), OVER), 'STORE_NOT_DIRECTORY')
      await rejectsWith(store.rename(at('dir'), at('full'), OVER), 'STORE_NOT_EMPTY')
      await rejectsWith(store.rename(at('dir'), at('empty'), FREE), 'STORE_CONFLICT')
      await rejectsWith(store.rename(at('dir'), at('full'), FREE), 'STORE_CONFLICT')
      await rejectsWith(store.rename(at('dir'), at('dir/sub'), FREE), 'INPUT_INVALID')
      await assertContent(store, at('dir/y'), noise(10, 108))
      await assertContent(store, at('file'), noise(10, 106))
      await store.rename(at('dir'), at('empty'), OVER)
      await assertContent(store, at('empty/y'), noise(10, 108))
      await assertGone(store, at('dir'))
    },
  },
  {
    name: 'rename: a symlink moves itself (where the store keeps them)',
    run: async ({ store, at, skip }) => {
      if (!store.capabilities.attributes) return skip('the store keeps no symlinks')
      await store.symlink(at('link'), 'file', { guard: ABSENT })
      await store.put(at('file'), noise(10, 109), { guard: ABSENT })
      const moved = await store.rename(at('link'), at('dir/link'), FREE)
      assert.equal(moved.kind, 'symlink')
      assert.equal(await store.readLink(at('dir/link')), 'file')
      await assertGone(store, at('link'))
      await assertContent(store, at('file'), noise(10, 109))
    },
  },
  {
    name: 'copy: a file with its attributes, or others, under the guards of both ends',
    run: async ({ store, at, options }) => {
      const bytes = noise(options.largeBytes, 110)
      const attributes = { mode: 0o604, xattrs: new Map([['user.kept', Buffer.from('yes')]]) }
      const source = await store.put(at('a'), bytes, { guard: ABSENT, attributes })
      const copied = await store.copy(at('a'), at('new/b'), { guard: ABSENT })
      assert.deepEqual([copied.path, copied.kind, copied.size], [at('new/b'), 'file', bytes.length])
      assert.equal((await store.stat(at('new/b'))).version, copied.version)
      await assertContent(store, at('new/b'), bytes)
      await assertContent(store, at('a'), bytes)
      if (store.capabilities.attributes) {
        assert.equal(copied.attributes?.mode, 0o604)
        assert.equal(Buffer.from(copied.attributes?.xattrs?.get('user.kept') ?? []).toString(), 'yes')
        const other = await store.copy(at('a'), at('c'), { guard: ABSENT, attributes: { mode: 0o777 } })
        assert.equal(other.attributes?.mode, 0o777)
        assert.equal(other.attributes?.xattrs?.size ?? 0, 0)
      }
      await rejectsWith(store.copy(at('a'), at('new/b'), { guard: ABSENT }), 'STORE_CONFLICT')
      const replaced = await store.put(at('a'), noise(10, 111), { guard: ANY })
      await rejectsWith(store.copy(at('a'), at('d'), { guard: ABSENT, version: source.version }), 'STORE_CONFLICT')
      await assertGone(store, at('d'))
      // Not the version of the source: the copy may have the same, where it is made of the bytes.
      await rejectsWith(store.copy(at('a'), at('new/b'), { guard: ifVersion(replaced.version) }), 'STORE_CONFLICT')
      await store.copy(at('a'), at('new/b'), { guard: ifVersion(copied.version), version: replaced.version })
      await assertContent(store, at('new/b'), noise(10, 111))
      await rejectsWith(store.copy(at('nothing'), at('e'), { guard: ANY }), 'STORE_NOT_FOUND')
      await rejectsWith(store.copy(at('new'), at('e'), { guard: ANY }), 'STORE_IS_DIRECTORY')
    },
  },
]
