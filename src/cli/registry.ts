/** `eider registry`: where the parts of a cluster find each other. */
import { join } from 'node:path'

import { CLUSTER_OPTIONS, clusterIdGiven, clusterIdOption, clusterSecurity } from './cluster-options.ts'
import { command } from './command.ts'
import { duration, formatHostPort, hostPort, path } from './options.ts'
import { stateDirectory } from './places.ts'

/** The options of `registry` alone. */
const REGISTRY_OPTIONS = {
  listen: hostPort({
    help: 'Where to listen, for the cluster, and for browsers and tools by HTTP; port 0 takes a free one',
    group: 'Registry',
    default: '127.0.0.1:8600',
  }),
  data: path({
    help: 'Where it keeps what it knows',
    group: 'Registry',
    placeholder: 'DIRECTORY',
    defaultText: 'a directory in /var/lib/eider or ~/.local/state/eider',
  }),
  clusterId: clusterIdOption('Registry'),
  staleAfter: duration({
    help: 'Who is silent for so long counts as gone until it is heard of again',
    group: 'Registry',
    default: 180_000,
    min: 1000,
  }),
  ...CLUSTER_OPTIONS,
  log: path({ help: 'Where the log goes', group: 'Watching it', placeholder: 'FILE', defaultText: 'stderr' }),
} as const

export const registry = command({
  name: 'registry',
  summary: 'where the parts of a cluster find each other, and its web page',
  description:
    'Runs the registry of a cluster: it knows where shards, coordinator and disks are and how they are, and tells shards which disks to write to. Its port serves the cluster, and by HTTP a page, an API and metrics.',
  arguments: [],
  options: REGISTRY_OPTIONS,
  examples: [
    { line: 'eider registry --data ./registry', help: 'for this machine; its page is http://127.0.0.1:8600/' },
    {
      line: 'eider registry --listen 0.0.0.0:8600 --secret-file /etc/eider/secret',
      help: 'for other machines, too',
    },
  ],
  run: async (_, values) => {
    const { runDaemon } = await import('./daemon-process.ts')
    const { startRegistry } = await import('#cluster/daemons/registry-daemon.ts')
    const { registry: metrics } = await import('#base/metrics.ts')
    const { collectDefaultMetrics } = await import('prom-client')
    const network = await clusterSecurity(values)
    const cluster = await clusterIdGiven(values.clusterId)
    return runDaemon(values, async (onFailed) => {
      const data = values.data ?? join(stateDirectory(), 'registry')
      const listen = formatHostPort(values.listen)
      const daemon = await startRegistry({ data, listen, network, onFailed, staleMs: values.staleAfter, cluster })
      collectDefaultMetrics({ register: metrics })
      const page = `${network.tls === undefined ? 'http' : 'https'}://${daemon.address}/`
      return { ...daemon, announcement: `Registry at ${daemon.address}; its page is ${page}`, facts: { page } }
    })
  },
})
