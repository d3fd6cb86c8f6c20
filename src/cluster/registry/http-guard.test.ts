import assert from 'node:assert/strict'
import type { IncomingMessage } from 'node:http'
import { describe, it } from 'node:test'

import { objectionTo } from './http-guard.ts'

const PASSWORD = 'a-secret-of-the-cluster'
const SECRET = Buffer.from(PASSWORD)

function statusFor(
  remoteAddress: string,
  headers: Readonly<Record<string, string>>,
  secret?: Buffer,
  method = 'GET',
): number | undefined {
  const request = { method, headers: { host: '10.0.0.1:8600', ...headers }, socket: { remoteAddress } }
  return objectionTo(request as unknown as IncomingMessage, secret)?.status
}

// By the address that the connection comes from, which tests on one machine cannot choose.
describe('objectionTo', () => {
  it('lets this machine read, and nobody else without the secret', () => {
    for (const here of ['127.0.0.1', '::1', '::ffff:127.0.0.1', '127.8.9.10']) {
      assert.equal(statusFor(here, {}), undefined)
      assert.equal(statusFor(here, {}, SECRET), undefined)
    }
    for (const elsewhere of ['10.0.0.2', '::ffff:10.0.0.2', 'fe80::1', '', '128.0.0.1']) {
      assert.equal(statusFor(elsewhere, {}), 403, elsewhere)
      assert.equal(statusFor(elsewhere, {}, SECRET), 401, elsewhere)
      assert.equal(statusFor(elsewhere, { authorization: `Bearer ${PASSWORD}` }, SECRET), undefined)
      assert.equal(statusFor(elsewhere, { authorization: `Bearer ${PASSWORD}` }), 403)
    }
  })

  it('takes a secret of any bytes, as the password of a browser', () => {
    const secret = Buffer.from('pässwörd:with:colons and €')
    const basic = `Basic ${Buffer.concat([Buffer.from(':'), secret]).toString('base64')}`
    const json = { 'content-type': 'application/json; charset=utf-8' }
    assert.equal(statusFor('10.0.0.2', { authorization: basic, ...json }, secret, 'POST'), undefined)
  })
})
