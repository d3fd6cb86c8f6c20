/** What a publish does where answers are lost, other machines change things meanwhile, or the store refuses a part. */
import assert from 'node:assert/strict'
import { constants, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'

import { setLogLevel } from '#base/log.ts'
import { openFaultyStore } from '#store/faulty-store.ts'
import { openMemoryStore } from '#store/memory-store.ts'
import { ABSENT, ANY } from '#store/store.ts'

import { codeOf, content, Gate, O_RDWR, replacing, rig, type Rig } from './kernel-double.ts'

setLogLevel('silent')

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
