/** A sync's two ends and its state, opened together and closed in order. */
import { join } from 'node:path'
import { OperationError } from '#base/errors.ts'
import type { Actor } from '#sync/actor.ts'
import { SyncState } from '#sync/state.ts'
import type { ExitCode } from './command.ts'
import { holdLock } from './held-lock.ts'
import {
  checkApart,
  endsOf,
  openSource,
  openTarget,
  type SourceEnd,
  stateDirectoryOf,
  type SyncValues,
} from './sync-ends.ts'

/** Opens both ends and the state for as long as `use` lasts. @throws OperationError where one cannot be opened */
export async function withSync(
  paths: readonly string[],
  values: SyncValues,
  extra: Readonly<Record<string, unknown>>,
  signal: AbortSignal,
  use: (opened: Opened) => Promise<ExitCode>,
): Promise<ExitCode> {
  const end = await openSource(paths, values, signal)
  try {
    checkApart(end.roots, values)
    const actor = await openTarget(values, extra, signal)
    try {
      const directory = stateDirectoryOf(values, end.source, actor)
      const free = holdLock(
        join(directory, '.lock'),
        `sync to ${actor.url}`,
        'another sync of these paths to that target is running',
        'Wait for it or end it; for a second one of other paths, --state names another directory.',
      )
      const state = await SyncState.open(directory)
      try {
        await bind(state, endsOf(values, end.source, actor), values)
        return await use({ end, actor, state })
      } finally {
        await state.close()
        free()
      }
    } finally {
      await actor.close?.()
    }
  } finally {
    await end.source.close()
  }
}

/** @throws OperationError `USAGE` where the state is that of another sync: what it remembers is of other files */
async function bind(state: SyncState, ends: string, { dryRun }: SyncValues): Promise<void> {
  const before = state.fact('ends')
  if (before === undefined && !dryRun) await state.setFact('ends', ends)
  if (before === undefined || before === ends) return
  const words = (JSON.parse(before) as string[]).filter((word) => word !== '')
  throw new OperationError('USAGE', `Cannot sync: the state in "${state.directory}" is that of ${words.join(' to ')}`, {
    hint: 'Name another directory by --state, one for each sync.',
  })
}

/** What a sync works with, open. */
export interface Opened {
  readonly end: SourceEnd
  readonly actor: Actor
  readonly state: SyncState
}
