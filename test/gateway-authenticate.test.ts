/** Signatures as the gateway verifies them: the published examples, and everything that must be refused. */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'

import { Authenticator, type RequestHead } from '#gateway/authenticate.ts'
import { S3Error } from '#gateway/errors.ts'
import { presigned, signedHeaders } from '#test/servers/signed-request.ts'

/** The key pair and the time of the examples in the S3 API reference. */
const EXAMPLE = {
  accessKey: 'AKIAIOSFODNN7EXAMPLE',
  secretKey: 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY',
}
const EXAMPLE_MS = Date.UTC(2013, 4, 24)
const NOW_MS = Date.UTC(2026, 10, 21, 12)

function headOf(method: string, target: string, headers: Record<string, string>): RequestHead {
  const [rawPath = '', rawQuery = ''] = target.split(/\?(.*)/s)
  const lower = Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]))
  return { method, rawPath, rawQuery, headers: lower, rawHeaders: Object.entries(headers).flat() }
}

function codeOf(action: () => unknown): string {
  try {
    action()
  } catch (error) {
    if (error instanceof S3Error) return error.code
    throw error
  }
  return 'accepted'
}

const authenticator = new Authenticator({ ...EXAMPLE, region: undefined })

/** What becomes of a request that is signed right, and then changed. */
function verdict(
  request: Partial<Parameters<typeof signedHeaders>[0]> = {},
  change: (headers: Record<string, string>) => void = () => {},
  sent: { method?: string; target?: string } = {},
  by = authenticator,
): string {
  const complete = { method: 'GET', target: '/bucket/a%20b?x=1', host: 'localhost:9000', timeMs: NOW_MS, ...request }
  const { headers } = signedHeaders(complete, EXAMPLE)
  change(headers)
  return codeOf(() =>
    by.verify(headOf(sent.method ?? complete.method, sent.target ?? complete.target, headers), NOW_MS),
  )
}

/** What becomes of a presigned request. */
function verdictOfUrl(request: object = {}, change = (target: string): string => target): string {
  const target = presigned({ method: 'GET', target: '/bucket/key', host: 'h', timeMs: NOW_MS, ...request }, EXAMPLE)
  return codeOf(() => authenticator.verify(headOf('GET', change(target), { host: 'h' }), NOW_MS))
}

describe('signatures', () => {
  test('the published example of a GET with a range is accepted', () => {
    const head = headOf('GET', '/test.txt', {
      Host: 'examplebucket.s3.amazonaws.com',
      Range: 'bytes=0-9',
      'x-amz-content-sha256': 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855',
      'x-amz-date': '20130524T000000Z',
      Authorization:
        'AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41',
    })
    assert.equal(authenticator.verify(head, EXAMPLE_MS).amzDate, '20130524T000000Z')
  })

  test('the published example of a presigned URL is accepted, and so for its day', () => {
    const target =
      '/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404'
    const head = headOf('GET', target, { host: 'examplebucket.s3.amazonaws.com' })
    assert.equal(authenticator.verify(head, EXAMPLE_MS).payloadHash, 'UNSIGNED-PAYLOAD')
    authenticator.verify(head, EXAMPLE_MS + 86_400_000)
    assert.equal(
      codeOf(() => authenticator.verify(head, EXAMPLE_MS + 86_401_000)),
      'AccessDenied',
    )
  })

  test('[S34] anything that was signed and then changed is refused', () => {
    assert.equal(verdict(), 'accepted')
    assert.equal(
      verdict({}, () => {}, { target: '/bucket/a%20c?x=1' }),
      'SignatureDoesNotMatch',
    )
    assert.equal(
      verdict({}, () => {}, { target: '/bucket/a%20b?x=2' }),
      'SignatureDoesNotMatch',
    )
    assert.equal(
      verdict({}, () => {}, { target: '/bucket/./a%20b?x=1' }),
      'SignatureDoesNotMatch',
    )
    assert.equal(
      verdict({}, () => {}, { method: 'DELETE' }),
      'SignatureDoesNotMatch',
    )
    assert.equal(
      verdict({}, (headers) => (headers['host'] = 'elsewhere')),
      'SignatureDoesNotMatch',
    )
    assert.equal(
      verdict({}, (headers) => (headers['x-amz-content-sha256'] = '0'.repeat(64))),
      'SignatureDoesNotMatch',
    )
    const cut = (headers: Record<string, string>): string =>
      (headers['authorization'] = headers['authorization']?.slice(0, -1) ?? '')
    assert.equal(verdict({}, cut), 'SignatureDoesNotMatch')
    assert.equal(
      verdict({ headers: { 'x-amz-meta-a': '1' } }, (headers) => (headers['x-amz-meta-a'] = '2')),
      'SignatureDoesNotMatch',
    )
  })

  test('an amz header or a host that is not signed is refused', () => {
    assert.equal(
      verdict({}, (headers) => (headers['x-amz-meta-added'] = 'later')),
      'AccessDenied',
    )
    const unsignHost = (headers: Record<string, string>): string =>
      (headers['authorization'] = headers['authorization']?.replace('SignedHeaders=host;', 'SignedHeaders=') ?? '')
    assert.equal(verdict({}, unsignHost), 'AccessDenied')
    assert.equal(
      verdict({}, (headers) => void delete headers['host']),
      'AccessDenied',
    )
  })

  test('headers are signed as their sender meant them: trimmed, several joined, UTF-8 or Latin-1', () => {
    assert.equal(verdict({ headers: { 'x-amz-meta-a': '  two   spaces ' } }), 'accepted')
    assert.equal(
      verdict(
        { headers: { 'x-amz-meta-a': 'ü' } },
        (headers) => (headers['x-amz-meta-a'] = Buffer.from('ü').toString('latin1')),
      ),
      'accepted',
    )
    assert.equal(verdict({ headers: { 'x-amz-meta-a': 'ü' } }), 'accepted')
    const { headers } = signedHeaders(
      { method: 'GET', target: '/b', host: 'h', timeMs: NOW_MS, headers: { 'x-amz-meta-a': 'one,two' } },
      EXAMPLE,
    )
    const head = headOf('GET', '/b', headers)
    const rawHeaders = [...head.rawHeaders, 'X-Amz-Meta-A', 'one', 'X-Amz-Meta-A', 'two'].filter(
      (_, index, all) => all[index - (index % 2)] !== 'x-amz-meta-a',
    )
    authenticator.verify({ ...head, headers: { ...head.headers, 'x-amz-meta-a': 'one, two' }, rawHeaders }, NOW_MS)
  })

  test('[S34] a request is good for 15 minutes before and after its time', () => {
    const minute = 60_000
    assert.equal(verdict({ timeMs: NOW_MS - 15 * minute }), 'accepted')
    assert.equal(verdict({ timeMs: NOW_MS + 15 * minute }), 'accepted')
    assert.equal(verdict({ timeMs: NOW_MS - 16 * minute }), 'RequestTimeTooSkewed')
    assert.equal(verdict({ timeMs: NOW_MS + 16 * minute }), 'RequestTimeTooSkewed')
    assert.equal(
      verdict({}, (headers) => (headers['x-amz-date'] = '20261399T250000Z')),
      'AuthorizationHeaderMalformed',
    )
    assert.equal(
      verdict({}, (headers) => (headers['x-amz-date'] = '20261121T999999Z')),
      'AccessDenied',
    )
    assert.equal(
      verdict({}, (headers) => void delete headers['x-amz-date']),
      'AccessDenied',
    )
  })

  test('another key, no key, another scheme and another scope are refused', () => {
    assert.equal(
      verdict({}, (headers) => void delete headers['authorization']),
      'AccessDenied',
    )
    assert.equal(verdict({ headers: { 'x-amz-security-token': 'x' } }), 'InvalidToken')
    const change = (from: RegExp, to: string) => (headers: Record<string, string>) =>
      void (headers['authorization'] = headers['authorization']?.replace(from, to) ?? '')
    assert.equal(verdict({}, change(/AKIA\w+/, 'AKIAOTHER')), 'InvalidAccessKeyId')
    assert.equal(verdict({}, change(/AWS4-HMAC-SHA256/, 'AWS4-ECDSA-P256-SHA256')), 'InvalidRequest')
    assert.equal(verdict({}, change(/\/s3\//, '/sqs/')), 'AuthorizationHeaderMalformed')
    assert.equal(verdict({}, change(/\/20261121\//, '/20261120/')), 'AuthorizationHeaderMalformed')
    assert.equal(verdict({}, change(/Credential=[^,]+/, 'Credential=x')), 'AuthorizationHeaderMalformed')
    assert.equal(verdict({}, change(/Signature=.*/, '')), 'AuthorizationHeaderMalformed')
    assert.equal(
      codeOf(() => authenticator.verify(headOf('GET', '/?AWSAccessKeyId=x&Signature=y', { host: 'h' }), NOW_MS)),
      'InvalidRequest',
    )
  })

  test('a gateway in a region names it to who signs for another; one in none takes any', () => {
    const here = new Authenticator({ ...EXAMPLE, region: 'eu-west-1' })
    assert.equal(
      verdict({ region: 'eu-west-1' }, () => {}, {}, here),
      'accepted',
    )
    assert.equal(
      verdict({ region: 'us-east-1' }, () => {}, {}, here),
      'AuthorizationHeaderMalformed',
    )
    assert.equal(verdict({ region: 'anywhere-9' }), 'accepted')
  })

  test('[S34] a presigned URL lives from 1 second to 7 days, and is good for nothing else', () => {
    assert.equal(verdictOfUrl(), 'accepted')
    assert.equal(verdictOfUrl({ expires: 604_800, timeMs: NOW_MS - 604_000_000 }), 'accepted')
    for (const expires of [0, 604_801, -1, '1e3', '', 'x']) {
      assert.equal(verdictOfUrl({ expires }), 'AuthorizationQueryParametersError', String(expires))
    }
    assert.equal(verdictOfUrl({ timeMs: NOW_MS - 901_000 }), 'AccessDenied')
    assert.equal(verdictOfUrl({ timeMs: NOW_MS + 16 * 60_000 }), 'AccessDenied')
    assert.equal(
      verdictOfUrl({}, (target) => target.replace('key', 'other')),
      'SignatureDoesNotMatch',
    )
    assert.equal(
      verdictOfUrl({}, (target) => `${target}&versionId=null`),
      'SignatureDoesNotMatch',
    )
    assert.equal(
      verdictOfUrl({}, (target) => target.replace('Expires=900', 'Expires=901')),
      'SignatureDoesNotMatch',
    )
    assert.equal(
      verdictOfUrl({}, (target) => target.replace(/&X-Amz-Signature=.*/, '')),
      'AuthorizationQueryParametersError',
    )
    assert.equal(
      verdictOfUrl({}, (target) => `${target}&X-Amz-Date=20261121T120000Z`),
      'AuthorizationQueryParametersError',
    )
  })
})
