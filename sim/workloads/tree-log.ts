/**
 * What clients did with a tree, and what they were told of it: all operations with their outcomes, and what was read meanwhile. It lies
 * outside of the processes, so it outlasts those of clients that are killed; an operation without an outcome may have been done or not.
 *
 * Of each name it knows from when on nothing older may be seen any more (`floorOf`): what was acknowledged before a read began.
 */
import type { InodeId } from '#cluster/inode-id.ts'
import { ROOT_INODE } from '#cluster/inode-id.ts'
import type { NameGuard } from '#cluster/wire/forms.ts'

export interface Slot {
  readonly directory: InodeId
  readonly name: string
}

/** An edge that somebody has seen. */
export interface SeenEdge extends Slot {
  readonly created: number
}

/**
 * `make`: something new gets a name; its uid is the number of the operation, by which the inode is known whatever became of the answer.
 * `move`: to another name, or another directory. `remove`: the name is free from then on. `undelete`: what `from` owns gets a name.
 */
export type Operation =
  | {
      readonly kind: 'make'
      readonly what: 'file' | 'symlink' | 'directory'
      readonly to: Slot
      readonly guard: NameGuard
    }
  | {
      readonly kind: 'move'
      readonly inode: InodeId
      readonly from: SeenEdge
      readonly to: Slot
      readonly guard: NameGuard
    }
  | { readonly kind: 'remove'; readonly inode: InodeId; readonly from: SeenEdge }
  | {
      readonly kind: 'undelete'
      readonly inode: InodeId
      readonly from: SeenEdge
      readonly to: Slot
      readonly guard: NameGuard
    }

/** What was told of an operation that was done; times are those of shards. */
export interface Told {
  readonly inode?: InodeId
  readonly created?: number
  readonly removed?: number
  readonly replaced?: InodeId
}

export interface LoggedOperation {
  readonly number: number
  readonly operation: Operation
  /** Of a file or symlink that is made: how many bytes. */
  readonly size: number
  outcome: 'unknown' | 'refused' | 'done'
  told: Told
}

/** A name was looked up: `created` of the edge that it was, 0 where there was none; and what had to be seen at least. */
export interface LoggedRead extends SeenEdge {
  readonly inode: InodeId | undefined
  readonly floor: number
}

/** A directory as it was said to have been at a time that was over. */
export interface LoggedListing {
  readonly directory: InodeId
  readonly asOf: number
  readonly entries: readonly { readonly name: string; readonly inode: InodeId }[]
}

export class TreeLog {
  readonly operations: LoggedOperation[] = []
  readonly reads: LoggedRead[] = []
  readonly listings: LoggedListing[] = []
  /** That were there at some time. */
  readonly directories: InodeId[] = [ROOT_INODE]
  readonly #floors = new Map<InodeId, Map<string, number>>()
  /** Of each directory: the last time that was told. */
  readonly #latest = new Map<InodeId, number>()

  begin(operation: Operation, size = 0): LoggedOperation {
    const logged: LoggedOperation = {
      number: this.operations.length + 1,
      operation,
      size,
      outcome: 'unknown',
      told: {},
    }
    this.operations.push(logged)
    return logged
  }

  done(logged: LoggedOperation, told: Told): void {
    const { operation } = logged
    logged.outcome = 'done'
    logged.told = told
    const { created, removed } = told
    if (operation.kind !== 'remove' && created !== undefined) this.#raise(operation.to, created)
    if (operation.kind === 'remove' && removed !== undefined) this.#raise(operation.from, removed)
    if (operation.kind === 'move') {
      const { from, to } = operation
      // Of another directory the time is not told; what was there is over all the same.
      const left = from.directory === to.directory ? created : from.created + 1
      if (left !== undefined) this.#raise(from, left)
    }
    if (operation.kind === 'make' && operation.what === 'directory' && told.inode !== undefined) {
      this.directories.push(told.inode)
    }
  }

  refused(logged: LoggedOperation): void {
    logged.outcome = 'refused'
  }

  floorOf({ directory, name }: Slot): number {
    return this.#floors.get(directory)?.get(name) ?? 0
  }

  /** All names of the directory of which something is known. */
  floorsOf(directory: InodeId): ReadonlyMap<string, number> {
    return new Map(this.#floors.get(directory))
  }

  /** A time that is over in the directory; 0 where nothing is known of it. */
  latestOf(directory: InodeId): number {
    return this.#latest.get(directory) ?? 0
  }

  #raise({ directory, name }: Slot, time: number): void {
    let names = this.#floors.get(directory)
    if (names === undefined) this.#floors.set(directory, (names = new Map()))
    names.set(name, Math.max(names.get(name) ?? 0, time))
    this.#latest.set(directory, Math.max(this.latestOf(directory), time))
  }
}
