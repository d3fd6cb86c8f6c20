/**
 * Which disks each shard may write new blocks to: a function of the disks, and of nothing else.
 *
 * A shard is a point between 0 and 1, and so is each disk of a failure domain a stretch of it as long as its share of the domain's free bytes: the
 * shard writes to the disk at whose stretch it lies. So emptier disks get more shards. As the points are the same in every domain,
 * there are no more different sets of first choices than disks: the fewer sets, the less likely it is that disks that fail at a time
 * are one. After one disk of each domain come the next ones of each, in turn.
 */
import type { DiskId } from '#cluster/block/permit.ts'
import { SHARDS } from '#cluster/inode-id.ts'

/** Of one shard and class. */
export const WRITABLE_MAX = 28

export interface DiskRoom {
  readonly disk: DiskId
  readonly class: number
  readonly domain: string
  /** Undefined: not known, as of one that was not heard of since the registry started. */
  readonly freeBytes: number | undefined
}

/** By class: what each shard from 0 on may write to, most free first among disks of different domains. */
export type WritableDisks = ReadonlyMap<number, readonly (readonly DiskId[])[]>

interface Domain {
  readonly disks: readonly DiskRoom[]
  /** Where the stretch of each disk ends. */
  readonly ends: readonly number[]
}

/** @param disks those that take new blocks, in order of their ids */
export function writableDisks(disks: readonly DiskRoom[], shards = SHARDS, disksMax = WRITABLE_MAX): WritableDisks {
  const byClass = Map.groupBy(disks, (disk) => disk.class)
  const chosen = new Map<number, (readonly DiskId[])[]>()
  for (const [storageClass, ofClass] of [...byClass].sort(([a], [b]) => a - b)) {
    const domains = domainsOf(ofClass)
    chosen.set(
      storageClass,
      Array.from({ length: shards }, (_, shard) => disksOf(domains, pointOf(shard), disksMax)),
    )
  }
  return chosen
}

function domainsOf(disks: readonly DiskRoom[]): Domain[] {
  const byDomain = Map.groupBy(disks, (disk) => disk.domain)
  return [...byDomain]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([, ofDomain]) => {
      const weights = weightsOf(ofDomain)
      const total = weights.reduce((sum, weight) => sum + weight, 0)
      let end = 0
      return { disks: ofDomain, ends: weights.map((weight) => (end += weight) / total) }
    })
}

/** What is not known counts as the mean of what is. */
function weightsOf(disks: readonly DiskRoom[]): number[] {
  const known = disks.flatMap(({ freeBytes }) => (freeBytes === undefined ? [] : [freeBytes]))
  const mean = known.length === 0 ? 1 : known.reduce((sum, free) => sum + free, 0) / known.length
  return disks.map(({ freeBytes = mean }) => Math.max(1, freeBytes))
}

function disksOf(domains: readonly Domain[], point: number, disksMax: number): DiskId[] {
  const first = Math.floor(point * domains.length)
  const turned = domains.length > disksMax ? [...domains.slice(first), ...domains.slice(0, first)] : domains
  const chosen: DiskId[] = []
  const rounds = Math.max(...domains.map(({ disks }) => disks.length))
  for (let round = 0; round < rounds && chosen.length < disksMax; round++) {
    const ofRound = turned.flatMap((domain) => {
      const disk = round < domain.disks.length ? diskAt(domain, point, round) : undefined
      return disk === undefined ? [] : [disk]
    })
    const taken = ofRound.slice(0, disksMax - chosen.length)
    taken.sort((a, b) => (b.freeBytes ?? 0) - (a.freeBytes ?? 0) || a.disk - b.disk)
    chosen.push(...taken.map(({ disk }) => disk))
  }
  return chosen
}

function diskAt({ disks, ends }: Domain, point: number, round: number): DiskRoom | undefined {
  const at = ends.findIndex((end) => point < end)
  return disks[((at === -1 ? disks.length - 1 : at) + round) % disks.length]
}

/** Shards one after the other lie far apart, so that few of them lie evenly, too: the bits of the shard in reverse. */
function pointOf(shard: number): number {
  let point = 0
  for (let rest = shard, unit = 0.5; rest > 0; rest >>>= 1, unit /= 2) if ((rest & 1) === 1) point += unit
  return point
}
