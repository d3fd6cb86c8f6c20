/** `eider sync apply`: carries out a plan that `eider sync --dry-run --json` made. */
import { command } from './command.ts'
import { boolean, path } from './options.ts'

export const SYNC_APPLY_OPTIONS = {
  yesDelete: boolean({ help: 'Deletes even what a sync would refuse to delete', group: 'Deleting' }),
  json: boolean({ help: 'Tells what happens as lines of JSON', group: 'Watching it' }),
  log: path({ help: 'Where the log goes', group: 'Watching it', placeholder: 'FILE', defaultText: 'stderr' }),
} as const

export const syncApply = command({
  name: 'sync apply',
  summary: 'carries out a plan of a sync, if all it was made on still stands',
  description:
    'Looks at everything that the plan names, in the source and in the target. Where anything is another than it was when the plan was made, nothing is done, and the command ends with 1. The plan holds the options of its sync; secrets are taken from the environment again.',
  arguments: [{ name: 'PLAN', help: 'the file with what "eider sync ... --dry-run --json" printed' }],
  options: SYNC_APPLY_OPTIONS,
  examples: [{ line: 'eider sync apply plan', help: 'after a look at what it says' }],
  run: async ([plan = ''], values) => {
    const { runApply } = await import('./sync-plan.ts')
    return runApply(plan, values)
  },
})
