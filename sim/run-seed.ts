/** One run of a scenario from a seed: faults for a while, then none, then what must hold. The same seed gives the same run, event by event. */
import { Faults, type FaultKind } from './faults.ts'
import type { Scenario } from './scenario.ts'
import { SimulationFailure } from './timeline.ts'
import { World } from './world.ts'

/** Faults last so long at least, and up to that. */
const FAULTS_US_MIN = 1_000_000
const FAULTS_US_MAX = 30_000_000
/** What a world without faults takes to start. */
const START_US_MAX = 60_000_000
const CHECK_US_MAX = 600_000_000

export interface Outcome {
  readonly scenario: string
  readonly seed: number
  /** Undefined where everything held. */
  readonly failure: Error | undefined
  readonly faults: readonly FaultKind[]
  /** Of all that happened: equal for equal runs. */
  readonly hash: string
  readonly eventCount: number
  readonly simulatedMs: number
  /** What the run took. */
  readonly realMs: number
  /** The last of what happened, oldest first; empty where everything held. */
  readonly lastLines: readonly string[]
}

/** @param onLine is given each line of the trace as it happens */
export async function runSeed(scenario: Scenario, seed: number, onLine?: (line: string) => void): Promise<Outcome> {
  const begin = performance.now()
  const world = new World(seed)
  world.timeline.trace.onLine = onLine
  const stop = failOnRejection(world)
  let failure: Error | undefined
  let kinds: readonly FaultKind[] = []
  try {
    const simulation = scenario.build(world)
    world.timeline.trace.describe = simulation.describe
    const faults = new Faults(world, scenario.faults, (kind, process) => simulation.spares?.(kind, process) === true)
    kinds = faults.kinds
    await live(scenario, simulation, faults, world)
    await world.timeline.until('the check', simulation.check(), CHECK_US_MAX)
  } catch (error) {
    failure = error instanceof Error ? error : new SimulationFailure(String(error))
  } finally {
    stop()
  }
  return {
    scenario: scenario.name,
    seed,
    failure,
    faults: kinds,
    hash: world.timeline.trace.hash(),
    eventCount: world.timeline.eventCount,
    simulatedMs: world.timeline.nowUs / 1000,
    realMs: performance.now() - begin,
    lastLines: failure === undefined ? [] : world.timeline.trace.last(),
  }
}

async function live(
  scenario: Scenario,
  simulation: ReturnType<Scenario['build']>,
  faults: Faults,
  { timeline, random }: World,
): Promise<void> {
  let isUp = (): void => undefined
  const up = new Promise<void>((resolve) => (isUp = resolve))
  const work = simulation.run(isUp)
  await timeline.until('the start', Promise.race([up, work]), START_US_MAX)
  faults.begin()
  const lastUs = FAULTS_US_MIN + random.named('duration').below(FAULTS_US_MAX - FAULTS_US_MIN)
  await timeline.until('the faults', Promise.race([work, timeline.delay(lastUs)]), Infinity)
  faults.heal()
  await timeline.until('the work after the faults', work, scenario.proceedsWithinMs * 1000)
}

/** What code of the world rejects and nobody handles would end a real process. */
function failOnRejection({ timeline }: World): () => void {
  const onRejection = (why: unknown): void => {
    timeline.fail(new SimulationFailure(`Nobody has handled a rejection: ${String(why)}`, { cause: why }))
  }
  process.on('unhandledRejection', onRejection)
  return () => process.off('unhandledRejection', onRejection)
}
