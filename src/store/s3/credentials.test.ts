import assert from 'node:assert/strict'
import { test } from 'node:test'

import { credentialSource, environmentCredentials, refreshed, type Credentials } from './credentials.ts'
import { profileRegion } from './region.ts'

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
