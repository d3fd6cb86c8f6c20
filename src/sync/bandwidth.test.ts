import assert from 'node:assert/strict'
import { test } from 'node:test'

import { Bandwidth } from './bandwidth.ts'

test('what many take together is paid for by time, but for a tenth of a second', async () => {
  const bandwidth = new Bandwidth(1_000_000)
  const from = performance.now()
  await Promise.all(Array.from({ length: 50 }, () => bandwidth.take(10_000)))
  // Half a second's worth.
  assert.ok(performance.now() - from >= 390)
})

test('a stream comes through whole, and ends where it is aborted', async () => {
  const bandwidth = new Bandwidth(1_000)
  async function* chunks(): AsyncGenerator<Uint8Array, void, undefined> {
    yield Buffer.from('ab')
    yield Buffer.from('cd')
    yield Buffer.alloc(1_000_000)
  }
  const seen: string[] = []
  const aborted = new AbortController()
  await assert.rejects(async () => {
    for await (const chunk of bandwidth.paced(chunks(), aborted.signal)) {
      seen.push(Buffer.from(chunk).toString())
      if (seen.length === 2) aborted.abort()
    }
  })
  assert.deepEqual(seen, ['ab', 'cd'])
})
