/**
 * A process of a world: a program that is started on a machine, dies at any moment, and is started again on what the disk has kept.
 *
 *   stopped --start--> running --kill, power cut, exit--> dead --start--> running
 *
 * Of a process that is dead nothing happens any more: its timers and frames are gone, what it waits for never comes, and what code
 * of it is still on the stack does with its clock, network and disk is lost.
 */
import { assert, AssertionError } from '#base/assert.ts'
import type { Surroundings } from '#cluster/surroundings.ts'

import { ClockError, SimulatedClock } from './clock.ts'
import type { Life } from './event-queue.ts'
import { MachineDisk } from './machine-disk.ts'
import type { SimulatedNetwork } from './network.ts'
import type { Random } from './random.ts'
import { SimulationFailure, type Timeline } from './timeline.ts'

/** What a program is given when it starts. */
export interface Machine {
  /** The name of the host, at which the process can listen. */
  readonly host: string
  readonly surroundings: Surroundings
  readonly disk: MachineDisk
  /** Ends the process, as a program ends that finds that it cannot go on. Never fires for one that is dead. */
  readonly exit: (why: unknown) => void
}

/** What runs on a machine; gives what a scenario wants of a running one. Where it fails, the process has ended. */
export type Program<Running> = (machine: Machine) => Promise<Running> | Running

export interface ProcessOptions {
  /** Whether a program may end by itself for that reason; without it none may. It is started again by who injects faults. */
  readonly mayExit?: (why: unknown) => boolean
}

export class Process<Running = unknown> {
  readonly name: string
  readonly disk: MachineDisk
  readonly clockError = new ClockError()
  /** Called when it has died, however that came. */
  onEnd: (() => void) | undefined
  readonly #timeline: Timeline
  readonly #network: SimulatedNetwork
  readonly #random: Random
  readonly #program: Program<Running>
  readonly #options: ProcessOptions
  #life: Life | undefined
  #running: Running | undefined
  #startCount = 0

  constructor(
    name: string,
    program: Program<Running>,
    options: ProcessOptions,
    timeline: Timeline,
    network: SimulatedNetwork,
    random: Random,
  ) {
    this.name = name
    this.disk = new MachineDisk(name, timeline, random.named('disk'))
    this.#program = program
    this.#options = options
    this.#timeline = timeline
    this.#network = network
    this.#random = random
  }

  get isAlive(): boolean {
    return this.#life?.alive === true
  }

  /** How often it was started. */
  get startCount(): number {
    return this.#startCount
  }

  /** What the program gave; undefined before that and once it is dead. */
  get running(): Running | undefined {
    return this.#running
  }

  /** Resolves when the program runs; never where the process dies before. */
  async start(): Promise<Running> {
    assert(!this.isAlive, 'a process is started that does not run')
    const life: Life = { name: this.name, alive: true, pausedUntilUs: 0 }
    this.#life = life
    this.disk.begin(life)
    this.#timeline.note(this.name, 'starts', ++this.#startCount)
    const chance = this.#random.named(`chance ${this.#startCount}`)
    const exit = (why: unknown): void => {
      if (life.alive) this.#exited(why)
    }
    const surroundings: Surroundings = {
      clock: new SimulatedClock(this.#timeline, life, this.clockError),
      chance: { bytes: (count) => chance.bytes(count), below: (below) => chance.below(below) },
      network: this.#network.of(this.name, life),
    }
    try {
      const running = await this.#program({ host: this.name, surroundings, disk: this.disk, exit })
      if (!life.alive) return await never()
      this.#running = running
      return running
    } catch (error) {
      exit(error)
      return never()
    }
  }

  /** SIGKILL. @param isDark nobody tells those at the other ends */
  kill(isDark = false): void {
    if (!this.isAlive) return
    this.#timeline.note(this.name, isDark ? 'vanishes' : 'is killed')
    this.#end(isDark)
  }

  /** As a kill, and what was written and not synced is lost. */
  cutPower(): void {
    if (!this.isAlive) return
    this.#timeline.note(this.name, 'loses its power')
    this.#end(true)
    this.disk.losePower()
  }

  /** Nothing happens to it for so long, and then all at once. */
  pause(us: number): void {
    if (this.#life === undefined || !this.isAlive) return
    this.#life.pausedUntilUs = this.#timeline.nowUs + us
    this.#timeline.note(this.name, 'is paused for us', us)
  }

  #exited(why: unknown): void {
    this.#timeline.note(this.name, 'exits:', String(why))
    this.#end(false)
    if (why instanceof AssertionError || this.#options.mayExit?.(why) !== true) {
      this.#timeline.fail(new SimulationFailure(`${this.name} ended by itself: ${String(why)}`, { cause: why }))
    }
  }

  #end(isDark: boolean): void {
    const life = this.#life
    assert(life !== undefined, 'there is a life to end')
    this.#running = undefined
    this.#timeline.end(life)
    this.#network.died(this.name, life, isDark)
    this.onEnd?.()
  }
}

function never<T>(): Promise<T> {
  return new Promise(() => undefined)
}
