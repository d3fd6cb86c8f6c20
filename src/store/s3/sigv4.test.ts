import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  canonicalPath,
  canonicalQuery,
  canonicalRequest,
  chunkStringToSign,
  credentialScope,
  decodePercent,
  EMPTY_SHA256,
  encodePath,
  parseQuery,
  sign,
  signingKey,
  stringToSign,
} from './sigv4.ts'

// The examples that AWS publishes for S3 ("Examples: Signature Calculations", and of a chunked upload).
const SECRET = 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY'
const DATE = '20130524'
const AMZ_DATE = '20130524T000000Z'
const SCOPE = credentialScope(DATE, 'us-east-1')
const KEY = signingKey(SECRET, DATE, 'us-east-1')
const HOST = ['host', 'examplebucket.s3.amazonaws.com'] as const

test('GET with a range is signed as AWS shows', () => {
  const canonical = canonicalRequest({
    method: 'GET',
    path: '/test.txt',
    query: '',
    headers: [HOST, ['range', 'bytes=0-9'], ['x-amz-content-sha256', EMPTY_SHA256], ['x-amz-date', AMZ_DATE]],
    payloadHash: EMPTY_SHA256,
  })
  assert.equal(
    sign(KEY, stringToSign(AMZ_DATE, SCOPE, canonical)),
    'f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41',
  )
})

test('a list request is signed as AWS shows', () => {
  const canonical = canonicalRequest({
    method: 'GET',
    path: '/',
    query: canonicalQuery(parseQuery('prefix=J&max-keys=2')),
    headers: [HOST, ['x-amz-content-sha256', EMPTY_SHA256], ['x-amz-date', AMZ_DATE]],
    payloadHash: EMPTY_SHA256,
  })
  assert.equal(
    sign(KEY, stringToSign(AMZ_DATE, SCOPE, canonical)),
    '34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7',
  )
})

test('chunks are signed as AWS shows', () => {
  const seed = '4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9'
  const first = sign(KEY, chunkStringToSign(AMZ_DATE, SCOPE, seed, Buffer.alloc(65536, 'a')))
  assert.equal(first, 'ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648')
  const second = sign(KEY, chunkStringToSign(AMZ_DATE, SCOPE, first, Buffer.alloc(1024, 'a')))
  assert.equal(second, '0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497')
  const last = sign(KEY, chunkStringToSign(AMZ_DATE, SCOPE, second, Buffer.alloc(0)))
  assert.equal(last, 'b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9')
})

test('paths keep every byte, and are canonical however they were encoded', () => {
  assert.equal(encodePath('a b+c%/../é\u{1f600}//~'), 'a%20b%2Bc%25/../%C3%A9%F0%9F%98%80//~')
  for (const raw of ['/a%20b%2bc%25/../%c3%a9', '/a b+c%25/../é', '/a%20b+c%/../é']) {
    assert.equal(canonicalPath(raw), '/a%20b%2Bc%25/../%C3%A9')
  }
  assert.equal(canonicalPath(''), '/')
  assert.deepEqual(decodePercent('%41%zz%4'), Buffer.from('A%zz%4'))
})

test('queries are decoded once and sorted by encoded name, then value', () => {
  assert.deepEqual(parseQuery('b=2&a=x%3Dy&c&a=1+1&&d=%2B'), [
    ['b', '2'],
    ['a', 'x=y'],
    ['c', ''],
    ['a', '1 1'],
    ['d', '+'],
  ])
  assert.equal(canonicalQuery(parseQuery('b=2&a=x%3Dy&c&a=1+1&A=/')), 'A=%2F&a=1%201&a=x%3Dy&b=2&c=')
})
