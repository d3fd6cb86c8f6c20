import assert from 'node:assert/strict'
import { createSecretKey } from 'node:crypto'
import { describe, test } from 'node:test'
import fc from 'fast-check'

import { signingKey } from '#store/s3/sigv4.ts'

import type { Signed } from './authenticate.ts'
import { ChunkedDecoder, type ChunkedOptions } from './chunked.ts'
import { S3Error } from './errors.ts'

/** The examples of the S3 API reference: 65 KiB of "a", then 1 KiB. */
function example(seed: string): Signed {
  return {
    payloadHash: 'STREAMING-AWS4-HMAC-SHA256-PAYLOAD',
    amzDate: '20130524T000000Z',
    scope: '20130524/us-east-1/s3/aws4_request',
    key: createSecretKey(signingKey('wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY', '20130524', 'us-east-1')),
    signature: seed,
  }
}
const SIGNED: ChunkedOptions = {
  signed: example('4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9'),
  trailers: false,
}
const SIGNED_BODY = chunks(
  [65_536, 'ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648'],
  [1024, '0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497'],
  [0, 'b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9'],
)
const TRAILED: ChunkedOptions = {
  signed: example('106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e'),
  trailers: true,
}
const TRAILED_BODY = `${chunks(
  [65_536, 'b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2'],
  [1024, '1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7'],
  [0, '2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992'],
).slice(
  0,
  -2,
)}x-amz-checksum-crc32c:sOO8/Q==\r\nx-amz-trailer-signature:d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435\r\n\r\n`

function chunks(...parts: readonly (readonly [size: number, signature: string])[]): string {
  return parts
    .map(([size, signature]) => `${size.toString(16)};chunk-signature=${signature}\r\n${'a'.repeat(size)}\r\n`)
    .join('')
}

/** The payload, or the code of the error. */
function decode(options: ChunkedOptions, body: string, pieces: readonly number[] = []): string {
  const decoder = new ChunkedDecoder(options)
  const bytes = Buffer.from(body, 'latin1')
  let payload = ''
  const emit = (piece: Buffer): void => void (payload += piece.toString('latin1'))
  try {
    let at = 0
    for (const size of pieces) {
      decoder.push(bytes.subarray(at, at + size), emit)
      at += size
    }
    decoder.push(bytes.subarray(at), emit)
    decoder.end()
  } catch (error) {
    if (error instanceof S3Error) return error.code
    throw error
  }
  return payload
}

describe('aws-chunked bodies', () => {
  test('the published example is decoded and its signatures hold', () => {
    assert.equal(decode(SIGNED, SIGNED_BODY), 'a'.repeat(66_560))
  })

  test('the published example with a signed trailer is decoded, and the trailer kept', () => {
    assert.equal(decode(TRAILED, TRAILED_BODY), 'a'.repeat(66_560))
    const decoder = new ChunkedDecoder(TRAILED)
    decoder.push(Buffer.from(TRAILED_BODY), () => {})
    decoder.end()
    assert.deepEqual([...decoder.trailers], [['x-amz-checksum-crc32c', 'sOO8/Q==']])
  })

  test('a body may come in pieces of any size', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: 3000 }), { maxLength: 60 }), (pieces) => {
        assert.equal(decode(TRAILED, TRAILED_BODY, pieces), 'a'.repeat(66_560))
      }),
      { seed: 20_261, numRuns: 50 },
    )
    assert.equal(decode({ signed: undefined, trailers: true }, '3\r\nabc\r\n0\r\n\r\n', Array(30).fill(1)), 'abc')
  })

  test('a changed byte, a missing chunk, a missing trailer and a changed order are refused', () => {
    assert.equal(
      decode(SIGNED, SIGNED_BODY.replace('aaab', 'aaaa').replace('aaaaa\r\n400', 'aaaab\r\n400')),
      'SignatureDoesNotMatch',
    )
    const [first = '', second = ''] = SIGNED_BODY.split(/(?<=a\r\n)/)
    assert.equal(decode(SIGNED, SIGNED_BODY.replace(first, '')), 'SignatureDoesNotMatch')
    assert.equal(decode(SIGNED, SIGNED_BODY.replace(second, '')), 'SignatureDoesNotMatch')
    assert.equal(decode(SIGNED, SIGNED_BODY.replaceAll(/;chunk-signature=\w+/g, '')), 'SignatureDoesNotMatch')
    assert.equal(decode(TRAILED, TRAILED_BODY.replace('sOO8', 'sOO9')), 'SignatureDoesNotMatch')
    assert.equal(decode(TRAILED, TRAILED_BODY.replace(/x-amz-trailer-signature.*\r\n/, '')), 'SignatureDoesNotMatch')
  })

  test('a body that is cut anywhere is not whole', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: SIGNED_BODY.length - 3 }), (length) => {
        assert.equal(decode(SIGNED, SIGNED_BODY.slice(0, length)), 'IncompleteBody')
      }),
      { seed: 20_261, numRuns: 100 },
    )
  })

  test('what is no chunk is refused within bounds', () => {
    const unsigned = { signed: undefined, trailers: true }
    for (const body of [
      'x\r\n',
      '-1\r\n',
      '1\r\nab\r\n0\r\n\r\n',
      '0\r\n\r\nmore',
      `1;${'x'.repeat(300)}`,
      `0\r\nno trailer\r\n\r\n`,
      `0\r\na:${'x'.repeat(9000)}`,
      'fffffffffffff\r\n',
    ]) {
      assert.equal(decode(unsigned, body), 'IncompleteBody', JSON.stringify(body.slice(0, 40)))
    }
    assert.equal(decode({ signed: undefined, trailers: false }, '0\r\na:b\r\n\r\n'), 'IncompleteBody')
  })
})
