/**
 * Versions of files on local disk, whole or by ranges: what the mount has read, and what it has published. Cached versions
 * are immutable, so all of it is valid after a restart; what is found not to fit its checksum is dropped and fetched again.
 */
import type { Version } from '#store/store.ts'

/** Which bytes: a version of a file. The size is part of it, so that a wrong one is never served. */
export interface CacheKey {
  readonly path: string
  readonly version: Version
  readonly size: number
}

export interface FileCacheOptions {
  /** Whose versions they are: what was cached of another store is never given out for this one's. */
  readonly storeUrl: string
  /** This process's alone, by a lock. */
  readonly directory: string
  readonly bytesMax: number
  /** So much is left free on the disk, whatever `bytesMax` allows. */
  readonly bytesFreeMin: number
}

export interface FileCacheStatus {
  readonly files: number
  readonly bytes: number
  readonly bytesMax: number
  readonly hitBytes: number
  readonly missBytes: number
  readonly evictedBytes: number
  readonly corruptBlocks: number
}

export interface FileCache {
  readonly status: FileCacheStatus
  /** Holds a version, cached or not: while it is held it is not evicted. */
  hold(key: CacheKey): CachedVersion
  /** A file that moved: what is cached of it goes along. */
  moved(from: CacheKey, to: CacheKey): void
  /**
   * Takes a complete local file in as that version, which nobody may write to any more: by a link, or by a copy where that
   * cannot be. `fd` stays the caller's. False where it was not taken in: there is no room, or it has another size. Never rejects.
   */
  adopt(key: CacheKey, fd: number): Promise<boolean>
  /** What is still held is released by that. */
  close(): Promise<void>
}

/** One version, held. All of it may be missing. A call that finds the disk failing or full is a miss, not an error. */
export interface CachedVersion {
  readonly key: CacheKey
  /** All bytes are here, and their checksums have held in this process. `backing` looks into it, this does not. */
  readonly isWhole: boolean
  /**
   * The bytes, or undefined where some are missing or were found corrupt. An answer at once may lie in `into`, for which
   * no new memory is touched: that costs as much as the copy. One by a promise never does.
   */
  read(offset: number, length: number, into?: Buffer): Buffer | undefined | Promise<Buffer | undefined>
  /**
   * The first run of bytes in a range that is not here, widened as by `align`; undefined where all of it is, as far as is
   * known without reading. Cheap: a reader that fetches ahead asks before each request.
   */
  missing(offset: number, length: number): { readonly offset: number; readonly length: number } | undefined
  /** Widens a range to what has to be fetched for it to be kept: whole blocks, or the end of the file. */
  align(offset: number, length: number): { readonly offset: number; readonly length: number }
  /** Counts bytes that have to be fetched, since they are not here. */
  missed(length: number): void
  /** Keeps bytes that were fetched; `bytes` may be reused when it resolves. Never rejects. */
  keep(offset: number, bytes: Uint8Array): Promise<void>
  /**
   * A descriptor of the whole, checked file, for the kernel to read from; the cache's own, open until this is released or
   * taken. Checks up to 4 MiB at once, which takes some 1.5 ms; a larger file that was not read in this process yet is
   * checked in the background, and given at a later call.
   */
  backing(): number | undefined
  /**
   * Whether an open file, its own or a copy of it, has the bytes of the version: before somebody makes another version of
   * them. A check from before may be long ago, and disks forget. False also where not all of it is here any more.
   */
  verify(fd: number): Promise<boolean>
  /**
   * Takes the whole, checked file out of the cache, to be written to: the descriptor is the caller's. Every other holder of
   * the version sees it as missing from then on. The file loses its name, or gets the path `name` for it where that lies in
   * the same file system: a file without a name can never be given one.
   */
  take(name?: string): number | undefined
  release(): void
}
