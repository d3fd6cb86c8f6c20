import assert from 'node:assert/strict'
import { test } from 'node:test'

import { ForgetfulShard } from '#sim/forgetful-shard.ts'
import { firstFailure, testScenario } from '#sim/scenario-suite.ts'

import { tree } from './tree.ts'

const SEEDS_MAX = 100

testScenario(tree())

test('shards that do requests again are found', async () => {
  const found = await firstFailure(tree({ shard: new ForgetfulShard() }), SEEDS_MAX)
  assert.notEqual(found?.failure, undefined)
})
