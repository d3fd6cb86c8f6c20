/**
 * The history of one directory that five writers change all the time: they create, replace, rename, remove and take back files under few
 * names, and the directory is compared with its model as of many times.
 */
import { EMPTY_POLICY } from '#cluster/wire/forms.ts'
import { ORDINARY_FAULTS } from '#sim/faults.ts'
import type { Scenario } from '#sim/scenario.ts'

import { ClusterSimulation, PATIENCE_MS, THINK_MS_MAX } from './cluster-scenario.ts'
import type { Plants } from './cluster-world.ts'

const PROCEEDS_WITHIN_MS = 120_000

/** @param plants defects that are to be found */
export function clusterHistory(plants: Plants = {}): Scenario {
  return {
    name: 'cluster-history',
    faults: [...ORDINARY_FAULTS, 'clock-leaps', 'full-disks', 'disk-errors'],
    proceedsWithinMs: PROCEEDS_WITHIN_MS,
    build: (world) => {
      const random = world.random.named('shape')
      const work = {
        cluster: { shardProcesses: 1, blockServices: 0, disksEach: 0 },
        tree: {
          names: ['a', 'az', 'é', '\uffee', '\u{10000}', 'b', 'c'].slice(0, random.between(2, 7)),
          directoriesMax: 1,
          policy: EMPTY_POLICY,
          bytesMax: 1000,
        },
        clients: 5,
        workersEach: 1,
        scrubbersEach: 0,
        stepsEach: 80,
        thinkMsMax: random.pick(THINK_MS_MAX),
        patienceMs: PATIENCE_MS,
        rotten: 0,
        checkpoints: 40,
      }
      return new ClusterSimulation(world, work, plants)
    },
  }
}
