/**
 * Where the values of options come from: the flag, else the variable, else `eider.json`, else the default. A value that
 * does not parse is an error of usage that names the source, what was given and what was expected; so is an unknown
 * key in `eider.json` or an unknown flag, with the nearest known one.
 */
import { readFileSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { OperationError } from '#base/errors.ts'
import { flagOf, type OptionRow, type OptionTable, type OptionValues, type OrderedText, variableOf } from './options.ts'
import { suggestionText } from './suggestion.ts'

const CONFIG_NAME = 'eider.json'

export interface ValueSources {
  /** By key, as given on the command line: text, a boolean for a switch, texts for what may be given several times. */
  readonly flags: Readonly<Record<string, string | boolean | readonly OrderedText[] | undefined>>
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
  const values: Record<string, unknown> = {}
  // What the command line says comes before what lies elsewhere.
  let ordinal = Object.values(sources.flags).reduce<number>((sum, each) => sum + (isList(each) ? each.length : 0), 0)
  for (const [key, row] of Object.entries(table)) {
    const given = givenInFile(key, section, config)
    const flag = sources.flags[key]
    if (!row.isMany) values[key] = valueOf(key, row, given, config, sources)
    else if (isList(flag)) values[key] = checkedTexts(flag, row, flagOf(key))
    else {
      const found = textsElsewhere(key, row, given, config, sources)
      values[key] = found.map((text) => ({ text, ordinal: ordinal++ }))
    }
  }
  return values as OptionValues<T>
}

/** A text as it was given, with the directory that it is relative to if it is a path. */
export interface GivenText {
  readonly text: string
  readonly directory: string
}

/**
 * What was given for `key` by flag, variable or `eider.json`, before it is read as a value: for who must know one option to
 * know which others there are.
 */
export function givenText(
  key: string,
  section: string,
  config: Config | undefined,
  { flags, variables, directory }: ValueSources,
): GivenText | undefined {
  const flag = flags[key]
  if (typeof flag === 'string') return { text: flag, directory }
  const variable = variables[variableOf(key)]
  if (variable !== undefined && variable !== '') return { text: variable, directory }
  const { value } = givenInFile(key, section, config)
  return typeof value === 'string' && config !== undefined
    ? { text: value, directory: dirname(config.file) }
    : undefined
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
 * common key must be known to some command, as a misspelled one would otherwise be left out in silence. Of the sections in
 * `open` not all keys are known here, so what is in them is left to the commands that they are of.
 * @throws OperationError `USAGE`.
 */
export function checkConfig(
  { file, values }: Config,
  tables: ReadonlyMap<string, OptionTable>,
  open: ReadonlySet<string> = new Set(),
): void {
  const common = new Set([...tables.values()].flatMap(keysInFile))
  for (const [key, value] of Object.entries(values)) {
    const table = tables.get(key)
    if (table === undefined || !isObject(value)) {
      checkKey(file, key, isObject(value) ? [...tables.keys()] : [...common], '')
      continue
    }
    if (open.has(key)) continue
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

function givenInFile(key: string, section: string, config: Config | undefined): Given {
  const common = config?.values ?? {}
  const own = common[section]
  const ofCommand = isObject(own) ? own[key] : undefined
  return ofCommand === undefined ? { value: common[key], name: key } : { value: ofCommand, name: `${section}.${key}` }
}

function checkedTexts(given: readonly OrderedText[], row: OptionRow<unknown>, source: string): readonly OrderedText[] {
  if (given.some(({ text }) => text === '')) throw refused(source, '""', row)
  return given
}

/** The texts of an option that may be given several times, and was not given as a flag. */
function textsElsewhere(
  key: string,
  row: OptionRow<unknown>,
  fromFile: Given,
  config: Config | undefined,
  { variables }: ValueSources,
): readonly string[] {
  const variable = variables[variableOf(key)]
  if (variable !== undefined && variable !== '') {
    const lines = row.parse(variable)
    if (!isList(lines)) throw refused(variableOf(key), JSON.stringify(variable), row)
    return lines.map(({ text }) => text)
  }
  const { value } = fromFile
  if (config === undefined || value === undefined || value === null) return []
  if (!Array.isArray(value) || !value.every((text) => typeof text === 'string' && text !== '')) {
    throw refused(`"${fromFile.name}" in ${config.file}`, JSON.stringify(value), row)
  }
  return value
}

function valueOf(
  key: string,
  row: OptionRow<unknown>,
  fromFile: Given,
  config: Config | undefined,
  { flags, variables, directory }: ValueSources,
): unknown {
  const flag = flags[key]
  if (flag !== undefined && !isList(flag)) {
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

/** Whether these are the texts of an option that may be given several times: nothing else in a command's values is a list. */
function isList(value: unknown): value is readonly OrderedText[] {
  return Array.isArray(value)
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
