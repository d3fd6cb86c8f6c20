import assert from 'node:assert/strict'
import { describe, test } from 'node:test'

import { type ErrorCode, OperationError } from '#base/errors.ts'
import type { Logger } from '#base/log.ts'
import { TestWorld } from '#cluster/wire/loopback-fixture.ts'

import { Heartbeat } from './heartbeat.ts'

const PAUSE_MS = 1000

class Beats {
  readonly world = new TestWorld()
  readonly lines: string[] = []
  readonly times: number[] = []
  code: ErrorCode | undefined
  heartbeat: Heartbeat

  constructor(work: () => Promise<void> = () => Promise.resolve()) {
    const say = (level: string) => (first: unknown, second?: unknown) => {
      this.lines.push(`${level} ${String(second ?? first)}`)
    }
    const log = { info: say('info'), warn: say('warn'), error: say('error') } as unknown as Logger
    this.heartbeat = new Heartbeat(this.world, {
      pauseMs: () => PAUSE_MS,
      beat: async () => {
        this.times.push(this.world.clock.monotonicMs())
        await work()
        if (this.code !== undefined) throw new OperationError(this.code, 'Cannot')
      },
      log,
      what: 'The work',
    })
  }

  async pass(ms: number): Promise<void> {
    await this.world.wait(new Promise<void>((resolve) => void this.world.clock.after(ms, resolve)))
  }
}

describe('Heartbeat', () => {
  test('comes at once and then about as often as it is to, until it is stopped', async () => {
    const beats = new Beats()
    beats.heartbeat.now()
    await beats.pass(20 * PAUSE_MS)
    assert.ok(beats.times.length >= 18 && beats.times.length <= 23, String(beats.times))
    assert.equal(beats.times[0], 0)
    beats.heartbeat.stop()
    const { length } = beats.times
    await beats.pass(5 * PAUSE_MS)
    beats.heartbeat.now()
    await beats.heartbeat.joined()
    assert.equal(beats.times.length, length)
  })

  test('one at a time: who wants it at once meanwhile gets one more, who joins gets the same', async () => {
    const go: (() => void)[] = []
    const beats = new Beats(() => new Promise((resolve) => go.push(resolve)))
    const first = beats.heartbeat.joined()
    const joined = beats.heartbeat.joined()
    beats.heartbeat.now()
    beats.heartbeat.now()
    await beats.pass(10)
    assert.equal(beats.times.length, 1)
    go[0]?.()
    await Promise.all([first, joined])
    await beats.pass(10)
    assert.equal(beats.times.length, 2)
    beats.heartbeat.stop()
  })

  test('what it does may ask for the next one, which comes after it', async () => {
    let underWay = 0
    let asks = 3
    const beats: Beats = new Beats(async () => {
      assert.equal(++underWay, 1)
      if (asks-- > 0) beats.heartbeat.now()
      await Promise.resolve()
      underWay--
    })
    beats.heartbeat.now()
    await beats.pass(10)
    assert.equal(beats.times.length, 4)
    beats.heartbeat.stop()
  })

  test('tells trouble when it begins, when it is another one, and when it is over', async () => {
    const beats = new Beats()
    beats.heartbeat.now()
    const steps: readonly (ErrorCode | undefined)[] = [
      undefined,
      'CLUSTER_UNREACHABLE',
      'REGISTRATION_REFUSED',
      undefined,
      'CLUSTER_UNREACHABLE',
    ]
    for (const code of steps) {
      beats.code = code
      await beats.pass(10 * PAUSE_MS)
    }
    assert.deepEqual(beats.lines, [
      'warn The work fails, and is tried again and again',
      'error The work fails, and is tried again and again',
      'info The work works again',
      'warn The work fails, and is tried again and again',
    ])
    assert.ok(beats.times.length >= 45, 'and it goes on all the time')
    beats.heartbeat.stop()
  })

  test('says nothing of what its end has ended', async () => {
    const beats = new Beats()
    beats.code = 'ABORTED'
    const last = beats.heartbeat.joined()
    beats.heartbeat.stop()
    await last
    assert.deepEqual(beats.lines, [])
  })
})
