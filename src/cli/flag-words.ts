/**
 * Which words of a command line are flags and which are values of theirs, before it is parsed: so that names written with
 * underscores are found, and an option can be known that says which others there are. What is unknown or malformed is left as
 * it is, for the parser to complain of.
 */
import { flagOf, type OptionTable } from './options.ts'

export interface FlagWords {
  /** As typed, but for names of flags: those known are with dashes. */
  readonly words: readonly string[]
  /** What was given to options that take a value, by key; the last of several. */
  readonly values: Readonly<Record<string, string>>
  readonly asksHelp: boolean
}

/** Reads the words after a command's name. */
export function readFlagWords(argv: readonly string[], options: OptionTable): FlagWords {
  const names = namesOf(options)
  const words: string[] = []
  const values = new Map<string, string>()
  let asksHelp = false
  const rest = argv.values()
  for (const word of rest) {
    if (word === '--') {
      words.push(word, ...rest)
      break
    }
    const found = word.startsWith('--') ? longFlag(word, names) : shortFlags(word, names)
    words.push(found.word)
    if (found.asksHelp) asksHelp = true
    if (found.key === undefined) continue
    let { value } = found
    if (value === undefined) {
      const next = rest.next()
      if (next.done) break
      value = next.value
      words.push(value)
    }
    values.set(found.key, value)
  }
  return { words, values: Object.fromEntries(values), asksHelp }
}

interface FlagNames {
  /** The key of an option that takes a value; undefined for a switch. */
  readonly long: ReadonlyMap<string, string | undefined>
  readonly short: ReadonlyMap<string, string | undefined>
}

function namesOf(options: OptionTable): FlagNames {
  const long = new Map<string, string | undefined>([['--help', undefined]])
  const short = new Map<string, string | undefined>([['h', undefined]])
  for (const [key, row] of Object.entries(options)) {
    if (row.secret) continue
    const valued = row.placeholder === undefined ? undefined : key
    long.set(flagOf(key), valued)
    if (valued === undefined) long.set(`--no-${flagOf(key).slice(2)}`, undefined)
    if (row.short !== undefined) short.set(row.short, valued)
  }
  return { long, short }
}

interface FoundFlag {
  readonly word: string
  /** Of the option whose value stands in `value`, or else is the next word. */
  readonly key?: string | undefined
  readonly value?: string | undefined
  readonly asksHelp?: boolean
}

function longFlag(word: string, { long }: FlagNames): FoundFlag {
  const equals = word.indexOf('=')
  const name = equals === -1 ? word : word.slice(0, equals)
  const dashed = withDashes(name)
  if (!long.has(dashed)) return { word }
  const key = long.get(dashed)
  const value = equals === -1 ? undefined : word.slice(equals + 1)
  return { word: dashed + word.slice(name.length), key, value, asksHelp: word === '--help' }
}

/** `-f`, `-fr` and, where `r` takes a value, `-r` before it or `-rVALUE`. */
function shortFlags(word: string, { short }: FlagNames): FoundFlag {
  if (!/^-[a-z]/i.test(word)) return { word }
  let asksHelp = false
  for (let index = 1; index < word.length; index++) {
    const letter = word.charAt(index)
    const key = short.get(letter)
    if (key !== undefined) {
      return { word, key, value: index + 1 < word.length ? word.slice(index + 1) : undefined, asksHelp }
    }
    if (!short.has(letter)) break
    if (letter === 'h') asksHelp = true
  }
  return { word, asksHelp }
}

/** The name of a flag as tables have it. */
export function withDashes(flag: string): string {
  return flag.replaceAll('_', '-')
}
