/** `eider fs fsck`: checks, lists or rescues a cluster by its directories alone, as the command line has it. What runs is `fsck-run.ts`. */
import { OperationError } from '#base/errors.ts'

import { command } from '#cli/command.ts'
import { boolean, path, string, texts } from '#cli/options.ts'

const GROUP = 'Verb'

export const FSCK_OPTIONS = {
  offline: boolean({ help: 'Reads the directories themselves, with no process running; needed', group: GROUP }),
  disk: texts({
    help: 'A disk, or a directory of disks, that does not lie in one of the DATA directories',
    group: GROUP,
    placeholder: 'DIRECTORY',
  }),
  blocks: boolean({ help: 'Reads all blocks, rather than to look whether they are there', group: GROUP }),
  list: boolean({ help: 'Lists the tree instead of checking: type, size, versions, path', group: GROUP }),
  extract: path({
    help: 'Writes the tree into that directory instead of checking, from the blocks that there are',
    group: GROUP,
    placeholder: 'DIRECTORY',
  }),
  path: string({
    help: 'What of the tree is listed or extracted',
    group: GROUP,
    placeholder: 'PATH',
    default: '/',
  }),
  asOf: string({ help: 'Lists or extracts the tree as it was at that time', group: GROUP, placeholder: 'TIME' }),
  json: boolean({ help: 'Tells everything as lines of JSON', group: 'Output' }),
} as const

export const fsck = command({
  name: 'fs fsck',
  summary: 'checks a cluster that is stopped, lists it, or gets its files out, by its directories alone',
  description:
    'Reads the directories of the shards, of the coordinator and of the disks of a cluster while none of its processes runs. Nothing is written into them. Each problem is one line: "lost" where names or bytes are gone, "degraded" where all is there but less safe, "leak" where only room is wasted. Ends with 0 where nothing is wrong, 3 with problems, 1 where it cannot be read.',
  arguments: [{ name: 'DATA', help: 'the --data of "eider cluster", or of each process and disk', many: true }],
  options: FSCK_OPTIONS,
  examples: [
    {
      line: 'eider fs fsck --offline ./cluster',
      help: 'checks the cluster that "eider cluster --data ./cluster" runs',
    },
    { line: 'eider fs fsck --offline ./cluster --blocks', help: 'and reads every block' },
    {
      line: 'eider fs fsck --offline ./cluster --extract ./rescued',
      help: 'gets all files out that can be put together',
    },
    {
      line: 'eider fs fsck --offline ./shards-a ./shards-b ./coordinator --disk /mnt/disk1 --disk /mnt/disk2',
      help: 'of processes with directories of their own',
    },
  ],
  run: async (data, values) => {
    if (!values.offline) {
      throw new OperationError('USAGE', 'Cannot check a cluster that runs: stop it, and use --offline')
    }
    if (values.list && values.extract !== undefined) {
      throw new OperationError('USAGE', 'Cannot use --list and --extract together: one after the other, please')
    }
    const { runFsck } = await import('./fsck-run.ts')
    return runFsck(data, values)
  },
})
