/** `eider registry`: where the parts of a cluster find each other. What serves is `registry-process.ts`. */
import { CLUSTER_OPTIONS } from './cluster-options.ts'
import { command } from './command.ts'
import { duration, hostPort, path } from './options.ts'

/** The options of `registry` alone. */
export const REGISTRY_OPTIONS = {
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
    const { serveRegistry } = await import('./registry-process.ts')
    return serveRegistry(values)
  },
})
