/**
 * What goes wrong in a world: from its seed, a random few of the kinds of faults that a scenario outlasts, each with a strength of its own,
 * so that some worlds suffer from one thing much, and others from many things at once, and a few from nothing. `heal` ends all of it:
 * from then on everything must proceed.
 */
import { type FrameFaults, NO_FRAME_FAULTS } from './network.ts'
import type { Process } from './process.ts'
import type { Random } from './random.ts'
import type { World } from './world.ts'

const FRAME_FAULTS = {
  'lost-frames': ['loss', 0.05],
  'lost-answers': ['answerLoss', 0.2],
  'doubled-frames': ['duplication', 0.2],
  'reordered-frames': ['reordering', 0.3],
  'delayed-frames': ['spike', 0.02],
} as const satisfies Record<string, readonly [kind: keyof FrameFaults, probabilityMax: number]>

/** Things that happen now and then, each to one process, and how long from one to the next on average: the shortest such time. */
const MEAN_US_MIN = {
  'broken-links': 500_000,
  partitions: 2_000_000,
  kills: 500_000,
  'power-cuts': 1_000_000,
  pauses: 1_000_000,
  'clock-jumps': 1_000_000,
  'clock-leaps': 1_000_000,
  'slow-disks': 1_000_000,
  'full-disks': 3_000_000,
  'disk-errors': 3_000_000,
  rot: 1_000_000,
} as const

type FrameFaultKind = keyof typeof FRAME_FAULTS
type IncidentKind = keyof typeof MEAN_US_MIN
export type FaultKind = FrameFaultKind | IncidentKind | 'wrong-clocks'

/** Those that anything in a cluster must outlast without harm to what it has promised. */
export const ORDINARY_FAULTS: readonly FaultKind[] = [
  ...(Object.keys(FRAME_FAULTS) as FrameFaultKind[]),
  'broken-links',
  'partitions',
  'kills',
  'power-cuts',
  'pauses',
  'clock-jumps',
  'slow-disks',
  'wrong-clocks',
]

/** A world in so many has no faults at all: what fails there is no matter of faults. */
const ONE_IN_HEALTHY = 10
/** Up to so many times rarer than at worst. */
const RARITY_MAX = 20
/** As long as a step of a disk takes, or an answer that follows it: from fast disks to slow ones. */
const STRIKE_US_MIN = 50
const STRIKE_US_MAX = 20_000
const RESTART_US_MAX = 5_000_000
const RESTART_US_HEALED = 10_000
const PARTITION_US_MAX = 8_000_000
const PAUSE_US_MAX = 4_000_000
const FULL_US_MAX = 5_000_000
const SLOW_US_MAX = 4_000_000
const CLOCK_OFFSET_MS_MAX = 30_000
/** Far beyond what anybody takes for the same time, as when somebody mistypes a date; and somebody notices. */
const CLOCK_LEAP_MS_MAX = 10 * 24 * 3_600_000
const LEAP_US_MAX = 8_000_000
/** Quartz is off by a hundred parts in a million. */
const CLOCK_RATE_ERROR_MAX = 1e-4

export class Faults {
  /** What goes wrong in this world. */
  readonly kinds: readonly FaultKind[]
  readonly #world: World
  readonly #random: Random
  readonly #spares: (kind: FaultKind, process: Process) => boolean
  #isOver = false

  /** @param spares whether a kind must not happen to that process */
  constructor(world: World, outlasted: readonly FaultKind[], spares: (kind: FaultKind, process: Process) => boolean) {
    this.#world = world
    this.#spares = spares
    this.#random = world.random.named('faults')
    const isHealthy = this.#random.below(ONE_IN_HEALTHY) === 0
    const share = this.#random.fraction()
    this.kinds = isHealthy ? [] : outlasted.filter(() => this.#random.happens(share))
  }

  begin(): void {
    const { network, timeline, processes } = this.#world
    this.#keepAlive()
    timeline.note('faults', this.kinds.length === 0 ? 'none' : this.kinds.join(', '))
    for (const kind of this.kinds) {
      const random = this.#random.named(kind)
      if (kind === 'wrong-clocks') {
        for (const { clockError } of processes) {
          clockError.offsetMs = random.between(-CLOCK_OFFSET_MS_MAX, CLOCK_OFFSET_MS_MAX)
          clockError.rate = 1 + (random.fraction() * 2 - 1) * CLOCK_RATE_ERROR_MAX
        }
      } else if (isFrameFault(kind)) {
        const [fault, probabilityMax] = FRAME_FAULTS[kind]
        network.faults[fault] = probabilityMax * random.fraction()
      } else {
        const meanUs = MEAN_US_MIN[kind] * RARITY_MAX ** random.fraction()
        this.#plan(kind, meanUs, random)
      }
    }
  }

  /** Nothing goes wrong any more, and everybody runs. Clocks that are off stay so little off that nobody minds. */
  heal(): void {
    this.#isOver = true
    const { network, timeline, processes } = this.#world
    timeline.note('faults', 'are over')
    Object.assign(network.faults, NO_FRAME_FAULTS)
    network.mend()
    for (const process of processes) {
      process.disk.faults.slow = 0
      process.disk.faults.isFull = false
      process.disk.faults.errors = 0
      process.clockError.offsetMs = 0
      if (!process.isAlive && process.startCount > 0) void process.start()
    }
  }

  #plan(kind: IncidentKind, meanUs: number, random: Random): void {
    const { timeline } = this.#world
    timeline.at(timeline.nowUs + Math.ceil(random.interval(meanUs)), () => {
      if (this.#isOver) return
      this.#befall(kind, random)
      this.#plan(kind, meanUs, random)
    })
  }

  #befall(kind: IncidentKind, random: Random): void {
    const { network, processes } = this.#world
    const alive = processes.filter((process) => process.isAlive && !this.#spares(kind, process))
    if (alive.length === 0) return
    const process = random.pick(alive)
    switch (kind) {
      case 'broken-links':
        network.breakLinks(random.fraction())
        break
      case 'partitions':
        this.#partition(process, random)
        break
      case 'kills':
        this.#strike(process, random, () => process.kill(random.happens(0.3)))
        break
      case 'power-cuts':
        this.#strike(process, random, () => process.cutPower())
        break
      case 'pauses':
        process.pause(random.below(PAUSE_US_MAX))
        break
      case 'clock-jumps':
        process.clockError.offsetMs = random.between(-CLOCK_OFFSET_MS_MAX, CLOCK_OFFSET_MS_MAX)
        break
      case 'clock-leaps':
        process.clockError.offsetMs = random.between(-CLOCK_LEAP_MS_MAX, CLOCK_LEAP_MS_MAX)
        this.#later(LEAP_US_MAX, random, () => (process.clockError.offsetMs = 0))
        break
      case 'slow-disks':
        process.disk.faults.slow = random.fraction()
        this.#later(SLOW_US_MAX, random, () => (process.disk.faults.slow = 0))
        break
      case 'full-disks':
        process.disk.faults.isFull = true
        this.#later(FULL_US_MAX, random, () => (process.disk.faults.isFull = false))
        break
      case 'disk-errors':
        process.disk.faults.errors = random.fraction()
        this.#later(FULL_US_MAX, random, () => (process.disk.faults.errors = 0))
        break
      case 'rot':
        process.disk.rot()
        break
    }
  }

  /** Now, or, since the moments around a write are those in which most can go wrong, in or after the next one. */
  #strike(process: Process, random: Random, end: () => void): void {
    const { timeline } = this.#world
    if (random.happens(0.3)) {
      end()
      return
    }
    process.disk.onStep = () => {
      process.disk.onStep = undefined
      const us = STRIKE_US_MIN * (STRIKE_US_MAX / STRIKE_US_MIN) ** random.fraction()
      timeline.at(timeline.nowUs + random.below(Math.ceil(us)), () => {
        if (!this.#isOver) end()
      })
    }
  }

  /** Cuts one off from some of the others, or only what it says from them. */
  #partition(process: Process, random: Random): void {
    const { network, processes } = this.#world
    const direction = random.below(3)
    const share = 0.3 + random.fraction()
    for (const other of processes) {
      if (other === process || !random.happens(share)) continue
      if (direction !== 1) network.cut(process.name, other.name)
      if (direction !== 2) network.cut(other.name, process.name)
    }
    this.#later(PARTITION_US_MAX, random, () => network.mend())
  }

  #later(usMax: number, random: Random, action: () => void): void {
    const { timeline } = this.#world
    timeline.at(timeline.nowUs + 1 + random.below(usMax), () => {
      if (!this.#isOver) action()
    })
  }

  /** Whoever was killed or has ended by itself is started again some time later, sooner once the faults are over. */
  #keepAlive(): void {
    const { timeline, processes } = this.#world
    const random = this.#random.named('restarts')
    for (const process of processes) {
      process.onEnd = () => {
        const us = 1 + random.below(this.#isOver ? RESTART_US_HEALED : RESTART_US_MAX)
        timeline.at(timeline.nowUs + us, () => {
          if (!process.isAlive) void process.start()
        })
      }
    }
  }
}

function isFrameFault(kind: FaultKind): kind is FrameFaultKind {
  return kind in FRAME_FAULTS
}
