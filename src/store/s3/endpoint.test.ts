import assert from 'node:assert/strict'
import { test } from 'node:test'

import { isOperationError } from '#base/errors.ts'
import { endpointOf, parseS3Url, requestPath } from './endpoint.ts'

test('a URL is read with its case, decoded once, its options as they are', () => {
  const url = 's3://bucket/A%20b/c+d/%C3%BC%3F/?endpoint=http%3A%2F%2Fh%3A1&style=virtual&anonymous=true&metadata=false'
  const { bucket, prefix, options } = parseS3Url(url, { region: 'eu-west-1', style: 'path' })
  assert.deepEqual([bucket, prefix], ['bucket', 'A b/c+d/ü?'])
  assert.deepEqual(options, {
    ...{ endpoint: 'http://h:1', style: 'path', anonymous: true, metadata: false },
    region: 'eu-west-1',
  })
  assert.deepEqual(parseS3Url('s3://bucket'), { bucket: 'bucket', prefix: '', options: {} })
})

test('what is no URL of a bucket is refused with a sentence', () => {
  const wrong = ['s3:/b/x', 's3://', 's3://b', 's3://bucket/a//b', 's3://bucket/../x', 's3://bucket/%ff/%00']
  const options = ['regio=x', 'style=x', 'anonymous=1', 'sse=x', 'region=']
  for (const url of [...wrong, ...options.map((option) => `s3://bucket?${option}`)]) {
    assert.throws(
      () => parseS3Url(url),
      (error) => isOperationError(error, 'INPUT_INVALID') && error.message.includes(url),
      url,
    )
  }
})

test('only options that users are told of are named as known', () => {
  assert.throws(
    () => parseS3Url('s3://bucket?foo=1'),
    (error: Error) => /known are endpoint, .*trustListing$/.test(error.message) && !error.message.includes('probe'),
  )
})

test('origins by style: virtual at Amazon, path where the name or the endpoint asks for it', () => {
  const of = (bucket: string, options = {}): string => {
    const endpoint = endpointOf(bucket, 'eu-west-1', options)
    return endpoint.origin + requestPath(endpoint, 'k')
  }
  assert.equal(of('b-1'), 'https://b-1.s3.eu-west-1.amazonaws.com/k')
  assert.equal(of('b.1'), 'https://s3.eu-west-1.amazonaws.com/b.1/k')
  assert.equal(of('b-1', { endpoint: 'http://h:9000/' }), 'http://h:9000/b-1/k')
  assert.equal(of('b-1', { endpoint: 'http://h:9000', style: 'virtual' }), 'http://b-1.h:9000/k')
  assert.equal(endpointOf('b-1', 'cn-north-1', {}).host, 'b-1.s3.cn-north-1.amazonaws.com.cn')
  for (const endpoint of ['h:9000', 'ftp://h', 'http://user:secret@h', 'http://h/?x']) {
    assert.throws(
      () => endpointOf('b-1', 'r', { endpoint }),
      (error) => isOperationError(error, 'INPUT_INVALID') && !error.message.includes('secret'),
    )
  }
  assert.throws(() => endpointOf('b-1', 'r', { endpoint: 'ftp://h' }), /Cannot use the endpoint "ftp:\/\/h": it is not/)
})

test('a key goes out as its bytes, whatever it looks like', () => {
  const endpoint = endpointOf('b-1', 'r', { endpoint: 'http://h' })
  assert.equal(requestPath(endpoint, 'a/../b//c+%\n💧'), '/b-1/a/../b//c%2B%25%0A%F0%9F%92%A7')
  assert.equal(requestPath(endpoint, undefined), '/b-1')
  assert.equal(requestPath(endpointOf('b-1', 'r', {}), undefined), '/')
})
