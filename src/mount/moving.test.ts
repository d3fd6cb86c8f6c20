/** Changes of names while the same names are looked up, opened and read, here and elsewhere. */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import { test } from 'node:test'

import { OperationError } from '#base/errors.ts'
import { setLogLevel } from '#base/log.ts'
import { ROOT_NODE } from '#fuse/file-system.ts'
import { openMemoryStore } from '#store/memory-store.ts'
import { isWithin } from '#store/path.ts'
import { ANY, type Entry, type Store } from '#store/store.ts'

import { CALLER, codeOf, content, Gate, O_RDONLY, O_RDWR, replacing, rig, type Rig } from './kernel-double.ts'
import { StagingArea } from './staging.ts'

setLogLevel('silent')

async function elsewhere(store: Store, path: string, text: string): Promise<void> {
  await store.put(path, Buffer.from(text), { guard: ANY })
}

/** `store` whose moves of directories copy what lies in them, and so give it other versions. */
function copying(store: Store): Store {
  return replacing(store, {
    rename: async (from, to, options) => {
      const entry = await store.rename(from, to, options)
      for await (const page of store.list('', { recursive: true })) {
        for (const { path, kind, version } of page) {
          if (kind === 'directory' || !isWithin(path, to)) continue
          const after = await store.setAttributes(path, {}, { guard: ANY })
          options.onVersionChanged?.(path, version, after.version)
        }
      }
      return entry
    },
  })
}

function conflicts(it: Rig): string[] {
  const directory = join(it.stagingDirectory, 'conflicts')
  return readdirSync(directory).map((name) => readFileSync(join(directory, name), 'utf8'))
}

/** A store whose rename stops half-way, with both names in place as a copy before its delete has them. */
function halting(store: Store): { store: Store; half: Gate } {
  const half = new Gate()
  const rename: Store['rename'] = async (from, to, options) => {
    await store.copy(from, to, { guard: options.targetGuard })
    await half.pass()
    await store.remove(from, { guard: ANY })
    return store.stat(to)
  }
  return { store: replacing(store, { rename }), half }
}

test('[S20] the move of a directory takes no version of somebody else for the one that is open', async () => {
  const store = openMemoryStore()
  await using it = await rig(copying(store))
  await it.kernel.mkdir('dir')
  await it.kernel.writeFile('dir/file', '1'.repeat(100))
  const file = await it.kernel.open('dir/file', O_RDWR)
  await it.kernel.write(file, 0, '22')
  await it.kernel.fsync(file)
  await elsewhere(store, 'dir/file', 'B'.repeat(100))
  await it.kernel.rename('dir', 'moved')
  await it.kernel.write(file, 50, 'zz')
  assert.equal(await codeOf(it.kernel.close(file)), 'STORE_CONFLICT')
  assert.equal(await content(store, 'moved/file'), 'B'.repeat(100))
  assert.deepEqual(conflicts(it), [`22${'1'.repeat(48)}zz${'1'.repeat(48)}`])
  assert.equal((await it.kernel.readFile('moved/file')).toString(), 'B'.repeat(100))
})

test('[S21] a reader gets no bytes of a version that a moved directory had from somebody else', async () => {
  const store = openMemoryStore()
  await using it = await rig(copying(store))
  await it.kernel.mkdir('dir')
  await it.kernel.writeFile('dir/file', Buffer.alloc(3 << 20, 'a'))
  const file = await it.kernel.open('dir/file', O_RDONLY)
  assert.equal((await it.kernel.read(file, 0, 2)).toString(), 'aa')
  await store.put('dir/file', Buffer.alloc(3 << 20, 'b'), { guard: ANY })
  await it.kernel.rename('dir', 'moved')
  assert.equal(await codeOf(it.kernel.read(file, (3 << 20) - 2, 2)), 'FILE_STALE')
})

test('what is open in a moved directory goes on with the version that its own was copied to', async () => {
  const store = openMemoryStore()
  await using it = await rig(copying(store))
  await it.kernel.mkdir('dir')
  await it.kernel.writeFile('dir/file', 'mine')
  await it.kernel.writeFile('dir/other', Buffer.alloc(3 << 20, 'a'))
  const file = await it.kernel.open('dir/file', O_RDWR)
  const other = await it.kernel.open('dir/other', O_RDONLY)
  await it.kernel.write(file, 0, 'M')
  await it.kernel.fsync(file)
  await it.kernel.rename('dir', 'moved')
  assert.equal((await it.kernel.read(other, (3 << 20) - 2, 2)).toString(), 'aa')
  await it.kernel.write(file, 1, 'I')
  await it.kernel.close(file)
  assert.equal(await content(store, 'moved/file'), 'MIne')
})

test('a write during the move of its directory is published to the copy', async () => {
  const inner = openMemoryStore()
  const copy = copying(inner)
  const gate = new Gate()
  const rename: Store['rename'] = async (from, to, options) => {
    await gate.pass()
    return copy.rename(from, to, options)
  }
  await using it = await rig(replacing(inner, { rename }))
  await it.kernel.mkdir('dir')
  await it.kernel.writeFile('dir/file', 'mine')
  const file = await it.kernel.open('dir/file', O_RDWR)
  const moving = it.kernel.rename('dir', 'moved')
  await gate.reached
  await it.kernel.write(file, 0, 'M')
  gate.open()
  await moving
  await it.kernel.close(file)
  assert.equal(await content(inner, 'moved/file'), 'Mine')
})

test('a directory can be looked at while it is moved, which takes long', async () => {
  const inner = openMemoryStore()
  const gate = new Gate()
  const rename: Store['rename'] = async (...args) => {
    await gate.pass()
    return inner.rename(...args)
  }
  await using it = await rig(replacing(inner, { rename }))
  await it.kernel.mkdir('dir', 0o750)
  const moving = it.kernel.rename('dir', 'moved')
  await gate.reached
  it.clock.ms += 2000
  assert.equal((await it.kernel.stat('dir')).mode & 0o777, 0o750)
  gate.open()
  await moving
  assert.equal(await it.kernel.exists('dir'), false)
  assert.equal((await it.kernel.stat('moved')).mode & 0o777, 0o750)
})

test('names that are looked up while a rename is half done stay as they were, and it succeeds', async () => {
  const inner = openMemoryStore()
  const { store, half } = halting(inner)
  await using it = await rig(store)
  await it.kernel.writeFile('from', 'new')
  await it.kernel.writeFile('to', 'old')
  const reader = await it.kernel.open('from', O_RDONLY)
  const renaming = it.fs.rename(ROOT_NODE, 'from', ROOT_NODE, 'to', 0)
  await half.reached
  it.clock.ms += 2000
  const looks = ['from', 'to'].map((name) => it.kernel.find(name))
  await it.kernel.names('')
  await setImmediate()
  half.open()
  await renaming
  const [from, to] = await Promise.all(looks)
  assert.equal(from, undefined)
  assert.equal(to?.attributes.size, 3)
  assert.equal((await it.kernel.readFile('to')).toString(), 'new')
  assert.equal((await it.kernel.read(reader, 0, 3)).toString(), 'new')
  assert.deepEqual(await it.kernel.names(''), ['to'])
})

test('the only writer of a file keeps it through a rename that others look at', async () => {
  const inner = openMemoryStore()
  const { store, half } = halting(inner)
  await using it = await rig(store)
  const file = await it.kernel.create('from')
  await it.kernel.write(file, 0, 'one')
  await it.kernel.fsync(file)
  const renaming = it.fs.rename(ROOT_NODE, 'from', ROOT_NODE, 'to', 0)
  await half.reached
  it.clock.ms += 2000
  const looks = Promise.all(['from', 'to'].map((name) => it.kernel.find(name)))
  await it.kernel.names('')
  half.open()
  await Promise.all([renaming, looks])
  await it.kernel.write(file, 3, ' two')
  await it.kernel.close(file)
  assert.equal(await content(inner, 'to'), 'one two')
  assert.deepEqual(conflicts(it), [])
})

test('a listing from before a rename that lost its answer is not taken in after it', async () => {
  const inner = openMemoryStore()
  const asked = new Gate()
  async function* list(...args: Parameters<Store['list']>): AsyncGenerator<readonly Entry[]> {
    const pages = await Array.fromAsync(inner.list(...args))
    await asked.pass()
    yield* pages
  }
  const rename: Store['rename'] = async (...args) => {
    await inner.rename(...args)
    throw new OperationError('STORE_TIMEOUT', 'Cannot rename: no answer came')
  }
  await using it = await rig(replacing(inner, { list, rename }))
  await it.kernel.writeFile('from', 'text')
  it.clock.ms += 2000
  const listing = it.kernel.names('')
  await asked.reached
  await it.fs.rename(ROOT_NODE, 'from', ROOT_NODE, 'to', 0)
  asked.open()
  await listing
  assert.equal((await it.kernel.find('to'))?.attributes.size, 4)
  assert.equal(await it.kernel.exists('from'), false)
})

for (const action of ['unlink', 'rmdir', 'mkdir', 'symlink', 'mknod'] as const) {
  test(`a name that is looked up while ${action} is under way has one node, and its end is seen`, async () => {
    const inner = openMemoryStore()
    const done = new Gate()
    // The store has done it, and the answer is on its way.
    const slowly =
      <A extends unknown[], R>(call: (...args: A) => Promise<R>) =>
      async (...args: A): Promise<R> => {
        const result = await call(...args)
        await done.pass()
        return result
      }
    const held = replacing(inner, {
      remove: slowly(inner.remove.bind(inner)),
      removeDirectory: slowly(inner.removeDirectory.bind(inner)),
      makeDirectory: slowly(inner.makeDirectory.bind(inner)),
      symlink: slowly(inner.symlink.bind(inner)),
      put: slowly(inner.put.bind(inner)),
    })
    if (action === 'unlink') await elsewhere(inner, 'name', 'text')
    if (action === 'rmdir') await inner.makeDirectory('name', { guard: ANY })
    await using it = await rig(held)
    const before = await it.kernel.find('name')
    const acting = {
      unlink: () => it.fs.unlink(ROOT_NODE, 'name', CALLER),
      rmdir: () => it.fs.rmdir(ROOT_NODE, 'name', CALLER),
      mkdir: () => it.fs.mkdir(ROOT_NODE, 'name', 0o755, 0, CALLER),
      symlink: () => it.fs.symlink(ROOT_NODE, 'name', 'target', CALLER),
      mknod: () => it.fs.mknod(ROOT_NODE, 'name', 0o100644, 0, 0, CALLER),
    }[action]()
    await done.reached
    it.clock.ms += 2000
    const looking = it.kernel.find('name')
    await it.kernel.names('')
    done.open()
    const made = await acting
    const found = await looking
    // A directory stays as it was until the end; what else there is waits for it.
    const expected = action === 'rmdir' ? before : made
    assert.equal(found?.attributes.node, expected?.attributes.node)
    assert.deepEqual(await it.kernel.names(''), made === undefined ? [] : ['name'])
  })
}

for (const replace of [true, false]) {
  test(`who opens a file while it is ${replace ? 'replaced' : 'removed'} here can read what it opened`, async () => {
    const inner = openMemoryStore()
    const gate = new Gate()
    const held = replacing(inner, {
      rename: async (...args) => {
        const entry = await inner.rename(...args)
        await gate.pass()
        return entry
      },
      remove: async (...args) => {
        await inner.remove(...args)
        await gate.pass()
      },
    })
    await using it = await rig(held)
    await it.kernel.writeFile('target', 'old')
    await it.kernel.writeFile('.tmp', 'new')
    const node = await it.kernel.node('target')
    const leaving = replace
      ? it.fs.rename(ROOT_NODE, '.tmp', ROOT_NODE, 'target', 0)
      : it.fs.unlink(ROOT_NODE, 'target', CALLER)
    await gate.reached
    const opening = Promise.resolve(it.fs.open(node, O_RDONLY)).then(
      (opened) => it.kernel.read({ node, ...opened }, 0, 3),
      (error: unknown) => error,
    )
    await setImmediate()
    gate.open()
    await leaving
    // At ESTALE of an open, other than of a read, the kernel looks the name up anew and opens what it finds.
    assert.equal(((await opening) as OperationError).code, 'FILE_STALE')
    if (replace) assert.equal((await it.kernel.readFile('target')).toString(), 'new')
    else assert.equal(await it.kernel.exists('target'), false)
  })
}

test('who has a file open keeps it through a change of its attributes that others look at', async () => {
  const inner = openMemoryStore()
  const gate = new Gate()
  const held = replacing(inner, {
    setAttributes: async (...args) => {
      const entry = await inner.setAttributes(...args)
      await gate.pass()
      return entry
    },
  })
  await using it = await rig(held)
  await it.kernel.writeFile('file', 'text')
  const file = await it.kernel.open('file', O_RDONLY)
  const changing = it.kernel.setattr('file', { mode: 0o600 })
  await gate.reached
  it.clock.ms += 2000
  const looking = it.kernel.find('file')
  await it.kernel.names('')
  gate.open()
  await changing
  assert.equal((await looking)?.attributes.node, file.node)
  assert.equal((await it.kernel.read(file, 0, 4)).toString(), 'text')
})

for (const flags of [O_RDONLY, O_RDWR]) {
  test(`[S22] one failed ${flags === O_RDWR ? 'write' : 'read'} tells that a file was replaced elsewhere`, async () => {
    const store = openMemoryStore()
    await elsewhere(store, 'file', 'first')
    await using it = await rig(store)
    await it.kernel.names('')
    const stale = await it.kernel.open('file', flags)
    await elsewhere(store, 'file', 'second')
    const use = flags === O_RDWR ? it.kernel.write(stale, 0, 'x') : it.kernel.read(stale, 0, 5)
    assert.equal(await codeOf(use), 'FILE_STALE')
    assert.equal(await codeOf(Promise.resolve().then(() => it.fs.open(stale.node, O_RDONLY))), 'FILE_STALE')
    assert.equal((await it.kernel.readFile('file')).toString(), 'second')
  })
}

test('the first write of a file that is renamed meanwhile finds its bytes under the new name', async () => {
  const inner = openMemoryStore()
  const gate = new Gate()
  const renamed = replacing(inner, {
    rename: async (...args) => {
      const entry = await inner.rename(...args)
      await gate.pass()
      return entry
    },
  })
  await using it = await rig(renamed)
  await it.kernel.writeFile('from', 'text')
  const file = await it.kernel.open('from', O_RDWR)
  const renaming = it.fs.rename(ROOT_NODE, 'from', ROOT_NODE, 'to', 0)
  await gate.reached
  const writing = it.kernel.write(file, 0, 'T')
  writing.catch(() => undefined)
  await setImmediate()
  gate.open()
  await renaming
  await writing
  await it.kernel.close(file)
  assert.equal(await content(inner, 'to'), 'Text')
})

test('a time that is set on a directory goes over the changes of its entries before it', async () => {
  await using it = await rig(openMemoryStore())
  await it.kernel.mkdir('dir')
  await it.kernel.writeFile('dir/file', '')
  const mtime = { seconds: 978_307_200, nanoseconds: 0 }
  await it.kernel.setattr('dir', { mtime })
  assert.deepEqual((await it.kernel.stat('dir')).mtime, mtime)
  await it.kernel.unlink('dir/file')
  assert.ok((await it.kernel.stat('dir')).mtime.seconds > mtime.seconds)
})

test('on a full staging disk names go all the same; who had them open gets ESTALE', async (t) => {
  const store = openMemoryStore()
  for (const name of ['removed', 'target', 'source']) await elsewhere(store, name, name)
  await using it = await rig(store)
  const open = [await it.kernel.open('removed', O_RDONLY), await it.kernel.open('target', O_RDONLY)]
  t.mock.method(StagingArea.prototype, 'create', () => {
    throw new OperationError('STAGING_NO_SPACE', 'Cannot create a staged file: no space is left')
  })
  await it.kernel.unlink('removed')
  await it.kernel.rename('source', 'target')
  assert.deepEqual(await it.kernel.names(''), ['target'])
  assert.equal(await content(store, 'target'), 'source')
  for (const file of open) assert.equal(await codeOf(it.kernel.read(file, 0, 6)), 'FILE_STALE')
})
