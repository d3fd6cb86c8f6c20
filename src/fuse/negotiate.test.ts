import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { InitRequest } from './decode.ts'
import { negotiate } from './negotiate.ts'
import * as protocol from './protocol.ts'

const SETTINGS = { maxWriteBytes: 1_048_576, maxBackground: 64, passthrough: false }
/** What Linux 6.18 offers. */
const OFFER: InitRequest = { major: 7, minor: 45, maxReadaheadBytes: 131_072, flags: 0x73ff_fffb, flags2: 0x5fd }

function agreed(offer: Partial<InitRequest>, settings = SETTINGS): { flags: number; flags2: number; minor: number } {
  const outcome = negotiate({ ...OFFER, ...offer }, settings)
  assert.ok('answer' in outcome)
  return outcome.answer
}

test('a kernel that is too old, or speaks another protocol, is refused with its version', () => {
  for (const [major, minor] of [
    [7, 30],
    [6, 45],
    [8, 0],
  ] as const) {
    const outcome = negotiate({ ...OFFER, major, minor }, SETTINGS)
    assert.ok('refusal' in outcome)
    assert.match(outcome.refusal, new RegExp(`FUSE ${major}\\.${minor}`))
  }
})

test('nothing is used that the kernel does not offer', () => {
  assert.equal(agreed({ flags: 0 }).flags, 0)
  assert.equal(agreed({ flags: protocol.FUSE_ASYNC_READ }).flags, protocol.FUSE_ASYNC_READ)
  assert.equal(agreed({ minor: 38 }).minor, 38)
  assert.equal(agreed({ minor: 60 }).minor, 45)
})

test('close tells the truth and locks stay in the kernel: neither write-back nor remote locks are asked for', () => {
  const WRITEBACK_CACHE = 1 << 16
  const POSIX_LOCKS = 1 << 1
  const FLOCK_LOCKS = 1 << 10
  const ASYNC_DIO = 1 << 15
  assert.equal(agreed({}).flags & (WRITEBACK_CACHE | POSIX_LOCKS | FLOCK_LOCKS | ASYNC_DIO), 0)
})

test('passthrough is asked for on request, and only of a kernel that can', () => {
  const settings = { ...SETTINGS, passthrough: true }
  assert.equal(agreed({}).flags2, 0)
  assert.equal(agreed({}, settings).flags2, protocol.FUSE_FLAGS2_PASSTHROUGH)
  assert.equal(agreed({ flags2: 0 }, settings).flags2, 0)
  assert.equal(agreed({ flags: OFFER.flags & ~protocol.FUSE_INIT_EXT }, settings).flags2, 0)
})
