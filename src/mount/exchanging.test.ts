/** Names that change places, and entries that are neither files nor directories. */
import assert from 'node:assert/strict'
import { test } from 'node:test'

import { setLogLevel } from '#base/log.ts'
import { openMemoryStore } from '#store/memory-store.ts'
import { ABSENT, ANY, type Store } from '#store/store.ts'

import { CALLER, codeOf, content, counting, O_RDWR, replacing, rig, untold } from './kernel-double.ts'
import { S_IFIFO, S_IFMT, S_IFSOCK } from './node-attributes.ts'

setLogLevel('silent')
const EXCHANGE = 2

/** `store` whose exchange copies, as S3's does: every file that it moved has another version. */
function copying(store: Store): Store {
  return replacing(store, {
    exchange: async (path, other, options) => {
      await store.exchange(path, other, options)
      for (const root of [path, other]) {
        const entries = [await store.stat(root)]
        if (entries[0]?.kind === 'directory') {
          for await (const page of store.list(root, { recursive: true })) entries.push(...page)
        }
        for (const { path: at, kind, version } of entries) {
          if (kind === 'directory') continue
          const after = await store.setAttributes(at, {}, { guard: ANY })
          options.onVersionChanged?.(at, version, after.version)
        }
      }
    },
  })
}

for (const make of [(store: Store): Store => store, copying]) {
  const how = make === copying ? ' by copies' : ''

  test(`[S84] two files change places${how}, and what is open follows its name`, async () => {
    const store = openMemoryStore()
    await using it = await rig(make(store))
    await it.kernel.writeFile('a', 'first')
    await it.kernel.writeFile('b', 'second')
    const open = await it.kernel.open('a', O_RDWR)
    const { node } = await it.kernel.stat('b')
    await it.kernel.rename('a', 'b', EXCHANGE)
    assert.equal((await it.kernel.stat('a')).node, node)
    assert.equal((await it.kernel.stat('b')).node, open.node)
    assert.equal((await it.kernel.readFile('a')).toString(), 'second')
    assert.equal((await it.kernel.read(open, 0, 9)).toString(), 'first')
    await it.kernel.write(open, 5, '!')
    await it.kernel.close(open)
    assert.deepEqual([await content(store, 'a'), await content(store, 'b')], ['second', 'first!'])
  })

  test(`[S84] a file and a directory change places${how}, with what lies in it`, async () => {
    const store = openMemoryStore()
    await using it = await rig(make(store))
    await it.kernel.mkdir('dir')
    await it.kernel.writeFile('dir/in', 'inside')
    await it.kernel.mkdir('other')
    await it.kernel.writeFile('other/file', 'text')
    const open = await it.kernel.open('dir/in', O_RDWR)
    await it.kernel.rename('dir', 'other/file', EXCHANGE)
    assert.equal((await it.kernel.readFile('dir')).toString(), 'text')
    assert.deepEqual(await it.kernel.names('other/file'), ['in'])
    await it.kernel.write(open, 0, 'I')
    await it.kernel.close(open)
    assert.equal(await content(store, 'other/file/in'), 'Inside')
    assert.equal(await content(store, 'dir'), 'text')
  })
}

test('[S84] what is not yet stored is stored by the exchange, and goes on being written', async () => {
  const store = openMemoryStore()
  await using it = await rig(store)
  await it.kernel.writeFile('old', 'old')
  const file = await it.kernel.create('new')
  await it.kernel.write(file, 0, 'ne')
  await it.kernel.rename('new', 'old', EXCHANGE)
  assert.equal(await content(store, 'new'), 'old')
  await it.kernel.write(file, 2, 'w')
  await it.kernel.close(file)
  assert.deepEqual([await content(store, 'old'), await content(store, 'new')], ['new', 'old'])
})

test('[S84] an exchange that cannot be is refused, and changes nothing', async () => {
  const store = openMemoryStore()
  await using it = await rig(store)
  await it.kernel.mkdir('dir')
  await it.kernel.writeFile('dir/file', 'x')
  assert.equal(await codeOf(it.kernel.rename('dir', 'none', EXCHANGE)), 'STORE_NOT_FOUND')
  assert.equal(await codeOf(it.kernel.rename('dir/file', 'dir', EXCHANGE)), 'INPUT_INVALID')
  assert.equal(await codeOf(it.kernel.rename('dir', 'dir/file', EXCHANGE)), 'INPUT_INVALID')
  for (const flags of [3, 4, 5, 8]) {
    assert.equal(await codeOf(it.kernel.rename('dir/file', 'other', flags)), 'INPUT_INVALID', `flags ${flags}`)
  }
  await it.kernel.rename('dir/file', 'dir/file', EXCHANGE)
  assert.equal(await content(store, 'dir/file'), 'x')
})

test('[S84] an exchange with what somebody else has replaced is found out, and the second try has theirs', async () => {
  const store = openMemoryStore()
  await using it = await rig(store)
  await it.kernel.writeFile('a', 'a')
  await it.kernel.writeFile('b', 'b')
  await store.put('b', Buffer.from('theirs'), { guard: ANY })
  assert.equal(await codeOf(it.kernel.rename('a', 'b', EXCHANGE)), 'STORE_CONFLICT')
  await it.kernel.rename('a', 'b', EXCHANGE)
  assert.deepEqual([await content(store, 'a'), await content(store, 'b')], ['theirs', 'a'])
})

test('[S83] fifos and sockets are made, shown as such, renamed and removed; devices are refused', async () => {
  const memory = openMemoryStore()
  const { store, taken } = counting(untold(memory))
  await using it = await rig(store)
  await it.fs.mknod(1, 'pipe', S_IFIFO | 0o666, 0, 0o022, CALLER)
  await it.fs.mknod(1, 'socket', S_IFSOCK | 0o755, 0, 0, CALLER)
  const { mode, size } = await it.kernel.stat('pipe')
  assert.deepEqual([mode, size], [S_IFIFO | 0o644, 0])
  assert.equal(await codeOf(it.fs.mknod(1, 'disk', 0o060644, 0x801, 0, CALLER)), 'OPERATION_NOT_PERMITTED')
  assert.equal(await codeOf(it.fs.mknod(1, 'tty', 0o020644, 0x401, 0, CALLER)), 'OPERATION_NOT_PERMITTED')
  assert.equal(await codeOf(it.fs.mknod(1, 'pipe', S_IFIFO | 0o666, 0, 0, CALLER)), 'FILE_EXISTS')
  it.clock.ms += 5000
  taken()
  const kinds = async (): Promise<Record<string, number>> =>
    Object.fromEntries((await it.kernel.readdir('', { plus: true })).map((item) => [item.name, item.mode & S_IFMT]))
  assert.deepEqual(await kinds(), { pipe: S_IFIFO, socket: S_IFSOCK })
  assert.deepEqual(taken(), { list: 1 })
  await it.kernel.rename('pipe', 'other')
  await it.kernel.unlink('socket')
  assert.deepEqual(await kinds(), { other: S_IFIFO })
  // A mount that has seen neither of them made.
  await using later = await rig(untold(memory))
  assert.equal((await later.kernel.readdir(''))[0]?.mode, 0)
  assert.equal((await later.kernel.stat('other')).mode, S_IFIFO | 0o644)
})

test('[S83] where the store keeps no fifos, making one is refused', async () => {
  const memory = openMemoryStore()
  const store = replacing(memory, { capabilities: { ...memory.capabilities, specials: false } })
  await using it = await rig(store)
  assert.equal(await codeOf(it.fs.mknod(1, 'pipe', S_IFIFO | 0o666, 0, 0, CALLER)), 'OPERATION_NOT_PERMITTED')
  await memory.put('file', Buffer.from(''), { guard: ABSENT })
  assert.deepEqual(await it.kernel.names(''), ['file'])
})
