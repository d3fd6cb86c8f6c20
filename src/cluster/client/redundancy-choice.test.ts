import assert from 'node:assert/strict'
import { test } from 'node:test'

import { isOperationError } from '#base/errors.ts'
import type { DiskId } from '#cluster/block/permit.ts'
import { EMPTY_POLICY } from '#cluster/wire/forms.ts'

import type { KnownDisk } from './disk-choice.ts'
import { chooseSpan, inlineBytesMaxOf, reduced, spanBytesOf } from './redundancy-choice.ts'

const MIB = 1 << 20

function disk(index: number, news: Partial<KnownDisk> = {}): KnownDisk {
  const room = { capacityBytes: 1e12, usedBytes: 0, freeBytes: 1e12, blocks: 0 }
  const place = { address: `host${index}:1`, class: 2, domain: `domain ${index}`, location: '' }
  return { disk: (index + 1) as DiskId, ...place, flags: [], failure: '', ...room, ...news }
}

function disks(count: number, news: Partial<KnownDisk> = {}): KnownDisk[] {
  return Array.from({ length: count }, (_, index) => disk(index, news))
}

test('without a policy, redundancy follows from how many failure domains there are', () => {
  for (const [domains, data, parity] of [
    [1, 1, 0],
    [2, 1, 1],
    [3, 2, 1],
    [5, 2, 1],
    [6, 4, 2],
    [13, 4, 2],
    [14, 10, 4],
    [40, 10, 4],
  ] as const) {
    const form = chooseSpan(EMPTY_POLICY, 10 * MIB, disks(domains))
    assert.deepEqual([form.data, form.parity], [data, parity], `with ${domains} domains`)
    assert.equal(form.isDegraded, false)
    assert.equal(form.isSingleCopy, domains === 1)
    assert.equal(spanBytesOf(EMPTY_POLICY, disks(domains)), data * 8 * MIB)
  }
})

test('two disks in one failure domain count once, and those that take no blocks not at all', () => {
  const all = [
    ...disks(3),
    disk(3, { domain: 'domain 0' }),
    disk(4, { flags: ['stale'] }),
    disk(5, { flags: ['no-write'] }),
    disk(6, { flags: ['decommissioned'] }),
    disk(7, { failure: 'it is broken' }),
    disk(8, { freeBytes: 0 }),
  ]
  const { data, parity } = chooseSpan(EMPTY_POLICY, MIB, all)
  assert.deepEqual([data, parity], [2, 1])
  assert.equal(chooseSpan(EMPTY_POLICY, MIB, [...all, disk(9, { flags: ['no-read'] })]).data, 2)
})

test('a policy says redundancy by size of span, class by size of block, and stripes', () => {
  const policy = {
    ...EMPTY_POLICY,
    spans: [
      { bytesMax: 65_536, data: 1, parity: 2 },
      { bytesMax: 20 * MIB, data: 4, parity: 2 },
    ],
    classes: [
      { bytesMin: 0, class: 3 },
      { bytesMin: 2 * MIB, class: 2 },
    ],
    stripeBytes: 2 * MIB,
    inlineBytesMax: 100,
  }
  const all = [...disks(6), ...disks(6, { class: 3 })]
  const facts = (bytes: number): unknown[] => {
    const form = chooseSpan(policy, bytes, all)
    return [form.data, form.parity, form.class, form.stripes]
  }
  assert.deepEqual(facts(65_536), [1, 2, 3, 1])
  assert.deepEqual(facts(65_537), [4, 2, 3, 1])
  assert.deepEqual(facts(4 * MIB), [4, 2, 3, 2])
  assert.deepEqual(facts(20 * MIB), [4, 2, 2, 10])
  assert.equal(spanBytesOf(policy, all), 20 * MIB)
  assert.equal(inlineBytesMaxOf(policy), 100)
  assert.equal(inlineBytesMaxOf(EMPTY_POLICY), 4096)
})

test('with fewer failure domains than the policy asks for, a span is written with what there is', () => {
  const policy = { ...EMPTY_POLICY, spans: [{ bytesMax: 1 << 30, data: 4, parity: 2 }] }
  for (const [domains, data, parity] of [
    [6, 4, 2],
    [5, 3, 2],
    [3, 1, 2],
    [2, 1, 1],
    [1, 1, 0],
  ] as const) {
    const form = chooseSpan(policy, MIB, disks(domains))
    assert.deepEqual([form.data, form.parity, form.isDegraded], [data, parity, domains < 6], `with ${domains} domains`)
  }
  assert.deepEqual(reduced({ data: 10, parity: 4 }, 8), { data: 4, parity: 4 })
})

test('what was tried in vain is left out, and said where nothing is left', () => {
  const form = chooseSpan(EMPTY_POLICY, MIB, disks(6), { domains: new Set(['domain 1']) })
  assert.deepEqual([form.data, form.parity, form.isDegraded], [2, 1, true])
  assert.equal(chooseSpan(EMPTY_POLICY, MIB, disks(6), { domains: new Set(), blocksMax: 2 }).data, 1)
  assert.throws(
    () => chooseSpan(EMPTY_POLICY, MIB, disks(2), { domains: new Set(['domain 0', 'domain 1']) }),
    (error) => isOperationError(error, 'DISKS_MISSING') && error.message.includes('domain 0, domain 1'),
  )
  assert.throws(
    () => chooseSpan(EMPTY_POLICY, MIB, []),
    (error) => isOperationError(error, 'DISKS_MISSING'),
  )
})
