/**
 * From the command line to a command's exit code: finds the command, lets commander split flags from arguments,
 * resolves the values and runs it. All messages of usage are made here or in `option-values.ts`.
 */
import { Command as Parser, CommanderError, Option } from 'commander'
import { OperationError } from '#base/errors.ts'
import { setLogLevel } from '#base/log.ts'
import { type Command, EXIT, type ExitCode, sectionOf } from './command.ts'
import { COMMANDS } from './commands.ts'
import { failureOf, reportFailure } from './failure.ts'
import { helpOf, overview, usageOf } from './help.ts'
import type { MountRequest } from './mount-helper.ts'
import { type CommonOptions, flagOf, type OptionValues } from './options.ts'
import { checkConfig, optionValues, readConfig, type ValueSources } from './option-values.ts'
import { tellFailure } from './readiness.ts'
import { suggestionText } from './suggestion.ts'
import { VERSION } from './version.ts'

/** Runs the command that `argv` (without node and script) names, telling a failure on stderr. */
export async function runCommandLine(argv: readonly string[]): Promise<ExitCode> {
  try {
    return await dispatch(argv)
  } catch (error) {
    await tellFailure(failureOf(error))
    return reportFailure(error)
  }
}

async function dispatch(typed: readonly string[]): Promise<ExitCode> {
  const { words: argv, fake } = await requested(typed)
  const [first] = argv
  if (first === '--version' || first === '-V') {
    process.stdout.write(`eider ${VERSION}\n`)
    return EXIT.done
  }
  const asked = first === 'help' ? argv.slice(1) : isGroup(first) && isHelp(argv[1]) ? [first] : []
  if (asked.length > 0 && !isHelp(asked[0])) {
    process.stdout.write(commandsOf(asked).map(helpOf).join('\n'))
    return EXIT.done
  }
  if (first === undefined || isHelp(first) || first === 'help') {
    const text = overview(
      VERSION,
      COMMANDS.map((command) => [usageOf(command), command.summary]),
    )
    ;(first === undefined ? process.stderr : process.stdout).write(text)
    return first === undefined ? EXIT.usage : EXIT.done
  }
  const { command, rest } = findCommand(argv)
  const parsed = parse(command, rest)
  if (parsed === 'help') {
    process.stdout.write(helpOf(command))
    return EXIT.done
  }
  const sources: ValueSources = { flags: parsed.flags, variables: process.env, directory: process.cwd() }
  const config = readConfig(sources)
  if (config !== undefined)
    checkConfig(config, new Map(COMMANDS.map(({ name, options }) => [sectionOf(name), options])))
  const values = optionValues(command.options, sectionOf(command.name), config, sources)
  setLogLevel((values as OptionValues<CommonOptions>).logLevel)
  if (!fake) return command.run(parsed.args, values)
  const { checkMount } = await import('./mount.ts')
  return checkMount(parsed.args, values)
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

/** Whether that is the first word of commands of two words, such as `serve`. */
function isGroup(word: string | undefined): word is string {
  return COMMANDS.some(({ name }) => name.startsWith(`${word} `))
}

/** What help on these words is about: the commands of a group, or one command. @throws OperationError `USAGE`. */
function commandsOf(words: readonly string[]): readonly Command[] {
  const [first] = words
  if (words.length === 1 && isGroup(first)) return COMMANDS.filter(({ name }) => name.startsWith(`${first} `))
  return [findCommand(words).command]
}

/** Names are one or two words; the longest that fits is meant. */
function findCommand(argv: readonly string[]): { command: Command; rest: readonly string[] } {
  for (const words of [2, 1]) {
    const name = argv.slice(0, words).join(' ')
    const command = COMMANDS.find((candidate) => candidate.name === name)
    if (command !== undefined) return { command, rest: argv.slice(words) }
  }
  const names = COMMANDS.map(({ name }) => name)
  const typed = argv.slice(0, 2).filter((word) => !word.startsWith('-'))
  const group = names.filter((name) => name.startsWith(`${typed[0]} `))
  if (group.length > 0) {
    throw new OperationError('USAGE', `Cannot run "${typed.join(' ')}": one of ${group.join(', ')} is expected`)
  }
  const word = argv[0] ?? ''
  throw new OperationError('USAGE', `Cannot run "${word}": there is no such command${suggestionText(word, names)}`)
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
  for (const [key, row] of Object.entries(command.options)) {
    if (row.secret) continue
    const short = row.short === undefined ? '' : `-${row.short}, `
    parser.addOption(new Option(`${short}${flagOf(key)}${row.placeholder === undefined ? '' : ' <value>'}`))
    if (row.placeholder === undefined) parser.addOption(new Option(`--no-${flagOf(key).slice(2)}`))
  }
  try {
    parser.parse([...argv], { from: 'user' })
  } catch (error) {
    throw usageError(command, error)
  }
  const flags: Record<string, string | boolean | undefined> = {}
  for (const [key, value] of Object.entries<unknown>(parser.opts())) {
    if (parser.getOptionValueSource(key) !== 'cli') continue
    if (typeof value === 'string' || typeof value === 'boolean') flags[key] = value
  }
  if (flags['help'] === true) return 'help'
  checkArguments(command, parser.args)
  return { args: parser.args, flags }
}

function checkArguments(command: Command, args: readonly string[]): void {
  const missing = command.arguments[args.length]
  if (missing !== undefined) {
    throw new OperationError('USAGE', `Cannot run "eider ${command.name}": ${missing.name} is missing: ${missing.help}`)
  }
  const extra = args[command.arguments.length]
  if (extra !== undefined) {
    throw new OperationError('USAGE', `Cannot use "${extra}": "${usageOf(command)}" takes no more arguments`)
  }
}

/** Commander's complaint in this program's words. */
function usageError(command: Command, error: unknown): unknown {
  if (!(error instanceof CommanderError)) return error
  const [, quoted = ''] = /'([^']+)'/.exec(error.message) ?? []
  const flag = /--?[a-z][a-z-]*/i.exec(quoted)?.[0] ?? quoted
  if (error.code === 'commander.unknownOption') {
    const off = offFlag(command, quoted)
    if (off !== undefined) {
      return new OperationError('USAGE', `Cannot use ${quoted}: a switch takes no value; ${off} turns it off`)
    }
    const known = Object.entries(command.options).flatMap(([key, row]) => (row.secret ? [] : [flagOf(key)]))
    return new OperationError(
      'USAGE',
      `Cannot use ${flag}: "eider ${command.name}" has no such option${suggestionText(flag, known)}`,
    )
  }
  if (error.code === 'commander.optionMissingArgument') {
    const long = /--[a-z-]+/i.exec(quoted)?.[0] ?? flag
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
