/** Plans of syncs: shown by `--dry-run`, carried out by `eider sync apply`. */
import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { OperationError } from '#base/errors.ts'
import { logToFile, logToStderr } from '#base/log.ts'
import { applyPlan } from '#sync/apply.ts'
import { openParts } from '#sync/open-sync.ts'
import { newPlanHead, type PlanEnd, planOperations, type PlanOperation, readPlan } from '#sync/plan.ts'
import { isMissed, Tally } from '#sync/tally.ts'
import type { Skipped } from '#sync/tree.ts'
import { EXIT, type ExitCode } from './command.ts'
import { parse } from './command-line.ts'
import { extended } from './extension.ts'
import { type CommonOptions, flagsOf, formatBytes, type OptionValues } from './options.ts'
import { optionValues } from './option-values.ts'
import { stopSignal } from './stop-signal.ts'
import { sync, SYNC_OPTIONS } from './sync.ts'
import type { SYNC_APPLY_OPTIONS } from './sync-apply.ts'
import type { SyncValues } from './sync-ends.ts'
import { syncEvents } from './sync-events.ts'
import { type Opened, withSync } from './sync-opened.ts'
import { settingsOf } from './sync-settings.ts'
import { summaryLines } from './sync-screen.ts'

const MARKS: Readonly<Record<PlanOperation['do'], string>> = {
  send: 'send',
  link: 'link',
  'make-directory': 'mkdir',
  'set-attributes': 'attrs',
  delete: 'DELETE',
}

/** What `--dry-run` prints: lines for people, or the plan. */
export async function showPlan(
  { end, actor, state }: Opened,
  paths: readonly string[],
  values: SyncValues,
  extra: Readonly<Record<string, unknown>>,
  signal: AbortSignal,
): Promise<ExitCode> {
  const settings = settingsOf(values, end.prefixes, state.directory, signal)
  const parts = await openParts({ ...end, actor, state }, settings, true)
  let skipped = 0
  const onSkipped = (each: Skipped): void => {
    if (!isMissed(each.reason)) return
    skipped++
    process.stderr.write(`left out ${printablePath(each.path)}: ${each.detail}\n`)
  }
  // As of "| head", which has read enough.
  let isRead = true
  process.stdout.once('error', () => (isRead = false))
  const write = (line: string): void => void process.stdout.write(`${line}\n`)
  if (values.json) write(JSON.stringify(newPlanHead(parts, wordsOf(paths, values, extra))))
  const operations = planOperations(parts, settings, onSkipped)
  let deletions = 0
  for (;;) {
    const next = await operations.next()
    if (!isRead) return EXIT.done
    if (next.done === true) {
      if (values.json) write(JSON.stringify(next.value))
      else for (const line of endLines(next.value, deletions)) write(line)
      return skipped > 0 ? EXIT.partly : EXIT.done
    }
    if (next.value.do === 'delete') deletions++
    write(values.json ? JSON.stringify(next.value) : lineOf(next.value))
  }
}

/** Carries out the plan in that file. @throws OperationError `PLAN_OUTDATED`, and as a sync does */
export async function runApply(
  file: string,
  values: OptionValues<typeof SYNC_APPLY_OPTIONS & CommonOptions>,
): Promise<ExitCode> {
  const signal = stopSignal()
  if (values.log === undefined) logToStderr()
  else logToFile(values.log)
  const plan = readPlan(file, contentOf(file))
  const { paths, syncValues, extra } = await planned(plan.head.words)
  return withSync(paths, syncValues, extra, signal, async ({ end, actor, state }) => {
    const startedAt = performance.now()
    const meant = { ...syncValues, yesDelete: syncValues.yesDelete || values.yesDelete }
    const settings = settingsOf(meant, end.prefixes, state.directory, signal)
    const tally = new Tally()
    const parts = await openParts({ ...end, actor, state }, settings)
    await applyPlan(plan, parts, settings, tally)
    tally.sentBytes = parts.executor.bytesSent
    tally.removed = parts.executor.removed
    const snapshot = tally.snapshot({ waiting: 0, running: 0, bytes: 0 }, undefined)
    const elapsedMs = performance.now() - startedAt
    if (values.json) syncEvents(process.stdout).done(snapshot, elapsedMs)
    else process.stdout.write(`${summaryLines(snapshot, elapsedMs).join('\n')}\n`)
    return tally.failures.length === 0 && tally.keptBack === 0 ? EXIT.done : EXIT.partly
  })
}

function contentOf(file: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch (error) {
    const detail = error instanceof Error ? error.message : String(error)
    throw new OperationError('INPUT_INVALID', `Cannot read the plan "${file}": ${detail}`, { cause: error })
  }
}

/** The command line that the sync of a plan was. */
async function planned(words: readonly string[]): Promise<{
  readonly paths: readonly string[]
  readonly syncValues: SyncValues
  readonly extra: Readonly<Record<string, unknown>>
}> {
  const surroundings = { variables: process.env, directory: '/' }
  const { command, extra } = await extended(sync, words, surroundings)
  const parsed = parse(command, words)
  if (parsed === 'help') throw new OperationError('INPUT_INVALID', 'Cannot carry out the plan: it has no paths')
  const sources = { ...surroundings, flags: parsed.flags }
  return {
    paths: parsed.args,
    syncValues: optionValues(sync.options, 'sync', undefined, sources) as SyncValues,
    extra: optionValues(extra, 'sync', undefined, sources),
  }
}

/** Absolute, so that they mean the same wherever the plan is carried out. */
function wordsOf(paths: readonly string[], values: SyncValues, extra: Readonly<Record<string, unknown>>): string[] {
  const isUrl = (word: string): boolean => /^[a-z][a-z0-9+.-]*:/i.test(word)
  const { to, actor } = values
  const whole = {
    ...values,
    dryRun: false,
    json: false,
    once: true,
    ...(to === undefined || isUrl(to) ? {} : { to: resolve(to) }),
    ...(actor === undefined || !/[./]/.test(actor) ? {} : { actor: resolve(actor) }),
  }
  const own = flagsOf(SYNC_OPTIONS, whole)
  const more = Object.entries(extra).flatMap(([key, value]) =>
    typeof value === 'string' && !/secret|key|password|token/i.test(key) ? [`--${key}=${value}`] : [],
  )
  return [...own, ...more, '--', ...paths.map((path) => (isUrl(path) ? path : resolve(path)))]
}

function lineOf({ do: what, path, source }: PlanOperation): string {
  const size = what === 'send' ? `  ${formatSize(source?.size ?? 0)}` : ''
  return `${MARKS[what].padEnd(7)}${path === '' ? '.' : printablePath(path)}${size}`
}

function endLines({ operations, bytes, deletesRefused }: PlanEnd, deletions: number): string[] {
  const lines = [`${operations} operations, ${formatSize(bytes)} to send, ${deletions} to delete; nothing was done`]
  if (deletesRefused !== undefined) lines.push(`The deletions would be refused: ${deletesRefused}`)
  return lines
}

function formatSize(bytes: number): string {
  return bytes < 10_000 ? formatBytes(bytes) : `${Math.round(bytes / 1000)} kB`
}

/** On one line, whatever is in the name. */
function printablePath(path: string): string {
  // oxlint-disable-next-line no-control-regex
  return /[\u0000-\u001f\u007f]/.test(path) ? JSON.stringify(path) : path
}
