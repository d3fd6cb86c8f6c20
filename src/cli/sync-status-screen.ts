/** A sync's record in lines for people; `--json` has all of it for programs. */
import { type ErrorCode, ERRORS } from '#base/errors.ts'
import type { SyncSnapshot } from '#sync/snapshot.ts'
import { about, counted, printable } from './status-screen.ts'
import type { SyncRecord } from './sync-records.ts'

/** A rate is of the moment when it was told: a sync that has had nothing to tell since does nothing. */
const RATE_MS_MAX = 5000
const DEGRADED_SHOWN = 3

/** The lines of one running sync, at `nowMs` since the epoch. */
export function syncLines(record: SyncRecord, nowMs: number): string {
  const { snapshot, process: server, state, startedAt } = record
  const { lastChangeAtMs, retried, failures } = snapshot
  const changed = lastChangeAtMs === undefined ? '' : `, last change ${new Date(lastChangeAtMs).toISOString()}`
  const rows: [string, string][] = [
    ['state', `${snapshot.phase}, started ${startedAt}${changed}`],
    ['process', String(server.pid)],
    ['pending', pendingText(snapshot)],
  ]
  if (nowMs - Date.parse(record.toldAt) <= RATE_MS_MAX && snapshot.inFlight > 0) {
    rows.push(['rate', `${about(record.bytesPerSecond)}/s, ${Math.round(record.filesPerSecond)} files/s`])
  }
  rows.push(['done', doneText(snapshot)])
  if (snapshot.skipped > 0) rows.push(['skipped', skippedText(snapshot)])
  if (retried > 0) rows.push(['retried', counted(retried, 'time')])
  if (snapshot.watcher !== undefined) rows.push(['watcher', watcherText(snapshot.watcher)])
  rows.push(['kept in', printable(state)])
  if (record.log !== undefined) rows.push(['log', printable(record.log)])
  if (snapshot.failed > 0) rows.push(['failed', counted(snapshot.failed, 'path')])
  const lines = [heading(record), ...rows.map(([name, text]) => `  ${name.padEnd(12)}${text}`)]
  return [...lines, ...(snapshot.failed > 0 ? failureLines(failures, '    ') : [])].join('\n')
}

/** The lines of a sync whose process is gone. */
export function deadSyncLines(record: SyncRecord): string {
  const lines = [
    heading(record),
    `  ${'state'.padEnd(12)}ended without saying so: its process (${record.process.pid}) is gone; start it again, and it goes on from its state`,
    `  ${'kept in'.padEnd(12)}${printable(record.state)}`,
  ]
  if (record.log !== undefined) lines.push(`  ${'log'.padEnd(12)}${printable(record.log)}`)
  return lines.join('\n')
}

function heading({ sources, target }: SyncRecord): string {
  return printable(`${sources.join(', ')} -> ${target}`)
}

function pendingText({ queued, inFlight, queuedBytes, phase }: SyncSnapshot): string {
  const compared = phase === 'starting' || phase === 'comparing' ? '; more may be found' : ''
  if (queued + inFlight === 0) return `nothing${compared}`
  return `${counted(queued + inFlight, 'change')}, ${about(queuedBytes)}, ${inFlight} under way${compared}`
}

/** What was done, by kind: `12 sent (3.4 MiB), 1 removed, 7 the same`; what has none of is left out. */
function doneText(snapshot: SyncSnapshot): string {
  const { sent, sentBytes, renamed, removed, madeDirectories, attributesSet, same } = snapshot
  const parts = [`${sent} sent (${about(sentBytes)})`]
  if (renamed > 0) parts.push(`${renamed} renamed`)
  if (removed > 0) parts.push(`${removed} removed`)
  if (madeDirectories > 0) parts.push(`${counted(madeDirectories, 'directory', 'directories')} made`)
  if (attributesSet > 0) parts.push(`attributes of ${attributesSet} set`)
  parts.push(`${same} the same`)
  return parts.join(', ')
}

/** Of reasons that do not speak for themselves; a record may be of a version of Eider that has others. */
const REASONS: Readonly<Record<string, string>> = {
  'not-utf8': 'with a name that is not UTF-8',
  'invalid-name': 'that no path can name',
  special: 'socket, fifo or device',
  unreadable: 'that cannot be read',
  'too-long': 'with a name that is too long',
  'other-file-system': 'on another file system',
}

/** `3: 2 socket, fifo or device; 1 vanished`. */
export function skippedText({ skipped, skippedBy = {} }: SyncSnapshot): string {
  const parts = Object.entries(skippedBy)
    .filter(([, count]) => count > 0)
    .map(([reason, count]) => `${count} ${REASONS[reason] ?? printable(reason)}`)
  return parts.length === 0 ? String(skipped) : `${skipped}: ${parts.join('; ')}`
}

function watcherText({ kind, degraded, overflows }: NonNullable<SyncSnapshot['watcher']>): string {
  const parts = [kind]
  if (overflows > 0) parts.push(`${counted(overflows, 'overflow')}, each mended by a new look`)
  if (degraded.length > 0) {
    const shown = degraded.slice(0, DEGRADED_SHOWN).map(({ path, why }) => `'${printable(path)}' (${printable(why)})`)
    const more = degraded.length > DEGRADED_SHOWN ? ', …' : ''
    parts.push(`${counted(degraded.length, 'subtree')} looked at from time to time: ${shown.join(', ')}${more}`)
  }
  return parts.join('; ')
}

/** Each failure, and after those of one code what helps. */
export function failureLines(failures: SyncSnapshot['failures'], margin: string): string[] {
  const byCode = new Map<string, string[]>()
  for (const { path, code, message } of failures) {
    const lines = byCode.get(code) ?? []
    lines.push(`${margin}'${printable(path)}': ${printable(message)}`)
    byCode.set(code, lines)
  }
  return Array.from(byCode).flatMap(([code, lines]) => {
    const hint = Object.hasOwn(ERRORS, code) ? ERRORS[code as ErrorCode].hint : ''
    return hint === '' ? lines : [...lines, `${margin}  hint: ${hint}`]
  })
}
