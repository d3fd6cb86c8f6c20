/**
 * The kinds of options there are. A command declares its options as a table of rows made here; from the row come the flag
 * (`readOnly` is `--read-only`), the variable (`EIDER_READ_ONLY`), the key in `eider.json` (`readOnly`), the parser, the
 * type of the value, the lines of `--help` and of `docs/operating/options.md`. Where values come from, and which source
 * wins, is in `option-values.ts`.
 */
import { LOG_LEVELS, type LogLevel } from '#base/log.ts'

export interface HostPort {
  readonly host: string
  readonly port: number
}

/** One of the texts of an option that may be given several times. */
export interface OrderedText {
  readonly text: string
  /** Its place among all texts of all such options: on the command line the order in which they were typed. */
  readonly ordinal: number
}

/** One option whose value is a `T`. */
export interface OptionRow<T> {
  readonly help: string
  /** The heading under which `--help` shows it. */
  readonly group: string
  /** One letter. */
  readonly short: string | undefined
  /** What stands after the flag in `--help`; undefined for a switch. */
  readonly placeholder: string | undefined
  /** What a message says was expected. */
  readonly expected: string
  /** What helps who gave something else. */
  readonly hint: string | undefined
  readonly default: T
  /** The default as help shows it; undefined: there is none. */
  readonly defaultText: string | undefined
  /** A secret has no flag and no key, as command lines and files are read by others: only the variable. */
  readonly secret: boolean
  /** Relative to the working directory, or to the folder of `eider.json`: resolved by who reads the value. */
  readonly isPath: boolean
  /** May be given several times: its value is a list of `OrderedText`, and a list of texts in `eider.json`. */
  readonly isMany: boolean
  /** The value, or undefined where `text` is not one. */
  readonly parse: (text: string) => T | undefined
  /** The text that gives this value. */
  format(value: NonNullable<T>): string
}

/** The options of a command by key. */
export type OptionTable = Readonly<Record<string, OptionRow<unknown>>>
/** What a command gets: a value for each key. */
export type OptionValues<T extends OptionTable> = {
  readonly [K in keyof T]: T[K] extends OptionRow<infer V> ? V : never
}

interface Described {
  readonly help: string
  readonly group?: string
  readonly short?: string
  readonly placeholder?: string
}
interface Bounded {
  readonly min?: number
  readonly max?: number
}

interface RowParts<T> {
  readonly placeholder: string | undefined
  readonly expected: string
  readonly hint?: string
  readonly default: T
  readonly defaultText: string | undefined
  readonly secret?: boolean
  readonly isPath?: boolean
  readonly isMany?: boolean
  readonly parse: (text: string) => T | undefined
  format(value: NonNullable<T>): string
}

function row<T>(described: Described, parts: RowParts<T>): OptionRow<T> {
  return {
    secret: false,
    isPath: false,
    isMany: false,
    hint: undefined,
    ...parts,
    help: described.help,
    group: described.group ?? 'Options',
    short: described.short,
    placeholder: parts.placeholder === undefined ? undefined : (described.placeholder ?? parts.placeholder),
  }
}

/** Any text but the empty one. */
export function string(described: Described & { readonly default: string }): OptionRow<string>
export function string(described: Described): OptionRow<string | undefined>
export function string(described: Described & { readonly default?: string }): OptionRow<string | undefined> {
  return row<string | undefined>(described, {
    placeholder: 'TEXT',
    format: String,
    expected: 'some text',
    default: described.default,
    defaultText: described.default,
    parse: (text) => (text === '' ? undefined : text),
  })
}

/**
 * Texts, one for each time that the flag is given. As a variable they are lines, in `eider.json` a list. Texts that come from
 * there are numbered after those of the command line, in the order of the table's rows.
 */
export function texts(described: Described): OptionRow<readonly OrderedText[]> {
  return row<readonly OrderedText[]>(described, {
    placeholder: 'TEXT',
    format: (values) => values.map(({ text }) => text).join('\n'),
    expected: 'some text (in eider.json a list of texts)',
    default: [],
    defaultText: undefined,
    isMany: true,
    parse: (lines) => {
      const given = lines.split('\n').filter((text) => text !== '')
      return given.length === 0 ? undefined : given.map((text, ordinal) => ({ text, ordinal }))
    },
  })
}

/** Text that must not be seen: given by its variable alone. */
export function secret(described: Described): OptionRow<string | undefined> {
  return row<string | undefined>(described, {
    placeholder: undefined,
    format: String,
    expected: 'some text',
    default: undefined,
    defaultText: undefined,
    secret: true,
    parse: (text) => (text === '' ? undefined : text),
  })
}

/** The path of a file or directory; absolute once read. */
export function path(described: Described & { readonly default: string }): OptionRow<string>
export function path(described: Described & { readonly defaultText?: string }): OptionRow<string | undefined>
export function path(
  described: Described & { readonly default?: string; readonly defaultText?: string },
): OptionRow<string | undefined> {
  return row<string | undefined>(described, {
    placeholder: 'PATH',
    format: String,
    expected: 'a path',
    default: described.default,
    defaultText: described.default ?? described.defaultText,
    isPath: true,
    parse: (text) => (text === '' || text.includes('\0') ? undefined : text),
  })
}

/** On or off, off where not given and no default says otherwise; `--no-FLAG` turns off what another source turned on. */
export function boolean(described: Described & { readonly default?: boolean }): OptionRow<boolean> {
  return row<boolean>(described, {
    placeholder: undefined,
    expected: 'true or false',
    default: described.default ?? false,
    defaultText: undefined,
    format: String,
    parse: (text) => {
      if (['true', '1', 'yes', 'on'].includes(text)) return true
      return ['false', '0', 'no', 'off'].includes(text) ? false : undefined
    },
  })
}

/** A whole number within bounds. */
export function integer(described: Described & Bounded & { readonly default: number }): OptionRow<number>
export function integer(described: Described & Bounded): OptionRow<number | undefined>
export function integer(described: Described & Bounded & { readonly default?: number }): OptionRow<number | undefined> {
  return row<number | undefined>(described, {
    placeholder: 'NUMBER',
    format: String,
    expected: `a whole number${boundsText(described, String)}`,
    default: described.default,
    defaultText: described.default?.toString(),
    parse: (text) => within(/^-?\d{1,15}$/.test(text) ? Number(text) : Number.NaN, described),
  })
}

/** A share in hundredths, written `50` or `50%`. */
export function percent(described: Described & { readonly default: number }): OptionRow<number>
export function percent(described: Described): OptionRow<number | undefined>
export function percent(described: Described & { readonly default?: number }): OptionRow<number | undefined> {
  const format = (value: number): string => `${value}%`
  return row<number | undefined>(described, {
    placeholder: 'PERCENT',
    format,
    expected: 'a whole percentage from 0% to 100%',
    default: described.default,
    defaultText: described.default === undefined ? undefined : format(described.default),
    parse: (text) => within(/^\d{1,3}%?$/.test(text) ? Number.parseInt(text, 10) : Number.NaN, { max: 100 }),
  })
}

/** Bits of a mode, written in octal. */
export function octal(described: Described & { readonly default: number }): OptionRow<number> {
  const format = (value: number): string => value.toString(8).padStart(3, '0')
  return row<number>(described, {
    placeholder: 'OCTAL',
    format,
    expected: 'an octal number from 000 to 777',
    default: described.default,
    defaultText: format(described.default),
    parse: (text) => (/^0?[0-7]{1,3}$/.test(text) ? Number.parseInt(text, 8) : undefined),
  })
}

/** Where an HTTP server is. */
export function httpUrl(described: Described & { readonly hint: string }): OptionRow<string | undefined> {
  return row<string | undefined>(described, {
    placeholder: 'URL',
    format: String,
    expected: 'http://HOST:PORT or https://HOST:PORT',
    hint: described.hint,
    default: undefined,
    defaultText: undefined,
    parse: (text) => {
      const url = URL.parse(text)
      if (url === null || !/^https?:\/\/[^/]/i.test(text) || !/^https?:$/.test(url.protocol)) return undefined
      return [url.search, url.hash, url.username, url.password].every((part) => part === '') ? text : undefined
    },
  })
}

/** A size in bytes, written `256MiB`. */
export function bytes(described: Described & Bounded & { readonly default: number }): OptionRow<number>
export function bytes(described: Described & Bounded): OptionRow<number | undefined>
export function bytes(described: Described & Bounded & { readonly default?: number }): OptionRow<number | undefined> {
  return row<number | undefined>(described, {
    placeholder: 'SIZE',
    format: formatBytes,
    expected: `a size such as 64MiB or 2GiB${boundsText(described, formatBytes)}`,
    default: described.default,
    defaultText: described.default === undefined ? undefined : formatBytes(described.default),
    parse: (text) => within(scaled(text, BYTE_UNITS), described),
  })
}

/** Bytes a second, written `10MiB` or `10MiB/s`; 0, which `off` also means, is no bound. */
export function bytesPerSecond(described: Described): OptionRow<number> {
  return row<number>(described, {
    placeholder: 'RATE',
    format: (value) => (value === 0 ? 'off' : formatBytes(value)),
    expected: 'bytes a second such as 10MiB, or off',
    default: 0,
    defaultText: 'off',
    parse: (text) => (text === 'off' ? 0 : within(scaled(text.replace(/\/s$/, ''), BYTE_UNITS), {})),
  })
}

/** A span of time in milliseconds, written `250ms`, `1s`, `5m`. */
export function duration(described: Described & Bounded & { readonly default: number }): OptionRow<number>
export function duration(described: Described & Bounded): OptionRow<number | undefined>
export function duration(
  described: Described & Bounded & { readonly default?: number },
): OptionRow<number | undefined> {
  return row<number | undefined>(described, {
    placeholder: 'TIME',
    format: formatDuration,
    expected: `a time such as 250ms, 1s or 5m${boundsText(described, formatDuration)}`,
    default: described.default,
    defaultText: described.default === undefined ? undefined : formatDuration(described.default),
    parse: (text) => within(scaled(text, TIME_UNITS), described),
  })
}

/** One of some words. */
export function choice<const T extends string>(
  choices: readonly T[],
  described: Described & { readonly default: T },
): OptionRow<T>
export function choice<const T extends string>(choices: readonly T[], described: Described): OptionRow<T | undefined>
export function choice<const T extends string>(
  choices: readonly T[],
  described: Described & { readonly default?: T },
): OptionRow<T | undefined> {
  return row<T | undefined>(described, {
    placeholder: choices.join('|'),
    format: String,
    expected: `one of ${choices.join(', ')}`,
    default: described.default,
    defaultText: described.default,
    parse: (text) => choices.find((candidate) => candidate === text),
  })
}

/** Where to listen or connect to: `127.0.0.1:9000`, `[::1]:9000`; port 0 takes any free one. */
export function hostPort(described: Described & { readonly default: string }): OptionRow<HostPort>
export function hostPort(described: Described): OptionRow<HostPort | undefined>
export function hostPort(described: Described & { readonly default?: string }): OptionRow<HostPort | undefined> {
  return row<HostPort | undefined>(described, {
    placeholder: 'HOST:PORT',
    format: formatHostPort,
    expected: 'HOST:PORT',
    default: described.default === undefined ? undefined : parseHostPort(described.default),
    defaultText: described.default,
    parse: parseHostPort,
  })
}

/** What every command has. */
export const COMMON_OPTIONS = {
  config: path({
    help: 'The file with options; an object a command, keys that all have beside them',
    group: 'General',
    placeholder: 'FILE',
    defaultText: 'the nearest eider.json, from here upwards',
  }),
  logLevel: choice<LogLevel>(LOG_LEVELS, { help: 'What is logged', group: 'General', default: 'info' }),
} as const
export type CommonOptions = typeof COMMON_OPTIONS

function parseHostPort(text: string): HostPort | undefined {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]\s]+)):(\d{1,5})$/.exec(text)
  const host = match?.[1] ?? match?.[2]
  const port = Number(match?.[3])
  return host === undefined || port > 65_535 ? undefined : { host, port }
}

/** `127.0.0.1:9000`, and `[::1]:9000` for an IPv6 address. */
export function formatHostPort({ host, port }: HostPort): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`
}

type Units = readonly (readonly [unit: string, factor: number])[]
/** Largest first: a value is shown in the largest unit that leaves a whole number. */
const BYTE_UNITS: Units = [
  ['TiB', 2 ** 40],
  ['GiB', 2 ** 30],
  ['MiB', 2 ** 20],
  ['KiB', 2 ** 10],
  ['TB', 1e12],
  ['GB', 1e9],
  ['MB', 1e6],
  ['KB', 1e3],
  ['B', 1],
  ['', 1],
]
const TIME_UNITS: Units = [
  ['d', 86_400_000],
  ['h', 3_600_000],
  ['m', 60_000],
  ['s', 1000],
  ['ms', 1],
]

/** `256MiB` for 268435456. */
export function formatBytes(value: number): string {
  return formatIn(value, BYTE_UNITS, 'B')
}
/** `1s` for 1000. */
export function formatDuration(valueMs: number): string {
  return formatIn(valueMs, TIME_UNITS, 'ms')
}

function formatIn(value: number, units: Units, smallest: string): string {
  const fitting = value === 0 ? undefined : units.find(([, factor]) => value % factor === 0)
  return fitting === undefined ? `${value}${smallest}` : `${value / fitting[1]}${fitting[0]}`
}

function scaled(text: string, units: Units): number {
  const match = /^(\d{1,16}(?:\.\d{1,6})?) ?([A-Za-z]*)$/.exec(text)
  const unit = match?.[2]?.toLowerCase()
  const factor = units.find(([name]) => name.toLowerCase() === unit)?.[1]
  if (match?.[1] === '0') return 0
  return factor === undefined ? Number.NaN : Math.round(Number(match?.[1]) * factor)
}

function within(value: number, { min = 0, max = Number.MAX_SAFE_INTEGER }: Bounded): number | undefined {
  return value >= min && value <= max ? value : undefined
}

function boundsText({ min, max }: Bounded, format: (value: number) => string): string {
  if (min !== undefined && max !== undefined) return ` from ${format(min)} to ${format(max)}`
  if (min !== undefined) return `, ${format(min)} or more`
  return max === undefined ? '' : `, ${format(max)} or less`
}

/** `--read-only` for the key `readOnly`. */
export function flagOf(key: string): string {
  return `--${key.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`
}
/** `EIDER_READ_ONLY` for the key `readOnly`. */
export function variableOf(key: string): string {
  return `EIDER_${key.replaceAll(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase()}`
}

/** The flags that give these values to a command with that table, whatever its variables and its file say. */
export function flagsOf(table: OptionTable, values: Readonly<Record<string, unknown>>): string[] {
  const ordered: OrderedText[] = []
  const flags = Object.entries(table).flatMap(([key, option]) => {
    const value = values[key]
    if (option.secret || value === undefined || value === null) return []
    if (option.isMany) {
      for (const { text, ordinal } of value as readonly OrderedText[]) {
        ordered.push({ text: `${flagOf(key)}=${text}`, ordinal })
      }
      return []
    }
    if (typeof value === 'boolean') return [value ? flagOf(key) : `--no-${flagOf(key).slice(2)}`]
    return [`${flagOf(key)}=${option.format(value)}`]
  })
  return [...flags, ...ordered.sort((a, b) => a.ordinal - b.ordinal).map(({ text }) => text)]
}

/** An object without the keys whose values are undefined, for calls that take absent options but no undefined ones. */
export function defined<T extends object>(values: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as {
    [K in keyof T]?: Exclude<T[K], undefined>
  }
}
