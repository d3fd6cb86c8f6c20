/**
 * Files of a whole cluster under faults, with their bytes in blocks on the disks of block services: several spans each, in many forms. While they are
 * written, replaced, moved, removed and read, others swap their blocks for equal ones; some blocks rot. In the end what nobody finished
 * is removed, and all that is owned must still be there.
 */
import { EMPTY_POLICY } from '#cluster/wire/forms.ts'
import { ORDINARY_FAULTS } from '#sim/faults.ts'
import type { Scenario } from '#sim/scenario.ts'

import { ClusterSimulation, PATIENCE_MS, THINK_MS_MAX } from './cluster-scenario.ts'
import { CLASS, type Plants } from './cluster-world.ts'

const PROCEEDS_WITHIN_MS = 180_000
const SPAN_BYTES = 20_000
const STRIPE_BYTES = 10_000
const INLINE_BYTES_MAX = 200
const FORMS = [
  { data: 1, parity: 1 },
  { data: 2, parity: 1 },
  { data: 2, parity: 2 },
  { data: 3, parity: 2 },
] as const

/** @param plants defects that are to be found */
export function clusterFiles(plants: Plants = {}): Scenario {
  return {
    name: 'cluster-files',
    faults: [...ORDINARY_FAULTS, 'clock-leaps', 'full-disks', 'disk-errors', 'rot'],
    proceedsWithinMs: PROCEEDS_WITHIN_MS,
    build: (world) => {
      const random = world.random.named('shape')
      const form = random.pick(FORMS)
      const blockServices = form.data + form.parity + random.below(3)
      const policy = {
        ...EMPTY_POLICY,
        spans: [{ bytesMax: SPAN_BYTES, ...form }],
        classes: [{ bytesMin: 0, class: CLASS }],
        stripeBytes: STRIPE_BYTES,
        inlineBytesMax: INLINE_BYTES_MAX,
      }
      const work = {
        cluster: { shardProcesses: random.between(1, 2), blockServices, disksEach: random.between(1, 2) },
        tree: { names: ['a', 'b', 'c'], directoriesMax: 3, policy, bytesMax: 3 * SPAN_BYTES },
        clients: 2,
        workersEach: 2,
        scrubbersEach: 1,
        stepsEach: 60,
        thinkMsMax: random.pick(THINK_MS_MAX),
        patienceMs: PATIENCE_MS,
        rotten: form.parity,
        checkpoints: 1,
      }
      return new ClusterSimulation(world, work, plants)
    },
  }
}
