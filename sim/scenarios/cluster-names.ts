/**
 * The tree of a whole cluster under faults: clients make, move and remove files, symlinks and directories across shards, move trees into each
 * other, and take back what was removed. Contents are small and lie in records, so there are many steps for little work.
 */
import { EMPTY_POLICY } from '#cluster/wire/forms.ts'
import { ORDINARY_FAULTS } from '#sim/faults.ts'
import type { Scenario } from '#sim/scenario.ts'

import { ClusterSimulation, PATIENCE_MS, THINK_MS_MAX } from './cluster-scenario.ts'
import type { Plants } from './cluster-world.ts'

const PROCEEDS_WITHIN_MS = 120_000

/** @param plants defects that are to be found */
export function clusterNames(plants: Plants = {}): Scenario {
  return {
    name: 'cluster-names',
    faults: [...ORDINARY_FAULTS, 'clock-leaps', 'full-disks', 'disk-errors'],
    proceedsWithinMs: PROCEEDS_WITHIN_MS,
    build: (world) => {
      const random = world.random.named('shape')
      const work = {
        cluster: { shardProcesses: random.between(1, 3), blockServices: 0, disksEach: 0 },
        tree: {
          names: ['a', 'b', 'é', '\uffee', '\u{10000}'].slice(0, random.between(2, 5)),
          directoriesMax: random.between(3, 25),
          policy: EMPTY_POLICY,
          bytesMax: 2000,
        },
        clients: 3,
        workersEach: 3,
        scrubbersEach: 0,
        rotten: 0,
        stepsEach: 120,
        thinkMsMax: random.pick(THINK_MS_MAX),
        patienceMs: PATIENCE_MS,
        checkpoints: 2,
      }
      return new ClusterSimulation(world, work, plants)
    },
  }
}
