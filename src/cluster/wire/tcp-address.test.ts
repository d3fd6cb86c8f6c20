import assert from 'node:assert/strict'
import { test } from 'node:test'

import { isLoopback, parsedAddress, shownAddress } from './tcp-address.ts'

test('addresses are read as people write them, and shown as they are read', () => {
  for (const [text, host, port] of [
    ['127.0.0.1:8600', '127.0.0.1', 8600],
    ['node-1.example:0', 'node-1.example', 0],
    ['[::1]:65535', '::1', 65_535],
    ['[fe80::1%eth0]:1', 'fe80::1%eth0', 1],
  ] as const) {
    assert.deepEqual(parsedAddress(text), { host, port })
    assert.equal(shownAddress(host, port), text)
  }
  for (const text of [
    '',
    '8600',
    ':8600',
    'host',
    'host:',
    'host:65536',
    '::1:80',
    '[host]:80',
    '[1.2.3.4]:80',
    'a b:1',
    'host:1x',
    'http://a:1',
  ])
    assert.throws(() => parsedAddress(text), { code: 'USAGE' }, text)
})

test('only what no other machine reaches is loopback', () => {
  for (const ip of ['127.0.0.1', '127.9.9.9', '::1', '::ffff:127.0.0.1', '::FFFF:127.0.0.1', '0:0:0:0:0:0:0:1'])
    assert.ok(isLoopback(ip), ip)
  for (const ip of ['0.0.0.0', '::', '10.0.0.1', '::ffff:10.0.0.1', '128.0.0.1', '1127.0.0.1', '::2', 'localhost'])
    assert.ok(!isLoopback(ip), ip)
})
