/** Listings that bring attributes along: with their entries, from what is remembered on disk, or fetched side by side. */
import assert from 'node:assert/strict'
import { test } from 'node:test'

import { setLogLevel } from '#base/log.ts'
import type { AttributeIndex } from '#cache/attribute-index.ts'
import { openMemoryStore } from '#store/memory-store.ts'
import { ABSENT, ANY, type Entry, type Store } from '#store/store.ts'

import { aged, counting, replacing, rig, untold, type Rig } from './kernel-double.ts'

setLogLevel('silent')

/** An index as the one on disk is, in memory. */
class IndexDouble implements AttributeIndex {
  readonly entries = new Map<string, Entry>()

  known(listed: Entry): Entry | undefined {
    const known = this.entries.get(listed.path)
    const isSame = known?.version === listed.version && known.modified.seconds === listed.modified.seconds
    return isSame ? { ...listed, kind: known.kind, attributes: known.attributes } : undefined
  }

  note(entry: Entry): void {
    this.entries.set(entry.path, entry)
  }

  forget(path: string): void {
    this.entries.delete(path)
  }

  async close(): Promise<void> {}
}

async function fill(store: Store, count: number): Promise<void> {
  for (let index = 0; index < count; index++) {
    await store.put(`f${String(index).padStart(5, '0')}`, Buffer.from('x'), {
      guard: ABSENT,
      attributes: { mode: 0o600 },
    })
  }
}

test('[S91] attributes that were once told come with the listing, also in a later mount, until a version is another', async () => {
  const memory = openMemoryStore()
  await fill(memory, 1200)
  await memory.symlink('link', 'target', { guard: ABSENT })
  const { store, taken } = counting(untold(aged(memory)))
  const attributeIndex = new IndexDouble()
  {
    await using first = await rig(store, { attributeIndex })
    await first.kernel.list('')
    assert.deepEqual(taken(), { list: 2, stat: 1201 })
  }
  await using later = await rig(store, { attributeIndex })
  const items = await later.kernel.readdir('', { plus: true })
  assert.equal(items.filter(({ entry }) => entry !== undefined).length, 1201)
  assert.equal((await later.kernel.stat('f00007')).mode & 0o7777, 0o600)
  assert.equal((await later.kernel.stat('link')).mode & 0o170000, 0o120000)
  assert.deepEqual(taken(), { list: 2 })
  await memory.put('f00003', Buffer.from('other'), { guard: ANY, attributes: { mode: 0o640 } })
  later.clock.ms += 2000
  await later.kernel.list('')
  assert.deepEqual(taken(), { list: 2, stat: 1 })
  assert.equal((await later.kernel.stat('f00003')).mode & 0o7777, 0o640)
})

test('[S91] attributes of directories come with the pages of a walk, also in a later mount, until one is changed', async () => {
  const memory = openMemoryStore()
  const attributes = { mode: 0o750 }
  for (let index = 10; index < 40; index++) {
    await memory.makeDirectory(`d${index}`, { guard: ABSENT, attributes })
    await memory.put(`d${index}/f`, Buffer.from('x'), { guard: ABSENT })
  }
  const { store, taken } = counting(untold(aged(memory)))
  const attributeIndex = new IndexDouble()
  const walk = async (it: Rig): Promise<void> => {
    for (const { name } of await it.kernel.readdir('')) await it.kernel.names(name)
  }
  {
    await using first = await rig(store, { attributeIndex })
    await walk(first)
    assert.deepEqual(taken(), { stat: 30, list: 2, listTree: 1 })
  }
  await memory.setAttributes('d35', { mode: 0o700 }, { guard: ANY })
  await using later = await rig(store, { attributeIndex })
  await walk(later)
  // The two before the page, the one looked at ahead of it, and what was changed.
  assert.deepEqual(taken(), { stat: 4, list: 2, listTree: 1 })
  assert.equal((await later.kernel.stat('d20')).mode & 0o7777, 0o750)
  assert.equal((await later.kernel.stat('d35')).mode & 0o7777, 0o700)
})

test('[S91] what was changed a moment ago is not remembered: it might change again within the same second', async () => {
  const memory = openMemoryStore()
  await fill(memory, 3)
  const attributeIndex = new IndexDouble()
  const { store, taken } = counting(untold(aged(memory, 100)))
  {
    await using first = await rig(store, { attributeIndex })
    await first.kernel.list('')
  }
  assert.equal(attributeIndex.entries.size, 0)
  taken()
  await using later = await rig(store, { attributeIndex })
  await later.kernel.list('')
  assert.deepEqual(taken(), { list: 1, stat: 3 })
})

test('[S91] attributes of what was written here are remembered once they were asked for a while after it', async (t) => {
  t.mock.timers.enable({ apis: ['Date'], now: Date.now() })
  const memory = openMemoryStore()
  const attributeIndex = new IndexDouble()
  const { store, taken } = counting(untold(memory))
  await using it = await rig(store, { attributeIndex })
  await it.kernel.names('')
  await it.kernel.writeFile('file', 'text', 0o600)
  it.clock.ms += 2000
  await it.kernel.list('')
  assert.equal(attributeIndex.entries.size, 0)
  t.mock.timers.tick(70_000)
  it.clock.ms += 70_000
  taken()
  await it.kernel.list('')
  assert.deepEqual(taken(), { list: 1, stat: 1 })
  await using later = await rig(store, { attributeIndex })
  await later.kernel.list('')
  assert.equal((await later.kernel.stat('file')).mode & 0o7777, 0o600)
  assert.deepEqual(taken(), { list: 1 })
})

test('[S91] a removed file is forgotten', async () => {
  const memory = openMemoryStore()
  await fill(memory, 5)
  const attributeIndex = new IndexDouble()
  await using it = await rig(untold(aged(memory)), { attributeIndex })
  await it.kernel.list('')
  assert.equal(attributeIndex.entries.size, 5)
  for (let index = 0; index < 5; index++) await it.kernel.unlink(`f0000${index}`)
  await it.fs.fsyncdir()
  assert.equal(attributeIndex.entries.size, 0)
})

test('[S92] where listings are trusted, ls -l costs its pages and nothing else', async () => {
  const memory = openMemoryStore()
  await fill(memory, 2500)
  await memory.makeDirectory('dir', { guard: ABSENT })
  async function* list(...args: Parameters<Store['list']>): AsyncGenerator<readonly Entry[]> {
    for await (const page of memory.list(...args)) yield page.map((entry) => ({ ...entry, attributes: {} }))
  }
  const { capabilities } = memory
  const { store, taken } = counting(replacing(memory, { list, capabilities: { ...capabilities, attributes: false } }))
  await using it = await rig(store)
  await it.kernel.list('')
  await it.kernel.stat('f00007')
  await it.kernel.stat('dir')
  assert.deepEqual(taken(), { list: 3 })
})

test('[S91] a reader that looks at what it lists has attributes fetched side by side, and in the answers', async () => {
  const memory = openMemoryStore()
  await fill(memory, 2000)
  let flying = 0
  let flyingMax = 0
  const stat: Store['stat'] = async (...args) => {
    flyingMax = Math.max(flyingMax, ++flying)
    await new Promise(setImmediate)
    flying--
    return memory.stat(...args)
  }
  const { store, taken } = counting(untold(replacing(memory, { stat })))
  await using it = await rig(store)
  const items = await it.kernel.readdir('', { plus: true })
  // The first answer comes before it is known that anybody looks.
  assert.equal(items.filter(({ entry }) => entry !== undefined).length, 1902)
  assert.ok(flyingMax > 32 && flyingMax <= 64, `${flyingMax} at once`)
  assert.deepEqual(taken(), { list: 2, stat: 1902 })
})

/** `store` in which a change of attributes shows in no listing, as where it comes in the second of the change before. */
function within(store: Store, second: { seconds: number; nanoseconds: number }): Store {
  const same = (entry: Entry): Entry => ({ ...entry, version: 'same' as Entry['version'], modified: second })
  async function* list(...args: Parameters<Store['list']>): AsyncGenerator<readonly Entry[]> {
    for await (const page of store.list(...args)) yield page.map(same)
  }
  return replacing(store, { list, stat: async (...args) => same(await store.stat(...args)) })
}

test('[S125] what was looked at in the second of its last change is asked for until it was seen after that, and not again', async (t) => {
  const start = Math.floor(Date.now() / 1000) * 1000
  t.mock.timers.enable({ apis: ['Date'], now: start + 100 })
  const memory = openMemoryStore()
  await fill(memory, 3)
  const { store, taken } = counting(untold(within(memory, { seconds: start / 1000, nanoseconds: 0 })))
  await using it = await rig(store)
  const pass = (ms: number): void => {
    t.mock.timers.tick(ms)
    it.clock.ms += ms
  }
  await it.kernel.list('')
  await memory.setAttributes('f00001', { mode: 0o400 }, { guard: ANY })
  taken()
  pass(2000)
  await it.kernel.list('')
  assert.equal((await it.kernel.stat('f00001')).mode & 0o7777, 0o400)
  assert.deepEqual(taken(), { list: 1, stat: 3 })
  pass(4000)
  await it.kernel.list('')
  assert.deepEqual(taken(), { list: 1, stat: 3 })
  for (let round = 0; round < 3; round++) {
    pass(2000)
    await it.kernel.list('')
    assert.deepEqual(taken(), { list: 1 })
  }
})

test('[S125] what somebody else changes in the second in which it was written here is seen a minute later', async (t) => {
  const start = Math.floor(Date.now() / 1000) * 1000
  t.mock.timers.enable({ apis: ['Date'], now: start + 100 })
  const memory = openMemoryStore()
  const { store, taken } = counting(untold(memory))
  const index = new IndexDouble()
  await using it = await rig(store, { attributeIndex: index })
  await it.kernel.names('')
  await it.kernel.writeFile('file', 'text', 0o644)
  const { version, modified } = await memory.stat('file')
  await memory.setAttributes('file', { mode: 0o600 }, { guard: ANY })
  const same = (entry: Entry): Entry => ({ ...entry, version, modified })
  const stat = memory.stat.bind(memory)
  const list = memory.list.bind(memory)
  Object.assign(memory, {
    stat: async (...args: Parameters<Store['stat']>) => same(await stat(...args)),
    list: async function* (...args: Parameters<Store['list']>) {
      for await (const page of list(...args)) yield page.map(same)
    },
  })
  taken()
  for (let second = 0; second < 62; second += 2) {
    t.mock.timers.tick(2000)
    it.clock.ms += 2000
    await it.kernel.list('')
  }
  assert.equal((await it.kernel.stat('file')).mode & 0o7777, 0o600)
  assert.deepEqual(taken(), { list: 31, stat: 1 })
  assert.equal(index.entries.get('file')?.attributes?.mode, 0o600)
})
