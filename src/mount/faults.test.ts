/** The mount over a store that fails, times out after success, is slow, breaks bodies off and has other writers. */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'

import { isOperationError } from '#base/errors.ts'
import { setLogLevel } from '#base/log.ts'
import { openFaultyStore } from '#store/faulty-store.ts'
import { openMemoryStore } from '#store/memory-store.ts'
import { ABSENT } from '#store/store.ts'

import { codeOf, content, O_RDONLY, O_RDWR, rig, type OpenedFile } from './kernel-double.ts'

setLogLevel('silent')

const SEEDS = Array.from({ length: 40 }, (_, index) => index + 1)

/** Whether `work` succeeds; an operating error is a "no", anything else a defect. */
async function succeeds(work: Promise<unknown>): Promise<boolean> {
  try {
    await work
    return true
  } catch (error) {
    if (isOperationError(error)) return false
    throw error
  }
}

for (const seed of SEEDS) {
  test(`[S18] what a close has acknowledged is in the store, whatever fails (seed ${seed})`, async () => {
    const inner = openMemoryStore()
    const rates = { error: 0.1, lost: 0.1, throttled: 0.05, delay: 0.1, cut: 0.1 }
    const store = openFaultyStore(inner, { seed, rates, delayMsMax: 1 })
    await using it = await rig(store)
    const acknowledged = new Map<string, string>()
    for (let round = 0; round < 40; round++) {
      const name = `f${(round * 7 + seed) % 5}`
      const text = `${'x'.repeat((round * 37 + seed) % 90)} ${round}`
      const before = acknowledged.get(name)
      if (await succeeds(it.kernel.writeFile(name, text))) acknowledged.set(name, text)
      else {
        // It may have happened or not, but never in part; and what is staged is tried again.
        const left = await inner.stat(name).then(
          () => content(inner, name),
          () => undefined,
        )
        assert.ok(left === before || left === text || !acknowledged.has(name), `"${left}" in place of "${before}"`)
        acknowledged.delete(name)
      }
      for (const [path, expected] of acknowledged) assert.equal(await content(inner, path), expected)
      it.clock.ms += 300
    }
    for (let tries = 0; tries < 50 && it.fs.status.dirtyFiles > 0; tries++) await it.fs.publishFailed()
    assert.equal(it.fs.status.dirtyFiles, 0)
    assert.deepEqual(readdirSync(join(it.stagingDirectory, 'conflicts')), [], 'nobody else has written')
  })
}

test('a put whose answer was lost is found done at the next try, and is no conflict', async () => {
  const inner = openMemoryStore()
  const store = openFaultyStore(inner)
  await using it = await rig(store)
  await it.kernel.writeFile('file', 'before')
  const file = await it.kernel.open('file', O_RDWR)
  await it.kernel.write(file, 0, 'AFTER!')
  store.failNext('put', { kind: 'lost' })
  assert.equal(await codeOf(it.kernel.fsync(file)), 'STORE_TIMEOUT')
  await it.kernel.fsync(file)
  assert.equal(await content(inner, 'file'), 'AFTER!')
  await it.kernel.write(file, 0, 'and on')
  await it.kernel.close(file)
  assert.equal(await content(inner, 'file'), 'and on')
  assert.deepEqual(readdirSync(join(it.stagingDirectory, 'conflicts')), [])
})

test('[S20] what meets another writer is kept whole under conflicts', async () => {
  const inner = openMemoryStore()
  const store = openFaultyStore(inner)
  await using it = await rig(store)
  await it.kernel.writeFile('file', 'base')
  const file = await it.kernel.open('file', O_RDWR)
  await it.kernel.write(file, 0, 'mine')
  store.failNext('put', { kind: 'conflict' })
  assert.equal(await codeOf(it.kernel.close(file)), 'STORE_CONFLICT')
  const [kept] = readdirSync(join(it.stagingDirectory, 'conflicts'))
  assert.equal(readFileSync(join(it.stagingDirectory, 'conflicts', kept ?? ''), 'utf8'), 'mine')
})

test('a body that breaks off is an error or asked for again, never short data', async () => {
  const inner = openMemoryStore()
  const bytes = Buffer.from(Array.from({ length: 500_000 }, (_, index) => index % 251))
  await inner.put('file', bytes, { guard: ABSENT })
  const store = openFaultyStore(inner)
  await using it = await rig(store)
  const file: OpenedFile = await it.kernel.open('file', O_RDONLY)
  store.failNext('read', { kind: 'cut', after: 1000 })
  assert.equal(await succeeds(it.kernel.read(file, 0, 131_072)), false)
  assert.ok((await it.kernel.read(file, 0, 131_072)).equals(bytes.subarray(0, 131_072)))
  store.failNext('read', { kind: 'cut', after: 1000 })
  const writer = await it.kernel.open('file', O_RDWR)
  assert.equal(await succeeds(it.kernel.write(writer, 0, 'x')), false)
  assert.equal(it.fs.status.dirtyFiles, 0)
  await it.kernel.write(writer, 0, 'y')
  await it.kernel.close(writer)
  assert.equal((await content(inner, 'file')).length > 0, true)
  assert.ok(
    Buffer.from(await (await inner.read('file')).bytes())
      .subarray(1)
      .equals(bytes.subarray(1)),
  )
})

test('a listing that breaks off is an error, and the next try shows all', async () => {
  const inner = openMemoryStore()
  for (let index = 0; index < 2200; index++) await inner.put(`f${index}`, Buffer.alloc(0), { guard: ABSENT })
  const store = openFaultyStore(inner)
  await using it = await rig(store)
  store.failNext('list', { kind: 'cut', after: 1 })
  assert.equal(await succeeds(it.kernel.names('')), false)
  assert.equal((await it.kernel.names('')).length, 2200)
})
