/** What every verb of `eider fs` has as options, and how a verb is declared: it runs with the cluster connected. */
import type { FsSession } from './session.ts'
import { CLUSTER_OPTIONS } from '#cli/cluster-options.ts'
import { type Argument, command, type Command, EXIT, type Example, type ExitCode } from '#cli/command.ts'
import {
  boolean,
  type CommonOptions,
  duration,
  hostPort,
  type OptionTable,
  type OptionValues,
  string,
} from '#cli/options.ts'

export const FS_OPTIONS = {
  registry: hostPort({ help: 'Where the registry is', group: 'Cluster', default: '127.0.0.1:8600' }),
  timeout: duration({
    help: 'For how long the registry, and what it has not heard of yet, is waited for',
    group: 'Cluster',
    default: 5000,
    min: 1,
  }),
  location: string({
    help: 'Where this machine is: blocks that are near are read first',
    group: 'Cluster',
    default: 'default',
  }),
  ...CLUSTER_OPTIONS,
  json: boolean({ help: 'Tells everything as lines of JSON', group: 'Output' }),
} as const

export type FsValues = OptionValues<typeof FS_OPTIONS & CommonOptions>

interface VerbParts<T extends OptionTable> {
  readonly name: string
  readonly summary: string
  readonly description: string
  readonly arguments: readonly Argument[]
  readonly options?: T
  readonly examples?: readonly Example[]
  /** Gives nothing where all is done. */
  readonly run: (
    session: FsSession,
    args: readonly string[],
    values: OptionValues<T> & FsValues,
  ) => Promise<ExitCode | void>
}

/** A verb of `eider fs`. */
export function verb<const T extends OptionTable>(parts: VerbParts<T>): Command {
  const { name, summary, description, arguments: args, examples = [] } = parts
  return command({
    name: `fs ${name}`,
    summary,
    description,
    arguments: args,
    examples,
    options: { ...parts.options, ...FS_OPTIONS },
    run: async (given, values) => {
      const { inSession } = await import('./session.ts')
      const own = values as OptionValues<T> & FsValues
      return (await inSession(own, (session) => parts.run(session, given, own))) ?? EXIT.done
    },
  })
}
