import assert from 'node:assert/strict'
import { test } from 'node:test'
import { crc32 } from 'node:zlib'
import fc from 'fast-check'

import { checkerFor, combineCrc32, crc32Header } from './checksum.ts'

const CHECK = Buffer.from('123456789')

const digestOf = async (headers: Record<string, string>): Promise<[string, string] | undefined> => {
  const checker = await checkerFor((name) => headers[name])
  checker?.update(CHECK.subarray(0, 4))
  checker?.update(CHECK.subarray(4))
  return checker && [checker.expected, checker.digest()]
}

test('the known values of each checksum that S3 has', async () => {
  const base64 = (hex: string): string => Buffer.from(hex, 'hex').toString('base64')
  const known = {
    crc32: base64('cbf43926'),
    crc32c: base64('e3069283'),
    crc64nvme: base64('ae8b14860a799888'),
    sha1: '98O8HYCOBHMq32eZZczDTK0WDqU=',
    sha256: 'FeKw09t5jOBzZ4d2GR0LdVwU9JgGZs4K6jwnKchjpiU=',
  }
  assert.deepEqual(crc32Header(CHECK), ['x-amz-checksum-crc32', known.crc32])
  for (const [name, value] of Object.entries(known)) {
    const [expected, found] = (await digestOf({ [`x-amz-checksum-${name}`]: value })) ?? []
    assert.equal(expected, value)
    if (name !== 'sha1' && name !== 'sha256') assert.equal(found, value, name)
  }
})

test('a checksum of checksums of parts says nothing of the whole', async () => {
  assert.equal(await digestOf({ 'x-amz-checksum-crc32': 'y/Q5Jg==-3' }), undefined)
  const composite = { 'x-amz-checksum-crc32': 'y/Q5Jg==', 'x-amz-checksum-type': 'COMPOSITE' }
  assert.equal(await digestOf(composite), undefined)
  assert.equal(await digestOf({}), undefined)
})

test('the CRC of a whole follows from those of its parts', () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 5000 }), { maxLength: 6 }), (parts) => {
      const combined = parts.reduce((crc, part) => combineCrc32(crc, crc32(part), part.length), 0)
      assert.equal(combined, crc32(Buffer.concat(parts)))
    }),
    { seed: 3, numRuns: 200 },
  )
  const zeros = Buffer.alloc(300_000_000)
  assert.equal(combineCrc32(crc32(CHECK), crc32(zeros), zeros.length), crc32(zeros, crc32(CHECK)))
})
