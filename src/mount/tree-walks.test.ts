/** Walks of trees: what they cost in requests, and that pages of whole trees tell nothing that is not so any more. */
import assert from 'node:assert/strict'
import { test } from 'node:test'

import fc from 'fast-check'

import { isOperationError, OperationError } from '#base/errors.ts'
import { setLogLevel } from '#base/log.ts'
import { openMemoryStore } from '#store/memory-store.ts'
import { ABSENT, ANY, type Store } from '#store/store.ts'

import { aged, codeOf, counting, Gate, replacing, rig, untold, type KernelDouble, type Rig } from './kernel-double.ts'

setLogLevel('silent')

const S_IFDIR = 0o040000
const RENAME_EXCHANGE = 2

/** A tree of `directories`, each with `files`; `made` with an object of its own. */
async function layTree(store: Store, directories: number, files: number, made: boolean): Promise<void> {
  if (made) await store.makeDirectory('tree', { guard: ANY, attributes: { mode: 0o750 } })
  for (let index = 0; index < directories; index++) {
    const directory = `tree/d${String(index).padStart(4, '0')}`
    if (made) await store.makeDirectory(directory, { guard: ANY, attributes: { mode: 0o750 } })
    for (let file = 0; file < files; file++) await store.put(`${directory}/f${file}`, Buffer.from('x'), { guard: ANY })
  }
}

/** `find`: each directory is looked at, opened and read before those after it. Gives all paths. */
async function find(kernel: KernelDouble, path: string): Promise<string[]> {
  const found = [path]
  for (const { name, mode } of await kernel.readdir(path, { plus: true })) {
    const below = `${path}/${name}`
    if ((mode & S_IFDIR) === 0) found.push(below)
    else found.push(...(await find(kernel, below)))
  }
  return found
}

/** All paths under `path` as the store has them. */
async function stored(store: Store, path: string): Promise<string[]> {
  const found = [path]
  for await (const page of store.list(path)) {
    for (const entry of page) {
      if (entry.kind === 'directory') found.push(...(await stored(store, entry.path)))
      else found.push(entry.path)
    }
  }
  return found
}

/** `rm -r`: lists, unlinks and removes as it comes back up. */
async function removeTree(kernel: KernelDouble, path: string): Promise<void> {
  for (const { name, mode } of await kernel.readdir(path, { plus: true })) {
    const below = `${path}/${name}`
    if ((mode & S_IFDIR) === S_IFDIR) await removeTree(kernel, below)
    else await kernel.unlink(below)
  }
  await kernel.rmdir(path)
}

async function flushed(it: Rig): Promise<void> {
  assert.deepEqual(await it.fs.publishAll(), [])
}

test('[S100] a walk of 50 directories costs two listings and one page of the tree, and a look at each that was made', async () => {
  const memory = openMemoryStore()
  await layTree(memory, 50, 3, true)
  const { store, taken } = counting(untold(aged(memory)))
  await using it = await rig(store)
  assert.deepEqual(await find(it.kernel, 'tree'), await stored(memory, 'tree'))
  assert.deepEqual(taken(), { stat: 51, list: 2, listTree: 1 })
  await find(it.kernel, 'tree')
  assert.deepEqual(taken(), {})
  // What the page shows to be as it was is not looked at again: only the top, and those that the walk began with.
  it.clock.ms += 2000
  await find(it.kernel, 'tree')
  assert.deepEqual(taken(), { stat: 4, list: 2, listTree: 1 })
})

test('[S100] directories that nobody made cost no look in a walk', async () => {
  const memory = openMemoryStore()
  await layTree(memory, 50, 3, false)
  const { store, taken } = counting(untold(memory))
  await using it = await rig(store)
  assert.deepEqual(await find(it.kernel, 'tree'), await stored(memory, 'tree'))
  assert.deepEqual(taken(), { stat: 4, list: 2, listTree: 1 })
})

test('[S100] a walk of a deep tree of many pages costs about a page for a thousand names', async () => {
  const memory = openMemoryStore()
  for (let share = 0; share < 8; share++) {
    for (let directory = 0; directory < 32; directory++) {
      for (let file = 0; file < 12; file++) {
        await memory.put(`tree/s${share}/d${directory}/f${file}`, Buffer.from('x'), { guard: ANY })
      }
    }
  }
  const { store, taken } = counting(untold(memory))
  await using it = await rig(store)
  assert.deepEqual(await find(it.kernel, 'tree'), await stored(memory, 'tree'))
  const { list, listTree = 0 } = taken()
  // 3,337 names, of which some are told twice: those of a directory that is cut off at the end of a page.
  assert.equal(list, 2)
  assert.ok(listTree <= 5, `${listTree} pages`)
})

test('[S89] rm -r of 50 directories looks at each file once, and removes all by one request', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const memory = openMemoryStore()
  await layTree(memory, 50, 3, true)
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
  await removeTree(it.kernel, 'tree')
  await flushed(it)
  assert.deepEqual(taken(), { stat: 201, list: 2, listTree: 1, remove: 2, removeAll: 1 })
  assert.ok(flyingMax > 32 && flyingMax <= 66, `${flyingMax} looks at once`)
  assert.deepEqual(await memory.stat('').then(({ kind }) => kind), 'directory')
  await assert.rejects(memory.stat('tree'), { code: 'STORE_NOT_FOUND' })
})

test('[S101] a tree whose directories are longer than a page is walked right, and for little more than by listings', async () => {
  const memory = openMemoryStore()
  await layTree(memory, 6, 1500, false)
  await layTree(memory, 3, 3, false)
  const { store, taken } = counting(untold(memory))
  await using it = await rig(store)
  assert.deepEqual(await find(it.kernel, 'tree'), await stored(memory, 'tree'))
  const { list, listTree = 0 } = taken()
  assert.equal(list, 13)
  assert.ok(listTree <= 2, `${listTree} pages`)
})

test('[S101] who lists a few directories here and there takes no page', async () => {
  const memory = openMemoryStore()
  await layTree(memory, 500, 3, false)
  const { store, taken } = counting(untold(memory))
  await using it = await rig(store)
  await it.kernel.names('tree')
  for (const index of [400, 17, 250, 99, 333, 180]) await it.kernel.names(`tree/d${String(index).padStart(4, '0')}`)
  const { list, listTree } = taken()
  assert.deepEqual([list, listTree], [7, undefined])
})

test('[S101] a walk that stops has one page asked for ahead at most', async () => {
  const memory = openMemoryStore()
  await layTree(memory, 1000, 9, false)
  const { store, taken } = counting(untold(memory))
  await using it = await rig(store)
  const items = await it.kernel.readdir('tree')
  for (const { name } of items.slice(0, 20)) await it.kernel.names(`tree/${name}`)
  const { list, listTree } = taken()
  assert.deepEqual([list, listTree], [2, 2])
})

test('[S100] sixteen programs side by side in one tree share its pages', async () => {
  const memory = openMemoryStore()
  await layTree(memory, 320, 5, false)
  const { store, taken } = counting(untold(memory))
  await using it = await rig(store)
  const items = await it.kernel.readdir('tree')
  const found: string[] = []
  let next = 0
  const walker = async (): Promise<void> => {
    for (let item = items[next++]; item !== undefined; item = items[next++]) {
      found.push(...(await find(it.kernel, `tree/${item.name}`)))
    }
  }
  await Promise.all(Array.from({ length: 16 }, walker))
  assert.deepEqual(['tree', ...found.toSorted()], await stored(memory, 'tree'))
  const { list = 0, listTree = 0 } = taken()
  // 1,920 names.
  assert.ok(list <= 4 && listTree <= 4, `${list} listings, ${listTree} pages`)
})

test('[S101] where a page cannot be had, directories are listed one by one', async () => {
  const memory = openMemoryStore()
  await layTree(memory, 20, 3, false)
  let asked = 0
  const listTree: Store['listTree'] = async () => {
    asked++
    throw new OperationError('STORE_UNSUPPORTED', 'Cannot list: there are no such pages')
  }
  await using it = await rig(replacing(untold(memory), { listTree }))
  assert.deepEqual(await find(it.kernel, 'tree'), await stored(memory, 'tree'))
  assert.ok(asked > 0 && asked <= 4, `${asked} times`)
})

test('[S79] a walk is told of a store that cannot be reached as by a listing, without that being tried, too', async () => {
  const memory = openMemoryStore()
  await layTree(memory, 5, 3, false)
  let isGone = false
  const listTree: Store['listTree'] = async () => {
    isGone = true
    throw new OperationError('STORE_UNAVAILABLE', 'Cannot list: the store is gone')
  }
  const { store, taken } = counting(replacing(untold(memory), { listTree }))
  await using it = await rig(store)
  assert.equal(await codeOf(find(it.kernel, 'tree')), 'STORE_UNAVAILABLE')
  assert.ok(isGone)
  assert.deepEqual(taken(), { stat: 4, list: 2, listTree: 1 })
})

test('a directory that others removed before a page begins with it is not taken for an empty one', async () => {
  const memory = openMemoryStore()
  await layTree(memory, 4, 1, false)
  await using it = await rig(untold(memory))
  for (const { name } of await it.kernel.readdir('tree')) {
    if (name !== 'd0001') {
      await it.kernel.names(`tree/${name}`)
      continue
    }
    await it.kernel.stat('tree/d0001')
    await memory.remove('tree/d0001/f0', { guard: ANY })
    await assert.rejects(it.kernel.names('tree/d0001'), { code: 'STORE_NOT_FOUND' })
  }
})

test('[S22] a change made elsewhere is seen by a walk within the validity', async () => {
  const memory = openMemoryStore()
  await layTree(memory, 30, 3, true)
  await using it = await rig(untold(memory))
  await find(it.kernel, 'tree')
  await memory.put('tree/d0010/new', Buffer.from('x'), { guard: ABSENT })
  await memory.remove('tree/d0011/f1', { guard: ANY })
  await memory.setAttributes('tree/d0012', { mode: 0o700 }, { guard: ANY })
  it.clock.ms += 1001
  assert.deepEqual(await find(it.kernel, 'tree'), await stored(memory, 'tree'))
  assert.equal((await it.kernel.stat('tree/d0012')).mode & 0o7777, 0o700)
})

/** A store whose pages of trees are taken at once, and answered when the gate opens. */
function heldBack(memory: Store, gate: Gate): Store {
  const inner = untold(memory)
  const listTree: Store['listTree'] = async (...args) => {
    const page = await inner.listTree?.(...args)
    await gate.pass()
    return page ?? { entries: [], isLast: true }
  }
  return replacing(inner, { listTree })
}

/** Removes a directory without listing it, which would wait for the page. */
async function removeKnown(it: Rig, path: string): Promise<void> {
  for (const name of ['f0', 'f1', 'f2']) await it.kernel.unlink(`${path}/${name}`)
  await it.kernel.rmdir(path)
}

const CHANGES: readonly [string, (it: Rig, memory: Store) => Promise<unknown>][] = [
  ['a file removed', (it) => it.kernel.unlink('tree/d0005/f1')],
  ['a directory removed', (it) => removeKnown(it, 'tree/d0005')],
  [
    'a directory removed and made anew',
    async (it) => {
      await removeKnown(it, 'tree/d0005')
      await it.kernel.mkdir('tree/d0005')
      await it.kernel.writeFile('tree/d0005/other', 'x')
    },
  ],
  [
    'a directory removed here and made anew elsewhere',
    async (it, memory) => {
      await removeKnown(it, 'tree/d0005')
      await flushed(it)
      await memory.put('tree/d0005/theirs', Buffer.from('x'), { guard: ABSENT })
      it.clock.ms += 1001
      assert.equal(await it.kernel.exists('tree/d0005'), true)
    },
  ],
  ['a file made', (it) => it.kernel.writeFile('tree/d0005/new', 'x')],
  ['a directory made', (it) => it.kernel.mkdir('tree/d0005/new')],
  ['a file renamed', (it) => it.kernel.rename('tree/d0005/f1', 'tree/d0006/moved')],
  ['two directories exchanged', (it) => it.kernel.rename('tree/d0005', 'tree/d0007', RENAME_EXCHANGE)],
  ['a directory renamed', (it) => it.kernel.rename('tree/d0005', 'tree/moved')],
  [
    'a file replaced by a directory',
    async (it) => {
      await it.kernel.unlink('tree/d0005/f1')
      await it.kernel.mkdir('tree/d0005/f1')
    },
  ],
  ['a file that is being written', (it) => it.kernel.create('tree/d0005/open')],
]
for (const [what, change] of CHANGES) {
  test(`[S22] what is changed here while a page is under way is seen at once: ${what}`, async () => {
    const memory = openMemoryStore()
    await layTree(memory, 12, 3, true)
    await memory.put('tree/d0007/only', Buffer.from('x'), { guard: ABSENT })
    const gate = new Gate()
    await using it = await rig(heldBack(memory, gate))
    const walked = find(it.kernel, 'tree')
    await gate.reached
    await change(it, memory)
    gate.open()
    await walked.catch((error: unknown) => assert.equal(isOperationError(error, 'STORE_NOT_FOUND'), true))
    const found = await find(it.kernel, 'tree')
    await flushed(it)
    assert.deepEqual(found.toSorted(), (await stored(memory, 'tree')).toSorted())
  })
}

/** `store` whose pages of trees are no longer than that. */
function inPages(store: Store, pageEntries: number): Store {
  const listTree: Store['listTree'] = async (path, options) =>
    (await store.listTree?.(path, { ...options, pageEntries })) ?? { entries: [], isLast: true }
  return replacing(store, { listTree })
}

test('[S100] a walk gives any tree, whatever its pages begin and end with', async () => {
  const name = fc.constantFrom('a', 'b', 'b-', 'b.c', 'c0', 'd')
  const path = fc.array(name, { minLength: 1, maxLength: 5 }).map((names) => names.join('/'))
  const paths = fc.uniqueArray(path, { minLength: 5, maxLength: 60 })
  await fc.assert(
    fc.asyncProperty(paths, fc.integer({ min: 1, max: 12 }), fc.boolean(), async (files, pageEntries, made) => {
      const memory = openMemoryStore()
      for (const file of files) {
        // Where a directory has the name, there is none.
        if (made) await memory.makeDirectory(`tree/${file}/made`, { guard: ANY }).catch(() => undefined)
        await memory.put(`tree/${file}/file`, Buffer.from('x'), { guard: ANY }).catch(() => undefined)
      }
      await using it = await rig(inPages(untold(memory), pageEntries))
      const expected = (await stored(memory, 'tree')).toSorted()
      for (let round = 0; round < 2; round++) {
        assert.deepEqual((await find(it.kernel, 'tree')).toSorted(), expected)
        it.clock.ms += 1001
      }
      await removeTree(it.kernel, 'tree')
      await flushed(it)
      await assert.rejects(memory.stat('tree'), { code: 'STORE_NOT_FOUND' })
    }),
    { seed: 11, numRuns: 60 },
  )
})

test('[S22] a walk while anything is changed here shows each directory as it is', async () => {
  const names = fc.constantFrom('a', 'b', 'c', 'd', 'e')
  const step = fc.oneof(
    fc.record({ kind: fc.constantFrom('file', 'unlink', 'mkdir', 'rmdir'), at: fc.nat(9), name: names }),
    fc.record({ kind: fc.constantFrom('rename'), at: fc.nat(9), name: names, to: fc.nat(9) }),
    fc.record({ kind: fc.constantFrom('walk', 'land', 'wait') }),
  )
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 10, maxLength: 60 }), fc.nat(20), async (steps, more) => {
      const pageEntries = 5 + more
      const memory = openMemoryStore()
      await layTree(memory, 10, 0, true)
      const model = new Map<number, Map<string, 'file' | 'directory'>>()
      for (let at = 0; at < 10; at++) {
        model.set(
          at,
          new Map([
            ['a', 'file'],
            ['d', 'directory'],
          ]),
        )
        await memory.put(`tree/d000${at}/a`, Buffer.from('x'), { guard: ABSENT })
        await memory.put(`tree/d000${at}/d/below`, Buffer.from('x'), { guard: ABSENT })
      }
      const landing: (() => void)[] = []
      const inner = inPages(untold(memory), pageEntries)
      const listTree: Store['listTree'] = async (...args) => {
        const page = await inner.listTree?.(...args)
        await new Promise<void>((resolve) => landing.push(resolve))
        return page ?? { entries: [], isLast: true }
      }
      await using it = await rig(replacing(inner, { listTree }))
      const walks: Promise<unknown>[] = []
      const attempt = async (work: Promise<unknown>): Promise<boolean> =>
        work.then(
          () => true,
          (error: unknown) => {
            assert.ok(isOperationError(error), String(error))
            return false
          },
        )
      for (const { kind, ...rest } of steps) {
        const { at, name, to } = { at: 0, name: 'a', to: 0, ...rest }
        const [path, entries] = [`tree/d000${at}/${name}`, model.get(at)]
        const target = model.get(to)
        if (kind === 'walk') walks.push(find(it.kernel, 'tree').catch(() => undefined))
        else if (kind === 'land') landing.shift()?.()
        else if (kind === 'wait') it.clock.ms += 300
        else if (kind === 'file') {
          if (await attempt(it.kernel.writeFile(path, 'x'))) entries?.set(name, 'file')
        } else if (kind === 'unlink') {
          if (await attempt(it.kernel.unlink(path))) entries?.delete(name)
        } else if (kind === 'mkdir') {
          if (await attempt(it.kernel.mkdir(path))) entries?.set(name, 'directory')
        } else if (kind === 'rmdir') {
          await attempt(it.kernel.unlink(`${path}/below`))
          if (await attempt(it.kernel.rmdir(path))) entries?.delete(name)
        } else if (to !== at && target?.has(name) === false) {
          const moved = entries?.get(name)
          if (await attempt(it.kernel.rename(path, `tree/d000${to}/${name}`))) {
            entries?.delete(name)
            if (moved !== undefined) target.set(name, moved)
          }
        }
        await new Promise(setImmediate)
        // Of a directory whose listing waits for a page, a look at each name tells as well.
        for (const each of ['a', 'b', 'c', 'd', 'e']) {
          assert.equal(await it.kernel.exists(`tree/d000${at}/${each}`), entries?.has(each), `${kind} ${at} ${each}`)
        }
      }
      while (landing.length > 0) {
        for (const land of landing.splice(0)) land()
        await new Promise(setImmediate)
      }
      const over = new AbortController()
      const landed = (async (): Promise<void> => {
        while (!over.signal.aborted) {
          for (const land of landing.splice(0)) land()
          await new Promise(setImmediate)
        }
      })()
      await Promise.all(walks)
      for (let at = 0; at < 10; at++) {
        assert.deepEqual(await it.kernel.names(`tree/d000${at}`), [...(model.get(at)?.keys() ?? [])].toSorted())
      }
      await flushed(it)
      over.abort()
      await landed
    }),
    { seed: 7, numRuns: 60 },
  )
})
