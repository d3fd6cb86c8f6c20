import assert from 'node:assert/strict'
import { describe, it } from 'node:test'

import { isOperationError } from '#base/errors.ts'
import type { DiskId } from '#cluster/block/permit.ts'
import type { StateBatch } from '#cluster/journal/state.ts'
import { SortedMap } from '#cluster/journal/sorted-map.ts'

import { readRegistry, REGISTRY_MACHINE, type RegistryOutcome } from './registry-machine.ts'
import type { RegistryEntry, ToldDisk } from './registry-records.ts'

class Registry {
  readonly state = new SortedMap<Buffer>()
  readonly entries: Uint8Array[] = []

  apply(entry: RegistryEntry): RegistryOutcome {
    const bytes = REGISTRY_MACHINE.encode(entry)
    const before = [...this.state].length
    const { state } = this
    let changes = 0
    const batch: StateBatch = {
      get isChanged() {
        return changes > 0
      },
      get: (key) => state.get(key),
      range: (from, to, each) => state.range(from, to, each),
      rangeBackwards: (from, to, each) => state.rangeBackwards(from, to, each),
      put: (key, value) => {
        changes++
        state.set(key, value)
      },
      remove: (key) => {
        changes++
        state.delete(key)
      },
    }
    try {
      return REGISTRY_MACHINE.apply(batch, REGISTRY_MACHINE.decode(Buffer.from(bytes)))
    } catch (error) {
      assert.equal(changes, 0, 'what refuses changes nothing')
      assert.equal([...state].length, before)
      throw error
    } finally {
      if (changes > 0) this.entries.push(bytes)
    }
  }
}

const disk = (id: number, facts: Partial<ToldDisk> = {}): ToldDisk => ({
  disk: id as DiskId,
  key: Buffer.alloc(32, id),
  class: 2,
  domain: `rack-${id}`,
  path: `/srv/${id}`,
  fileSystem: 7,
  ...facts,
})
const disks = (...told: ToldDisk[]): RegistryEntry => {
  return { kind: 'disks', process: 1, address: '10.0.0.1:1', location: '', atMs: 1000, disks: told }
}
const shards = (process: number, first: number, last: number, address = `10.0.0.${process}:1`): RegistryEntry => {
  return { kind: 'shards', process, address, location: '', first, last }
}
const refused = (code: string, pattern: RegExp) => (error: unknown) =>
  isOperationError(error) && error.code === code && pattern.test(error.message)

describe('the machine of the registry', () => {
  it('keeps each disk with the key it first came with, and takes the others of its process', () => {
    const registry = new Registry()
    registry.apply(disks(disk(1), disk(2)))
    const { disks: taken, refused: not } = registry.apply(
      disks(disk(1, { key: Buffer.alloc(32, 9) }), disk(2), disk(3)),
    )
    assert.deepEqual(
      taken.map((each) => each.disk),
      [2, 3],
    )
    assert.deepEqual(not, [{ disk: 1, why: 'a disk of this id is known with another key' }])
    assert.deepEqual(readRegistry(registry.state).disks[0]?.key, Buffer.alloc(32, 1))
  })

  it('keeps what an operator has said, and when a disk was first seen, whatever the disk tells later', () => {
    const registry = new Registry()
    registry.apply(disks(disk(1)))
    registry.apply({ kind: 'flags', disk: 1 as DiskId, set: ['no-write'], clear: [] })
    registry.apply({ ...disks(disk(1, { domain: 'elsewhere' })), atMs: 2000 } as RegistryEntry)
    const [record] = readRegistry(registry.state).disks
    assert.deepEqual([record?.flags, record?.firstSeenMs, record?.domain], [['no-write'], 1000, 'elsewhere'])
  })

  it('terminates for ever, and lets go of all else that was said', () => {
    const registry = new Registry()
    registry.apply(disks(disk(1)))
    const flags = (set: ('no-read' | 'no-write' | 'decommissioned')[], clear: typeof set): RegistryOutcome =>
      registry.apply({ kind: 'flags', disk: 1 as DiskId, set, clear })
    flags(['no-write', 'no-read'], [])
    assert.deepEqual(flags(['decommissioned'], []).disks[0]?.flags, ['decommissioned'])
    const entries = registry.entries.length
    assert.deepEqual(flags(['decommissioned'], []).disks[0]?.flags, ['decommissioned'])
    assert.equal(registry.entries.length, entries)
    assert.throws(() => flags([], ['decommissioned']), refused('DISK_FLAG_REFUSED', /for ever/))
    assert.throws(() => flags(['no-write'], []), refused('DISK_FLAG_REFUSED', /for ever/))
    registry.apply(disks(disk(1)))
    assert.deepEqual(readRegistry(registry.state).disks[0]?.flags, ['decommissioned'])
  })

  it('says nothing of a disk that there is not', () => {
    const entry: RegistryEntry = { kind: 'flags', disk: 5 as DiskId, set: ['no-write'], clear: [] }
    assert.throws(() => new Registry().apply(entry), refused('DISK_NOT_FOUND', /disk 5/))
  })

  it('lets nobody take over the shards of another data directory, wherever its process is', () => {
    const registry = new Registry()
    registry.apply(shards(1, 0, 127))
    registry.apply(shards(2, 128, 255))
    for (const [first, last] of [
      [0, 0],
      [127, 127],
      [100, 200],
      [0, 255],
    ] as const) {
      assert.throws(() => registry.apply(shards(3, first, last)), refused('REGISTRATION_REFUSED', /data directory/))
    }
    registry.apply(shards(1, 0, 127, '10.9.9.9:1'))
    assert.equal(readRegistry(registry.state).allShards[0]?.address, '10.9.9.9:1')
    registry.apply(shards(1, 0, 63))
    registry.apply(shards(3, 64, 127))
    assert.throws(() => registry.apply(shards(4, 9, 8)), refused('INPUT_INVALID', /first/))
  })

  it('has one coordinator', () => {
    const registry = new Registry()
    registry.apply({ kind: 'coordinator', process: 1, address: 'a:1', location: '' })
    registry.apply({ kind: 'coordinator', process: 1, address: 'b:1', location: '' })
    const other: RegistryEntry = { kind: 'coordinator', process: 2, address: 'c:1', location: '' }
    assert.throws(() => registry.apply(other), refused('REGISTRATION_REFUSED', /b:1/))
    assert.equal(readRegistry(registry.state).coordinator?.address, 'b:1')
  })

  it('writes nothing where nothing is new, and makes the same state of the same entries', () => {
    const registry = new Registry()
    for (let round = 0; round < 3; round++) {
      registry.apply(disks(disk(1), disk(2)))
      registry.apply(shards(1, 0, 255))
      registry.apply({ kind: 'coordinator', process: 1, address: 'a:1', location: '' })
    }
    assert.equal(registry.entries.length, 3)
    registry.apply({ kind: 'started' })
    assert.equal(registry.apply({ kind: 'started' }).starts, 2)
    const again = new Registry()
    for (const entry of registry.entries) again.apply(REGISTRY_MACHINE.decode(Buffer.from(entry)))
    assert.deepEqual([...again.state], [...registry.state])
  })
})
