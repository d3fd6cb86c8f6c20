import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'

import { isOperationError } from '#base/errors.ts'
import { credentialSource, environmentCredentials, refreshed, type Credentials } from './credentials.ts'
import { profileRegion } from './region.ts'

// Nothing of the machine that the tests run on takes part.
const home = mkdtempSync(join(tmpdir(), 'eider-home-'))
after(() => rmSync(home, { recursive: true, force: true }))
for (const name of Object.keys(process.env)) if (name.startsWith('AWS_')) delete process.env[name]
Object.assign(process.env, {
  HOME: home,
  AWS_CONFIG_FILE: join(home, 'config'),
  AWS_SHARED_CREDENTIALS_FILE: join(home, 'credentials'),
  AWS_EC2_METADATA_DISABLED: 'true',
})

/** A server of temporary credentials: of containers, and of instances by IMDSv2. */
async function startMetadataServer(): Promise<{ url: string; requests: string[]; close(): void }> {
  const requests: string[] = []
  const server = createServer((request, response) => {
    const { method = '', url = '', headers } = request
    requests.push(`${method} ${url}`)
    const keys = { AccessKeyId: `key-of${url.slice(url.lastIndexOf('/'))}`, SecretAccessKey: 's', Token: 't' }
    if (method === 'PUT') response.end('imds-token')
    else if (url === '/container') response.end(JSON.stringify({ ...keys, Expiration: '2099-01-01T00:00:00Z' }))
    else if (headers['x-aws-ec2-metadata-token'] !== 'imds-token') response.writeHead(401).end()
    else if (url.endsWith('/security-credentials/')) response.end('role')
    else response.end(JSON.stringify({ ...keys, Code: 'Success', Expiration: '2099-01-01T00:00:00Z' }))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  return { url: `http://127.0.0.1:${port}`, requests, close: () => void server.close() }
}

test('without any credentials there is one sentence', async () => {
  await assert.rejects(
    async () => credentialSource({})(),
    (error) => isOperationError(error, 'CREDENTIALS_MISSING') && error.message.startsWith('Cannot find credentials: '),
  )
})

test('the keys of a profile, chosen or the default', async () => {
  const profile = (name: string): string => `[${name}]\naws_access_key_id = id-${name}\naws_secret_access_key = s\n`
  // Another file than before: what the SDK has read once it does not read again.
  const file = join(home, 'profiles')
  writeFileSync(file, profile('default') + profile('work'))
  process.env['AWS_SHARED_CREDENTIALS_FILE'] = file
  assert.equal((await credentialSource({})())?.accessKeyId, 'id-default')
  assert.equal((await credentialSource({ profile: 'work' })())?.accessKeyId, 'id-work')
  process.env['AWS_SHARED_CREDENTIALS_FILE'] = join(home, 'credentials')
})

test('a profile that is in no file is said to be, with those that are, and nobody else is asked', async () => {
  const server = await startMetadataServer()
  process.env['AWS_CONTAINER_CREDENTIALS_FULL_URI'] = `${server.url}/container`
  writeFileSync(join(home, 'config'), '[default]\nregion = r\n[profile "with space"]\n[sso-session x]\n')
  await assert.rejects(async () => credentialSource({ profile: 'nope' })(), {
    code: 'CREDENTIALS_MISSING',
    message: `Cannot find credentials: there is no profile "nope" in '${join(home, 'credentials')}' or '${join(home, 'config')}'`,
    hint: 'Those in them are: default, with space.',
  })
  assert.deepEqual(server.requests, [])
  delete process.env['AWS_CONTAINER_CREDENTIALS_FULL_URI']
  rmSync(join(home, 'config'))
  server.close()
})

test('the credentials of a container and of an instance, by IMDSv2', async () => {
  const server = await startMetadataServer()
  process.env['AWS_CONTAINER_CREDENTIALS_FULL_URI'] = `${server.url}/container`
  const ofContainer = await credentialSource({})()
  delete process.env['AWS_CONTAINER_CREDENTIALS_FULL_URI']
  assert.deepEqual([ofContainer?.accessKeyId, ofContainer?.sessionToken], ['key-of/container', 't'])

  delete process.env['AWS_EC2_METADATA_DISABLED']
  process.env['AWS_EC2_METADATA_SERVICE_ENDPOINT'] = server.url
  const ofInstance = await credentialSource({})()
  process.env['AWS_EC2_METADATA_DISABLED'] = 'true'
  assert.equal(ofInstance?.accessKeyId, 'key-of/role')
  assert.equal(ofInstance?.expiration?.getUTCFullYear(), 2099)
  assert.ok(server.requests.some((request) => request.startsWith('PUT /latest/api/token')))
  server.close()
})

test('keys of the environment are taken only as a pair', () => {
  assert.equal(environmentCredentials({}), undefined)
  assert.equal(environmentCredentials({ AWS_ACCESS_KEY_ID: 'a' }), undefined)
  const both = { AWS_ACCESS_KEY_ID: 'a', AWS_SECRET_ACCESS_KEY: 's', AWS_SESSION_TOKEN: '' }
  assert.deepEqual(environmentCredentials(both), { accessKeyId: 'a', secretAccessKey: 's', sessionToken: undefined })
})

test('anonymous means none', () => {
  assert.equal(credentialSource({ anonymous: true })(), undefined)
})

test('temporary credentials are fetched once for all who wait, in the background when they near their end, and again after it', async () => {
  let nowMs = 0
  let fetched = 0
  const pending: (() => void)[] = []
  const source = refreshed(
    () =>
      new Promise<Credentials>((resolve) => {
        const id = `key-${++fetched}`
        const expiration = new Date(nowMs + 3_600_000)
        pending.push(() => resolve({ accessKeyId: id, secretAccessKey: 's', expiration }))
      }),
    () => nowMs,
  )
  const settle = (): void => pending.splice(0).forEach((resolve) => resolve())
  const first = Promise.all([source(), source(), source()])
  settle()
  assert.deepEqual(new Set((await first).map((found) => found?.accessKeyId)), new Set(['key-1']))

  nowMs = 3_600_000 - 4 * 60_000
  assert.equal((await source())?.accessKeyId, 'key-1', 'still good')
  assert.equal((await source())?.accessKeyId, 'key-1')
  assert.equal(fetched, 2)
  settle()
  await new Promise((resolve) => setImmediate(resolve))
  assert.equal((await source())?.accessKeyId, 'key-2')

  nowMs += 3_600_000
  const last = source()
  settle()
  assert.equal((await last)?.accessKeyId, 'key-3')
  assert.equal(fetched, 3)
})

test('the region of a profile', () => {
  const text =
    '[default]\nregion = us-west-2\n\n[profile work]\noutput=json\nregion=eu-west-1\n[services x]\nregion=no\n'
  assert.equal(profileRegion(text, 'default'), 'us-west-2')
  assert.equal(profileRegion(text, 'work'), 'eu-west-1')
  assert.equal(profileRegion(text, 'other'), undefined)
})
