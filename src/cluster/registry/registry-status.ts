/** The cluster as people and tools read it, as JSON. Keys of disks are not in it. */
import type { ClusterId } from '#cluster/cluster-id.ts'

import { clusterHealth, type Health, totalsOf, type Totals } from './cluster-health.ts'
import type { CoordinatorRecord, ShardsRecord } from './registry-records.ts'
import {
  diskStatus,
  type DiskStatus,
  isUnheard,
  type KnownDisk,
  type KnownProcess,
  type RegistryView,
} from './registry-view.ts'

export interface ShownDisk {
  readonly id: number
  readonly address: string
  readonly class: number
  readonly domain: string
  readonly location: string
  readonly path: string
  readonly status: DiskStatus | 'unheard'
  readonly flags: readonly string[]
  /** Why it has failed; empty where it has not. */
  readonly failure: string
  /** Null where the disk was not heard of since the registry started; so are the three below. */
  readonly capacityBytes: number | null
  readonly usedBytes: number | null
  readonly freeBytes: number | null
  readonly blocks: number | null
  readonly firstSeen: string
  readonly lastHeard: string | null
  /** Of that of the registry; null where it is not known. */
  readonly clockAheadMs: number | null
}

export interface ShownProcess {
  readonly address: string
  readonly location: string
  /** `skewed`: it is there, and its clock is not trusted. */
  readonly status: 'ok' | 'unheard' | 'stale' | 'skewed'
  readonly lastHeard: string | null
  readonly clockAheadMs: number | null
}
export interface ShownShards extends ShownProcess {
  readonly first: number
  readonly last: number
}

export interface ShownCluster {
  readonly cluster: ClusterId
  readonly version: number
  /** By the registry's clock. */
  readonly now: string
  readonly health: Health & Totals
  readonly shards: readonly ShownShards[]
  readonly coordinator: ShownProcess | null
  readonly disks: readonly ShownDisk[]
}

/** @param since the disks that have changed after that revision of the view alone */
export function shownCluster(cluster: ClusterId, view: RegistryView, nowMs: number, since = -1): ShownCluster {
  const disks = view.disks.filter(({ revision }) => revision > since)
  return {
    cluster,
    version: view.version,
    now: timeShown(nowMs),
    health: shownHealth(view),
    shards: view.shards.map(shownShards),
    coordinator: shownCoordinator(view),
    disks: disks.map(shownDisk),
  }
}

export function shownHealth(view: RegistryView): Health & Totals {
  return { ...clusterHealth(view), ...totalsOf(view) }
}

export function shownDisk(disk: KnownDisk): ShownDisk {
  const { record, failure, room, isStale, heardMs, clock } = disk
  const status = diskStatus(disk)
  return {
    id: record.disk,
    address: record.address,
    class: record.class,
    domain: record.domain,
    location: record.location,
    path: record.path,
    status: status === 'ok' && isUnheard(disk) ? 'unheard' : status,
    flags: [...(isStale ? ['stale'] : []), ...record.flags],
    failure,
    capacityBytes: room?.capacityBytes ?? null,
    usedBytes: room?.usedBytes ?? null,
    freeBytes: room?.freeBytes ?? null,
    blocks: room?.blocks ?? null,
    firstSeen: timeShown(record.firstSeenMs),
    lastHeard: heardMs === undefined ? null : timeShown(heardMs),
    clockAheadMs: clock?.aheadMs ?? null,
  }
}

export function shownShards(shards: KnownProcess<ShardsRecord>): ShownShards {
  const { first, last } = shards.record
  return { first, last, ...shownProcess(shards) }
}

export function shownCoordinator({ coordinator }: RegistryView): ShownProcess | null {
  return coordinator === undefined ? null : shownProcess(coordinator)
}

function shownProcess(process: KnownProcess<CoordinatorRecord>): ShownProcess {
  const { record, heardMs, clock } = process
  const { address, location } = record
  const lastHeard = heardMs === undefined ? null : timeShown(heardMs)
  return { address, location, status: processStatus(process), lastHeard, clockAheadMs: clock?.aheadMs ?? null }
}

function processStatus(process: KnownProcess<CoordinatorRecord>): ShownProcess['status'] {
  if (process.isStale) return 'stale'
  if (isUnheard(process)) return 'unheard'
  return process.clock?.isTrusted === false ? 'skewed' : 'ok'
}

function timeShown(ms: number): string {
  return new Date(ms).toISOString()
}
