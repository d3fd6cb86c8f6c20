/**
 * The machine of the registry: which cluster it is, who serves what, and what an operator has said of disks. It lets nobody take over what lies in the data
 * directory of another process, as an empty shard in the place of a full one would look like a loss of all its files; and
 * no disk change its key, as all permits and receipts rest on it.
 */
import { assert } from '#base/assert.ts'
import type { DiskId } from '#cluster/block/permit.ts'
import { OperationError } from '#base/errors.ts'
import { clusterId, type ClusterId } from '#cluster/cluster-id.ts'
import type { Machine } from '#cluster/journal/machine.ts'
import type { StateBatch, StateReader } from '#cluster/journal/state.ts'
import { decode, encode, u53 } from '#cluster/wire/codec.ts'

import { DISKS_MAX } from './registry-messages.ts'
import {
  CLUSTER_KEY,
  COORDINATOR_KEY,
  coordinatorRecord,
  DISK_COUNT_KEY,
  diskKeyOf,
  diskRecord,
  DISKS_RANGE,
  entry as entryCodec,
  SHARDS_RANGE,
  shardsKey,
  shardsRecord,
  STARTS_KEY,
  type CoordinatorRecord,
  type DiskRecord,
  type OperatorFlag,
  type RegistryEntry,
  type ShardsRecord,
  type ToldDisk,
} from './registry-records.ts'

export interface RefusedDisk {
  readonly disk: DiskId
  readonly why: string
}

/** What an entry has changed. */
export interface RegistryOutcome {
  /** How often the registry has started. */
  readonly starts?: number
  readonly shards?: ShardsRecord
  readonly coordinator?: CoordinatorRecord
  readonly disks: readonly DiskRecord[]
  readonly refused: readonly RefusedDisk[]
}

const NOTHING: RegistryOutcome = { disks: [], refused: [] }

export const REGISTRY_MACHINE: Machine<RegistryEntry, RegistryOutcome> = {
  encode: (entry) => encode(entryCodec, entry),
  decode: (bytes) => decode(entryCodec, bytes),
  apply(state, entry) {
    switch (entry.kind) {
      case 'founded':
        return found(state, entry.cluster)
      case 'started':
        return start(state)
      case 'shards':
        return takeShards(state, entry)
      case 'coordinator':
        return takeCoordinator(state, entry)
      case 'disks':
        return takeDisks(state, entry)
      case 'flags':
        return setFlags(state, entry.disk, entry.set, entry.clear)
    }
  },
}

/** Which cluster this is; undefined where it was not founded yet. */
export function foundedCluster(state: StateReader): ClusterId | undefined {
  const bytes = state.get(CLUSTER_KEY)
  return bytes && decode(clusterId, bytes)
}

/** All that there is, as after a start. */
export function readRegistry(state: StateReader): RegistryOutcome & { readonly allShards: readonly ShardsRecord[] } {
  const disks: DiskRecord[] = []
  state.range(...DISKS_RANGE, (_, value) => disks.push(decode(diskRecord, value)) > 0)
  const coordinator = state.get(COORDINATOR_KEY)
  return {
    disks,
    allShards: allShards(state),
    refused: [],
    starts: count(state, STARTS_KEY),
    ...(coordinator === undefined ? {} : { coordinator: decode(coordinatorRecord, coordinator) }),
  }
}

function found(state: StateBatch, cluster: ClusterId): RegistryOutcome {
  assert(state.get(CLUSTER_KEY) === undefined, 'a cluster is founded once')
  state.put(CLUSTER_KEY, encode(clusterId, cluster))
  return NOTHING
}

function start(state: StateBatch): RegistryOutcome {
  const starts = count(state, STARTS_KEY) + 1
  state.put(STARTS_KEY, encode(u53, starts))
  return { ...NOTHING, starts }
}

function takeShards(state: StateBatch, { process, address, location, first, last }: ShardsRecord): RegistryOutcome {
  const action = `Cannot register shards ${first} to ${last} at ${address}`
  if (first > last) throw new OperationError('INPUT_INVALID', `${action}: the first comes after the last`)
  for (const other of allShards(state)) {
    if (other.process === process || other.last < first || other.first > last) continue
    const detail = `shards ${other.first} to ${other.last} lie in another data directory, that of the process at ${other.address}`
    throw new OperationError('REGISTRATION_REFUSED', `${action}: ${detail}`)
  }
  const shards = { process, address, location, first, last }
  putIfChanged(state, shardsKey(process), encode(shardsRecord, shards))
  return { ...NOTHING, shards }
}

function takeCoordinator(state: StateBatch, { process, address, location }: CoordinatorRecord): RegistryOutcome {
  const bytes = state.get(COORDINATOR_KEY)
  const before = bytes && decode(coordinatorRecord, bytes)
  if (before !== undefined && before.process !== process) {
    const detail = `what the coordinator has under way lies in another data directory, that of the process at ${before.address}`
    throw new OperationError('REGISTRATION_REFUSED', `Cannot register a coordinator at ${address}: ${detail}`)
  }
  const coordinator = { process, address, location }
  putIfChanged(state, COORDINATOR_KEY, encode(coordinatorRecord, coordinator))
  return { ...NOTHING, coordinator }
}

type DisksEntry = Extract<RegistryEntry, { kind: 'disks' }>

/** One that is wrong does not keep out the others of its process. */
function takeDisks(state: StateBatch, told: DisksEntry): RegistryOutcome {
  const disks: DiskRecord[] = []
  const refused: RefusedDisk[] = []
  const known = count(state, DISK_COUNT_KEY)
  let total = known
  for (const each of told.disks) {
    const bytes = state.get(diskKeyOf(each.disk))
    const before = bytes && decode(diskRecord, bytes)
    const why = objection(each, before, total)
    if (why !== undefined) {
      refused.push({ disk: each.disk, why })
      continue
    }
    if (before === undefined) total++
    const record = recordOf(each, told, before)
    putIfChanged(state, diskKeyOf(each.disk), encode(diskRecord, record))
    disks.push(record)
  }
  if (total !== known) state.put(DISK_COUNT_KEY, encode(u53, total))
  return { disks, refused }
}

function recordOf(disk: ToldDisk, { process, address, location, atMs }: DisksEntry, before?: DiskRecord): DiskRecord {
  const flags = before?.flags ?? []
  return { ...disk, process, address, location, flags, firstSeenMs: before?.firstSeenMs ?? atMs }
}

function objection(disk: ToldDisk, before: DiskRecord | undefined, total: number): string | undefined {
  if (before === undefined) return total < DISKS_MAX ? undefined : `there are ${total} disks, and may be no more`
  return before.key.equals(disk.key) ? undefined : 'a disk of this id is known with another key'
}

function setFlags(
  state: StateBatch,
  disk: DiskId,
  set: readonly OperatorFlag[],
  clear: readonly OperatorFlag[],
): RegistryOutcome {
  const bytes = state.get(diskKeyOf(disk))
  const action = `Cannot set or clear what is said of disk ${disk}`
  if (bytes === undefined) throw new OperationError('DISK_NOT_FOUND', `${action}: there is none`)
  const before = decode(diskRecord, bytes)
  let after = new Set([...before.flags.filter((flag) => !clear.includes(flag)), ...set])
  if (before.flags.includes('decommissioned')) {
    const isSaidAgain = clear.length === 0 && set.every((flag) => flag === 'decommissioned')
    if (isSaidAgain) return { ...NOTHING, disks: [before] }
    throw new OperationError('DISK_FLAG_REFUSED', `${action}: it is decommissioned, which is for ever`)
  }
  if (after.has('decommissioned')) after = new Set(['decommissioned'])
  const record = { ...before, flags: [...after].sort() }
  putIfChanged(state, diskKeyOf(disk), encode(diskRecord, record))
  return { ...NOTHING, disks: [record] }
}

/** Nothing is journaled where nothing is different. */
function putIfChanged(state: StateBatch, key: string, value: Buffer): void {
  if (state.get(key)?.equals(value) !== true) state.put(key, value)
}

function allShards(state: StateReader): ShardsRecord[] {
  const all: ShardsRecord[] = []
  state.range(...SHARDS_RANGE, (_, value) => all.push(decode(shardsRecord, value)) > 0)
  return all
}

function count(state: StateReader, key: string): number {
  const bytes = state.get(key)
  return bytes === undefined ? 0 : decode(u53, bytes)
}
