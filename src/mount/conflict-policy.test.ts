/** What becomes of a file that somebody else has changed since it was opened, by policy. */
import assert from 'node:assert/strict'
import { constants, readdirSync } from 'node:fs'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'

import { OperationError } from '#base/errors.ts'
import { setLogLevel } from '#base/log.ts'
import { openMemoryStore } from '#store/memory-store.ts'
import { ABSENT, ANY, type Store } from '#store/store.ts'

import { conflictName } from './conflict-policy.ts'
import { codeOf, content, O_RDONLY, O_RDWR, replacing, rig, type Rig } from './kernel-double.ts'

setLogLevel('silent')

async function paths(store: Store): Promise<string[]> {
  const found: string[] = []
  for await (const page of store.list('', { recursive: true })) for (const { path } of page) found.push(path)
  return found
}

function kept(it: Rig): string[] {
  return readdirSync(join(it.stagingDirectory, 'conflicts'))
}

const COPY = new RegExp(String.raw`^report \(conflict ${hostname()} \d{4}-\d\d-\d\d \d\d\.\d\d\.\d\d( \d+)?\)\.txt$`)

test('[S93] keep-both: the stored version keeps the name, ours gets one next to it, and its close succeeds', async () => {
  const store = openMemoryStore()
  await using it = await rig(store, { onConflict: 'keep-both' })
  await it.kernel.writeFile('report.txt', 'base')
  const file = await it.kernel.open('report.txt', O_RDWR)
  await it.kernel.write(file, 0, 'ours')
  await store.put('report.txt', Buffer.from('theirs'), { guard: ANY })
  await it.kernel.flush(file)
  const names = await paths(store)
  const copy = names.find((name) => COPY.test(name))
  assert.ok(copy !== undefined, String(names))
  assert.equal(names.length, 2)
  assert.equal(await content(store, copy), 'ours')
  assert.equal(await content(store, 'report.txt'), 'theirs')
  assert.equal(String(await it.kernel.readFile('report.txt')), 'theirs')
  // Who has it open goes on with ours, also writing.
  assert.equal((await it.kernel.read(file, 0, 100)).toString(), 'ours')
  await it.kernel.write(file, 4, ' more')
  await it.kernel.close(file)
  assert.equal(await content(store, copy), 'ours more')
  assert.deepEqual(await paths(store), names)
  assert.deepEqual(kept(it), [])
  assert.equal(it.fs.status.dirtyFiles, 0)
})

test('[S93] keep-both: of two files that are made under one name at once both are stored', async () => {
  const store = openMemoryStore()
  await using it = await rig(store, { onConflict: 'keep-both' })
  const made = await it.kernel.create('new')
  await it.kernel.write(made, 0, 'made here')
  await store.put('new', Buffer.from('made there'), { guard: ABSENT })
  await it.kernel.close(made)
  const names = await paths(store)
  assert.equal(names.length, 2)
  const copy = names.find((name) => name.startsWith('new (conflict '))
  assert.equal(await content(store, copy ?? ''), 'made here')
})

test('[S93] keep-both: what the next look found replaced goes to a copy when it is written to again', async () => {
  const store = openMemoryStore()
  await using it = await rig(store, { onConflict: 'keep-both' })
  const file = await it.kernel.create('f')
  await it.kernel.write(file, 0, 'ours')
  await it.kernel.flush(file)
  await store.put('f', Buffer.from('theirs'), { guard: ANY })
  it.clock.ms += 2000
  assert.equal(String(await it.kernel.readFile('f')), 'theirs')
  await it.kernel.write(file, 4, '!')
  await it.kernel.close(file)
  const copy = (await paths(store)).find((name) => name.startsWith('f (conflict '))
  assert.equal(await content(store, copy ?? ''), 'ours!')
  assert.equal(await content(store, 'f'), 'theirs')
})

test('[S93] keep-both: a name that is taken in the store gives way to the next number', async () => {
  const inner = openMemoryStore()
  let taken: string | undefined
  const store = replacing(inner, {
    put: async (path, source, options) => {
      if (taken === undefined && path.includes('(conflict ')) {
        taken = path
        await inner.put(path, Buffer.from('not ours'), { guard: ABSENT })
      }
      return inner.put(path, source, options)
    },
  })
  await using it = await rig(store, { onConflict: 'keep-both' })
  await it.kernel.writeFile('report.txt', 'base')
  const file = await it.kernel.open('report.txt', O_RDWR)
  await it.kernel.write(file, 0, 'ours')
  await inner.put('report.txt', Buffer.from('theirs'), { guard: ANY })
  await it.kernel.close(file)
  const copies = (await paths(inner)).filter((name) => COPY.test(name))
  assert.equal(copies.length, 2)
  const bytes = await Promise.all(copies.map((name) => content(inner, name)))
  assert.deepEqual(bytes.sort(), ['not ours', 'ours'])
})

test('[S93] keep-both: a copy that cannot be stored yet stays staged under its name, and is tried again', async () => {
  const inner = openMemoryStore()
  let fails = true
  const store = replacing(inner, {
    put: async (path, source, options) => {
      if (fails && path.includes('(conflict ')) throw new OperationError('STORE_UNAVAILABLE', 'Cannot put: gone')
      return inner.put(path, source, options)
    },
  })
  await using it = await rig(store, { onConflict: 'keep-both' })
  await it.kernel.writeFile('report.txt', 'base')
  const file = await it.kernel.open('report.txt', O_RDWR)
  await it.kernel.write(file, 0, 'ours')
  await inner.put('report.txt', Buffer.from('theirs'), { guard: ANY })
  assert.equal(await codeOf(it.kernel.close(file)), 'STORE_UNAVAILABLE')
  assert.equal(it.fs.status.dirtyFiles, 1)
  fails = false
  await it.fs.publishFailed()
  const copies = (await paths(inner)).filter((name) => COPY.test(name))
  assert.equal(copies.length, 1)
  assert.equal(await content(inner, copies[0] ?? ''), 'ours')
  assert.equal(it.fs.status.dirtyFiles, 0)
  assert.deepEqual(kept(it), [])
})

test('[S94] last-writer: ours replaces what somebody else has stored, with the attributes that they have set', async () => {
  const store = openMemoryStore()
  await using it = await rig(store, { onConflict: 'last-writer' })
  await it.kernel.writeFile('f', 'base')
  const file = await it.kernel.open('f', O_RDWR)
  await it.kernel.write(file, 0, 'ours')
  await store.put('f', Buffer.from('theirs'), { guard: ANY, attributes: { mode: 0o600 } })
  await it.kernel.close(file)
  assert.equal(await content(store, 'f'), 'ours')
  assert.equal((await store.stat('f')).attributes?.mode, 0o600)
  assert.deepEqual(kept(it), [])
})

test('[S94] last-writer: what was removed is made anew, and what the next look found replaced is replaced', async () => {
  const store = openMemoryStore()
  await using it = await rig(store, { onConflict: 'last-writer' })
  await it.kernel.writeFile('removed', 'base', 0o640)
  await it.kernel.writeFile('seen', 'base')
  const removed = await it.kernel.open('removed', O_RDWR)
  await it.kernel.write(removed, 0, 'ours')
  await store.remove('removed', { guard: ANY })
  await it.kernel.close(removed)
  assert.equal(await content(store, 'removed'), 'ours')
  assert.equal((await store.stat('removed')).attributes?.mode, 0o640)

  const seen = await it.kernel.open('seen', O_RDWR)
  // Written and stored: what is staged is no more ahead, so the next look may find another version.
  await it.kernel.write(seen, 0, 'mine')
  await it.kernel.flush(seen)
  await store.put('seen', Buffer.from('theirs'), { guard: ANY })
  it.clock.ms += 2000
  const theirs = await it.kernel.open('seen', O_RDONLY)
  assert.equal((await it.kernel.read(theirs, 0, 10)).toString(), 'theirs')
  await it.kernel.write(seen, 4, '!')
  await it.kernel.close(seen)
  await it.kernel.close(theirs)
  assert.equal(await content(store, 'seen'), 'mine!')
  assert.equal(String(await it.kernel.readFile('seen')), 'mine!')
  assert.equal(it.fs.status.dirtyFiles, 0)
})

test('[S94] last-writer: an edit in place copies nothing of the version that it replaces', async () => {
  const store = openMemoryStore()
  await using it = await rig(store, { onConflict: 'last-writer' })
  const base = 'b'.repeat(100_000)
  await it.kernel.writeFile('f', base)
  const file = await it.kernel.open('f', O_RDWR)
  await it.kernel.write(file, 50_000, 'ours')
  await store.put('f', Buffer.from('t'.repeat(100_000)), { guard: ANY })
  await it.kernel.close(file)
  assert.equal(await content(store, 'f'), `${base.slice(0, 50_000)}ours${base.slice(50_004)}`)
})

test('[S95] whatever the policy: a large file of which parts were only in the replaced version is kept, with ESTALE', async () => {
  for (const onConflict of ['keep-both', 'last-writer'] as const) {
    const store = openMemoryStore()
    await using it = await rig(store, { onConflict, wholeBytesMax: 10 })
    await it.kernel.writeFile('f', 'a long base')
    const file = await it.kernel.open('f', O_RDWR)
    await it.kernel.write(file, 0, 'A')
    await store.put('f', Buffer.from('theirs'), { guard: ANY })
    assert.equal(await codeOf(it.kernel.flush(file)), 'STORE_CONFLICT')
    assert.equal(kept(it).length, 2, 'the bytes, and which of them were written')
    assert.deepEqual(await paths(store), ['f'])
    await it.kernel.close(file).catch(() => undefined)
  }
})

test('[S94] last-writer: a rename of a file that somebody else has replaced meanwhile moves ours', async () => {
  const store = openMemoryStore()
  await using it = await rig(store, { onConflict: 'last-writer' })
  await it.kernel.writeFile('a', 'base')
  const file = await it.kernel.open('a', O_RDWR | constants.O_TRUNC)
  await it.kernel.write(file, 0, 'ours')
  await store.put('a', Buffer.from('theirs'), { guard: ANY })
  await it.kernel.rename('a', 'b')
  await it.kernel.close(file)
  assert.deepEqual(await paths(store), ['b'])
  assert.equal(await content(store, 'b'), 'ours')
})

test('the name of a copy keeps the extension and is no longer than a name may be', () => {
  const at = new Date('2026-11-21T05:12:33Z')
  assert.equal(conflictName('report.txt', 'host', at, 1), 'report (conflict host 2026-11-21 05.12.33).txt')
  assert.equal(conflictName('.bashrc', 'host', at, 2), '.bashrc (conflict host 2026-11-21 05.12.33 2)')
  const long = conflictName(`${'ü'.repeat(124)}.jpeg`, 'h/'.repeat(60), at, 12)
  assert.ok(Buffer.byteLength(long) <= 255 && Buffer.byteLength(long) >= 254, String(Buffer.byteLength(long)))
  assert.match(long, /^ü+ \(conflict h-h.* 2026-11-21 05\.12\.33 12\)\.jpeg$/)
})
