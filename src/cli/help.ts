/** The texts of `eider --help` and of `eider COMMAND --help`. */
import type { Argument, Command } from './command.ts'
import { flagOf, type OptionRow, variableOf } from './options.ts'

const WIDTH = 100
/** Where the explanations of options begin. */
const COLUMN = 30

/** What `eider --help` prints. */
export function overview(version: string, commands: readonly (readonly [usage: string, summary: string])[]): string {
  const column = Math.max(...commands.map(([usage]) => usage.length)) + 4
  return [
    `eider ${version}: one tree of files, kept close to every machine that uses it`,
    '',
    ...commands.map(([usage, summary]) => entry(usage, summary, column)),
    '',
    entry('eider COMMAND --help', 'the options of a command', column),
    entry('eider --version', 'the version', column),
    '',
    'Options may also be given as EIDER_… variables or in eider.json. Stores: s3://BUCKET/PREFIX, file:///DIR.',
    '',
  ].join('\n')
}

/** What `eider COMMAND --help` prints; `below` are the commands whose names begin with that of this one. */
export function helpOf(command: Command, below: readonly Command[] = []): string {
  const lines = [`Usage: ${usageOf(command)} [options]`, '', ...wrap(command.description, WIDTH)]
  if (command.arguments.length > 0) {
    lines.push('', ...command.arguments.map((each) => entry(argumentUsage(each), each.help, COLUMN)))
  }
  for (const group of groupsOf(command)) {
    lines.push('', `${group}:`)
    for (const [key, row] of Object.entries(command.options)) {
      if (row.group === group) lines.push(entry(optionUsage(key, row), optionHelp(key, row), COLUMN))
    }
  }
  if (command.examples.length > 0) lines.push('', 'Examples:')
  for (const { line, help } of command.examples) lines.push(`  ${line}`, `      ${help}`)
  if (below.length > 0) lines.push('', 'Commands below it:')
  const column = Math.max(COLUMN, ...below.map((each) => usageOf(each).length + 4))
  lines.push(...below.map((each) => entry(usageOf(each), each.summary, column)), '')
  return lines.join('\n')
}

/** `eider mount STORE DIR`, `eider sync PATH...`. */
export function usageOf(command: Pick<Command, 'name' | 'arguments'>): string {
  return ['eider', command.name, ...command.arguments.map(argumentUsage)].join(' ')
}

function argumentUsage({ name, many = false, optional = false }: Argument): string {
  const shown = many ? `${name}...` : name
  return optional ? `[${shown}]` : shown
}

/** Headings in the order in which options name them first, the common one last. */
function groupsOf(command: Command): string[] {
  return [...new Set(Object.values(command.options).map(({ group }) => group))]
}

/** `-r, --region TEXT`. */
export function optionUsage(key: string, row: OptionRow<unknown>): string {
  if (row.secret) return variableOf(key)
  if (row.default === true) return `--no-${flagOf(key).slice(2)}`
  const short = row.short === undefined ? '' : `-${row.short}, `
  return `${short}${flagOf(key)}${row.placeholder === undefined ? '' : ` ${row.placeholder}`}`
}

function optionHelp(key: string, row: OptionRow<unknown>): string {
  const facts = [
    ...(row.isMany ? ['may be given several times'] : []),
    ...(row.defaultText === undefined ? [] : [`default ${row.defaultText}`]),
    row.secret ? 'a variable only' : variableOf(key),
  ]
  return `${row.help} (${facts.join('; ')})`
}

function entry(left: string, right: string, column: number): string {
  const [first = '', ...rest] = wrap(right, WIDTH - column)
  const margin = ' '.repeat(column)
  const start = left.length + 4 > column ? [`  ${left}`, `${margin}${first}`] : [`  ${left}`.padEnd(column) + first]
  return [...start, ...rest.map((line) => margin + line)].join('\n')
}

function wrap(text: string, width: number): string[] {
  const lines: string[] = []
  let line = ''
  for (const word of text.split(/\s+/)) {
    if (line !== '' && line.length + 1 + word.length > width) {
      lines.push(line)
      line = word
    } else {
      line = line === '' ? word : `${line} ${word}`
    }
  }
  return [...lines, line]
}
