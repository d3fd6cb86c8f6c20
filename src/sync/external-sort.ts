/**
 * A listing in order of sort keys from one in no order, in bounded memory: sorted runs are written to local disk and merged.
 * What fits into one run never gets there. A file of runs has no name from the moment it is opened, so that the kernel
 * frees it however this process ends. It holds what `v8.serialize` makes, and nobody but this process ever reads it.
 */
import { closeSync, fstatSync, mkdirSync, openSync, readSync, unlinkSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { deserialize, serialize } from 'node:v8'

import { OperationError } from '#base/errors.ts'
import { checkAborted } from '#store/abort.ts'
import { Slice } from '#store/directory/listing.ts'
import { compareUtf8 } from '#store/path.ts'
import { sortKey } from '#store/store.ts'

import type { Listing, TreeEntry } from './tree.ts'

/** Some 5 MB of entries. */
const RUN_ENTRIES = 10_000
/** Of each run that is merged one block is in memory: some 40 kB. */
const BLOCK_ENTRIES = 100
/** Runs of a level that are merged into one of the level above: 2.5 million entries are written once, 650 million twice. */
const FAN_IN = 256
const PAGE_ENTRIES = 1000

export interface SortOptions {
  /** Where files of runs are made; it is made itself where it is missing. */
  readonly directory: string
  readonly runEntries?: number
  readonly fanIn?: number
  readonly signal?: AbortSignal
}

/**
 * All entries of `listing`, in order of sort keys, after its end. Entries of one sort key keep the order that they came in.
 * @throws OperationError `LOCAL_FAILED` where the disk fails, `ABORTED`, and whatever `listing` throws.
 */
export async function* sortListing(
  listing: Listing,
  options: SortOptions,
): AsyncGenerator<readonly TreeEntry[], void, undefined> {
  const { runEntries = RUN_ENTRIES, signal } = options
  const action = 'sort a listing'
  const runs = new Runs(options)
  const slice = new Slice()
  try {
    let run: Keyed[] = []
    for await (const page of listing) {
      checkAborted(action, signal)
      for (const entry of page) {
        run.push({ key: sortKey(entry), entry })
        if (run.length >= runEntries) {
          await runs.add(sorted(run), slice)
          run = []
        }
      }
    }
    let out: TreeEntry[] = []
    for (const { entry } of runs.merged(sorted(run))) {
      out.push(entry)
      if (out.length < PAGE_ENTRIES) continue
      checkAborted(action, signal)
      yield out
      out = []
      if (slice.over()) await slice.next()
    }
    if (out.length > 0) yield out
  } finally {
    runs.close()
  }
}

interface Keyed {
  readonly key: string
  readonly entry: TreeEntry
}

function sorted(run: Keyed[]): readonly Keyed[] {
  return run.sort((a, b) => compareUtf8(a.key, b.key))
}

/** Sorted runs on disk by level: one of level n has been made of `fanIn` of level n - 1. Earlier ones come first. */
class Runs {
  readonly #levels: RunFile[][] = []
  readonly #directory: string
  readonly #fanIn: number

  constructor(options: SortOptions) {
    this.#directory = options.directory
    this.#fanIn = options.fanIn ?? FAN_IN
  }

  async add(run: readonly Keyed[], slice: Slice): Promise<void> {
    await this.#write(0, run, slice)
    for (let level = 0; (this.#levels[level]?.length ?? 0) >= this.#fanIn; level++) {
      const full = this.#levels[level] ?? []
      await this.#write(level + 1, mergeRuns(full), slice)
      for (const file of full.splice(0)) file.close()
    }
  }

  /** All runs and `last`, which is not on disk, as one. */
  merged(last: readonly Keyed[]): Iterable<Keyed> {
    // Runs of higher levels have what came earlier.
    const files = this.#levels.toReversed().flat()
    return files.length === 0 ? last : mergeRuns([...files, last])
  }

  close(): void {
    for (const file of this.#levels.flat()) file.close()
    this.#levels.length = 0
  }

  async #write(level: number, run: Iterable<Keyed>, slice: Slice): Promise<void> {
    const file = new RunFile(this.#directory)
    ;(this.#levels[level] ??= []).push(file)
    let block: TreeEntry[] = []
    for (const { entry } of run) {
      block.push(entry)
      if (block.length < BLOCK_ENTRIES) continue
      file.append(block)
      block = []
      if (slice.over()) await slice.next()
    }
    if (block.length > 0) file.append(block)
  }
}

/** The runs as one. Of equal keys that of the earlier run comes first. */
function* mergeRuns(runs: readonly Iterable<Keyed>[]): Generator<Keyed, void, undefined> {
  const heads: Head[] = []
  for (const [index, run] of runs.entries()) {
    const rest = run[Symbol.iterator]()
    const first = rest.next()
    if (first.done !== true) heads.push({ index, value: first.value, rest })
  }
  for (let at = (heads.length >> 1) - 1; at >= 0; at--) sink(heads, at)
  for (let head = heads[0]; head !== undefined; head = heads[0]) {
    yield head.value
    const next = head.rest.next()
    if (next.done !== true) {
      head.value = next.value
    } else {
      const last = heads.pop()
      if (last !== undefined && last !== head) heads[0] = last
    }
    sink(heads, 0)
  }
}

interface Head {
  readonly index: number
  readonly rest: Iterator<Keyed>
  value: Keyed
}

/** Restores the binary heap below `at`: the least is at 0, and no parent comes after its children. */
function sink(heads: Head[], at: number): void {
  let parent = at
  for (;;) {
    let least = parent
    for (const child of [2 * parent + 1, 2 * parent + 2]) {
      if (child < heads.length && isBefore(heads[child], heads[least])) least = child
    }
    const [a, b] = [heads[parent], heads[least]]
    if (least === parent || a === undefined || b === undefined) return
    heads[parent] = b
    heads[least] = a
    parent = least
  }
}

function isBefore(a: Head | undefined, b: Head | undefined): boolean {
  if (a === undefined || b === undefined) return false
  return (compareUtf8(a.value.key, b.value.key) || a.index - b.index) < 0
}

let filesMade = 0

/** One run: blocks, each with its length before it. */
class RunFile implements Iterable<Keyed> {
  readonly #directory: string
  #fd: number

  constructor(directory: string) {
    this.#directory = directory
    this.#fd = this.#attempt(() => {
      mkdirSync(directory, { recursive: true })
      const path = join(directory, `sort-${process.pid}-${filesMade++}`)
      const fd = openSync(path, 'wx+', 0o600)
      unlinkSync(path)
      return fd
    })
  }

  append(block: readonly TreeEntry[]): void {
    const bytes = serialize(block)
    const length = Buffer.alloc(4)
    length.writeUInt32LE(bytes.length)
    const whole = Buffer.concat([length, bytes])
    this.#attempt(() => {
      for (let at = 0; at < whole.length;) at += writeSync(this.#fd, whole, at)
    })
  }

  *[Symbol.iterator](): Generator<Keyed, void, undefined> {
    const size = this.#attempt(() => fstatSync(this.#fd).size)
    for (let at = 0; at < size;) {
      const length = this.#read(at, 4).readUInt32LE()
      const block = deserialize(this.#read(at + 4, length)) as readonly TreeEntry[]
      for (const entry of block) yield { key: sortKey(entry), entry }
      at += 4 + length
    }
  }

  close(): void {
    if (this.#fd >= 0) closeSync(this.#fd)
    this.#fd = -1
  }

  #read(position: number, length: number): Buffer {
    const bytes = Buffer.allocUnsafe(length)
    this.#attempt(() => {
      for (let at = 0; at < length;) {
        const count = readSync(this.#fd, bytes, at, length - at, position + at)
        if (count === 0) throw new OperationError('LOCAL_FAILED', `Cannot sort a listing: a file of runs ended early`)
        at += count
      }
    })
    return bytes
  }

  #attempt<T>(call: () => T): T {
    try {
      return call()
    } catch (error) {
      if (error instanceof OperationError) throw error
      const detail = error instanceof Error ? error.message : String(error)
      throw new OperationError('LOCAL_FAILED', `Cannot sort a listing in "${this.#directory}": ${detail}`, {
        cause: error,
      })
    }
  }
}
