/** Several processes on one directory: guards hold among them, and none removes what another is writing. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'

import { openDirectoryStore } from '#store/directory-store.ts'
import { ABSENT } from '#store/store.ts'
import { contentOf, rejectsWith, streamOf } from '#store/suite/case.ts'

const CHILD = join(import.meta.dirname, 'directory-child.ts')

async function racer(root: string, count: number): Promise<string[]> {
  const child = spawn(process.execPath, [CHILD, 'race', root, String(count)], { stdio: ['ignore', 'pipe', 'inherit'] })
  const chunks: Buffer[] = []
  child.stdout.on('data', (chunk: Buffer) => chunks.push(chunk))
  await once(child, 'close')
  assert.equal(child.exitCode, 0)
  return Buffer.concat(chunks)
    .toString()
    .split('\n')
    .filter((line) => line !== '')
}

test('directory: among processes each path is created once, and no counted step is lost', async () => {
  const root = mkdtempSync(join(tmpdir(), 'eider-race-'))
  try {
    const store = await openDirectoryStore(root)
    await store.put('counter', Buffer.from('0'), { guard: ABSENT })
    const count = 150
    const created = await Promise.all([racer(root, count), racer(root, count), racer(root, count)])
    assert.equal((await contentOf(store, 'counter')).toString(), String(3 * count))
    assert.deepEqual(
      created.flat().toSorted(),
      Array.from({ length: count }, (_, index) => `created ${index}`).toSorted(),
    )
    await store.close()
    assert.deepEqual(readdirSync(join(root, '.eider/tmp')), [])
  } finally {
    rmSync(root, { recursive: true, force: true })
  }
})

test('directory: opening it again leaves the temporary files of a live user alone', async () => {
  const root = mkdtempSync(join(tmpdir(), 'eider-live-'))
  try {
    const first = await openDirectoryStore(root)
    const { promise: gate, resolve: open } = Promise.withResolvers<void>()
    const stream = (async function* () {
      yield Buffer.alloc(600_000, 1)
      await gate
      yield Buffer.alloc(1000, 2)
    })()
    const put = first.put('slow', { kind: 'stream', stream }, { guard: ABSENT })
    // The put has begun once its temporary file is there.
    while ((readdirSync(root, { recursive: true }) as string[]).every((name) => !/tmp\/\w+\/\w+$/.test(name))) {
      await new Promise((resolve) => setImmediate(resolve))
    }
    const second = await openDirectoryStore(root)
    await second.put('quick', streamOf([Buffer.from('x')]), { guard: ABSENT })
    open()
    assert.equal((await put).size, 601_000)
    await rejectsWith(second.put('slow', Buffer.alloc(1), { guard: ABSENT }), 'STORE_CONFLICT')
    await first.close()
    await second.close()
  } finally {
    rmSync(root, { recursive: true, force: true })
  }
})
