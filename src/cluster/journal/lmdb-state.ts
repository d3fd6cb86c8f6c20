/**
 * The state of a machine in an lmdb file (docs/formats/journal.md), with the number of the entry up to which it has all changes.
 *
 * A commit of many changes is done in lots, so that neither this thread nor a page of its cache is kept busy for long: the lots are
 * written beside the state first, and one durable transaction says that they are all there (the commit has happened); then
 * they are put into the state, lot by lot, and dropped with the last one. A start finishes what a crash broke off. Until all are in,
 * reads use lmdb's snapshot of before. All values but the format's are sealed (`sealed-value.ts`).
 */
import { join } from 'node:path'

import type { Transaction } from 'lmdb'

import { assert } from '#base/assert.ts'
import { isOperationError, OperationError } from '#base/errors.ts'

import type { StateOfLineage } from './file-journal.ts'
import { LmdbEnvironment, type LmdbDatabase } from './lmdb-environment.ts'
import { NUMBER_BYTES, numberKey, numberValue, readNumber } from './keys.ts'
import { openValue, sealValue } from './sealed-value.ts'
import { LINEAGE_BYTES } from './segment.ts'
import { type Change, type EachPair, type Key, KEY_BYTES_MAX, type StoredState } from './state.ts'

export const STATE_FORMAT = 'eider state 2\n'
/** Each takes this thread for about a millisecond. */
const LOT_CHANGES = 512
const LOT_BYTES = 1 << 20
/** Of a change in a lot: lengths of key and value, and which it is. */
const CHANGE_HEAD_BYTES = 6
const REMOVED = 0xffffffff

/** The state in `DIRECTORY/state`, made where there is none. @throws JOURNAL_FAILED also where another process has it; JOURNAL_CORRUPT */
export async function openLmdbState(directory: string): Promise<StoredState & StateOfLineage> {
  const environment = await LmdbEnvironment.open(join(directory, 'state'))
  try {
    return await LmdbState.open(environment)
  } catch (error) {
    await environment.close()
    throw error
  }
}

class LmdbState implements StoredState, StateOfLineage {
  readonly #environment: LmdbEnvironment
  readonly #pairs: LmdbDatabase
  readonly #facts: LmdbDatabase
  readonly #lots: LmdbDatabase
  #applied = 0
  #lineages: readonly Buffer[] = []
  /** While lots are put into the state: what reads use. */
  #before: { readonly transaction: Transaction } | undefined
  #isCommitting = false
  #failure: OperationError | undefined

  private constructor(environment: LmdbEnvironment) {
    this.#environment = environment
    this.#pairs = environment.database('pairs')
    this.#facts = environment.database('facts')
    this.#lots = environment.database('lots')
  }

  static async open(environment: LmdbEnvironment): Promise<LmdbState> {
    const state = new LmdbState(environment)
    await state.#recover()
    return state
  }

  get lineages(): readonly Buffer[] {
    return this.#lineages
  }

  async setLineages(lineages: readonly Buffer[]): Promise<void> {
    await this.#environment.committed(put(this.#facts, 'lineages', Buffer.concat(lineages)))
    this.#lineages = lineages
  }

  get applied(): number {
    return this.#applied
  }

  get(key: Key): Buffer | undefined {
    const sealed = this.#read(() => this.#pairs.get(key, this.#before))
    return sealed === undefined ? undefined : openValue(key, sealed)
  }

  range(from: Key, to: Key, each: EachPair): void {
    if (from < to) this.#each({ ...this.#before, start: from, end: to }, each)
  }

  rangeBackwards(from: Key, to: Key, each: EachPair): void {
    // lmdb begins at the start, or before it, and has its end before the first that is not wanted.
    const bounds = { start: to, exclusiveStart: true, end: from, inclusiveEnd: true }
    if (from < to) this.#each({ ...this.#before, ...bounds, reverse: true }, each)
  }

  async commit(changes: Iterable<Change>, applied: number): Promise<void> {
    this.#checkUsable()
    assert(!this.#isCommitting, 'commits come one after the other')
    this.#isCommitting = true
    try {
      const lots: (readonly Change[])[] = []
      for (const lot of inLots(changes)) {
        // The first one is written beside the state only when there is a second.
        if (lots.length === 1) await this.#keepLot(0, lots[0] ?? [])
        if (lots.length > 0) await this.#keepLot(lots.length, lot)
        lots.push(lot)
      }
      if (lots.length > 1) {
        await this.#environment.committed(put(this.#facts, 'lots', encodeLots(applied, lots.length)))
      }
      await this.#putLots(lots, applied)
    } finally {
      this.#isCommitting = false
    }
  }

  async close(): Promise<void> {
    this.#failure ??= new OperationError('JOURNAL_FAILED', 'Cannot use the state: it is closed')
    this.#before?.transaction.done()
    this.#before = undefined
    await this.#environment.close()
  }

  async #recover(): Promise<void> {
    const facts = this.#facts
    const [format, applied, kept] = this.#read(
      () => [facts.get('format')?.toString('latin1'), facts.get('applied'), facts.get('lots')] as const,
    )
    if (format === undefined && applied === undefined) {
      await this.#environment.committed(facts.put('format', Buffer.from(STATE_FORMAT)))
    } else if (format !== STATE_FORMAT) {
      throw new OperationError('JOURNAL_CORRUPT', 'Cannot open the state: its format is none that this release knows')
    }
    const lineages = this.#read(() => facts.get('lineages'))
    this.#lineages = lineages === undefined ? [] : decodeLineages(lineages)
    this.#applied = applied === undefined ? 0 : readNumber(openValue('applied', applied), 0)
    if (kept === undefined) return this.#dropLots()
    const [through, count] = decodeLots(openValue('lots', kept))
    const lots = Array.from({ length: count }, (_, index) => {
      const lot = this.#read(() => this.#lots.get(lotKey(index)))
      if (lot === undefined)
        throw new OperationError('JOURNAL_CORRUPT', `Cannot open the state: lot ${index} is missing`)
      return decodeLot(openValue(lotKey(index), lot))
    })
    await this.#putLots(lots, through)
  }

  /** Of a commit that has not happened. */
  async #dropLots(): Promise<void> {
    const keys = this.#read(() => [...this.#lots.getKeys({ start: '', end: lotKey(Number.MAX_SAFE_INTEGER) })])
    if (keys.length === 0) return
    await this.#environment.batch(() => {
      for (const key of keys) void this.#lots.remove(key)
    })
  }

  #keepLot(index: number, lot: readonly Change[]): Promise<void> {
    return this.#environment.committed(put(this.#lots, lotKey(index), encodeLot(lot)))
  }

  /** The number changes with the last one. */
  async #putLots(lots: readonly (readonly Change[])[], applied: number): Promise<void> {
    const transaction = lots.length > 1 ? this.#read(() => this.#pairs.useReadTransaction()) : undefined
    if (transaction !== undefined) this.#before = { transaction }
    try {
      for (const lot of lots.slice(0, -1)) await this.#environment.batch(() => this.#queue(lot))
      await this.#environment.batch(() => {
        this.#queue(lots.at(-1) ?? [])
        void put(this.#facts, 'applied', numberValue(applied))
        if (lots.length < 2) return
        void this.#facts.remove('lots')
        for (const index of lots.keys()) void this.#lots.remove(lotKey(index))
      })
    } catch (error) {
      // The commit has happened, and the next start will finish it; until then reads go on as before it.
      if (transaction !== undefined && isOperationError(error)) this.#failure = error
      throw error
    }
    this.#before = undefined
    transaction?.done()
    this.#applied = applied
  }

  #queue(lot: readonly Change[]): void {
    for (const [key, value] of lot) void (value === null ? this.#pairs.remove(key) : put(this.#pairs, key, value))
  }

  #each(options: Parameters<LmdbDatabase['getRange']>[0], each: EachPair): void {
    const pairs = this.#read(() => this.#pairs.getRange(options)[Symbol.iterator]())
    try {
      for (;;) {
        // What `each` throws is the caller's.
        const { done, value: pair } = this.#read(() => pairs.next())
        if (done === true || !each(pair.key, openValue(pair.key, pair.value))) return
      }
    } finally {
      // Gives the cursor back; one that has come to its end has done so.
      pairs.return?.()
    }
  }

  #read<T>(reading: () => T): T {
    return this.#environment.read(reading)
  }

  #checkUsable(): void {
    if (this.#failure !== undefined) throw this.#failure
  }
}

function put(database: LmdbDatabase, key: Key, value: Buffer): Promise<unknown> {
  return database.put(key, sealValue(key, value))
}

function* inLots(changes: Iterable<Change>): Generator<Change[], void, undefined> {
  let lot: Change[] = []
  let bytes = 0
  for (const change of changes) {
    const [key, value] = change
    assert(key.length > 0 && key.length <= KEY_BYTES_MAX, 'a key can be stored')
    lot.push(change)
    bytes += key.length + (value?.length ?? 0)
    if (lot.length < LOT_CHANGES && bytes < LOT_BYTES) continue
    yield lot
    lot = []
    bytes = 0
  }
  if (lot.length > 0) yield lot
}

function encodeLot(lot: readonly Change[]): Buffer {
  let bytes = 0
  for (const [key, value] of lot) bytes += CHANGE_HEAD_BYTES + key.length + (value?.length ?? 0)
  const encoded = Buffer.allocUnsafe(bytes)
  let at = 0
  for (const [key, value] of lot) {
    encoded.writeUInt16LE(key.length, at)
    encoded.writeUInt32LE(value?.length ?? REMOVED, at + 2)
    at += CHANGE_HEAD_BYTES
    at += encoded.write(key, at, 'latin1')
    if (value === null) continue
    encoded.set(value, at)
    at += value.length
  }
  return encoded
}

/** The changes of a lot. */
export function decodeLot(encoded: Buffer): Change[] {
  const lot: Change[] = []
  for (let at = 0; at < encoded.length;) {
    const keyAt = at + CHANGE_HEAD_BYTES
    const valueAt = keyAt + encoded.readUInt16LE(at)
    const bytes = encoded.readUInt32LE(at + 2)
    at = valueAt + (bytes === REMOVED ? 0 : bytes)
    lot.push([encoded.toString('latin1', keyAt, valueAt), bytes === REMOVED ? null : encoded.subarray(valueAt, at)])
  }
  return lot
}

/** What `lots` in the facts says: up to which entry the lots have all changes, and how many there are. */
function encodeLots(applied: number, count: number): Buffer {
  return Buffer.from(numberKey(applied) + numberKey(count), 'latin1')
}

export function decodeLots(encoded: Buffer): readonly [applied: number, count: number] {
  return [readNumber(encoded, 0), readNumber(encoded, NUMBER_BYTES)]
}

/** What `lineages` in the facts says. @throws JOURNAL_CORRUPT */
export function decodeLineages(sealed: Buffer): Buffer[] {
  const all = openValue('lineages', sealed)
  const count = Math.floor(all.length / LINEAGE_BYTES)
  return Array.from({ length: count }, (_, index) => all.subarray(index * LINEAGE_BYTES, (index + 1) * LINEAGE_BYTES))
}

export function lotKey(index: number): Key {
  return numberKey(index)
}
