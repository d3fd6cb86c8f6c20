/** What a URL and its options open. */
import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { pathToFileURL } from 'node:url'

import { openStore } from './open-store.ts'
import { ABSENT, ANY } from './store.ts'
import { assertContent, keysOf, listAll, rejectsWith } from './suite/case.ts'

async function inRoot(use: (root: string, url: string, directory: string) => Promise<void>): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'eider-open-'))
  const root = join(directory, 'with space')
  mkdirSync(root)
  writeFileSync(join(root, 'file'), 'here')
  try {
    await use(root, pathToFileURL(root).href, directory)
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
}

test('open: a URL that names no store is INPUT_INVALID', async () => {
  for (const url of ['', 'relative', 'file:', 'file://', 'file://host/x', 'ftp://host/x']) {
    await rejectsWith(openStore(url), 'INPUT_INVALID')
  }
})

test('open: for reading only, nothing is changed, not even by opening', async () => {
  await inRoot(async (root, url) => {
    const store = await openStore(url, { readOnly: true })
    await assertContent(store, 'file', Buffer.from('here'))
    await rejectsWith(store.put('new', Buffer.from('x'), { guard: ANY }), 'STORE_READ_ONLY')
    await rejectsWith(store.makeSpecial('new', 'fifo', { guard: ABSENT }), 'STORE_READ_ONLY')
    await rejectsWith(store.exchange('file', 'file', { guard: ANY, otherGuard: ANY }), 'STORE_READ_ONLY')
    await rejectsWith(store.removeAll([await store.stat('file')]), 'STORE_READ_ONLY')
    await store.close()
    assert.deepEqual(readdirSync(root), ['file'])
  })
})

test('[S82] open: for a dry run, changes show and the place stays as it was', async () => {
  await inRoot(async (root, url, directory) => {
    const dryRun = { directory, log: { info: () => undefined } }
    const store = await openStore(url, { dryRun })
    await store.put('new', Buffer.from('x'), { guard: ABSENT })
    await store.remove('file', { guard: ANY })
    assert.deepEqual(keysOf(await listAll(store, ''), ''), ['new'])
    await store.close()
    assert.deepEqual(readdirSync(root), ['file'])
    await rejectsWith(openStore(url, { dryRun: { ...dryRun, directory: join(directory, 'none') } }), 'LOCAL_FAILED')
    const readOnly = await openStore(url, { dryRun, readOnly: true })
    await rejectsWith(readOnly.remove('file', { guard: ANY }), 'STORE_READ_ONLY')
    await readOnly.close()
  })
})
