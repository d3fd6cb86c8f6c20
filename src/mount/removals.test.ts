/** Removals that follow one another: what is told when, what a tree costs, and whose change wins. */
import assert from 'node:assert/strict'
import { setImmediate } from 'node:timers/promises'
import { test } from 'node:test'

import { OperationError } from '#base/errors.ts'
import { setLogLevel } from '#base/log.ts'
import { countsBy } from '#base/metrics.ts'
import { ROOT_NODE } from '#fuse/file-system.ts'
import { openMemoryStore } from '#store/memory-store.ts'
import { ABSENT, ANY, type Store } from '#store/store.ts'

import {
  CALLER,
  codeOf,
  content,
  counting,
  Gate,
  KernelDouble,
  O_RDONLY,
  replacing,
  rig,
  untold,
  type Rig,
} from './kernel-double.ts'

setLogLevel('silent')

async function fill(store: Store, path: string, count: number): Promise<void> {
  for (let index = 0; index < count; index++) await store.put(`${path}${index}`, Buffer.from('x'), { guard: ABSENT })
}

async function paths(store: Store): Promise<string[]> {
  const found: string[] = []
  for await (const page of store.list('', { recursive: true })) found.push(...page.map(({ path }) => path))
  return found
}

/** `rm -r`: lists, unlinks and removes as it comes back up. */
async function removeTree(it: Rig, path: string): Promise<void> {
  for (const { name, mode } of await it.kernel.readdir(path, { plus: true })) {
    const below = `${path}/${name}`
    if ((mode & 0o170000) === 0o040000) await removeTree(it, below)
    else await it.kernel.unlink(below)
  }
  await it.kernel.rmdir(path)
}

/** Has the next removals queued. */
async function warmUp(it: Rig): Promise<void> {
  for (const name of ['w0', 'w1']) {
    await it.kernel.writeFile(name, '')
    await it.kernel.unlink(name)
  }
}

/** Resolves when the store is as `holds` wants it. */
async function until(holds: () => Promise<boolean>): Promise<void> {
  while (!(await holds())) await setImmediate()
}

test('[S86] a removal in quiet times is in the store when it returns; those that follow go together soon after', async (t) => {
  // However slow this machine is, nothing goes before the test says so.
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const memory = openMemoryStore()
  await fill(memory, 'f', 10)
  const { store, taken } = counting(memory)
  await using it = await rig(store)
  await it.kernel.names('')
  taken()
  for (let index = 0; index < 2; index++) await it.kernel.unlink(`f${index}`)
  assert.equal((await paths(memory)).length, 8)
  for (let index = 2; index < 10; index++) await it.kernel.unlink(`f${index}`)
  assert.deepEqual(taken(), { remove: 2 })
  assert.deepEqual(await it.kernel.names(''), [])
  assert.equal((await paths(memory)).length, 8)
  t.mock.timers.tick(100)
  await until(async () => (await paths(memory)).length === 0)
  assert.deepEqual(taken(), { removeAll: 1 })
  // After a pause the next one is waited for again.
  await fill(memory, 'g', 1)
  it.clock.ms += 2000
  await it.kernel.unlink('g0')
  assert.deepEqual(await paths(memory), [])
})

test('[S86] while removals come fast, a batch is sent when it is full or a second after its first', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const memory = openMemoryStore()
  await fill(memory, 'f', 400)
  const { store, taken } = counting(memory)
  await using it = await rig(store)
  await it.kernel.names('')
  await warmUp(it)
  taken()
  for (let round = 0; round < 9; round++) {
    for (let index = 0; index < 20; index++) await it.kernel.unlink(`f${round * 20 + index}`)
    t.mock.timers.tick(100)
    assert.deepEqual(taken(), {}, `after ${(round + 1) * 100} ms`)
  }
  await it.kernel.unlink('f180')
  t.mock.timers.tick(100)
  await until(async () => (await paths(memory)).length === 219)
  assert.deepEqual(taken(), { removeAll: 1 })
  // Where they come slowly, it goes at the next tick.
  for (let index = 181; index < 186; index++) await it.kernel.unlink(`f${index}`)
  t.mock.timers.tick(100)
  await until(async () => (await paths(memory)).length === 214)
  assert.deepEqual(taken(), { removeAll: 1 })
})

test('[S89] removing a tree costs a page for about a thousand names, and one request to remove as many', async (t) => {
  // However slow this machine is, no batch goes before it is full.
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const memory = openMemoryStore()
  for (let top = 0; top < 8; top++) {
    for (let sub = 0; sub < 16; sub++) await fill(memory, `tree/t${top}/s${sub}/f`, 20)
  }
  await memory.makeDirectory('tree', { guard: ANY })
  const { store, taken } = counting(memory)
  await using it = await rig(store)
  await it.kernel.list('')
  await warmUp(it)
  taken()
  await removeTree(it, 'tree')
  await it.fs.publishAll()
  const { list, listTree, removeAll, ...others } = taken()
  assert.deepEqual([list, listTree], [1, 4])
  // 2,560 files and 137 directories.
  assert.equal(removeAll, 3)
  assert.deepEqual(others, {})
  assert.deepEqual(await paths(memory), [])
})

for (const [what, ask] of [
  ['fsync of the directory', (it: Rig) => it.fs.fsyncdir()],
  ['unmounting', (it: Rig) => it.fs.publishAll()],
] as const) {
  test(`[S86] ${what} returns when the store knows of all removals`, async (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] })
    const store = openMemoryStore()
    await fill(store, 'f', 5)
    await using it = await rig(store)
    await warmUp(it)
    for (let index = 0; index < 5; index++) await it.kernel.unlink(`f${index}`)
    assert.equal((await paths(store)).length, 5)
    await ask(it)
    assert.deepEqual(await paths(store), [])
  })
}

test('[S86] fsync of any file returns when the store knows of all removals', async (t) => {
  // However slow this machine is, nothing goes before the test says so.
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const store = openMemoryStore()
  await fill(store, 'f', 3)
  await using it = await rig(store)
  await warmUp(it)
  const open = await it.kernel.open('f0', O_RDONLY)
  await it.kernel.unlink('f1')
  assert.equal((await paths(store)).length, 3)
  await it.kernel.fsync(open)
  assert.deepEqual(await paths(store), ['f0', 'f2'])
  await it.kernel.close(open)
})

const MAKERS: readonly [string, (it: Rig) => Promise<unknown>][] = [
  ['a file', (it) => it.kernel.writeFile('f0', 'new')],
  ['a directory', (it) => it.kernel.mkdir('f0')],
  ['a symlink', (it) => it.kernel.symlink('f0', 'target')],
  ['an empty file', (it) => it.fs.mknod(ROOT_NODE, 'f0', 0o100644, 0, 0, CALLER)],
  ['a renamed file', (it) => it.kernel.rename('other', 'f0')],
]
for (const [what, make] of MAKERS) {
  test(`[S87] ${what} takes a name that was just removed`, async () => {
    const store = openMemoryStore()
    await fill(store, 'f', 2)
    await store.put('other', Buffer.from('o'), { guard: ABSENT })
    await using it = await rig(store)
    await warmUp(it)
    await it.kernel.unlink('f0')
    await it.kernel.unlink('f1')
    assert.equal(await it.kernel.exists('f0'), false)
    await make(it)
    assert.equal(await it.kernel.exists('f0'), true)
    const { kind } = await store.stat('f0')
    assert.equal(kind, what === 'a directory' ? 'directory' : what === 'a symlink' ? 'symlink' : 'file')
    await it.fs.publishAll()
    assert.equal(await it.kernel.exists('f0'), true)
    assert.equal((await paths(store)).includes('f1'), false)
  })
}

test('[S87] what was removed is not shown by a listing asked from the store before it knows, nor by a look', async () => {
  const memory = openMemoryStore()
  await fill(memory, 'dir/f', 6)
  const gate = new Gate()
  const removeAll: Store['removeAll'] = async (...args) => {
    await gate.pass()
    return memory.removeAll(...args)
  }
  await using it = await rig(untold(replacing(memory, { removeAll })))
  await it.kernel.list('dir')
  await warmUp(it)
  for (let index = 0; index < 5; index++) await it.kernel.unlink(`dir/f${index}`)
  await gate.reached
  it.clock.ms += 5000
  assert.deepEqual(await it.kernel.names('dir'), ['f5'])
  assert.equal(await it.kernel.exists('dir/f1'), false)
  const listed = it.kernel.names('dir')
  gate.open()
  assert.deepEqual(await listed, ['f5'])
  await it.fs.fsyncdir()
  it.clock.ms += 5000
  assert.deepEqual(await it.kernel.names('dir'), ['f5'])
})

test('[S87] the move of a directory waits for what was removed in it', async () => {
  const store = openMemoryStore()
  await fill(store, 'dir/f', 4)
  await using it = await rig(store)
  await warmUp(it)
  await it.kernel.names('dir')
  for (let index = 0; index < 3; index++) await it.kernel.unlink(`dir/f${index}`)
  await it.kernel.rename('dir', 'moved')
  assert.deepEqual(await paths(store), ['moved/f3'])
})

test('[S87] a file that is open when it is removed in bulk stays readable', async () => {
  const store = openMemoryStore()
  await fill(store, 'f', 3)
  await using it = await rig(store)
  await warmUp(it)
  const open = await it.kernel.open('f1', O_RDONLY)
  for (let index = 0; index < 3; index++) await it.kernel.unlink(`f${index}`)
  await it.fs.fsyncdir()
  assert.equal((await it.kernel.read(open, 0, 10)).toString(), 'x')
  assert.equal((await it.kernel.fstat(open)).nlink, 0)
  await it.kernel.close(open)
})

test('[S88] what somebody else has replaced meanwhile stays theirs, and is seen at the next look', async () => {
  const store = openMemoryStore()
  await fill(store, 'f', 3)
  await using it = await rig(store)
  await warmUp(it)
  const before = (await countsBy('eider_mount_removals_total')).get('conflict') ?? 0
  await it.kernel.list('')
  for (let index = 0; index < 3; index++) await it.kernel.unlink(`f${index}`)
  await store.put('f1', Buffer.from('theirs'), { guard: ANY })
  await it.fs.fsyncdir()
  assert.deepEqual(await paths(store), ['f1'])
  assert.equal((await it.kernel.readFile('f1')).toString(), 'theirs')
  assert.deepEqual(await it.kernel.names(''), ['f1'])
  assert.equal((await countsBy('eider_mount_removals_total')).get('conflict'), before + 1)
})

test('[S88] a directory that somebody else has put something into is there again', async () => {
  const store = openMemoryStore()
  for (const path of ['a', 'b', 'c']) await store.makeDirectory(path, { guard: ABSENT })
  await using it = await rig(store)
  await warmUp(it)
  await it.kernel.names('b')
  await it.kernel.rmdir('b')
  await store.put('b/theirs', Buffer.from('x'), { guard: ABSENT })
  await it.fs.fsyncdir()
  assert.deepEqual(await it.kernel.names('b'), ['theirs'])
})

test('[S86] a lone removal is waited for, whatever another process removes just then', async (t) => {
  // However slow this machine is, nothing goes before the test says so.
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const store = openMemoryStore()
  await fill(store, 'f', 5)
  await using it = await rig(store)
  await warmUp(it)
  for (let index = 0; index < 4; index++) await it.kernel.unlink(`f${index}`)
  assert.equal((await paths(store)).length, 5)
  await new KernelDouble(it.fs, { ...CALLER, pid: 2 }).unlink('f4')
  assert.equal((await paths(store)).includes('f4'), false)
  assert.equal((await paths(store)).length, 4)
})

test('[S86] rmdir of a directory that is not empty is refused also among many removals', async () => {
  const store = openMemoryStore()
  await fill(store, 'dir/f', 3)
  await using it = await rig(store)
  await warmUp(it)
  await it.kernel.unlink('dir/f0')
  assert.equal(await codeOf(it.kernel.rmdir('dir')), 'STORE_NOT_EMPTY')
  await it.kernel.unlink('dir/f1')
  await it.kernel.unlink('dir/f2')
  const file = await it.kernel.create('dir/new')
  assert.equal(await codeOf(it.kernel.rmdir('dir')), 'STORE_NOT_EMPTY')
  await it.kernel.close(file)
  await it.kernel.unlink('dir/new')
  await it.kernel.rmdir('dir')
  await it.fs.fsyncdir()
  assert.deepEqual(await paths(store), [])
})

test('[S86] removals that the store could not take are told to who asks, and tried again', async () => {
  const memory = openMemoryStore()
  await fill(memory, 'f', 3)
  let fails = true
  const removeAll: Store['removeAll'] = async (...args) => {
    if (fails) throw new OperationError('STORE_UNAVAILABLE', 'Cannot remove: the store is gone')
    return memory.removeAll(...args)
  }
  await using it = await rig(replacing(memory, { removeAll }))
  await warmUp(it)
  for (let index = 0; index < 3; index++) await it.kernel.unlink(`f${index}`)
  assert.equal(await codeOf(it.fs.fsyncdir() ?? Promise.resolve()), 'STORE_UNAVAILABLE')
  assert.deepEqual(await it.kernel.names(''), [])
  assert.equal((await it.fs.publishAll()).length, 1)
  assert.equal(await codeOf(it.kernel.writeFile('f1', 'new')), 'STORE_UNAVAILABLE')
  fails = false
  await it.kernel.writeFile('f1', 'new')
  assert.deepEqual(await paths(memory), ['f1'])
  assert.equal(await content(memory, 'f1'), 'new')
})

for (const code of ['STORE_DENIED', 'CREDENTIALS_REFUSED', 'CLOCK_SKEWED', 'STORE_NO_SPACE'] as const) {
  test(`[S122] removals that the store refuses (${code}) stay gone here, are told, and are tried again`, async () => {
    const memory = openMemoryStore()
    await fill(memory, 'dir/f', 6)
    const error = new OperationError(code, 'Cannot remove: refused')
    let [rejects, refuses] = [true, true]
    const removeAll: Store['removeAll'] = async (removals, options) => {
      if (rejects) throw error
      return refuses ? removals.map(() => error) : memory.removeAll(removals, options)
    }
    const removeDirectory: Store['removeDirectory'] = async (...args) => {
      if (refuses) throw error
      await memory.removeDirectory(...args)
    }
    await using it = await rig(replacing(memory, { removeAll, removeDirectory }))
    await it.kernel.names('dir')
    await warmUp(it)
    for (let index = 0; index < 6; index++) await it.kernel.unlink(`dir/f${index}`)
    for (const each of [true, false]) {
      rejects = each
      assert.equal(await codeOf(it.fs.fsyncdir() ?? Promise.resolve()), code)
      assert.deepEqual(await it.kernel.names('dir'), [])
      assert.equal(await codeOf(it.kernel.rmdir('dir')), code)
      assert.equal((await it.fs.publishAll()).length, 1)
    }
    assert.equal((await paths(memory)).length, 7)
    refuses = false
    await it.kernel.rmdir('dir')
    await it.fs.fsyncdir()
    assert.deepEqual(await paths(memory), [])
    assert.deepEqual(it.fs.giveUpRemovals(), [])
  })
}

test('[S86] a removal of a process of another namespace is waited for, whatever came before it', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const store = openMemoryStore()
  await fill(store, 'f', 5)
  await using it = await rig(store)
  const kernel = new KernelDouble(it.fs, { ...CALLER, pid: 0 })
  for (let index = 0; index < 5; index++) await kernel.unlink(`f${index}`)
  assert.deepEqual(await paths(store), [])
})

test('[S28] a directory whose last entries go in bulk stays, and is not made when it goes itself', async () => {
  const memory = openMemoryStore()
  await fill(memory, 'stays/f', 3)
  await fill(memory, 'goes/f', 3)
  const { store, taken } = counting(untold(memory))
  await using it = await rig(store)
  await warmUp(it)
  for (const directory of ['stays', 'goes']) {
    await it.kernel.names(directory)
    for (let index = 0; index < 3; index++) await it.kernel.unlink(`${directory}/f${index}`)
  }
  await it.kernel.rmdir('goes')
  taken()
  await it.fs.fsyncdir()
  assert.deepEqual(taken(), { makeDirectory: 1, removeAll: 1 })
  assert.deepEqual(await paths(memory), ['stays'])
})
