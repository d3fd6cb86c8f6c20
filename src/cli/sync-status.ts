/** `eider sync status`: how the syncs of this machine stand, by the records that they keep. */
import { command, EXIT } from './command.ts'
import { boolean } from './options.ts'

export const syncStatus = command({
  name: 'sync status',
  summary: 'how the syncs of this machine stand',
  description:
    'Shows each running sync: what it does, what is still to be sent, how fast it goes, and what has failed, with what helps. Root sees the syncs of all users. Ends with 3 where a sync has failures, and with 1 where one has ended without saying so; such a one is told of once.',
  arguments: [],
  options: { json: boolean({ help: 'Writes one JSON object instead of lines', group: 'Output' }) },
  run: async (_, { json }) => {
    const [{ takeSyncRecords }, { deadSyncLines, syncLines }] = await Promise.all([
      import('./sync-records.ts'),
      import('./sync-status-screen.ts'),
    ])
    const { running, dead } = takeSyncRecords()
    if (json) process.stdout.write(`${JSON.stringify({ syncs: running, dead }, null, 2)}\n`)
    else {
      const shown = [...running.map((record) => syncLines(record, Date.now())), ...dead.map(deadSyncLines)]
      process.stdout.write(shown.length === 0 ? 'No sync is running\n' : `${shown.join('\n\n')}\n`)
    }
    if (dead.length > 0) return EXIT.failed
    return running.some(({ snapshot }) => snapshot.failed > 0) ? EXIT.partly : EXIT.done
  },
})
