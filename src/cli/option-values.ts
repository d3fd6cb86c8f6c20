/**
 * Where the values of options come from: the flag, else the variable, else `eider.json`, else the default. A value that
 * does not parse is an error of usage that names the source, what was given and what was expected; so is an unknown
 * key in `eider.json` or an unknown flag, with the nearest known one.
 */
import { readFileSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { OperationError } from '#base/errors.ts'
import { flagOf, type OptionRow, type OptionTable, type OptionValues, variableOf } from './options.ts'
import { suggestionText } from './suggestion.ts'

const CONFIG_NAME = 'eider.json'

export interface ValueSources {
  /** By key, as given on the command line: text, or a boolean for a switch. */
  readonly flags: Readonly<Record<string, string | boolean | undefined>>
  readonly variables: Readonly<Record<string, string | undefined>>
  /** The working directory. */
  readonly directory: string
}

/** The object of `eider.json`, and where it lies: its paths are relative to that folder. */
export interface Config {
  readonly file: string
  readonly values: Readonly<Record<string, unknown>>
}

/** Values for the whole table of the command that is called `section` in `eider.json`. @throws OperationError `USAGE`. */
export function optionValues<T extends OptionTable>(
  table: T,
  section: string,
  config: Config | undefined,
  sources: ValueSources,
): OptionValues<T> {
  const common = config?.values ?? {}
  const own = common[section]
  const values: Record<string, unknown> = {}
  for (const [key, row] of Object.entries(table)) {
    const ofCommand = isObject(own) ? own[key] : undefined
    const given: Given =
      ofCommand === undefined ? { value: common[key], name: key } : { value: ofCommand, name: `${section}.${key}` }
    values[key] = valueOf(key, row, given, config, sources)
  }
  return values as OptionValues<T>
}

/** The file named by `--config` or its variable, else the nearest `eider.json`. @throws OperationError `USAGE`. */
export function readConfig({ flags, variables, directory }: ValueSources): Config | undefined {
  const named = typeof flags['config'] === 'string' ? flags['config'] : variables[variableOf('config')]
  const file = named === undefined || named === '' ? nearestConfig(directory) : resolve(directory, named)
  if (file === undefined) return undefined
  let values: unknown
  try {
    values = JSON.parse(readFileSync(file, 'utf8'))
  } catch (error) {
    const detail = error instanceof Error ? error.message : String(error)
    throw new OperationError('USAGE', `Cannot read ${file}: ${detail}`, { cause: error })
  }
  if (!isObject(values)) throw new OperationError('USAGE', `Cannot read ${file}: a JSON object is expected`)
  return { file, values }
}

/**
 * Checks the whole file against the tables of all commands by section: every section, every key in one and every
 * common key must be known to some command, as a misspelled one would otherwise be left out in silence.
 * @throws OperationError `USAGE`.
 */
export function checkConfig({ file, values }: Config, tables: ReadonlyMap<string, OptionTable>): void {
  const common = new Set([...tables.values()].flatMap(keysInFile))
  for (const [key, value] of Object.entries(values)) {
    const table = tables.get(key)
    if (table === undefined || !isObject(value)) {
      checkKey(file, key, isObject(value) ? [...tables.keys()] : [...common], '')
      continue
    }
    for (const inner of Object.keys(value)) checkKey(file, inner, keysInFile(table), `${key}.`)
  }
}

function keysInFile(table: OptionTable): string[] {
  return Object.keys(table).filter((key) => table[key]?.secret === false && key !== 'config')
}

function checkKey(file: string, key: string, known: readonly string[], prefix: string): void {
  if (known.includes(key)) return
  throw new OperationError(
    'USAGE',
    `Cannot use "${prefix}${key}" in ${file}: there is no such key${suggestionText(key, known)}`,
  )
}

/** What `eider.json` has, and where: `validity`, or `mount.validity` for one command. */
interface Given {
  readonly value: unknown
  readonly name: string
}

function valueOf(
  key: string,
  row: OptionRow<unknown>,
  fromFile: Given,
  config: Config | undefined,
  { flags, variables, directory }: ValueSources,
): unknown {
  const flag = flags[key]
  if (flag !== undefined) {
    return typeof flag === 'boolean' ? flag : parsed(row, flag, flagOf(key), directory)
  }
  const variable = variables[variableOf(key)]
  // An empty variable counts as one that is not set, as shells and unit files can hardly tell them apart.
  if (variable !== undefined && variable !== '') return parsed(row, variable, variableOf(key), directory)
  const { value } = fromFile
  if (config !== undefined && value !== undefined && value !== null) {
    const source = `"${fromFile.name}" in ${config.file}`
    const shown = JSON.stringify(value)
    if (typeof value !== 'string' && typeof value !== 'number' && typeof value !== 'boolean') {
      throw refused(source, shown, row)
    }
    return parsed(row, String(value), source, dirname(config.file), shown)
  }
  if (row.isPath && typeof row.default === 'string') return resolve(directory, row.default)
  return row.default
}

/** `shown`: the text as it was written there. */
function parsed(
  row: OptionRow<unknown>,
  text: string,
  source: string,
  directory: string,
  shown = JSON.stringify(text),
): unknown {
  const value = row.parse(text)
  if (value === undefined) throw refused(source, row.secret ? '' : withoutUser(shown), row)
  return row.isPath ? resolve(directory, text) : value
}

function refused(source: string, given: string, { expected, hint }: OptionRow<unknown>): OperationError {
  const message = `Cannot use ${source}${given === '' ? '' : ` ${given}`}: ${expected} is expected`
  return new OperationError('USAGE', message, hint === undefined ? {} : { hint })
}

/** Without what stands where a URL has a user and a password. */
function withoutUser(text: string): string {
  return text.replace(/\/\/[^/]*@/, '//…@')
}

function nearestConfig(directory: string): string | undefined {
  for (let current = directory; ; current = dirname(current)) {
    const candidate = join(current, CONFIG_NAME)
    try {
      readFileSync(candidate)
      return candidate
    } catch {
      // Not here: one may lie above.
    }
    if (current === dirname(current)) return undefined
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
