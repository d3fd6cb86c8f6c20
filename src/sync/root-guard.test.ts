import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, renameSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, test } from 'node:test'

import { isOperationError } from '#base/errors.ts'
import { xattrGet } from '#os/xattr.ts'

import { checkRoots } from './root-guard.ts'
import { SyncState } from './state.ts'

const changed = (error: unknown): boolean => isOperationError(error, 'ROOT_CHANGED')

async function withRoot(
  use: (source: string, check: (isMeant?: boolean) => Promise<unknown>) => Promise<void>,
): Promise<void> {
  const base = mkdtempSync(join(tmpdir(), 'eider-root-guard-'))
  const source = join(base, 'source')
  mkdirSync(source)
  const state = await SyncState.open(join(base, 'state'))
  try {
    await use(source, (isMeant = false) => checkRoots([{ source, target: '', isDirectory: true }], state, isMeant))
  } finally {
    await state.close()
    rmSync(base, { recursive: true })
  }
}

describe('[S131] the root of a sync', () => {
  test('is the one of before, wherever it was in between', () =>
    withRoot(async (source, check) => {
      await check()
      renameSync(source, `${source}-elsewhere`)
      renameSync(`${source}-elsewhere`, source)
      await check()
      assert.ok(xattrGet(source, 'user.eider.root') !== undefined, 'it has a mark that goes with it')
    }))

  test('is another where another directory is there, until it is said that it is meant', () =>
    withRoot(async (source, check) => {
      await check()
      renameSync(source, `${source}-elsewhere`)
      mkdirSync(source)
      await assert.rejects(check(), changed)
      // To be refused once is not to be remembered.
      await assert.rejects(check(), changed)
      await check(true)
      await check()
      rmSync(source, { recursive: true })
      renameSync(`${source}-elsewhere`, source)
      await assert.rejects(check(), changed)
    }))
})
