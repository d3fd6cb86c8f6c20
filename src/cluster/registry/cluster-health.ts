/** How the whole is, in one sentence, and in one word for the colour that it has. */
import { defaultRedundancy } from '#cluster/erasure/layout.ts'
import { SHARDS } from '#cluster/inode-id.ts'

import { diskStatus, type DiskStatus, type KnownDisk, type RegistryView } from './registry-view.ts'

/** `good`: all is there. `degraded`: files can be read and written, and something is to be looked at. `down`: some cannot. */
export type HealthState = 'good' | 'degraded' | 'down'
export interface Health {
  readonly state: HealthState
  readonly sentence: string
}

export interface Totals {
  readonly disks: number
  readonly domains: number
  readonly capacityBytes: number
  readonly usedBytes: number
  readonly freeBytes: number
}

const NUMBERS = ['no', 'one', 'two', 'three', 'four', 'five']
/** How the sentence says it of disks; what is not here is as it should be. */
const TROUBLES: readonly (readonly [DiskStatus, one: string, many: string])[] = [
  ['failed', 'has failed', 'have failed'],
  ['stale', 'is silent', 'are silent'],
  ['full', 'is full', 'are full'],
]

export function clusterHealth(view: RegistryView): Health {
  const disks = view.disks.filter((disk) => diskStatus(disk) !== 'terminated')
  const { shards, coordinator } = view
  if (disks.length === 0 && shards.length === 0 && coordinator === undefined) {
    return { state: 'down', sentence: 'Nothing has registered yet: start the shards, the coordinator and disks.' }
  }
  const present: string[] = []
  const troubles: string[] = []
  const say = (words: string | undefined, trouble: string | undefined): void => {
    if (words !== undefined) present.push(words)
    if (trouble !== undefined) troubles.push(trouble)
  }
  const diskTroubles = troublesOf(disks)
  if (diskTroubles === undefined) {
    say(`${disks.length === 1 ? 'the disk' : `all ${disks.length} disks`}${setAside(disks)}`, undefined)
  } else troubles.push(`${diskTroubles}${setAside(disks)}`)
  const shardTrouble = shardsTrouble(view)
  say(shardTrouble === undefined ? `${SHARDS} shards` : undefined, shardTrouble)
  const coordinatorTrouble =
    coordinator === undefined
      ? 'the coordinator is missing'
      : coordinator.isStale
        ? 'the coordinator is silent'
        : undefined
  say(coordinatorTrouble === undefined ? 'the coordinator' : undefined, coordinatorTrouble)

  const { words, canWrite } = redundancyOf(view, diskTroubles === undefined ? 'Files' : 'New files')
  const isDown = shardTrouble !== undefined || coordinatorTrouble !== undefined || !canWrite
  const state = isDown ? 'down' : troubles.length > 0 ? 'degraded' : 'good'
  const isOne = present.length === 1 && present[0]?.startsWith('the ') === true
  const there = present.length === 0 ? [] : [`${listed(present)} ${isOne ? 'is' : 'are'} there`]
  return { state, sentence: `${capitalized([...troubles, ...there].join('; '))}. ${words}` }
}

/** Free bytes that disks on one file system share count once. */
export function totalsOf(view: RegistryView): Totals {
  const disks = view.disks.filter((disk) => diskStatus(disk) !== 'terminated')
  const domains = new Set(disks.map(({ record }) => record.domain)).size
  let usedBytes = 0
  let freeBytes = 0
  const shared = new Map<number, number>()
  for (const { record, room } of disks) {
    usedBytes += room?.usedBytes ?? 0
    const free = room?.freeBytes ?? 0
    if (record.fileSystem === 0) freeBytes += free
    else shared.set(record.fileSystem, Math.max(free, shared.get(record.fileSystem) ?? 0))
  }
  for (const free of shared.values()) freeBytes += free
  return { disks: disks.length, domains, capacityBytes: usedBytes + freeBytes, usedBytes, freeBytes }
}

function troublesOf(disks: readonly KnownDisk[]): string | undefined {
  if (disks.length === 0) return 'no disk has registered'
  const parts = TROUBLES.flatMap(([status, one, many]) => {
    const count = disks.filter((disk) => diskStatus(disk) === status).length
    return count === 0 ? [] : [`${count} ${count === 1 ? one : many}`]
  })
  if (parts.length === 0) return undefined
  const [first = '', ...rest] = parts
  // "1 of 4 disks has failed and 2 are silent"
  return listed([first.replace(' ', ` of ${disks.length} ${disks.length === 1 ? 'disk' : 'disks'} `), ...rest])
}

/** What an operator wants so, and is to keep in mind. */
function setAside(disks: readonly KnownDisk[]): string {
  const count = disks.filter((disk) => ['drained', 'unread'].includes(diskStatus(disk))).length
  return count === 0 ? '' : ` (${count} drained)`
}

function shardsTrouble({ shards }: RegistryView): string | undefined {
  const silent = shards.filter(({ isStale }) => isStale).map(({ record: { first, last } }) => rangeShown(first, last))
  const missing: string[] = []
  let next = 0
  for (const { record } of shards) {
    if (record.first > next) missing.push(rangeShown(next, record.first - 1))
    next = Math.max(next, record.last + 1)
  }
  if (next < SHARDS) missing.push(rangeShown(next, SHARDS - 1))
  if (missing.length === 1 && next === 0) return 'no shard has registered'
  const parts = [
    ...(silent.length > 0 ? [`shards ${listed(silent)} are silent`] : []),
    ...(missing.length > 0 ? [`shards ${listed(missing)} are missing`] : []),
  ]
  return parts.length === 0 ? undefined : parts.join(', ')
}

/** How new files are kept where no policy says otherwise, by the failure domains of each class that take blocks. */
function redundancyOf(view: RegistryView, files: string): { readonly words: string; readonly canWrite: boolean } {
  const writable = view.disks.filter((disk) => diskStatus(disk) === 'ok')
  if (writable.length === 0) return { words: 'No disk takes new blocks.', canWrite: false }
  const kept = [...Map.groupBy(writable, ({ record }) => record.class)]
    .sort(([a], [b]) => a - b)
    .map(([storageClass, disks]) => ({
      storageClass,
      words: keptAs(new Set(disks.map(({ record }) => record.domain)).size),
    }))
  const [only] = kept
  const isAlike = new Set(kept.map(({ words }) => words)).size === 1
  const words =
    only !== undefined && isAlike
      ? `as ${only.words}`
      : `by class: ${kept.map((each) => `those of class ${each.storageClass} as ${each.words}`).join('; ')}`
  return { words: `${files} are kept ${words}${sharedFate(writable)}.`, canWrite: true }
}

/** Directories on one disk of a machine are failure domains by name alone. */
function sharedFate(disks: readonly KnownDisk[]): string {
  const [first] = disks
  const isShared = first !== undefined && disks.length > 1 && first.record.fileSystem !== 0
  if (!isShared || disks.some(({ record }) => record.fileSystem !== first.record.fileSystem)) return ''
  return ', though not the one file system that all disks are on'
}

function keptAs(domains: number): string {
  const { data, parity } = defaultRedundancy(domains)
  if (parity === 0) return 'a single copy: no disk may fail'
  const may = `any ${NUMBERS[parity] ?? parity} failure ${parity === 1 ? 'domain' : 'domains'} may fail`
  return data === 1 ? `${parity + 1} copies: ${may}` : `${data}+${parity}: ${may}`
}

function rangeShown(first: number, last: number): string {
  return first === last ? String(first) : `${first} to ${last}`
}

function listed(parts: readonly string[]): string {
  return parts.length < 2 ? parts.join('') : `${parts.slice(0, -1).join(', ')} and ${parts.at(-1) ?? ''}`
}

function capitalized(words: string): string {
  return words.charAt(0).toUpperCase() + words.slice(1)
}
