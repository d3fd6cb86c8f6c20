/** `eider registry` as a process: what it keeps over its end and over a kill, its secret, and what keeps it from serving. */
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { get } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { after, test } from 'node:test'
import { promisify } from 'node:util'

import { registryMessages } from '#cluster/registry/registry-messages.ts'
import { systemSurroundings } from '#cluster/system-surroundings.ts'
import { Caller } from '#cluster/wire/caller.ts'
import type { Message } from '#cluster/wire/message.ts'
import type { TcpNetworkOptions } from '#cluster/wire/tcp-network.ts'

import { eider, type Running, startEider } from './eider-process.ts'
import { disksOf, ofCluster } from './registry-fixture.ts'

const SERVING = /^Registry at (\S+); its page is (http\S+)\n/
const scratch = mkdtempSync(join(tmpdir(), 'eider-cli-registry-'))
const running = new Set<Running>()
const run = promisify(execFile)

after(async () => {
  for (const each of running) {
    each.child.kill('SIGKILL')
    await each.ended
  }
  rmSync(scratch, { recursive: true, force: true })
})

function start(data: string, ...args: readonly string[]): Running {
  const started = startEider(['registry', '--data', join(scratch, data), '--listen=127.0.0.1:0', ...args], {
    cwd: scratch,
  })
  running.add(started)
  return started
}

async function end(registry: Running, signal: NodeJS.Signals): Promise<number | null> {
  running.delete(registry)
  registry.child.kill(signal)
  return registry.ended
}

async function ask<Q, R>(
  address: string,
  message: Message<Q, R>,
  request: object,
  security: TcpNetworkOptions = {},
): Promise<R> {
  const caller = new Caller(systemSurroundings(security), { isInternal: true })
  try {
    const target = { name: 'the registry', address: () => address }
    const { cluster } = await caller.call(target, registryMessages.greet, {})
    return await caller.call(target, message, ofCluster(cluster, request) as Q)
  } finally {
    caller.close()
  }
}

test('what was acknowledged is there after an end and after a kill, and the versions of the map grow', async () => {
  let version = 0
  for (const [signal, code] of [
    ['SIGKILL', null],
    ['SIGTERM', 0],
    ['SIGKILL', null],
  ] as const) {
    const registry = start('data')
    const [, address = '', page = ''] = await registry.shows(SERVING)
    const { disks, ...map } = (await (await fetch(`${page}api/v1/map`)).json()) as {
      version: number
      disks: { id: number }[]
    }
    assert(map.version > version, 'a version is above those of before')
    assert.deepEqual(
      disks.map(({ id }) => id),
      version === 0 ? [] : [1],
    )
    version = (await ask(address, registryMessages.registerDisks, disksOf(1))).version
    const headers = { 'content-type': 'application/json' }
    const drained = await fetch(`${page}api/v1/disks/1/drain`, { method: 'POST', headers })
    assert.match(await drained.text(), /"status":"drained"/)
    // A browser that looks on does not keep it from ending.
    const events = await fetch(`${page}api/v1/events`)
    assert.equal(events.headers.get('content-type'), 'text/event-stream')
    assert.equal(await end(registry, signal), code)
    await events.body?.cancel().catch(() => undefined)
  }
  const registry = start('data')
  const [, , page = ''] = await registry.shows(SERVING)
  assert.match(await (await fetch(`${page}api/v1/disks`)).text(), /"status":"drained","flags":\["no-write"\]/)
  assert.match(await (await fetch(`${page}metrics`)).text(), /^eider_cluster_disks 1$/m)
  await end(registry, 'SIGTERM')
})

test('with a secret, processes and changes need it', async () => {
  const file = join(scratch, 'secret')
  writeFileSync(file, 'the-secret-of-this-cluster\n', { mode: 0o600 })
  const secret = Buffer.from('the-secret-of-this-cluster')
  const registry = start('secret-data', '--secret-file', file)
  const [, address = '', page = ''] = await registry.shows(SERVING)
  await ask(address, registryMessages.registerDisks, disksOf(1), { secret })
  await assert.rejects(ask(address, registryMessages.registerDisks, disksOf(2)), { code: 'WIRE_REFUSED' })
  const drain = (authorization: string): Promise<Response> => {
    const headers = { 'content-type': 'application/json', authorization }
    return fetch(`${page}api/v1/disks/1/drain`, { method: 'POST', headers })
  }
  assert.equal((await drain('Bearer something-else')).status, 401)
  assert.equal((await drain(`Bearer ${secret.toString()}`)).status, 200)
  assert.equal(await end(registry, 'SIGTERM'), 0)
  assert(!registry.stderr.includes(secret.toString()) && !registry.stdout.includes(secret.toString()))
})

test('with TLS, processes and browsers speak by it, and nothing goes in the clear', async () => {
  const [key, cert] = [join(scratch, 'key.pem'), join(scratch, 'cert.pem')]
  const request = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '1']
  const names = ['-subj', '/CN=registry', '-addext', 'subjectAltName=IP:127.0.0.1']
  await run('openssl', [...request, ...names, '-keyout', key, '-out', cert])
  const registry = start('tls-data', '--tls-key', key, '--tls-cert', cert)
  const [, address = '', page = ''] = await registry.shows(SERVING)
  assert.match(page, /^https:/)
  const ca = readFileSync(cert, 'utf8')
  await ask(address, registryMessages.registerDisks, disksOf(1), { tls: { ca } })
  const health = await new Promise<string>((resolve, reject) => {
    get(`${page}api/v1/health`, { ca, agent: false }, (response) => resolve(text(response))).on('error', reject)
  })
  assert.match(health, /"disks":1/)
  await assert.rejects(fetch(page.replace('https', 'http')))
  assert.equal(await end(registry, 'SIGTERM'), 0)
})

test('what keeps it from serving is one sentence', async () => {
  const registry = start('busy')
  const [, address = ''] = await registry.shows(SERVING)
  const refused = async (pattern: RegExp, code: number, ...args: readonly string[]): Promise<void> => {
    const outcome = await eider(['registry', ...args], { cwd: scratch })
    assert.match(outcome.stderr, pattern)
    assert.equal(outcome.code, code)
  }
  const other = join(scratch, 'other')
  await refused(/^eider: Cannot listen at /m, 1, '--data', other, '--listen', address)
  await refused(
    /^eider: Cannot open the state in .*: process \d+ uses it/m,
    1,
    '--data',
    join(scratch, 'busy'),
    '--listen',
    '127.0.0.1:0',
  )
  await refused(
    /^eider: Cannot listen at 0\.0\.0\.0:0: .*there is no secret\n {2}hint: /m,
    1,
    '--data',
    other,
    '--listen',
    '0.0.0.0:0',
  )
  await refused(/^eider: Cannot read the secret from /m, 2, '--data', other, '--secret-file', join(scratch, 'absent'))
  await refused(/--tls-key and --tls-cert go together/, 2, '--data', other, '--tls-key', join(scratch, 'absent'))
  await end(registry, 'SIGTERM')
})
