/**
 * What a command is: its name, arguments, options and what it does. A command's file declares it with `command()` and
 * imports what is heavy only when it runs, so that `--help` and the other commands start at once.
 */
import type { GivenText } from './option-values.ts'
import { COMMON_OPTIONS, type CommonOptions, type OptionTable, type OptionValues } from './options.ts'

/** How a command ended, as the exit code. */
export const EXIT = { done: 0, failed: 1, usage: 2, partly: 3 } as const
export type ExitCode = (typeof EXIT)[keyof typeof EXIT]

export interface Argument {
  /** In capitals, as `--help` shows it. */
  readonly name: string
  readonly help: string
  /** One or more of them; only of one argument. */
  readonly many?: boolean
  /** May be left out, with all that follow it. */
  readonly optional?: boolean
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
  readonly extend?: Extend
  /** `values` hold a value for each of `options`, `extra` those of the extension; `args` a text for each of `arguments`. */
  readonly run: (
    args: readonly string[],
    values: Readonly<Record<string, unknown>>,
    extra: Readonly<Record<string, unknown>>,
  ) => Promise<ExitCode>
}

/**
 * Further options of a command, which depend on how it is called: asked for before the command line is parsed, with its words
 * after the command's name (names of flags with dashes) and the working directory. `given` tells what flag, variable or
 * `eider.json` says of one of the command's own options; where help is asked for, the file is not looked at.
 */
export type Extend = (
  argv: readonly string[],
  directory: string,
  given: (key: string) => GivenText | undefined,
) => Promise<OptionTable>

interface CommandParts<T extends OptionTable> extends Omit<Command, 'options' | 'run' | 'examples'> {
  readonly options: T
  readonly examples?: readonly Example[]
  readonly run: (
    args: readonly string[],
    values: OptionValues<T & CommonOptions>,
    extra: Readonly<Record<string, unknown>>,
  ) => Promise<ExitCode>
}

/** A command whose `run` gets typed values for its own options and the common ones. */
export function command<const T extends OptionTable>(parts: CommandParts<T>): Command {
  return {
    ...parts,
    examples: parts.examples ?? [],
    options: { ...parts.options, ...COMMON_OPTIONS },
    run: (args, values, extra) => parts.run(args, values as OptionValues<T & CommonOptions>, extra),
  }
}

/** Commands with many verbs, each of which is a command of two words: the overview shows them as one, and so does `eider.json`. */
const GROUPS: readonly string[] = ['fs']

/** The command with many verbs that `name` is one of; undefined for any other. */
export function groupOf(name: string): string | undefined {
  return GROUPS.find((group) => name.startsWith(`${group} `))
}

/** The key of a command's object in `eider.json`: `serveS3` for `serve s3`, `fs` for all verbs of `fs`. */
export function sectionOf(name: string): string {
  const group = groupOf(name)
  if (group !== undefined) return group
  return name.replaceAll(/[ -]([a-z])/g, (_, letter: string) => letter.toUpperCase())
}
