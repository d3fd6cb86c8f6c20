/**
 * From the command line to a command's exit code: finds the command, lets commander split flags from arguments,
 * resolves the values and runs it. All messages of usage are made here or in `option-values.ts`.
 */
import { Command as Parser, CommanderError, Option } from 'commander'
import { isOperationError, OperationError } from '#base/errors.ts'
import { setLogLevel } from '#base/log.ts'
import { type Command, EXIT, type ExitCode, groupOf, sectionOf } from './command.ts'
import { COMMANDS } from './commands.ts'
import { extended } from './extension.ts'
import { failureOf, reportFailure } from './failure.ts'
import { readFlagWords, withDashes } from './flag-words.ts'
import { helpOf, overview, usageOf } from './help.ts'
import type { MountRequest } from './mount-helper.ts'
import { type CommonOptions, flagOf, type OptionTable, type OptionValues, type OrderedText } from './options.ts'
import { checkConfig, optionValues, readConfig, type ValueSources } from './option-values.ts'
import { tellFailure } from './readiness.ts'
import { suggestionText } from './suggestion.ts'
import { VERSION } from './version.ts'

/** Runs the command that `argv` (without node and script) names, telling a failure on stderr. */
export async function runCommandLine(argv: readonly string[], commands = COMMANDS): Promise<ExitCode> {
  try {
    return await dispatch(argv, commands)
  } catch (error) {
    await tellFailure(failureOf(error))
    return reportFailure(error)
  }
}

async function dispatch(typed: readonly string[], commands: readonly Command[]): Promise<ExitCode> {
  const { words: argv, fake } = await requested(typed)
  const [first] = argv
  if (first === '--version' || first === '-V') {
    process.stdout.write(`eider ${VERSION}\n`)
    return EXIT.done
  }
  if (first === undefined || isHelp(first) || (first === 'help' && (argv[1] === undefined || isHelp(argv[1])))) {
    const text = overview(
      VERSION,
      commands.filter(({ name }) => groupOf(name) === undefined).map((each) => [usageOf(each), each.summary]),
    )
    ;(first === undefined ? process.stderr : process.stdout).write(text)
    return first === undefined ? EXIT.usage : EXIT.done
  }
  const asked = first === 'help' ? argv.slice(1) : isHelp(argv[1]) ? [first] : []
  if (asked.length === 1 && isGroupOnly(asked[0], commands)) {
    process.stdout.write(
      commandsBelow(asked[0], commands)
        .map((each) => helpOf(each))
        .join('\n'),
    )
    return EXIT.done
  }
  const { command, rest } = findCommand(first === 'help' ? asked : argv, commands)
  return run(command, first === 'help' ? [...rest, '--help'] : rest, { commands, fake })
}

interface RunContext {
  readonly commands: readonly Command[]
  /** Whether all is to be done but the mount. */
  readonly fake: boolean
}

async function run(found: Command, argv: readonly string[], { commands, fake }: RunContext): Promise<ExitCode> {
  const surroundings = { variables: process.env, directory: process.cwd() }
  const { command, extra } = await extended(found, argv, surroundings)
  const parsed = parseBelow(command, argv, commands)
  if (parsed === 'help') {
    process.stdout.write(helpOf(command, commandsBelow(command.name, commands)))
    return EXIT.done
  }
  const sources: ValueSources = { flags: parsed.flags, ...surroundings }
  const config = readConfig(sources)
  if (config !== undefined) {
    const tables = new Map<string, OptionTable>()
    for (const { name, options } of [...commands, command]) {
      tables.set(sectionOf(name), { ...tables.get(sectionOf(name)), ...options })
    }
    // Which keys an extension knows is asked only for the command that runs.
    const others = commands.filter(({ name, extend }) => extend !== undefined && name !== command.name)
    checkConfig(config, tables, new Set(others.map(({ name }) => sectionOf(name))))
  }
  const values = optionValues(command.options, sectionOf(command.name), config, sources)
  setLogLevel((values as OptionValues<CommonOptions>).logLevel)
  if (!fake) return command.run(parsed.args, values, only(values, extra))
  const { checkMount } = await import('./mount.ts')
  return checkMount(parsed.args, values)
}

/** Parses, and where that fails tells who meant a file that its name is a command's here: `eider sync status --to …`. */
function parseBelow(command: Command, argv: readonly string[], commands: readonly Command[]): Parsed | 'help' {
  try {
    return parse(command, argv)
  } catch (error) {
    const [outer, inner] = command.name.split(' ')
    if (!isOperationError(error, 'USAGE') || !commands.some(({ name }) => name === outer) || inner === undefined)
      throw error
    const help = `See "eider ${command.name} --help"`
    // Where a verb has to come first, nobody can have meant a file by it.
    const isVerb = groupOf(command.name) !== undefined
    const hint = isVerb ? `${help}.` : `${help}; for a file or directory that is called "${inner}" write ./${inner}.`
    throw new OperationError('USAGE', error.message, { cause: error, hint })
  }
}

function only(values: Readonly<Record<string, unknown>>, table: OptionTable): Readonly<Record<string, unknown>> {
  return Object.fromEntries(Object.keys(table).map((key) => [key, values[key]]))
}

/** mount(8) calls by other rules: as `mount.eider`, or with a store where a command's name is expected, and `-o`. */
async function requested(argv: readonly string[]): Promise<MountRequest> {
  const [first = ''] = argv
  const isHelper = first === 'mount.eider'
  if (!isHelper && !(argv[2] === '-o' && (first.includes(':') || first.startsWith('/')))) {
    return { words: argv, fake: false }
  }
  const { mountRequest } = await import('./mount-helper.ts')
  return mountRequest(isHelper ? argv.slice(1) : argv)
}

function isHelp(word: string | undefined): boolean {
  return word === '--help' || word === '-h'
}

/** The commands of two words whose first one that is. */
function commandsBelow(word: string, commands: readonly Command[]): readonly Command[] {
  return commands.filter(({ name }) => name.startsWith(`${word} `))
}

/** Whether that is the first word of commands of two words, such as `serve`, and no command by itself. */
function isGroupOnly(word: string | undefined, commands: readonly Command[]): word is string {
  if (word === undefined || commands.some(({ name }) => name === word)) return false
  return commandsBelow(word, commands).length > 0
}

/** Names are one or two words; the longest that fits is meant. */
function findCommand(
  argv: readonly string[],
  commands: readonly Command[],
): { command: Command; rest: readonly string[] } {
  for (const words of [2, 1]) {
    const name = argv.slice(0, words).join(' ')
    const command = commands.find((candidate) => candidate.name === name)
    if (command !== undefined && !isUnknownVerb(argv, words, commands)) return { command, rest: argv.slice(words) }
  }
  const names = commands.map(({ name }) => name)
  const typed = argv.slice(0, 2).filter((word) => !word.startsWith('-'))
  const group = names.filter((name) => name.startsWith(`${typed[0]} `))
  if (typed[1] !== undefined && groupOf(typed.join(' ')) !== undefined) {
    const verbs = group.map((name) => name.slice(name.indexOf(' ') + 1))
    throw new OperationError(
      'USAGE',
      `Cannot run "${typed.join(' ')}": "${typed[0]}" has no such verb${suggestionText(typed[1], verbs)}`,
      { hint: `See "eider ${typed[0]} --help".` },
    )
  }
  if (group.length > 0) {
    throw new OperationError('USAGE', `Cannot run "${typed.join(' ')}": one of ${group.join(', ')} is expected`)
  }
  const word = argv[0] ?? ''
  throw new OperationError('USAGE', `Cannot run "${word}": there is no such command${suggestionText(word, names)}`)
}

/** Whether the first word has verbs, and the second one is meant as one, and is none. */
function isUnknownVerb(argv: readonly string[], words: number, commands: readonly Command[]): boolean {
  const [group = '', verb = '-'] = argv
  return words === 1 && !verb.startsWith('-') && commands.some(({ name }) => groupOf(name) === group)
}

interface Parsed {
  readonly args: readonly string[]
  readonly flags: ValueSources['flags']
}

/** Splits flags from arguments. @throws OperationError `USAGE`. */
export function parse(command: Command, argv: readonly string[]): Parsed | 'help' {
  const parser = new Parser(command.name).exitOverride().helpOption(false).allowExcessArguments()
  parser.configureOutput({ writeErr: () => {}, writeOut: () => {} })
  parser.addOption(new Option('-h, --help'))
  let ordinal = 0
  for (const [key, row] of Object.entries(command.options)) {
    if (row.secret) continue
    const short = row.short === undefined ? '' : `-${row.short}, `
    const option = new Option(`${short}${flagOf(key)}${row.placeholder === undefined ? '' : ' <value>'}`)
    if (row.isMany) {
      const given: OrderedText[] = []
      option.argParser((text) => {
        given.push({ text, ordinal: ordinal++ })
        return given
      })
    }
    parser.addOption(option)
    if (row.placeholder === undefined) parser.addOption(new Option(`--no-${flagOf(key).slice(2)}`))
  }
  try {
    parser.parse([...readFlagWords(argv, command.options).words], { from: 'user' })
  } catch (error) {
    throw usageError(command, error)
  }
  const flags: Record<string, string | boolean | readonly OrderedText[]> = {}
  for (const key of ['help', ...Object.keys(command.options)]) {
    if (parser.getOptionValueSource(key) === 'cli') {
      flags[key] = parser.getOptionValue(key) as string | boolean | readonly OrderedText[]
    }
  }
  if (flags['help'] === true) return 'help'
  checkArguments(command, parser.args)
  return { args: parser.args, flags }
}

function checkArguments(command: Command, args: readonly string[]): void {
  const missing = command.arguments[args.length]
  if (missing !== undefined && missing.optional !== true) {
    throw new OperationError('USAGE', `Cannot run "eider ${command.name}": ${missing.name} is missing: ${missing.help}`)
  }
  const extra = args[command.arguments.length]
  if (extra !== undefined && !command.arguments.some(({ many }) => many)) {
    throw new OperationError('USAGE', `Cannot use "${extra}": "${usageOf(command)}" takes no more arguments`)
  }
}

/** Commander's complaint in this program's words. */
function usageError(command: Command, error: unknown): unknown {
  if (!(error instanceof CommanderError)) return error
  const [, quoted = ''] = /'([^']+)'/.exec(error.message) ?? []
  const flag = /--?[a-z][\w-]*/i.exec(quoted)?.[0] ?? quoted
  if (error.code === 'commander.unknownOption') {
    const off = offFlag(command, quoted)
    if (off !== undefined) {
      return new OperationError('USAGE', `Cannot use ${quoted}: a switch takes no value; ${off} turns it off`)
    }
    const known = Object.entries(command.options).flatMap(([key, row]) => (row.secret ? [] : [flagOf(key)]))
    return new OperationError(
      'USAGE',
      `Cannot use ${flag}: "eider ${command.name}" has no such option${suggestionText(withDashes(flag), known)}`,
    )
  }
  if (error.code === 'commander.optionMissingArgument') {
    const long = /--[a-z][\w-]*/i.exec(quoted)?.[0] ?? flag
    const row = Object.entries(command.options).find(([key]) => flagOf(key) === long)?.[1]
    return new OperationError('USAGE', `Cannot use ${long}: ${row?.expected ?? 'a value'} is expected after it`)
  }
  return new OperationError('USAGE', `Cannot read the command line: ${error.message.replace(/^error: /, '')}`)
}

/** The flag that turns off the switch which `given`, as `--read-only=false`, gives a value; undefined for all else. */
function offFlag(command: Command, given: string): string | undefined {
  const [flag, value] = given.split('=')
  if (value === undefined) return undefined
  const switches = Object.entries(command.options).filter(([, row]) => row.placeholder === undefined && !row.secret)
  for (const [key] of switches) {
    const on = flagOf(key)
    const off = `--no-${on.slice(2)}`
    if (flag === on || flag === off) return off
  }
  return undefined
}
