/**
 * What a sync would do, as data: made without changing anything, carried out only if all of it still stands on what it was made
 * on. A plan is lines of JSON: a head, an operation a line, an end that counts them, so that a plan that was cut is known for
 * one. docs/formats/sync-plan.md has the format.
 */
import * as v from 'valibot'

import { OperationError } from '#base/errors.ts'
import { compareTimestamps } from '#base/time.ts'
import { Slice } from '#store/directory/listing.ts'
import { inParallel } from '#store/parallel.ts'

import { actorListing } from './actor-listing.ts'
import { compare, type ComparisonOptions } from './comparison.ts'
import type { Decision } from './decision.ts'

import type { SyncSettings } from './open-sync.ts'
import type { SyncParts } from './sync.ts'
import { TargetOnly } from './target-only.ts'
import { rootsToSet } from './touched-directories.ts'
import type { Skipped, TreeEntry } from './tree.ts'

const FORMAT = 1
/** Decisions that are asked for together. */
const TOGETHER = 256

const text = v.string()
const count = v.pipe(v.number(), v.safeInteger())
const TimeSchema = v.object({ seconds: count, nanoseconds: count })
/** What a side had at a path; `null`: nothing. */
const PrintSchema = v.nullable(
  v.object({
    kind: v.picklist(['file', 'directory', 'symlink']),
    size: count,
    mtime: v.exactOptional(TimeSchema),
    inode: v.exactOptional(v.number()),
    ctime: v.exactOptional(TimeSchema),
    version: v.exactOptional(text),
  }),
)
type Print = v.InferOutput<typeof PrintSchema>

const HeadSchema = v.object({
  eiderPlan: v.literal(FORMAT),
  madeAt: text,
  sources: v.array(text),
  target: text,
  /** The words of the command line that plan the same again. */
  words: v.array(text),
})
export type PlanHead = v.InferOutput<typeof HeadSchema>

const OperationSchema = v.object({
  do: v.picklist(['send', 'link', 'make-directory', 'set-attributes', 'delete']),
  path: text,
  source: PrintSchema,
  target: PrintSchema,
  /** Of a link. */
  leadsTo: v.exactOptional(text),
})
export type PlanOperation = v.InferOutput<typeof OperationSchema>

const EndSchema = v.object({
  operations: count,
  /** Bytes to be sent. */
  bytes: count,
  /** Why the deletions would be refused, where they would. */
  deletesRefused: v.exactOptional(text),
})
export type PlanEnd = v.InferOutput<typeof EndSchema>

export interface Plan {
  readonly head: PlanHead
  readonly operations: readonly PlanOperation[]
  readonly end: PlanEnd
}

export function newPlanHead(parts: SyncParts, words: readonly string[]): PlanHead {
  const { source, actor } = parts
  return {
    eiderPlan: FORMAT,
    madeAt: new Date().toISOString(),
    sources: [...source.names],
    target: actor.url,
    words: [...words],
  }
}

/** The operations that a sync would do now, deletions last; `onSkipped` is told of what would be left out. */
export async function* planOperations(
  parts: SyncParts,
  settings: SyncSettings,
  onSkipped: (skipped: Skipped) => void,
): AsyncGenerator<PlanOperation, PlanEnd, undefined> {
  const { source, actor, decider, deleteGuard } = parts
  const { metadata, backupDirectory, deletes, scratch, signal } = settings
  const directories = decider.keepsDirectories
  const pathBytesMax = actor.keeps?.pathBytesMax
  const options: ComparisonOptions = { source, decider, metadata, directories, backupDirectory, isRootAtRest: false }
  const compared = { source: 0, target: 0, same: 0 }
  const targetOnly = new TargetOnly(scratch)
  let operations = 0
  let bytes = 0
  const directoriesToSet: string[] = []
  const different: { readonly path: string; readonly target: TreeEntry | null }[] = []
  try {
    for (const [index, root] of source.roots.entries()) {
      targetOnly.beginRoot(compared.source)
      const sides = {
        source: source.list(root, { signal, onSkipped, ...(pathBytesMax === undefined ? {} : { pathBytesMax }) }),
        target: actorListing(actor, root, { scratch, signal, onSkipped, brief: !metadata }),
      }
      const differences = {
        onDifferent: (path: string, target: TreeEntry | null) => void different.push({ path, target }),
        onTargetOnly: (entry: TreeEntry) => targetOnly.add(entry),
        onKept: (path: string) => targetOnly.keep(path),
        onDirectory: (path: string) => void directoriesToSet.push(path),
        room: async () => {},
      }
      await compare(sides, differences, compared, options)
      targetOnly.endRoot(source.names[index] ?? root, compared.source)
    }
    const slice = new Slice()
    for (let at = 0; at < different.length; at += TOGETHER) {
      signal.throwIfAborted()
      const batch = different.slice(at, at + TOGETHER)
      const decisions = await Promise.all(batch.map(({ path, target }) => decider.decide(path, target)))
      for (const decision of decisions) {
        if (decision.do === 'skip') onSkipped(decision.skipped)
        const operation = operationOf(decision)
        if (operation === undefined) continue
        operations++
        if (operation.do === 'send') bytes += operation.source?.size ?? 0
        yield operation
      }
      if (slice.over()) await slice.next()
    }
    if (metadata) {
      for (const path of [...(await rootsToSet(parts, signal)), ...directoriesToSet]) {
        const looked = await source.look(path, { signal })
        if (looked.is !== 'entry') continue
        operations++
        yield { do: 'set-attributes', path, source: printOf(looked.entry), target: DIRECTORY }
      }
    }
    if (deletes === 'never' || targetOnly.count === 0) return { operations, bytes }
    const refusal = deleteGuard.comparedObjection(targetOnly.count, { ...compared, emptied: targetOnly.emptied })
    for await (const page of targetOnly.pages(true)) {
      for (const target of page) {
        if (await decider.isElsewhere(target.path)) continue
        operations++
        yield { do: 'delete', path: target.path, source: null, target: printOf(target) }
      }
    }
    return { operations, bytes, ...(refusal === undefined ? {} : { deletesRefused: refusal }) }
  } finally {
    targetOnly.close()
  }
}

const DIRECTORY: Print = { kind: 'directory', size: 0 }

function operationOf(decision: Decision): PlanOperation | undefined {
  switch (decision.do) {
    case 'send':
    case 'make-directory': {
      const { entry, replaced } = decision
      return { do: decision.do, path: entry.path, source: printOf(entry), target: printOf(replaced) }
    }
    case 'link': {
      const { entry, replaced, leadsTo } = decision
      return { do: 'link', path: entry.path, source: printOf(entry), target: printOf(replaced), leadsTo }
    }
    case 'set-attributes': {
      const { entry, target } = decision
      return { do: 'set-attributes', path: entry.path, source: printOf(entry), target: printOf(target) }
    }
    case 'delete':
      return { do: 'delete', path: decision.target.path, source: null, target: printOf(decision.target) }
    case 'nothing':
    case 'remember':
    case 'skip':
      return undefined
  }
}

function printOf(entry: TreeEntry | undefined): Print {
  if (entry === undefined) return null
  const { kind, size, mtime, identity, version } = entry
  return {
    kind: kind === 'directory' || kind === 'symlink' ? kind : 'file',
    size,
    ...(mtime === undefined ? {} : { mtime }),
    ...(identity === undefined ? {} : { inode: identity.inode, ctime: identity.ctime }),
    ...(version === undefined ? {} : { version }),
  }
}

/** Reads the lines of a plan. @throws OperationError `INPUT_INVALID` where they are none, or not all */
export function readPlan(name: string, content: string): Plan {
  const lines = content.split('\n').filter((line) => line.trim() !== '')
  const refuse = (detail: string, cause?: unknown): OperationError =>
    new OperationError('INPUT_INVALID', `Cannot read the plan "${name}": ${detail}`, {
      cause,
      hint: 'A plan is what "eider sync ... --dry-run --json" prints; make it anew.',
    })
  const parse = <T>(schema: v.GenericSchema<unknown, T>, line: string | undefined, what: string): T => {
    try {
      return v.parse(schema, JSON.parse(line ?? ''))
    } catch (error) {
      throw refuse(what, error)
    }
  }
  const head = parse(HeadSchema, lines[0], 'its first line is no head of a plan')
  const end = parse(EndSchema, lines.at(-1), 'its end is missing, so it was cut')
  const operations = lines
    .slice(1, -1)
    .map((line, index) => parse(OperationSchema, line, `line ${index + 2} is no operation`))
  if (operations.length !== end.operations) {
    throw refuse(`it has ${operations.length} operations and says that they are ${end.operations}`)
  }
  return { head, operations, end }
}

/** Operations that no longer stand on what they were planned on, with why; at most `max`, and how many there are. */
export async function outdatedOperations(
  { operations }: Plan,
  parts: Pick<SyncParts, 'source' | 'actor' | 'decider'>,
  options: { readonly threads: number; readonly signal: AbortSignal; readonly max: number },
): Promise<{ readonly first: readonly string[]; readonly count: number }> {
  const first: string[] = []
  let outdated = 0
  await inParallel(operations, options.threads, async (operation) => {
    const why = await whyOutdated(operation, parts, options.signal)
    if (why === undefined) return
    outdated++
    if (first.length < options.max) first.push(`${operation.path}: ${why}`)
  })
  return { first, count: outdated }
}

async function whyOutdated(
  { path, source: planned, target: plannedTarget }: PlanOperation,
  { source, actor, decider }: Pick<SyncParts, 'source' | 'actor' | 'decider'>,
  signal: AbortSignal,
): Promise<string | undefined> {
  const looked = await source.look(path, { signal })
  const now = looked.is === 'entry' ? looked.entry : undefined
  if (!isSamePrint(planned, printOf(now), now?.kind === 'directory')) return 'the source is another'
  if (planned === null && (await decider.isElsewhere(path))) return 'the file system that it was on is not mounted'
  if (actor.stat === undefined) return undefined
  const expected = plannedTarget === null ? {} : { expected: plannedTarget.kind }
  const there = await actor.stat(path, { signal, ...expected })
  const isThere =
    there !== undefined && !(plannedTarget === null && there.kind === 'directory' && planned?.kind === 'directory')
  const print = printOf(isThere ? there : undefined)
  return isSamePrint(plannedTarget, print, plannedTarget?.kind === 'directory') ? undefined : 'the target is another'
}

/** Of what both tell; of directories the kind alone, as entries come and go in them by the plan itself. */
function isSamePrint(planned: Print, now: Print, isDirectory: boolean): boolean {
  if (planned === null || now === null) return planned === now
  if (planned.kind !== now.kind) return false
  if (isDirectory) return true
  if (planned.size !== now.size) return false
  if (planned.version !== undefined && now.version !== undefined) return planned.version === now.version
  if (planned.inode !== undefined && now.inode !== undefined && planned.inode !== now.inode) return false
  const times = [
    [planned.mtime, now.mtime],
    [planned.ctime, now.ctime],
  ] as const
  return times.every(([a, b]) => a === undefined || b === undefined || compareTimestamps(a, b) === 0)
}
