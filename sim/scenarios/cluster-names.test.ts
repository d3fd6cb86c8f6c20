import { testScenario } from '#sim/scenario-suite.ts'

import { clusterNames } from './cluster-names.ts'

testScenario(clusterNames())
