/**
 * What a machine of the cluster has in its data directory, read while no process runs there: its state, with the journal's entries that the state does not have
 * yet applied in memory by the machine itself (docs/formats/journal.md). Nothing is written, not even beside the files; the locks of the
 * directories are held, so that no process begins to.
 *
 * What is damaged is told of, and missing; what can be read is given.
 */
import { closeSync, constants, existsSync, openSync } from 'node:fs'
import { join } from 'node:path'

import { isOperationError, OperationError } from '#base/errors.ts'
import { lockHolder, tryLock } from '#os/flock.ts'
import { CoordinatorMachine, ownClient } from '#cluster/coordinator/coordinator-machine.ts'
import { readNumber } from '#cluster/journal/keys.ts'
import { decodeLineages, decodeLot, decodeLots, lotKey, STATE_FORMAT } from '#cluster/journal/lmdb-state.ts'
import { findValue, openValue, shownKey } from '#cluster/journal/sealed-value.ts'
import { isOfLineage, otherLineage } from '#cluster/journal/segment.ts'
import { newestFirst, readEntries, type SegmentFile, segmentFilesIn } from '#cluster/journal/segment-files.ts'
import type { EachPair, Key, StateReader } from '#cluster/journal/state.ts'
import { WorkingBatch, WorkingState } from '#cluster/journal/working-state.ts'
import { ownMessages } from '#cluster/shard/own-messages.ts'
import { SHARDS_KEY } from '#cluster/shard/records.ts'
import { decodeEntry } from '#cluster/shard/shard-entry.ts'
import { ShardMachine } from '#cluster/shard/shard-machine.ts'

import { LmdbFile, type LmdbTree } from './lmdb-file.ts'

/** Told of what is damaged, in words that follow the name of the directory. */
export type OnDamage = (detail: string) => void

export interface MachineState {
  readonly kind: 'shards' | 'coordinator'
  readonly state: StateReader
  readonly close: () => void
}

interface Files {
  readonly state: LmdbFile
  readonly journal: Segments
}

/** Whether the directory is one of a machine. */
export function isMachineDirectory(path: string): boolean {
  return existsSync(join(path, 'state')) && existsSync(join(path, 'journal'))
}

/**
 * Undefined of a machine of another kind, such as the registry, or of one that has never begun.
 * @throws JOURNAL_FAILED where a process uses it, or it cannot be read; JOURNAL_CORRUPT
 */
export function openMachine(path: string, onDamage: OnDamage): MachineState | undefined {
  const opened: (() => void)[] = []
  const close = (): void => {
    for (const each of opened.splice(0)) each()
  }
  try {
    const locked = (part: 'state' | 'journal'): string => {
      const lock = lockedDirectory(join(path, part))
      opened.push(() => closeSync(lock))
      return join(path, part)
    }
    const state = LmdbFile.open(join(locked('state'), 'data.lmdb'), (detail) => onDamage(`state: ${detail}`))
    opened.push(() => state.close())
    const lineages = state.database('facts').get('lineages')
    const journal = new Segments(locked('journal'))
    // Where the state is lost, a journal from the first entry on may be all that is left.
    if (lineages !== undefined) journal.checkLineage(decodeLineages(lineages))
    const found = readMachine({ state, journal }, onDamage)
    if (found !== undefined) return { ...found, close }
  } catch (error) {
    close()
    throw error
  }
  close()
  return undefined
}

function lockedDirectory(path: string): number {
  let fd: number
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY)
  } catch (error) {
    throw new OperationError('JOURNAL_FAILED', `Cannot read "${path}": ${(error as Error).message}`, { cause: error })
  }
  if (tryLock(fd)) return fd
  const holder = lockHolder(fd)
  closeSync(fd)
  const who = holder === undefined ? 'another process' : `process ${holder}`
  throw new DirectoryInUseError(path, who)
}

/** Nothing that is found in a directory holds while a process changes it. */
export class DirectoryInUseError extends OperationError {
  constructor(path: string, who: string, cause?: unknown) {
    super('JOURNAL_FAILED', `Cannot read "${path}": ${who} uses it`, {
      cause,
      hint: 'Stop the processes of the cluster first: what they have in memory is not in their directories yet.',
    })
  }
}

function readMachine(files: Files, onDamage: OnDamage): Omit<MachineState, 'close'> | undefined {
  const facts = files.state.database('facts')
  const format = facts.get('format')?.toString('latin1')
  if (format !== undefined && format !== STATE_FORMAT) {
    throw new OperationError('JOURNAL_CORRUPT', 'Cannot read the state: its format is none that this release knows')
  }
  const applied = facts.get('applied')
  const working = new WorkingState(new SealedPairs(files.state.database('pairs'), onDamage))
  let through = applied === undefined ? 0 : readNumber(openValue('applied', applied), 0)
  const lots = facts.get('lots')
  if (lots !== undefined) through = putLots(files.state, working, openValue('lots', lots), onDamage)
  const kind = kindOf(working, files.journal, through)
  if (kind === undefined) return undefined
  const machine = kind === 'shards' ? new ShardMachine() : new CoordinatorMachine()
  const apply = (batch: WorkingBatch, bytes: Buffer): void => {
    if (machine instanceof ShardMachine) machine.apply(batch, machine.decode(bytes))
    else machine.apply(batch, machine.decode(bytes))
  }
  replay(files.journal, working, through, apply, onDamage)
  return { kind, state: working }
}

/** A commit that has happened and was not finished. Gives the entry that it reaches to. */
function putLots(file: LmdbFile, working: WorkingState, encoded: Buffer, onDamage: OnDamage): number {
  const [through, count] = decodeLots(encoded)
  const lots = file.database('lots')
  for (let index = 0; index < count; index++) {
    const sealed = lots.get(lotKey(index))
    const lot = sealed === undefined ? undefined : findValue(lotKey(index), sealed)
    if (lot === undefined)
      onDamage(`state: lot ${index} of a commit is ${sealed === undefined ? 'missing' : 'damaged'}`)
    else for (const [key, value] of decodeLot(lot)) working.change(key, value, through)
  }
  return through
}

/** Whose state it is; where nothing is stored yet, the first entry tells. */
function kindOf(state: StateReader, journal: Segments, through: number): MachineState['kind'] | undefined {
  if (state.get(SHARDS_KEY) !== undefined) return 'shards'
  if (ownClient(state) !== undefined) return 'coordinator'
  if (through > 0) return undefined
  if (journal.first > 1) {
    const detail = `its state is empty, and its journal begins with entry ${journal.first}`
    throw new OperationError('JOURNAL_CORRUPT', `Cannot read what is there: ${detail}`)
  }
  let first: Buffer | undefined
  journal.read(1, (_, entry) => (first ??= entry))
  if (first === undefined) return undefined
  try {
    if (decodeEntry(first).header.kind === ownMessages.begin.kind) return 'shards'
  } catch (error) {
    if (!isOperationError(error)) throw error
  }
  try {
    return new CoordinatorMachine().decode(first).kind === 'begin' ? 'coordinator' : undefined
  } catch (error) {
    if (!isOperationError(error)) throw error
    return undefined
  }
}

function replay(
  journal: Segments,
  working: WorkingState,
  applied: number,
  apply: (batch: WorkingBatch, entry: Buffer) => void,
  onDamage: OnDamage,
): void {
  let next = applied + 1
  try {
    journal.read(next, (number, entry) => {
      apply(new WorkingBatch(working, number), entry)
      next = number + 1
    })
  } catch (error) {
    // What was acknowledged after that is lost with it.
    onDamage(`journal: entries from ${next} on cannot be applied: ${(error as Error).message}`)
  }
}

/** The pairs of a state but those that are damaged, of each of which it is told once. */
class SealedPairs implements StateReader {
  readonly #tree: LmdbTree
  readonly #onDamage: OnDamage
  readonly #told = new Set<Key>()

  constructor(tree: LmdbTree, onDamage: OnDamage) {
    this.#tree = tree
    this.#onDamage = onDamage
  }

  get(key: Key): Buffer | undefined {
    const sealed = this.#tree.get(key)
    return sealed === undefined ? undefined : this.#open(key, sealed)
  }

  range(from: Key, to: Key, each: EachPair): void {
    this.#tree.range(from, to, (key, sealed) => this.#give(key, sealed, each))
  }

  rangeBackwards(from: Key, to: Key, each: EachPair): void {
    this.#tree.rangeBackwards(from, to, (key, sealed) => this.#give(key, sealed, each))
  }

  #give(key: Key, sealed: Buffer, each: EachPair): boolean {
    const value = this.#open(key, sealed)
    return value === undefined || each(key, value)
  }

  #open(key: Key, sealed: Buffer): Buffer | undefined {
    const value = findValue(key, sealed)
    if (value !== undefined || this.#told.has(key)) return value
    this.#told.add(key)
    this.#onDamage(`state: the value of ${shownKey(key)} is damaged`)
    return undefined
  }
}

/** The segments of a journal. */
class Segments {
  readonly #files: readonly SegmentFile[]

  constructor(directory: string) {
    this.#files = segmentFilesIn(directory)
  }

  get first(): number {
    return this.#files[0]?.first ?? 1
  }

  /** @throws JOURNAL_CORRUPT where it is that of another state */
  checkLineage(lineages: readonly Buffer[]): void {
    try {
      if (isOfLineage(newestFirst(this.#files), lineages)) return
    } catch (error) {
      // Of what is damaged it is told where its entries are read.
      if (isOperationError(error, 'JOURNAL_CORRUPT')) return
      throw error
    }
    throw otherLineage()
  }

  /** Gives the entries from `from` on, in order. @throws JOURNAL_CORRUPT where some are missing or damaged, after those that come before */
  read(from: number, each: (number: number, entry: Buffer) => void): void {
    const last = readEntries(this.#files, from, each)
    if (last >= from - 1) return
    const detail = `it ends at entry ${last}, and the state has entry ${from - 1}`
    throw new OperationError('JOURNAL_CORRUPT', `Cannot read the journal: ${detail}`)
  }
}
