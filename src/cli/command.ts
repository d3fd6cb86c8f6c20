/**
 * What a command is: its name, arguments, options and what it does. A command's file declares it with `command()` and
 * imports what is heavy only when it runs, so that `--help` and the other commands start at once.
 */
import { COMMON_OPTIONS, type CommonOptions, type OptionTable, type OptionValues } from './options.ts'

/** How a command ended, as the exit code. */
export const EXIT = { done: 0, failed: 1, usage: 2, partly: 3 } as const
export type ExitCode = (typeof EXIT)[keyof typeof EXIT]

export interface Argument {
  /** In capitals, as `--help` shows it. */
  readonly name: string
  readonly help: string
}

export interface Example {
  readonly line: string
  readonly help: string
}

/** A command with its options reduced to what parsing, help and the generated page need. */
export interface Command {
  /** As typed after `eider`. */
  readonly name: string
  /** One line for the overview. */
  readonly summary: string
  /** A paragraph for `--help`. */
  readonly description: string
  readonly arguments: readonly Argument[]
  readonly options: OptionTable
  readonly examples: readonly Example[]
  /** `values` hold a value for each of `options`; `args` one text for each of `arguments`. */
  readonly run: (args: readonly string[], values: Readonly<Record<string, unknown>>) => Promise<ExitCode>
}

interface CommandParts<T extends OptionTable> extends Omit<Command, 'options' | 'run' | 'examples'> {
  readonly options: T
  readonly examples?: readonly Example[]
  readonly run: (args: readonly string[], values: OptionValues<T & CommonOptions>) => Promise<ExitCode>
}

/** A command whose `run` gets typed values for its own options and the common ones. */
export function command<const T extends OptionTable>(parts: CommandParts<T>): Command {
  return {
    ...parts,
    examples: parts.examples ?? [],
    options: { ...parts.options, ...COMMON_OPTIONS },
    run: (args, values) => parts.run(args, values as OptionValues<T & CommonOptions>),
  }
}

/** The key of a command's object in `eider.json`: `serveS3` for `serve s3`. */
export function sectionOf(name: string): string {
  return name.replaceAll(/[ -]([a-z])/g, (_, letter: string) => letter.toUpperCase())
}
