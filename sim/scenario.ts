/** What is simulated: who takes part, what they do, and what must hold in the end. One file each in `sim/scenarios/`. */
import type { FaultKind } from './faults.ts'
import type { Process } from './process.ts'
import type { Describe } from './trace.ts'
import type { World } from './world.ts'

export interface Scenario {
  readonly name: string
  /** The faults after which all that it checks still holds. Each seed has some of them. */
  readonly faults: readonly FaultKind[]
  /** After the faults are over, the work must be done within so much simulated time. */
  readonly proceedsWithinMs: number
  /** Puts together what takes part; nothing has been started yet. */
  build(world: World): Simulation
}

export interface Simulation {
  /**
   * Starts the processes and does the work, under faults from the moment when `isUp` is called on. Resolves when all work is done. Rejects
   * where something is found that must not be.
   */
  run(isUp: () => void): Promise<void>
  /** Once the work is done and all faults are over. Rejects where something does not hold. */
  check(): Promise<void>
  /** Whether a fault must not happen to this process, such as rot to the only copy. */
  spares?(kind: FaultKind, process: Process): boolean
  /** Puts a frame into words, for traces (`frame-words.ts`). */
  readonly describe?: Describe
}
