/** Where values come from, and what is said where one will not do. */
import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { boolean, duration, httpUrl, path, secret, string } from './options.ts'
import { checkConfig, optionValues, readConfig, type ValueSources } from './option-values.ts'

const help = 'Help'
const TABLE = {
  config: path({ help }),
  region: string({ help, default: 'default-region' }),
  readOnly: boolean({ help }),
  validity: duration({ help, default: 1000 }),
  staging: path({ help, default: 'stage' }),
  secretKey: secret({ help }),
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
