/** `eider up`: the whole on one machine. What keeps its parts together is `up-supervisor.ts`. */
import { command } from './command.ts'
import { hostPort, path, secret } from './options.ts'

/** The options of `up` alone. */
export const UP_OPTIONS = {
  data: path({ help: 'Where the tree is kept', group: 'Places', placeholder: 'DIRECTORY', default: 'data' }),
  mount: path({ help: 'Where it is mounted', group: 'Places', placeholder: 'DIRECTORY', default: 'mnt' }),
  listen: hostPort({
    help: 'Where the S3 API listens; where not given the port of the last time, at first 9000, or another when that is taken',
    group: 'Places',
  }),
  accessKey: secret({ help: 'The access key, instead of one that is made and kept', group: 'Keys' }),
  secretKey: secret({ help: 'The secret key that goes with it', group: 'Keys' }),
} as const

export const up = command({
  name: 'up',
  summary: 'the whole on one machine: a directory, the S3 API over it, a mount through that',
  description:
    'Keeps a tree in a directory, serves it over the S3 API, mounts the bucket through that API, and says what is where. Ctrl-C ends it in order; the next start finds everything again. Needs no account anywhere.',
  arguments: [],
  options: UP_OPTIONS,
  examples: [{ line: 'eider up --data /srv/tree --mount /mnt/tree', help: 'a tree and a folder elsewhere' }],
  run: async (_, values) => {
    const { supervise } = await import('./up-supervisor.ts')
    return supervise(values)
  },
})
