/**
 * An actor over any store. A sync is the one writer that its target is meant to have: it replaces and removes what is there, but
 * a removal names the version that was compared, so that what somebody else put there meanwhile stays.
 */
import { isOperationError, type OperationError } from '#base/errors.ts'
import {
  ANY,
  ifVersion,
  type Attributes,
  type CallOptions,
  type Entry,
  type ListOptions,
  type Removal,
  type StatOptions,
  type Store,
} from '#store/store.ts'
import { OWN_NAME, isWithin } from '#store/path.ts'

import type { Actor, ActorKeeps, ActorListOptions, FileToSend, RenameCallOptions } from './actor.ts'
import { hashStream } from './content-hash.ts'
import type { ContentHash } from './equality.ts'
import { treeEntry } from './store-entry.ts'
import type { TreeEntry } from './tree.ts'

/** Extended attributes of this program's own. */
const OWN_XATTRS = 'user.eider.'

export class StoreActor implements Actor {
  readonly url: string
  readonly alreadySorted: boolean
  readonly keeps: ActorKeeps
  readonly #store: Store

  /** `url`: where the store stands in for one that is not there yet. */
  constructor(store: Store, url = store.url) {
    const { listingOrdered, attributes, pathBytesMax, renameAtomic } = store.capabilities
    this.#store = store
    this.url = url
    this.alreadySorted = listingOrdered
    this.keeps = {
      ...(attributes ? { mtimePrecisionNs: 1 } : {}),
      attributes,
      directories: true,
      // Where a rename of a directory is one step, a directory is something of its own.
      flat: !renameAtomic,
      symlinks: attributes,
      pathBytesMax,
    }
  }

  async *list({
    under,
    brief = false,
    onSkipped,
    ...call
  }: ActorListOptions): AsyncGenerator<readonly TreeEntry[], void, undefined> {
    try {
      const options = { recursive: true, brief, ...call, ...hiddenTo(onSkipped) }
      for await (const page of this.#store.list(under, options)) {
        yield page.filter(({ path }) => !isWithin(path, OWN_NAME)).map((entry) => treeEntry(entry, entry.path))
      }
    } catch (error) {
      if (!isOperationError(error, 'STORE_NOT_FOUND', 'STORE_NOT_DIRECTORY')) throw error
      // A file may be where a single file is synced to.
      const entry = under === '' ? undefined : await this.stat(under, call)
      if (entry !== undefined && entry.kind !== 'directory') yield [entry]
    }
  }

  async upload(file: FileToSend, call: CallOptions): Promise<TreeEntry> {
    const options = { guard: ANY, attributes: file.attributes, ...call }
    return treeEntry(await this.#store.put(file.path, file.source(), options), file.path)
  }

  async delete(file: TreeEntry, call: CallOptions): Promise<void> {
    const { path, kind, version } = file
    try {
      if (kind === 'directory') await this.#store.removeDirectory(path, call)
      else {
        const guard = version === undefined ? ANY : ifVersion(version)
        await this.#store.remove(path, { guard, expected: kind, ...call })
      }
    } catch (error) {
      if (!isOperationError(error, 'STORE_NOT_FOUND', 'STORE_NOT_DIRECTORY')) throw error
    }
  }

  async deleteAll(files: readonly TreeEntry[], call: CallOptions): Promise<readonly (OperationError | undefined)[]> {
    const answers: (OperationError | undefined)[] = []
    let removals: Removal[] = []
    const flush = async (): Promise<void> => {
      if (removals.length > 0) answers.push(...(await this.#store.removeAll(removals, call)))
      removals = []
    }
    // What no version is known of is removed as it is; in the order of all, as directories come after what lies in them.
    for (const file of files) {
      const { path, kind, version } = file
      if (version === undefined) {
        await flush()
        answers.push(await this.#deleteUnknown(file, call))
      } else removals.push({ path, kind, version })
    }
    await flush()
    return answers.map((error) => (isOperationError(error, 'STORE_NOT_FOUND') ? undefined : error))
  }

  async #deleteUnknown(file: TreeEntry, call: CallOptions): Promise<OperationError | undefined> {
    try {
      await this.delete(file, call)
      return undefined
    } catch (error) {
      if (isOperationError(error)) return error
      throw error
    }
  }

  async stat(path: string, options: StatOptions): Promise<TreeEntry | undefined> {
    try {
      return treeEntry(await this.#store.stat(path, options), path)
    } catch (error) {
      if (isOperationError(error, 'STORE_NOT_FOUND', 'STORE_NOT_DIRECTORY')) return undefined
      throw error
    }
  }

  async copy(from: TreeEntry, to: string, call: CallOptions): Promise<void> {
    const pinned = from.version === undefined ? {} : { version: from.version }
    await this.#store.copy(from.path, to, { guard: ANY, ...pinned, ...call })
  }

  async rename(from: TreeEntry, to: string, call: RenameCallOptions): Promise<void> {
    await this.#store.rename(from.path, to, {
      guard: from.version === undefined || from.kind === 'directory' ? ANY : ifVersion(from.version),
      targetGuard: ANY,
      expected: from.kind,
      ...call,
    })
  }

  async hash(file: TreeEntry, algorithm: string, call: CallOptions): Promise<ContentHash> {
    const pinned = file.version === undefined ? {} : { version: file.version }
    const reading = await this.#store.read(file.path, { ...pinned, ...call })
    return hashStream(algorithm, reading.body)
  }

  async makeDirectory(path: string, attributes: Attributes, call: CallOptions): Promise<TreeEntry> {
    const entry = await this.#store.makeDirectory(path, { guard: ANY, attributes, ...call })
    return treeEntry(entry, path)
  }

  async symlink(path: string, target: string, attributes: Attributes, call: CallOptions): Promise<TreeEntry> {
    return treeEntry(await this.#store.symlink(path, target, { guard: ANY, attributes, ...call }), path)
  }

  readLink(path: string, call: CallOptions): Promise<string> {
    return this.#store.readLink(path, call)
  }

  async setAttributes(file: TreeEntry, attributes: Attributes, call: CallOptions): Promise<TreeEntry> {
    const options = { guard: ANY, expected: file.kind, ...call }
    const changes = file.kind === 'directory' ? await this.#withMarks(file.path, attributes, call) : attributes
    const entry: Entry = await this.#store.setAttributes(file.path, changes, options)
    return treeEntry(entry, file.path)
  }

  /** With what the target's directory is marked by as the root of another sync. */
  async #withMarks(path: string, attributes: Attributes, call: CallOptions): Promise<Attributes> {
    if (attributes.xattrs === undefined) return attributes
    const now = await this.stat(path, { expected: 'directory', ...call })
    const marks = [...(now?.attributes?.xattrs ?? [])].filter(([name]) => name.startsWith(OWN_XATTRS))
    return marks.length === 0 ? attributes : { ...attributes, xattrs: new Map([...attributes.xattrs, ...marks]) }
  }

  async close(): Promise<void> {
    await this.#store.close()
  }
}

/** What the store hides goes to who asked for what is skipped. */
function hiddenTo(onSkipped: ActorListOptions['onSkipped']): Pick<ListOptions, 'onHidden'> {
  if (onSkipped === undefined) return {}
  return {
    onHidden: ({ path, detail }) => {
      if (!isWithin(path, OWN_NAME)) onSkipped({ path, reason: 'invalid-name', detail })
    },
  }
}
