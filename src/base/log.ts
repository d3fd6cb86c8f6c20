/**
 * Logs: pino, one JSON line an event (or readable lines on a terminal), credentials redacted. A module takes its
 * logger once, by `logger('store/s3')`; the level and the place can change later (a mount that goes to the
 * background, SIGUSR2) and every logger follows.
 */
import { closeSync, fstatSync, openSync, writeSync } from 'node:fs'
import pino from 'pino'

import { OperationError } from './errors.ts'

export type LogLevel = 'trace' | 'debug' | 'info' | 'warn' | 'error' | 'fatal' | 'silent'
export const LOG_LEVELS: readonly LogLevel[] = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent']
export type Logger = pino.Logger

/** Header and field names whose values are never written. */
const REDACTED = [
  'authorization',
  'Authorization',
  'x-amz-security-token',
  'secretAccessKey',
  'sessionToken',
  'secretKey',
  'password',
]

/** Where lines go: a descriptor that may be exchanged. Written synchronously, so that nothing is lost in a crash. */
class LogTarget {
  #fd = 2
  #owned = false
  #pretty = false

  get isFile(): boolean {
    return this.#owned
  }

  write(line: string): void {
    const text = this.#pretty ? readable(line) : line
    try {
      writeSync(this.#fd, text)
    } catch {
      // A full disk or a closed pipe must not stop the work that is being logged, and there is nowhere left to say so.
    }
  }

  to(fd: number, owned: boolean, pretty: boolean): void {
    if (this.#owned) closeSync(this.#fd)
    this.#fd = fd
    this.#owned = owned
    this.#pretty = pretty
  }
}

/**
 * An error as it is logged: its own message, which has what its cause says where that matters, and the stacks of both. Pino's own
 * would put the message of each cause behind it, and say most of it twice.
 */
function loggedError(error: unknown): unknown {
  if (!(error instanceof Error)) return error
  const { type, stack, raw: _, ...fields } = pino.stdSerializers.err(error)
  return { ...fields, type, message: error.message, stack }
}

const target = new LogTarget()
const root = pino(
  {
    level: 'info',
    base: null,
    timestamp: pino.stdTimeFunctions.isoTime,
    serializers: { err: loggedError },
    formatters: { level: (label) => ({ level: label }) },
    redact: { paths: REDACTED.flatMap((name) => [`["${name}"]`, `*["${name}"]`]), censor: '[redacted]' },
  },
  target,
)
const children: Logger[] = []

/** The logger of one part of the program; `part` is the folder it lies in. */
export function logger(part: string): Logger {
  const child = root.child({ part })
  children.push(child)
  return child
}

/** Sets the level of every logger. */
export function setLogLevel(level: LogLevel): void {
  root.level = level
  for (const child of children) child.level = level
}

/** From the quietest level that an operator watches by to the most talkative one. */
const STEPS: readonly LogLevel[] = ['info', 'debug', 'trace']

/** The next level of info, debug, trace, and round again; gives it. */
export function stepLogLevel(): LogLevel {
  const next = STEPS[(STEPS.findIndex((level) => level === root.level) + 1) % STEPS.length] ?? 'info'
  setLogLevel(next)
  return next
}

/** Sends lines to a file (appended) instead of stderr. */
export function logToFile(path: string): void {
  let fd: number
  try {
    fd = openSync(path, 'a', 0o640)
  } catch (error) {
    const detail = error instanceof Error ? error.message : String(error)
    throw new OperationError('USAGE', `Cannot write the log to "${path}": ${detail}`, { cause: error })
  }
  target.to(fd, true, false)
}

/** Whether lines go to a file of their own. */
export function logsToFile(): boolean {
  return target.isFile
}

/** Sends lines to stderr, readable where that is a terminal. */
export function logToStderr(): void {
  target.to(2, false, fstatSync(2).isCharacterDevice())
}

/** `12:00:01.123 warn store/s3: message key=value`, from a JSON line. */
function readable(line: string): string {
  const { level, time, part, msg, ...rest } = JSON.parse(line) as Record<string, unknown>
  const fields = Object.entries(rest).map(
    ([key, value]) => ` ${key}=${typeof value === 'string' ? value : JSON.stringify(value)}`,
  )
  return `${String(time).slice(11, 23)} ${String(level)} ${String(part)}: ${String(msg ?? '')}${fields.join('')}\n`
}
