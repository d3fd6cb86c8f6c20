/**
 * Times as `eider fs` reads and shows them. The cluster's own are microseconds since 1970 by the clocks of its shards; people may also give
 * a date, or how long ago.
 */
import { OperationError } from '#base/errors.ts'

const AGES: Readonly<Record<string, number>> = {
  us: 1,
  ms: 1000,
  s: 1e6,
  sec: 1e6,
  second: 1e6,
  m: 60e6,
  min: 60e6,
  minute: 60e6,
  h: 3600e6,
  hour: 3600e6,
  d: 86_400e6,
  day: 86_400e6,
  w: 7 * 86_400e6,
  week: 7 * 86_400e6,
}

/** Microseconds since 1970; what was before is 0, as there is no history from then. `now`: of this machine. @throws USAGE */
export function parseTime(text: string, nowUs = Date.now() * 1000): number {
  if (/^\d{1,16}$/.test(text) && Number.isSafeInteger(Number(text))) return Number(text)
  if (text === 'now') return nowUs
  const age = /^(\d{1,15}(?:\.\d{1,6})?) ?([a-z]+)(?: ago)?$/i.exec(text)
  const unit = age?.[2]?.toLowerCase() ?? ''
  const unitUs = AGES[unit] ?? AGES[unit.replace(/s$/, '')]
  if (age !== null && unitUs !== undefined) return Math.max(0, Math.round(nowUs - Number(age[1]) * unitUs))
  const date = dateOf(text)
  if (date !== undefined) return Math.max(0, date)
  throw new OperationError('USAGE', `Cannot use ${JSON.stringify(text)} as a time`, {
    hint: 'A time is microseconds since 1970, a date such as 2026-01-31 or "2026-01-31 18:30:00.5", or "10 minutes ago".',
  })
}

/** A date of the local time zone unless it names another one. */
function dateOf(text: string): number | undefined {
  const match = /^(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?(Z|[+-]\d\d:?\d\d)?)?$/i.exec(text)
  if (match === null) return undefined
  const [, day = '', minute = '00:00', second = '00', fraction = '', zone = ''] = match
  const ms = Date.parse(`${day}T${minute}:${second}${zone.toUpperCase()}`)
  return Number.isNaN(ms) ? undefined : ms * 1000 + Number(fraction.padEnd(6, '0').slice(0, 6))
}

/** `2026-01-31T18:30:00.000001Z`, which `parseTime` reads. */
export function shownTime(us: number): string {
  const date = new Date(Math.floor(us / 1000))
  if (Number.isNaN(date.getTime())) return String(us)
  const micro = String(((us % 1000) + 1000) % 1000).padStart(3, '0')
  return date.toISOString().replace('Z', `${micro}Z`)
}

/** `2026-01-31 18:30`, in the local time zone. */
export function shownMinute(us: number): string {
  const date = new Date(us / 1000)
  if (Number.isNaN(date.getTime())) return String(us)
  const two = (value: number): string => String(value).padStart(2, '0')
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`
  return `${day} ${two(date.getHours())}:${two(date.getMinutes())}`
}
