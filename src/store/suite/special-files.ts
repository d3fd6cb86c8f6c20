/** Cases of the store suite: fifos and sockets, where the store keeps them. */
import assert from 'node:assert/strict'

import { ABSENT, ANY, ifVersion, type Attributes, type Entry, type SpecialKind } from '#store/store.ts'

import { assertContent, assertGone, keysOf, listAll, noise, rejectsWith, type SuiteCase } from './case.ts'

const KINDS: readonly SpecialKind[] = ['fifo', 'socket']

const ATTRIBUTES: Attributes = {
  mode: 0o1620,
  atime: { seconds: 1_234_567_890, nanoseconds: 987_654_321 },
  mtime: { seconds: 1_700_000_000, nanoseconds: 123_456_789 },
}

function assertKept({ attributes }: Entry, expected: Attributes): void {
  for (const name of ['mode', 'uid', 'gid', 'atime', 'mtime'] as const) {
    if (expected[name] !== undefined) assert.deepEqual(attributes?.[name], expected[name], name)
  }
}

export const specialFileCases: readonly SuiteCase[] = [
  {
    name: '[S80] fifos and sockets: made, told by stat, listed, and with their attributes (where the store keeps them)',
    run: async ({ store, at, directory, skip }) => {
      if (!store.capabilities.specials) return skip('the store keeps no fifos or sockets')
      // On a directory only root may give one away, and it has nowhere to keep another owner.
      const root = process.getuid?.() === 0
      const owner = { uid: root ? 3 : (process.getuid?.() ?? 0), gid: root ? 4 : (process.getgid?.() ?? 0) }
      const attributes = { ...ATTRIBUTES, ...owner }
      for (const kind of KINDS) {
        const made = await store.makeSpecial(at(kind), kind, { guard: ABSENT, attributes })
        assert.deepEqual([made.path, made.kind, made.size], [at(kind), kind, 0])
        const found = await store.stat(at(kind))
        assert.deepEqual([found.kind, found.size, found.version], [kind, 0, made.version])
        assertKept(made, attributes)
        assertKept(found, attributes)
        const changed = await store.setAttributes(at(kind), { mode: 0o600 }, { guard: ifVersion(made.version) })
        assert.equal(changed.kind, kind)
        assertKept(await store.stat(at(kind)), { ...attributes, mode: 0o600 })
        assert.equal((await store.stat(at(kind))).kind, kind)
      }
      const entries = await listAll(store, directory)
      assert.deepEqual(keysOf(entries, directory), ['fifo', 'socket'])
      if (store.capabilities.listingComplete)
        assert.deepEqual(
          entries.map((entry) => entry.kind),
          KINDS,
        )
    },
  },
  {
    name: '[S80] fifos and sockets: have no bytes to read, copy or take over (where the store keeps them)',
    run: async ({ store, at, skip }) => {
      if (!store.capabilities.specials) return skip('the store keeps no fifos or sockets')
      for (const kind of KINDS) {
        const { version } = await store.makeSpecial(at(kind), kind, { guard: ABSENT })
        await rejectsWith(store.read(at(kind)), 'INPUT_INVALID')
        await rejectsWith(store.read(at(kind), { version }), 'INPUT_INVALID')
        await rejectsWith(store.readLink(at(kind)), 'INPUT_INVALID')
        await rejectsWith(store.copy(at(kind), at('copy'), { guard: ANY }), 'INPUT_INVALID')
        await rejectsWith(listAll(store, at(kind)), 'STORE_NOT_DIRECTORY')
        await rejectsWith(store.removeDirectory(at(kind)), 'STORE_NOT_DIRECTORY')
        await assertGone(store, at('copy'))
        assert.equal((await store.stat(at(kind))).version, version)
      }
    },
  },
  {
    name: 'fifos and sockets: are guarded, and give way to other kinds like files (where the store keeps them)',
    run: async ({ store, at, options, skip }) => {
      if (!store.capabilities.specials) return skip('the store keeps no fifos or sockets')
      for (const kind of KINDS) {
        const made = await store.makeSpecial(at(kind), kind, { guard: ABSENT })
        await rejectsWith(store.makeSpecial(at(kind), kind, { guard: ABSENT }), 'STORE_CONFLICT')
        await rejectsWith(store.put(at(kind), noise(1, 150), { guard: ABSENT }), 'STORE_CONFLICT')
        const put = await store.put(at(kind), noise(10, 151), { guard: ifVersion(made.version) })
        await assertContent(store, at(kind), noise(10, 151))
        await rejectsWith(store.makeSpecial(at(kind), kind, { guard: ABSENT }), 'STORE_CONFLICT')
        await rejectsWith(store.makeSpecial(at(kind), kind, { guard: ifVersion(made.version) }), 'STORE_CONFLICT')
        const again = await store.makeSpecial(at(kind), kind, { guard: ifVersion(put.version) })
        assert.equal((await store.stat(at(kind))).kind, kind)
        await rejectsWith(store.remove(at(kind), { guard: ifVersion(put.version) }), 'STORE_CONFLICT')
        await store.remove(at(kind), { guard: ifVersion(again.version) })
        await assertGone(store, at(kind))
      }
      await store.makeDirectory(at('dir'), { guard: ABSENT })
      await rejectsWith(store.makeSpecial(at('dir'), 'fifo', { guard: ABSENT }), 'STORE_CONFLICT')
      if (options.treeChecked) {
        await rejectsWith(store.makeSpecial(at('dir'), 'fifo', { guard: ANY }), 'STORE_IS_DIRECTORY')
      }
      await store.makeSpecial(at('new/er/fifo'), 'fifo', { guard: ABSENT })
      assert.equal((await store.stat(at('new/er'))).kind, 'directory')
      await rejectsWith(store.removeDirectory(at('new/er')), 'STORE_NOT_EMPTY')
    },
  },
  {
    name: 'fifos and sockets: are renamed, onto what is there, and with their directory (where the store keeps them)',
    run: async ({ store, at, skip }) => {
      if (!store.capabilities.specials) return skip('the store keeps no fifos or sockets')
      await store.makeSpecial(at('fifo'), 'fifo', { guard: ABSENT, attributes: ATTRIBUTES })
      await store.put(at('file'), noise(10, 152), { guard: ABSENT })
      await rejectsWith(store.rename(at('fifo'), at('file'), { guard: ANY, targetGuard: ABSENT }), 'STORE_CONFLICT')
      const moved = await store.rename(at('fifo'), at('file'), { guard: ANY, targetGuard: ANY })
      assert.deepEqual([moved.path, moved.kind], [at('file'), 'fifo'])
      assertKept(moved, ATTRIBUTES)
      await assertGone(store, at('fifo'))
      await store.put(at('other'), noise(10, 153), { guard: ABSENT })
      await store.rename(at('other'), at('file'), { guard: ANY, targetGuard: ANY })
      await assertContent(store, at('file'), noise(10, 153))
      await store.makeSpecial(at('dir/socket'), 'socket', { guard: ABSENT, attributes: ATTRIBUTES })
      await store.rename(at('dir'), at('moved'), { guard: ANY, targetGuard: ABSENT })
      const found = await store.stat(at('moved/socket'))
      assert.equal(found.kind, 'socket')
      assertKept(found, ATTRIBUTES)
    },
  },
  {
    name: 'fifos and sockets: are refused by a store that keeps none',
    run: async ({ store, at, skip }) => {
      if (store.capabilities.specials) return skip('the store keeps them')
      for (const kind of KINDS) {
        await rejectsWith(store.makeSpecial(at(kind), kind, { guard: ABSENT }), 'STORE_UNSUPPORTED')
        await assertGone(store, at(kind))
      }
    },
  },
]
