import assert from 'node:assert/strict'
import { describe, test } from 'node:test'

import fc from 'fast-check'

import type { DiskId } from '#cluster/block/permit.ts'
import type { Chance } from '#cluster/surroundings.ts'

import { placeBlocks, type WritableDisk } from './block-placement.ts'

/** Always the last one: what is not shuffled is tested by the property. */
const CHANCE: Chance = { bytes: (count) => Buffer.alloc(count), below: (below) => below - 1 }

function disks(...domains: string[]): WritableDisk[] {
  return domains.map((domain, index) => ({ disk: (index + 1) as DiskId, domain }))
}

const place = (writable: WritableDisk[], count: number, preferred: number[] = [], avoid: string[] = []): number[] =>
  placeBlocks({ writable, count, preferred: preferred as DiskId[], avoidDomains: new Set(avoid) }, CHANCE)

describe('placeBlocks', () => {
  test('[S161] takes one disk of each domain while there are others', () => {
    assert.deepEqual(place(disks('a', 'a', 'b', 'b', 'c'), 3), [1, 3, 5])
  })

  test('[S161] with fewer domains than blocks takes as many of each, so that 4+2 on three outlast one', () => {
    const writable = disks('a', 'a', 'a', 'a', 'b', 'b', 'b', 'b', 'c', 'c')
    const chosen = place(writable, 6)
    const counts = new Map<string, number>()
    for (const disk of chosen) {
      const { domain } = writable[disk - 1] as WritableDisk
      counts.set(domain, (counts.get(domain) ?? 0) + 1)
    }
    assert.deepEqual([...counts.values()], [2, 2, 2])
  })

  test('keeps a file on the disks that it has, and leaves out domains that failed its client', () => {
    const writable = disks('a', 'b', 'c', 'd')
    assert.deepEqual(place(writable, 2, [4, 2]), [4, 2])
    assert.deepEqual(place(writable, 2, [4, 2], ['d']), [2, 1])
    assert.deepEqual(place(writable, 2, [99, 3]), [3, 1], 'a disk that is full or gone is not written to')
  })

  test('gives fewer where there are no more', () => {
    assert.deepEqual(place(disks('a', 'b'), 3), [1, 2])
    assert.deepEqual(place([], 1), [])
  })

  test('[S161] never gives a disk twice, nor one domain two more than another that has disks left', () => {
    const disk = fc.record({ disk: fc.integer({ min: 1, max: 40 }), domain: fc.constantFrom('a', 'b', 'c', 'd', 'e') })
    fc.assert(
      fc.property(
        fc.uniqueArray(disk, { selector: (each) => each.disk, maxLength: 30 }),
        fc.integer({ min: 1, max: 30 }),
        fc.array(fc.integer({ min: 1, max: 40 })),
        fc.infiniteStream(fc.nat()),
        (all, count, preferred, random) => {
          const writable = all as WritableDisk[]
          const chance: Chance = { ...CHANCE, below: (below) => (random.next().value ?? 0) % below }
          const wish = { writable, count, preferred: preferred as DiskId[], avoidDomains: new Set<string>() }
          const chosen = placeBlocks(wish, chance)
          assert.equal(new Set(chosen).size, chosen.length)
          assert.equal(chosen.length, Math.min(count, writable.length))
          const taken = (domain: string): number =>
            writable.filter((each) => each.domain === domain && chosen.includes(each.disk)).length
          const domains = [...new Set(writable.map(({ domain }) => domain))]
          const most = Math.max(0, ...domains.map(taken))
          for (const domain of domains) {
            const isUsedUp = taken(domain) === writable.filter((each) => each.domain === domain).length
            assert.ok(isUsedUp || taken(domain) >= most - 1)
          }
        },
      ),
      { seed: 146, numRuns: 500 },
    )
  })
})
