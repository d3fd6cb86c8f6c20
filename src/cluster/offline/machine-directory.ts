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
import { numberOfKey } from '#cluster/journal/keys.ts'
import {
  decodeGroup,
  groupKey,
  JOURNAL_END_KEY,
  JOURNAL_FORMAT,
  JOURNAL_FORMAT_KEY,
  numberOfGroup,
} from '#cluster/journal/lmdb-journal.ts'
import { decodeLot, decodeLots, lotKey, STATE_FORMAT } from '#cluster/journal/lmdb-state.ts'
import type { StateReader } from '#cluster/journal/state.ts'
import { WorkingBatch, WorkingState } from '#cluster/journal/working-state.ts'
import { ownMessages } from '#cluster/shard/own-messages.ts'
import { SHARDS_KEY } from '#cluster/shard/records.ts'
import { decodeEntry } from '#cluster/shard/shard-entry.ts'
import { ShardMachine } from '#cluster/shard/shard-machine.ts'

import { LmdbFile } from './lmdb-file.ts'

/** Told of what is damaged, in words that follow the name of the directory. */
export type OnDamage = (detail: string) => void

export interface MachineState {
  readonly kind: 'shards' | 'coordinator'
  readonly state: StateReader
  readonly close: () => void
}

interface Files {
  readonly state: LmdbFile
  readonly journal: LmdbFile
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
    const openPart = (part: 'state' | 'journal'): LmdbFile => {
      const lock = lockedDirectory(join(path, part))
      opened.push(() => closeSync(lock))
      const file = LmdbFile.open(join(path, part, 'data.lmdb'), (detail) => onDamage(`${part}: ${detail}`))
      opened.push(() => file.close())
      return file
    }
    const files = { state: openPart('state'), journal: openPart('journal') }
    const found = readMachine(files, onDamage)
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
  if (format !== undefined && format !== STATE_FORMAT) throw unknownFormat('state')
  const applied = facts.get('applied')
  const working = new WorkingState(files.state.database('pairs'))
  let through = applied === undefined ? 0 : numberOfKey(applied.toString('latin1'), 0)
  const lots = facts.get('lots')
  if (lots !== undefined) through = putLots(files.state, working, lots, onDamage)
  const { root } = files.journal
  const journalFormat = root.get(JOURNAL_FORMAT_KEY)?.toString('latin1')
  if (journalFormat !== undefined && journalFormat !== JOURNAL_FORMAT) throw unknownFormat('journal')
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

function unknownFormat(what: string): OperationError {
  return new OperationError('JOURNAL_CORRUPT', `Cannot read the ${what}: its format is none that this release knows`)
}

/** A commit that has happened and was not finished. Gives the entry that it reaches to. */
function putLots(file: LmdbFile, working: WorkingState, encoded: Buffer, onDamage: OnDamage): number {
  const [through, count] = decodeLots(encoded)
  const lots = file.database('lots')
  for (let index = 0; index < count; index++) {
    const lot = lots.get(lotKey(index))
    if (lot === undefined) onDamage(`state: lot ${index} of a commit is missing`)
    else working.change(new Map(decodeLot(lot)), through)
  }
  return through
}

/** Whose state it is; where nothing is stored yet, the first entry tells. */
function kindOf(state: StateReader, journal: LmdbFile, through: number): MachineState['kind'] | undefined {
  if (state.get(SHARDS_KEY) !== undefined) return 'shards'
  if (ownClient(state) !== undefined) return 'coordinator'
  if (through > 0) return undefined
  const [first] = groupFrom(journal, 1)
  if (first === undefined) {
    journal.root.range(groupKey(1), JOURNAL_END_KEY, (key) => {
      const detail = `its state is empty, and its journal begins with entry ${numberOfGroup(key)}`
      throw new OperationError('JOURNAL_CORRUPT', `Cannot read what is there: ${detail}`)
    })
    return undefined
  }
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

function groupFrom(journal: LmdbFile, number: number): readonly Buffer[] {
  const group = journal.root.get(groupKey(number))
  return group === undefined ? [] : decodeGroup(number, group)
}

function replay(
  journal: LmdbFile,
  working: WorkingState,
  applied: number,
  apply: (batch: WorkingBatch, entry: Buffer) => void,
  onDamage: OnDamage,
): void {
  // The group that has the first wanted entry may begin before it.
  let start = applied + 1
  journal.root.rangeBackwards(groupKey(1), groupKey(applied + 2), (key) => {
    start = numberOfGroup(key)
    return false
  })
  let next = applied + 1
  let last = 0
  try {
    journal.root.range(groupKey(start), JOURNAL_END_KEY, (key, value) => {
      let number = numberOfGroup(key)
      if (number > next) throw gap(next)
      for (const entry of decodeGroup(number, value)) {
        last = number++
        if (last < next) continue
        const batch = new WorkingBatch(working)
        apply(batch, entry)
        working.change(batch.changes, last)
        next = last + 1
      }
      return true
    })
    if (last < applied) throw new Error(`it ends at entry ${last}, and the state has entry ${applied}`)
  } catch (error) {
    // What was acknowledged after that is lost with it.
    onDamage(`journal: entries from ${next} on cannot be applied: ${(error as Error).message}`)
  }
}

function gap(number: number): Error {
  return new Error(`entry ${number} is missing`)
}
