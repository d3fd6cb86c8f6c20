/** `eider shard`: a part of a cluster's metadata. */
import { OperationError } from '#base/errors.ts'
import { join } from 'node:path'

import { command } from './command.ts'
import { DAEMON_OPTIONS, METADATA_RESERVE } from './daemon-options.ts'
import { bytes, path, string } from './options.ts'
import { stateDirectory } from './places.ts'

/** The options of `shard` alone. */
const SHARD_OPTIONS = {
  shards: string({
    help: 'Which of the 256 shards: one, or the first and the last; the same at each start',
    group: 'Shard',
    placeholder: 'FIRST-LAST',
    default: '0-255',
  }),
  data: path({
    help: 'Where it keeps its journal and its state',
    group: 'Shard',
    placeholder: 'DIRECTORY',
    defaultText: 'a directory in /var/lib/eider or ~/.local/state/eider',
  }),
  reserve: bytes({
    help: 'What is kept free on the file system of its directory: with less, nothing is taken but removals',
    group: 'Shard',
    default: METADATA_RESERVE,
  }),
  ...DAEMON_OPTIONS,
} as const

export const shard = command({
  name: 'shard',
  summary: 'a part of the metadata of a cluster',
  description:
    'Runs some of the 256 shards that have the metadata of a cluster: the names in directories, attributes, where the bytes of files are. Together the shard processes of a cluster have each shard once.',
  arguments: [],
  options: SHARD_OPTIONS,
  examples: [
    { line: 'eider shard --shards 0-127 --data ./shards-a', help: 'one half, by the registry on this machine' },
    { line: 'eider shard --shards 128-255 --data ./shards-b', help: 'the other half' },
  ],
  run: async (_, values) => {
    const { first, last } = shardRange(values.shards)
    const { registeredOptions, runDaemon } = await import('./daemon-process.ts')
    const { startShard } = await import('#cluster/daemons/shard-daemon.ts')
    const data = values.data ?? join(stateDirectory(), `shards-${first}-${last}`)
    return runDaemon(values, async (onFailed) => {
      const daemon = await startShard({
        ...(await registeredOptions(values, data, onFailed)),
        ...{ first, last, reserveBytes: values.reserve },
      })
      return { ...daemon, announcement: `Shards ${first} to ${last} at ${daemon.address}` }
    })
  },
})

/** @throws OperationError `USAGE` */
function shardRange(text: string): { readonly first: number; readonly last: number } {
  const match = /^(\d{1,3})(?:-(\d{1,3}))?$/.exec(text)
  const first = Number(match?.[1] ?? Number.NaN)
  const last = Number(match?.[2] ?? match?.[1] ?? Number.NaN)
  if (first <= last && last <= 255) return { first, last }
  throw new OperationError(
    'USAGE',
    `Cannot use --shards ${text}: it is one number of 0 to 255, or the first and the last`,
  )
}
