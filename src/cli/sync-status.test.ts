/** What people read of running syncs, and how the command ends. */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, type TestContext, test } from 'node:test'
import type { SyncSnapshot } from '#sync/snapshot.ts'
import { keepSyncRecord, type SyncRecord } from './sync-records.ts'
import { syncStatus } from './sync-status.ts'
import { deadSyncLines, syncLines } from './sync-status-screen.ts'

const SNAPSHOT: SyncSnapshot = {
  phase: 'watching',
  listedSource: 10,
  listedTarget: 9,
  same: 7,
  queued: 2,
  inFlight: 1,
  sent: 2,
  sentBytes: 2048,
  queuedBytes: 1_572_864,
  renamed: 0,
  removed: 0,
  madeDirectories: 1,
  attributesSet: 0,
  skipped: 0,
  failed: 0,
  keptBack: 0,
  retried: 0,
  startedAtMs: 0,
  failures: [],
}

const RECORD: SyncRecord = {
  id: '0123456789abcdef',
  process: { pid: 12, startTicks: 1 },
  sources: ['/a', '/b'],
  target: 's3://bucket',
  state: '/var/lib/eider/sync/x',
  startedAt: '2026-01-01T00:00:00.000Z',
  toldAt: '2026-01-01T00:00:10.000Z',
  snapshot: SNAPSHOT,
  bytesPerSecond: 3_145_728,
  filesPerSecond: 40.2,
}
const NOW_MS = Date.parse(RECORD.toldAt)

test('a running sync is shown from source to target, with what is pending and how fast it goes', () => {
  assert.equal(
    syncLines(RECORD, NOW_MS),
    [
      '/a, /b -> s3://bucket',
      '  state       watching, started 2026-01-01T00:00:00.000Z',
      '  process     12',
      '  pending     3 changes, 1.5 MiB, 1 under way',
      '  rate        3 MiB/s, 40 files/s',
      '  done        2 sent (2 KiB), 1 directory made, 7 the same',
      '  kept in     /var/lib/eider/sync/x',
    ].join('\n'),
  )
})

test('a rate that was told long ago is not of now', () => {
  assert.doesNotMatch(syncLines(RECORD, NOW_MS + 60_000), /rate/)
})

test('while it compares, what is pending is not all', () => {
  const nothing = { ...SNAPSHOT, phase: 'comparing', queued: 0, inFlight: 0 } as const
  assert.match(syncLines({ ...RECORD, snapshot: nothing }, NOW_MS), /^ {2}pending +nothing; more may be found$/m)
})

test('failures are named with what helps, once for those of a kind, and cannot steer the terminal', () => {
  const failures = [
    { path: 'a', code: 'STORE_DENIED', message: 'Cannot put "a": not allowed' },
    { path: 'b\u001b[2J', code: 'OTHER', message: 'Cannot put\n"b"' },
    { path: 'c', code: 'STORE_DENIED', message: 'Cannot put "c": not allowed' },
  ]
  const lines = syncLines({ ...RECORD, snapshot: { ...SNAPSHOT, failed: 3, failures } }, NOW_MS)
  assert.match(
    lines,
    /\n {2}failed {6}3 paths\n {4}'a': .*\n {4}'c': Cannot put "c": not allowed\n {6}hint: .+\n {4}'b\?\[2J': Cannot put\?"b"$/,
  )
})

test('what was skipped is told by reason, and what is not watched with why', () => {
  const watcher = { kind: 'inotify', degraded: [{ path: 'deep', why: 'no watches left' }], overflows: 2 }
  const snapshot = { ...SNAPSHOT, skipped: 4, skippedBy: { special: 3, 'not-utf8': 1 }, watcher }
  const lines = syncLines({ ...RECORD, snapshot }, NOW_MS)
  assert.match(lines, /^ {2}skipped +4: 3 socket, fifo or device; 1 with a name that is not UTF-8$/m)
  assert.match(
    lines,
    /^ {2}watcher +inotify; 2 overflows, .*; 1 subtree looked at from time to time: 'deep' \(no watches left\)$/m,
  )
})

test('a sync whose process is gone is shown as such', () => {
  assert.match(
    deadSyncLines({ ...RECORD, log: '/log' }),
    /^\/a, \/b -> s3:\/\/bucket\n {2}state +ended without saying so: its process \(12\) is gone; .*\n {2}kept in +\/var.*\n {2}log +\/log$/,
  )
})

/** What the command writes, and how it ends. */
async function shown(context: TestContext, json: boolean): Promise<{ code: number; stdout: string }> {
  let stdout = ''
  const write = context.mock.method(process.stdout, 'write', (text: string) => ((stdout += text), true))
  try {
    const code = await syncStatus.run([], { json }, {})
    return { code, stdout }
  } finally {
    write.mock.restore()
  }
}

test('the command tells running syncs in lines and as JSON, and ends with 3 where one has failures', async (context) => {
  const scratch = mkdtempSync(join(tmpdir(), 'eider-sync-status-'))
  after(() => rmSync(scratch, { recursive: true }))
  const failures = [{ path: 'x', code: 'STORE_DENIED', message: 'Cannot put "x"' }]
  const facts = { sources: [scratch], target: 'memory:', state: scratch }
  const kept = keepSyncRecord(facts, { ...SNAPSHOT, failed: 1, failures })
  try {
    assert.match((await shown(context, false)).stdout, new RegExp(`^${scratch} -> memory:\n  state +watching`, 'm'))
    const { stdout, code } = await shown(context, true)
    const { syncs, dead } = JSON.parse(stdout) as { syncs: SyncRecord[]; dead: SyncRecord[] }
    const own = syncs.find(({ state }) => state === scratch)
    assert.deepEqual(own?.snapshot, { ...SNAPSHOT, failed: 1, failures })
    // Others of this machine may have died just now.
    assert.equal(code, dead.length === 0 ? 3 : 1)
  } finally {
    await kept.end()
  }
  assert.ok(!(await shown(context, false)).stdout.includes(scratch))
})
