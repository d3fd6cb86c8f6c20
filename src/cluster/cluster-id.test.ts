import assert from 'node:assert/strict'
import { test } from 'node:test'

import { isOperationError } from '#base/errors.ts'

import { checkSameCluster, clusterIdOf, decodeClusterFile, encodeClusterFile, parseClusterId } from './cluster-id.ts'

const ID = clusterIdOf(Buffer.from('000102030405060708090a0b0c0dfeff', 'hex'))

test('the file of a cluster says which one it is, or nothing where a bit of it is another', () => {
  const bytes = encodeClusterFile(ID)
  assert.equal(decodeClusterFile(bytes), ID)
  for (let bit = 0; bit < bytes.length * 8; bit++) {
    const damaged = Buffer.from(bytes)
    damaged[bit >> 3] = (damaged[bit >> 3] ?? 0) ^ (1 << (bit & 7))
    assert.equal(decodeClusterFile(damaged), undefined)
  }
  for (let length = 0; length < bytes.length; length++)
    assert.equal(decodeClusterFile(bytes.subarray(0, length)), undefined)
  assert.equal(decodeClusterFile(Buffer.concat([bytes, Buffer.from('\n')])), undefined)
})

test('people write it in digits of either case, and nothing else passes for one', () => {
  assert.equal(parseClusterId(ID.toUpperCase()), ID)
  for (const text of ['', ID.slice(1), `${ID}0`, ID.replace('f', 'g'), ` ${ID}`, `${ID}\n`]) {
    assert.equal(parseClusterId(text), undefined)
  }
})

test('[S165] another cluster is named by both ids', () => {
  checkSameCluster('Cannot go on', ID, ID)
  const other = parseClusterId('f'.repeat(32))
  assert.ok(other !== undefined)
  assert.throws(
    () => checkSameCluster('Cannot go on', ID, other),
    (error) =>
      isOperationError(error, 'CLUSTER_MISMATCH') && error.message.includes(ID) && error.message.includes(other),
  )
})
