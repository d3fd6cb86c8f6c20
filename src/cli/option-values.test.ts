/** Where values come from, and what is said where one will not do. */
import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { boolean, duration, httpUrl, path, secret, string, texts } from './options.ts'
import { checkConfig, givenText, optionValues, readConfig, type ValueSources } from './option-values.ts'

const help = 'Help'
const TABLE = {
  config: path({ help }),
  region: string({ help, default: 'default-region' }),
  readOnly: boolean({ help }),
  validity: duration({ help, default: 1000 }),
  staging: path({ help, default: 'stage' }),
  secretKey: secret({ help }),
  include: texts({ help }),
  exclude: texts({ help }),
}

const scratch = mkdtempSync(join(tmpdir(), 'eider-options-'))
after(() => rmSync(scratch, { recursive: true }))
const below = join(scratch, 'below', 'here')
mkdirSync(below, { recursive: true })

function valuesOf(sources: Partial<ValueSources>): Record<string, unknown> {
  const whole: ValueSources = { flags: {}, variables: {}, directory: below, ...sources }
  return optionValues(TABLE, 'mount', readConfig(whole), whole)
}

function configOf(text: string): string {
  const file = join(scratch, 'eider.json')
  writeFileSync(file, text)
  return file
}

function check(): void {
  const config = readConfig({ flags: {}, variables: {}, directory: below })
  assert(config !== undefined)
  checkConfig(config, new Map([['mount', TABLE]]))
}

test('a flag wins over a variable, that over the file, the command in it over what is common, that over the default', () => {
  const sources = { flags: {} as Record<string, string>, variables: {} as Record<string, string> }
  const region = (): unknown => valuesOf(sources)['region']
  configOf('{}')
  assert.equal(region(), 'default-region')
  configOf('{ "region": "common" }')
  assert.equal(region(), 'common')
  configOf('{ "region": "common", "mount": { "region": "own" } }')
  assert.equal(region(), 'own')
  sources.variables['EIDER_REGION'] = 'variable'
  assert.equal(region(), 'variable')
  sources.flags['region'] = 'flag'
  assert.equal(region(), 'flag')
})

test('an empty variable counts as none', () => {
  configOf('{ "region": "common" }')
  assert.equal(valuesOf({ variables: { EIDER_REGION: '' } })['region'], 'common')
})

test('a switch that the file turns on is turned off by a flag', () => {
  configOf('{ "readOnly": true }')
  assert.equal(valuesOf({})['readOnly'], true)
  assert.equal(valuesOf({ flags: { readOnly: false } })['readOnly'], false)
})

test('a path is relative to where it was said', () => {
  configOf('{ "staging": "x" }')
  assert.equal(valuesOf({})['staging'], join(scratch, 'x'))
  assert.equal(valuesOf({ flags: { staging: 'x' } })['staging'], join(below, 'x'))
  configOf('{}')
  assert.equal(valuesOf({})['staging'], join(below, 'stage'))
})

test('a file named by flag or variable is read instead of the nearest', () => {
  configOf('{ "region": "nearest" }')
  const named = join(scratch, 'named.json')
  writeFileSync(named, '{ "region": "named" }')
  assert.equal(valuesOf({ variables: { EIDER_CONFIG: named } })['region'], 'named')
  assert.equal(valuesOf({ flags: { config: '../../named.json' } })['region'], 'named')
  assert.throws(
    () => valuesOf({ flags: { config: 'absent.json' } }),
    /^OperationError: Cannot read .*absent\.json: ENOENT/,
  )
})

const REFUSED: readonly (readonly [what: string, sources: Partial<ValueSources>, file: string, message: RegExp])[] = [
  [
    'flag',
    { flags: { validity: 'soon' } },
    '{}',
    /^OperationError: Cannot use --validity "soon": a time such as 250ms, 1s or 5m is expected$/,
  ],
  [
    'variable',
    { variables: { EIDER_READ_ONLY: 'perhaps' } },
    '{}',
    /Cannot use EIDER_READ_ONLY "perhaps": true or false is/,
  ],
  [
    'value in the file',
    {},
    '{ "mount": { "validity": 5 } }',
    /Cannot use "mount\.validity" in .*eider\.json 5: a time/,
  ],
  ['common value in the file', {}, '{ "validity": "5" }', /Cannot use "validity" in .*eider\.json "5": a time/],
  ['kind in the file', {}, '{ "validity": [1] }', /Cannot use "validity" in .*eider\.json \[1\]: a time/],
  [
    'text among several',
    { flags: { include: [{ text: '', ordinal: 0 }] } },
    '{}',
    /Cannot use --include "": some text/,
  ],
  [
    'list of texts',
    {},
    '{ "mount": { "include": ["a", 1] } }',
    /"mount\.include" in .* \["a",1\]: some text \(in eider\.json a/,
  ],
  [
    'text in place of a list',
    {},
    '{ "exclude": "a" }',
    /"exclude" in .* "a": some text \(in eider\.json a list of texts\) is/,
  ],
  ['variable without a line', { variables: { EIDER_INCLUDE: '\n' } }, '{}', /EIDER_INCLUDE "\\n": some text/],
  ['file that is not JSON', {}, '{', /Cannot read .*eider\.json: .*JSON/],
  ['file that is no object', {}, '[]', /Cannot read .*eider\.json: a JSON object is expected/],
]
for (const [what, sources, file, message] of REFUSED) {
  test(`a wrong ${what} is refused by name, with what was expected`, () => {
    configOf(file)
    assert.throws(() => valuesOf(sources), message)
    assert.throws(() => valuesOf(sources), { code: 'USAGE' })
  })
}

test('texts that may be given several times come in order: the flags, then the lines of variables and lists of the file', () => {
  const ordered = (sources: Partial<ValueSources>): string[] => {
    const values = valuesOf(sources)
    const all = ['include', 'exclude'].flatMap((key) =>
      (values[key] as { text: string; ordinal: number }[]).map((each) => ({ key, ...each })),
    )
    return all.sort((a, b) => a.ordinal - b.ordinal).map(({ key, text }) => `${key} ${text}`)
  }
  configOf('{}')
  assert.deepEqual(ordered({}), [])
  configOf('{ "mount": { "exclude": ["x", "y"] }, "include": ["z"] }')
  assert.deepEqual(ordered({}), ['include z', 'exclude x', 'exclude y'])
  assert.deepEqual(ordered({ variables: { EIDER_EXCLUDE: 'a b\n\nc\n' } }), ['include z', 'exclude a b', 'exclude c'])
  const flags = { exclude: [0, 1].map((ordinal) => ({ text: `flag ${ordinal}`, ordinal })) }
  assert.deepEqual(ordered({ flags }), ['exclude flag 0', 'exclude flag 1', 'include z'])
})

test('one option can be asked for before the others are known, by flag, variable and file', () => {
  configOf('{ "mount": { "region": "own" } }')
  const sources = { flags: {}, variables: {}, directory: below }
  const region = (more: Partial<ValueSources>): unknown =>
    givenText('region', 'mount', readConfig(sources), { ...sources, ...more })
  assert.deepEqual(region({}), { text: 'own', directory: scratch })
  assert.deepEqual(region({ variables: { EIDER_REGION: 'v' } }), { text: 'v', directory: below })
  assert.deepEqual(region({ variables: { EIDER_REGION: 'v' }, flags: { region: 'f' } }), {
    text: 'f',
    directory: below,
  })
  configOf('{}')
  assert.equal(region({}), undefined)
})

test('keys of a section that has more options than are known here are left to its own command', () => {
  configOf('{ "mount": { "url": "x" } }')
  const config = readConfig({ flags: {}, variables: {}, directory: below })
  assert(config !== undefined)
  checkConfig(config, new Map([['mount', TABLE]]), new Set(['mount']))
  assert.throws(check, /"mount\.url" in .*: there is no such key/)
})

test('a URL that is refused is quoted without its password, and goes with its own hint', () => {
  const table = { endpoint: httpUrl({ help, hint: 'Name it so.' }) }
  const sources = { flags: { endpoint: 'http://me:hidden@h' }, variables: {}, directory: below }
  assert.throws(() => optionValues(table, 'mount', undefined, sources), {
    code: 'USAGE',
    hint: 'Name it so.',
    message: 'Cannot use --endpoint "http://…@h": http://HOST:PORT or https://HOST:PORT is expected',
  })
})

test('keys that nobody knows are refused with the nearest that is known', () => {
  configOf('{ "mount": { "redOnly": true } }')
  assert.throws(check, /"mount\.redOnly" in .*: there is no such key; did you mean readOnly\?/)
  configOf('{ "regoin": "x" }')
  assert.throws(check, /"regoin" in .*did you mean region\?/)
  configOf('{ "mont": {} }')
  assert.throws(check, /"mont" in .*did you mean mount\?/)
  configOf('{ "mount": { "readOnly": true }, "region": "x" }')
  check()
})

test('a secret is refused in the file and read from its variable only', () => {
  configOf('{ "secretKey": "s" }')
  assert.throws(check, /"secretKey" in .*: there is no such key/)
  configOf('{}')
  assert.equal(valuesOf({ variables: { EIDER_SECRET_KEY: 's' } })['secretKey'], 's')
})
