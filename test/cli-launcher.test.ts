/** The launcher under an older Node: the program runs in its place, with its output, its exit code and its signals. */
import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { olderNodeFolder } from './older-node.ts'

const LAUNCHER = fileURLToPath(new URL('../bin/eider.js', import.meta.url))
const folder = olderNodeFolder()
const skip = folder === undefined ? 'no Node older than 24 is on PATH' : false
const node = join(folder ?? '', 'node')

test('output and exit code are those of the program', { skip }, () => {
  const version = spawnSync(node, [LAUNCHER, '--version'], { encoding: 'utf8' })
  assert.match(version.stdout, /^eider \d+\.\d+\.\d+\n$/)
  assert.equal(version.status, 0)
  const wrong = spawnSync(node, [LAUNCHER, 'mont'], { encoding: 'utf8' })
  assert.match(wrong.stderr, /^eider: Cannot run "mont": .*did you mean mount\?\n {2}hint: /)
  assert.equal(wrong.status, 2)
})

test('it works through a link, as npm makes one, and in any directory', { skip }, () => {
  const scratch = mkdtempSync(join(tmpdir(), 'eider-launcher-'))
  try {
    symlinkSync(LAUNCHER, join(scratch, 'eider'))
    const version = spawnSync(node, [join(scratch, 'eider'), '--version'], { cwd: scratch, encoding: 'utf8' })
    assert.match(version.stdout, /^eider /)
  } finally {
    rmSync(scratch, { recursive: true })
  }
})

test('a signal to the launcher reaches the program, which ends in order', { skip }, async () => {
  const scratch = mkdtempSync(join(tmpdir(), 'eider-launcher-'))
  const child = spawn(node, [LAUNCHER, 'serve', 's3', 'memory:', '--listen', '127.0.0.1:0'], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, EIDER_ACCESS_KEY: 'AK', EIDER_SECRET_KEY: 'secret-for-a-test', XDG_STATE_HOME: scratch },
  })
  try {
    // Its first line says that it serves, and that its handlers are in place.
    await once(child.stdout, 'data')
    child.kill('SIGTERM')
    assert.deepEqual(await once(child, 'exit'), [0, null])
  } finally {
    child.kill('SIGKILL')
    rmSync(scratch, { recursive: true, force: true })
  }
})
