/**
 * What the registry keeps for good, and the entries of its journal. How long ago somebody was heard of, how full disks are and
 * whether they have failed is not here: that is told again with each heartbeat, and kept in memory (`registry-view.ts`).
 */
import type { DiskId } from '#cluster/block/permit.ts'
import { clusterId } from '#cluster/cluster-id.ts'
import type { Key } from '#cluster/journal/state.ts'
import { choice, list, struct, text, u53, u8, variants, type ValueOf } from '#cluster/wire/codec.ts'
import { diskId, diskKey } from '#cluster/wire/forms.ts'

const words = text(255)
/** What an operator says of a disk. That it is stale is not said but found. */
export const operatorFlag = choice('no-read', 'no-write', 'decommissioned')
export type OperatorFlag = ValueOf<typeof operatorFlag>
const flags = list(operatorFlag, 3)

/** What a process says of a disk that others must know, or that must not change. */
const diskFacts = {
  disk: diskId,
  key: diskKey,
  class: u8,
  domain: words,
  path: text(4096),
  fileSystem: u53,
}
const told = struct(diskFacts)
export type ToldDisk = ValueOf<typeof told>

export const diskRecord = struct({
  ...diskFacts,
  process: u53,
  address: words,
  location: words,
  flags,
  /** Milliseconds since 1970. */
  firstSeenMs: u53,
})
export type DiskRecord = ValueOf<typeof diskRecord>

/** The shards from `first` to `last` lie in the data directory of a process. */
export const shardsRecord = struct({ process: u53, address: words, location: words, first: u8, last: u8 })
export type ShardsRecord = ValueOf<typeof shardsRecord>

export const coordinatorRecord = struct({ process: u53, address: words, location: words })
export type CoordinatorRecord = ValueOf<typeof coordinatorRecord>

export const entry = variants({
  /** The registry has started once more: versions of its map begin anew, above all those of before. */
  started: struct({}),
  shards: shardsRecord,
  coordinator: coordinatorRecord,
  disks: struct({ process: u53, address: words, location: words, atMs: u53, disks: list(told, 1024) }),
  flags: struct({ disk: diskId, set: flags, clear: flags }),
  /** The first one: which cluster this is. */
  founded: struct({ cluster: clusterId }),
})
export type RegistryEntry = ValueOf<typeof entry>

export const CLUSTER_KEY: Key = 'i'
export const STARTS_KEY: Key = 's'
export const COORDINATOR_KEY: Key = 'c'
/** Of the count of disks. */
export const DISK_COUNT_KEY: Key = 'n'
/** By process, of 14 hexadecimal digits, so that ranges are in order of numbers. */
export const shardsKey = (process: number): Key => `p${digits(process)}`
export const SHARDS_RANGE: readonly [Key, Key] = ['p', 'q']
export const diskKeyOf = (disk: DiskId): Key => `d${digits(disk)}`
export const DISKS_RANGE: readonly [Key, Key] = ['d', 'e']

function digits(value: number): string {
  return value.toString(16).padStart(14, '0')
}
