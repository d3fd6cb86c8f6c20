/** How the whole is, in one sentence, and in one word for the colour that it has. */
import { shownOff } from '#cluster/clock-trust.ts'
import { defaultRedundancy } from '#cluster/erasure/layout.ts'
import { SHARDS } from '#cluster/inode-id.ts'

import type { ToldClock } from './registry-messages.ts'
import {
  diskStatus,
  type DiskStatus,
  isUnheard,
  type KnownDisk,
  type KnownShards,
  type RegistryView,
} from './registry-view.ts'

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
const TROUBLES: readonly (readonly [DiskStatus | 'unheard', one: string, many: string])[] = [
  ['failed', 'has failed', 'have failed'],
  ['stale', 'is silent', 'are silent'],
  ['full', 'is full', 'are full'],
  ['unheard', 'is not heard of yet', 'are not heard of yet'],
]

export function clusterHealth(view: RegistryView): Health {
  const disks = view.disks.filter((disk) => diskStatus(disk) !== 'terminated')
  const { shards, coordinator } = view
  if (disks.length === 0 && shards.length === 0 && coordinator === undefined) {
    const words = 'nothing has registered yet: start the shards, the coordinator and disks'
    return { state: 'down', sentence: `${capitalized([...strangersTrouble(view), words].join('; '))}.` }
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
  say(shardTrouble === undefined ? `${SHARDS} shards` : undefined, shardTrouble?.words)
  const coordinatorTrouble =
    coordinator === undefined
      ? 'the coordinator is missing'
      : coordinator.isStale
        ? 'the coordinator is silent'
        : isUnheard(coordinator)
          ? 'the coordinator is not heard of yet'
          : undefined
  say(coordinatorTrouble === undefined ? 'the coordinator' : undefined, coordinatorTrouble)
  const clocks = clocksTrouble(view)
  say(undefined, clocks?.words)
  troubles.push(...strangersTrouble(view))

  const { words, canWrite } = redundancyOf(view, diskTroubles === undefined ? 'Files' : 'New files')
  const isCoordinatorDown = coordinator === undefined || coordinator.isStale
  const isDown = shardTrouble?.isDown === true || isCoordinatorDown || clocks?.isDown === true || !canWrite
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
    const count = disks.filter((disk) => conditionOf(disk) === status).length
    return count === 0 ? [] : [`${count} ${count === 1 ? one : many}`]
  })
  if (parts.length === 0) return undefined
  const [first = '', ...rest] = parts
  // "1 of 4 disks has failed and 2 are silent"
  return listed([first.replace(' ', ` of ${disks.length} ${disks.length === 1 ? 'disk' : 'disks'} `), ...rest])
}

/** That of one that works is from before the start of the registry, until it is heard of. */
function conditionOf(disk: KnownDisk): DiskStatus | 'unheard' {
  const status = diskStatus(disk)
  return isUnheard(disk) && (status === 'ok' || status === 'drained' || status === 'unread') ? 'unheard' : status
}

/** What an operator wants so, and is to keep in mind. */
function setAside(disks: readonly KnownDisk[]): string {
  const count = disks.filter((disk) => ['drained', 'unread'].includes(diskStatus(disk))).length
  return count === 0 ? '' : ` (${count} drained)`
}

interface Trouble {
  readonly words: string
  /** Rather than that it is to be looked at. */
  readonly isDown: boolean
}

function shardsTrouble({ shards }: RegistryView): Trouble | undefined {
  const ranges = (chosen: (each: KnownShards) => boolean): string[] =>
    shards.filter(chosen).map(({ record: { first, last } }) => rangeShown(first, last))
  const silent = ranges(({ isStale }) => isStale)
  const unheard = ranges((each) => !each.isStale && isUnheard(each))
  const missing: string[] = []
  let next = 0
  for (const { record } of shards) {
    if (record.first > next) missing.push(rangeShown(next, record.first - 1))
    next = Math.max(next, record.last + 1)
  }
  if (next < SHARDS) missing.push(rangeShown(next, SHARDS - 1))
  if (missing.length === 1 && next === 0) return { words: 'no shard has registered', isDown: true }
  const parts = [
    ...(silent.length > 0 ? [`shards ${listed(silent)} are silent`] : []),
    ...(missing.length > 0 ? [`shards ${listed(missing)} are missing`] : []),
    ...(unheard.length > 0 ? [`shards ${listed(unheard)} are not heard of yet`] : []),
  ]
  if (parts.length === 0) return undefined
  return { words: parts.join(', '), isDown: silent.length + missing.length > 0 }
}

/** Whose clock is off, by how much, and what that keeps from being done. Of who is silent nobody knows. */
function clocksTrouble({ shards, coordinator, disks }: RegistryView): Trouble | undefined {
  const held = shards
    .filter((each) => isClockOff(each))
    .map(({ record: { first, last }, clock }) => {
      return `the clock of shards ${rangeShown(first, last)} is ${offShown(clock)}, and they take no writes`
    })
  const off =
    coordinator !== undefined && isClockOff(coordinator)
      ? [`the clock of the coordinator is ${offShown(coordinator.clock)}`]
      : []
  const services = new Map(disks.filter(isClockOff).map(({ record: { address }, clock }) => [address, clock]))
  const ofDisks = [...services].map(([address, clock]) => `the clock of the disks at ${address} is ${offShown(clock)}`)
  const parts = [...held, ...off, ...ofDisks]
  return parts.length === 0 ? undefined : { words: parts.join(', '), isDown: held.length > 0 }
}

function strangersTrouble({ strangers }: RegistryView): string[] {
  return strangers.map((cluster) => `parts of another cluster, ${cluster}, come here and are refused`)
}

function isClockOff({ isStale, clock }: Pick<KnownDisk, 'isStale' | 'clock'>): boolean {
  return !isStale && clock !== undefined && !clock.isTrusted
}

function offShown(clock: ToldClock): string {
  return `${shownOff(clock?.aheadMs ?? 0)} that of the registry`
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
