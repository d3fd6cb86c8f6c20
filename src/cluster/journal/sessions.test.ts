import assert from 'node:assert/strict'
import { describe, test } from 'node:test'

import { OperationError } from '#base/errors.ts'

import { MemoryState } from './memory-state.ts'
import { findAnswer, forgetAnswers, keepAnswer, type Answer } from './sessions.ts'
import { WorkingBatch, WorkingState } from './working-state.ts'

class Sessions {
  readonly state = new WorkingState(new MemoryState())
  #entry = 0

  do<T>(work: (batch: WorkingBatch) => T): T {
    return work(new WorkingBatch(this.state, ++this.#entry))
  }

  keep(client: number, slot: number, sequence: number, timeUs: number, more: Partial<Kept> = {}): void {
    const { shard = 0, isInternal = false, answer = { body: Buffer.from(`${client} ${slot} ${sequence}`) } } = more
    this.do((batch) => keepAnswer(batch, { client, slot, sequence, shard, isInternal }, timeUs, answer))
  }

  find(client: number, slot: number, sequence: number, shard = 0): string | undefined {
    const found = findAnswer(this.state, shard, { client, slot, sequence })
    return found === undefined ? undefined : 'body' in found ? found.body.toString() : found.refusal.code
  }
}

interface Kept {
  readonly shard: number
  readonly isInternal: boolean
  readonly answer: Answer
}

describe('sessions', () => {
  test('[S150] the same request is given its answer, a later one none, an earlier one is refused', () => {
    const sessions = new Sessions()
    assert.equal(sessions.find(1, 0, 1), undefined)
    sessions.keep(1, 0, 5, 10)
    assert.equal(sessions.find(1, 0, 5), '1 0 5')
    assert.equal(sessions.find(1, 0, 6), undefined)
    assert.throws(() => sessions.find(1, 0, 4), { code: 'REQUEST_STALE' })
    sessions.keep(1, 0, 9, 11)
    assert.throws(() => sessions.find(1, 0, 5), { code: 'REQUEST_STALE' })
  })

  test('[S150] another request under an id that was used is refused, and not given an answer that was not meant for it', () => {
    const sessions = new Sessions()
    const [id, answer] = [{ client: 1, slot: 0, sequence: 5 }, { body: Buffer.from('made') }]
    sessions.do((batch) => keepAnswer(batch, { ...id, shard: 0, isInternal: true }, 10, answer, 77))
    assert.deepEqual(findAnswer(sessions.state, 0, id, 77), { body: Buffer.from('made') })
    assert.throws(() => findAnswer(sessions.state, 0, id, 78), { code: 'REQUEST_STALE' })
  })

  test('[S150] slots, clients and shards are apart', () => {
    const sessions = new Sessions()
    const big = Number.MAX_SAFE_INTEGER
    sessions.keep(1, 0, 5, 10)
    sessions.keep(1, 256, 6, 10)
    sessions.keep(big, 65_535, big, 10, { shard: 255 })
    assert.equal(sessions.find(1, 1, 1), undefined)
    assert.equal(sessions.find(2, 0, 1), undefined)
    assert.equal(sessions.find(1, 0, 1, 1), undefined)
    assert.equal(sessions.find(1, 256, 6), '1 256 6')
    assert.equal(sessions.find(big, 65_535, big, 255), `${big} 65535 ${big}`)
  })

  test('[S150] a refusal is kept as one, with its code, message and hint', () => {
    const sessions = new Sessions()
    const refusal = new OperationError('NAME_TAKEN', 'Cannot: it is there', { hint: 'Try another.' })
    sessions.keep(1, 0, 1, 10, { answer: { refusal } })
    const found = findAnswer(sessions.state, 0, { client: 1, slot: 0, sequence: 1 })
    assert.ok(found !== undefined && 'refusal' in found)
    assert.deepEqual(
      [found.refusal.code, found.refusal.message, found.refusal.hint],
      ['NAME_TAKEN', refusal.message, refusal.hint],
    )
  })

  test('old answers are forgotten, a few at a time, and those to the cluster itself never', () => {
    const sessions = new Sessions()
    for (let client = 1; client <= 300; client++) {
      sessions.keep(client, 0, 1, client % 2 === 0 ? 50 : 150, { isInternal: client % 10 === 0, shard: client % 3 })
    }
    let passes = 0
    for (let from: string | undefined = ''; from !== undefined; passes++) {
      const at: string = from
      from = sessions.do((batch) => forgetAnswers(batch, at, 100, 100))
    }
    assert.equal(passes, 3)
    for (let client = 1; client <= 300; client++) {
      const isKept = client % 2 === 1 || client % 10 === 0
      assert.equal(sessions.find(client, 0, 1, client % 3) !== undefined, isKept)
    }
  })

  test('an answer of exactly the age is kept, and no other kind of record is touched', () => {
    const sessions = new Sessions()
    sessions.do((batch) => {
      batch.put('b', Buffer.alloc(20))
      batch.put('d', Buffer.alloc(20))
    })
    sessions.keep(1, 0, 1, 100)
    sessions.do((batch) => forgetAnswers(batch, '', 100, 10))
    assert.equal(sessions.find(1, 0, 1), '1 0 1')
    sessions.do((batch) => forgetAnswers(batch, '', 101, 10))
    assert.equal(sessions.find(1, 0, 1), undefined)
    assert.notEqual(sessions.state.get('b'), undefined)
    assert.notEqual(sessions.state.get('d'), undefined)
  })
})
