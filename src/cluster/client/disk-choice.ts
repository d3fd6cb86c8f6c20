/**
 * Which disks to ask first. Pure: what the registry says of the disks, and what the client has seen itself, put in order. What the
 * registry says is a hint that may be minutes old: it makes a disk the last to be asked, never one that is not asked.
 */
import type { DiskId } from '#cluster/block/permit.ts'
import type { knownDisk } from '#cluster/registry/registry-messages.ts'
import type { Address } from '#cluster/surroundings.ts'
import type { Target } from '#cluster/wire/caller.ts'
import type { ValueOf } from '#cluster/wire/codec.ts'

export type KnownDisk = ValueOf<typeof knownDisk>

/** What a client knows of the disks: a copy of the registry's map. */
export interface Disks {
  find(disk: DiskId): KnownDisk | undefined
  all(): Iterable<KnownDisk>
  /** Asks the registry anew; settles in a time of its own, also where that fails. */
  refresh(): Promise<void>
}

/** Whether new blocks may go there. Of a disk without any capacity the registry, just started, has not heard yet how full it is. */
export function isWritable({ flags, failure, capacityBytes, freeBytes }: KnownDisk): boolean {
  if (failure !== '' || (freeBytes === 0 && capacityBytes > 0)) return false
  return !flags.some((flag) => flag === 'stale' || flag === 'no-write' || flag === 'decommissioned')
}

/** The larger, the less is to be expected of a read there: fine, silent for a while, said not to be read or not known. */
function doubtOf(disk: KnownDisk | undefined): number {
  if (disk === undefined) return 3
  if (disk.failure !== '' || disk.flags.includes('no-read') || disk.flags.includes('decommissioned')) return 2
  return disk.flags.includes('stale') ? 1 : 0
}

/** A block that may be read. */
export interface Candidate {
  readonly index: number
  readonly disk: KnownDisk | undefined
  /** It, or its disk, did not do well the last time. */
  readonly isSuspect: boolean
  /** Bytes on their way from the process that has it. */
  readonly busyBytes: number
}

/** The candidates in the order in which to ask: healthy ones first, then near ones, then data, which needs no computing, then idle ones. */
export function inOrder(candidates: readonly Candidate[], data: number, location: string): Candidate[] {
  const ranks = new Map(
    candidates.map((each) => [
      each,
      [
        doubtOf(each.disk) * 2 + (each.isSuspect ? 3 : 0),
        each.disk !== undefined && each.disk.location !== location ? 1 : 0,
        // A copy needs no computing either.
        data > 1 && each.index >= data ? 1 : 0,
        each.busyBytes,
        each.index,
      ],
    ]),
  )
  return candidates.toSorted((a, b) => compare(ranks.get(a) ?? [], ranks.get(b) ?? []))
}

/** The service that has the disk, wherever the map says that it is at the time. */
export function diskTarget(disks: Disks, disk: DiskId): Target {
  return {
    name: `disk ${disk}`,
    address: (): Address | undefined => disks.find(disk)?.address,
    isLost: () => void disks.refresh(),
  }
}

function compare(a: readonly number[], b: readonly number[]): number {
  for (const [index, value] of a.entries()) {
    const difference = value - (b[index] ?? 0)
    if (difference !== 0) return difference
  }
  return 0
}
