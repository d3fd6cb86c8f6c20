/** A process that is killed in the middle of puts leaves every file whole, what it acknowledged, and no rubbish. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { test } from 'node:test'

import { openDirectoryStore } from '#store/directory-store.ts'
import { listAll } from '#store/suite/case.ts'

import { roundOf } from './directory-bodies.ts'

const CHILD = join(import.meta.dirname, 'directory-child.ts')

/** Runs the writer until it has told of `lines` puts, then kills it; gives the last round acknowledged of each path. */
async function killAfter(root: string, lines: number): Promise<Map<string, number>> {
  const child = spawn(process.execPath, [CHILD, 'put', root], { stdio: ['ignore', 'pipe', 'inherit'] })
  const told = new Map<string, number>()
  const exited = once(child, 'exit')
  let seen = 0
  for await (const line of createInterface({ input: child.stdout })) {
    const [path = '', round = ''] = line.split(' ')
    told.set(path, Number(round))
    if (++seen === lines) child.kill('SIGKILL')
  }
  await exited
  assert.equal(child.signalCode, 'SIGKILL')
  return told
}

test('[S1, S2] directory: SIGKILL at any point leaves old or new versions whole, and reopening removes what was unfinished', async () => {
  const root = mkdtempSync(join(tmpdir(), 'eider-crash-'))
  try {
    let leftovers = 0
    for (const lines of [1, 2, 5, 13, 30, 61, 100, 150]) {
      const told = await killAfter(root, lines)
      for (const session of readdirSync(join(root, '.eider/tmp'))) {
        leftovers += readdirSync(join(root, '.eider/tmp', session)).length
      }
      const store = await openDirectoryStore(root)
      assert.deepEqual(readdirSync(join(root, '.eider/tmp')), [], 'no temporary files are left')
      const files = (await listAll(store, '', { recursive: true })).filter((entry) => entry.kind === 'file')
      for (const { path } of files) {
        const round = roundOf(await (await store.read(path)).bytes(), Number(path.slice(path.indexOf('-') + 1)))
        const acknowledged = told.get(path)
        // Each writer has one put under way: the version is the one it told of last, or the next.
        if (acknowledged !== undefined) {
          assert.ok(round === acknowledged || round === acknowledged + 1, `${path} is of round ${round}`)
        }
      }
      for (const path of told.keys())
        assert.ok(
          files.some((entry) => entry.path === path),
          `${path} is there`,
        )
      await store.close()
    }
    assert.ok(leftovers > 0, 'some of the kills came in the middle of a put')
  } finally {
    rmSync(root, { recursive: true, force: true })
  }
})
