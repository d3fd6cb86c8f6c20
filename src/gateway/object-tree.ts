/**
 * Objects over a tree of files: which path a key is, which object an entry is, which directories are objects, which
 * buckets there are. A bucket is a directory in the root of the store. A key `a/b` is the file a/b; a key `a/b/` is the
 * directory a/b, which is an object if it was put as one (it has our attribute) or if it is empty; other directories
 * are only what keys lie under, and vanish with the last of them.
 *
 * Fifos and sockets, which another program may have made in the directory, are no objects.
 *
 * A key that cannot be a path (`..`, empty parts, NUL, names over 255 bytes) is refused here, so no key ever leads out
 * of its bucket.
 */
import { isOperationError } from '#base/errors.ts'
import type { Timestamp } from '#base/time.ts'
import { checkPath, NAME_BYTES_MAX, parentOf } from '#store/path.ts'
import { isSpecial, type Entry, type Store } from '#store/store.ts'

import { isNothingThere, S3Error } from './errors.ts'
import { EMPTY_MD5, etagOfVersion } from './etag.ts'
import {
  decodeMetadata,
  METADATA_XATTR,
  NO_DESCRIPTION,
  tellsOfBytes,
  type ByteFacts,
  type Description,
} from './object-metadata.ts'

/** Longest key in bytes of UTF-8, as in S3. */
const KEY_BYTES_MAX = 1024
/** How long a bucket is taken to be there without looking: another process may remove it in between. */
const BUCKET_KNOWN_MS = 2000
const BUCKETS_KNOWN_MAX = 1000
/** What yas3fs gives the objects that are symlinks. */
const SYMLINK_TYPE = 'application/x-symlink'

/** An entry of the store as an object. */
export interface StoredObject extends Description, ByteFacts {
  readonly key: string
  readonly entry: Entry
  readonly size: number
  readonly modified: Timestamp
}

const UNKNOWN_BYTES = { checksums: {}, checksumType: 'FULL_OBJECT', parts: undefined } as const

/** The object that an entry is. The entry must have attributes. */
export function objectOf(key: string, entry: Entry): StoredObject {
  const metadata = decodeMetadata(entry)
  const modified = entry.attributes?.mtime ?? entry.modified
  if (metadata !== undefined && tellsOfBytes(metadata, entry)) {
    const directory = entry.kind === 'directory'
    return {
      ...metadata,
      key,
      entry,
      size: directory ? 0 : entry.size,
      modified: directory ? metadata.modified : modified,
    }
  }
  const description =
    metadata ?? (entry.kind === 'symlink' ? { ...NO_DESCRIPTION, contentType: SYMLINK_TYPE } : NO_DESCRIPTION)
  const { contentType, content, user } = description
  const etag = entry.kind === 'directory' ? EMPTY_MD5 : etagOfVersion(entry.version)
  const size = entry.kind === 'directory' ? 0 : entry.size
  return { key, entry, size, modified, contentType, content, user, etag, ...UNKNOWN_BYTES }
}

/** Whether a directory was put as an object. */
export function isMarked(entry: Entry): boolean {
  return entry.attributes?.xattrs?.has(METADATA_XATTR) ?? false
}

/** Whether S3 allows a bucket of that name; others are not shown and cannot be reached. */
export function isBucketName(name: string): boolean {
  return /^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/.test(name) && !name.includes('..') && !/^\d+\.\d+\.\d+\.\d+$/.test(name)
}

function noSuchBucket(bucket: string): S3Error {
  return new S3Error('NoSuchBucket', undefined, { details: [['BucketName', bucket]] })
}

/** The objects of a store. */
export class ObjectTree {
  readonly store: Store
  readonly #bucketsKnown = new Map<string, number>()
  /** By path of a directory: the end of the queue of those who mark or remove it. */
  readonly #directoryLocks = new Map<string, Promise<void>>()

  constructor(store: Store) {
    this.store = store
  }

  /** The path of a key, without a slash at its end. @throws S3Error where it cannot be one. */
  pathOf(bucket: string, key: string): string {
    if (!isBucketName(bucket)) throw noSuchBucket(bucket)
    if (key.length * 3 > KEY_BYTES_MAX && Buffer.byteLength(key) > KEY_BYTES_MAX) throw new S3Error('KeyTooLongError')
    const relative = key.endsWith('/') ? key.slice(0, -1) : key
    try {
      checkPath(relative)
      if (relative === '') throw new S3Error('InvalidArgument', 'This gateway cannot hold the key "/"')
    } catch (error) {
      if (isOperationError(error, 'STORE_NAME_TOO_LONG')) {
        throw new S3Error('KeyTooLongError', `Your key has a part of more than ${NAME_BYTES_MAX} bytes`, {
          cause: error,
        })
      }
      if (!isOperationError(error)) throw error
      throw new S3Error('InvalidArgument', `This gateway cannot hold the key: a part of it is empty, "." or ".."`, {
        cause: error,
      })
    }
    return `${bucket}/${relative}`
  }

  /** As `pathOf`, for a key that is looked for: one that cannot be is not there. */
  pathSought(bucket: string, key: string): string | undefined {
    try {
      return this.pathOf(bucket, key)
    } catch (error) {
      if (error instanceof S3Error && error.code !== 'KeyTooLongError') return undefined
      throw error
    }
  }

  /** The object of that key, if there is one. */
  async find(bucket: string, key: string, signal: AbortSignal): Promise<StoredObject | undefined> {
    const path = this.pathSought(bucket, key)
    if (path === undefined) return undefined
    let entry: Entry
    try {
      entry = await this.store.stat(path, { signal })
    } catch (error) {
      if (isNothingThere(error)) return undefined
      throw error
    }
    if (!key.endsWith('/'))
      return entry.kind === 'directory' || isSpecial(entry.kind) ? undefined : objectOf(key, entry)
    if (entry.kind !== 'directory') return undefined
    return isMarked(entry) || (await this.isEmpty(path, signal)) ? objectOf(key, entry) : undefined
  }

  /** The object of that key. @throws S3Error `NoSuchKey`, or `NoSuchBucket`. */
  async require(bucket: string, key: string, signal: AbortSignal): Promise<StoredObject> {
    const found = await this.find(bucket, key, signal)
    if (found !== undefined) return found
    throw await this.missing(bucket, key, signal)
  }

  /** The error for a key under which nothing is. */
  async missing(bucket: string, key: string, signal: AbortSignal): Promise<S3Error> {
    await this.requireBucket(bucket, signal)
    return new S3Error('NoSuchKey', undefined, { details: [['Key', key]] })
  }

  /** @throws S3Error `NoSuchBucket`. */
  async requireBucket(bucket: string, signal: AbortSignal): Promise<void> {
    const until = this.#bucketsKnown.get(bucket)
    if (until !== undefined && until > performance.now()) return
    if ((await this.bucketEntry(bucket, signal)) === undefined) {
      throw noSuchBucket(bucket)
    }
    if (this.#bucketsKnown.size >= BUCKETS_KNOWN_MAX) this.#bucketsKnown.clear()
    this.#bucketsKnown.set(bucket, performance.now() + BUCKET_KNOWN_MS)
  }

  /** The directory of a bucket, if there is one. */
  async bucketEntry(bucket: string, signal: AbortSignal): Promise<Entry | undefined> {
    if (!isBucketName(bucket)) return undefined
    try {
      const entry = await this.store.stat(bucket, { signal })
      return entry.kind === 'directory' ? entry : undefined
    } catch (error) {
      if (isNothingThere(error)) return undefined
      throw error
    }
  }

  /** Says that a bucket may be gone. */
  forgetBucket(bucket: string): void {
    this.#bucketsKnown.delete(bucket)
  }

  /** Whether nothing lies in a directory. */
  async isEmpty(path: string, signal: AbortSignal): Promise<boolean> {
    for await (const page of this.store.list(path, { pageEntries: 1, signal })) {
      if (page.length > 0) return false
    }
    return true
  }

  /** Removes the directories above a removed path that exist for nothing any more, but never the bucket. */
  async pruneAbove(path: string, signal: AbortSignal): Promise<void> {
    for (let directory = parentOf(path); directory.includes('/'); directory = parentOf(directory)) {
      if (!(await this.#prune(directory, signal))) return
    }
  }

  #prune(directory: string, signal: AbortSignal): Promise<boolean> {
    return this.lockDirectory(directory, async () => {
      try {
        if (isMarked(await this.store.stat(directory, { signal }))) return false
        await this.store.removeDirectory(directory, { signal })
      } catch (error) {
        if (isOperationError(error, 'STORE_NOT_EMPTY')) return false
        // Gone already: what was above it may be empty as well.
        if (!isNothingThere(error)) throw error
      }
      return true
    })
  }

  /** Runs `action` when nobody else here marks or removes that directory: a store has no guard for the latter. */
  async lockDirectory<T>(path: string, action: () => Promise<T>): Promise<T> {
    const before = this.#directoryLocks.get(path)
    let release: () => void = () => {}
    const mine = new Promise<void>((resolve) => (release = resolve))
    this.#directoryLocks.set(path, mine)
    try {
      await before
      return await action()
    } finally {
      release()
      if (this.#directoryLocks.get(path) === mine) this.#directoryLocks.delete(path)
    }
  }
}
