/** What a publish does where answers are lost, other machines change things meanwhile, or the store refuses a part. */
import assert from 'node:assert/strict'
import { constants, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'

import { setLogLevel } from '#base/log.ts'
import { openFaultyStore } from '#store/faulty-store.ts'
import { openMemoryStore } from '#store/memory-store.ts'
import { checkMetadata, encodeMetadata } from '#store/s3/metadata.ts'
import { ABSENT, ANY, ifVersion, type Entry, type Guard, type Reading, type Store, type Version } from '#store/store.ts'

import { codeOf, content, counting, Gate, O_RDWR, replacing, rig, untold, type Rig } from './kernel-double.ts'

setLogLevel('silent')

/** `inner` with versions that only the bytes change, as S3's etags are. */
function etagged(inner: Store): Store {
  const etags = new Map<Version, Version>()
  const shown = (entry: Entry): Entry => ({ ...entry, version: etags.get(entry.version) ?? entry.version })
  const translated = async (path: string, guard: Guard): Promise<Guard> => {
    if (guard.kind !== 'version') return guard
    const entry = await inner.stat(path)
    return shown(entry).version === guard.version ? ifVersion(entry.version) : guard
  }
  async function* list(...args: Parameters<Store['list']>): AsyncGenerator<readonly Entry[]> {
    for await (const page of inner.list(...args)) yield page.map(shown)
  }
  return replacing(inner, {
    list,
    stat: async (path, options) => shown(await inner.stat(path, options)),
    put: async (path, source, options) =>
      shown(await inner.put(path, source, { ...options, guard: await translated(path, options.guard) })),
    setAttributes: async (path, changes, options) => {
      const before = shown(await inner.stat(path))
      const guard = await translated(path, options.guard)
      const after = await inner.setAttributes(path, changes, { ...options, guard })
      etags.set(after.version, before.version)
      return shown(after)
    },
    read: async (path, options = {}) => {
      const { version, ...others } = options
      const guard = version === undefined ? undefined : await translated(path, ifVersion(version))
      const reading = await inner.read(path, guard?.kind === 'version' ? { ...others, version: guard.version } : others)
      return replacingEntry(reading, shown(reading.entry))
    },
  })
}

function replacingEntry(reading: Reading, entry: Entry): Reading {
  const { length, body } = reading
  return { entry, length, body, bytes: () => reading.bytes(), cancel: () => reading.cancel() }
}

/** `inner` that refuses at a put what S3 would; `known`: and says so before. */
function narrow(inner: Store, known: boolean): Store {
  return replacing(inner, {
    capabilities: { ...inner.capabilities, ...(known ? { checkAttributes: checkMetadata } : {}) },
    put: async (path, source, options) => {
      encodeMetadata(path, 'file', 1, options.attributes ?? {})
      return inner.put(path, source, options)
    },
    setAttributes: async (path, changes, options) => {
      const { attributes = {} } = await inner.stat(path)
      encodeMetadata(path, 'file', 1, { ...attributes, ...changes })
      return inner.setAttributes(path, changes, options)
    },
  })
}

const SMALL = new Map([['user.small', Buffer.from('s')]])

/** The bytes of what is kept under `conflicts`. */
function kept(it: Rig): string[] {
  const directory = join(it.stagingDirectory, 'conflicts')
  return readdirSync(directory).map((name) => readFileSync(join(directory, name), 'utf8'))
}

test('a truncation to nothing while the file is fetched, and what is written after it, stay', async () => {
  const inner = openMemoryStore()
  await inner.put('file', Buffer.from('a long text from before'), { guard: ABSENT })
  const gate = new Gate()
  const store = replacing(inner, {
    read: async (path, options) => {
      await gate.pass()
      return inner.read(path, options)
    },
  })
  await using it = await rig(store)
  const first = await it.kernel.open('file', O_RDWR)
  const second = await it.kernel.open('file', O_RDWR)
  const written = it.kernel.write(first, 0, 'A')
  await gate.reached
  const truncated = await it.kernel.open('file', O_RDWR | constants.O_TRUNC)
  await it.kernel.write(second, 3, 'new')
  gate.open()
  await written
  assert.equal((await it.kernel.read(second, 0, 100)).toString(), 'A\0\0new')
  for (const file of [first, second, truncated]) await it.kernel.close(file)
  assert.equal(await content(inner, 'file'), 'A\0\0new')
})

test('what was put with its answer lost, and then removed elsewhere, is kept and not tried for ever', async () => {
  const inner = openMemoryStore()
  const store = openFaultyStore(inner)
  await using it = await rig(store)
  await it.kernel.writeFile('f', 'one')
  store.failNext('put', { kind: 'lost' })
  assert.equal(await codeOf(it.kernel.writeFile('f', 'two')), 'STORE_TIMEOUT')
  await inner.remove('f', { guard: ANY })
  await it.fs.publishFailed()
  assert.equal(it.fs.status.dirtyFiles, 0)
  assert.deepEqual(kept(it), ['two'])
})

test('a conflict of which the store cannot tell whose it is stays staged and is tried again', async () => {
  const inner = openMemoryStore()
  const store = openFaultyStore(inner)
  await using it = await rig(store)
  await it.kernel.writeFile('f', 'one')
  store.failNext('put', { kind: 'lost' })
  assert.equal(await codeOf(it.kernel.writeFile('f', 'two')), 'STORE_TIMEOUT')
  store.failNext('read', { kind: 'error', code: 'STORE_UNAVAILABLE' })
  await it.fs.publishFailed()
  assert.equal(it.fs.status.dirtyFiles, 1)
  await it.fs.publishFailed()
  assert.equal(it.fs.status.dirtyFiles, 0)
  assert.equal(await content(inner, 'f'), 'two')
  assert.deepEqual(kept(it), [])
})

test('a create whose answer was lost leaves nothing behind when it is removed', async () => {
  const inner = openMemoryStore()
  const store = openFaultyStore(inner)
  await using it = await rig(store)
  store.failNext('put', { kind: 'lost' })
  assert.equal(await codeOf(it.kernel.writeFile('f', 'hello')), 'STORE_TIMEOUT')
  await it.kernel.unlink('f')
  assert.equal(await codeOf(inner.stat('f')), 'STORE_NOT_FOUND')
})

test('an edit whose answer was lost can be removed', async () => {
  const inner = openMemoryStore()
  const store = openFaultyStore(inner)
  await using it = await rig(store)
  await it.kernel.writeFile('f', 'one')
  store.failNext('put', { kind: 'lost' })
  assert.equal(await codeOf(it.kernel.writeFile('f', 'two')), 'STORE_TIMEOUT')
  await it.kernel.unlink('f')
  assert.equal(await codeOf(inner.stat('f')), 'STORE_NOT_FOUND')
})

test('a create whose answer was lost has one name after its rename', async () => {
  const inner = openMemoryStore()
  const store = openFaultyStore(inner)
  await using it = await rig(store)
  store.failNext('put', { kind: 'lost' })
  assert.equal(await codeOf(it.kernel.writeFile('f', 'hello')), 'STORE_TIMEOUT')
  await it.kernel.rename('f', 'g')
  await it.fs.publishFailed()
  assert.equal(await codeOf(inner.stat('f')), 'STORE_NOT_FOUND')
  assert.equal(await content(inner, 'g'), 'hello')
  assert.equal(it.fs.status.dirtyFiles, 0)
})

test('a create whose answer was lost is replaced by a rename onto it', async () => {
  const inner = openMemoryStore()
  const store = openFaultyStore(inner)
  await using it = await rig(store)
  await it.kernel.writeFile('other', 'newer')
  store.failNext('put', { kind: 'lost' })
  assert.equal(await codeOf(it.kernel.writeFile('f', 'hello')), 'STORE_TIMEOUT')
  await it.kernel.rename('other', 'f')
  assert.equal(await content(inner, 'f'), 'newer')
  assert.equal(it.fs.status.dirtyFiles, 0)
})

test('what another made where a create failed stays when the create is removed', async () => {
  const inner = openMemoryStore()
  const store = openFaultyStore(inner)
  await using it = await rig(store)
  store.failNext('put', { kind: 'error', code: 'STORE_TIMEOUT' })
  assert.equal(await codeOf(it.kernel.writeFile('f', 'hello')), 'STORE_TIMEOUT')
  await inner.put('f', Buffer.from('their'), { guard: ABSENT })
  await it.kernel.unlink('f')
  assert.equal(await content(inner, 'f'), 'their')
})

test('[S42] a write keeps the mode, owner and attributes that another machine has set meanwhile', async () => {
  const inner = etagged(openMemoryStore())
  const { store, taken } = counting(inner)
  await using a = await rig(store)
  await using b = await rig(inner)
  await a.kernel.writeFile('al', 'one')
  const file = await a.kernel.open('al', O_RDWR)
  await a.kernel.write(file, 0, 'two')
  await b.kernel.setattr('al', { mode: 0o600, uid: 7 })
  await b.fs.setxattr(await b.kernel.node('al'), 'user.theirs', Buffer.from('x'), 0)
  await a.fs.setxattr(file.node, 'user.ours', Buffer.from('y'), 0)
  a.clock.ms += 1001
  taken()
  await a.kernel.close(file)
  assert.deepEqual(taken(), { stat: 1, put: 1 })
  const { attributes } = await inner.stat('al')
  assert.equal(attributes?.mode, 0o600)
  assert.equal(attributes?.uid, 7)
  assert.deepEqual([...(attributes?.xattrs?.keys() ?? [])].toSorted(), ['user.ours', 'user.theirs'])
  assert.equal((await a.kernel.stat('al')).mode & 0o777, 0o600)
  assert.equal(await content(inner, 'al'), 'two')
})

test('[S42] what was changed here goes over what another machine has set', async () => {
  const inner = etagged(openMemoryStore())
  await using a = await rig(inner)
  await using b = await rig(inner)
  await a.kernel.writeFile('al', 'one')
  const file = await a.kernel.open('al', O_RDWR)
  await a.kernel.write(file, 0, 'two')
  await a.kernel.setattr('al', { mode: 0o640 })
  await b.kernel.setattr('al', { mode: 0o600, gid: 9 })
  a.clock.ms += 1001
  await a.kernel.close(file)
  const { attributes } = await inner.stat('al')
  assert.equal(attributes?.mode, 0o640)
  assert.equal(attributes?.gid, 9)
})

test('[S42] a change of attributes alone sends only what was changed', async () => {
  const inner = etagged(openMemoryStore())
  await using a = await rig(inner)
  await using b = await rig(inner)
  await a.kernel.writeFile('al', 'one')
  const file = await a.kernel.open('al', O_RDWR)
  await a.kernel.setattr('al', { uid: 5 })
  await b.kernel.setattr('al', { mode: 0o600 })
  await a.kernel.close(file)
  const { attributes } = await inner.stat('al')
  assert.equal(attributes?.mode, 0o600)
  assert.equal(attributes?.uid, 5)
})

test('an edit within the validity, and a new file at any time, cost one request', async () => {
  const { store, taken } = counting(etagged(openMemoryStore()))
  await using it = await rig(store)
  const made = await it.kernel.create('f')
  await it.kernel.write(made, 0, 'one')
  it.clock.ms += 60_000
  taken()
  await it.kernel.close(made)
  assert.deepEqual(taken(), { put: 1 })
  const file = await it.kernel.open('f', O_RDWR)
  taken()
  await it.kernel.write(file, 0, 'two')
  await it.kernel.close(file)
  assert.deepEqual(
    Object.keys(taken()).filter((name) => name !== 'read'),
    ['put'],
  )
})

test('attributes that a listing has made unknown are asked for before a write is published', async () => {
  const inner = etagged(openMemoryStore())
  async function* list(...args: Parameters<Store['list']>): AsyncGenerator<readonly Entry[]> {
    for await (const page of untold(inner).list(...args)) {
      // Another time than the one remembered: by that a listing says that attributes may have changed.
      yield page.map((entry) => ({ ...entry, modified: { seconds: entry.modified.seconds + 10, nanoseconds: 0 } }))
    }
  }
  await using it = await rig(replacing(inner, { list }))
  await it.kernel.writeFile('f', 'one', 0o640)
  const file = await it.kernel.open('f', O_RDWR)
  await inner.setAttributes('f', { mode: 0o600 }, { guard: ANY })
  assert.deepEqual(await it.kernel.names(''), ['f'])
  await it.kernel.write(file, 0, 'two')
  await it.kernel.close(file)
  assert.equal((await inner.stat('f')).attributes?.mode, 0o600)
})

test('an extended attribute that would not fit is refused while the file is written, and its bytes are stored', async () => {
  const store = narrow(openMemoryStore(), true)
  await using it = await rig(store)
  const file = await it.kernel.create('xo')
  await it.kernel.write(file, 0, 'precious')
  const set = it.fs.setxattr(file.node, 'user.big', Buffer.alloc(3000, 'z'), 0)
  assert.equal(await codeOf(set), 'STORE_ATTRIBUTES_TOO_LARGE')
  await it.fs.setxattr(file.node, 'user.small', Buffer.from('z'), 0)
  await it.kernel.setattr('xo', { uid: 0xffff_fffe, gid: 0xffff_fffe })
  await it.kernel.close(file)
  assert.equal(await content(store, 'xo'), 'precious')
  assert.deepEqual([...((await store.stat('xo')).attributes?.xattrs?.keys() ?? [])], ['user.small'])
})

for (const made of [true, false]) {
  test(`bytes are stored without the extended attributes that a store refuses, of ${made ? 'a new' : 'an old'} file`, async () => {
    const store = narrow(openMemoryStore(), false)
    await using it = await rig(store)
    if (!made) await store.put('xo', Buffer.from('old'), { guard: ABSENT, attributes: { mode: 0o640, xattrs: SMALL } })
    const file = made ? await it.kernel.create('xo') : await it.kernel.open('xo', O_RDWR)
    await it.kernel.write(file, 0, 'precious')
    await it.fs.setxattr(file.node, 'user.big', Buffer.alloc(3000, 'z'), 0)
    assert.equal(await codeOf(it.kernel.close(file)), 'STORE_ATTRIBUTES_TOO_LARGE', 'the closer is told')
    assert.equal(await content(store, 'xo'), 'precious')
    assert.equal(it.fs.status.dirtyFiles, 0)
    const { attributes } = await store.stat('xo')
    assert.equal(attributes?.mode, made ? 0o644 : 0o640)
    assert.deepEqual([...(attributes?.xattrs?.keys() ?? [])], made ? [] : ['user.small'])
    assert.deepEqual(await it.fs.listxattr(await it.kernel.node('xo')), made ? [] : ['user.small'])
    assert.deepEqual(kept(it), [])
  })
}
