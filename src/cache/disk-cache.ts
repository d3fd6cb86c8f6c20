/**
 * The disk cache: which versions are held or have news for the index, in memory; all others in the index alone. Keeps the
 * order of last use, moves and removes what is cached, and writes the index in batches, in the background.
 *
 * - What is in memory goes before what the index says; `#leaving` are the keys whose records are about to be removed.
 * - Data first, index after: a batch says only what was written to data files before it. A data file that is removed may
 *   still be in the index after a crash; whoever finds it missing forgets it.
 * - After an end that was not clean, nothing is taken in, given away or moved until all files were counted (counting.ts):
 *   what the bound allows is not known before.
 */
import { closeSync, constants, openSync } from 'node:fs'
import { setImmediate } from 'node:timers/promises'

import { assert } from '#base/assert.ts'
import { logger } from '#base/log.ts'
import { counter } from '#base/metrics.ts'
import { statusOf } from '#os/status.ts'

import { checksumsOfFile, copyInto, linkInto } from './adopting.ts'
import { blockCount } from './blocks.ts'
import {
  indexKeyOf,
  pathPartOf,
  SEGMENT_BLOCKS,
  type CacheIndex,
  type DataId,
  type FileRecord,
  type IndexKey,
  type Place,
  type Totals,
} from './cache-index.ts'
import { CachedFile, type CacheHost } from './cached-file.ts'
import { Checker } from './checker.ts'
import { countAndSweep } from './counting.ts'
import type { DataFile, DataFiles } from './data-files.ts'
import type { CachedVersion, CacheKey, FileCache, FileCacheOptions, FileCacheStatus } from './file-cache.ts'
import { HeldVersion, type Holder } from './held-version.ts'
import { Room } from './room.ts'
import { SealMemory } from './seal-memory.ts'

/**
 * So late is the index at most behind the files, in time and in files. Each commit ends with an fsync aside, which makes
 * ext4 write out what was kept before it: not more often than that.
 */
const COMMIT_MS = 2000
const UNCOMMITTED_MAX = 1000
/** Queued between two turns of the event loop: each costs some 8 µs. */
const COMMIT_FILES = 200
/** After a commit that failed: the disk may be full for long. */
const COMMIT_AGAIN_MS = 10_000
const LIMITS_MS = 10_000
const COMPLAIN_MS = 60_000
/** Of the order of last use, looked at between two turns of the event loop: 0.3 ms. */
const EVICT_PLACES = 64
/** Removed side by side: the thread pool has four threads, which others need too. */
const REMOVALS = 2

const log = logger('cache')

/** Something that the index still has and is to have no more. */
interface Leaving {
  readonly place: Place
  readonly segments: number
}

export class DiskCache implements FileCache {
  readonly #storeUrl: string
  readonly #index: CacheIndex
  readonly #release: () => void
  readonly #room: Room
  readonly #host: CacheHost
  readonly #data: DataFiles
  readonly #checker: Checker
  readonly #counting = new AbortController()
  readonly #counted: Promise<void>
  /** Held, or with news for the index. */
  readonly #live = new Map<IndexKey, CachedFile>()
  readonly #changed = new Set<CachedFile>()
  readonly #created = new Set<CachedFile>()
  readonly #leaving = new Map<IndexKey, Leaving[]>()
  readonly #timer: NodeJS.Timeout
  #isCounting = false
  #isClosed = false
  /** The last commit failed: the next one is not to come at once. */
  #isFailing = false
  #committing: Promise<void> | undefined
  #committingNext: Promise<void> | undefined
  #commitTimer: NodeJS.Timeout | undefined
  readonly #work = new Set<Promise<unknown>>()
  #files = 0
  #usedAt = 0
  #hitBytes = 0
  #missBytes = 0
  #evictedBytes = 0
  #corruptBlocks = 0
  #complainedAt = -Infinity
  readonly #metrics = {
    hit: counter('eider_cache_hit_bytes_total'),
    miss: counter('eider_cache_miss_bytes_total'),
    evicted: counter('eider_cache_evicted_bytes_total'),
    corrupt: counter('eider_cache_corrupt_blocks_total'),
    noRoom: counter('eider_cache_keep_failures_total', 'room'),
    noDisk: counter('eider_cache_keep_failures_total', 'disk'),
  }

  /** What a held version does by its cache. */
  readonly #holder: Holder = {
    release: (file) => this.#letGo(file),
    countRead: (length, isHit) => this.#countRead(length, isHit),
    keep: (file, offset, bytes) => this.#keep(file, offset, bytes),
    take: (file, name) => this.#take(file, name),
  }

  /** `totals` are those of a clean end; `release` gives up the lock of the directory, at the end. */
  constructor(
    options: FileCacheOptions,
    index: CacheIndex,
    totals: Totals | undefined,
    data: DataFiles,
    release: () => void,
  ) {
    this.#storeUrl = options.storeUrl
    this.#index = index
    this.#data = data
    this.#release = release
    this.#room = new Room(options.directory, options.bytesMax, options.bytesFreeMin, (bytes) =>
      this.#whileOpen(() => this.#evict(bytes)),
    )
    this.#host = this.#makeHost()
    this.#checker = new Checker(
      (file) => file.holders++,
      (file) => this.#letGo(file),
    )
    this.#isCounting = totals === undefined
    this.#files = totals?.files ?? 0
    this.#room.add(totals?.bytes ?? 0)
    this.#counted = this.#isCounting ? this.#count() : Promise.resolve()
    // The limits may be lower than they were.
    if (!this.#isCounting) this.#aside(this.#room.keepLimits())
    this.#timer = setInterval(() => this.#aside(this.#room.keepLimits()), LIMITS_MS).unref()
  }

  get status(): FileCacheStatus {
    return {
      files: this.#files,
      bytes: this.#room.bytes,
      bytesMax: this.#room.bytesMax,
      hitBytes: this.#hitBytes,
      missBytes: this.#missBytes,
      evictedBytes: this.#evictedBytes,
      corruptBlocks: this.#corruptBlocks,
    }
  }

  hold(key: CacheKey): CachedVersion {
    assert(!this.#isClosed, 'a cache is used while it is open')
    const file = this.#fileOf(indexKeyOf(this.#storeUrl, key), key.size)
    file.holders++
    if (file.record !== undefined && !this.#isCounting) this.#touch(file)
    return new HeldVersion(key, file, this.#holder)
  }

  moved(from: CacheKey, to: CacheKey): void {
    if (this.#isFrozen || from.size !== to.size) return
    const oldKey = indexKeyOf(this.#storeUrl, from)
    const newKey = indexKeyOf(this.#storeUrl, to)
    if (oldKey === newKey) return
    const file = this.#fileOf(oldKey, from.size)
    // Where something is cached of the new one already, or somebody holds it, the old one is left to be evicted.
    if (file.record === undefined || this.#live.has(newKey) || this.#find(newKey) !== undefined) {
      this.#forgetIdle(file)
      return
    }
    // Also where it is not committed yet: a commit may be under way.
    const { usedAt, record } = file
    this.#leave({ place: file.stored ?? { key: oldKey, usedAt, id: record.id }, segments: 0 })
    file.stored = undefined
    this.#live.delete(oldKey)
    file.key = newKey
    this.#live.set(newKey, file)
    this.#created.add(file)
    this.#host.changed(file)
  }

  async adopt(key: CacheKey, fd: number): Promise<boolean> {
    if (this.#isFrozen || key.size === 0) return false
    const file = this.#fileOf(indexKeyOf(this.#storeUrl, key), key.size)
    file.holders++
    try {
      if (file.isComplete) return true
      return await this.#whileOpen(() => this.#adopt(file, fd))
    } catch (error) {
      this.#host.notKept(error)
      return false
    } finally {
      this.#letGo(file)
    }
  }

  async close(): Promise<void> {
    if (this.#isClosed) return
    this.#isClosed = true
    clearInterval(this.#timer)
    clearTimeout(this.#commitTimer)
    this.#counting.abort()
    await Promise.all([this.#counted, this.#checker.close()])
    // What is being kept ends by itself: local writes of a few MiB.
    await Promise.allSettled(this.#work)
    await this.#commit()
    for (const file of this.#live.values()) file.close()
    const isClean = !this.#isCounting && this.#changed.size === 0 && this.#leaving.size === 0
    try {
      if (isClean) await this.#index.noteTotals({ files: this.#files, bytes: this.#room.bytes })
    } catch (error) {
      log.warn({ err: error }, 'Cannot note what is cached: it is counted at the next start')
    }
    await this.#index.close()
    this.#release()
  }

  /** Nothing is taken in, given away or moved. */
  get #isFrozen(): boolean {
    return this.#isCounting || this.#isClosed || this.#index.isBroken
  }

  /** Counts what is there, since the end was not clean. */
  async #count(): Promise<void> {
    try {
      const totals = await countAndSweep(this.#index, this.#data, this.#counting.signal)
      if (totals === undefined) return
      this.#files = totals.files
      this.#room.add(totals.bytes)
      for (const file of this.#live.values()) {
        const record = this.#index.find(file.key)
        if (record !== undefined) file.correct(record)
      }
      this.#isCounting = false
      this.#commitSoon()
      await this.#room.keepLimits()
    } catch (error) {
      log.error({ err: error }, 'Cannot count what is cached: nothing more is cached until the next start')
    }
  }

  #makeHost(): CacheHost {
    return {
      data: this.#data,
      room: this.#room,
      seals: new SealMemory(),
      storedSums: (id, segment) => this.#index.sums(id, segment),
      created: (file) => {
        this.#files++
        this.#created.add(file)
        this.#touch(file)
      },
      changed: (file) => {
        this.#live.set(file.key, file)
        this.#changed.add(file)
        this.#commitSoon()
      },
      lost: (file, place, id, allocated) => {
        // While files are counted, too much is the safe side.
        if (!this.#isCounting) {
          this.#files--
          this.#room.add(-allocated)
        }
        this.#removeData(id)
        if (place !== undefined) this.#leave({ place, segments: segmentsOf(file.size) })
        this.#host.changed(file)
      },
      corrupt: (file, blocks, error) => {
        this.#corruptBlocks += blocks
        this.#metrics.corrupt.inc(blocks)
        log.warn({ err: error, file: file.record?.id, blocks }, 'Found cached bytes damaged: they are fetched again')
      },
      notKept: (error) => this.#complain(error),
      checkLater: (file) => this.#checker.add(file),
    }
  }

  #complain(error: unknown): void {
    ;(error === undefined ? this.#metrics.noRoom : this.#metrics.noDisk).inc()
    if (error === undefined || Date.now() < this.#complainedAt + COMPLAIN_MS) return
    this.#complainedAt = Date.now()
    log.warn({ err: error }, 'Cannot keep files in the disk cache: they are used without it')
  }

  #removeData(id: DataId): void {
    try {
      this.#data.remove(id)
    } catch (error) {
      this.#complain(error)
    }
  }

  async #keep(file: CachedFile, offset: number, bytes: Uint8Array): Promise<void> {
    if (this.#isFrozen) return
    file.holders++
    try {
      await this.#whileOpen(() => file.keep(offset, bytes))
    } finally {
      this.#letGo(file)
    }
  }

  #take(file: CachedFile, name: string | undefined): number | undefined {
    if (this.#isFrozen) return undefined
    try {
      return file.take((data) => this.#giveAway(data, name))
    } catch (error) {
      this.#complain(error)
      return undefined
    }
  }

  /** A descriptor of its own for who will write to the file; its name here goes, so that nobody finds it any more. */
  #giveAway(data: DataFile, name: string | undefined): number {
    const fd = openSync(`/proc/self/fd/${data.fd}`, constants.O_RDWR)
    try {
      if (name === undefined || !this.#data.moveAway(data.id, name)) this.#data.remove(data.id)
      return fd
    } catch (error) {
      closeSync(fd)
      throw error
    }
  }

  async #adopt(file: CachedFile, fd: number): Promise<boolean> {
    const { size, allocated } = statusOf(fd)
    if (size !== file.size) return false
    const sums = await checksumsOfFile(fd, size)
    // A file whose bytes are in memory only may not have been given its room yet; holes take none.
    const needed = Math.min(Math.max(allocated, 4096), size + 4096)
    if (!(await this.#room.reserve(needed))) {
      this.#host.notKept()
      return false
    }
    try {
      if (file.isComplete) return true
      const data = linkInto(this.#data, fd) ?? (await copyInto(this.#data, fd, size))
      if (file.isComplete) {
        this.#data.remove(data.id)
        data.done()
        return true
      }
      file.adopt(data, sums, statusOf(data.fd).allocated)
      return true
    } finally {
      this.#room.settle(needed)
    }
  }

  /** Counts as work that a close waits for. */
  async #whileOpen<T>(work: () => Promise<T>): Promise<T> {
    const working = work()
    this.#work.add(working)
    try {
      return await working
    } finally {
      this.#work.delete(working)
    }
  }

  #countRead(length: number, isHit: boolean): void {
    if (isHit) {
      this.#hitBytes += length
      this.#metrics.hit.inc(length)
    } else {
      this.#missBytes += length
      this.#metrics.miss.inc(length)
    }
  }

  #fileOf(key: IndexKey, size: number): CachedFile {
    let file = this.#live.get(key)
    if (file === undefined) {
      const record = this.#find(key)
      file = new CachedFile(this.#host, key, size, record?.size === size ? record : undefined)
      this.#live.set(key, file)
    }
    return file
  }

  #find(key: IndexKey): ReturnType<CacheIndex['find']> {
    return this.#leaving.has(key) ? undefined : this.#index.find(key)
  }

  #letGo(file: CachedFile): void {
    file.holders--
    assert(file.holders >= 0, 'a cached version is released once by each holder')
    if (file.holders > 0) return
    file.close()
    this.#room.mayHaveMore()
    this.#forgetIdle(file)
  }

  #forgetIdle(file: CachedFile): void {
    if (file.holders === 0 && !this.#changed.has(file) && this.#live.get(file.key) === file) this.#live.delete(file.key)
  }

  #touch(file: CachedFile): void {
    this.#usedAt = Math.max(Date.now(), this.#usedAt + 1)
    file.usedAt = this.#usedAt
    this.#host.changed(file)
  }

  /** Versions of their paths that are older than those that came in are the first to go. */
  #supersede(created: Iterable<CachedFile>): void {
    const uncommitted = Map.groupBy(this.#changed, ({ key }) => pathPartOf(key))
    for (const file of created) {
      const stored = this.#index.otherVersions(file.key).flatMap((key) => {
        const record = this.#find(key)
        return this.#live.get(key) ?? (record === undefined ? [] : new CachedFile(this.#host, key, record.size, record))
      })
      for (const other of [...stored, ...(uncommitted.get(pathPartOf(file.key)) ?? [])]) {
        if (other === file || other.record === undefined || other.usedAt === 0 || other.usedAt > file.usedAt) continue
        other.usedAt = 0
        this.#host.changed(other)
      }
    }
  }

  #leave(leaving: Leaving): void {
    const others = this.#leaving.get(leaving.place.key)
    if (others === undefined) this.#leaving.set(leaving.place.key, [leaving])
    else others.push(leaving)
    this.#commitSoon()
  }

  #commitSoon(): void {
    if (this.#isClosed || this.#isCounting) return
    const isMuch = this.#changed.size + this.#leaving.size >= UNCOMMITTED_MAX
    if (isMuch && this.#committing === undefined && !this.#isFailing) this.#aside(this.#commit())
    else
      this.#commitTimer ??= setTimeout(
        () => this.#aside(this.#commit()),
        this.#isFailing ? COMMIT_AGAIN_MS : COMMIT_MS,
      ).unref()
  }

  /** Writes all news to the index, those of now included; never rejects. All who ask during a commit wait for one more. */
  #commit(): Promise<void> {
    if (this.#committing === undefined) return this.#commitNow()
    this.#committingNext ??= this.#committing.then(() => {
      this.#committingNext = undefined
      return this.#commitNow()
    })
    return this.#committingNext
  }

  #commitNow(): Promise<void> {
    clearTimeout(this.#commitTimer)
    this.#commitTimer = undefined
    this.#committing = this.#commitSlices().finally(() => {
      this.#committing = undefined
      if (this.#changed.size + this.#leaving.size > 0) this.#commitSoon()
    })
    return this.#committing
  }

  async #commitSlices(): Promise<void> {
    // What is counted is the index as it was left.
    if (this.#isCounting) return
    this.#supersede(this.#created)
    this.#created.clear()
    // What comes in meanwhile is for the next time.
    let slices = Math.ceil((this.#changed.size + this.#leaving.size) / COMMIT_FILES)
    while (slices-- > 0 && (await this.#commitSlice())) await setImmediate()
  }

  /** False where it failed. */
  async #commitSlice(): Promise<boolean> {
    // All that leaves goes first: what has come in its place has the same key.
    const leaving = [...this.#leaving].slice(0, COMMIT_FILES)
    const counts = new Map(leaving.map(([key, list]) => [key, list.length]))
    const changed = leaving.length < this.#leaving.size ? [] : [...this.#changed].slice(0, COMMIT_FILES)
    const placed = new Map<CachedFile, Place>()
    for (const file of changed) this.#changed.delete(file)
    try {
      await this.#index.commit(() => {
        for (const [, list] of leaving) for (const { place, segments } of list) this.#index.remove(place, segments)
        for (const file of changed) {
          const { key, record, stored } = file
          if (record === undefined) continue
          this.#index.place(key, record, stored)
          for (const [index, sums] of file.takeChanges()) this.#index.placeSums(record.id, index, sums)
          placed.set(file, { key, usedAt: record.usedAt, id: record.id })
        }
      })
    } catch (error) {
      this.#complain(error)
      for (const file of changed) {
        file.changeAll()
        this.#changed.add(file)
      }
      this.#isFailing = true
      return false
    }
    this.#isFailing = false
    for (const [key, count] of counts) {
      const list = this.#leaving.get(key)
      list?.splice(0, count)
      if (list?.length === 0) this.#leaving.delete(key)
    }
    for (const file of changed) {
      const place = placed.get(file)
      // It may have let go of its data file while that was being committed.
      if (place !== undefined && file.record?.id !== place.id) {
        this.#leave({ place, segments: segmentsOf(file.size) })
      } else if (place !== undefined && place.key === file.key) {
        file.stored = place
      }
      this.#forgetIdle(file)
    }
    return true
  }

  /** Removes what was not used for longest, until so many bytes are free or nothing is left; gives how many. */
  async #evict(bytes: number): Promise<number> {
    // Who was used since the last commit has its place of before in the order.
    await this.#commit()
    let freed = 0
    let after: Place | undefined
    while (freed < bytes && !this.#isClosed) {
      const places = this.#index.leastRecent(after, EVICT_PLACES)
      after = places.at(-1)
      if (after === undefined) break
      const removals: Promise<void>[] = []
      for (const place of places) {
        if (freed >= bytes) break
        const { allocated, removal } = this.#evictOne(place)
        freed += allocated
        removals.push(removal)
        if (removals.length === REMOVALS) await Promise.all(removals.splice(0))
      }
      await Promise.all(removals)
      await setImmediate()
    }
    return freed
  }

  /** How much goes with the file that stands there, and when it has gone. */
  #evictOne(place: Place): { readonly allocated: number; readonly removal: Promise<void> } {
    const nothing = { allocated: 0, removal: Promise.resolve() }
    if (this.#live.has(place.key) || this.#leaving.has(place.key)) return nothing
    const record = this.#index.find(place.key)
    if (record?.id !== place.id || record.usedAt !== place.usedAt) {
      // Nothing stands there any more. Its key may have another record.
      return { allocated: 0, removal: this.#index.commit(() => this.#index.removePlace(place)) }
    }
    this.#leave({ place, segments: segmentsOf(record.size) })
    return { allocated: record.allocated, removal: this.#removeEvicted(record) }
  }

  async #removeEvicted({ id, allocated }: FileRecord): Promise<void> {
    try {
      await this.#data.removeAside(id)
    } catch (error) {
      this.#complain(error)
    }
    this.#files--
    this.#room.add(-allocated)
    this.#evictedBytes += allocated
    this.#metrics.evicted.inc(allocated)
  }

  /** Work that nobody waits for: its failure is told here. */
  #aside(work: Promise<unknown>): void {
    work.catch((error: unknown) => this.#complain(error))
  }
}

function segmentsOf(size: number): number {
  return Math.ceil(blockCount(size) / SEGMENT_BLOCKS)
}
