import assert from 'node:assert/strict'
import { test } from 'node:test'

import { madeUp } from '#cluster/block/disk-fixture.ts'

import { DataPath } from './data-path.ts'

test('what was written is read back', async () => {
  const path = await DataPath.start({ services: 6 })
  for (const size of [1, 4096, 5000, 200_000, 1_000_003]) {
    const bytes = madeUp(size, size)
    const { file, span } = await path.file(bytes, 4, 2)
    assert.equal(span.isCertified, true)
    assert.deepEqual(await path.read(file), bytes)
  }
})
