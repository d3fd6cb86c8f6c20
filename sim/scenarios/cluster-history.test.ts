import { testScenario } from '#sim/scenario-suite.ts'

import { clusterHistory } from './cluster-history.ts'

testScenario(clusterHistory())
