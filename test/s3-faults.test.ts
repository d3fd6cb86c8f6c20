/**
 * The S3 store when the network and the server misbehave: what comes back is right or an error, never part of a body, and
 * the number of requests is what it should be. Faults are made by a proxy before a real S3 server.
 */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { after, before, beforeEach, describe, test } from 'node:test'
import { crc32 } from 'node:zlib'

import { isOperationError, type ErrorCode } from '#base/errors.ts'
import { crc32Base64 } from '#store/s3/checksum.ts'
import { openS3Store } from '#store/s3/s3-store.ts'
import { S3Client } from '#store/s3/client.ts'
import { parseS3Url, type S3Options } from '#store/s3/endpoint.ts'
import { headObject } from '#store/s3/objects.ts'
import { ABSENT, ANY, type Entry, type Store } from '#store/store.ts'
import { makeBucket, s3OptionsOf } from '#test/servers/bucket.ts'
import { errorDocument, startFaultProxy, type Fault, type FaultProxy, type Noted } from '#test/servers/fault-proxy.ts'
import { radosgwMissing, startRadosgw, type Radosgw } from '#test/servers/radosgw.ts'

const MIB = 2 ** 20
const QUICK: S3Options = { probe: false, attemptsMax: 4, backoffMs: 1, ioTimeoutMs: 0, timeoutMs: 5000, partBytes: MIB }
const SLOW_DOWN: Fault = { kind: 'answer', status: 503, body: errorDocument('SlowDown') }

const rejectsWith = (promise: Promise<unknown>, code: ErrorCode): Promise<void> =>
  assert.rejects(promise, (error) => {
    assert.ok(isOperationError(error, code), String(error))
    return true
  })
/** One request, where no directory of that name has to be looked for. */
const stat = (of: Store, path: string): Promise<Entry> => of.stat(path, { expected: 'file' })
const isGet = (request: Noted): boolean => request.method === 'GET' && !request.url.includes('list-type')
const isList = (request: Noted): boolean => request.url.includes('list-type')
const isPut = (request: Noted): boolean => request.method === 'PUT'
const isPart = (request: Noted): boolean => isPut(request) && request.url.includes('partNumber')
const isComplete = (request: Noted): boolean => request.method === 'POST' && request.url.includes('uploadId')

describe('the S3 store under faults', { skip: radosgwMissing() }, () => {
  let server: Radosgw
  let proxy: FaultProxy
  let store: Store
  const open = (more: S3Options = {}, bucket = 'faults'): Promise<Store> =>
    openS3Store(`s3://${bucket}`, s3OptionsOf({ ...server, endpoint: proxy.endpoint }, { ...QUICK, ...more }))
  const methods = (): string[] => proxy.noted.map(({ method }) => method)
  const read = async (path: string, options = {}): Promise<Buffer> => (await store.read(path, options)).bytes()
  const stored = async (path: string, size: number): Promise<Buffer> => {
    const bytes = randomBytes(size)
    await store.put(path, bytes, { guard: ANY })
    proxy.clear()
    return bytes
  }

  before(async () => {
    server = await startRadosgw()
    proxy = await startFaultProxy(server.endpoint)
    await makeBucket(server, 'faults')
    store = await open()
  })
  after(async () => {
    await store?.close()
    await proxy?.close()
    await server?.stop()
  })
  beforeEach(() => proxy.clear())

  test('a server that asks for fewer requests is asked again until it answers', async () => {
    const bytes = await stored('storm', 1000)
    proxy.fault(isGet, SLOW_DOWN, 3)
    assert.deepEqual(await read('storm'), bytes)
    assert.equal(proxy.noted.length, 4)
  })

  test('a storm that does not end is an error after so many attempts', async () => {
    await stored('storm', 1000)
    proxy.fault(isGet, SLOW_DOWN, 100)
    await rejectsWith(read('storm'), 'STORE_THROTTLED')
    assert.equal(proxy.noted.length, 4)
  })

  test('the budget ends retries that go on for too long, and successes earn them again', async () => {
    const tired = await open()
    proxy.clear()
    proxy.fault(() => true, SLOW_DOWN, 10_000)
    for (let call = 0; call < 60; call++) await rejectsWith(stat(tired, 'storm'), 'STORE_THROTTLED')
    // A hundred retries and one attempt for each call.
    assert.equal(proxy.noted.length, 60 + 100)
    proxy.clear()
    for (let call = 0; call < 5; call++) await stat(tired, 'storm')
    proxy.clear()
    proxy.fault(() => true, SLOW_DOWN)
    await stat(tired, 'storm')
    assert.equal(proxy.noted.length, 2)
    await tired.close()
  })

  test('[S79] an endpoint that is gone, slow or in trouble is waited for, and each operation then succeeds', async () => {
    const patient = await open({ ioTimeoutMs: 60_000, attemptsMax: 1, timeoutMs: 200 })
    const bytes = await stored('outage', 1000)
    const hang: Fault = { kind: 'hang' }
    const outages: readonly (readonly [Fault, number])[] = [
      [{ kind: 'refuse' }, 9],
      [SLOW_DOWN, 9],
      [{ kind: 'answer', status: 500, body: errorDocument('InternalError') }, 9],
      [hang, 2],
    ]
    for (const [fault, times] of outages) {
      proxy.clear()
      proxy.fault(() => true, fault, times)
      assert.deepEqual(await (await patient.read('outage')).bytes(), bytes)
      assert.equal(proxy.noted.length, times + 1, JSON.stringify(fault))
    }
    proxy.clear()
    proxy.fault(isPut, { kind: 'refuse' }, 9)
    await patient.put('outage', randomBytes(10), { guard: ANY })
    assert.equal((await patient.stat('outage')).size, 10)
    await patient.close()
  })

  test('[S79] an outage that lasts is an error once its time is over, and no other error waits for it', async () => {
    await stored('outage', 1000)
    const hasty = await open({ ioTimeoutMs: 300, timeoutMs: 100 })
    for (const [fault, code] of [
      [{ kind: 'refuse' }, 'STORE_UNAVAILABLE'],
      [SLOW_DOWN, 'STORE_THROTTLED'],
      [{ kind: 'hang' }, 'STORE_TIMEOUT'],
    ] as const) {
      proxy.clear()
      proxy.fault(() => true, fault, 100_000)
      await rejectsWith(hasty.stat('outage'), code)
      if (code !== 'STORE_TIMEOUT') assert.ok(proxy.noted.length > 1, 'it was asked again')
    }
    await hasty.close()
    proxy.clear()
    const patient = await open({ ioTimeoutMs: 3_600_000, backoffMs: 1 })
    proxy.clear()
    proxy.fault(() => true, { kind: 'answer', status: 403, body: errorDocument('AccessDenied') }, 100)
    await rejectsWith(patient.stat('outage'), 'STORE_DENIED')
    assert.equal(proxy.noted.length, 1)
    proxy.clear()
    proxy.fault(isGet, { kind: 'answer', status: 200, body: 'short', headers: { 'content-length': '5' } }, 100)
    await rejectsWith(patient.read('outage'), 'STORE_PROTOCOL')
    await patient.close()
  })

  test('a store that is told to hurry gives an outage up that it was waiting for', async () => {
    const options = s3OptionsOf({ ...server, endpoint: proxy.endpoint }, { ...QUICK, ioTimeoutMs: 3_600_000 })
    const client = new S3Client(parseS3Url('s3://faults', options), server.region)
    proxy.fault(() => true, { kind: 'refuse' }, 100_000)
    const waiting = rejectsWith(headObject(client, 'outage', undefined), 'STORE_UNAVAILABLE')
    while (proxy.noted.length < 3) await new Promise((resolve) => setImmediate(resolve))
    client.hurry(50)
    await waiting
    await client.close()
  })

  test('an abort ends a pause', async () => {
    const patient = await open({ backoffMs: 1_000_000 })
    proxy.fault(isGet, SLOW_DOWN, 100)
    const controller = new AbortController()
    const reading = patient.read('storm', { signal: controller.signal })
    while (!proxy.noted.some(isGet)) await new Promise((resolve) => setImmediate(resolve))
    controller.abort()
    await rejectsWith(reading, 'ABORTED')
    await patient.close()
  })

  test('[S6] a body that is cut goes on from where it broke, of the same version', async () => {
    const bytes = await stored('cut', MIB)
    proxy.fault(isGet, { kind: 'cut', bytes: 500_000 }, 2)
    assert.deepEqual(await read('cut'), bytes)
    assert.equal(proxy.noted.length, 3)
    for (const { headers } of proxy.noted.slice(1)) {
      const from = Number(/^bytes=(\d+)-/.exec(headers.range ?? '')?.[1])
      assert.ok(from > 0 && from < MIB, headers.range)
      assert.match(headers['if-match'] ?? '', /^"[0-9a-f]{32}"$/)
    }
  })

  test('each part of a large read may break, and all is right', async () => {
    const bytes = await stored('large', 6 * MIB + 5)
    proxy.fault(isGet, { kind: 'cut', bytes: 100_000 }, 6)
    assert.deepEqual(await read('large'), bytes)
    proxy.fault(isGet, { kind: 'cut', bytes: 100_000 }, 6)
    const chunks: Uint8Array[] = []
    for await (const chunk of (await store.read('large')).body) chunks.push(chunk)
    assert.deepEqual(Buffer.concat(chunks), bytes)
  })

  test('a part that never comes whole fails the read; what came before is no short read', async () => {
    await stored('large', 6 * MIB)
    proxy.fault((request) => request.headers.range?.startsWith(`bytes=${4 * MIB}`) === true, SLOW_DOWN, 100)
    await rejectsWith(read('large'), 'STORE_THROTTLED')
    const reading = await store.read('large')
    let taken = 0
    await rejectsWith(
      (async () => {
        for await (const chunk of reading.body) taken += chunk.length
      })(),
      'STORE_THROTTLED',
    )
    assert.equal(taken, 4 * MIB)
  })

  test('[S6] a range that is shorter than it says, or another, is fetched again', async () => {
    const bytes = await stored('short', 10_000)
    const short: Fault = {
      kind: 'alter',
      alter: ({ status, headers, body }) => ({
        status,
        headers: { ...headers, 'content-length': '100' },
        body: body.subarray(0, 100),
      }),
    }
    const other: Fault = {
      kind: 'alter',
      alter: (upstream) => ({ ...upstream, headers: { ...upstream.headers, 'content-range': 'bytes 7-106/10000' } }),
    }
    proxy.fault(isGet, short)
    proxy.fault(isGet, other)
    assert.deepEqual(await read('short', { offset: 1000, length: 5000 }), bytes.subarray(1000, 6000))
    assert.equal(proxy.noted.length, 3)
  })

  test('[S5] a body of another version under the same request is refused', async () => {
    const bytes = await stored('turned', 3 * MIB)
    const etag = '"0123456789abcdef0123456789abcdef"'
    const turned: Fault = { kind: 'alter', alter: (up) => ({ ...up, headers: { ...up.headers, etag } }) }
    proxy.fault((request) => request.headers['if-match'] !== undefined, turned)
    assert.deepEqual(await read('turned'), bytes)
    proxy.fault((request) => request.headers['if-match'] !== undefined, turned, 100)
    await rejectsWith(read('turned'), 'STORE_CORRUPT')
  })

  test('[S6] a wrong checksum is fetched again, then an error without data', async () => {
    const bytes = await stored('checked', 50_000)
    const checksum = { 'x-amz-checksum-crc32': crc32Base64(crc32(bytes)) }
    const wrong: Fault = {
      kind: 'alter',
      alter: ({ status, headers, body }) => {
        const altered = Buffer.from(body)
        altered[49_999] = (altered[49_999] ?? 0) ^ 1
        return { status, headers: { ...headers, ...checksum }, body: altered }
      },
    }
    proxy.fault(isGet, wrong)
    assert.deepEqual(await read('checked'), bytes)
    assert.equal(proxy.noted.length, 2)
    proxy.clear()
    proxy.fault(isGet, wrong, 100)
    await rejectsWith(store.read('checked'), 'STORE_CORRUPT')
    assert.equal(proxy.noted.length, 3)
  })

  test('a wrong checksum of a large object withholds its last bytes', async () => {
    const bytes = await stored('checked-large', 5 * MIB)
    const checksum = { 'x-amz-checksum-crc32': crc32Base64(crc32(bytes) ^ 1) }
    const wrong: Fault = { kind: 'alter', alter: (up) => ({ ...up, headers: { ...up.headers, ...checksum } }) }
    proxy.fault(isGet, wrong, 1)
    await rejectsWith(read('checked-large'), 'STORE_CORRUPT')
    proxy.fault(isGet, wrong, 1)
    let taken = 0
    await rejectsWith(
      (async () => {
        for await (const chunk of (await store.read('checked-large')).body) taken += chunk.length
      })(),
      'STORE_CORRUPT',
    )
    assert.equal(taken, 4 * MIB)
  })

  test('a listing that is not XML is asked for again, then an error', async () => {
    await stored('listed/a', 1)
    const broken: Fault = { kind: 'answer', status: 200, body: '<ListBucketResult><Contents><Key>a</Key>' }
    const names = async (): Promise<string[]> => {
      const found: string[] = []
      for await (const page of store.list('listed')) found.push(...page.map(({ path }) => path))
      return found
    }
    proxy.fault(isList, broken, 2)
    assert.deepEqual(await names(), ['listed/a'])
    assert.equal(proxy.noted.length, 3)
    proxy.fault(isList, broken, 100)
    await rejectsWith(names(), 'STORE_CORRUPT')
    proxy.clear()
    proxy.fault(isList, { kind: 'answer', status: 200, body: '<html><body>Sign in</body></html>' }, 100)
    await rejectsWith(names(), 'STORE_CORRUPT')
  })

  test('an answer without a size, and a page without what follows it, are errors', async () => {
    await stored('sized', 1000)
    const unsized: Fault = {
      kind: 'alter',
      alter: ({ status, headers: { 'content-length': _length, ...headers }, body }) => ({ status, headers, body }),
    }
    proxy.fault(isGet, unsized)
    await rejectsWith(store.read('sized'), 'STORE_PROTOCOL')
    const cut = '<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>'
    proxy.fault(isList, { kind: 'answer', status: 200, body: cut }, 100)
    await rejectsWith(store.list('listed')[Symbol.asyncIterator]().next(), 'STORE_CORRUPT')
  })

  test('an answer that does not come is waited for so long and no longer', async () => {
    const hasty = await open({ timeoutMs: 300, attemptsMax: 2 })
    await stored('late', 10)
    proxy.fault((request) => request.method === 'HEAD', { kind: 'hang' })
    assert.equal((await stat(hasty, 'late')).size, 10)
    assert.deepEqual(methods(), ['HEAD', 'HEAD'])
    proxy.fault((request) => request.method === 'HEAD', { kind: 'hang' }, 2)
    await rejectsWith(stat(hasty, 'late'), 'STORE_TIMEOUT')
    await hasty.close()
  })

  test('an error in an answer of status 200 is an error', async () => {
    await stored('copied', 10)
    const error = (code: string): Fault => ({ kind: 'answer', status: 200, body: errorDocument(code) })
    proxy.fault(isPut, error('InternalError'))
    assert.equal((await store.copy('copied', 'copy', { guard: ANY })).size, 10)
    assert.deepEqual(methods(), ['HEAD', 'PUT', 'PUT'])
    proxy.fault(isPut, error('AccessDenied'))
    await rejectsWith(store.copy('copied', 'copy-2', { guard: ANY }), 'STORE_DENIED')
    await rejectsWith(store.stat('copy-2'), 'STORE_NOT_FOUND')
  })

  test('[S9] a put whose answer is lost has succeeded once, although its guard then fails', async () => {
    const guarded = await open({ probe: true })
    proxy.clear()
    proxy.fault(isPut, { kind: 'lose' })
    const bytes = randomBytes(1000)
    const put = await guarded.put('lost', bytes, { guard: ABSENT, attributes: { mode: 0o600 } })
    assert.deepEqual(methods(), ['PUT', 'PUT', 'HEAD'])
    assert.equal((await guarded.stat('lost')).version, put.version)
    assert.deepEqual(await read('lost'), bytes)
    await guarded.close()
  })

  test('a put whose connection breaks loses against what somebody else has put meanwhile', async () => {
    const guarded = await open({ probe: true })
    await stored('raced', 1000)
    proxy.fault(isPut, { kind: 'refuse' })
    await rejectsWith(guarded.put('raced', randomBytes(1000), { guard: ABSENT }), 'STORE_CONFLICT')
    assert.deepEqual(methods(), ['PUT', 'PUT', 'HEAD'])
    await guarded.close()
  })

  test('a put that meets a racing write is sent again', async () => {
    proxy.fault(isPut, { kind: 'answer', status: 409, body: errorDocument('ConditionalRequestConflict') })
    await store.put('conflicting', randomBytes(10), { guard: ANY })
    assert.deepEqual(methods(), ['PUT', 'PUT'])
  })

  test('parts of an upload are sent again, and an upload that fails is aborted', async () => {
    const bytes = randomBytes(5 * MIB + 5 * MIB)
    const large = await open({ partBytes: 5 * MIB })
    const put = (path: string): Promise<unknown> =>
      large.put(path, { kind: 'stream', stream: streamOf(bytes, 5) }, { guard: ANY })
    proxy.clear()
    proxy.fault(isPart, SLOW_DOWN, 2)
    proxy.fault(isPart, { kind: 'lose' }, 1)
    await put('parts')
    assert.deepEqual(await read('parts'), Buffer.concat([bytes, bytes.subarray(0, 5)]))
    proxy.clear()
    proxy.fault(isPart, { kind: 'answer', status: 403, body: errorDocument('AccessDenied') }, 100)
    await rejectsWith(put('aborted'), 'STORE_DENIED')
    assert.ok(proxy.noted.some(({ method, url }) => method === 'DELETE' && url.includes('uploadId')))
    await rejectsWith(store.stat('aborted'), 'STORE_NOT_FOUND')
    await large.close()
  })

  test('[S9] a completion whose answer is lost has succeeded', async () => {
    const bytes = randomBytes(11 * MIB)
    const large = await open({ partBytes: 5 * MIB })
    proxy.clear()
    proxy.fault(isComplete, { kind: 'lose' })
    const put = await large.put('completed', bytes, { guard: ANY })
    assert.equal(proxy.noted.filter(isComplete).length, 2)
    assert.equal((await large.stat('completed')).version, put.version)
    assert.deepEqual(await read('completed'), bytes)
    await large.close()
  })

  test('an endpoint that knows no checksums is sent none from then on', async () => {
    const old = await open()
    proxy.clear()
    const hasChecksum = (request: Noted): boolean => request.headers['x-amz-checksum-crc32'] !== undefined
    const body = `<Error><Code>NotImplemented</Code><Message>x-amz-checksum-crc32 is not known</Message></Error>`
    proxy.fault(hasChecksum, { kind: 'answer', status: 501, body }, 100)
    await old.put('unchecked', randomBytes(10), { guard: ANY })
    await old.put('unchecked', randomBytes(10), { guard: ANY })
    assert.deepEqual(proxy.noted.map(hasChecksum), [true, false, false])
    await old.close()
  })

  test('what an operator has to put right is one sentence at the opening', async () => {
    const opening = async (fault: Fault, code: ErrorCode, words: RegExp): Promise<void> => {
      proxy.clear()
      proxy.fault(isList, fault, 100)
      await assert.rejects(open(), (error) => {
        assert.ok(isOperationError(error, code), String(error))
        assert.match(error.message, words)
        assert.match(error.message, /^Cannot open bucket "faults" at http:\/\/127\.0\.0\.1:\d+: [^\n]*[^.]$/)
        return true
      })
    }
    const answer = (status: number, code: string, more = ''): Fault => ({
      ...{ kind: 'answer', status, body: errorDocument(code, more) },
      headers: { 'content-type': 'application/xml' },
    })
    await opening(answer(403, 'RequestTimeTooSkewed'), 'CLOCK_SKEWED', /clock of this machine/)
    await opening(answer(403, 'InvalidAccessKeyId'), 'CREDENTIALS_REFUSED', /credentials are not accepted/)
    await opening(answer(404, 'NoSuchBucket'), 'BUCKET_NOT_FOUND', /does not exist/)
    await opening({ kind: 'answer', status: 404, body: '<html>no</html>' }, 'STORE_PROTOCOL', /not an S3 server/)
    await opening(answer(403, 'AccessDenied'), 'STORE_DENIED', /AccessDenied/)
    await opening(answer(301, 'PermanentRedirect'), 'REGION_WRONG', /another region/)
    await opening(answer(503, 'ServiceUnavailable'), 'STORE_UNAVAILABLE', /ServiceUnavailable/)
    assert.equal(proxy.noted.length, 3, 'an opening gives up sooner')
    await opening({ kind: 'refuse' }, 'STORE_UNAVAILABLE', /./)
  })

  test('a bucket is followed to the region that the server names, once', async () => {
    const body = errorDocument('AuthorizationHeaderMalformed', '<Region>eu-south-9</Region>')
    proxy.fault(isList, { kind: 'answer', status: 400, body })
    const moved = await open()
    const regions = proxy.noted.map(({ headers }) => headers.authorization?.split('/')[2])
    assert.deepEqual(regions, ['us-east-1', 'eu-south-9'])
    await moved.close()
    proxy.clear()
    proxy.fault(isList, { kind: 'answer', status: 400, body }, 100)
    await rejectsWith(open(), 'REGION_WRONG')
    assert.equal(proxy.noted.length, 2)
  })

  test('credentials that may only read open the store, with guards that are only looked at', async () => {
    await makeBucket(server, 'read-only')
    proxy.clear()
    proxy.fault(isPut, { kind: 'answer', status: 403, body: errorDocument('AccessDenied') }, 100)
    const readOnly = await open({ probe: true }, 'read-only')
    assert.deepEqual(new Set(Object.values(readOnly.capabilities.guards)), new Set(['checked']))
    await readOnly.close()
  })
})

async function* streamOf(bytes: Uint8Array, more: number): AsyncGenerator<Uint8Array> {
  for (let start = 0; start < bytes.length; start += 100_000) yield bytes.subarray(start, start + 100_000)
  yield bytes.subarray(0, more)
}
