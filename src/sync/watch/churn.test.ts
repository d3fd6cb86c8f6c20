import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'

import { SystemCallError } from '#os/libc.ts'

import { FanotifyWatcher } from './fanotify-watcher.ts'
import { InotifyWatcher } from './inotify-watcher.ts'
import { Mirror } from './mirror-double.ts'
import type { Watcher } from './watcher.ts'

const MS = Number(process.env['CHURN_MS'] ?? 5_000)
const SEED = Number(process.env['CHURN_SEED'] ?? 7)

async function churn(open: (directory: string) => Watcher): Promise<void> {
  const base = mkdtempSync(join(tmpdir(), 'eider-churn-'))
  const directory = join(base, 'tree')
  const outside = join(base, 'outside')
  mkdirSync(join(directory, 'a0', 'b1'), { recursive: true })
  mkdirSync(outside)
  const watcher = open(directory)
  try {
    await watcher.arm()
    const mirror = Mirror.of(directory)
    const program = fileURLToPath(import.meta.resolve('#test/sync/churn-process.ts'))
    const child = spawn(process.execPath, [program, directory, outside, String(MS), String(SEED)], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    const exited = once(child, 'exit')
    let done = ''
    child.stdout.on('data', (text: Buffer) => (done += text.toString()))
    // Told after all that came before it.
    const last = exited.then(() => writeFileSync(join(directory, 'last'), 'last'))
    for await (const batch of watcher.changes(AbortSignal.timeout(MS + 60_000))) {
      mirror.take(batch)
      if (batch.some((change) => change.kind === 'written' && change.path === 'last' && !change.isOpen)) break
    }
    await last
    assert.ok(Number(done) > 100, 'much was done')
    assert.deepEqual(mirror.differences(), [])
    assert.ok(
      mirror.told.some(({ kind }) => kind === 'moved'),
      'renames were told as such',
    )
  } finally {
    await watcher.close()
    rmSync(base, { recursive: true })
  }
}

test('inotify: what is told explains all that a churn has changed', () => churn((path) => new InotifyWatcher(path)))

test('fanotify: what is told explains all that a churn has changed', async (context) => {
  let first: FanotifyWatcher | undefined
  try {
    first = new FanotifyWatcher(tmpdir())
  } catch (error) {
    if (!(error instanceof SystemCallError)) throw error
    return context.skip(error.message)
  }
  await first.close()
  await churn((path) => new FanotifyWatcher(path))
})
