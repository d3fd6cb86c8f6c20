/**
 * The cluster as the registry sees it now: what its machine keeps, and in memory what heartbeats tell, which is when each process was heard
 * of, how full its disks are, and whether they have failed. Counts a version with each change that others must know, and a
 * revision with every one, for those who look on.
 *
 * A registry that has just started has heard of nobody: whoever it knows of may be there, and is told of as such, until the time is over
 * in which it would have been heard of.
 */
import { assert } from '#base/assert.ts'
import type { DiskId } from '#cluster/block/permit.ts'
import type { ClusterId } from '#cluster/cluster-id.ts'

import type { RegistryOutcome } from './registry-machine.ts'
import type { ToldClock } from './registry-messages.ts'
import type { CoordinatorRecord, DiskRecord, ShardsRecord } from './registry-records.ts'
import { type DiskRoom, type WritableDisks, writableDisks } from './writable-disks.ts'

export interface Room {
  readonly capacityBytes: number
  readonly usedBytes: number
  readonly freeBytes: number
  readonly blocks: number
}

/** The one thing about a disk that matters most. */
export type DiskStatus = 'ok' | 'full' | 'drained' | 'unread' | 'failed' | 'stale' | 'terminated'

interface Heard {
  /** By the monotonic clock; of one that was not heard of, when the registry started. */
  heardAt: number
  /** Milliseconds since 1970; undefined where it was not heard of since the registry started. */
  heardMs: number | undefined
  isStale: boolean
  /** Of its process, as it told last; undefined where it has not. */
  clock: ToldClock
  /** Of the last change. */
  revision: number
}

export interface KnownDisk extends Readonly<Heard> {
  readonly record: DiskRecord
  readonly room: Room | undefined
  readonly failure: string
  readonly isFull: boolean
}
export interface KnownProcess<R> extends Readonly<Heard> {
  readonly record: R
}
export type KnownShards = KnownProcess<ShardsRecord>

interface DiskState extends Heard {
  record: DiskRecord
  room: Room | undefined
  failure: string
  isFull: boolean
}
interface ProcessState<R> extends Heard {
  record: R
}

/** What a heartbeat tells of a disk. */
export interface DiskNews extends Room {
  readonly disk: DiskId
  readonly failure: string
}

/** More than anybody mixes up. */
const STRANGERS_MAX = 16
/** Versions of one start of the registry. */
const VERSIONS = 2 ** 32
/** A disk is full that has no room for a block, or, where it is small, hardly any; and not any more with twice that. */
const FULL_BYTES = 128 * 1024 ** 2
const FULL_SHARE = 0.05

export interface Moment {
  readonly monotonicMs: number
  readonly ms: number
}

export class RegistryView {
  readonly #staleMs: number
  readonly #now: () => Moment
  readonly #startedAt: number
  readonly #disks = new Map<DiskId, DiskState>()
  /** Of the same disks; undefined after one has come. */
  #inOrder: readonly DiskState[] | undefined
  readonly #shards = new Map<number, ProcessState<ShardsRecord>>()
  #coordinator: ProcessState<CoordinatorRecord> | undefined
  /** Clusters of which parts were refused, and when last. */
  readonly #strangers = new Map<ClusterId, number>()
  #starts = 0
  #changes = 0
  #revision = 0
  #writable: { readonly version: number; readonly disks: WritableDisks } | undefined
  /** Called after every change. */
  onChanged: () => void = () => undefined

  constructor(staleMs: number, now: () => Moment) {
    this.#staleMs = staleMs
    this.#now = now
    this.#startedAt = now().monotonicMs
  }

  get version(): number {
    return this.#starts * VERSIONS + this.#changes
  }

  get revision(): number {
    return this.#revision
  }

  /** In order of ids. */
  get disks(): readonly KnownDisk[] {
    return (this.#inOrder ??= [...this.#disks.values()].sort((a, b) => a.record.disk - b.record.disk))
  }

  disk(id: DiskId): KnownDisk | undefined {
    return this.#disks.get(id)
  }

  /** In order of shards. */
  get shards(): readonly KnownProcess<ShardsRecord>[] {
    return [...this.#shards.values()].sort((a, b) => a.record.first - b.record.first)
  }

  shardsOf(process: number): KnownProcess<ShardsRecord> | undefined {
    return this.#shards.get(process)
  }

  get coordinator(): KnownProcess<CoordinatorRecord> | undefined {
    return this.#coordinator
  }

  /** Takes over what an entry has made of the records. */
  take({ starts, disks, shards, coordinator }: RegistryOutcome): void {
    if (starts !== undefined && starts !== this.#starts) {
      assert(starts < 2 ** 21, 'versions are safe integers')
      this.#starts = starts
      this.#changes = 0
    }
    for (const record of disks) {
      const known = this.#disks.get(record.disk)
      if (known !== undefined && isSameRecord(known.record, record)) continue
      if (known === undefined) {
        const made = { record, room: undefined, failure: '', isFull: false, ...this.#unheard() }
        this.#disks.set(record.disk, made)
        this.#inOrder = undefined
      } else known.record = record
      this.#changed(this.#disks.get(record.disk))
    }
    if (shards !== undefined)
      this.#takeProcess(this.#shards.get(shards.process), shards, (made) => {
        this.#shards.set(shards.process, made)
      })
    if (coordinator !== undefined)
      this.#takeProcess(this.#coordinator, coordinator, (made) => {
        this.#coordinator = made
      })
  }

  heardShards(process: number, clock: ToldClock): void {
    this.#hear(this.#shards.get(process), clock)
  }

  heardCoordinator(clock: ToldClock): void {
    this.#hear(this.#coordinator, clock)
  }

  heardDisk(process: number, news: DiskNews, clock: ToldClock): void {
    const disk = this.#disks.get(news.disk)
    if (disk === undefined || disk.record.process !== process) return
    const { capacityBytes, usedBytes, freeBytes, blocks } = news
    // Those who asked before were told of no room at all.
    const isFirst = disk.room === undefined
    disk.room = { capacityBytes, usedBytes, freeBytes, blocks }
    const fullBytes = Math.min(FULL_BYTES, capacityBytes * FULL_SHARE)
    const isFull = freeBytes <= (disk.isFull ? 2 * fullBytes : fullBytes)
    if (isFirst || isFull !== disk.isFull || news.failure !== disk.failure) {
      disk.isFull = isFull
      disk.failure = news.failure
      this.#changed(disk)
    }
    this.#hear(disk, clock)
  }

  /** Of which parts come here that belong elsewhere, and are refused. */
  get strangers(): readonly ClusterId[] {
    return [...this.#strangers.keys()].sort()
  }

  /** Whether it is a new one. */
  heardStranger(cluster: ClusterId): boolean {
    const isNew = !this.#strangers.has(cluster)
    if (isNew && this.#strangers.size >= STRANGERS_MAX) return false
    this.#strangers.set(cluster, this.#now().monotonicMs)
    if (isNew) this.#seen(undefined)
    return isNew
  }

  /** Finds out who is silent. */
  sweep(): void {
    const { monotonicMs } = this.#now()
    for (const [cluster, heardAt] of this.#strangers) {
      if (monotonicMs - heardAt < this.#staleMs) continue
      this.#strangers.delete(cluster)
      this.#seen(undefined)
    }
    const silent = (each: Heard): void => {
      if (each.isStale || monotonicMs - each.heardAt < this.#staleMs) return
      each.isStale = true
      this.#changed(each)
    }
    for (const disk of this.#disks.values()) silent(disk)
    for (const process of this.#shards.values()) silent(process)
    if (this.#coordinator !== undefined) silent(this.#coordinator)
  }

  /** Which disks shards may write to, as of the version. */
  writable(): WritableDisks {
    if (this.#writable?.version !== this.version) {
      this.#writable = { version: this.version, disks: this.#chooseWritable() }
    }
    return this.#writable.disks
  }

  /** Counts a version where the room that is left by now would have other disks written to. */
  rebalance(): void {
    if (this.#writable === undefined || this.#writable.version !== this.version) return
    const disks = this.#chooseWritable()
    if (isSameChoice(this.#writable.disks, disks)) return
    this.#changes++
    this.#writable = { version: this.version, disks }
  }

  /** Disks that take new blocks, in order of their ids. */
  writableRooms(): DiskRoom[] {
    return this.disks
      .filter((disk) => diskStatus(disk) === 'ok')
      .map(({ record: { disk, class: storageClass, domain }, room }) => {
        return { disk, class: storageClass, domain, freeBytes: room?.freeBytes }
      })
  }

  #chooseWritable(): WritableDisks {
    return writableDisks(this.writableRooms())
  }

  #takeProcess<R extends object>(
    known: ProcessState<R> | undefined,
    record: R,
    keep: (made: ProcessState<R>) => void,
  ): void {
    if (known === undefined) {
      const made = { record, ...this.#unheard() }
      keep(made)
      this.#changed(made)
    } else if (!isSameRecord(known.record, record)) {
      known.record = record
      this.#changed(known)
    }
  }

  #unheard(): Heard {
    return { heardAt: this.#startedAt, heardMs: undefined, isStale: false, clock: undefined, revision: 0 }
  }

  #hear(each: Heard | undefined, clock: ToldClock): void {
    if (each === undefined) return
    each.clock = clock
    const { monotonicMs, ms } = this.#now()
    each.heardAt = monotonicMs
    each.heardMs = ms
    if (each.isStale) {
      each.isStale = false
      this.#changed(each)
    } else this.#seen(each)
  }

  #changed(each: Heard | undefined): void {
    this.#changes++
    this.#seen(each)
  }

  #seen(each: Heard | undefined): void {
    this.#revision++
    if (each !== undefined) each.revision = this.#revision
    this.onChanged()
  }
}

/** Since the registry started: it may be there, or not. */
export function isUnheard({ heardMs }: Pick<KnownDisk, 'heardMs'>): boolean {
  return heardMs === undefined
}

/** Of what holds at a time, what matters most. */
export function diskStatus({ record: { flags }, isStale, failure, isFull }: KnownDisk): DiskStatus {
  if (flags.includes('decommissioned')) return 'terminated'
  if (isStale) return 'stale'
  if (failure !== '') return 'failed'
  if (flags.includes('no-write')) return 'drained'
  if (flags.includes('no-read')) return 'unread'
  return isFull ? 'full' : 'ok'
}

function isSameChoice(a: WritableDisks, b: WritableDisks): boolean {
  return JSON.stringify([...a]) === JSON.stringify([...b])
}

/** Records have their fields in one order. */
export function isSameRecord(a: object | undefined, b: object): boolean {
  return a !== undefined && JSON.stringify(a) === JSON.stringify(b)
}
