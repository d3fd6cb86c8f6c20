/** How a command line is split, what is said of a wrong one, and that every command can explain itself. */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, type TestContext, test } from 'node:test'
import { parse, runCommandLine } from './command-line.ts'
import { type Command, command, EXIT } from './command.ts'
import { COMMANDS } from './commands.ts'
import { helpOf } from './help.ts'
import { boolean, duration, type OptionTable, secret, string, texts } from './options.ts'

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
    s3Name: string({ help, short: 'n' }),
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
  ['s d -n', 'Cannot use --s3-name: some text is expected after it'],
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

const MANY = command({
  name: 'sync',
  summary: 'many',
  description: 'Takes many paths.',
  arguments: [{ name: 'PATH', help: 'a path', many: true }],
  options: {
    include: texts({ help, placeholder: 'GLOB' }),
    exclude: texts({ help, placeholder: 'GLOB' }),
    sourcePrefix: string({ help, short: 'p' }),
    once: boolean({ help, short: 'o' }),
  },
  run: () => Promise.resolve(EXIT.done),
})

test('what is given several times keeps its order across two flags', () => {
  assert.deepEqual(parse(MANY, ['--include=a', 'x', '--exclude', '--once', '--include', 'b', '--exclude=']), {
    args: ['x'],
    flags: {
      include: [
        { text: 'a', ordinal: 0 },
        { text: 'b', ordinal: 2 },
      ],
      exclude: [
        { text: '--once', ordinal: 1 },
        { text: '', ordinal: 3 },
      ],
    },
  })
})

test('the last argument may be one or more', () => {
  assert.deepEqual(parse(MANY, ['a', 'b', '--once', 'c']), { args: ['a', 'b', 'c'], flags: { once: true } })
  assert.throws(() => parse(MANY, ['--once']), { message: 'Cannot run "eider sync": PATH is missing: a path' })
  assert.match(helpOf(MANY), /^Usage: eider sync PATH\.\.\. \[options\]$/m)
  assert.match(helpOf(MANY), /^ {2}PATH\.\.\. +a path$/m)
  assert.match(helpOf(MANY), /^ {2}--include GLOB +Help \(may be given several times; EIDER_INCLUDE\)$/m)
})

const UNDERSCORES: readonly (readonly [argv: readonly string[], args: readonly string[], flags: object])[] = [
  [['--source_prefix=a_b', 'x_y'], ['x_y'], { sourcePrefix: 'a_b' }],
  [['--source_prefix', '--no_once', 'x'], ['x'], { sourcePrefix: '--no_once' }],
  [['-p', '--source_prefix', '-op', '--no_once', '--no_once', 'x'], ['x'], { sourcePrefix: '--no_once', once: false }],
  [['-p--source_prefix', 'x'], ['x'], { sourcePrefix: '--source_prefix' }],
  [['x', '--', '--source_prefix=a'], ['x', '--source_prefix=a'], {}],
]
for (const [argv, args, flags] of UNDERSCORES) {
  test(`underscores mean dashes in names of flags and nowhere else: ${argv.join(' ')}`, () => {
    assert.deepEqual(parse(MANY, argv), { args, flags })
  })
}

test('a misspelled flag with underscores is quoted as typed, with the nearest', () => {
  assert.throws(() => parse(MANY, ['--source_prefx=a', 'x']), {
    message: 'Cannot use --source_prefx: "eider sync" has no such option; did you mean --source-prefix?',
  })
})

interface Ran {
  readonly name: string
  readonly args: readonly string[]
  readonly extra: Readonly<Record<string, unknown>>
}

const scratch = mkdtempSync(join(tmpdir(), 'eider-command-line-'))
after(() => rmSync(scratch, { recursive: true }))
const config = join(scratch, 'eider.json')

/** `sync`, which asks for the options of its actor, `sync status`, and a command of another kind. */
function commandsOf(ran: Ran[], asked: string[] = []): Command[] {
  const extensions: Readonly<Record<string, OptionTable>> = {
    http: { url: string({ help, group: 'Actor', placeholder: 'URL' }), keyName: string({ help, default: 'k' }) },
    colliding: { sourcePrefix: string({ help }) },
    short: { other: string({ help, short: 'o' }) },
    named: { noOnce: string({ help }) },
  }
  const note = (name: string) => async (args: readonly string[], _: object, extra: Ran['extra']) => {
    ran.push({ name, args, extra })
    return EXIT.done
  }
  return [
    command({
      name: 'sync',
      summary: 'in step',
      description: 'Keeps in step.',
      arguments: [{ name: 'PATH', help: 'a path', many: true }],
      options: { actor: string({ help }), sourcePrefix: string({ help }), once: boolean({ help, short: 'o' }) },
      extend: async (_argv, _directory, given) => {
        const actor = given('actor')?.text
        asked.push(actor ?? 'none')
        return extensions[actor ?? ''] ?? {}
      },
      run: note('sync'),
    }),
    command({
      name: 'sync status',
      summary: 'how it stands',
      description: 'Tells.',
      arguments: [],
      options: { json: boolean({ help }) },
      run: note('sync status'),
    }),
    command({ name: 'other', summary: 'o', description: 'O.', arguments: [], options: {}, run: note('other') }),
  ]
}

async function typed(
  context: TestContext,
  argv: readonly string[],
  { file = '{}', asked }: { file?: string; asked?: string[] } = {},
): Promise<{ code: number; stdout: string; stderr: string; ran: readonly Ran[] }> {
  writeFileSync(config, file)
  const ran: Ran[] = []
  let [stdout, stderr] = ['', '']
  const out = context.mock.method(process.stdout, 'write', (text: string) => ((stdout += text), true))
  const err = context.mock.method(process.stderr, 'write', (text: string) => ((stderr += text), true))
  try {
    const code = await runCommandLine(argv, commandsOf(ran, asked))
    return { code, stdout, stderr, ran }
  } finally {
    out.mock.restore()
    err.mock.restore()
  }
}

test('a command of one word and those of two that begin with it live side by side', async (context) => {
  assert.deepEqual((await typed(context, ['sync', 'status', '--json', `--config=${config}`])).ran, [
    { name: 'sync status', args: [], extra: {} },
  ])
  assert.deepEqual((await typed(context, ['sync', './status', 'more', `--config=${config}`])).ran, [
    { name: 'sync', args: ['./status', 'more'], extra: {} },
  ])
  for (const line of ['sync --help', 'help sync', 'sync -h', 'sync x --help']) {
    const { stdout, code } = await typed(context, line.split(' '))
    assert.equal(code, 0)
    assert.match(stdout, /^Usage: eider sync PATH\.\.\. \[options\]\n/)
    assert.match(stdout, /\n\nCommands below it:\n {2}eider sync status +how it stands\n$/)
  }
  for (const line of ['help sync status', 'sync status --help']) {
    assert.match((await typed(context, line.split(' '))).stdout, /^Usage: eider sync status \[options\]\n/)
  }
  const { code, stderr } = await typed(context, ['sync', 'status', '--once'])
  assert.equal(code, EXIT.usage)
  assert.match(stderr, /"eider sync status" has no such option[^]*is called "status" write \.\/status/)
})

test('an extension adds options to flags, variables, the file, help and suggestions', async (context) => {
  const http = ['sync', '--actor', 'http', `--config=${config}`]
  const extraOf = async (argv: readonly string[], file?: string): Promise<unknown> =>
    (await typed(context, argv, file === undefined ? {} : { file })).ran[0]?.extra
  assert.deepEqual(await extraOf([...http, '--url=u_v', '--key_name=n', 'x']), { url: 'u_v', keyName: 'n' })
  assert.deepEqual(await extraOf([...http, 'x'], '{ "sync": { "url": "f" } }'), { url: 'f', keyName: 'k' })
  assert.deepEqual(
    await extraOf(['sync', 'x', `--config=${config}`], '{ "sync": { "actor": "http", "url": "f" } }'),
    { url: 'f', keyName: 'k' },
    'the actor may be named in the file',
  )
  process.env['EIDER_KEY_NAME'] = 'v'
  try {
    assert.deepEqual(await extraOf([...http, 'x']), { url: undefined, keyName: 'v' })
  } finally {
    delete process.env['EIDER_KEY_NAME']
  }
  const { stdout } = await typed(context, [...http, '--help'])
  assert.match(stdout, /^Actor:\n {2}--url URL +Help \(EIDER_URL\)\n[^]*^General:/m)
  const { stderr, code } = await typed(context, [...http, '--key-nam=n', 'x'])
  assert.equal(code, EXIT.usage)
  assert.match(stderr, /^eider: Cannot use --key-nam: "eider sync" has no such option; did you mean --key-name\?\n/)
})

test('keys that only an extension has are refused where it is another one, and left alone by other commands', async (context) => {
  const file = '{ "sync": { "url": "f" } }'
  const { code, stderr } = await typed(context, ['sync', 'x', `--config=${config}`], { file })
  assert.equal(code, EXIT.usage)
  assert.match(stderr, /Cannot use "sync\.url" in .*: there is no such key/)
  for (const line of ['other', 'sync status']) {
    assert.equal((await typed(context, [...line.split(' '), `--config=${config}`], { file })).code, EXIT.done)
  }
})

test('help without an actor asks for none that only the file names, and bears a broken file', async (context) => {
  for (const file of ['{ "sync": { "actor": "http" } }', '{']) {
    const asked: string[] = []
    assert.equal((await typed(context, ['sync', '--help', `--config=${config}`], { file, asked })).code, EXIT.done)
    assert.deepEqual(asked, ['none'])
  }
})

for (const [actor, message] of [
  ['colliding', 'the option --source-prefix to "eider sync": it collides with --source-prefix'],
  ['short', 'the option --other to "eider sync": it collides with --once'],
  ['named', 'the option "noOnce" to "eider sync": its name cannot be one'],
]) {
  test(`an extension that is ${actor} is an error of usage`, async (context) => {
    const { code, stderr } = await typed(context, ['sync', `--actor=${actor}`, 'x', `--config=${config}`])
    assert.equal(code, EXIT.usage)
    assert.ok(stderr.startsWith(`eider: Cannot add ${message}`), stderr)
  })
}
