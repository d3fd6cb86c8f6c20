/** `eider serve s3` as a process: its keys, its metrics, its log, its end. */
import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { GetObjectCommand, PutObjectCommand, S3Client } from '@aws-sdk/client-s3'
import { eider, type Running, startEider } from './eider-process.ts'
import { freePorts } from './servers/free-port.ts'

const scratch = mkdtempSync(join(tmpdir(), 'eider-cli-serve-'))
const state = join(scratch, 'state')
const SECRET = 'a-secret-that-must-not-be-logged'
const KEYS = { EIDER_ACCESS_KEY: 'TESTKEY', EIDER_SECRET_KEY: SECRET }
const SERVING = /^Serving (\S+) at (http:\S+)$/m
const running = new Set<Running>()

after(async () => {
  for (const each of running) {
    each.child.kill('SIGKILL')
    await each.ended
  }
  rmSync(scratch, { recursive: true, force: true })
})

function serve(args: readonly string[], env: Readonly<Record<string, string>> = {}): Running {
  const options = { cwd: scratch, env: { XDG_STATE_HOME: state, ...env } }
  const started = startEider(['serve', 's3', ...args, '--listen=127.0.0.1:0'], options)
  running.add(started)
  return started
}

async function end(server: Running): Promise<number | null> {
  running.delete(server)
  server.child.kill('SIGTERM')
  return server.ended
}

test('a key pair is made once, printed then, kept for its owner alone, and used again', async () => {
  mkdirSync(join(scratch, 'data'))
  const first = serve(['data'])
  const [, accessKey, secretKey = ''] = await first.shows(/access key {2}(\S+)\n {2}secret key {2}(\S+)\n/)
  assert.equal(await end(first), 0)
  const file = join(scratch, 'data', '.eider', 'gateway.json')
  assert.deepEqual(JSON.parse(readFileSync(file, 'utf8')), { accessKey, secretKey })
  assert.equal(statSync(file).mode & 0o777, 0o600)
  const second = serve(['data'])
  await second.shows(new RegExp(`Access key ${accessKey}; its secret is in `))
  assert.equal(await end(second), 0)
  assert.ok(!second.stdout.includes(secretKey) && !second.stderr.includes(secretKey))
})

test('half of a key pair is an error of usage', async () => {
  const outcome = await eider(['serve', 's3', 'memory:'], { env: { EIDER_ACCESS_KEY: 'KEY' } })
  assert.equal(outcome.code, 2)
  assert.match(outcome.stderr, /^eider: Cannot use EIDER_ACCESS_KEY: EIDER_SECRET_KEY must be given with it\n/)
})

test('metrics and health are served, and no secret is in the log, at its finest level either', async () => {
  const [port] = await freePorts(1)
  const log = join(scratch, 'serve.log')
  const server = serve(['memory:', `--metrics=127.0.0.1:${port}`, '--log-level=trace', `--log=${log}`], KEYS)
  const [, , endpoint = ''] = await server.shows(SERVING)
  const client = new S3Client({
    endpoint,
    region: 'us-east-1',
    forcePathStyle: true,
    credentials: { accessKeyId: KEYS.EIDER_ACCESS_KEY, secretAccessKey: SECRET },
  })
  await client.send(new PutObjectCommand({ Bucket: 'bucket', Key: 'key', Body: 'body' })).catch(() => undefined)
  await client.send(new GetObjectCommand({ Bucket: 'bucket', Key: 'absent' })).catch(() => undefined)
  client.destroy()

  const metrics = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text()
  assert.match(metrics, /^eider_gateway_requests_total\{operation="GetObject",status="404"\} 1$/m)
  assert.match(metrics, /^process_resident_memory_bytes \d+/m)
  const health = await fetch(`http://127.0.0.1:${port}/healthz`)
  assert.deepEqual([health.status, await health.text()], [200, 'ok\n'])
  assert.equal((await fetch(`http://127.0.0.1:${port}/else`)).status, 404)
  assert.equal((await fetch(`http://127.0.0.1:${port}/metrics`, { method: 'POST' })).status, 405)
  assert.equal(await end(server), 0)

  const text = readFileSync(log, 'utf8')
  assert.match(text, /"msg":"serving"/)
  assert.ok(!text.includes(SECRET), 'the secret key')
  assert.ok(!text.includes('Signature='), 'a signature')
})

test('an address that is taken is one sentence and exit code 1', async () => {
  const server = serve(['memory:'], KEYS)
  const [, , endpoint = ''] = await server.shows(SERVING)
  const { host } = new URL(endpoint)
  const second = await eider(['serve', 's3', 'memory:', `--listen=${host}`, `--staging=${join(scratch, 'other')}`], {
    env: { ...KEYS, XDG_STATE_HOME: state },
  })
  assert.equal(second.code, 1)
  const who = `another program listens there \\(process ${server.child.pid} \\(.+\\)\\)\n`
  assert.match(second.stderr, new RegExp(`^eider: Cannot listen at ${host}: ${who}  hint: .*--listen`))
  const metrics = await eider(['serve', 's3', 'memory:', '--listen=127.0.0.1:0', `--metrics=${host}`], {
    env: { ...KEYS, XDG_STATE_HOME: join(scratch, 'other-state') },
  })
  assert.equal(metrics.code, 1)
  assert.match(metrics.stderr, new RegExp(`^eider: Cannot serve metrics at ${host}: ${who}  hint: .*--metrics`, 'm'))
  await end(server)
})

test('two gateways do not share a place for uploads', async () => {
  const server = serve(['data'], KEYS)
  await server.shows(SERVING)
  const second = await eider(['serve', 's3', join(scratch, 'data'), '--listen=127.0.0.1:0'], { env: KEYS })
  assert.equal(second.code, 1)
  assert.match(
    second.stderr,
    /^eider: Cannot serve .*: another gateway works with '.*uploads' \(process \d+\)\n {2}hint: .*--staging/,
  )
  await end(server)
})

test('an address that others can reach is served with a warning', async () => {
  const server = startEider(['serve', 's3', 'memory:', '--listen=0.0.0.0:0'], {
    env: { ...KEYS, XDG_STATE_HOME: state },
  })
  running.add(server)
  await server.shows(SERVING)
  await end(server)
  assert.match(server.stderr, /"level":"warn".*put a proxy with TLS before it/)
})
