/** Carries out a plan: all of it is looked at first, and where anything is another than it was planned on, nothing is done. */
import { OperationError } from '#base/errors.ts'
import { inParallel } from '#store/parallel.ts'
import { parentOf } from '#store/path.ts'

import type { Decision } from './decision.ts'
import type { SyncSettings } from './open-sync.ts'
import { outdatedOperations, type Plan, type PlanOperation } from './plan.ts'
import type { SyncParts } from './sync.ts'
import type { Tally } from './tally.ts'
import type { TreeEntry } from './tree.ts'

const NAMED_MAX = 5

/** What failed for single paths is in the tally. @throws OperationError `PLAN_OUTDATED`, `DELETES_REFUSED` */
export async function applyPlan(plan: Plan, parts: SyncParts, settings: SyncSettings, tally: Tally): Promise<void> {
  const { head, operations, end } = plan
  const { source, actor, executor, deleteGuard } = parts
  const { threads, signal } = settings
  if (actor.url !== head.target || JSON.stringify(source.names) !== JSON.stringify(head.sources)) {
    throw new OperationError('PLAN_OUTDATED', 'Cannot carry out the plan: its paths lead elsewhere by now')
  }
  if (end.deletesRefused !== undefined && !settings.deleteRules.isMeant) {
    throw new OperationError('DELETES_REFUSED', `Cannot carry out the plan: of its deletions, ${end.deletesRefused}`)
  }
  tally.phase = 'comparing'
  const { first, count } = await outdatedOperations(plan, parts, { threads, signal, max: NAMED_MAX })
  if (count > 0) {
    const more = count > first.length ? ` and ${count - first.length} more` : ''
    throw new OperationError('PLAN_OUTDATED', `Cannot carry out the plan: ${first.join('; ')}${more}`)
  }
  tally.phase = 'sending'
  const touched = new Set<string>()
  // The plan was looked at by whoever carries it out: it is what is meant.
  deleteGuard.begin(Number.MAX_SAFE_INTEGER)
  const deletions = operations.filter((operation) => operation.do === 'delete')
  // Directories get their attributes when all in them is done.
  for (const operation of operations) if (isOfDirectory(operation)) touched.add(operation.path)
  await inParallel(
    operations.filter((operation) => operation.do !== 'delete' && !isOfDirectory(operation)),
    threads,
    async (operation) => {
      signal.throwIfAborted()
      try {
        tally.count(await executor.carryOut(await decisionOf(operation, parts)))
        touched.add(parentOf(operation.path))
        if (operation.do === 'make-directory') touched.add(operation.path)
      } catch (error) {
        tally.fail(operation.path, error)
      }
    },
  )
  if (tally.failures.length > 0) tally.keptBack = deletions.length
  else {
    const targets = deletions.map((operation) => targetOf(operation))
    const failed = await executor.deleteAll(targets)
    for (const [target, error] of failed) tally.fail(target.path, error)
    for (const { path } of deletions) touched.add(parentOf(path))
  }
  if (!settings.metadata) return
  for (const path of touched) if (await executor.finishDirectory(path, true)) tally.count('attributes-set')
}

function isOfDirectory({ do: what, source }: PlanOperation): boolean {
  return what === 'set-attributes' && source?.kind === 'directory'
}

/** What was planned, on the source as it is: it was found to be the one of the plan. */
async function decisionOf(operation: PlanOperation, { source }: SyncParts): Promise<Decision> {
  const { path } = operation
  const looked = await source.look(path, {})
  if (looked.is !== 'entry') {
    throw new OperationError('FILE_STALE', `Cannot send "${path}": it was removed while the plan was carried out`)
  }
  const { entry } = looked
  const replaced = operation.target === null ? undefined : targetOf(operation)
  switch (operation.do) {
    case 'link':
      return { do: 'link', entry, leadsTo: operation.leadsTo ?? '', replaced }
    case 'make-directory':
      return { do: 'make-directory', entry, replaced }
    case 'set-attributes':
      return { do: 'set-attributes', entry, target: replaced ?? entry, known: undefined }
    case 'send':
    case 'delete':
      return { do: 'send', entry, replaced }
  }
}

function targetOf({ path, target }: PlanOperation): TreeEntry {
  const { kind = 'file', size = 0, mtime, version } = target ?? {}
  return {
    path,
    kind,
    size,
    mtime,
    ...(version === undefined ? {} : { version: version as NonNullable<TreeEntry['version']> }),
  }
}
