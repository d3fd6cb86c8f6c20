import assert from 'node:assert/strict'
import { describe, test } from 'node:test'

import { decodeText, targetOf } from './exchange.ts'

const DOMAINS = ['localhost', '10.0.0.1', 's3.example.org']

function bucketAndKey(url: string, host = 'localhost:9000'): [string, string] {
  const { bucket, key } = targetOf(url, host, DOMAINS)
  return [bucket, key]
}

describe('what a request points at', () => {
  test('in path style: the first part is the bucket, the rest the key, decoded once and not normalised', () => {
    assert.deepEqual(bucketAndKey('/'), ['', ''])
    assert.deepEqual(bucketAndKey('/bucket'), ['bucket', ''])
    assert.deepEqual(bucketAndKey('/bucket/'), ['bucket', ''])
    assert.deepEqual(bucketAndKey('/bucket/a/b%2Fc%20d+e?x=/y'), ['bucket', 'a/b/c d+e'])
    assert.deepEqual(bucketAndKey('/bucket/../a//./b'), ['bucket', '../a//./b'])
    assert.deepEqual(bucketAndKey('/bucket/%252e'), ['bucket', '%2e'])
    assert.deepEqual(bucketAndKey('/bucket/100%'), ['bucket', '100%'])
    assert.deepEqual(bucketAndKey('http://localhost:9000/bucket/key'), ['bucket', 'key'])
  })

  test('in virtual-host style: the host has the bucket, dots and all', () => {
    assert.deepEqual(bucketAndKey('/a/b', 'bucket.localhost:9000'), ['bucket', 'a/b'])
    assert.deepEqual(bucketAndKey('/', 'my.bucket.S3.Example.org'), ['my.bucket', ''])
    assert.deepEqual(bucketAndKey('/bucket/key', 's3.example.org'), ['bucket', 'key'])
    assert.deepEqual(bucketAndKey('/bucket/key', 'elsewhere.net'), ['bucket', 'key'])
    assert.deepEqual(bucketAndKey('/bucket/key', 'notlocalhost'), ['bucket', 'key'])
  })

  test('a key that is not UTF-8 is refused', () => {
    assert.equal(decodeText('%F0%9F%98%80'), '😀')
    assert.equal(decodeText('%EF%BF%BD'), '\ufffd')
    for (const raw of ['%ff', 'a%C3', '%ed%a0%80']) assert.throws(() => decodeText(raw), { code: 'InvalidURI' })
    assert.throws(() => bucketAndKey('*'), { code: 'InvalidURI' })
  })
})
