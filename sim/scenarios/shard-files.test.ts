import assert from 'node:assert/strict'
import { test } from 'node:test'

import type { Answer } from '#cluster/journal/sessions.ts'
import type { EachPair, Key, StateBatch } from '#cluster/journal/state.ts'
import type { ShardEntry } from '#cluster/shard/shard-entry.ts'
import { ShardMachine } from '#cluster/shard/shard-machine.ts'
import { ForgetfulShard } from '#sim/forgetful-shard.ts'
import { firstFailure, testScenario } from '#sim/scenario-suite.ts'

import { shardFiles } from './shard-files.ts'

const SEEDS_MAX = 100

testScenario(shardFiles())

/** Keeps no history. */
class WithoutPast extends ShardMachine {
  override apply(batch: StateBatch, entry: ShardEntry): Answer {
    return super.apply(new PastlessBatch(batch), entry)
  }
}

class PastlessBatch implements StateBatch {
  readonly #batch: StateBatch

  constructor(batch: StateBatch) {
    this.#batch = batch
  }

  get isChanged(): boolean {
    return this.#batch.isChanged
  }

  get(key: Key): Buffer | undefined {
    return this.#batch.get(key)
  }

  range(from: Key, to: Key, each: EachPair): void {
    this.#batch.range(from, to, each)
  }

  rangeBackwards(from: Key, to: Key, each: EachPair): void {
    this.#batch.rangeBackwards(from, to, each)
  }

  put(key: Key, value: Buffer): void {
    if (!key.startsWith('h')) this.#batch.put(key, value)
  }

  remove(key: Key): void {
    this.#batch.remove(key)
  }
}

const DEFECTS: readonly [name: string, machine: ShardMachine, complaint: RegExp][] = [
  ['does a request again', new ForgetfulShard(), /was acknowledged|is missing|should be|Cannot/],
  ['loses its history', new WithoutPast(), /nothing owns it|should be/],
]

for (const [name, machine, complaint] of DEFECTS) {
  test(`a shard that ${name} is found`, async () => {
    const found = await firstFailure(shardFiles(machine), SEEDS_MAX)
    assert.match(String(found?.failure), complaint)
  })
}
