/**
 * A store that misbehaves, over one that does not: what networks, servers and other writers do to a store, from a seed
 * or on order. What a caller gets is what a real store would give it: an error before anything happened, a time-out
 * after it did, a delay, a request for patience, a path that somebody else has just written, a body or listing that
 * breaks off in the middle. Never short data that look whole, since no store may give those.
 */
import { setTimeout as sleep } from 'node:timers/promises'

import { isOperationError, OperationError, type ErrorCode } from '#base/errors.ts'

import { abortedError } from './abort.ts'
import { ANY, type CallOptions, type Entry, type Reading, type Removal, type Store, type Upload } from './store.ts'

export type Fault =
  /** Fails with this code and does nothing. */
  | { readonly kind: 'error'; readonly code: ErrorCode }
  /** Does it, and fails with `STORE_TIMEOUT`. */
  | { readonly kind: 'lost' }
  | { readonly kind: 'throttled' }
  | { readonly kind: 'delay'; readonly ms: number }
  /** Somebody else puts a file at the path (of a copy or rename, the target) just before. */
  | { readonly kind: 'conflict' }
  /** The body, or the listing, breaks off: after so many bytes, or pages. */
  | { readonly kind: 'cut'; readonly after: number }
  /** Of a removal in bulk: every other entry, from the first on, fails with this code and stays. Else as `error`. */
  | { readonly kind: 'partial'; readonly code: ErrorCode }

/** How likely each fault is for a call, from 0 to 1; those that make no sense for a call do not happen to it. */
export interface FaultRates {
  readonly error?: number
  readonly lost?: number
  readonly throttled?: number
  readonly delay?: number
  readonly conflict?: number
  readonly cut?: number
}

export interface FaultyOptions {
  /** Where the same calls are made in the same order, one seed gives the same faults. */
  readonly seed?: number
  readonly rates?: FaultRates
  readonly delayMsMax?: number
}

/** The calls of a store, and those of an upload that was begun with it. */
export type FaultyOperation = Exclude<keyof Store, 'url' | 'capabilities' | 'close'> | 'uploadSend' | 'uploadCommit'

export interface FaultyStore extends Store {
  /** Does this to the next call of the operation (or of any), whatever the rates say; several wait in line. */
  failNext(operation: FaultyOperation | 'any', fault: Fault): void
  /** Faults that happened so far. */
  readonly faultCount: number
}

/** What an outsider writes where a `conflict` is injected. */
export const OUTSIDER_BYTES = Buffer.from('written by somebody else')

const DELAY_MS_MAX = 5
const CUT_BYTES_MAX = 100_000
const MUTATIONS = new Set<FaultyOperation>([
  'put',
  'symlink',
  'makeDirectory',
  'setAttributes',
  'copy',
  'rename',
  'remove',
  'removeDirectory',
  'makeSpecial',
  'exchange',
  'removeAll',
  'uploadSend',
  'uploadCommit',
])

/** Decorates `inner`; closing it closes `inner`. */
export function openFaultyStore(inner: Store, options: FaultyOptions = {}): FaultyStore {
  const faults = new Faults(options)
  const call = <T>(
    operation: FaultyOperation,
    path: string,
    callOptions: CallOptions | undefined,
    work: () => Promise<T>,
  ): Promise<T> => injected(inner, faults.next(operation), operation, path, callOptions?.signal, work)
  const { beginUpload, listTree } = inner
  return {
    url: inner.url,
    capabilities: inner.capabilities,
    failNext: (operation, fault) => faults.line.push({ operation, fault }),
    get faultCount() {
      return faults.count
    },
    stat: (path, o) => call('stat', path, o, () => inner.stat(path, o)),
    list: (path, o) => faultyList(inner, faults.next('list'), path, inner.list(path, o), o?.signal),
    read: (path, o) => {
      const fault = faults.next('read')
      return injected(inner, fault, 'read', path, o?.signal, async () => {
        const reading = await inner.read(path, o)
        return fault?.kind === 'cut' ? cutReading(reading, fault.after) : reading
      })
    },
    readLink: (path, o) => call('readLink', path, o, () => inner.readLink(path, o)),
    put: (path, source, o) => call('put', path, o, () => inner.put(path, source, o)),
    symlink: (path, target, o) => call('symlink', path, o, () => inner.symlink(path, target, o)),
    makeDirectory: (path, o) => call('makeDirectory', path, o, () => inner.makeDirectory(path, o)),
    setAttributes: (path, changes, o) => call('setAttributes', path, o, () => inner.setAttributes(path, changes, o)),
    copy: (from, to, o) => call('copy', to, o, () => inner.copy(from, to, o)),
    rename: (from, to, o) => call('rename', to, o, () => inner.rename(from, to, o)),
    makeSpecial: (path, kind, o) => call('makeSpecial', path, o, () => inner.makeSpecial(path, kind, o)),
    exchange: (path, other, o) => call('exchange', path, o, () => inner.exchange(path, other, o)),
    removeAll: (removals, o) => faultyRemoval(inner, faults.next('removeAll'), removals, o),
    remove: (path, o) => call('remove', path, o, () => inner.remove(path, o)),
    removeDirectory: (path, o) => call('removeDirectory', path, o, () => inner.removeDirectory(path, o)),
    space: (o) => call('space', '', o, () => inner.space(o)),
    close: () => inner.close(),
    ...(inner.finishMoves === undefined ? {} : { finishMoves: inner.finishMoves }),
    ...(listTree === undefined
      ? {}
      : { listTree: (path, o) => call('list', path, o, () => listTree.call(inner, path, o)) }),
    ...(beginUpload === undefined
      ? {}
      : {
          beginUpload: (path, o) =>
            call('beginUpload', path, o, async () => faultyUpload(await beginUpload.call(inner, path, o), path, call)),
        }),
  }
}

/** Chooses what happens to each call: what was ordered first, then by the rates. */
class Faults {
  readonly line: { operation: FaultyOperation | 'any'; fault: Fault }[] = []
  count = 0
  readonly #rates: FaultRates
  readonly #delayMsMax: number
  #state: number

  constructor(options: FaultyOptions) {
    this.#rates = options.rates ?? {}
    this.#delayMsMax = options.delayMsMax ?? DELAY_MS_MAX
    this.#state = (options.seed ?? 1) >>> 0
  }

  next(operation: FaultyOperation): Fault | undefined {
    const index = this.line.findIndex((ordered) => ordered.operation === operation || ordered.operation === 'any')
    const fault = index === -1 ? this.#drawn(operation) : this.line.splice(index, 1)[0]?.fault
    if (fault !== undefined) this.count++
    return fault
  }

  #drawn(operation: FaultyOperation): Fault | undefined {
    const { error = 0, lost = 0, throttled = 0, delay = 0, conflict = 0, cut = 0 } = this.#rates
    const mutates = MUTATIONS.has(operation)
    // Drawn for every kind at every call, so that one rate does not shift what the others do.
    const draws = Array.from({ length: 7 }, () => this.#random())
    const [a = 1, b = 1, c = 1, d = 1, e = 1, f = 1, size = 0] = draws
    if (a < error) {
      const code = size < 0.5 ? 'STORE_UNAVAILABLE' : 'STORE_TIMEOUT'
      return operation === 'removeAll' && size % 0.5 < 0.25 ? { kind: 'partial', code } : { kind: 'error', code }
    }
    if (b < lost && mutates) return { kind: 'lost' }
    if (c < throttled) return { kind: 'throttled' }
    if (d < conflict && mutates) return { kind: 'conflict' }
    if (e < cut && operation === 'read') return { kind: 'cut', after: Math.floor(size * CUT_BYTES_MAX) }
    if (e < cut && operation === 'list') return { kind: 'cut', after: Math.floor(size * 3) }
    if (f < delay) return { kind: 'delay', ms: size * this.#delayMsMax }
    return undefined
  }

  /** Mulberry32: from 0 up to 1. */
  #random(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0
    let mixed = this.#state
    mixed = Math.imul(mixed ^ (mixed >>> 15), mixed | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 0x1_0000_0000
  }
}

async function injected<T>(
  inner: Store,
  fault: Fault | undefined,
  operation: FaultyOperation,
  path: string,
  signal: AbortSignal | undefined,
  work: () => Promise<T>,
): Promise<T> {
  const action = `${operation} "${path}"`
  if (fault?.kind === 'lost') {
    await work()
    throw new OperationError('STORE_TIMEOUT', `Cannot ${action}: no answer (injected, after it was done)`)
  }
  await before(inner, fault, action, path, signal)
  return work()
}

/** What a fault does before the call itself. */
async function before(
  inner: Store,
  fault: Fault | undefined,
  action: string,
  path: string,
  signal: AbortSignal | undefined,
): Promise<void> {
  if (fault?.kind === 'error' || fault?.kind === 'partial') {
    throw new OperationError(fault.code, `Cannot ${action}: injected, nothing was done`)
  }
  if (fault?.kind === 'throttled') throw new OperationError('STORE_THROTTLED', `Cannot ${action}: injected`)
  if (fault?.kind === 'conflict') {
    await inner.put(path, OUTSIDER_BYTES, { guard: ANY }).catch((error: unknown) => {
      // Nobody can put a file where a directory is.
      if (!isOperationError(error, 'STORE_IS_DIRECTORY')) throw error
    })
  }
  if (fault?.kind === 'delay') {
    await sleep(fault.ms, undefined, signal === undefined ? {} : { signal }).catch((error: unknown) => {
      throw signal === undefined ? error : abortedError(action, signal)
    })
  }
}

/** An upload whose parts and end are calls that faults happen to; giving it up is not. */
function faultyUpload(
  upload: Upload,
  path: string,
  call: <T>(operation: FaultyOperation, path: string, o: CallOptions | undefined, work: () => Promise<T>) => Promise<T>,
): Upload {
  return {
    part: (index) => upload.part(index),
    send: (index, fd, o) => call('uploadSend', path, o, () => upload.send(index, fd, o)),
    commit: (source, changed, o) => call('uploadCommit', path, o, () => upload.commit(source, changed, o)),
    abort: () => upload.abort(),
  }
}

async function faultyRemoval(
  inner: Store,
  fault: Fault | undefined,
  removals: readonly Removal[],
  options: CallOptions | undefined,
): Promise<readonly (OperationError | undefined)[]> {
  const path = removals.find(({ kind }) => kind !== 'directory')?.path ?? removals[0]?.path ?? ''
  if (fault?.kind !== 'partial') {
    return injected(inner, fault, 'removeAll', path, options?.signal, () => inner.removeAll(removals, options))
  }
  const outcomes = await inner.removeAll(
    removals.filter((_, index) => index % 2 === 1),
    options,
  )
  return removals.map((removal, index) =>
    index % 2 === 1
      ? outcomes[index >> 1]
      : new OperationError(fault.code, `Cannot remove "${removal.path}": injected, it is still there`),
  )
}

async function* faultyList(
  inner: Store,
  fault: Fault | undefined,
  path: string,
  pages: AsyncIterable<readonly Entry[]>,
  signal: AbortSignal | undefined,
): AsyncGenerator<readonly Entry[]> {
  const action = `list "${path}"`
  await before(inner, fault, action, path, signal)
  let count = 0
  for await (const page of pages) {
    if (fault?.kind === 'cut' && count++ >= fault.after) throw brokenOff(action)
    yield page
  }
  if (fault?.kind === 'cut') throw brokenOff(action)
}

/** The reading until so many bytes (but never all of them) have come. */
function cutReading(reading: Reading, after: number): Reading {
  const action = `read "${reading.entry.path}"`
  async function* body(): AsyncGenerator<Uint8Array> {
    let left = Math.min(after, Math.max(0, reading.length - 1))
    try {
      for await (const chunk of reading.body) {
        if (chunk.length > left) {
          if (left > 0) yield chunk.subarray(0, left)
          break
        }
        left -= chunk.length
        yield chunk
      }
    } finally {
      reading.cancel()
    }
    throw brokenOff(action)
  }
  return {
    entry: reading.entry,
    length: reading.length,
    body: { [Symbol.asyncIterator]: body },
    bytes: async () => {
      reading.cancel()
      throw brokenOff(action)
    },
    cancel: () => reading.cancel(),
  }
}

function brokenOff(action: string): OperationError {
  return new OperationError('STORE_UNAVAILABLE', `Cannot ${action}: injected, the connection broke`)
}
