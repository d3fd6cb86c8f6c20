/** `eider coordinator`: what concerns two directories of a cluster. */
import { join } from 'node:path'

import { command } from './command.ts'
import { DAEMON_OPTIONS } from './daemon-options.ts'
import { path } from './options.ts'
import { stateDirectory } from './places.ts'

const COORDINATOR_OPTIONS = {
  data: path({
    help: 'Where it keeps its journal and its state',
    group: 'Coordinator',
    placeholder: 'DIRECTORY',
    defaultText: 'a directory in /var/lib/eider or ~/.local/state/eider',
  }),
  ...DAEMON_OPTIONS,
} as const

export const coordinator = command({
  name: 'coordinator',
  summary: 'makes, moves and removes the directories of a cluster',
  description:
    'Runs the coordinator of a cluster, of which there is one: it makes and removes directories and moves files from one directory to another, step by step on the shards that have them. After a crash it goes on where it was. An old copy of its directory must not be started.',
  arguments: [],
  options: COORDINATOR_OPTIONS,
  examples: [{ line: 'eider coordinator --data ./coordinator', help: 'by the registry on this machine' }],
  run: async (_, values) => {
    const { registeredOptions, runDaemon } = await import('./daemon-process.ts')
    const { startCoordinator } = await import('#cluster/daemons/coordinator-daemon.ts')
    const data = values.data ?? join(stateDirectory(), 'coordinator')
    return runDaemon(values, async (onFailed) => {
      const daemon = await startCoordinator(await registeredOptions(values, data, onFailed))
      return { ...daemon, announcement: `Coordinator at ${daemon.address}` }
    })
  },
})
