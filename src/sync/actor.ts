/**
 * The port of a target: what a sync sends to. Three calls are enough (`list`, `upload`, `delete`); the others are for targets
 * that can do more, and a sync goes without what an actor lacks. `store-actor.ts` is one over any store; others are in
 * `src/sync/actors`, and anybody's is loaded by `--actor ./FILE` (`actor-module.ts`).
 *
 * Rules that hold for every actor:
 * - A file is absent or complete: an upload that fails, or is given up, leaves what was there.
 * - At most one call is under way for a path, many for different ones.
 * - Calls may be repeated after a failure, also by the next process: an upload of what is there and a delete of what is not
 *   are no errors.
 * - What fails is thrown; an `OperationError` tells by its code whether another try may help, anything else is tried again.
 */
import type { Timestamp } from '#base/time.ts'
import type { Attributes, CallOptions, Kind, Source } from '#store/store.ts'

import type { ContentHash } from './equality.ts'
import type { Skipped, TreeEntry } from './tree.ts'

/** What an actor says about one of its files; only `path` and `size` must be told, and nothing else means a file. */
export type Listed = Pick<TreeEntry, 'path' | 'size'> & Partial<TreeEntry>

/** A file to be sent. */
export interface FileToSend {
  /** In the target: names joined by `/`. */
  readonly path: string
  /** As autosync calls it: the same, but with the leading `/` that prefixes may leave. */
  readonly key: string
  readonly size: number
  readonly mtime: Timestamp
  /** What is to be kept with it: its mtime, and with `--metadata` mode, owner and extended attributes. */
  readonly attributes: Attributes
  /** What is there, as far as it is known; undefined where nothing is. */
  readonly replaced: TreeEntry | undefined
  /**
   * The bytes, from the start at each call. It throws at its end where the file was changed meanwhile, and what was
   * sent by then must not show.
   */
  stream(): AsyncIterable<Uint8Array>
  /** The same for stores, which take local files without moving them through here. */
  source(): Source
}

export interface ActorListOptions extends CallOptions {
  /** Only what lies at or under this path is asked for; more may be given. The empty path is all. */
  readonly under: string
  /** Attributes are not compared: what a look at each file would cost may be left out. */
  readonly brief?: boolean
  /** To be told of what is there and has a name that no path can be. */
  readonly onSkipped?: (skipped: Skipped) => void
}

/** What an actor keeps beside bytes. */
export interface ActorKeeps {
  /** To what a modification time is kept, in nanoseconds; undefined where it is not. */
  readonly mtimePrecisionNs?: number
  /** Modes, owners, extended attributes, by `setAttributes`. */
  readonly attributes?: boolean
  /** Directories by themselves, by `makeDirectory`. */
  readonly directories?: boolean
  /** Keys are flat: a directory is there by what lies under it, and costs an object of its own where nothing does. */
  readonly flat?: boolean
  readonly symlinks?: boolean
  readonly pathBytesMax?: number
}

export interface Actor {
  /** For messages, without secrets. */
  readonly url: string
  /** `list` gives entries in order of the UTF-8 bytes of their paths, a directory's with `/` after it. */
  readonly alreadySorted?: boolean
  readonly keeps?: ActorKeeps
  /** What is there, one by one or in pages. Of a directory that is not there: nothing. */
  list(options: ActorListOptions): AsyncIterable<Listed | readonly Listed[]>
  /** Creates or replaces a file; may tell what is there then, its version above all. */
  upload(file: FileToSend, options: CallOptions): Promise<Listed | void>
  delete(file: TreeEntry, options: CallOptions): Promise<void>

  /** Deletes many, directories after what lies in them; for each, undefined or what kept it. */
  deleteAll?(files: readonly TreeEntry[], options: CallOptions): Promise<readonly (Error | undefined)[]>
  /** What is at the path, with all that can be known of it; undefined where nothing is. */
  stat?(path: string, options: CallOptions & { readonly expected?: Kind }): Promise<TreeEntry | undefined>
  /** Copies a file within the target, without sending it again; what is at `to` is replaced. */
  copy?(from: TreeEntry, to: string, options: CallOptions): Promise<void>
  /** Moves a file, or a directory with all that lies under it, without sending it again. Tells versions that it changes. */
  rename?(from: TreeEntry, to: string, options: RenameCallOptions): Promise<void>
  /** A hash of the bytes that are there, read or known. */
  hash?(file: TreeEntry, algorithm: string, options: CallOptions): Promise<ContentHash | undefined>
  makeDirectory?(path: string, attributes: Attributes, options: CallOptions): Promise<Listed | void>
  symlink?(path: string, target: string, attributes: Attributes, options: CallOptions): Promise<Listed | void>
  readLink?(path: string, options: CallOptions): Promise<string>
  setAttributes?(file: TreeEntry, attributes: Attributes, options: CallOptions): Promise<Listed | void>
  close?(): Promise<void>
}

export interface RenameCallOptions extends CallOptions {
  /** Told of each file whose version the move changed, by its new path, before the call resolves. */
  readonly onVersionChanged?: (path: string, before: string, after: string) => void
}

/** An option that an actor declares; its value is a text. The flag is its name, with dashes for capitals. */
export interface ActorOption {
  readonly help: string
  /** What stands after the flag in `--help`. */
  readonly placeholder?: string
  readonly default?: string
  /** The sync does not start without it. */
  readonly required?: boolean
  /** Its value is shown and written nowhere. */
  readonly secret?: boolean
}

/** What an actor is opened with. */
export interface ActorContext {
  /** Values of the options that it declares, by name; what is not given and has no default is absent. */
  readonly options: Readonly<Record<string, string>>
  /** `--target-container`: bucket, container, share; whatever it is called there. */
  readonly container: string | undefined
  /** `--threads`: calls under way at most. */
  readonly threads: number
  readonly signal: AbortSignal
}

/** What a module of an actor exports. */
export interface ActorModule {
  readonly options?: Readonly<Record<string, ActorOption>>
  open(context: ActorContext): Promise<Actor> | Actor
}
