/** The registry by HTTP, on the port that the cluster has: what it answers, to whom, and that its description says so. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { request as httpRequest, type IncomingMessage } from 'node:http'
import { connect } from 'node:net'
import { after, before, describe, it } from 'node:test'

import type { DiskId } from '#cluster/block/permit.ts'
import { PATHS } from '#cluster/registry/http-api.ts'
import { openApi } from '#cluster/registry/openapi.ts'

import { diskOf, disksOf, registerAll, type RegistryFixture, startRegistry } from './registry-fixture.ts'

const PASSWORD = 'a-secret-of-the-cluster'
const SECRET = Buffer.from(PASSWORD)
const JSON_TYPE = { 'content-type': 'application/json' }

interface Answer {
  readonly status: number
  readonly headers: IncomingMessage['headers']
  readonly text: string
}

/** By node:http, which sends what headers it is told. */
function ask(url: string, method = 'GET', headers: Readonly<Record<string, string>> = {}, body = ''): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const request = httpRequest(url, { method, headers }, (response) => {
      let text = ''
      response.setEncoding('utf8').on('data', (chunk: string) => (text += chunk))
      response.on('end', () => resolve({ status: response.statusCode ?? 0, headers: response.headers, text }))
    })
    request.on('error', reject).end(body)
  })
}

type Json = Readonly<Record<string, unknown>>
const described = openApi() as { paths: Record<string, Record<string, Json>>; components: { schemas: Json } }

/** Whether a value is what a schema of the description says, and has nothing beyond it. */
function checkSchema(schema: Json, value: unknown, at: string): void {
  if (typeof schema['$ref'] === 'string') {
    const name = schema['$ref'].split('/').at(-1) ?? ''
    return checkSchema(described.components.schemas[name] as Json, value, `${at} (${name})`)
  }
  if (Array.isArray(schema['oneOf'])) {
    const fitting = (schema['oneOf'] as Json[]).filter((each) => (each['type'] === 'null') === (value === null))
    return checkSchema(fitting[0] ?? {}, value, at)
  }
  const types = [schema['type']].flat()
  const type = value === null ? 'null' : Array.isArray(value) ? 'array' : typeof value
  const isFitting = types.includes(type) || (type === 'number' && types.includes('integer') && Number.isInteger(value))
  assert(isFitting, `${at} is a ${type}, and was to be ${types.join(' or ')}`)
  if (Array.isArray(schema['enum'])) assert(schema['enum'].includes(value), `${at} is ${String(value)}`)
  if (type === 'array') for (const each of value as unknown[]) checkSchema(schema['items'] as Json, each, `${at}[]`)
  const properties = schema['properties'] as Record<string, Json> | undefined
  if (type !== 'object' || properties === undefined) return
  assert.deepEqual(Object.keys(value as Json).toSorted(), Object.keys(properties).toSorted(), at)
  for (const [name, each] of Object.entries(properties)) checkSchema(each, (value as Json)[name], `${at}.${name}`)
}

describe('the registry by HTTP', () => {
  let registry: RegistryFixture
  before(async () => {
    registry = await startRegistry()
    await registerAll(registry)
    registry.pass(200_000)
    for (const number of [1, 2, 3]) await registry.heartbeat('registerDisks', disksOf(number))
  })
  after(() => registry.close())

  it('answers by the description of itself, to the letter', async () => {
    assert.deepEqual(Object.keys(described.paths).toSorted(), PATHS.toSorted())
    for (const [path, methods] of Object.entries(described.paths)) {
      for (const [method, operation] of Object.entries(methods)) {
        const headers = method === 'post' ? JSON_TYPE : {}
        if (path === '/api/v1/events') continue
        const {
          status,
          headers: got,
          text,
        } = await ask(registry.url + path.replace('{id}', '4'), method.toUpperCase(), headers)
        const responses = operation['responses'] as Record<string, { content: Record<string, { schema: Json }> }>
        const response = responses[String(status)]
        assert(response !== undefined, `${method} ${path} was answered ${status}`)
        const [type = '', content] = Object.entries(response.content)[0] ?? []
        assert(got['content-type']?.startsWith(type), `${path}: ${got['content-type']}`)
        assert.equal(got['x-content-type-options'], 'nosniff')
        if (type === 'application/json') checkSchema(content?.schema ?? {}, JSON.parse(text), path)
      }
    }
    const { text } = await ask(`${registry.url}/api/v1/openapi.json`)
    assert.deepEqual(JSON.parse(text), openApi())
  })

  it('has its description beside the other formats', () => {
    const file = new URL('../docs/formats/registry-api.md', import.meta.url)
    const [, json = ''] = /```json\n(.*)```/s.exec(readFileSync(file, 'utf8')) ?? []
    assert.deepEqual(JSON.parse(json), openApi(), 'run "npm run docs"')
  })

  it('never tells the key of a disk', async () => {
    for (const path of Object.keys(described.paths).filter((each) => !each.includes('{') && !each.endsWith('events'))) {
      const { text } = await ask(registry.url + path)
      assert(!text.includes(Buffer.alloc(32, 1).toString('hex')) && !text.includes('"key"'), path)
      assert(!text.includes(Buffer.alloc(32, 1).toString('base64')), path)
      assert(!text.includes('"data":[1,1,1'), path)
    }
  })

  it('drains, resumes and terminates, the last only what is gone', async () => {
    const change = async (id: number | string, verb: string): Promise<[number, Json]> => {
      const { status, text } = await ask(`${registry.url}/api/v1/disks/${id}/${verb}`, 'POST', JSON_TYPE, '{}')
      return [status, JSON.parse(text) as Json]
    }
    const statusOf = ([status, { disk }]: [number, Json]): unknown => [status, (disk as Json)['status']]
    await registry.heartbeat('registerDisks', disksOf(7))
    assert.deepEqual(statusOf(await change(7, 'drain')), [200, 'drained'])
    assert.deepEqual(registry.server.view.disk(7 as DiskId)?.record.flags, ['no-write'])
    assert.deepEqual(statusOf(await change(7, 'drain')), [200, 'drained'])
    assert.deepEqual(statusOf(await change(7, 'resume')), [200, 'ok'])
    const [status, { code }] = await change(7, 'terminate')
    assert.deepEqual([status, code], [409, 'DISK_FLAG_REFUSED'])
    await registry.heartbeat('registerDisks', disksOf(7, { failure: 'EIO' }))
    assert.deepEqual(statusOf(await change(7, 'terminate')), [200, 'terminated'])
    assert.equal((await change(7, 'resume'))[0], 409)
    assert.equal((await change(99, 'drain'))[0], 404)
    assert.equal((await change('9999999999999999', 'drain'))[0], 404)
  })

  it('says what is wrong with a request, and changes nothing by it', async () => {
    const url = (path: string): string => registry.url + path
    const version = registry.server.view.version
    for (const [status, answer] of [
      [404, await ask(url('/api/v1/else'))],
      [404, await ask(url('/../etc/passwd'))],
      [404, await ask(url('/api/v1/disks/one/drain'), 'POST', JSON_TYPE)],
      [405, await ask(url('/api/v1/disks/1/drain'))],
      [405, await ask(url('/'), 'POST', JSON_TYPE)],
      [405, await ask(url('/api/v1/disks'), 'DELETE', JSON_TYPE)],
      [415, await ask(url('/api/v1/disks/1/drain'), 'POST')],
      [415, await ask(url('/api/v1/disks/1/drain'), 'POST', { 'content-type': 'text/plain' }, '{}')],
      [400, await ask(url('/api/v1/disks/1/drain'), 'POST', JSON_TYPE, 'x'.repeat(5000))],
    ] as const) {
      assert.equal(answer.status, status, answer.text)
      assert.deepEqual(Object.keys(JSON.parse(answer.text) as Json), ['code', 'message', 'hint'])
    }
    assert.equal(registry.server.view.version, version)
    const head = await ask(url('/api/v1/health'), 'HEAD')
    assert.deepEqual([head.status, head.text], [200, ''])
  })

  it('does nothing for pages of other origins, nor by names that are led here', async () => {
    const drain = `${registry.url}/api/v1/disks/1/drain`
    const { address } = registry
    for (const headers of [
      { origin: 'http://evil.example' },
      { origin: 'null' },
      { origin: `http://${address.replace(/\d+$/, '1')}` },
      { 'sec-fetch-site': 'cross-site' },
      { host: 'evil.example:80', origin: 'http://evil.example:80' },
      { host: 'localhost.evil.example' },
    ]) {
      const { status } = await ask(drain, 'POST', { ...JSON_TYPE, ...headers })
      assert.equal(status, 403, JSON.stringify(headers))
    }
    assert.deepEqual(registry.server.view.disk(1 as DiskId)?.record.flags, [])
    const read = (headers: Readonly<Record<string, string>>): Promise<Answer> => ask(`${registry.url}/`, 'GET', headers)
    assert.equal((await read({ host: 'evil.example' })).status, 403)
    // A proxy tells of somebody who is elsewhere.
    assert.equal((await read({ 'x-forwarded-for': '192.0.2.1' })).status, 403)
    const port = address.split(':')[1] ?? ''
    for (const host of [`localhost:${port}`, `[::1]:${port}`, '127.0.0.1'])
      assert.equal((await read({ host })).status, 200)
    const own = { ...JSON_TYPE, origin: registry.url, 'sec-fetch-site': 'same-origin' }
    assert.equal((await ask(`${registry.url}/api/v1/disks/1/drain`, 'POST', own)).status, 200)
    assert.equal((await ask(`${registry.url}/api/v1/disks/1/resume`, 'POST', own)).status, 200)
  })

  it('tells of changes as they come, and of what has changed alone', async () => {
    const events: { event: string; data: { disks: { id: number; status: string }[] } }[] = []
    let look = (): void => undefined
    const response = await new Promise<IncomingMessage>((resolve) => {
      httpRequest(`${registry.url}/api/v1/events`, resolve).end()
    })
    let rest = ''
    response.setEncoding('utf8').on('data', (chunk: string) => {
      const parts = (rest + chunk).split('\n\n')
      rest = parts.pop() ?? ''
      for (const part of parts) {
        const [, event, data] = /^event: (\w+)\ndata: (.*)$/.exec(part) ?? []
        if (event !== undefined && data !== undefined) events.push({ event, data: JSON.parse(data) as never })
      }
      look()
    })
    const until = (isThere: () => boolean): Promise<void> =>
      new Promise((resolve) => {
        look = () => {
          if (isThere()) resolve()
        }
        look()
      })
    await until(() => events.length > 0)
    assert.equal(events[0]?.event, 'all')
    checkSchema(described.components.schemas['Cluster'] as Json, events[0]?.data, 'the event')
    await registry.heartbeat('registerDisks', disksOf(2, { failure: 'EIO: it is broken' }))
    await until(() => events.some(({ data }) => data.disks.some((disk) => disk.id === 2 && disk.status === 'failed')))
    const last = events.at(-1)
    assert.equal(last?.event, 'change')
    assert.deepEqual(
      last?.data.disks.map(({ id }) => id),
      [2],
    )
    response.destroy()
  })

  it('serves the cluster on the same port', async () => {
    const { map } = await registry.heartbeat('map', { known: 0 })
    assert.equal(map?.shards.length, 2)
    await registry.heartbeat('registerDisks', { ...disksOf(8), disks: [diskOf(8), diskOf(9)] })
    const { text } = await ask(`${registry.url}/api/v1/disks`)
    assert((JSON.parse(text) as { disks: { id: number }[] }).disks.some(({ id }) => id === 9))
  })

  it('tells so many at a time of changes, and others that it is busy', async () => {
    const followers = await Promise.all(
      Array.from(
        { length: 64 },
        () =>
          new Promise<IncomingMessage>((resolve) => {
            httpRequest(`${registry.url}/api/v1/events`, { agent: false }, resolve).end()
          }),
      ),
    )
    const busy = await ask(`${registry.url}/api/v1/events`)
    assert.deepEqual([busy.status, (JSON.parse(busy.text) as Json)['code']], [503, 'CLUSTER_BUSY'])
    for (const each of followers) each.destroy()
    // One of them, once it is seen that the others are gone.
    for (;;) {
      const again = await new Promise<IncomingMessage>((resolve) => {
        httpRequest(`${registry.url}/api/v1/events`, { agent: false }, resolve).end()
      })
      again.destroy()
      if (again.statusCode === 200) break
    }
  })

  it('goes on after those who ask and do not wait for the answer', async () => {
    const port = Number(registry.address.split(':')[1])
    const head = 'POST /api/v1/disks/1/resume HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n'
    const closed = Array.from({ length: 50 }, async (_, index) => {
      const socket = connect(port, '127.0.0.1')
      // Half of them go before all of their body is there.
      socket
        .on('error', () => undefined)
        .write(`${head}content-length: ${index % 2 === 0 ? 2 : 20}\r\n\r\n{}`, () => {
          socket.destroy()
        })
      await new Promise((resolve) => {
        socket.on('close', resolve)
      })
    })
    await Promise.all(closed)
    assert.equal((await ask(`${registry.url}/api/v1/health`)).status, 200)
  })

  it('goes on after connections that are no HTTP, and with hundreds that say nothing', async () => {
    const { address } = registry
    const port = Number(address.split(':')[1])
    const idle = Array.from({ length: 300 }, () => {
      const socket = connect(port, '127.0.0.1')
      socket.on('error', () => undefined)
      return socket
    })
    for (const socket of idle) socket.write('GET / HTTP/1.1\r\n')
    const garbage = connect(port, '127.0.0.1')
    await new Promise((resolve) => {
      garbage.on('close', resolve).on('error', () => undefined)
      garbage.resume().end('\x01\x02\x03 nothing\r\n\r\n')
    })
    assert.equal((await registry.heartbeat('info', {})).disks > 0, true)
    for (const socket of idle) socket.destroy()
    const answers = async (): Promise<boolean> => {
      try {
        return (await ask(`${registry.url}/api/v1/health`)).status === 200
      } catch {
        return false
      }
    }
    while (!(await answers())) await new Promise((resolve) => setImmediate(resolve))
  })
})

describe('the registry of a cluster with a secret', () => {
  let registry: RegistryFixture
  before(async () => {
    registry = await startRegistry(SECRET)
    await registerAll(registry)
  })
  after(() => registry.close())

  it('is read on its machine, and changed by who knows the secret', async () => {
    assert.equal((await ask(`${registry.url}/api/v1/disks`)).status, 200)
    const drain = (headers: Readonly<Record<string, string>>): Promise<Answer> =>
      ask(`${registry.url}/api/v1/disks/1/drain`, 'POST', { ...JSON_TYPE, ...headers })
    const refused = await drain({})
    assert.equal(refused.status, 401)
    assert.match(refused.headers['www-authenticate'] ?? '', /^Basic realm=/)
    const basic = (password: string): string => `Basic ${Buffer.from(`anybody:${password}`).toString('base64')}`
    for (const authorization of ['Bearer wrong', basic('wrong'), basic(''), 'Bearer ', 'Digest x', PASSWORD]) {
      assert.equal((await drain({ authorization })).status, 401, authorization)
    }
    assert.deepEqual(registry.server.view.disk(1 as DiskId)?.record.flags, [])
    for (const authorization of [`Bearer ${PASSWORD}`, `bearer ${PASSWORD}`, basic(PASSWORD)]) {
      assert.equal((await drain({ authorization })).status, 200, authorization)
    }
    // The password alone is sent by browsers for pages of others, too.
    const foreign = { authorization: `Bearer ${PASSWORD}`, origin: 'http://evil.example' }
    assert.equal((await drain(foreign)).status, 403)
  })

  it('is read from elsewhere by who knows it, by any name', async () => {
    const elsewhere = { 'x-forwarded-for': '192.0.2.1', host: 'registry.example' }
    const read = (headers: Readonly<Record<string, string>>): Promise<Answer> => ask(`${registry.url}/`, 'GET', headers)
    assert.equal((await read(elsewhere)).status, 401)
    assert.equal((await read({ ...elsewhere, authorization: `Bearer ${PASSWORD}` })).status, 200)
    assert.equal((await read({ authorization: 'Bearer wrong' })).status, 401)
  })
})
