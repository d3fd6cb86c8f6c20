/** `eider cluster`: a whole cluster on one machine. What runs is `cluster-process.ts`. */
import { CLUSTER_OPTIONS, clusterIdOption } from './cluster-options.ts'
import { command } from './command.ts'
import { boolean, bytes, hostPort, integer, path, string } from './options.ts'

/** The options of `cluster` alone. */
export const CLUSTER_COMMAND_OPTIONS = {
  data: path({
    help: 'Where everything is kept; each part has a directory of its own in it',
    group: 'Cluster',
    placeholder: 'DIRECTORY',
    default: 'cluster',
  }),
  listen: hostPort({
    help: 'Where the registry listens, for clients, and for browsers by HTTP; port 0 takes a free one',
    group: 'Cluster',
    default: '127.0.0.1:8600',
  }),
  advertise: string({
    help: 'The name or address at which others reach this machine, where --listen does not say it',
    group: 'Cluster',
    placeholder: 'HOST',
  }),
  disk: path({
    help: 'Where the disks lie, each a directory in it, rather than in --data',
    group: 'Cluster',
    placeholder: 'DIRECTORY',
  }),
  disks: integer({
    help: 'How many disks at least, each a failure domain of its own; with more, files are kept safer or with less overhead',
    group: 'Cluster',
    default: 4,
    min: 1,
    max: 64,
  }),
  reserve: bytes({ help: 'What is kept free on the file system', group: 'Cluster', default: 1 << 30 }),
  clusterId: clusterIdOption('Cluster'),
  processes: boolean({ help: 'One process for each part, rather than one for all', group: 'Cluster' }),
  ...CLUSTER_OPTIONS,
  log: path({ help: 'Where the log goes', group: 'Watching it', placeholder: 'FILE', defaultText: 'stderr' }),
} as const

export const cluster = command({
  name: 'cluster',
  summary: 'a whole cluster on one machine',
  description:
    'Runs a registry, a coordinator, all shards and block services with a disk each, in one process or one for each. It begins where it ended. Clients are given the address of its registry.',
  arguments: [],
  options: CLUSTER_COMMAND_OPTIONS,
  examples: [
    { line: 'eider cluster --data ./cluster', help: 'then: eider fs ls /' },
    { line: 'eider cluster --data /srv/cluster --processes', help: 'each part can fail, and be measured, by itself' },
  ],
  run: async (_, values) => {
    const { runCluster } = await import('./cluster-process.ts')
    return runCluster(values)
  },
})
