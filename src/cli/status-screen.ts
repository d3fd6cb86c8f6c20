/** A mount's status in lines for people; `--json` has all of it for programs. */
import type { DeadMount } from './dead-mounts.ts'
import type { MountStatus } from './mount-status.ts'

/** So many kinds of requests are shown by name, the most frequent first. */
const OPERATIONS_SHOWN = 6

/** The lines of one mount. */
export function statusLines(status: MountStatus): string {
  const { cache, cost } = status
  const rows: [string, string][] = [
    ['state', status.state === 'mounted' ? `mounted since ${status.since}` : 'unmounted, storing what is left'],
    ['process', String(status.pid)],
    ['open files', String(status.openFiles)],
    ['not stored', notStored(status)],
    ['memory', `${about(status.memoryBytes)} of ${about(status.memoryBytesMax)}`],
    ['cache', cache === null ? 'none' : cacheText(cache)],
  ]
  if (status.failing !== null) {
    const { files, error } = status.failing
    rows.splice(4, 0, ['failing', `${files} of them, tried again: ${error}`])
  }
  if (status.waiting !== null) rows.push(['waiting', waitingText(status.waiting)])
  const requests = requestsText(status.requests)
  if (requests !== '') rows.push(['requests', requests])
  if (cost !== null)
    rows.push(['cost', `about $${cost.usd.toFixed(cost.usd < 1 ? 4 : 2)} for requests (${cost.prices})`])
  return [heading(status), ...rows.map(([name, text]) => `  ${name.padEnd(12)}${text}`)].join('\n')
}

/** The lines of a mount whose process is gone. */
export function deadLines({ directory, store, pid, log }: DeadMount): string {
  const who = pid === undefined ? 'its process' : `its process (${pid})`
  const lines = [
    heading({ directory, store }),
    `  ${'state'.padEnd(12)}dead: ${who} is gone: mount it again, or "eider unmount" it`,
  ]
  if (log !== undefined) lines.push(`  ${'log'.padEnd(12)}${log}`)
  return lines.join('\n')
}

function heading({ directory, store }: { readonly directory: string; readonly store: string }): string {
  return printable(`${directory}  ${store}`)
}

/** On one line, without what steers a terminal: names may be another user's, or come from a store. */
export function printable(text: string): string {
  return text.replaceAll(/\p{Cc}/gu, '?')
}

/** `3 files, 12.5 MiB`. */
export function notStored({ dirtyFiles, dirtyBytes }: Pick<MountStatus, 'dirtyFiles' | 'dirtyBytes'>): string {
  if (dirtyFiles === 0) return 'nothing'
  return `${counted(dirtyFiles, 'file')}, ${about(dirtyBytes)}`
}

/** `2 requests of programs, the oldest since 12:00 (process 12)`. */
function waitingText({ requests, pid, since }: NonNullable<MountStatus['waiting']>): string {
  const who = pid === 0 ? '' : ` (process ${pid})`
  return `${counted(requests, 'request')} of programs, the oldest since ${since}${who}`
}

function cacheText(cache: NonNullable<MountStatus['cache']>): string {
  const asked = cache.hitBytes + cache.missBytes
  const share =
    asked === 0 ? '' : `, ${Math.round((100 * cache.hitBytes) / asked)} % of what the mount read came from it`
  const corrupt = cache.corruptBlocks === 0 ? '' : `, ${counted(cache.corruptBlocks, 'corrupt block')} fetched again`
  return `${about(cache.bytes)} of ${about(cache.bytesMax)} in ${counted(cache.files, 'file')}${share}${corrupt}`
}

function requestsText(requests: MountStatus['requests']): string {
  const all = Object.entries(requests).toSorted(([, a], [, b]) => b - a)
  if (all.length === 0) return ''
  const total = all.reduce((sum, [, count]) => sum + count, 0)
  const shown = all.slice(0, OPERATIONS_SHOWN).map(([operation, count]) => `${operation} ${count}`)
  return `${total}: ${shown.join(', ')}${all.length > OPERATIONS_SHOWN ? ', …' : ''}`
}

/** `1 file`, `2 files`. */
export function counted(count: number, noun: string, plural = `${noun}s`): string {
  return `${count} ${count === 1 ? noun : plural}`
}

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB']

/** To three figures: `12.5 MiB`. */
export function about(bytes: number): string {
  let unit = 0
  let value = bytes
  for (; value >= 1000 && unit < UNITS.length - 1; unit++) value /= 1024
  const digits = value >= 100 || unit === 0 ? 0 : value >= 10 ? 1 : 2
  return `${Number(value.toFixed(digits))} ${UNITS[unit]}`
}
