/** `eider fs`: the basic client of a cluster. Its verbs are commands of their own, declared in the files that are named after what they are about. */
import { OperationError } from '#base/errors.ts'

import { command, type Command } from './command.ts'
import { DATA_VERBS } from '#cli/fs/data-verbs.ts'
import { HISTORY_VERBS } from '#cli/fs/history-verbs.ts'
import { fsck } from '#cli/fs/fsck.ts'
import { FS_OPTIONS } from '#cli/fs/options.ts'
import { SHARD_VERBS } from '#cli/fs/shard-verbs.ts'
import { TREE_VERBS } from '#cli/fs/tree-verbs.ts'

const group = command({
  name: 'fs',
  summary: 'files and directories of a cluster: ls, cp, cat, mv, rm, find, history, undelete and more',
  description:
    'Works with the files and directories of a cluster. Paths are absolute; symlinks are not followed. What is replaced or removed is kept as history. Times are microseconds since 1970, dates such as "2026-01-31 18:30", or such as "10 minutes ago".',
  arguments: [
    { name: 'VERB', help: 'one of those below' },
    { name: 'PATH', help: 'of the cluster', many: true, optional: true },
  ],
  options: FS_OPTIONS,
  examples: [
    { line: 'eider fs ls / --registry registry:8600', help: 'EIDER_REGISTRY says it once for all' },
    { line: 'eider fs cp -r ./photos :/photos', help: 'into the cluster, whose paths have a colon before them' },
  ],
  run: async ([verb = '']) => {
    throw new OperationError('USAGE', `Cannot run "${verb}": the verb comes right after "eider fs", options after it`, {
      hint: 'See "eider fs --help".',
    })
  },
})

/** `fs` and all its verbs. */
export const FS_COMMANDS: readonly Command[] = [
  group,
  ...TREE_VERBS,
  ...DATA_VERBS,
  ...HISTORY_VERBS,
  ...SHARD_VERBS,
  fsck,
]
