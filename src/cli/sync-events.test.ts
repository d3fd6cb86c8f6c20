/** Events of a sync for programs: one JSON object a line, and none that makes a slow or absent reader a danger. */
import assert from 'node:assert/strict'
import { PassThrough, Writable } from 'node:stream'
import { test } from 'node:test'
import type { SyncSnapshot } from '#sync/snapshot.ts'
import { syncEvents } from './sync-events.ts'

const SNAPSHOT: SyncSnapshot = {
  phase: 'comparing',
  listedSource: 2,
  listedTarget: 1,
  same: 0,
  queued: 1,
  inFlight: 0,
  sent: 1,
  sentBytes: 5,
  queuedBytes: 5,
  renamed: 0,
  removed: 0,
  madeDirectories: 0,
  attributesSet: 0,
  skipped: 0,
  failed: 0,
  keptBack: 0,
  retried: 0,
  startedAtMs: 0,
  failures: [{ path: 'x', code: 'C', message: 'm' }],
}

interface Event {
  readonly event: string
  readonly time: string
  readonly [fact: string]: unknown
}

function eventsIn(stream: PassThrough): Event[] {
  const text = String(stream.read() ?? '')
  assert.ok(text === '' || text.endsWith('\n'))
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Event)
}

test('each event is a line of JSON with its name, the time and its facts', () => {
  const stream = new PassThrough()
  const events = syncEvents(stream)
  events.started({ sources: ['/a'], target: 's3://b', state: '/state', pid: 1 })
  events.progress(SNAPSHOT)
  events.failed({ path: 'a\nb', code: 'STORE_DENIED', message: 'Cannot put' })
  events.skipped({ path: 's', reason: 'special', detail: 'a socket' })
  events.done(SNAPSHOT, 12.4)
  const told = eventsIn(stream)
  assert.deepEqual(
    told.map(({ event }) => event),
    ['started', 'progress', 'failed', 'skipped', 'done'],
  )
  for (const { time } of told) assert.equal(new Date(time).toISOString(), time)
  const [started, progress, failed, skipped, done] = told
  assert.deepEqual(started?.['sources'], ['/a'])
  assert.equal(progress?.['bytesPerSecond'], 0)
  assert.equal(progress['sentBytes'], 5)
  assert.ok(!('failures' in progress))
  assert.equal(failed?.['path'], 'a\nb')
  assert.equal(skipped?.['reason'], 'special')
  assert.equal(done?.['elapsedMs'], 12)
  assert.ok(!('phase' in done))
})

test('progress is told once a second, and at each change of phase', () => {
  const stream = new PassThrough()
  const events = syncEvents(stream)
  for (let each = 0; each < 1000; each++) events.progress({ ...SNAPSHOT, sent: each })
  for (let each = 0; each < 1000; each++) events.progress({ ...SNAPSHOT, sent: each, phase: 'sending' })
  const told = eventsIn(stream)
  assert.deepEqual(
    told.map(({ phase }) => phase),
    ['comparing', 'sending'],
  )
})

test('a reader that has gone does not stop the sync', async () => {
  let writes = 0
  const stream = new Writable({
    write: (_chunk, _encoding, done) => {
      writes++
      done(Object.assign(new Error('write EPIPE'), { code: 'EPIPE' }))
    },
  })
  const events = syncEvents(stream)
  const broken = new Promise((resolve) => stream.on('close', resolve))
  events.progress(SNAPSHOT)
  await broken
  events.failed({ path: 'a', code: 'C', message: 'm' })
  events.done(SNAPSHOT, 1)
  assert.equal(writes, 1)
})
