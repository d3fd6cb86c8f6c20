import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'

import type { Version } from '#store/store.ts'

import type { CacheKey, FileCache } from './file-cache.ts'
import { openFileCache } from './open-file-cache.ts'

const keyOf = (path: string, size: number, version = 'v1'): CacheKey => ({ path, version: version as Version, size })

test('what was kept is read, also after a restart', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'eider-cache-'))
  const open = (): Promise<FileCache> =>
    openFileCache({ directory, storeUrl: 's3://a', bytesMax: 1 << 30, bytesFreeMin: 0 })
  let cache = await open()
  const bytes = randomBytes(5 * 131072 + 1000)
  const key = keyOf('a/b', bytes.length)
  const held = cache.hold(key)
  assert.equal(held.read(0, 100), undefined)
  await held.keep(0, bytes.subarray(0, 3 * 131072))
  assert.ok((await held.read(5, 131072 * 2))?.equals(bytes.subarray(5, 5 + 131072 * 2)))
  assert.equal(held.isWhole, false)
  await held.keep(3 * 131072, bytes.subarray(3 * 131072))
  assert.equal(held.isWhole, true)
  held.release()
  await cache.close()
  cache = await open()
  const again = cache.hold(key)
  assert.ok((await again.read(0, bytes.length))?.equals(bytes))
  assert.ok(again.backing() !== undefined)
  again.release()
  await cache.close()
  rmSync(directory, { recursive: true })
})
