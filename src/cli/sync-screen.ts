/**
 * What a terminal shows of a sync: one line that is drawn over while it works, and a summary at its end. The line never wraps,
 * is drawn at most ten times a second and only when it differs, and is gone before anything else is written.
 */
import type { SyncPhase, SyncSnapshot } from '#sync/snapshot.ts'
import { about, counted } from './status-screen.ts'
import { doneCount, RateMeter, type Rates } from './sync-rates.ts'
import { failureLines, skippedText } from './sync-status-screen.ts'

const DRAW_MS = 100
/** How soon a line that stands still is looked at again: a sync that watches for days wakes up no more often. */
const IDLE_MS = 500
/** For where a terminal does not tell how wide it is. */
const COLUMNS = 80

const VERBS: Readonly<Record<SyncPhase, string>> = {
  starting: 'Starting',
  comparing: 'Comparing',
  sending: 'Sending',
  watching: 'Watching',
  stopping: 'Stopping',
}

/** One line of fewer than `columns` characters. Where it is narrow, rates go first, then bytes; what is left is cut. */
export function syncLine(snapshot: SyncSnapshot, rates: Rates, columns: number): string {
  const { phase, queued, inFlight, sentBytes, queuedBytes, failed } = snapshot
  const done = doneCount(snapshot)
  const pending = queued + inFlight
  const isKnown = phase !== 'starting' && phase !== 'comparing'
  const total = `${done + pending}${isKnown ? '' : '+'}`
  const facts: [text: string, rank: number][] = [[VERBS[phase], 0]]
  if (phase === 'comparing') facts.push([`${Math.max(snapshot.listedSource, snapshot.listedTarget)} looked at`, 1])
  if (phase === 'watching' && pending === 0) facts.push([`${counted(done, 'change')} so far`, 0])
  else if (phase !== 'starting') facts.push([`${done}/${total} changes`, 0])
  if (sentBytes + queuedBytes > 0) {
    const bytes = pending === 0 ? about(sentBytes) : `${about(sentBytes)}/${about(sentBytes + queuedBytes)}`
    facts.push([bytes, 2])
  }
  if (inFlight > 0)
    facts.push([`${about(rates.bytesPerSecond)}/s`, 3], [`${Math.round(rates.filesPerSecond)} files/s`, 4])
  if (rates.secondsLeft !== undefined && pending > 0) facts.push([`${timeText(rates.secondsLeft)} left`, 1])
  if (failed > 0) facts.push([`${failed} failed`, 0])
  // A terminal wraps when its last column is written to.
  const width = Math.max(0, columns - 1)
  let line = ''
  for (let rank = 4; rank >= 0; rank--) {
    line = facts.flatMap(([text, own]) => (own <= rank ? [text] : [])).join('  ')
    if (line.length <= width) return line
  }
  return width === 0 ? '' : `${line.slice(0, width - 1)}…`
}

/** `8s`, `3m20s`, `2h05m`, `4d03h`. */
export function timeText(seconds: number): string {
  const whole = Math.ceil(seconds)
  const two = (value: number): string => String(value).padStart(2, '0')
  if (whole < 60) return `${whole}s`
  const minutes = Math.floor(whole / 60)
  if (minutes < 60) return `${minutes}m${two(whole % 60)}s`
  const hours = Math.floor(minutes / 60)
  return hours < 24 ? `${hours}h${two(minutes % 60)}m` : `${Math.floor(hours / 24)}d${two(hours % 24)}h`
}

/** What a sync did, at its end: counts by kind, what was skipped and why, and the last failures by name. */
export function summaryLines(snapshot: SyncSnapshot, elapsedMs: number): string[] {
  const { sent, sentBytes, removed, renamed, madeDirectories, attributesSet, same, skipped, failed, retried } = snapshot
  const seconds = elapsedMs / 1000
  const rate = sentBytes > 0 && seconds > 0 ? `, ${about(sentBytes / seconds)}/s` : ''
  const lines = [
    `Sent ${counted(sent, 'file')}, ${about(sentBytes)}, in ${elapsedText(elapsedMs)}${rate}; ${same} were the same`,
  ]
  const others = [
    [renamed, 'Renamed'],
    [removed, 'Removed'],
  ] as const
  for (const [count, verb] of others) if (count > 0) lines.push(`${verb} ${count}`)
  if (madeDirectories > 0) lines.push(`Made ${counted(madeDirectories, 'directory', 'directories')}`)
  if (attributesSet > 0) lines.push(`Set the attributes of ${attributesSet}`)
  if (skipped > 0) lines.push(`Skipped ${skippedText(snapshot)}`)
  if (retried > 0) lines.push(`Tried again ${counted(retried, 'time')}`)
  if (snapshot.keptBack > 0) {
    lines.push(
      `Kept ${counted(snapshot.keptBack, 'entry', 'entries')} that only the target has, as not all could be sent`,
    )
  }
  if (failed > 0) {
    lines.push(
      `Failed ${failed}${snapshot.failures.length < failed ? `, of which the last ${snapshot.failures.length}` : ''}:`,
    )
    lines.push(...failureLines(snapshot.failures, '  '))
  }
  return lines
}

/** Times below a minute have a fraction: most runs take less. */
function elapsedText(ms: number): string {
  return ms < 60_000 ? `${Number((ms / 1000).toFixed(ms < 10_000 ? 2 : 1))}s` : timeText(ms / 1000)
}

/** What is drawn on: `process.stderr`. */
export interface Terminal {
  readonly columns?: number | undefined
  write(text: string): unknown
}

/** Draws the line until it is ended. */
export class SyncScreen {
  readonly #terminal: Terminal
  readonly #snapshot: () => SyncSnapshot
  readonly #meter = new RateMeter()
  #timer: NodeJS.Timeout
  #shown = ''

  /** `snapshot` is asked for what the line says, each time that it may be drawn. */
  constructor(terminal: Terminal, snapshot: () => SyncSnapshot) {
    this.#terminal = terminal
    this.#snapshot = snapshot
    this.#timer = this.#after(0)
  }

  /** Writes whole lines where the line is, which goes below them. */
  above(text: string): void {
    const line = this.#shown
    this.#clear()
    this.#terminal.write(`${text}\n`)
    this.#show(line)
  }

  /** Takes the line away for good. */
  end(): void {
    clearTimeout(this.#timer)
    this.#clear()
  }

  #draw(): void {
    const snapshot = this.#snapshot()
    const rates = this.#meter.rates(snapshot, performance.now())
    const line = syncLine(snapshot, rates, this.#terminal.columns ?? COLUMNS)
    const isIdle = line === this.#shown
    if (!isIdle) this.#show(line)
    this.#timer = this.#after(isIdle ? IDLE_MS : DRAW_MS)
  }

  /** To show how it goes is no reason to stay. */
  #after(ms: number): NodeJS.Timeout {
    return setTimeout(() => this.#draw(), ms).unref()
  }

  #show(line: string): void {
    if (line !== '') this.#terminal.write(`\r${line}\x1b[K`)
    this.#shown = line
  }

  #clear(): void {
    if (this.#shown !== '') this.#terminal.write('\r\x1b[K')
    this.#shown = ''
  }
}
