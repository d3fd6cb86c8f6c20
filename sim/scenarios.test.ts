import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'

import { SCENARIOS } from './scenarios.ts'

test('each scenario has a name of its own, and a file of tests by that name', () => {
  assert.equal(new Set(SCENARIOS.map(({ name }) => name)).size, SCENARIOS.length)
  for (const { name } of SCENARIOS) {
    assert.ok(existsSync(join(import.meta.dirname, 'scenarios', `${name}.test.ts`)), `${name} has no tests`)
  }
})
