/** What the daemons of a cluster are given that register with its registry. */
import { CLUSTER_OPTIONS } from './cluster-options.ts'
import { hostPort, path, string } from './options.ts'

const GROUP = 'Cluster'

/** Of a file system with metadata: enough for what is being stored at a time. */
export const METADATA_RESERVE = 256 << 20

const REGISTRY_ADDRESS = hostPort({
  help: 'The registry of the cluster',
  group: GROUP,
  default: '127.0.0.1:8600',
})

export const DAEMON_OPTIONS = {
  registry: REGISTRY_ADDRESS,
  listen: hostPort({
    help: 'Where to listen; port 0 takes a free one, which the registry tells the others',
    group: GROUP,
    default: '127.0.0.1:0',
  }),
  advertise: string({
    help: 'The name or address at which others reach this machine, where --listen does not say it',
    group: GROUP,
    placeholder: 'HOST',
  }),
  location: string({
    help: 'Where this machine is, such as a data centre: clients read what is near',
    group: GROUP,
    default: 'default',
  }),
  ...CLUSTER_OPTIONS,
  log: path({ help: 'Where the log goes', group: 'Watching it', placeholder: 'FILE', defaultText: 'stderr' }),
} as const
