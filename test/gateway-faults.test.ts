/**
 * The gateway under clients that are broken, slow or hostile: nothing partial is ever stored, nothing outside the buckets
 * is ever reached, and it goes on serving.
 */
import assert from 'node:assert/strict'
import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { mkdir, mkdtemp, readFile, readdir, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test, type TestContext } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'

import { startTestGateway, type TestGateway } from '#test/servers/gateway.ts'
import { RawConnection, sendRaw, type RawAnswer } from '#test/servers/raw-http.ts'
import { presigned, signedHeaders, wireRequest, type ToSign } from '#test/servers/signed-request.ts'

const MINUTE_MS = 60_000

let gateway: TestGateway | undefined
let nowMs = Date.now()

function server(): TestGateway {
  assert.ok(gateway !== undefined, 'the gateway has started')
  return gateway
}

before(async () => {
  gateway = await startTestGateway({
    nowMs: () => nowMs,
    limits: { headerMs: 1500, connectionsMax: 100 },
    bodyIdleMs: 1000,
  })
  await mkdir(join(server().root, 'bucket'))
  // Made at the first put, and not to be taken for a leak later.
  await request('PUT', '/bucket/warm', { body: 'x' })
})
after(async () => {
  await gateway?.stop()
})

type Ask = Omit<Partial<ToSign>, 'method' | 'target'> & {
  readonly wireBody?: string | Buffer
  readonly extra?: Record<string, string>
}

/** The bytes of a signed request; `extra` headers are not signed, `wireBody` is sent in place of the body signed for. */
function bytesOf(method: string, target: string, ask: Ask = {}): Buffer {
  const { wireBody, extra, ...toSign } = ask
  const host = `127.0.0.1:${server().port}`
  const { headers } = signedHeaders({ method, target, host, timeMs: nowMs, ...toSign }, server())
  const body = wireBody ?? toSign.body ?? ''
  const length = { 'content-length': String(Buffer.byteLength(body)) }
  return wireRequest(method, target, { ...headers, ...(method === 'GET' ? {} : length), ...extra }, body)
}

function request(method: string, target: string, ask: Ask = {}): Promise<RawAnswer> {
  return sendRaw(server().port, bytesOf(method, target, ask), method)
}

/** `403 AccessDenied` */
function told({ status, body }: RawAnswer): string {
  const code = /<Code>(\w+)<\/Code>/.exec(body.toString())?.[1]
  return code === undefined ? String(status) : `${status} ${code}`
}

function stored(key: string): string {
  return join(server().root, 'bucket', key)
}

/** Files that a store has not finished, in the directories of all its processes. */
function temporaries(root: string): string[] {
  const entries = readdirSync(join(root, '.eider'), { recursive: true, withFileTypes: true })
  return entries
    .filter((entry) => entry.isFile() && entry.parentPath.startsWith(join(root, '.eider/tmp')))
    .map(({ name }) => name)
}

/** Waits until `holds` does; fails after some seconds. */
async function until(what: string, holds: () => boolean): Promise<void> {
  const end = performance.now() + 10_000
  while (!holds()) {
    assert.ok(performance.now() < end, what)
    await sleep(10)
  }
}

describe('who may not', () => {
  test('[S34] unsigned, wrongly signed, expired and replayed requests are refused and change nothing', async () => {
    const host = `127.0.0.1:${server().port}`
    const unsigned = wireRequest('PUT', '/bucket/refused', { host, 'content-length': '1' }, 'x')
    assert.equal(told(await sendRaw(server().port, unsigned)), '403 AccessDenied')
    assert.equal(told(await sendRaw(server().port, wireRequest('GET', '/', { host }))), '403 AccessDenied')
    const wrong = bytesOf('PUT', '/bucket/refused', { body: 'x' })
      .toString('latin1')
      .replace(/Signature=\w{8}/, 'Signature=00000000')
    assert.equal(told(await sendRaw(server().port, wrong)), '403 SignatureDoesNotMatch')
    const recorded = bytesOf('PUT', '/bucket/replayed', { body: 'x' })
    assert.equal(told(await sendRaw(server().port, recorded)), '200')
    await rm(stored('replayed'))
    nowMs += 16 * MINUTE_MS
    assert.equal(told(await sendRaw(server().port, recorded)), '403 RequestTimeTooSkewed')
    const url = presigned({ method: 'GET', target: '/bucket/warm', host, timeMs: nowMs, expires: 60 }, server())
    assert.equal(told(await sendRaw(server().port, wireRequest('GET', url, { host }))), '200')
    nowMs += 2 * MINUTE_MS
    assert.equal(told(await sendRaw(server().port, wireRequest('GET', url, { host }))), '403 AccessDenied')
    assert.deepEqual([existsSync(stored('refused')), existsSync(stored('replayed'))], [false, false])
  })

  test('a client that waits for 100 hears it only when it may send', async () => {
    const expect = { expect: '100-continue' }
    const body = randomBytes(100_000)
    const [head = ''] = bytesOf('PUT', '/bucket/expected', { body, extra: expect }).toString('latin1').split('\r\n\r\n')
    const allowed = await RawConnection.open(server().port)
    allowed.write(Buffer.from(`${head}\r\n\r\n`, 'latin1'))
    assert.equal((await allowed.answer())?.status, 100)
    allowed.write(body)
    assert.equal((await allowed.answer())?.status, 200)
    allowed.close()
    for (const change of [/Signature=\w{8}/, /127\.0\.0\.1/]) {
      const refused = await RawConnection.open(server().port)
      refused.write(Buffer.from(`${head.replace(change, 'Signature=00000000')}\r\n\r\n`, 'latin1'))
      assert.equal((await refused.answer())?.status, 403)
      await refused.untilClosed()
    }
  })
})

describe('bodies that are not what they say', () => {
  test('[S36] store nothing, and leave what was there', async () => {
    const old = 'what was there'
    await request('PUT', '/bucket/kept', { body: old })
    const large = randomBytes(3 << 20)
    const changed = Buffer.from(large)
    changed[changed.length - 1] = (changed.at(-1) ?? 0) ^ 1
    const crc = { 'x-amz-checksum-crc32': 'AAAAAA==' }
    const cases: [string, string, Ask][] = [
      ['a hash of other bytes', '400 XAmzContentSHA256Mismatch', { body: 'new', wireBody: 'NEW' }],
      ['a hash of other bytes, streamed', '400 XAmzContentSHA256Mismatch', { body: large, wireBody: changed }],
      [
        'a wrong Content-MD5',
        '400 BadDigest',
        { body: 'new', headers: { 'content-md5': Buffer.alloc(16).toString('base64') } },
      ],
      ['a malformed Content-MD5', '400 InvalidDigest', { body: 'new', headers: { 'content-md5': 'xyz' } }],
      ['a wrong checksum', '400 BadDigest', { body: large, headers: crc }],
      ['a malformed checksum', '400 InvalidRequest', { body: 'new', headers: { 'x-amz-checksum-crc32': 'xyz' } }],
      ['two checksums', '400 InvalidRequest', { body: 'new', headers: { ...crc, 'x-amz-checksum-sha1': 'x' } }],
      ['an unknown payload word', '400 InvalidArgument', { body: 'new', payloadHash: 'UNSIGNED' }],
      ['too large', '400 EntityTooLarge', { body: '', extra: { 'content-length': String(6 * 2 ** 30) } }],
    ]
    for (const [name, expected, ask] of cases) {
      assert.equal(told(await request('PUT', '/bucket/kept', ask)), expected, name)
      assert.equal(await readFile(stored('kept'), 'utf8'), old, name)
    }
    assert.deepEqual(temporaries(server().root), [])
  })

  test('[S36] in chunks: a changed chunk, a changed trailer, one that is cut or of another length', async () => {
    const payload = 'x'.repeat(300_000)
    const length = { 'x-amz-decoded-content-length': String(payload.length) }
    const chunk = (text: string): string => `${text.length.toString(16)}\r\n${text}\r\n`
    const crc = Buffer.alloc(4).toString('base64')
    const trailed = {
      payloadHash: 'STREAMING-UNSIGNED-PAYLOAD-TRAILER',
      headers: { ...length, 'x-amz-trailer': 'x-amz-checksum-crc32' },
    }
    const cases: [string, string, Ask][] = [
      [
        'wrong trailer',
        '400 BadDigest',
        { ...trailed, wireBody: `${chunk(payload)}0\r\nx-amz-checksum-crc32:${crc}\r\n\r\n` },
      ],
      ['no trailer', '400 InvalidRequest', { ...trailed, wireBody: `${chunk(payload)}0\r\n\r\n` }],
      ['cut', '400 IncompleteBody', { ...trailed, wireBody: chunk(payload) }],
      [
        'too short',
        '400 IncompleteBody',
        { ...trailed, wireBody: `${chunk('x')}0\r\nx-amz-checksum-crc32:${crc}\r\n\r\n` },
      ],
      ['too long', '400 IncompleteBody', { ...trailed, wireBody: `${chunk(`${payload}x`)}0\r\n\r\n` }],
      [
        'unsigned chunks',
        '403 SignatureDoesNotMatch',
        { payloadHash: 'STREAMING-AWS4-HMAC-SHA256-PAYLOAD', headers: length, wireBody: `${chunk(payload)}0\r\n\r\n` },
      ],
      [
        'no length',
        '411 MissingContentLength',
        { payloadHash: 'STREAMING-UNSIGNED-PAYLOAD-TRAILER', wireBody: chunk(payload) },
      ],
    ]
    for (const [name, expected, ask] of cases) {
      assert.equal(told(await request('PUT', '/bucket/chunked', ask)), expected, name)
      assert.equal(existsSync(stored('chunked')), false, name)
    }
    const plain = bytesOf('PUT', '/bucket/chunked', { payloadHash: 'UNSIGNED-PAYLOAD' }).toString('latin1')
    const without = plain.replace('content-length: 0', 'transfer-encoding: chunked').concat('1\r\nx\r\n0\r\n\r\n')
    assert.equal(told(await sendRaw(server().port, without)), '411 MissingContentLength')
    assert.deepEqual(temporaries(server().root), [])
  })

  test('uploads and downloads that are cut store nothing and leave no descriptor open', async () => {
    const body = randomBytes(2 << 20)
    assert.equal(told(await request('PUT', '/bucket/large', { body })), '200')
    const whole = bytesOf('PUT', '/bucket/cut', { body })
    const descriptors = (): number => readdirSync('/proc/self/fd').length
    const atFirst = descriptors()
    for (let round = 0; round < 40; round++) {
      const up = await RawConnection.open(server().port)
      up.write(whole.subarray(0, Math.floor((whole.length * round) / 40)))
      const down = await RawConnection.open(server().port)
      down.write(bytesOf('GET', '/bucket/large'))
      if (round % 2 === 0) await once(down.socket, 'data')
      up.close()
      down.close()
    }
    await until('all descriptors are closed again', () => descriptors() <= atFirst)
    await until('all temporary files are removed', () => temporaries(server().root).length === 0)
    assert.equal(existsSync(stored('cut')), false)
    const back = await request('GET', '/bucket/large')
    assert.equal(createHash('sha256').update(back.body).digest('hex'), createHash('sha256').update(body).digest('hex'))
  })
})

describe('documents', () => {
  const post = (body: string): Promise<RawAnswer> => request('POST', '/bucket?delete', { body })

  test('[S41] bombs, nonsense and too much of anything are refused', async () => {
    const bomb = `<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">${Array.from({ length: 20 }, (_, i) => `<!ENTITY b${i} "${'&a;'.repeat(50)}">`).join('')}]><Delete><Object><Key>&b19;</Key></Object></Delete>`
    assert.equal(told(await post(bomb)), '400 MalformedXML')
    assert.equal(told(await post('')), '400 MissingRequestBodyError')
    for (const text of [
      'x',
      '<Delete>',
      '<Delete/>',
      '<Other><Object><Key>k</Key></Object></Other>',
      '<a>'.repeat(50_000),
      `${'<a>'.repeat(1000)}${'</a>'.repeat(1000)}`,
      `<Delete><Object>${'<Key>'.repeat(100)}${'</Key>'.repeat(100)}</Object></Delete>`,
    ]) {
      assert.equal(told(await post(text)), '400 MalformedXML', text.slice(0, 50))
    }
    const keys = (count: number): string => `<Delete>${'<Object><Key>none</Key></Object>'.repeat(count)}</Delete>`
    assert.equal(told(await post(keys(1000))), '200')
    assert.equal(told(await post(keys(1001))), '400 MalformedXML')
    assert.equal(told(await post(`<Delete>${' '.repeat(3 << 20)}</Delete>`)), '400 MaxMessageLengthExceeded')
  })
})

describe('keys', () => {
  test('[S35] never lead out of their bucket, however they are written', async () => {
    const { root, directory } = server()
    await writeFile(join(directory, 'secret'), 'CONTENT')
    await writeFile(join(root, 'secret'), 'CONTENT')
    await mkdir(join(root, 'other-bucket'))
    await writeFile(join(root, 'other-bucket/secret'), 'CONTENT')
    await symlink('/etc', stored('link'))
    await symlink('../other-bucket', stored('inner'))
    const outside = () => [
      readdirSync(directory).toSorted(),
      readdirSync(root).toSorted(),
      readdirSync(join(root, 'other-bucket')),
      readdirSync(join(root, '.eider')).toSorted(),
    ]
    const atFirst = outside()
    const targets = [
      '../secret',
      '../../secret',
      '../../../../../../etc/passwd',
      '%2e%2e/secret',
      '%2e%2e%2fsecret',
      '..%2fsecret',
      '..%2f..%2fsecret',
      '%2E%2E/%2E%2E/secret',
      'a/../../secret',
      'a/..%2f..%2fsecret',
      './secret',
      'a/./secret',
      '/secret',
      '/etc/passwd',
      '%2fetc%2fpasswd',
      'a//secret',
      'secret%00',
      '%00',
      '..',
      '.',
      '%2e%2e',
      '../.eider/lock',
      '../other-bucket/secret',
      'link/passwd',
      'inner/secret',
    ]
    for (const key of targets) {
      const target = `/bucket/${key}`
      const got = await request('GET', target)
      assert.match(told(got), /^(404 NoSuchKey|400 \w+)$/, `GET ${key}`)
      assert.doesNotMatch(got.body.toString(), /CONTENT|root:/)
      assert.match(told(await request('HEAD', target)), /^40[04]$/, `HEAD ${key}`)
      assert.match(
        told(await request('PUT', target, { body: 'overwritten' })),
        /^(400 InvalidArgument|409 InvalidRequest)$/,
        `PUT ${key}`,
      )
      assert.match(told(await request('DELETE', target)), /^(204|400 \w+|409 \w+)$/, `DELETE ${key}`)
      const source = { 'x-amz-copy-source': target }
      assert.match(
        told(await request('PUT', '/bucket/copied', { headers: source })),
        /^(404 NoSuchKey|400 \w+)$/,
        `copy of ${key}`,
      )
      assert.match(
        told(await request('POST', `${target}?uploads`, { body: '' })),
        /^(400 \w+|200)$/,
        `upload to ${key}`,
      )
      const list = await request('GET', `/bucket?list-type=2&prefix=${encodeURIComponent(decodeURIComponent(key))}`)
      assert.equal(list.status, 200)
      assert.doesNotMatch(list.body.toString(), /<Contents>/)
    }
    for (const bucket of ['..', '%2e%2e', '.eider', '.', 'secret']) {
      assert.match(told(await request('GET', `/${bucket}/secret`)), /^404 NoSuchBucket$/, bucket)
      assert.match(told(await request('PUT', `/${bucket}/x`, { body: 'x' })), /^404 NoSuchBucket$/, bucket)
      assert.match(told(await request('DELETE', `/${bucket}`)), /^404 NoSuchBucket$/, bucket)
    }
    assert.deepEqual(outside(), atFirst)
    assert.equal(await readFile(join(root, 'other-bucket/secret'), 'utf8'), 'CONTENT')
    assert.equal((await request('GET', '/bucket/link')).body.toString(), '/etc', 'a symlink is its target as text')
  })

  test('[S80] of fifos and sockets are keys of nothing', async () => {
    const bucket = join(server().root, 'bucket')
    await mkdir(join(bucket, 'special'))
    await writeFile(join(bucket, 'special/file'), 'here')
    execFileSync('mkfifo', [join(bucket, 'special/pipe')])
    assert.match((await request('GET', '/bucket/special/file')).body.toString(), /here/)
    assert.equal((await request('GET', '/bucket/special/pipe')).status, 404)
    assert.equal((await request('HEAD', '/bucket/special/pipe')).status, 404)
    for (const query of ['list-type=2&prefix=special%2F', 'list-type=2&prefix=special%2F&delimiter=%2F']) {
      const listed = (await request('GET', `/bucket?${query}`)).body.toString()
      assert.match(listed, /<Key>special\/file<\/Key>/)
      assert.doesNotMatch(listed, /pipe/)
    }
    await rm(join(bucket, 'special'), { recursive: true })
  })

  test('that cannot be held are refused with the reason', async () => {
    const put = async (key: string): Promise<string> => told(await request('PUT', `/bucket/${key}`, { body: 'x' }))
    assert.equal(await put('x'.repeat(256)), '400 KeyTooLongError')
    assert.equal(await put(`${'x/'.repeat(600)}x`), '400 KeyTooLongError')
    assert.equal(await put('%ff'), '400 InvalidURI')
    assert.equal(await put('dir/'), '400 InvalidArgument')
    assert.equal(await put('a-file'), '200')
    assert.equal(await put('a-file/below'), '409 InvalidRequest')
    assert.equal(await put('a-dir/file'), '200')
    assert.equal(await put('a-dir'), '409 InvalidRequest')
    const absent = { headers: { 'if-none-match': '*' }, body: 'x' }
    assert.equal(told(await request('PUT', '/bucket/a-dir', absent)), '409 InvalidRequest')
    const meta = { 'x-amz-meta-long': 'x'.repeat(2100) }
    assert.equal(told(await request('PUT', '/bucket/meta', { body: 'x', headers: meta })), '400 MetadataTooLarge')
  })
})

describe('HTTP', () => {
  test('[S41] heads that are too large, too many, malformed or slow are refused, and the gateway goes on', async () => {
    const { port } = server()
    const host = `127.0.0.1:${port}`
    const large = await sendRaw(port, wireRequest('GET', '/', { host, 'x-large': 'x'.repeat(20_000) }))
    assert.equal(told(large), '431 RequestHeaderSectionTooLarge')
    const many = Object.fromEntries(Array.from({ length: 300 }, (_, index) => [`x-h${index}`, '1']))
    assert.equal(told(await sendRaw(port, wireRequest('GET', '/', { host, ...many }))), '400 BadRequest')
    assert.equal(told(await sendRaw(port, 'nonsense\r\n\r\n')), '400 BadRequest')
    assert.equal(
      told(await sendRaw(port, `GET / HTTP/1.1\r\nHost: ${host}\r\nContent-Length: x\r\n\r\n`)),
      '400 BadRequest',
    )
    const both = 'Content-Length: 5\r\nTransfer-Encoding: chunked'
    assert.equal(
      told(await sendRaw(port, `POST / HTTP/1.1\r\nHost: ${host}\r\n${both}\r\n\r\n0\r\n\r\n`)),
      '400 BadRequest',
    )
    const slow = await RawConnection.open(port)
    slow.write('GET / HTTP/1.1\r\n')
    const timer = setInterval(() => slow.write('X-Slow: 1\r\n'), 100)
    const answer = await slow.answer()
    clearInterval(timer)
    assert.equal(answer?.status, 408)
    await slow.untilClosed()
    const silent = await RawConnection.open(port)
    await silent.untilClosed()
    assert.equal(told(await request('GET', '/bucket/warm')), '200')
  })

  test('a body that stops coming is given up, and a client that stops reading is cut off', async () => {
    const body = randomBytes(1 << 20)
    const bytes = bytesOf('PUT', '/bucket/stalled', { body })
    const sender = await RawConnection.open(server().port)
    sender.write(bytes.subarray(0, bytes.length - 10))
    const answer = await sender.answer()
    assert.ok(answer !== undefined)
    assert.equal(told(answer), '400 RequestTimeout')
    await sender.untilClosed()
    assert.equal(existsSync(stored('stalled')), false)
    await writeFile(stored('huge'), Buffer.alloc(64 << 20))
    const reader = await RawConnection.open(server().port)
    reader.socket.pause()
    reader.write(bytesOf('GET', '/bucket/huge'))
    const ended = once(reader.socket, 'close')
    await sleep(2500)
    reader.socket.resume()
    await ended
    assert.equal(await reader.answer(), undefined, 'the answer is not whole')
    await rm(stored('huge'))
  })

  test('pipelined requests are answered in order, each seeing what the one before did', async () => {
    const connection = await RawConnection.open(server().port)
    const parts = [
      bytesOf('PUT', '/bucket/piped', { body: 'one' }),
      bytesOf('GET', '/bucket/piped'),
      bytesOf('PUT', '/bucket/piped', { body: 'two!' }),
      bytesOf('HEAD', '/bucket/piped'),
      bytesOf('DELETE', '/bucket/piped'),
      bytesOf('GET', '/bucket/piped'),
    ]
    connection.write(Buffer.concat(parts))
    assert.equal((await connection.answer())?.status, 200)
    assert.equal((await connection.answer())?.body.toString(), 'one')
    assert.equal((await connection.answer())?.status, 200)
    assert.equal((await connection.answer('HEAD'))?.headers['content-length'], '4')
    assert.equal((await connection.answer())?.status, 204)
    assert.equal((await connection.answer())?.status, 404)
    connection.close()
  })

  test('HTTP/1.0 is answered, and the connection closed', async () => {
    const connection = await RawConnection.open(server().port)
    connection.write(bytesOf('GET', '/bucket/warm').toString('latin1').replace('HTTP/1.1', 'HTTP/1.0'))
    assert.equal((await connection.answer())?.body.toString(), 'x')
    await connection.untilClosed()
  })

  test('connections above the bound are told to come back', async () => {
    const open: RawConnection[] = []
    for (let index = 0; index < 100; index++) open.push(await RawConnection.open(server().port))
    const above = await RawConnection.open(server().port)
    const answer = await above.answer()
    assert.ok(answer !== undefined)
    assert.equal(told(answer), '503 SlowDown')
    for (const connection of open) connection.close()
    await until('there is room again', () => open.every((connection) => connection.closed))
    assert.equal(told(await request('GET', '/bucket/warm')), '200')
  })
})

const KEYS = { accessKey: 'EIDERCHILD', secretKey: 'child-secret' }

interface Child {
  readonly process: ChildProcess
  readonly port: number
  readonly exited: Promise<unknown>
}

async function startChild(directory: string): Promise<Child> {
  const program = fileURLToPath(import.meta.resolve('#test/servers/gateway-process.ts'))
  const args = [program, join(directory, 'root'), join(directory, 'staging'), KEYS.accessKey, KEYS.secretKey]
  const child = spawn(process.execPath, args, { stdio: ['pipe', 'pipe', 'inherit'] })
  const exited = once(child, 'exit')
  const [line] = (await once(child.stdout, 'data')) as [Buffer]
  return { process: child, port: Number(line.toString()), exited }
}

async function inDirectory(t: TestContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'eider-gateway-child-'))
  await mkdir(join(directory, 'root/bucket'), { recursive: true })
  t.after(() => rm(directory, { recursive: true, force: true }))
  return directory
}

function childRequest(port: number, method: string, target: string, body: string | Buffer = ''): Buffer {
  const { headers } = signedHeaders({ method, target, host: `127.0.0.1:${port}`, body }, KEYS)
  return wireRequest(method, target, { ...headers, 'content-length': String(Buffer.byteLength(body)) }, body)
}

describe('a gateway in a process of its own', () => {
  test('[S2] is killed in the middle of puts, and has whole objects only, those acknowledged among them', async (t) => {
    const directory = await inDirectory(t)
    const bodyOf = (key: string): Buffer => Buffer.alloc(700_000, key)
    const acknowledged = new Set<string>()
    for (let round = 0; round < 3; round++) {
      const child = await startChild(directory)
      let count = 0
      const work = async (worker: number): Promise<void> => {
        const connection = await RawConnection.open(child.port)
        for (let index = 0; !connection.closed; index++) {
          const key = `round-${round}/${worker}/${index}`
          connection.write(childRequest(child.port, 'PUT', `/bucket/${key}`, bodyOf(key)))
          if ((await connection.answer())?.status !== 200) return
          acknowledged.add(key)
          if (++count === 30) child.process.kill('SIGKILL')
        }
      }
      await Promise.all([0, 1, 2, 3].map(work))
      await child.exited
    }
    const child = await startChild(directory)
    t.after(() => child.process.kill())
    const bucket = join(directory, 'root/bucket')
    const files = (await readdir(bucket, { recursive: true, withFileTypes: true })).filter((entry) => entry.isFile())
    assert.ok(acknowledged.size >= 90)
    for (const key of acknowledged) assert.ok(existsSync(join(bucket, key)), `${key} was acknowledged`)
    for (const { parentPath, name } of files) {
      const key = join(parentPath, name).slice(bucket.length + 1)
      assert.ok(readFileSync(join(bucket, key)).equals(bodyOf(key)), `${key} is whole`)
    }
    assert.deepEqual(temporaries(join(directory, 'root')), [])
    const answer = await sendRaw(child.port, childRequest(child.port, 'GET', '/bucket?list-type=2&max-keys=1'))
    assert.equal(answer.status, 200)
  })

  test('[S41] holds 10,000 connections, or as many as this machine allows, and goes on answering', async (t) => {
    const directory = await inDirectory(t)
    const child = await startChild(directory)
    t.after(() => child.process.kill())
    const limit = Number(/Max open files\s+(\d+)/.exec(readFileSync('/proc/self/limits', 'latin1'))?.[1])
    const wanted = Math.min(10_000, limit - 200, Math.floor((limit - 256) * 0.75)) - 10
    const residentKib = (): number =>
      Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${child.process.pid}/status`, 'latin1'))?.[1])
    await sendRaw(child.port, childRequest(child.port, 'GET', '/bucket'))
    const atFirst = residentKib()
    const open: RawConnection[] = []
    for (let done = 0; done < wanted; done += 250) {
      const count = Math.min(250, wanted - done)
      open.push(...(await Promise.all(Array.from({ length: count }, () => RawConnection.open(child.port)))))
    }
    // Each has asked something once, and now waits with its connection open.
    for (const connection of open) connection.write(childRequest(child.port, 'GET', '/bucket/none'))
    for (const connection of open) assert.equal((await connection.answer())?.status, 404)
    const kibEach = (residentKib() - atFirst) / wanted
    t.diagnostic(`${wanted} connections, ${kibEach.toFixed(1)} KiB each`)
    assert.ok(kibEach < 64, `a connection costs ${kibEach} KiB`)
    const answer = await sendRaw(child.port, childRequest(child.port, 'PUT', '/bucket/key', 'x'))
    assert.equal(answer.status, 200)
    const last = open.at(-1)
    last?.write(childRequest(child.port, 'GET', '/bucket/key'))
    assert.equal((await last?.answer())?.body.toString(), 'x')
    for (const connection of open) connection.close()
  })
})
