/** The name that stores keep for themselves, in a mount: not there, and not to be made, wherever in the tree. */
import assert from 'node:assert/strict'
import { constants } from 'node:fs'
import { test } from 'node:test'

import { openMemoryStore } from '#store/memory-store.ts'
import { ANY } from '#store/store.ts'

import { codeOf, O_WRONLY, rig, untold } from './kernel-double.ts'

test('[S126] what a store keeps for itself further down is neither seen nor reached', async () => {
  const memory = openMemoryStore()
  for (const path of ['home/.eider/renames/x.json', 'home/deep/.eider/y', 'home/file']) {
    await memory.put(path, Buffer.from('x'), { guard: ANY })
  }
  await using it = await rig(untold(memory))
  const { kernel } = it
  assert.equal(await kernel.exists('home/.eider'), false)
  assert.deepEqual(await kernel.names('home'), ['deep', 'file'])
  assert.deepEqual(await kernel.names('home/deep'), [])
  assert.equal(await kernel.exists('home/deep/.eider'), false)
  for (const work of [() => kernel.unlink('home/.eider'), () => kernel.rmdir('home/deep/.eider')]) {
    assert.equal(await codeOf(work()), 'STORE_NOT_FOUND')
  }
})

test('[S126] nothing is made or renamed to the name of the stores, at any depth', async () => {
  const memory = openMemoryStore()
  await memory.put('home/deep/file', Buffer.from('x'), { guard: ANY })
  await using it = await rig(untold(memory))
  const { kernel } = it
  for (const above of ['', 'home/', 'home/deep/']) {
    const path = `${above}.eider`
    for (const work of [
      () => kernel.mkdir(path),
      () => kernel.create(path, O_WRONLY | constants.O_EXCL),
      () => kernel.symlink(path, 'target'),
      () => kernel.rename('home/deep/file', path),
    ]) {
      assert.equal(await codeOf(work()), 'STORE_NAME_INVALID')
    }
  }
  await kernel.mkdir('home/other')
  assert.equal(await codeOf(kernel.rename('home/other', 'home/deep/.eider')), 'STORE_NAME_INVALID')
  await kernel.writeFile('home/.eider2', 'x')
  assert.deepEqual(await kernel.names('home'), ['.eider2', 'deep', 'other'])
})

test('[S126] a directory with nothing but what a store keeps in it is not empty, also for rm -r', async () => {
  const memory = openMemoryStore()
  for (let index = 0; index < 6; index++) await memory.put(`d${index}/file`, Buffer.from('x'), { guard: ANY })
  await memory.put('own/.eider/x', Buffer.from('x'), { guard: ANY })
  await memory.put('own2/.eider/x', Buffer.from('x'), { guard: ANY })
  await using it = await rig(untold(memory))
  const { kernel } = it
  assert.equal(await codeOf(kernel.rmdir('own2')), 'STORE_NOT_EMPTY')
  for (let index = 0; index < 6; index++) {
    assert.deepEqual(await kernel.names(`d${index}`), ['file'])
    await kernel.unlink(`d${index}/file`)
    await kernel.rmdir(`d${index}`)
  }
  assert.deepEqual(await kernel.names('own'), [])
  assert.equal(await codeOf(kernel.rmdir('own')), 'STORE_NOT_EMPTY')
  assert.deepEqual(await it.fs.publishAll(), [])
  assert.equal((await memory.stat('own/.eider/x')).size, 1)
})
