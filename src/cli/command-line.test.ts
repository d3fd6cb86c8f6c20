/** How a command line is split, what is said of a wrong one, and that every command can explain itself. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parse } from './command-line.ts'
import { command, EXIT } from './command.ts'
import { COMMANDS } from './commands.ts'
import { helpOf } from './help.ts'
import { boolean, duration, secret, string } from './options.ts'

const help = 'Help'
const SAMPLE = command({
  name: 'sample',
  summary: 'A sample',
  description: 'A sample command.',
  arguments: [
    { name: 'STORE', help: 'a store' },
    { name: 'DIR', help: 'a directory' },
  ],
  options: {
    foreground: boolean({ help, short: 'f' }),
    metadata: boolean({ help, default: true }),
    validity: duration({ help, default: 1000, group: 'Caching' }),
    region: string({ help }),
    secretKey: secret({ help }),
  },
  run: () => Promise.resolve(EXIT.done),
})

test('flags stand anywhere, with their value beside or behind an equals sign', () => {
  const expected = { args: ['s', 'd'], flags: { foreground: true, validity: '5s', region: 'x' } }
  for (const line of [
    's d -f --validity 5s --region=x',
    '-f s --validity=5s d --region x',
    '--foreground --validity=5s --region x -- s d',
  ]) {
    assert.deepEqual(parse(SAMPLE, line.split(' ')), expected, line)
  }
})

test('a switch is turned off by --no-', () => {
  assert.deepEqual(parse(SAMPLE, ['s', 'd', '--no-metadata', '--no-foreground']), {
    args: ['s', 'd'],
    flags: { metadata: false, foreground: false },
  })
})

test('what was not given is not there, so that other sources may give it', () => {
  assert.deepEqual(parse(SAMPLE, ['s', 'd']), { args: ['s', 'd'], flags: {} })
})

const WRONG: readonly (readonly [line: string, message: string])[] = [
  ['s d --valdity 5s', 'Cannot use --valdity: "eider sample" has no such option; did you mean --validity?'],
  ['s d --zzzzzzzz', 'Cannot use --zzzzzzzz: "eider sample" has no such option'],
  ['s d -x', 'Cannot use -x: "eider sample" has no such option'],
  ['s d --secret-key=hunter2', 'Cannot use --secret-key: "eider sample" has no such option'],
  ['s d --foreground=false', 'Cannot use --foreground=false: a switch takes no value; --no-foreground turns it off'],
  ['s d --metadata=yes', 'Cannot use --metadata=yes: a switch takes no value; --no-metadata turns it off'],
  ['s d --no-metadata=1', 'Cannot use --no-metadata=1: a switch takes no value; --no-metadata turns it off'],
  ['s d --region', 'Cannot use --region: some text is expected after it'],
  ['s', 'Cannot run "eider sample": DIR is missing: a directory'],
  ['s d e', 'Cannot use "e": "eider sample STORE DIR" takes no more arguments'],
]
for (const [line, message] of WRONG) {
  test(`"${line}" is an error of usage`, () => {
    assert.throws(() => parse(SAMPLE, line.split(' ')), { code: 'USAGE', message })
  })
}

test('help shows groups, units, defaults and variables, and keeps to its width', () => {
  const text = helpOf(SAMPLE)
  assert.match(text, /^Usage: eider sample STORE DIR \[options\]$/m)
  assert.match(text, /^Caching:\n {2}--validity TIME +Help \(default 1s; EIDER_VALIDITY\)$/m)
  assert.match(text, /-f, --foreground/)
  assert.match(text, /--no-metadata/)
  assert.match(text, /EIDER_SECRET_KEY +Help \(a variable only\)/)
})

test('every command explains itself within 100 columns, and no two options of one collide', () => {
  for (const each of COMMANDS) {
    for (const line of helpOf(each).split('\n')) assert.ok(line.length <= 100, `${each.name}: ${line}`)
    const shorts = Object.values(each.options).flatMap(({ short }) => (short === undefined ? [] : [short]))
    assert.deepEqual(shorts, [...new Set(shorts)], each.name)
    assert.notEqual(parse(each, ['--help']), undefined)
  }
})
