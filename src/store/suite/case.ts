/**
 * What the cases of the store suite are written with: the shape of a case, its surroundings, and the few checks that
 * most of them make. A case works under a directory of its own, so that all run on one store.
 */
import assert from 'node:assert/strict'

import { isOperationError, type ErrorCode } from '#base/errors.ts'
import { joinPath } from '#store/path.ts'
import type { Entry, ListOptions, Source, Store } from '#store/store.ts'

/** What a store's test tells the suite about it, and how much the suite does. */
export interface SuiteOptions {
  /** Of the listing case; 10,000 unless told. */
  readonly entriesInOneDirectory?: number
  /** Of the large body; 20 MiB unless told. */
  readonly largeBytes?: number
  /** Calls under way at once where a case makes many; 16 unless told. */
  readonly parallel?: number
  /** Sequences of random operations that are compared with the model; 25 unless told. */
  readonly propertyRuns?: number
  /** Of the random operations. */
  readonly propertySeed?: number
  /**
   * Whether the store refuses a file where a directory is, and anything under a file: true unless told. A flat key
   * space, where looking would cost a request for every put, may hold both.
   */
  readonly treeChecked?: boolean
  /** Names that this store cannot hold and refuses with `STORE_NAME_INVALID`, for example in a URL of its server. */
  readonly namesRefused?: readonly string[]
}

export interface SuiteContext {
  readonly store: Store
  readonly options: Required<SuiteOptions>
  /** The case's own directory; nothing is there at first. */
  readonly directory: string
  /** The path of `name` in the case's own directory. */
  readonly at: (name: string) => string
  /** Ends the case as skipped, with the reason. */
  readonly skip: (reason: string) => void
  /** A local directory for source files, removed after the suite. */
  readonly scratch: string
}

export interface SuiteCase {
  readonly name: string
  readonly run: (context: SuiteContext) => Promise<void>
}

/** Fails unless `promise` rejects with an operating error of one of the codes. */
export async function rejectsWith(promise: Promise<unknown>, ...codes: ErrorCode[]): Promise<void> {
  await assert.rejects(promise, (error: unknown) => {
    if (isOperationError(error, ...codes)) return true
    assert.fail(`expected ${codes.join(' or ')}, got ${String(error)}`)
  })
}

/** The whole file. */
export async function contentOf(store: Store, path: string): Promise<Buffer> {
  return (await store.read(path)).bytes()
}

/** Fails unless the file at `path` has just these bytes. */
export async function assertContent(store: Store, path: string, expected: Uint8Array): Promise<void> {
  const found = await contentOf(store, path)
  assert.equal(found.length, expected.length, `size of "${path}"`)
  assert.ok(found.equals(expected), `bytes of "${path}"`)
}

/** Fails unless nothing is at `path`. */
export async function assertGone(store: Store, path: string): Promise<void> {
  await rejectsWith(store.stat(path), 'STORE_NOT_FOUND', 'STORE_NOT_DIRECTORY')
}

/** Every entry of a listing, with no page larger than a store may make it. */
export async function listAll(store: Store, path: string, options: ListOptions = {}): Promise<Entry[]> {
  const entries: Entry[] = []
  for await (const page of store.list(path, options)) entries.push(...page)
  return entries
}

/** Sort keys relative to the directory that was listed. */
export function keysOf(entries: readonly Entry[], directory: string): string[] {
  const start = directory === '' ? 0 : directory.length + 1
  return entries.map((entry) => entry.path.slice(start) + (entry.kind === 'directory' ? '/' : ''))
}

/** Bytes that no two seeds share and that do not compress. */
export function noise(size: number, seed: number): Buffer {
  const words = new Uint32Array(Math.ceil(size / 4))
  let state = (seed * 2654435761 + 1) >>> 0 || 1
  for (let i = 0; i < words.length; i++) {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    words[i] = state
  }
  return Buffer.from(words.buffer, 0, size)
}

/** A stream source that gives `chunks`, and counts how often it was ended early. */
export function streamOf(
  chunks: Iterable<Uint8Array>,
  size?: number,
): Extract<Source, { kind: 'stream' }> & { ended: { early: number } } {
  const ended = { early: 0 }
  async function* stream(): AsyncGenerator<Uint8Array> {
    let complete = false
    try {
      yield* chunks
      complete = true
    } finally {
      if (!complete) ended.early++
    }
  }
  return size === undefined
    ? { kind: 'stream', stream: stream(), ended }
    : { kind: 'stream', stream: stream(), size, ended }
}

/** Runs `work` for 0 to `count` - 1, with at most `parallel` under way. */
export async function inParallel(
  count: number,
  parallel: number,
  work: (index: number) => Promise<void>,
): Promise<void> {
  let next = 0
  const worker = async (): Promise<void> => {
    for (let index = next++; index < count; index = next++) await work(index)
  }
  await Promise.all(Array.from({ length: Math.min(parallel, count) }, worker))
}

/** The path of `name` in `directory`. */
export function inDirectory(directory: string): (name: string) => string {
  return (name) => joinPath(directory, name)
}
