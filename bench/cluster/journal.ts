/**
 * Journal and state of a machine: durable groups a second against a plain file that is written and synced, what the thread of the machine gives
 * for each, and how long a large commit keeps it from anything else.
 */
import { closeSync, fdatasync, openSync, write } from 'node:fs'
import { join } from 'node:path'
import { setImmediate as nextTurn } from 'node:timers/promises'

import { inTurns, median, rowOf, type Run, type Scenario } from '#bench/sync/row.ts'
import type { BenchRow } from '#bench/table.ts'
import type { Journal } from '#cluster/journal/journal.ts'
import { openFileJournal } from '#cluster/journal/file-journal.ts'
import { openLmdbState } from '#cluster/journal/lmdb-state.ts'
import { SortedMap } from '#cluster/journal/sorted-map.ts'
import type { Change, StoredState } from '#cluster/journal/state.ts'

const ROUNDS = 5
const GROUPS = 500
const GROUP_ENTRIES = 64
const GROUP_BYTES = [2000, 12_000] as const
const CHANGES = 50_000
/** A commit may keep the thread for so long. */
const PAUSE_MS_MAX = 10
const GET_US_MAX = 2
const KEYS = 100_000
/** Of the working state: ns a set, a get, the start of a range. */
const MAP_NS_MAX = { 'set a new key': 250, 'set a key again': 250, get: 100, 'start a range': 2000 } as const

/** In no order, as names by their hashes are. */
function keyOf(index: number): string {
  const hash = Math.imul(index, 2654435761) >>> 0
  return `\x03${String.fromCharCode(0, 0, 0, hash % 200)}${hash.toString(16).padStart(8, '0')}name-${index}`
}

async function groupsPerSecond(append: () => Promise<void>): Promise<number> {
  const before = performance.now()
  for (let count = 0; count < GROUPS; count++) await append()
  return (GROUPS * 1000) / (performance.now() - before)
}

async function appends(journal: Journal, scratch: string, bytes: number): Promise<BenchRow[]> {
  const entries = Array.from({ length: GROUP_ENTRIES }, () => Buffer.alloc(bytes / GROUP_ENTRIES, 7))
  const group = Buffer.concat(entries)
  const fd = openSync(join(scratch, `plain-${bytes}`), 'w')
  let at = 0
  const plain = (): Promise<void> =>
    new Promise((resolve, reject) => {
      const ended = (error: Error | null): void => (error === null ? resolve() : reject(error))
      write(fd, group, 0, group.length, at, (error) => (error === null ? fdatasync(fd, ended) : reject(error)))
      at += group.length
    })
  let threadUs = 0
  const rates = await inTurns(ROUNDS, {
    journal: async () => {
      await journal.trim(Math.max(0, journal.last - 10 * GROUP_ENTRIES))
      const before = process.threadCpuUsage()
      const rate = await groupsPerSecond(() => journal.append(journal.last + 1, entries))
      const { user, system } = process.threadCpuUsage(before)
      threadUs += (user + system) / GROUPS / ROUNDS
      return rate
    },
    file: () => groupsPerSecond(plain),
  })
  closeSync(fd)
  return [
    rowOf({
      ...{ name: `groups of ${GROUP_ENTRIES} entries, ${bytes} bytes`, unit: 'durable a second', better: 'more' },
      ...{ eider: median(rates.journal) ?? Number.NaN, other: median(rates.file), otherName: 'write and fdatasync' },
      note: `${threadUs.toFixed(0)} us of the thread each`,
    }),
  ]
}

/** The longest time in ms between two turns, while `work` is under way. */
async function longestPause(work: Promise<void>): Promise<number> {
  let isDone = false
  const ended = work.finally(() => (isDone = true))
  let longest = 0
  for (let last = performance.now(); !isDone;) {
    await nextTurn()
    const now = performance.now()
    longest = Math.max(longest, now - last)
    last = now
  }
  await ended
  return longest
}

async function commits(state: StoredState): Promise<BenchRow[]> {
  const pauses: number[] = []
  const times: number[] = []
  for (let round = 0; round < ROUNDS; round++) {
    const changes: Change[] = Array.from({ length: CHANGES }, (_, index) => [
      keyOf(round * CHANGES + index),
      Buffer.alloc(120, round),
    ])
    changes.sort(([a], [b]) => (a < b ? -1 : 1))
    const before = performance.now()
    pauses.push(await longestPause(state.commit(changes, round + 1)))
    times.push(performance.now() - before)
  }
  const count = ROUNDS * CHANGES
  const keys = Array.from({ length: CHANGES }, (_, index) => keyOf((index * 7919) % count))
  let before = performance.now()
  for (const key of keys) state.get(key)
  const getUs = ((performance.now() - before) * 1000) / keys.length
  before = performance.now()
  let pairs = 0
  state.range('', '\xff', () => ++pairs > 0)
  const scan = (pairs * 1000) / (performance.now() - before)
  const limit = { otherName: 'limit', better: 'less', target: 1 } as const
  const name = `commit of ${CHANGES} changes`
  return [
    rowOf({ ...limit, name: `${name}: longest pause`, unit: 'ms', eider: median(pauses) ?? 0, other: PAUSE_MS_MAX }),
    { name: `${name}, ms`, figures: { eider: median(times) ?? 0 } },
    rowOf({ ...limit, name: `get of ${count} stored`, unit: 'us', eider: getUs, other: GET_US_MAX }),
    { name: 'scan of what is stored, a second', figures: { eider: scan } },
  ]
}

function workingState(): BenchRow[] {
  const best: Partial<Record<keyof typeof MAP_NS_MAX, number>> = {}
  const bytes = Array.from({ length: KEYS }, (_, index) => Buffer.from(keyOf(index), 'latin1'))
  for (let round = 0; round < ROUNDS; round++) {
    const map = new SortedMap<number>()
    const steps: Record<keyof typeof MAP_NS_MAX, (key: string) => unknown> = {
      'set a new key': (key) => map.set(key, 1),
      'set a key again': (key) => map.set(key, 2),
      get: (key) => map.get(key),
      'start a range': (key) => map.range(key, '\xff', () => false),
    }
    for (const [name, step] of Object.entries(steps) as [keyof typeof steps, (key: string) => unknown][]) {
      // Of its own each time, as those are that come with a request: its hash is not known yet.
      const keys = bytes.map((of) => of.toString('latin1'))
      const before = performance.now()
      for (const key of keys) step(key)
      const ns = ((performance.now() - before) * 1e6) / KEYS
      best[name] = Math.min(best[name] ?? Infinity, ns)
    }
  }
  return Object.entries(MAP_NS_MAX).map(([name, other]) =>
    rowOf({
      ...{ name: `working state of ${KEYS}: ${name}`, unit: 'ns', better: 'less', target: 1 },
      ...{ eider: best[name as keyof typeof MAP_NS_MAX] ?? Number.NaN, other, otherName: 'limit' },
    }),
  )
}

export const JOURNAL: readonly Scenario[] = [
  {
    name: 'journal',
    run: async ({ scratch }: Run) => {
      const journal = await openFileJournal(scratch)
      const state = await openLmdbState(scratch)
      try {
        const rows: BenchRow[] = []
        for (const bytes of GROUP_BYTES) rows.push(...(await appends(journal, scratch, bytes)))
        return [...rows, ...(await commits(state)), ...workingState()]
      } finally {
        await journal.close()
        await state.close()
      }
    },
  },
]
