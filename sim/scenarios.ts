/** All scenarios, in the order in which a run goes through them. */
import type { Scenario } from './scenario.ts'
import { accounts } from './scenarios/accounts.ts'
import { clusterFiles } from './scenarios/cluster-files.ts'
import { clusterHistory } from './scenarios/cluster-history.ts'
import { clusterNames } from './scenarios/cluster-names.ts'
import { ledger } from './scenarios/ledger.ts'
import { shardFiles } from './scenarios/shard-files.ts'
import { tree } from './scenarios/tree.ts'

export const SCENARIOS: readonly Scenario[] = [
  ledger(),
  accounts(),
  shardFiles(),
  tree(),
  clusterNames(),
  clusterFiles(),
  clusterHistory(),
]
