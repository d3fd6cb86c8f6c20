/**
 * A command together with the options that its extension adds: those of an actor, say, which are known once it is known which
 * actor is meant. They are options like the command's own, so they may take the names of none of those.
 */
import { OperationError } from '#base/errors.ts'
import { type Command, sectionOf } from './command.ts'
import { readFlagWords } from './flag-words.ts'
import { COMMON_OPTIONS, flagOf, type OptionTable, variableOf } from './options.ts'
import { givenText, readConfig, type ValueSources } from './option-values.ts'

/** The command as it is called, and its extension's part of the options. */
export interface Extended {
  readonly command: Command
  readonly extra: OptionTable
}

/** @throws OperationError `USAGE` where an option that is added cannot be told from one that is there. */
export async function extended(
  command: Command,
  argv: readonly string[],
  surroundings: Omit<ValueSources, 'flags'>,
): Promise<Extended> {
  if (command.extend === undefined) return { command, extra: {} }
  const { words, values, asksHelp } = readFlagWords(argv, command.options)
  const sources: ValueSources = { flags: values, ...surroundings }
  // Help is to be had whatever is wrong with the file, and runs no code that only the file names.
  const config = asksHelp ? undefined : readConfig(sources)
  const section = sectionOf(command.name)
  const extra = await command.extend(words, surroundings.directory, (key) => givenText(key, section, config, sources))
  checkNames(command, extra)
  const own = Object.entries(command.options).filter(([key]) => !Object.hasOwn(COMMON_OPTIONS, key))
  return { command: { ...command, options: { ...Object.fromEntries(own), ...extra, ...COMMON_OPTIONS } }, extra }
}

function checkNames(command: Command, extra: OptionTable): void {
  const taken = new Map<string, string>([
    ['--help', '--help'],
    ['-h', '--help'],
  ])
  const take = (options: OptionTable, refuse: (flag: string, other: string) => void): void => {
    for (const [key, row] of Object.entries(options)) {
      const flag = flagOf(key)
      const names = [flag, variableOf(key)]
      if (row.placeholder === undefined && !row.secret) names.push(`--no-${flag.slice(2)}`)
      if (row.short !== undefined) names.push(`-${row.short}`)
      for (const name of names) {
        const other = taken.get(name)
        if (other !== undefined) refuse(flag, other)
        taken.set(name, flag)
      }
    }
  }
  take(command.options, () => {})
  for (const key of Object.keys(extra)) {
    // `--no-x` turns off a switch; what every object has, such as `constructor`, would be found where nothing was given.
    if (!/^[a-z][a-zA-Z0-9]*$/.test(key) || /^no[A-Z]/.test(key) || key in {}) {
      throw new OperationError(
        'USAGE',
        `Cannot add the option "${key}" to "eider ${command.name}": its name cannot be one`,
        {
          hint: 'Names of options are letters and digits in camelCase, and do not begin with "no".',
        },
      )
    }
  }
  take(extra, (flag, other) => {
    throw new OperationError(
      'USAGE',
      `Cannot add the option ${flag} to "eider ${command.name}": it collides with ${other}, which is there already`,
      { hint: 'Give the option another name where it is declared.' },
    )
  })
}
