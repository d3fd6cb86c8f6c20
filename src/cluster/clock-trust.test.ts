import assert from 'node:assert/strict'
import { test } from 'node:test'

import { setLogLevel } from '#base/log.ts'

import { CLOCK_STEP_MS_MAX } from './clock-steps.ts'
import { CLOCK_OFF_MS_MAX, ClockTrust, trustedClock } from './clock-trust.ts'
import type { Clock } from './surroundings.ts'

setLogLevel('silent')

const NOW_MS = 1_800_000_000_000
const DAY_MS = 86_400_000

/** A clock that is set, and put to sleep, when a test says so; and a registry whose time is the true one. */
class Machine implements Clock {
  aheadMs = 0
  asleepMs = 0
  looks = 0
  #awakeMs = 0

  nowMs(): number {
    return NOW_MS + this.#awakeMs + this.asleepMs + this.aheadMs
  }

  monotonicMs(): number {
    return this.#awakeMs
  }

  sleptMs(): number {
    this.looks++
    return this.asleepMs
  }

  after(): never {
    assert.fail('no timer is needed')
  }

  soon(): never {
    assert.fail('nothing is put off')
  }

  pass(ms: number): void {
    this.#awakeMs += ms
  }

  /** Asks the registry, which takes so long to answer. */
  ask(trust: ClockTrust, tookMs = 2, registryAheadMs = 0): void {
    const askedAt = this.#awakeMs
    this.pass(tookMs / 2)
    const timeMs = NOW_MS + this.#awakeMs + this.asleepMs + registryAheadMs
    this.pass(tookMs / 2)
    trust.compare(askedAt, timeMs)
  }
}

function objectionTo(trust: ClockTrust): string | undefined {
  const objection = trust.objectionTo('Cannot write')
  assert.ok(objection === undefined || objection.code === 'CLOCK_UNTRUSTED')
  return objection?.message
}

test('[S166] a clock is trusted once the registry agrees with it, and for as long as nobody sets it, with or without the registry', () => {
  const machine = new Machine()
  const trust = new ClockTrust(machine)
  assert.match(objectionTo(trust) ?? '', /^Cannot write: the clock of this process was not compared /)
  assert.equal(trust.nowMs(), undefined)
  machine.aheadMs = CLOCK_OFF_MS_MAX - 100
  machine.ask(trust)
  assert.equal(objectionTo(trust), undefined)
  assert.deepEqual(trust.state, { isTrusted: true, aheadMs: machine.aheadMs })
  const { looks } = machine
  for (let day = 0; day < 1000; day++) {
    machine.pass(DAY_MS)
    assert.equal(objectionTo(trust), undefined)
    assert.equal(trust.nowMs(), machine.nowMs())
  }
  assert.equal(machine.looks, looks, 'the system is asked only where something is strange')
})

test('[S166] one that is set is trusted no more at once, until the registry agrees with it or it is set back', () => {
  for (const stepMs of [3 * DAY_MS, -3 * DAY_MS, CLOCK_STEP_MS_MAX + 1]) {
    const machine = new Machine()
    const trust = new ClockTrust(machine)
    let changes = 0
    trust.onChanged = () => changes++
    machine.ask(trust)
    machine.pass(5000)
    machine.aheadMs = stepMs
    assert.match(objectionTo(trust) ?? '', /was set (?:ahead|back) by (?:3 days|10 seconds), and does not agree/)
    assert.ok(Math.abs((trust.nowMs() ?? 0) - machine.nowMs() + stepMs) < 1, 'what must be written has the time before')
    assert.deepEqual(trust.state, { isTrusted: false, aheadMs: stepMs })
    assert.equal(changes, 1, 'it is told once')
    machine.aheadMs = 0
    assert.equal(objectionTo(trust), undefined)
    assert.equal(changes, 2)
    machine.aheadMs = stepMs
    assert.ok(objectionTo(trust))
    machine.ask(trust, 2, stepMs)
    assert.equal(objectionTo(trust), undefined, 'the registry says the same')
    assert.equal(trust.nowMs(), machine.nowMs())
  }
})

test('[S166] one that is off is not trusted, and what must be written has a time that is', () => {
  const machine = new Machine()
  machine.aheadMs = -2 * DAY_MS
  const trust = new ClockTrust(machine)
  machine.ask(trust)
  assert.match(objectionTo(trust) ?? '', /is 2 days behind that of the registry$/)
  machine.pass(1000)
  assert.ok(Math.abs((trust.nowMs() ?? 0) - NOW_MS - 1002) < 1, 'that of the registry, where there is no other')
  machine.aheadMs = 0
  machine.ask(trust)
  assert.equal(objectionTo(trust), undefined)
  // A registry that is wrong leads nobody astray.
  machine.ask(trust, 2, DAY_MS)
  assert.match(objectionTo(trust) ?? '', /is 24 hours behind that of the registry$/)
  assert.equal(trust.nowMs(), machine.nowMs())
  machine.ask(trust)
  assert.equal(objectionTo(trust), undefined)
})

test('[S166] an answer that took long decides nothing that it cannot', () => {
  const machine = new Machine()
  const trust = new ClockTrust(machine)
  machine.ask(trust, 3 * CLOCK_OFF_MS_MAX)
  assert.equal(trust.state, undefined)
  machine.aheadMs = DAY_MS
  machine.ask(trust, 3 * CLOCK_OFF_MS_MAX)
  assert.match(objectionTo(trust) ?? '', /24 hours ahead of/, 'a day is more than it can have taken')
  trust.compare(machine.monotonicMs(), undefined)
  assert.match(objectionTo(trust) ?? '', /24 hours ahead of/)
})

test('[S166] a machine that has slept is trusted as before', () => {
  const machine = new Machine()
  const trust = new ClockTrust(machine)
  machine.ask(trust)
  for (const sleptMs of [60_000, 30 * DAY_MS, 5000]) {
    machine.asleepMs += sleptMs
    assert.equal(objectionTo(trust), undefined)
    assert.equal(trust.nowMs(), machine.nowMs())
  }
  machine.asleepMs += DAY_MS
  machine.aheadMs += DAY_MS
  assert.match(objectionTo(trust) ?? '', /was set ahead by 24 hours/, 'but not where its clock was set meanwhile')
})

test('what is kept for good by a process that goes on has times that are trusted as far as any are', () => {
  const machine = new Machine()
  const trust = new ClockTrust(machine)
  const clock = trustedClock(machine, trust)
  machine.aheadMs = 5000
  assert.equal(clock.nowMs(), machine.nowMs())
  machine.ask(trust)
  machine.aheadMs = 9 * DAY_MS
  assert.equal(clock.nowMs(), machine.nowMs() - 9 * DAY_MS + 5000)
})
