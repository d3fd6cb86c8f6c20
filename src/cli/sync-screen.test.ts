/** The line that a terminal shows of a sync, what it is made of, and the summary at the end. */
import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import fc from 'fast-check'
import { SYNC_PHASES, type SyncSnapshot } from '#sync/snapshot.ts'
import { RateMeter } from './sync-rates.ts'
import { summaryLines, syncLine, SyncScreen, timeText } from './sync-screen.ts'

const SNAPSHOT: SyncSnapshot = {
  phase: 'sending',
  listedSource: 10,
  listedTarget: 9,
  same: 4,
  queued: 5,
  inFlight: 1,
  sent: 3,
  sentBytes: 1024 ** 2,
  queuedBytes: 3 * 1024 ** 2,
  renamed: 0,
  removed: 1,
  madeDirectories: 0,
  attributesSet: 0,
  skipped: 0,
  failed: 0,
  keptBack: 0,
  retried: 0,
  startedAtMs: 0,
  failures: [],
}
const RATES = { bytesPerSecond: 1024 ** 2, filesPerSecond: 12.3, secondsLeft: 200 }
const NONE = { bytesPerSecond: 0, filesPerSecond: 0 }

test('the line tells what is done of what is known, how fast, how long, and what failed', () => {
  assert.equal(
    syncLine({ ...SNAPSHOT, failed: 2 }, RATES, 120),
    'Sending  6/12 changes  1 MiB/4 MiB  1 MiB/s  12 files/s  3m20s left  2 failed',
  )
})

test('while it compares, the total may grow, and no time is told', () => {
  const comparing: SyncSnapshot = { ...SNAPSHOT, phase: 'comparing' }
  const rates = new RateMeter()
  rates.rates(comparing, 0)
  assert.equal(
    syncLine(comparing, rates.rates({ ...comparing, sent: 5 }, 2000), 120),
    'Comparing  10 looked at  4/10+ changes  1 MiB/4 MiB  0 B/s  1 files/s',
  )
})

test('a sync that watches and has nothing to do says so', () => {
  const idle: SyncSnapshot = { ...SNAPSHOT, phase: 'watching', queued: 0, inFlight: 0, queuedBytes: 0 }
  assert.equal(syncLine(idle, NONE, 80), 'Watching  4 changes so far  1 MiB')
})

test('on a narrow terminal rates go first, then bytes, and failures last of all', () => {
  const failed = { ...SNAPSHOT, failed: 2 }
  assert.equal(syncLine(failed, RATES, 62), 'Sending  6/12 changes  1 MiB/4 MiB  3m20s left  2 failed')
  assert.equal(syncLine(failed, RATES, 43), 'Sending  6/12 changes  2 failed')
  assert.equal(syncLine(failed, RATES, 21), 'Sending  6/12 chang…')
})

test('no line is as wide as its terminal, whatever is in it', () => {
  const count = fc.nat({ max: Number.MAX_SAFE_INTEGER })
  fc.assert(
    fc.property(
      fc.constantFrom(...SYNC_PHASES),
      fc.record({ queued: count, inFlight: count, sent: count, sentBytes: count, queuedBytes: count, failed: count }),
      fc.record({ bytesPerSecond: count, filesPerSecond: count, secondsLeft: count }),
      fc.nat({ max: 200 }),
      (phase, counts, rates, columns) => {
        assert.ok(syncLine({ ...SNAPSHOT, ...counts, phase }, rates, columns).length <= Math.max(0, columns - 1))
      },
    ),
    { seed: 1 },
  )
})

test('rates are those of the last seconds, and the time left is what bytes or files need, whichever is more', () => {
  const meter = new RateMeter()
  const at = (seconds: number, sent: number, sentBytes: number, left: Partial<SyncSnapshot> = {}) =>
    meter.rates({ ...SNAPSHOT, removed: 0, sent, sentBytes, ...left }, seconds * 1000)
  assert.deepEqual(at(0, 0, 0), NONE, 'one look tells nothing')
  assert.deepEqual(at(2, 20, 2000, { queued: 100, inFlight: 0, queuedBytes: 1000 }), {
    bytesPerSecond: 1000,
    filesPerSecond: 10,
    secondsLeft: 10,
  })
  assert.equal(at(2, 20, 2000, { queued: 5, queuedBytes: 60_000 }).secondsLeft, 60)
  // A pause of an hour: the rate is of now, not of the whole time.
  for (let each = 0; each <= 10; each++) at(3600 + each, 20, 2000)
  assert.deepEqual(at(3611, 20, 2000), NONE)
  for (let each = 1; each <= 10; each++) at(3611 + each, 20 + each, 2000 + each * 50)
  const { bytesPerSecond, filesPerSecond } = at(3621, 30, 2500)
  assert.deepEqual({ bytesPerSecond, filesPerSecond }, { bytesPerSecond: 50, filesPerSecond: 1 })
})

test('one large file under way has its time by bytes, though no file is done', () => {
  const meter = new RateMeter()
  const left = { queued: 0, inFlight: 1, sent: 0, removed: 0 }
  meter.rates({ ...SNAPSHOT, ...left, sentBytes: 0, queuedBytes: 100 }, 0)
  assert.equal(meter.rates({ ...SNAPSHOT, ...left, sentBytes: 50, queuedBytes: 50 }, 1000).secondsLeft, 1)
})

test('times are in two units at most', () => {
  assert.deepEqual([0, 59.2, 60, 200, 7500, 360_000].map(timeText), ['0s', '1m00s', '1m00s', '3m20s', '2h05m', '4d04h'])
})

test('the summary tells what was done by kind, what was skipped and why, and names failures with what helps', () => {
  const failures = [{ path: 'x', code: 'STORE_DENIED', message: 'Cannot put "x": not allowed' }]
  const snapshot: SyncSnapshot = {
    ...SNAPSHOT,
    renamed: 2,
    madeDirectories: 1,
    skipped: 1,
    skippedBy: { special: 1 },
    retried: 1,
    failed: 3,
    failures,
  }
  const lines = summaryLines(snapshot, 2000)
  assert.deepEqual(lines.slice(0, 7), [
    'Sent 3 files, 1 MiB, in 2s, 512 KiB/s; 4 were the same',
    'Renamed 2',
    'Removed 1',
    'Made 1 directory',
    'Skipped 1: 1 socket, fifo or device',
    'Tried again 1 time',
    'Failed 3, of which the last 1:',
  ])
  assert.equal(lines[7], `  'x': Cannot put "x": not allowed`)
  assert.match(lines[8] ?? '', /^ {4}hint: /)
  const nothing = { ...SNAPSHOT, sent: 0, sentBytes: 0, removed: 0 }
  assert.deepEqual(summaryLines(nothing, 61_000), ['Sent 0 files, 0 B, in 1m01s; 4 were the same'])
})

/** A screen over a clock that the test moves. */
function drawn(context: TestContext): { writes: string[]; screen: SyncScreen; tell: (sent: number) => void } {
  context.mock.timers.enable({ apis: ['setTimeout'] })
  const writes: string[] = []
  let snapshot = { ...SNAPSHOT, inFlight: 0 }
  const screen = new SyncScreen({ columns: 80, write: (text: string) => writes.push(text) }, () => snapshot)
  const tell = (sent: number): void => void (snapshot = { ...snapshot, sent })
  return { writes, screen, tell }
}

test('the line is drawn at most ten times a second, and only where it differs', (context) => {
  const { writes, screen, tell } = drawn(context)
  for (let ms = 0; ms < 1000; ms++) {
    tell(ms)
    context.mock.timers.tick(1)
  }
  assert.ok(writes.length >= 8 && writes.length <= 10, `${writes.length} times`)
  const count = writes.length
  for (let ms = 0; ms < 5000; ms++) context.mock.timers.tick(1)
  assert.ok(writes.length <= count + 1, 'what stands still is not drawn again')
  screen.end()
})

test('lines are written above the line, which is gone at the end', (context) => {
  const { writes, screen } = drawn(context)
  context.mock.timers.tick(1)
  const [line = ''] = writes
  assert.ok(line.startsWith('\rSending ') && line.endsWith('\x1b[K'), line)
  screen.above('told')
  assert.deepEqual(writes.splice(0), [line, '\r\x1b[K', 'told\n', line])
  screen.end()
  assert.deepEqual(writes.splice(0), ['\r\x1b[K'])
  context.mock.timers.tick(10_000)
  assert.deepEqual(writes, [], 'nothing is drawn after the end')
})
