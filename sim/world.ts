/** A world that is made from one seed: its time, its network, and its processes with their machines. */
import { assert } from '#base/assert.ts'

import { SimulatedNetwork } from './network.ts'
import { Process, type ProcessOptions, type Program } from './process.ts'
import { Random } from './random.ts'
import { Timeline } from './timeline.ts'

export class World {
  readonly seed: number
  readonly random: Random
  readonly timeline = new Timeline()
  readonly network: SimulatedNetwork
  readonly #processes = new Map<string, Process>()

  constructor(seed: number) {
    this.seed = seed
    this.random = new Random(seed)
    this.network = new SimulatedNetwork(this.timeline, this.random.named('network'))
  }

  get processes(): readonly Process[] {
    return [...this.#processes.values()]
  }

  /** A machine and the program on it, not started yet. The name is that of its host, too. */
  process<Running>(name: string, program: Program<Running>, options: ProcessOptions = {}): Process<Running> {
    assert(!this.#processes.has(name), 'each process has a name of its own')
    const random = this.random.named(`process ${name}`)
    const process = new Process<Running>(name, program, options, this.timeline, this.network, random)
    this.#processes.set(name, process)
    return process
  }
}
