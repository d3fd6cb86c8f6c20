/** `eider sync`: makes a store equal to a directory, and keeps it equal. What works is `sync-process.ts`. */
import { OperationError } from '#base/errors.ts'
import type { ActorOption } from '#sync/actor.ts'
import { command } from './command.ts'
import {
  boolean,
  bytesPerSecond,
  choice,
  duration,
  integer,
  type OptionRow,
  type OptionTable,
  path,
  percent,
  string,
  texts,
  variableOf,
} from './options.ts'
import { STORE_OPTIONS } from './store-options.ts'

const { metadata: _keeps, trustListing: _trusts, ...S3_OPTIONS } = STORE_OPTIONS

/** The options of `sync` alone. */
export const SYNC_OPTIONS = {
  to: string({ help: 'The store that is made equal', group: 'Sync', placeholder: 'STORE' }),
  once: boolean({ help: 'Ends when the target is equal, rather than watching for changes', group: 'Sync' }),
  dryRun: boolean({
    help: 'Shows what would be done, and does nothing; with --json a plan for "sync apply"',
    group: 'Sync',
  }),
  threads: integer({ help: 'How many operations at a time', group: 'Sync', default: 100, min: 1, max: 1000 }),
  bandwidth: bytesPerSecond({ help: 'What is sent at most in a second, by all together', group: 'Sync' }),
  checksum: boolean({ help: 'Bytes decide what is the same, and not sizes and times', group: 'Sync' }),
  verify: boolean({ help: 'Reads back each file that was sent, and compares', group: 'Sync' }),
  interval: duration({
    help: 'How often the trees are compared anew, for what no watcher tells; a store as the source is listed then; 0 for never',
    group: 'Sync',
    default: 3_600_000,
    max: 30 * 86_400_000,
  }),
  state: path({
    help: 'Where the sync keeps what it remembers',
    group: 'Sync',
    placeholder: 'DIRECTORY',
    defaultText: 'one for these paths and this target, in /var/lib/eider or ~/.local/state/eider',
  }),
  delete: choice(['never', 'after', 'during'], {
    help: 'When what only the target has is deleted: after all is sent, as soon as it is known, or never',
    group: 'Deleting',
    default: 'after',
  }),
  deleteMax: integer({ help: 'Deletes nothing where it would be more entries than that', group: 'Deleting', min: 0 }),
  deletePercent: percent({
    help: 'Deletes nothing where it would be more than that part of the target',
    group: 'Deleting',
    default: 50,
  }),
  yesDelete: boolean({ help: 'It is meant: deletes whatever the source does not have', group: 'Deleting' }),
  backupDir: string({
    help: 'A directory of the target: what is replaced or deleted goes there',
    group: 'Deleting',
    placeholder: 'PATH',
  }),
  metadata: boolean({ help: 'Keeps mode, owner, extended attributes and symlinks, too', group: 'What is sent' }),
  links: choice(['skip', 'keep', 'follow'], {
    help: 'Symlinks: left out, kept as such (the default with --metadata), or, to files, sent as files',
    group: 'What is sent',
  }),
  include: texts({ help: 'Takes part, whatever a later --exclude says', group: 'What is sent', placeholder: 'GLOB' }),
  exclude: texts({ help: 'Takes no part, nor does what lies in it', group: 'What is sent', placeholder: 'GLOB' }),
  oneFileSystem: boolean({ help: 'Does not enter what is mounted in the tree', group: 'What is sent' }),
  sourcePrefix: string({ help: 'Taken off the front of absolute paths', group: "autosync's", placeholder: 'TEXT' }),
  targetPrefix: string({ help: 'Put before what is left of them', group: "autosync's", placeholder: 'PATH' }),
  targetContainer: string({ help: 'The bucket or container to send to', group: "autosync's", placeholder: 'NAME' }),
  sourceFilter: string({
    help: 'Only files whose absolute paths match, from their start',
    group: "autosync's",
    placeholder: 'REGEX',
  }),
  sourceExclude: string({ help: 'Not files whose absolute paths match', group: "autosync's", placeholder: 'REGEX' }),
  actor: string({
    help: 'What sends, where it is no store: s3, directory, http, swift, or the path of a module',
    group: "autosync's",
    placeholder: 'NAME',
  }),
  encoding: choice(['utf-8', 'UTF-8', 'utf8', 'UTF8'], {
    help: 'Of names; others are named and left out',
    group: "autosync's",
    default: 'utf-8',
  }),
  port: integer({
    help: 'Listens there on 127.0.0.1: POST of an absolute path queues it',
    group: "autosync's",
    min: 0,
    max: 65_535,
  }),
  ...S3_OPTIONS,
  json: boolean({ help: 'Tells what happens as lines of JSON', group: 'Watching it' }),
  log: path({ help: 'Where the log goes', group: 'Watching it', placeholder: 'FILE', defaultText: 'stderr' }),
} as const

export const sync = command({
  name: 'sync',
  summary: 'a directory or store pushed to a store as it changes',
  description:
    'Makes a store equal to what lies in a directory, then watches and keeps it equal. The content of one PATH becomes the content of the STORE; several PATHs lie in it by their names. A store may be the PATH; it is listed at intervals.',
  arguments: [{ name: 'PATH', help: 'a directory, a file or a store', many: true }],
  options: SYNC_OPTIONS,
  examples: [
    { line: 'eider sync ./photos --to s3://bucket/photos', help: 'keeps a bucket equal to a directory' },
    { line: 'eider sync /srv --to /backup/srv --once --metadata', help: 'a copy of a tree with all attributes' },
    { line: 'eider sync ./site --to s3://bucket --dry-run --json > plan', help: 'a plan, for "eider sync apply plan"' },
    {
      line: 'eider sync --source_prefix=$PWD/mystuff/ --target_container=bucket mystuff',
      help: "autosync's way to say it",
    },
  ],
  extend: async (argv, directory, given) => {
    const actor = given('actor')?.text
    if (actor === undefined) return {}
    const isTyped = argv.some((word) => /^--actor(=|$)/.test(word)) || (process.env[variableOf('actor')] ?? '') !== ''
    // Whose file is found from here upwards must not choose what code runs.
    if (/[./]/.test(actor) && !isTyped) {
      throw new OperationError('USAGE', `Cannot use the actor "${actor}" of eider.json: a module is named by --actor`)
    }
    if (actor === 's3' || actor === 'directory') return {}
    const { loadActor } = await import('#sync/actor-module.ts')
    const { options = {} } = await loadActor(actor, directory)
    return actorRows(options)
  },
  run: async (paths, values, extra) => {
    const { runSync } = await import('./sync-process.ts')
    return runSync(paths, values, extra)
  },
})

/** What an actor declares, as options of the command. A secret has a flag too, as autosync's had: its variable is safer. */
function actorRows(options: Readonly<Record<string, ActorOption>>): OptionTable {
  const rows: Record<string, OptionRow<unknown>> = {}
  for (const [name, { help, placeholder, required, secret: isSecret }] of Object.entries(options)) {
    const notes = [required === true ? 'has to be given' : '', isSecret === true ? `safer by ${variableOf(name)}` : '']
    const note = notes.filter((text) => text !== '').join('; ')
    const shown = placeholder === undefined ? {} : { placeholder }
    rows[name] = string({ help: note === '' ? help : `${help} (${note})`, group: 'Actor', ...shown })
  }
  return rows
}
