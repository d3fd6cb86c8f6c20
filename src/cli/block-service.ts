/** `eider block-service`: disks of a cluster. */
import { OperationError } from '#base/errors.ts'
import { hostname } from 'node:os'
import { join, resolve } from 'node:path'

import { command } from './command.ts'
import { DAEMON_OPTIONS } from './daemon-options.ts'
import { bytes, integer, path, string } from './options.ts'

/** Of freed memory: blocks that come next lie in it. */
const KEPT_BYTES = 64 << 20

/** The options of `block-service` alone. */
const BLOCK_SERVICE_OPTIONS = {
  storageClass: integer({
    help: 'The storage class of the disks, by which policies choose',
    group: 'Disks',
    default: 2,
    min: 2,
    max: 255,
  }),
  domain: string({
    help: 'What fails as one with these disks: a span has at most one block there',
    group: 'Disks',
    placeholder: 'NAME',
  }),
  reserve: bytes({
    help: 'What is kept free on each file system',
    group: 'Disks',
    default: 1 << 30,
  }),
  data: path({
    help: 'Where it keeps who it is',
    group: 'Disks',
    placeholder: 'DIRECTORY',
    defaultText: 'the first of the directories',
  }),
  ...DAEMON_OPTIONS,
} as const

export const blockService = command({
  name: 'block-service',
  summary: 'disks of a cluster',
  description:
    'Serves directories as disks of a cluster: the blocks of files lie there. Each is locked, so that nobody else serves it. The failure domain is the name of the machine; on a loopback address, where the whole cluster is one machine, each directory is one of its own.',
  arguments: [{ name: 'DIRECTORY', help: 'one for each disk; made where it is not there', many: true }],
  options: BLOCK_SERVICE_OPTIONS,
  examples: [
    { line: 'eider block-service /mnt/disk1 /mnt/disk2', help: 'two disks, by the registry on this machine' },
    {
      line: 'eider block-service /disk1 --registry registry:8600 --listen 0.0.0.0:8601 --secret-file ./secret',
      help: 'a disk of a cluster of several machines',
    },
  ],
  run: async (paths, values) => {
    const { registeredOptions, runDaemon } = await import('./daemon-process.ts')
    const { startBlockService } = await import('#cluster/daemons/block-daemon.ts')
    const { keepFreedBuffers } = await import('#os/malloc.ts')
    keepFreedBuffers(KEPT_BYTES)
    const first = paths[0]
    if (first === undefined) throw new OperationError('USAGE', 'Cannot serve disks: no directory is named')
    const isLoopback = values.listen.host === 'localhost' || /^127\.|^::1$/.test(values.listen.host)
    const disks = paths.map((each) => ({
      path: each,
      class: values.storageClass,
      domain: values.domain ?? (isLoopback ? resolve(each) : hostname()),
    }))
    return runDaemon(values, async (onFailed) => {
      const options = await registeredOptions(values, values.data ?? join(first, '.service'), onFailed)
      const daemon = await startBlockService({ ...options, disks, reserveBytes: values.reserve })
      return {
        ...daemon,
        announcement: `${paths.length} ${paths.length === 1 ? 'disk' : 'disks'} at ${daemon.address}`,
      }
    })
  },
})
