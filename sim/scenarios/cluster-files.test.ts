import { testScenario } from '#sim/scenario-suite.ts'

import { clusterFiles } from './cluster-files.ts'

testScenario(clusterFiles())
