/** `eider serve s3`: the S3 API over any store. What serves is `serve-s3-process.ts`. */
import { command } from './command.ts'
import { hostPort, path, secret } from './options.ts'
import { STORE_OPTIONS, storeUrl } from './store-options.ts'

/** The options of `serve s3` alone. */
export const SERVE_S3_OPTIONS = {
  listen: hostPort({ help: 'Where to listen; port 0 takes a free one', group: 'Gateway', default: '127.0.0.1:9000' }),
  accessKey: secret({ help: 'The access key that clients sign with', group: 'Gateway' }),
  secretKey: secret({ help: 'The secret key that goes with it', group: 'Gateway' }),
  credentials: path({
    help: 'Where the key pair is kept that is made when none is given',
    group: 'Gateway',
    placeholder: 'FILE',
    defaultText: '.eider/gateway.json in a directory store, else a file in /var/lib/eider or ~/.local/state/eider',
  }),
  staging: path({
    help: 'Where uploads lie until they are whole',
    group: 'Gateway',
    placeholder: 'DIRECTORY',
    defaultText: 'in the directory store itself, else a directory in /var/lib/eider or ~/.local/state/eider',
  }),
  ...STORE_OPTIONS,
  log: path({ help: 'Where the log goes', group: 'Watching it', placeholder: 'FILE', defaultText: 'stderr' }),
  metrics: hostPort({ help: 'Serves metrics for Prometheus there, at /metrics', group: 'Watching it' }),
} as const

export const serveS3 = command({
  name: 'serve s3',
  summary: 'the S3 API over any store',
  description:
    'Serves a store over the S3 API; its top directories are the buckets. Clients sign with one key pair: that of EIDER_ACCESS_KEY and EIDER_SECRET_KEY, else one that is made at the first start, printed then, and kept.',
  arguments: [{ name: 'STORE', help: 'file:///DIRECTORY, s3://BUCKET/PREFIX or memory:' }],
  options: SERVE_S3_OPTIONS,
  examples: [
    { line: 'eider serve s3 ./data --listen 127.0.0.1:9000', help: 'a directory, for programs on this machine' },
  ],
  run: async ([store = ''], values) => {
    const { serveGateway } = await import('./serve-s3-process.ts')
    return serveGateway(await storeUrl(store), values)
  },
})
