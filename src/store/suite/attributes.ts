/** Cases of the store suite: modes, owners, times and extended attributes, and symlinks. */
import assert from 'node:assert/strict'

import { isOperationError } from '#base/errors.ts'
import { ABSENT, ANY, ifVersion, type Attributes } from '#store/store.ts'

import { assertContent, assertGone, listAll, noise, rejectsWith, type SuiteCase } from './case.ts'

const TIMES: Attributes = {
  atime: { seconds: 1_234_567_890, nanoseconds: 987_654_321 },
  mtime: { seconds: 1_700_000_000, nanoseconds: 123_456_789 },
}

const ALL: Attributes = {
  ...TIMES,
  mode: 0o2750,
  uid: 1234,
  gid: 4321,
  xattrs: new Map([
    ['user.text', Buffer.from('a value')],
    ['user.binary', Buffer.from([0, 255, 10, 128, 0, 1])],
    ['user.empty', Buffer.alloc(0)],
    ['user.größe', Buffer.from('ü')],
  ]),
}

/** Fails unless each of the expected attributes is there; others may be. */
function assertAttributes(found: Attributes | undefined, expected: Attributes): void {
  assert.ok(found !== undefined, 'attributes are told')
  for (const name of ['mode', 'uid', 'gid', 'atime', 'mtime'] as const) {
    if (expected[name] !== undefined) assert.deepEqual(found[name], expected[name], name)
  }
  if (expected.xattrs === undefined) return
  const sorted = (xattrs: Attributes['xattrs']): string[] =>
    [...(xattrs ?? [])].map(([name, value]) => `${name}=${Buffer.from(value).toString('hex')}`).toSorted()
  assert.deepEqual(sorted(found.xattrs), sorted(expected.xattrs))
}

export const attributeCases: readonly SuiteCase[] = [
  {
    name: 'attributes: all that a put gives come back (where the store keeps them)',
    run: async ({ store, at, directory, skip }) => {
      if (!store.capabilities.attributes) return skip('the store keeps no attributes')
      const put = await store.put(at('file'), noise(100, 90), { guard: ABSENT, attributes: ALL })
      assertAttributes(put.attributes, ALL)
      assertAttributes((await store.stat(at('file'))).attributes, ALL)
      const reading = await store.read(at('file'))
      await reading.bytes()
      assertAttributes(reading.entry.attributes, ALL)
      assertAttributes((await store.stat(at('file'))).attributes, ALL)
      const [listed] = await listAll(store, directory)
      if (store.capabilities.listingComplete) assertAttributes(listed?.attributes, ALL)
    },
  },
  {
    name: 'attributes: times before 1970 and at the ends of a second (where the store keeps them)',
    run: async ({ store, at, skip }) => {
      if (!store.capabilities.attributes) return skip('the store keeps no attributes')
      const times: Attributes[] = [
        { atime: { seconds: -1, nanoseconds: 999_999_999 }, mtime: { seconds: -86_400, nanoseconds: 0 } },
        { atime: { seconds: 0, nanoseconds: 0 }, mtime: { seconds: 0, nanoseconds: 1 } },
        { atime: { seconds: 4_102_444_800, nanoseconds: 5 }, mtime: { seconds: 2_147_483_648, nanoseconds: 0 } },
      ]
      for (const [index, attributes] of times.entries()) {
        await store.put(at(`file-${index}`), noise(1, 91), { guard: ABSENT, attributes })
        assertAttributes((await store.stat(at(`file-${index}`))).attributes, attributes)
      }
    },
  },
  {
    name: 'attributes: a change leaves the others and the bytes (where the store keeps them)',
    run: async ({ store, at, skip }) => {
      if (!store.capabilities.attributes) return skip('the store keeps no attributes')
      await store.put(at('file'), noise(5000, 92), { guard: ABSENT, attributes: ALL })
      await store.setAttributes(at('file'), { mode: 0o600 }, { guard: ANY })
      assertAttributes((await store.stat(at('file'))).attributes, { ...ALL, mode: 0o600 })
      const mtime = { seconds: 5, nanoseconds: 6 }
      const changed = await store.setAttributes(at('file'), { mtime }, { guard: ANY })
      assertAttributes(changed.attributes, { ...ALL, mode: 0o600, mtime })
      const xattrs = new Map([['user.only', Buffer.from('one')]])
      await store.setAttributes(at('file'), { xattrs }, { guard: ANY })
      assertAttributes((await store.stat(at('file'))).attributes, { ...ALL, mode: 0o600, mtime, xattrs })
      await store.setAttributes(at('file'), { xattrs: new Map() }, { guard: ANY })
      await store.setAttributes(at('file'), { uid: 7 }, { guard: ANY })
      await store.setAttributes(at('file'), {}, { guard: ANY })
      const found = await store.stat(at('file'))
      assertAttributes(found.attributes, { ...ALL, mode: 0o600, mtime, uid: 7, xattrs: new Map() })
      await assertContent(store, at('file'), noise(5000, 92))
    },
  },
  {
    name: 'attributes: a change is guarded, and needs something to change',
    run: async ({ store, at }) => {
      const first = await store.put(at('file'), noise(10, 93), { guard: ABSENT })
      const second = await store.put(at('file'), noise(10, 94), { guard: ANY })
      const change = { mode: 0o640 }
      await rejectsWith(store.setAttributes(at('file'), change, { guard: ifVersion(first.version) }), 'STORE_CONFLICT')
      await store.setAttributes(at('file'), change, { guard: ifVersion(second.version) })
      await rejectsWith(store.setAttributes(at('nothing'), change, { guard: ANY }), 'STORE_NOT_FOUND')
      await assertContent(store, at('file'), noise(10, 94))
    },
  },
  {
    name: 'attributes: of directories, made and come into being (where the store keeps them)',
    run: async ({ store, at, skip }) => {
      if (!store.capabilities.attributes) return skip('the store keeps no attributes')
      const made = await store.makeDirectory(at('made'), { guard: ABSENT, attributes: ALL })
      assertAttributes(made.attributes, ALL)
      assertAttributes((await store.stat(at('made'))).attributes, ALL)
      await store.put(at('implied/file'), noise(1, 95), { guard: ABSENT })
      await store.setAttributes(at('implied'), { mode: 0o700, uid: 9 }, { guard: ANY })
      assertAttributes((await store.stat(at('implied'))).attributes, { mode: 0o700, uid: 9 })
      await store.remove(at('implied/file'), { guard: ANY })
      assertAttributes((await store.stat(at('implied'))).attributes, { mode: 0o700, uid: 9 })
    },
  },
  {
    name: 'attributes: what the check refuses a put refuses, too, and it lets pass what is kept (where the store keeps them)',
    run: async ({ store, at, skip }) => {
      const { attributes: kept, checkAttributes } = store.capabilities
      if (!kept) return skip('the store keeps no attributes')
      checkAttributes(at('file'), 'file', ALL)
      const others = [new Map([['user.big', Buffer.alloc(40_000, 'x')]]), new Map([['trusted.x', Buffer.from('x')]])]
      for (const xattrs of others) {
        try {
          checkAttributes(at('file'), 'file', { xattrs })
        } catch (error) {
          assert.ok(isOperationError(error, 'STORE_ATTRIBUTES_TOO_LARGE', 'STORE_UNSUPPORTED'))
          await rejectsWith(store.put(at('file'), noise(1, 99), { guard: ANY, attributes: { xattrs } }), error.code)
        }
      }
    },
  },
  {
    name: 'attributes: a put without any does not keep those of the version before',
    run: async ({ store, at, skip }) => {
      if (!store.capabilities.attributes) return skip('the store keeps no attributes')
      await store.put(at('file'), noise(10, 96), { guard: ABSENT, attributes: ALL })
      const put = await store.put(at('file'), noise(10, 97), { guard: ANY })
      assert.equal(put.attributes?.xattrs?.size ?? 0, 0)
      assert.notDeepEqual(put.attributes?.mtime, ALL.mtime)
    },
  },
  {
    name: 'symlinks: made, read, listed, replaced and removed as themselves',
    run: async ({ store, at, directory, skip }) => {
      if (!store.capabilities.attributes) return skip('the store keeps no symlinks')
      const target = '../some where/ü/🦆 %2F'
      // On a directory only root may give a symlink away, and a symlink has nowhere to keep another owner.
      const root = process.getuid?.() === 0
      const owner = { uid: root ? 3 : (process.getuid?.() ?? 0), gid: root ? 4 : (process.getgid?.() ?? 0) }
      const made = await store.symlink(at('link'), target, { guard: ABSENT, attributes: { ...TIMES, ...owner } })
      assert.deepEqual([made.kind, made.size], ['symlink', Buffer.byteLength(target)])
      const found = await store.stat(at('link'))
      assert.deepEqual([found.kind, found.version], ['symlink', made.version])
      // Before the link is read, which may set its access time.
      assertAttributes(found.attributes, { ...TIMES, ...owner })
      assert.equal(await store.readLink(at('link')), target)
      const [listed] = await listAll(store, directory)
      if (store.capabilities.listingComplete) assert.equal(listed?.kind, 'symlink')
      assert.equal((await (await store.read(at('link'))).bytes()).toString(), target, 'read gives the target')
      await rejectsWith(store.symlink(at('link'), 'x', { guard: ABSENT }), 'STORE_CONFLICT')
      await store.symlink(at('link'), 'other', { guard: ifVersion(made.version) })
      assert.equal(await store.readLink(at('link')), 'other')
      await store.put(at('link'), noise(10, 98), { guard: ANY })
      assert.equal((await store.stat(at('link'))).kind, 'file')
      await store.symlink(at('link'), 'again', { guard: ANY })
      await store.remove(at('link'), { guard: ANY })
      await assertGone(store, at('link'))
      await store.makeDirectory(at('dir'), { guard: ABSENT })
      await rejectsWith(store.symlink(at('dir'), 'x', { guard: ABSENT }), 'STORE_CONFLICT')
    },
  },
]
