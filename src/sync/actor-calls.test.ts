/** Actors whose calls hang, fail, or do not do what they say. */
import assert from 'node:assert/strict'
import { test } from 'node:test'

import { isOperationError, type ErrorCode, type OperationError } from '#base/errors.ts'
import { timestamp } from '#base/time.ts'

import type { Actor, FileToSend } from './actor.ts'
import { heldActor } from './actor-calls.ts'

const PLAIN: Actor = { url: 'mine:', async *list() {}, upload: async () => {}, delete: async () => {} }
const BYTES = Buffer.from('content')
const FILE: FileToSend = {
  ...{ path: 'a', key: 'a', size: BYTES.length, mtime: timestamp(0), attributes: {}, replaced: undefined },
  async *stream() {
    yield BYTES.subarray(0, 3)
    yield BYTES.subarray(3)
  },
  source: () => BYTES,
}

function fails(code: ErrorCode, words: RegExp): (error: OperationError) => boolean {
  return (error) => {
    assert.ok(isOperationError(error, code), String(error))
    assert.match(error.message, words)
    return true
  }
}

const never = (): Promise<never> => new Promise(() => undefined)

test('a call that hangs is given up, a listing, too', async () => {
  const hangs: Actor = {
    ...PLAIN,
    upload: never,
    delete: never,
    list: () => ({ [Symbol.asyncIterator]: () => ({ next: never }) }),
  }
  const held = heldActor('mine', hangs, 20)
  const target = { path: 'a', kind: 'file', size: 1, mtime: undefined } as const
  await assert.rejects(held.upload(FILE, {}), fails('STORE_TIMEOUT', /upload of "a" of the actor "mine"/))
  await assert.rejects(held.delete(target, {}), fails('STORE_TIMEOUT', /delete/))
  await assert.rejects(held.list({ under: '' })[Symbol.asyncIterator]().next(), fails('STORE_TIMEOUT', /list/))
})

test('an upload may last as long as it reads', async () => {
  const chunks = 8
  const slow: FileToSend = {
    ...FILE,
    size: chunks,
    async *stream() {
      for (let each = 0; each < chunks; each++) {
        const from = performance.now()
        while (performance.now() - from < 15) await new Promise(setImmediate)
        yield Buffer.alloc(1)
      }
    },
  }
  const held = heldActor('mine', { ...PLAIN, upload: async (file) => void (await Array.fromAsync(file.stream())) }, 100)
  await held.upload(slow, {})
})

test('what an author throws is told as the words of the actor', async () => {
  const boom = async (): Promise<never> => {
    throw new TypeError('boom')
  }
  const held = heldActor('mine', {
    ...PLAIN,
    upload: boom,
    list: () => ({ [Symbol.asyncIterator]: () => ({ next: boom }) }),
  })
  await assert.rejects(held.upload(FILE, {}), fails('STORE_UNAVAILABLE', /actor "mine" failed.*boom/))
  await assert.rejects(
    held.list({ under: '' })[Symbol.asyncIterator]().next(),
    fails('STORE_UNAVAILABLE', /list.*boom/),
  )
})

test('an upload that has not read the file is none, unless it tells what is there', async () => {
  await assert.rejects(heldActor('mine', PLAIN).upload(FILE, {}), fails('STORE_PROTOCOL', /read 0 of 7 bytes/))
  const told = { path: 'a', size: 7 }
  assert.equal(await heldActor('mine', { ...PLAIN, upload: async () => told }).upload(FILE, {}), told)
  const reads = { ...PLAIN, upload: async (file: FileToSend) => void (await Array.fromAsync(file.stream())) }
  assert.equal(await heldActor('mine', reads).upload(FILE, {}), undefined)
  await heldActor('mine', PLAIN).upload({ ...FILE, size: 0 }, {})
})

test('a listing that says it is sorted still does, and is ended with who reads it', async () => {
  let isEnded = false
  const listing = Object.assign(
    (async function* () {
      try {
        yield { path: 'a', size: 1 }
        yield { path: 'b', size: 1 }
      } finally {
        isEnded = true
      }
    })(),
    { alreadySorted: true },
  )
  const given = heldActor('mine', { ...PLAIN, list: () => listing }).list({ under: '' })
  assert.equal((given as { alreadySorted?: boolean }).alreadySorted, true)
  for await (const entry of given) {
    assert.deepEqual(entry, { path: 'a', size: 1 })
    break
  }
  assert.ok(isEnded)
})
