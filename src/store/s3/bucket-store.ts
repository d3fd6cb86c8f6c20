/**
 * The Store over an S3 bucket: objects that any S3 tool reads, attributes as yas3fs keeps them (`metadata.ts`), guards by
 * S3's conditions (`guards.ts`). This file has the calls of the port; what each sends is in the files that it names.
 *
 * The key space is flat and no call looks at the directories above a path, which would cost a request each: a put under a
 * file, or over a directory, is not refused. A path that has both then is the directory to who looks or lists; the file can
 * still be read, copied and removed by its version.
 *
 * Requests, at best: stat of a file or nothing 2, of a directory 2 or 3 (1 for a file or a directory that was made, where one
 * is expected);
 * list 1 for 1,000 keys; read 1 for up to two parts; put 1 for up to two parts, else 2 and one for each part, and up to 2 that
 * note the upload; remove 1 under a version, else 2; removeAll 1 for 1,000; symlink, fifo and socket 1, or 3 where the path has
 * to be free and was not seen so; setAttributes 2; copy 2; rename of a file 4 or 6, of a directory some 10 and one for each key;
 * exchange of two files 10; makeDirectory 4, or 1 where nothing was seen there; removeDirectory 2. A guard that the server does
 * not check costs one more.
 */
import { checkAborted } from '#store/abort.ts'
import { linkTarget } from '#store/link-target.ts'
import { isOperationError, OperationError } from '#base/errors.ts'
import {
  ABSENT,
  ANY,
  ifVersion,
  IMPLICIT_VERSION,
  isSpecial,
  isStored,
  type Attributes,
  type CallOptions,
  type Capabilities,
  type CopyOptions,
  type Entry,
  type ExchangeOptions,
  type ListOptions,
  type MutateOptions,
  type PutOptions,
  type Reading,
  type ReadOptions,
  type Removal,
  type RenameOptions,
  type Source,
  type Space,
  type SpecialKind,
  type StatOptions,
  type Store,
  type TreeOptions,
  type TreePage,
  type Upload,
  type UploadOptions,
} from '#store/store.ts'
import { AheadUpload } from './ahead-upload.ts'
import { readerOf } from './body.ts'
import type { S3Context } from './context.ts'
import { copyGuarded } from './copy.ts'
import { download, type Download } from './download.ts'
import { fileEntry, find, findDirectory, writtenEntry, type Found } from './entries.ts'
import { entryPages, treePage } from './entry-listing.ts'
import { exchange } from './exchange.ts'
import { checkGuard, strengthsOf } from './guards.ts'
import { listPage } from './listing.ts'
import { checkMetadata } from './metadata.ts'
import { PARTS_MAX, PART_BYTES_MAX } from './multipart.ts'
import { headObject } from './objects.ts'
import type { Recovery } from './recovery.ts'
import { removeEntries, removeGuarded, type Asked } from './removal.ts'
import { rename } from './rename.ts'
import { putSegments } from './stored-put.ts'
import { putFrom, putWhole, type PutRequest } from './upload.ts'
import type { UploadRecovery } from './upload-recovery.ts'

/** What S3 holds in one object: 48.8 TiB since December 2025. */
const FILE_BYTES_MAX = PARTS_MAX * PART_BYTES_MAX
/** Longest target of a symlink that Linux has. */
const TARGET_BYTES_MAX = 4095

export class BucketStore implements Store {
  readonly url: string
  readonly capabilities: Capabilities
  readonly #context: S3Context
  readonly #recovery: Recovery | undefined

  readonly #uploadRecovery: UploadRecovery | undefined

  constructor(context: S3Context, recovery?: Recovery, uploadRecovery?: UploadRecovery) {
    this.#recovery = recovery
    this.#uploadRecovery = uploadRecovery
    const { bucket, prefix } = context.client.location
    this.#context = context
    const { origin, regional } = context.client.endpoint
    // A bucket of that name may be anywhere: what is kept of this one by its URL must not be taken for another's.
    this.url = `s3://${bucket}${prefix === '' ? '' : `/${prefix}`}${regional ? '' : `?endpoint=${origin}`}`
    this.capabilities = {
      guards: strengthsOf(context.honoured),
      listingOrdered: true,
      listingComplete: context.trustListing === true,
      renameAtomic: false,
      attributes: context.metadata,
      specials: context.metadata,
      checkAttributes: checkMetadata,
      pathBytesMax: context.keys.pathBytesMax,
      fileBytesMax: FILE_BYTES_MAX,
    }
  }

  async stat(path: string, options: StatOptions = {}): Promise<Entry> {
    return (await this.#require('stat', path, options)).entry
  }

  async *list(path: string, options: ListOptions = {}): AsyncGenerator<readonly Entry[]> {
    const under = this.#context.keys.directory(path)
    checkAborted(`list "${path}"`, options.signal)
    const empty = async (): Promise<void> => {
      // Nothing came: because nothing is chosen, or because there is no such directory.
      if (path === '' || (await findDirectory(this.#context, path, options.signal)) !== undefined) return
      if ((await headObject(this.#context.client, this.#context.keys.file(path), options.signal)) !== undefined) {
        throw new OperationError('STORE_NOT_DIRECTORY', `Cannot list "${path}": it is not a directory`)
      }
      throw new OperationError('STORE_NOT_FOUND', `Cannot list "${path}": nothing is at "${under}"`)
    }
    yield* entryPages(this.#context, path, options, empty)
  }

  async listTree(path: string, options: TreeOptions = {}): Promise<TreePage> {
    checkAborted(`list "${path}"`, options.signal)
    return treePage(this.#context, path, options)
  }

  async read(path: string, options: ReadOptions = {}): Promise<Reading> {
    if (path === '') throw isDirectory('read', path)
    const key = this.#context.keys.file(path)
    const { version, offset = 0, length = Number.POSITIVE_INFINITY, signal } = options
    checkAborted(`read "${path}"`, signal)
    const { partBytes } = this.#context.limits
    const begun = await download(this.#context.client, key, { version, offset, length, partBytes, signal })
    if (begun !== undefined) {
      const entry = fileEntry(this.#context, path, begun.head)
      if (!isSpecial(entry.kind)) return readingOf(entry, begun)
      begun.cancel()
      throw withoutBytes('read', entry)
    }
    if ((await findDirectory(this.#context, path, signal)) !== undefined) throw isDirectory('read', path)
    throw notFound('read', path)
  }

  async readLink(path: string, options: CallOptions = {}): Promise<string> {
    const reading = await this.read(path, { ...options, length: TARGET_BYTES_MAX + 1 }).catch((error: unknown) => {
      if (isOperationError(error, 'STORE_IS_DIRECTORY')) throw notSymlink(path)
      throw error
    })
    if (reading.entry.kind === 'symlink' && reading.length <= TARGET_BYTES_MAX) {
      return linkTarget(path, await reading.bytes())
    }
    reading.cancel()
    if (reading.entry.kind !== 'symlink') throw notSymlink(path)
    throw new OperationError(
      'STORE_NAME_TOO_LONG',
      `Cannot read the link "${path}": its target has ${reading.entry.size} bytes, Linux has ${TARGET_BYTES_MAX}`,
    )
  }

  async put(path: string, source: Source, options: PutOptions): Promise<Entry> {
    const { signal, guard, attributes = {} } = options
    const request = (): PutRequest => {
      if (path === '') throw isDirectory('put', path)
      const key = this.#context.keys.file(path)
      checkAborted(`put "${path}"`, signal)
      return { path, key, kind: 'file', attributes, guard, signal }
    }
    if ('segments' in source && source.segments.some(isStored)) {
      return putSegments(this.#context, request(), source.segments)
    }
    const reader = readerOf(path, source, signal)
    try {
      return await putFrom(this.#context, request(), reader)
    } finally {
      reader.close()
    }
  }

  async beginUpload(path: string, options: UploadOptions): Promise<Upload> {
    if (path === '') throw isDirectory('put', path)
    checkAborted(`put "${path}"`, options.signal)
    return new AheadUpload(this.#context, path, options.attributes)
  }

  async symlink(path: string, target: string, options: PutOptions): Promise<Entry> {
    const key = this.#context.keys.file(path)
    const { signal, guard, attributes = {} } = options
    checkAborted(`make the symlink "${path}"`, signal)
    if (this.#context.trustListing === true) {
      throw new OperationError('STORE_UNSUPPORTED', `Cannot make the symlink "${path}": listings tell no symlinks`)
    }
    await this.#checkNoDirectory('make the symlink', path, options)
    const request = { path, key, kind: 'symlink', attributes, guard, signal } as const
    return putWhole(this.#context, request, Buffer.from(target))
  }

  async makeSpecial(path: string, kind: SpecialKind, options: PutOptions): Promise<Entry> {
    const key = this.#context.keys.file(path)
    const { signal, guard, attributes = {} } = options
    checkAborted(`make the ${kind} "${path}"`, signal)
    if (!this.#context.metadata) {
      throw new OperationError('STORE_UNSUPPORTED', `Cannot make the ${kind} "${path}": the store keeps no attributes`)
    }
    await this.#checkNoDirectory(`make the ${kind}`, path, options)
    return putWhole(this.#context, { path, key, kind, attributes, guard, signal }, Buffer.alloc(0))
  }

  async makeDirectory(path: string, options: PutOptions): Promise<Entry> {
    const { signal, guard } = options
    checkAborted(`make the directory "${path}"`, signal)
    const key = this.#context.keys.directory(path)
    if (guard.kind === 'absent' && options.seenAbsent === true) {
      return this.#makeMarker(path, key, options.attributes ?? {}, signal)
    }
    const found = await this.#findBoth(path, signal)
    checkGuard('make the directory', path, found?.entry.version, guard)
    if (found !== undefined && found.entry.kind !== 'directory') {
      throw new OperationError(
        'STORE_NOT_DIRECTORY',
        `Cannot make the directory "${path}": it is a ${found.entry.kind}`,
      )
    }
    const attributes = { ...found?.entry.attributes, ...options.attributes }
    if (found?.head !== undefined) return this.#replaceAttributes(path, found, attributes, signal)
    return this.#makeMarker(path, key, attributes, signal)
  }

  async setAttributes(path: string, changes: Attributes, options: MutateOptions): Promise<Entry> {
    if (!this.#context.metadata) {
      throw new OperationError('STORE_UNSUPPORTED', `Cannot set attributes of "${path}": the store keeps none`)
    }
    const { signal, guard } = options
    const found = await this.#require('set attributes of', path, options)
    checkGuard('set attributes of', path, found.entry.version, guard)
    const attributes = { ...found.entry.attributes, ...changes }
    // A directory that was only implied is made, so that it has somewhere to keep them.
    if (found.head === undefined) return this.#makeMarker(path, found.key, attributes, signal)
    return this.#replaceAttributes(path, found, attributes, signal)
  }

  async copy(from: string, to: string, options: CopyOptions): Promise<Entry> {
    const { signal, guard, version, attributes } = options
    const toKey = this.#context.keys.file(to)
    const found = await this.#require('copy', from, { ...options, expected: 'file' })
    const { head, key, entry } = found
    if (entry.kind === 'directory' || head === undefined) throw isDirectory('copy', from)
    if (isSpecial(entry.kind)) throw withoutBytes('copy', entry)
    if (version !== undefined) checkGuard('copy', from, entry.version, { kind: 'version', version })
    const { kind, size } = entry
    const written = await copyGuarded(this.#context, {
      ...{ path: to, kind, from: key, head, to: toKey, guard, signal },
      attributes,
    })
    const kept = attributes ?? entry.attributes ?? {}
    return writtenEntry(this.#context, { path: to, kind, size, attributes: kept }, written)
  }

  async rename(from: string, to: string, options: RenameOptions): Promise<Entry> {
    checkAborted(`rename "${from}"`, options.signal)
    return rename(this.#context, from, to, options)
  }

  async remove(path: string, options: MutateOptions): Promise<void> {
    checkAborted(`remove "${path}"`, options.signal)
    const { guard, signal } = options
    const { honoured, keys } = this.#context
    const decided = guard.kind === 'version' && guard.version !== IMPLICIT_VERSION && honoured.remove && path !== ''
    const asked: Asked = {}
    if (decided) {
      try {
        await removeGuarded(this.#context, { path, key: keys.file(path), guard, asked, signal })
        return
      } catch (error) {
        // What is there instead, if anything, decides below on what is said.
        if (!isOperationError(error, 'STORE_CONFLICT')) throw error
      }
    }
    const found = await this.#require('remove', path, { ...options, expected: 'file' })
    if (found.entry.kind === 'directory') throw isDirectory('remove', path)
    checkGuard('remove', path, found.entry.version, guard)
    const { version } = found.entry
    // What an attempt before has not removed may be what somebody else has made since.
    const modified = asked.sentAt === undefined ? found.entry.modified : undefined
    const seen = { path, key: found.key, guard: ifVersion(version), looked: true, modified, asked, signal }
    await removeGuarded(this.#context, seen)
  }

  async removeDirectory(path: string, options: CallOptions = {}): Promise<void> {
    const { signal } = options
    checkAborted(`remove the directory "${path}"`, signal)
    if (path === '') throw new OperationError('INPUT_INVALID', 'Cannot remove the directory "": it is the root')
    const key = this.#context.keys.directory(path)
    const { items } = await listPage(this.#context.client, { prefix: key, delimited: false, keysMax: 2, signal })
    const [first, second] = items
    if (first === undefined) {
      if ((await headObject(this.#context.client, this.#context.keys.file(path), signal)) === undefined) {
        throw notFound('remove the directory', path)
      }
      throw new OperationError('STORE_NOT_DIRECTORY', `Cannot remove the directory "${path}": it is not a directory`)
    }
    if (second !== undefined || !('key' in first) || first.key !== key) {
      throw new OperationError('STORE_NOT_EMPTY', `Cannot remove the directory "${path}": it has entries`)
    }
    await removeGuarded(this.#context, { path, key, guard: ANY, modified: first.modified, signal })
  }

  async exchange(path: string, other: string, options: ExchangeOptions): Promise<void> {
    checkAborted(`exchange "${path}"`, options.signal)
    await exchange(this.#context, path, other, options)
  }

  async removeAll(
    removals: readonly Removal[],
    options: CallOptions = {},
  ): Promise<readonly (OperationError | undefined)[]> {
    checkAborted(`remove ${removals.length} entries`, options.signal)
    return removeEntries(this.#context, removals, options.signal)
  }

  async space(): Promise<Space | undefined> {
    return undefined
  }

  readonly finishMoves = async ({ signal }: CallOptions = {}): Promise<void> => {
    await this.#recovery?.finishOwn(signal)
  }

  readonly hurry = (): void => {
    this.#context.client.hurry()
  }

  async close(): Promise<void> {
    await Promise.all([this.#recovery?.close(), this.#uploadRecovery?.close(), this.#context.notes?.close()])
    await this.#context.client.close()
  }

  /** A directory is another key, so no condition on this one knows of it. Two requests, and only where the path has to be free. */
  async #checkNoDirectory(action: string, path: string, { guard, seenAbsent, signal }: PutOptions): Promise<void> {
    if (guard.kind !== 'absent' || seenAbsent === true) return
    if ((await findDirectory(this.#context, path, signal)) !== undefined) checkGuard(action, path, '', guard)
  }

  async #require(action: string, path: string, options: StatOptions): Promise<Found> {
    checkAborted(`${action} "${path}"`, options.signal)
    const found = await find(this.#context, path, options.signal, options.expected)
    if (found === undefined) throw notFound(action, path)
    return found
  }

  /** Looks for a directory and a file at once. Three requests. */
  async #findBoth(path: string, signal: AbortSignal | undefined): Promise<Found | undefined> {
    if (path === '') return findDirectory(this.#context, path, signal)
    const key = this.#context.keys.file(path)
    const [directory, head] = await Promise.all([
      findDirectory(this.#context, path, signal),
      headObject(this.#context.client, key, signal),
    ])
    if (directory !== undefined) return directory
    return head === undefined ? undefined : { entry: fileEntry(this.#context, path, head), key, head }
  }

  /** The object of a directory comes into being; where somebody made it meanwhile, that is a conflict. */
  async #makeMarker(
    path: string,
    key: string,
    attributes: Attributes,
    signal: AbortSignal | undefined,
  ): Promise<Entry> {
    const request = { path, key, kind: 'directory', attributes, guard: ABSENT, signal } as const
    return putWhole(this.#context, request, Buffer.alloc(0))
  }

  /** An object is copied onto itself, in the version that was seen. */
  async #replaceAttributes(
    path: string,
    found: Found,
    attributes: Attributes,
    signal: AbortSignal | undefined,
  ): Promise<Entry> {
    const { head, key, entry } = found
    if (head === undefined) throw notFound('set attributes of', path)
    const { kind, size } = entry
    const { version } = head
    // Where the server does not decide, the condition on the source says the same of the same object.
    const guard = this.#context.honoured.copyReplace
      ? ({ kind: 'version', version } as const)
      : ({ kind: 'any' } as const)
    const written = await copyGuarded(this.#context, {
      ...{ path, kind, from: key, head, to: key, guard, signal },
      attributes,
    })
    return writtenEntry(this.#context, { path, kind, size, attributes }, written)
  }
}

function readingOf(entry: Entry, begun: Download): Reading {
  return {
    entry,
    length: begun.length,
    body: { [Symbol.asyncIterator]: () => begun.chunks() },
    bytes: () => begun.bytes(),
    cancel: () => begun.cancel(),
  }
}

function notFound(action: string, path: string): OperationError {
  return new OperationError('STORE_NOT_FOUND', `Cannot ${action} "${path}": nothing is there`)
}

function isDirectory(action: string, path: string): OperationError {
  return new OperationError('STORE_IS_DIRECTORY', `Cannot ${action} "${path}": it is a directory`)
}

function withoutBytes(action: string, { path, kind }: Entry): OperationError {
  return new OperationError('INPUT_INVALID', `Cannot ${action} "${path}": it is a ${kind}, which has no bytes`)
}

function notSymlink(path: string): OperationError {
  return new OperationError('INPUT_INVALID', `Cannot read the link "${path}": it is not a symlink`)
}
