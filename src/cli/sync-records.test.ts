/** What a running sync leaves for others to read: fresh, whole, gone at its end, and told of once where it was killed. */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import type { SyncSnapshot } from '#sync/snapshot.ts'
import { keepSyncRecord, type SyncFacts, type SyncRecord, syncRecordsIn, takeSyncRecords } from './sync-records.ts'

const scratch = mkdtempSync(join(tmpdir(), 'eider-sync-records-'))
const children: ChildProcess[] = []
after(() => {
  for (const child of children) child.kill('SIGKILL')
  rmSync(scratch, { recursive: true })
})

const SNAPSHOT: SyncSnapshot = {
  phase: 'comparing',
  listedSource: 5,
  listedTarget: 4,
  same: 1,
  queued: 2,
  inFlight: 1,
  sent: 0,
  sentBytes: 0,
  queuedBytes: 3,
  renamed: 0,
  removed: 0,
  madeDirectories: 0,
  attributesSet: 0,
  skipped: 1,
  skippedBy: { special: 1 },
  failed: 0,
  keptBack: 0,
  retried: 0,
  startedAtMs: Date.UTC(2026, 0, 1),
  failures: [],
}

function facts(name: string): SyncFacts {
  return { sources: ['/source'], target: 's3://bucket', state: join(scratch, name) }
}

function found(name: string): { running: SyncRecord | undefined; dead: SyncRecord | undefined } {
  const { running, dead } = takeSyncRecords()
  const of = (records: readonly SyncRecord[]): SyncRecord | undefined =>
    records.find(({ state }) => state === join(scratch, name))
  return { running: of(running), dead: of(dead) }
}

/** A process that keeps a record, and is killed. */
async function killed(name: string): Promise<number> {
  const module = JSON.stringify(new URL('./sync-records.ts', import.meta.url).href)
  const script = `const { keepSyncRecord } = await import(${module})
    keepSyncRecord(${JSON.stringify(facts(name))}, ${JSON.stringify(SNAPSHOT)})
    process.stdout.write('kept')
    setInterval(() => {}, 1000)`
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  children.push(child)
  await once(child.stdout, 'data')
  assert.ok(found(name).running !== undefined, 'it is found while it runs')
  child.kill('SIGKILL')
  await once(child, 'exit')
  return child.pid ?? 0
}

test('a record has all that was told, is replaced at once at a new phase, and gone at the end', async () => {
  const kept = keepSyncRecord(facts('phases'), SNAPSHOT)
  const { running } = found('phases')
  assert.deepEqual(running?.snapshot, SNAPSHOT)
  assert.equal(running.startedAt, '2026-01-01T00:00:00.000Z')
  assert.equal(running.process.pid, process.pid)
  const watcher = { kind: 'inotify', degraded: [{ path: 'a', why: 'no watches' }], overflows: 1 }
  const next: SyncSnapshot = { ...SNAPSHOT, phase: 'watching', lastChangeAtMs: 5, watcher }
  kept.tell(next)
  const deadline = performance.now() + 20_000
  while (found('phases').running?.snapshot.phase !== 'watching' && performance.now() < deadline) await delay(1)
  assert.deepEqual(found('phases').running?.snapshot, next)
  await kept.end()
  kept.tell({ ...SNAPSHOT, phase: 'stopping' })
  assert.deepEqual(found('phases'), { running: undefined, dead: undefined })
})

test('within a phase a record is replaced at most once a second, and with what was told last', async () => {
  const kept = keepSyncRecord(facts('often'), SNAPSHOT)
  try {
    const sent = (): number | undefined => found('often').running?.snapshot.sent
    for (let each = 1; each <= 1000; each++) kept.tell({ ...SNAPSHOT, sent: each })
    assert.equal(sent(), 0)
    const deadline = performance.now() + 20_000
    while (sent() === 0 && performance.now() < deadline) await delay(20)
    assert.equal(sent(), 1000)
  } finally {
    await kept.end()
  }
})

test('a record is not larger than who reads it takes', async () => {
  const long = 'x'.repeat(4000)
  const failures = Array.from({ length: 5000 }, (_, index) => ({ path: `${long}${index}`, code: 'C', message: long }))
  const degraded = Array.from({ length: 5000 }, () => ({ path: long, why: 'no watches' }))
  const kept = keepSyncRecord(facts('large'), {
    ...SNAPSHOT,
    failures,
    watcher: { kind: 'inotify', degraded, overflows: 0 },
  })
  try {
    const last = found('large').running?.snapshot.failures.at(-1)
    assert.equal(last?.path, `${long}4999`)
  } finally {
    await kept.end()
  }
})

test('the record of a sync that was killed is told once', async () => {
  const pid = await killed('killed')
  const { running, dead } = found('killed')
  assert.equal(running, undefined)
  assert.equal(dead?.process.pid, pid)
  assert.deepEqual(found('killed'), { running: undefined, dead: undefined })
})

test('the record of a sync that was killed gives way to that of the next one with its state', async () => {
  await killed('again')
  const kept = keepSyncRecord(facts('again'), SNAPSHOT)
  try {
    const { running, dead } = found('again')
    assert.equal(running?.process.pid, process.pid)
    assert.equal(dead, undefined)
  } finally {
    await kept.end()
  }
})

test('what is no record, says that it is another one, or could be of others is passed over', async () => {
  const kept = keepSyncRecord(facts('odd'), SNAPSHOT)
  const { running } = found('odd')
  await kept.end()
  assert(running !== undefined)
  const path = join(scratch, 'folder')
  const folder = { path, uid: process.getuid?.() ?? 0 }
  assert.deepEqual(syncRecordsIn(folder), [])
  mkdirSync(path, { mode: 0o700 })
  const file = join(path, `${running.id}.json`)
  for (const text of ['{', '{}', JSON.stringify({ ...running, id: '00000000deadbeef' })]) {
    writeFileSync(file, text)
    assert.deepEqual(syncRecordsIn(folder), [])
  }
  writeFileSync(file, JSON.stringify(running))
  assert.deepEqual(syncRecordsIn(folder), [{ file, record: running }])
  chmodSync(path, 0o777)
  assert.deepEqual(syncRecordsIn(folder), [])
})
