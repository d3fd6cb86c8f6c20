/** What operations of programs cost in requests to the store: on S3, users pay for each. */
import { MemoryBudget } from '#base/memory-budget.ts'
import assert from 'node:assert/strict'
import { constants } from 'node:fs'
import { test } from 'node:test'

import { timestamp } from '#base/time.ts'
import { openMemoryStore } from '#store/memory-store.ts'
import { ABSENT, ANY } from '#store/store.ts'

import { aged, CALLER, counting, O_RDONLY, O_RDWR, O_WRONLY, rig, untold } from './kernel-double.ts'

const EXCLUSIVE = O_WRONLY | constants.O_EXCL

test('[S23] creating, writing and closing a small file in a known directory is one put', async () => {
  const counted = counting(openMemoryStore())
  await using it = await rig(counted.store)
  await it.kernel.mkdir('dir')
  counted.taken()
  const file = await it.kernel.create('dir/file', EXCLUSIVE)
  await it.kernel.write(file, 0, 'content')
  await it.kernel.close(file)
  assert.deepEqual(counted.taken(), { put: 1 })
  assert.equal((await it.kernel.stat('dir/file')).size, 7)
  assert.deepEqual(counted.taken(), {})
})

test('[S23] mode, owner, times and attributes set while a file is open travel with its put', async () => {
  const counted = counting(openMemoryStore())
  await using it = await rig(counted.store)
  await it.kernel.names('')
  counted.taken()
  const file = await it.kernel.create('file', EXCLUSIVE, 0o600)
  await it.kernel.write(file, 0, 'content')
  const mtime = timestamp(1_000_000_000, 123_456_789)
  await it.fs.setattr(file.node, { handle: file.handle, mtime, atime: mtime })
  await it.fs.setattr(file.node, { uid: 3, gid: 4 })
  await it.fs.setattr(file.node, { mode: 0o640 })
  await it.fs.setxattr(file.node, 'user.tag', Buffer.from('v'), 0)
  await it.kernel.close(file)
  assert.deepEqual(counted.taken(), { put: 1 })
  const { attributes } = await counted.store.stat('file')
  assert.deepEqual([attributes?.mode, attributes?.uid, attributes?.gid], [0o640, 3, 4])
  assert.deepEqual(attributes?.mtime, mtime)
  assert.deepEqual([...(attributes?.xattrs?.keys() ?? [])], ['user.tag'])
})

test('the attribute that the kernel asks for before writes costs nothing', async () => {
  const counted = counting(openMemoryStore())
  await using it = await rig(counted.store)
  await it.kernel.writeFile('file', 'x')
  const node = await it.kernel.node('file')
  it.clock.ms += 5000
  counted.taken()
  await assert.rejects(async () => it.fs.getxattr(node, 'security.capability'), { code: 'ATTRIBUTE_NOT_FOUND' })
  await assert.rejects(async () => it.fs.getxattr(node, 'security.selinux'), { code: 'STORE_UNSUPPORTED' })
  assert.deepEqual(counted.taken(), {})
})

test('[S24] looking twice within the validity asks once, and again after it', async () => {
  const memory = openMemoryStore()
  await memory.put('file', Buffer.from('x'), { guard: ABSENT })
  const counted = counting(memory)
  await using it = await rig(counted.store)
  await it.kernel.stat('file')
  assert.deepEqual(counted.taken(), { stat: 1 })
  await it.kernel.stat('file')
  await it.kernel.readFile('file')
  assert.deepEqual(counted.taken(), { read: 1 })
  it.clock.ms += 1001
  await it.kernel.stat('file')
  assert.deepEqual(counted.taken(), { stat: 1 })
})

test('many who look at one name at once share one request', async () => {
  const memory = openMemoryStore()
  await memory.put('file', Buffer.from('x'), { guard: ABSENT })
  const counted = counting(memory)
  await using it = await rig(counted.store)
  await Promise.all(Array.from({ length: 20 }, () => it.kernel.stat('file')))
  assert.deepEqual(counted.taken(), { stat: 1 })
})

test('ls -l where listings tell attributes costs its pages, and nothing again within the validity', async () => {
  const memory = openMemoryStore()
  for (let index = 0; index < 2500; index++) await memory.put(`f${index}`, Buffer.from('x'), { guard: ABSENT })
  const counted = counting(memory)
  await using it = await rig(counted.store)
  await it.kernel.list('')
  assert.deepEqual(counted.taken(), { list: 3 })
  await it.kernel.list('')
  assert.deepEqual(await it.kernel.exists('none'), false)
  assert.deepEqual(counted.taken(), {})
})

test('ls -l where listings tell no attributes asks once a name, and only for other versions later', async () => {
  const memory = openMemoryStore()
  const total = 1500
  for (let index = 0; index < total; index++) await memory.put(`f${index}`, Buffer.from('x'), { guard: ABSENT })
  await memory.symlink('link', 'f1', { guard: ABSENT })
  const counted = counting(untold(aged(memory)))
  await using it = await rig(counted.store)
  await it.kernel.list('')
  assert.deepEqual(counted.taken(), { list: 2, stat: total + 1 })
  assert.equal((await it.kernel.stat('link')).mode & 0o170000, 0o120000)
  it.clock.ms += 2000
  await it.kernel.list('')
  assert.deepEqual(counted.taken(), { list: 2 })
  await memory.put('f7', Buffer.from('other'), { guard: ANY })
  it.clock.ms += 2000
  await it.kernel.list('')
  assert.deepEqual(counted.taken(), { list: 2, stat: 1 })
  assert.equal((await it.kernel.stat('f7')).size, 5)
})

test('plain ls where listings tell no attributes costs its pages only, and does not call symlinks files', async () => {
  const memory = openMemoryStore()
  await memory.symlink('link', 'target', { guard: ABSENT })
  await memory.put('large', Buffer.alloc(5000), { guard: ABSENT })
  await memory.makeDirectory('dir', { guard: ABSENT })
  const counted = counting(untold(memory))
  await using it = await rig(counted.store)
  const items = await it.kernel.readdir('', { plus: true })
  const types = Object.fromEntries(items.map(({ name, mode }) => [name, mode & 0o170000]))
  assert.deepEqual(types, { dir: 0o040000, large: 0o100000, link: 0 })
  assert.deepEqual(counted.taken(), { list: 1 })
})

test('attributes are fetched ahead of who follows a listing, up to 64 at once, and not for who looks at one name', async () => {
  const memory = openMemoryStore()
  for (let index = 0; index < 300; index++) {
    await memory.put(`f${String(index).padStart(3, '0')}`, Buffer.from('x'), { guard: ABSENT })
  }
  const counted = counting(untold(memory))
  let flying = 0
  let flyingMax = 0
  const { store } = counted
  const stat = store.stat.bind(store)
  Object.assign(memory, {
    stat: async (...args: Parameters<typeof stat>) => {
      flyingMax = Math.max(flyingMax, ++flying)
      await new Promise(setImmediate)
      flying--
      return Object.getPrototypeOf(memory).stat.apply(memory, args) as ReturnType<typeof stat>
    },
  })
  await using it = await rig(store)
  const items = await it.kernel.readdir('')
  counted.taken()
  await it.kernel.stat('f150')
  assert.deepEqual(counted.taken(), { stat: 1 })
  for (const { name } of items) await it.fs.lookup(1, name, CALLER)
  assert.deepEqual(counted.taken(), { stat: 299 })
  assert.ok(flyingMax >= 32 && flyingMax <= 65, `${flyingMax} at once`)
})

test('a file that is read to its end is fetched in few long ranges, each byte once', async () => {
  const memory = openMemoryStore()
  const size = 40 * 2 ** 20
  const bytes = Buffer.alloc(size)
  for (let at = 0; at < size; at += 4096) bytes.writeUInt32LE(at, at)
  await memory.put('large', bytes, { guard: ABSENT })
  let fetched = 0
  const counted = counting(memory)
  await using it = await rig(counted.store)
  const file = await it.kernel.open('large', O_RDONLY)
  const original = memory.read.bind(memory)
  Object.assign(memory, {
    read: async (...args: Parameters<typeof original>) => {
      fetched += args[1]?.length ?? 0
      return original(...args)
    },
  })
  counted.taken()
  for (let at = 0; at < size; at += 131_072) {
    const part = await it.kernel.read(file, at, 131_072)
    assert.ok(part.equals(bytes.subarray(at, at + 131_072)), `the bytes at ${at}`)
  }
  const { read = 0 } = counted.taken()
  assert.ok(read <= 26, `${read} requests`)
  assert.equal(fetched, size)
  await it.kernel.close(file)
  assert.equal(it.fs.status.memoryBytes, 0)
})

test('a random reader costs one request a read, of just the bytes asked', async () => {
  const memory = openMemoryStore()
  await memory.put('large', Buffer.alloc(64 * 2 ** 20), { guard: ABSENT })
  const asked: number[] = []
  const original = memory.read.bind(memory)
  Object.assign(memory, {
    read: async (...args: Parameters<typeof original>) => {
      asked.push(args[1]?.length ?? -1)
      return original(...args)
    },
  })
  await using it = await rig(memory)
  const file = await it.kernel.open('large', O_RDONLY)
  const offsets = [50, 10, 33, 20, 60, 5].map((mib) => mib * 2 ** 20)
  for (const offset of offsets) await it.kernel.read(file, offset, 131_072)
  assert.deepEqual(
    asked,
    offsets.map(() => 131_072),
  )
})

test('what is fetched ahead stays under the bound of the mount, and reading goes on without', async () => {
  const memory = openMemoryStore()
  for (let index = 0; index < 8; index++)
    await memory.put(`f${index}`, Buffer.alloc(16 * 2 ** 20, index), { guard: ABSENT })
  await using it = await rig(memory, { memory: new MemoryBudget(6 * 2 ** 20) })
  const files = await Promise.all(Array.from({ length: 8 }, (_, index) => it.kernel.open(`f${index}`, O_RDONLY)))
  for (let at = 0; at < 16 * 2 ** 20; at += 2 ** 20) {
    const parts = await Promise.all(files.map((file) => it.kernel.read(file, at, 2 ** 20)))
    parts.forEach((part, index) => assert.ok(part.equals(Buffer.alloc(2 ** 20, index))))
    assert.ok(it.fs.status.memoryBytes <= 6 * 2 ** 20)
  }
  await Promise.all(files.map((file) => it.kernel.close(file)))
  assert.equal(it.fs.status.memoryBytes, 0)
})

test('overwriting a whole file fetches nothing of it, and editing it fetches it once', async () => {
  const memory = openMemoryStore()
  await memory.put('file', Buffer.alloc(100_000), { guard: ABSENT })
  const counted = counting(memory)
  await using it = await rig(counted.store)
  await it.kernel.stat('file')
  counted.taken()
  await it.kernel.writeFile('file', 'new')
  assert.deepEqual(counted.taken(), { put: 1 })
  const file = await it.kernel.open('file', O_RDWR)
  await it.kernel.write(file, 1, 'x')
  await it.kernel.write(file, 2, 'y')
  assert.equal((await it.kernel.read(file, 0, 9)).toString(), 'nxy')
  await it.kernel.close(file)
  assert.deepEqual(counted.taken(), { read: 1, put: 1 })
})

test('a close without a write costs nothing', async () => {
  const memory = openMemoryStore()
  await memory.put('file', Buffer.from('x'), { guard: ABSENT })
  const counted = counting(memory)
  await using it = await rig(counted.store)
  await it.kernel.stat('file')
  counted.taken()
  await it.kernel.close(await it.kernel.open('file', O_RDWR))
  assert.deepEqual(counted.taken(), {})
})

test('a file that is unlinked before it was ever published costs nothing', async () => {
  const counted = counting(openMemoryStore())
  await using it = await rig(counted.store)
  await it.kernel.names('')
  counted.taken()
  const file = await it.kernel.create('temporary')
  await it.kernel.write(file, 0, 'x')
  await it.kernel.unlink('temporary')
  await it.kernel.close(file)
  assert.deepEqual(counted.taken(), {})
})

test('creating many files in a directory, or missing many names in it, costs a listing a validity, not requests a name', async () => {
  const memory = openMemoryStore()
  await memory.put('dir/there', Buffer.from('x'), { guard: ABSENT })
  const counted = counting(untold(memory))
  await using it = await rig(counted.store)
  await it.kernel.stat('dir')
  counted.taken()
  for (let index = 0; index < 100; index++) await it.kernel.exists(`dir/none${index}`)
  assert.deepEqual(counted.taken(), { stat: 1, list: 1 })
  assert.equal(await it.kernel.exists('dir/there'), true)
  await memory.put('dir/none7', Buffer.from('x'), { guard: ABSENT })
  it.clock.ms += 1001
  assert.equal(await it.kernel.exists('dir/none7'), true)
  counted.taken()
  for (let index = 0; index < 50; index++) {
    it.clock.ms += 100
    await it.kernel.writeFile(`dir/new${index}`, 'x')
  }
  const { put, list = 0, stat = 0 } = counted.taken()
  assert.equal(put, 50)
  // In five seconds, which are five validities: the directory itself, a first miss, and then a listing for each.
  assert.ok(list <= 6 && stat <= 12, `${list} listings, ${stat} stats`)
})

test('a directory with more entries than a page is not listed for names that are not there', async () => {
  const memory = openMemoryStore()
  for (let index = 0; index < 3000; index++) await memory.put(`dir/f${index}`, Buffer.alloc(0), { guard: ABSENT })
  const counted = counting(memory)
  await using it = await rig(counted.store)
  await it.kernel.stat('dir')
  counted.taken()
  for (let index = 0; index < 20; index++) assert.equal(await it.kernel.exists(`dir/none${index}`), false)
  const { list = 0, stat } = counted.taken()
  assert.ok(list <= 2, `${list} pages`)
  assert.equal(stat, 20)
})

test('[S90] a tree that is copied in costs one put for each file and directory, and one look at each directory where it took long', async () => {
  const counted = counting(untold(openMemoryStore()))
  await using it = await rig(counted.store)
  await it.kernel.names('')
  counted.taken()
  const directories = Array.from({ length: 20 }, (_, index) => `d${index}`)
  for (const directory of directories) await it.kernel.mkdir(directory)
  for (const directory of directories) await it.kernel.writeFile(`${directory}/file`, 'x')
  assert.deepEqual(counted.taken(), { makeDirectory: 20, put: 20 })
  it.clock.ms += 5000
  await Promise.all(
    directories.map(async (directory) => {
      for (let index = 0; index < 6; index++) await it.kernel.writeFile(`${directory}/later${index}`, 'x')
    }),
  )
  assert.deepEqual(counted.taken(), { stat: 20, list: 20, put: 120 })
})
