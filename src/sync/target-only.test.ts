import assert from 'node:assert/strict'
import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'

import type { Version } from '#store/store.ts'

import { TargetOnly } from './target-only.ts'
import type { TreeEntry } from './tree.ts'

for (const count of [5, 25_003]) {
  test(`${count} files come back in their order with their versions, then directories, the deepest first`, async () => {
    const scratch = join(mkdtempSync(join(tmpdir(), 'eider-target-only-')), 'scratch')
    const targetOnly = new TargetOnly(scratch)
    try {
      for (const path of ['d', 'd/e']) targetOnly.add({ path, kind: 'directory', size: 0, mtime: undefined })
      for (let index = 0; index < count; index++) {
        const version = `"v\n${index}"` as Version
        targetOnly.add({ path: `d/e/ü\n"${index}`, kind: 'file', size: index, mtime: undefined, version })
      }
      assert.equal(targetOnly.count, count + 2)
      const all: TreeEntry[] = []
      for await (const page of targetOnly.pages(true)) all.push(...page)
      assert.deepEqual(
        all.map(({ path }) => path),
        [...Array.from({ length: count }, (_, index) => `d/e/ü\n"${index}`), 'd/e', 'd'],
      )
      assert.equal(all[count - 1]?.version, `"v\n${count - 1}"`)
    } finally {
      targetOnly.close()
      assert.ok(!existsSync(scratch) || readdirSync(scratch).length === 0, 'no file is left')
      rmSync(join(scratch, '..'), { recursive: true })
    }
  })
}
