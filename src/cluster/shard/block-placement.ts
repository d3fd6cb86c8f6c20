/**
 * Which disks the blocks of a new span go to. Never two of one failure domain while there are others, and never two blocks on one disk. A file
 * stays on the disks that it has, as far as they can be written to: so fewer sets of disks exist whose loss together would lose a file.
 */
import type { DiskId } from '#cluster/block/permit.ts'
import type { Chance } from '#cluster/surroundings.ts'

/** A disk that the registry lets this shard write to. */
export interface WritableDisk {
  readonly disk: DiskId
  readonly domain: string
}

export interface Placement {
  readonly writable: readonly WritableDisk[]
  /** Blocks of the span. */
  readonly count: number
  readonly avoidDomains: ReadonlySet<string>
  /** Disks that the file has, the most wanted first. */
  readonly preferred: readonly DiskId[]
}

/** The disks, fewer than `count` where there are no more. */
export function placeBlocks({ writable, count, avoidDomains, preferred }: Placement, chance: Chance): DiskId[] {
  const allowed = writable.filter(({ domain }) => !avoidDomains.has(domain))
  const byId = new Map(allowed.map((disk) => [disk.disk, disk]))
  const wanted = preferred.flatMap((id) => byId.get(id) ?? [])
  const order = [...new Set([...wanted, ...shuffled(allowed, chance)])]
  const chosen = new Set<DiskId>()
  // With fewer domains than blocks there are more rounds than one: so as few as can be are lost with a domain.
  while (chosen.size < count && chosen.size < byId.size) {
    const domains = new Set<string>()
    for (const { disk, domain } of order) {
      if (chosen.size === count) break
      if (chosen.has(disk) || domains.has(domain)) continue
      domains.add(domain)
      chosen.add(disk)
    }
  }
  return [...chosen]
}

function shuffled<T>(items: readonly T[], chance: Chance): T[] {
  const all = [...items]
  for (let at = all.length - 1; at > 0; at--) {
    const other = chance.below(at + 1)
    const kept = all[at] as T
    all[at] = all[other] as T
    all[other] = kept
  }
  return all
}
