import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'

import {
  CHECKSUM_ALGORITHMS,
  compositeChecksum,
  createChecksumHasher,
  isChecksumValue,
  joinedChecksum,
  type ChecksumAlgorithm,
} from './checksum.ts'

async function checksum(algorithm: ChecksumAlgorithm, ...pieces: Uint8Array[]): Promise<string> {
  const hasher = await createChecksumHasher(algorithm)
  for (const piece of pieces) hasher.update(piece)
  return hasher.digest().toString('base64')
}

describe('checksums', () => {
  test('the check values of "123456789"', async () => {
    const digits = Buffer.from('123456789')
    const expected = { CRC32: 'cbf43926', CRC32C: 'e3069283', CRC64NVME: 'ae8b14860a799888' } as const
    for (const [algorithm, hex] of Object.entries(expected)) {
      const value = await checksum(algorithm as ChecksumAlgorithm, digits)
      assert.equal(Buffer.from(value, 'base64').toString('hex'), hex, algorithm)
    }
  })

  test('two that are computed at a time do not disturb each other', async () => {
    for (const algorithm of CHECKSUM_ALGORITHMS) {
      const one = await createChecksumHasher(algorithm)
      const two = await createChecksumHasher(algorithm)
      one.update(Buffer.from('one'))
      two.update(Buffer.from('two'))
      assert.equal(one.digest().toString('base64'), await checksum(algorithm, Buffer.from('one')))
      assert.equal(two.digest().toString('base64'), await checksum(algorithm, Buffer.from('two')))
    }
  })

  test('those of parts join to that of the whole', async () => {
    const parts = fc.array(fc.uint8Array({ maxLength: 300 }), { minLength: 1, maxLength: 6 })
    await fc.assert(
      fc.asyncProperty(parts, fc.constantFrom('CRC32', 'CRC32C', 'CRC64NVME'), async (pieces, algorithm) => {
        const values = await Promise.all(
          pieces.map(async (piece) => ({ checksum: await checksum(algorithm, piece), size: piece.length })),
        )
        assert.equal(joinedChecksum(algorithm, values), await checksum(algorithm, ...pieces))
      }),
      { seed: 20_261, numRuns: 100 },
    )
    assert.equal(joinedChecksum('SHA256', []), undefined)
  })

  test('a composite one is of the digests, and tells how many they are', async () => {
    const parts = [await checksum('SHA256', Buffer.from('a')), await checksum('SHA256', Buffer.from('b'))]
    const digests = Buffer.concat(parts.map((part) => Buffer.from(part, 'base64')))
    assert.equal(await compositeChecksum('SHA256', parts), `${await checksum('SHA256', digests)}-2`)
  })

  test('a value that cannot be one is told from one that can', () => {
    assert.equal(isChecksumValue('CRC32', 'y/Q5Jg=='), true)
    for (const value of ['', 'y/Q5Jg', 'y/Q5JgA=', 'y_Q5Jg==', 'not base64'])
      assert.equal(isChecksumValue('CRC32', value), false)
  })
})
