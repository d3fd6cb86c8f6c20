/**
 * Points in time with the nanoseconds that Linux keeps. A safe integer holds microseconds since the epoch but not
 * nanoseconds, so a timestamp is a pair, as in `struct timespec`; seconds may be negative, nanoseconds never are.
 */
import { assert } from './assert.ts'

/** `seconds` since the epoch (may be negative) and `nanoseconds` after that (0 to 999,999,999). */
export interface Timestamp {
  readonly seconds: number
  readonly nanoseconds: number
}

/** A timestamp from its two parts, asserted to be in range. */
export function timestamp(seconds: number, nanoseconds = 0): Timestamp {
  assert(Number.isSafeInteger(seconds), 'seconds of a timestamp are a safe integer')
  assert(
    Number.isInteger(nanoseconds) && nanoseconds >= 0 && nanoseconds < 1_000_000_000,
    'nanoseconds are below one second',
  )
  return { seconds, nanoseconds }
}

/** From milliseconds since the epoch, as `Date.now()` gives them. */
export function timestampFromMs(ms: number): Timestamp {
  const whole = Math.floor(ms)
  const seconds = Math.floor(whole / 1000)
  return timestamp(seconds, (whole - seconds * 1000) * 1_000_000)
}

/** From nanoseconds since the epoch, as `fs.stat` with `bigint` gives them. */
export function timestampFromNs(ns: bigint): Timestamp {
  const billion = 1_000_000_000n
  let seconds = ns / billion
  let rest = ns % billion
  if (rest < 0n) {
    seconds -= 1n
    rest += billion
  }
  return timestamp(Number(seconds), Number(rest))
}

/** Milliseconds since the epoch, rounded down. */
export function timestampToMs(time: Timestamp): number {
  return time.seconds * 1000 + Math.floor(time.nanoseconds / 1_000_000)
}

/** Now, to the millisecond or better. */
export function timestampNow(): Timestamp {
  return timestampFromMs(Date.now())
}

/** Negative, zero or positive as `a` is before, at or after `b`. */
export function compareTimestamps(a: Timestamp, b: Timestamp): number {
  return a.seconds - b.seconds || a.nanoseconds - b.nanoseconds
}

/** From seconds as a decimal literal, exact to the nanosecond whatever the number of digits; undefined where `text` is none. */
export function timestampFromDecimal(text: string): Timestamp | undefined {
  const match = /^(-?)(\d{1,15})(?:\.(\d*))?$/.exec(text)
  if (match === null) return undefined
  const seconds = Number(match[2])
  const nanoseconds = Number((match[3] ?? '').slice(0, 9).padEnd(9, '0'))
  if (match[1] === '') return { seconds, nanoseconds }
  return nanoseconds === 0
    ? { seconds: 0 - seconds, nanoseconds }
    : { seconds: -seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds }
}

/** Seconds as a decimal literal, with as many digits as it takes: `1700000000.25`. */
export function timestampToDecimal({ seconds, nanoseconds }: Timestamp): string {
  if (nanoseconds === 0) return String(seconds)
  if (seconds >= 0) return `${seconds}.${decimals(nanoseconds)}`
  return `-${-seconds - 1}.${decimals(1_000_000_000 - nanoseconds)}`
}

function decimals(nanoseconds: number): string {
  return String(nanoseconds).padStart(9, '0').replace(/0+$/, '')
}
