import fc from 'fast-check'
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'

import type { DiskId } from '#cluster/block/permit.ts'

import { type DiskRoom, WRITABLE_MAX, writableDisks } from './writable-disks.ts'

const GB = 1e9

function disks(domains: number, each: number, free = (_index: number): number => 100 * GB): DiskRoom[] {
  return Array.from({ length: domains * each }, (_, index) => ({
    disk: (index + 1) as DiskId,
    class: 2,
    domain: `rack-${index % domains}`,
    freeBytes: free(index),
  }))
}

describe('writableDisks', () => {
  it('gives each shard disks of its class, none twice, and no domain twice while there are others', () => {
    const room = fc.record({
      class: fc.integer({ min: 2, max: 3 }),
      domain: fc.integer({ min: 0, max: 40 }).map((number) => `rack-${number}`),
      freeBytes: fc.option(fc.integer({ min: 0, max: 2 ** 50 }), { nil: undefined }),
    })
    fc.assert(
      fc.property(fc.array(room, { minLength: 1, maxLength: 90 }), (rooms) => {
        const all = rooms.map((each, index) => ({ ...each, disk: (index + 1) as DiskId }))
        const byDisk = new Map(all.map((each) => [each.disk, each]))
        for (const [storageClass, shards] of writableDisks(all)) {
          const ofClass = all.filter((each) => each.class === storageClass)
          const domains = new Set(ofClass.map(({ domain }) => domain)).size
          assert.equal(shards.length, 256)
          for (const chosen of shards) {
            assert.equal(new Set(chosen).size, chosen.length)
            assert.equal(chosen.length, Math.min(ofClass.length, WRITABLE_MAX))
            for (const disk of chosen) assert.equal(byDisk.get(disk)?.class, storageClass)
            const first = chosen.slice(0, Math.min(domains, WRITABLE_MAX)).map((disk) => byDisk.get(disk)?.domain)
            assert.equal(new Set(first).size, first.length)
          }
        }
      }),
      { seed: 5, numRuns: 150 },
    )
  })

  it('has few different sets of first choices, and each disk in one of them', () => {
    const all = disks(6, 12)
    const shards = writableDisks(all).get(2) ?? []
    const firsts = shards.map((chosen) => chosen.slice(0, 6).toSorted((a, b) => a - b))
    assert.equal(new Set(firsts.map(String)).size, 12)
    assert.equal(new Set(firsts.flat()).size, all.length)
  })

  it('gives disks shards by their free bytes, most free first among domains', () => {
    // Of each domain one disk has three times as much free as the other.
    const all = disks(4, 2, (index) => (index < 4 ? 300 * GB : 100 * GB) + index)
    const shards = writableDisks(all).get(2) ?? []
    const larger = shards.map((chosen) => chosen.slice(0, 4).filter((disk) => disk <= 4).length)
    assert.equal(larger.filter((count) => count === 4).length, 192)
    assert.equal(larger.filter((count) => count === 0).length, 64)
    for (const chosen of shards) {
      const free = chosen.slice(0, 4).map((disk) => all[disk - 1]?.freeBytes ?? 0)
      assert.deepEqual(
        free,
        free.toSorted((a, b) => b - a),
      )
    }
  })

  it('turns the domains where there are more than a shard takes, so that all are written to', () => {
    const shards = writableDisks(disks(100, 1)).get(2) ?? []
    const counts = new Map<DiskId, number>()
    for (const chosen of shards) for (const disk of chosen) counts.set(disk, (counts.get(disk) ?? 0) + 1)
    assert.equal(counts.size, 100)
    const mean = (256 * WRITABLE_MAX) / 100
    for (const count of counts.values()) assert(count > 0.8 * mean && count < 1.2 * mean, String(count))
    assert(new Set(shards.map((chosen) => String(chosen.toSorted((a, b) => a - b)))).size <= 100)
  })

  it('changes little when little changes', () => {
    const before = writableDisks(disks(6, 4)).get(2) ?? []
    const after = writableDisks(disks(6, 4, (index) => (index === 3 ? 99 : 100) * GB)).get(2) ?? []
    const firstOf = (chosen: readonly DiskId[]): string => String(chosen.slice(0, 6).toSorted((a, b) => a - b))
    const changed = before.filter((chosen, shard) => firstOf(chosen) !== firstOf(after[shard] ?? [])).length
    assert(changed <= 8, String(changed))
  })
})
