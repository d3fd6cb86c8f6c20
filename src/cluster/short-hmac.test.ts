import assert from 'node:assert/strict'
import { createHmac, randomBytes } from 'node:crypto'
import { test } from 'node:test'

import { shortHmac } from './short-hmac.ts'

test('it is the HMAC-SHA-256 of node:crypto, for keys and messages of any length that it takes', () => {
  for (let length = 0; length <= 256; length += 7) {
    const [key, message] = [randomBytes(length % 65), randomBytes(length)]
    const expected = createHmac('sha256', key).update(message).digest()
    assert.deepEqual(shortHmac(key, message, 32), expected)
    assert.deepEqual(shortHmac(key, message, 16), expected.subarray(0, 16))
  }
})
