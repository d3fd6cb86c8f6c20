/** Filters against what git ignores and what Python matches, and the rules of their order. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, test } from 'node:test'

import fc from 'fast-check'

import { isOperationError } from '#base/errors.ts'

import { Filter, type FilterRules } from './filters.ts'
import { compileGlob } from './glob.ts'
import { compilePython } from './python-pattern.ts'
import { Scan } from './scan.ts'

function isRefused(error: unknown): boolean {
  return isOperationError(error, 'INPUT_INVALID')
}

describe('globs', () => {
  const ROWS: readonly [glob: string, matching: readonly string[], other: readonly string[]][] = [
    ['*.mp3', ['a.mp3', 'x/y/a.mp3', '.mp3', 'a.mp3/'], ['a.mp3x', 'a.mp4', 'a.mp3/b']],
    ['/a', ['a', 'a/'], ['b/a', 'ab', 'a/b']],
    ['a/', ['a/', 'b/a/'], ['a', 'b/a', 'a/b']],
    ['/a/', ['a/'], ['b/a/', 'a']],
    ['a/b', ['a/b', 'x/a/b'], ['a', 'b', 'xa/b', 'a/b/c', 'a/x/b']],
    ['?', ['a', 'é', '🦆', 'x/y'], ['', 'ab', 'ab/cd']],
    ['a?b', ['axb', 'a🦆b'], ['a/b', 'ab']],
    ['a*b', ['ab', 'axxb'], ['a/b', 'abc']],
    ['**/b', ['b', 'a/b', 'a/c/b'], ['ab', 'b/a']],
    ['/a/**/b', ['a/b', 'a/x/b', 'a/x/y/b'], ['a/xb', 'x/a/b', 'ab']],
    ['/a/**', ['a/b', 'a/b/c', 'a/b/'], ['a', 'a/', 'b']],
    ['a**b', ['ab', 'a/b', 'ax/yb'], ['a/bc']],
    ['[ab]', ['a', 'b'], ['c', 'ab', '[ab]']],
    ['[!ab]', ['c', '🦆'], ['a', 'b']],
    ['[^a]x', ['bx'], ['ax', 'x']],
    ['a[!b]c', ['axc'], ['a/c', 'abc']],
    ['a[.-0]c', ['a.c', 'a0c'], ['a/c']],
    ['[]a]', [']', 'a'], ['b']],
    ['[!]a]', ['b'], [']', 'a']],
    ['[a-]', ['a', '-'], ['b']],
    ['[[:digit:]x]', ['1', 'x'], ['a', ':']],
    ['[\\]]', [']'], ['\\']],
    ['\\*', ['*'], ['a', '\\*']],
    ['\\[a]', ['[a]'], ['a']],
    ['a.b+(c)$', ['a.b+(c)$'], ['axb+(c)$', 'a.bb(c)$']],
    ['new\nline', ['new\nline'], ['new line']],
    ['*', ['a', 'a/b', 'x\ny'], []],
    ['A', ['A'], ['a']],
    ['é', ['\u00e9'], ['e\u0301']],
  ]
  for (const [glob, matching, other] of ROWS) {
    test(`"${glob.replace('\n', '\\n')}" as a pattern`, () => {
      const compiled = compileGlob(glob)
      const asked = (path: string): boolean => compiled.matches(path.replace(/\/$/, ''), path.endsWith('/'))
      for (const path of matching) assert.equal(asked(path), true, path)
      for (const path of other) assert.equal(asked(path), false, path)
    })
  }

  test('patterns that mean nothing are refused', () => {
    for (const glob of ['', '/', '//', '[a', 'a[', '[z-a]', '[[:none:]]', 'a\\']) {
      assert.throws(() => compileGlob(glob), isRefused, glob)
    }
  })

  test('globs without a "/" within, and those tied to the root, match what git ignores', () => {
    const directory = mkdtempSync(join(tmpdir(), 'eider-filters-'))
    try {
      const run = (args: readonly string[], input = ''): string => {
        const { stdout, status } = spawnSync('git', args, { cwd: directory, input, encoding: 'utf8' })
        assert.ok(status === 0 || status === 1, `git ${args[0]} ended with ${status}`)
        return stdout
      }
      run(['init', '-q'])
      const piece = fc.constantFrom('a', 'b', 'ab', '*', '?', '[ab]', '[!a]', '.', '\\*', '[[:alpha:]]')
      const name = fc.array(piece, { minLength: 1, maxLength: 3 }).map((pieces) => pieces.join(''))
      // Stars that stand together are git's other way to say one.
      const single = name.filter((text) => !text.includes('**') && !/^\.+$/.test(text))
      const rooted = fc
        .array(fc.oneof(single, fc.constant('**')), { minLength: 1, maxLength: 3 })
        .map((parts) => `/${parts.join('/')}`)
      const glob = fc.tuple(fc.oneof(single, rooted), fc.constantFrom('', '', '/')).map(([text, end]) => text + end)
      const rule = fc.record({
        kind: fc.constantFrom('include' as const, 'exclude' as const, 'exclude' as const),
        glob,
      })
      const parts = fc.array(fc.constantFrom('a', 'b', 'ab', 'ba', 'a.b', '*', 'c'), { minLength: 1, maxLength: 4 })
      fc.assert(
        fc.property(
          fc
            .array(rule, { minLength: 1, maxLength: 4 })
            .filter((rules) => rules.some(({ kind }) => kind === 'exclude')),
          fc.uniqueArray(parts, { minLength: 5, maxLength: 15, selector: (one) => one.join('/') }),
          (rules, files) => {
            // The last that matches decides there, the first here.
            const lines = rules.toReversed().map((one) => (one.kind === 'include' ? '!' : '') + one.glob)
            writeFileSync(join(directory, '.gitignore'), `${lines.join('\n')}\n`)
            const paths = files.map((one) => one.join('/'))
            const ignored = new Set(run(['check-ignore', '--no-index', '-z', '--stdin'], paths.join('\0')).split('\0'))
            const filter = new Filter({ globs: rules }).at('/')
            for (const path of paths) {
              assert.equal(filter.reaches(path, false), !ignored.has(path), `${path} by ${lines.join(' ')}`)
            }
          },
        ),
        { seed: 45, numRuns: 200 },
      )
    } finally {
      rmSync(directory, { recursive: true })
    }
  })
})

describe("Python's regular expressions", () => {
  const PATTERNS = [
    '^.*$',
    '^.*[mM][pP]3$',
    '.*\\.tmp',
    'b',
    '/a',
    '/a$',
    '^/a\\Z',
    '\\A/a',
    '(?i)/A',
    '(?P<q>.)\\1',
    '(?P<q>a)/(?P=q)',
    '/(?:a|b)c',
    '/a(?#no)b',
    '(?s).*x',
    '.*x',
    '(?m).*^x',
    '/[]a]',
    '/[^]a]',
    '/[a\\]b]+$',
    '/[\\w.-]+$',
    '\\D+$',
    '/\\w+\\b',
    '/\\W',
    '/a{,2}$',
    '/a{2}',
    '/a{1,}$',
    '/a{x',
    '/a{',
    '/}',
    '/]',
    '/\\-',
    '/\\ ',
    "/\\'",
    '/[a-c&&b]',
    '/[[a]',
    '/\\x61',
    '/\\u00e9',
    '/\\U0001f986',
    '/(?=a)a',
    '/(?!a)',
    '.*(?<=a)b',
    '.*(?<!a)b',
    '/a??b',
    '/a*?b',
    '/é',
    '/.$',
    '/..$',
    '(?i:/A)b',
    '/(a)(b)\\2',
    '',
    '.*\\s',
    '.*\\S$',
    '(?u)/\\d',
    '/[\\d]$',
    '/\\/',
    '/a|x',
    '(?ms)^.*^x$',
  ]
  const TEXTS = [
    '/a',
    '/A',
    '/b',
    '/ab',
    '/aa',
    '/aab',
    '/a/a',
    '/ac',
    '/aab',
    '/abb',
    'x',
    'x/a',
    '/a\n',
    '/a\nx',
    '/x.mp3',
    '/x.MP3',
    '/x.mp3\n',
    '/x.mp3x',
    '/x.tmp',
    '/x.tmp.keep',
    '/',
    '',
    '/é',
    '/e\u0301',
    '/🦆',
    '/]',
    '/[',
    '/-',
    '/ ',
    "/'",
    '/a{x',
    '/{',
    '/}',
    '/&',
    '/1',
    '/١',
    '/a b',
    '/a.b-c',
    '/a\u0085',
    '/\r',
    '/\u2028',
    '/b\rx',
    '/c',
    '//',
  ]

  /** What Python says of each text by each pattern; null for a pattern that it refuses. */
  function byPython(patterns: readonly string[], texts: readonly string[]): (boolean[] | null)[] {
    const program = [
      'import json, re, sys',
      'patterns, texts = json.load(sys.stdin)',
      'def row(pattern):',
      '    try: compiled = re.compile(pattern)',
      '    except Exception: return None',
      '    return [compiled.match(text) is not None for text in texts]',
      'print(json.dumps([row(pattern) for pattern in patterns]))',
    ].join('\n')
    const { stdout, stderr } = spawnSync('python3', ['-W', 'ignore', '-c', program], {
      input: JSON.stringify([patterns, texts]),
      encoding: 'utf8',
      maxBuffer: 64 << 20,
    })
    assert.equal(stderr, '')
    return JSON.parse(stdout) as (boolean[] | null)[]
  }

  test('match what re.match does, from the start and not to the end', () => {
    const expected = byPython(PATTERNS, TEXTS)
    for (const [index, pattern] of PATTERNS.entries()) {
      const matches = compilePython(pattern)
      const wrong = TEXTS.filter((text, at) => matches(text) !== expected[index]?.[at])
      assert.deepEqual(wrong, [], `by ${pattern}`)
    }
  })

  test('patterns of any pieces match what Python says, or are refused', () => {
    const pieces = [
      ...[
        'a',
        'b',
        '.',
        '^',
        '$',
        '*',
        '+',
        '?',
        '*?',
        '{2}',
        '{,1}',
        '{1,}',
        '{',
        '}',
        '|',
        '(',
        ')',
        '(?:',
        '(?P<n>',
        '(?P=n)',
      ],
      ...[
        '(?=',
        '(?!',
        '(?<=',
        '(?<!',
        '[ab]',
        '[^a]',
        '[]a]',
        '[a-',
        '[',
        ']',
        '\\w',
        '\\W',
        '\\d',
        '\\s',
        '\\S',
        '\\b',
        '\\B',
      ],
      ...[
        '\\A',
        '\\Z',
        '\\1',
        '\\.',
        '\\-',
        '-',
        '/',
        '\n',
        'é',
        '(?i:',
        '(?i)',
        '(?s)',
        '(?m)',
        '(?#x)',
        '\\n',
        '&',
        '~',
        '#',
      ],
      ...[' ', '[\\w-]', '[\\]]', '[a\\-b]', '[\\s\\d]', '\\_', '++', '(?>', '🦆'],
    ]
    const pattern = fc.array(fc.constantFrom(...pieces), { minLength: 1, maxLength: 6 }).map((parts) => parts.join(''))
    const patterns = fc.sample(pattern, { seed: 46, numRuns: 6000 })
    const texts = TEXTS.filter((text) => text !== '')
    let translated = 0
    for (const [index, expected] of byPython(patterns, texts).entries()) {
      if (expected === null) continue
      const one = patterns[index] ?? ''
      let matches: ReturnType<typeof compilePython>
      try {
        matches = compilePython(one)
      } catch (error) {
        assert.ok(isRefused(error), String(error))
        continue
      }
      translated++
      const wrong = texts.filter((text, at) => matches(text) !== expected[at])
      assert.deepEqual(wrong, [], `by ${one}`)
    }
    assert.ok(translated > 1000, `${translated} were translated`)
  })

  test('what cannot be said in JavaScript is refused with a sentence that names it', () => {
    const rows: [string, RegExp][] = [
      ['(?x) a', /flag "x"/],
      ['a(?i)', /flags that are not at its front/],
      ['(a)?(?(1)b|c)', /group/],
      ['(?>a)', /group/],
      ['a*+', /possessive/],
      ['a**', /quantifier of a quantifier/],
      ['[\\W]', /in a class/],
      ['\\q', /"\\q" cannot be translated/],
      ['\\012', /cannot be translated/],
      ['a\\', /backslash at its end/],
      ['[a', /class without an end/],
      ['(a', /Cannot use "\(a" as a regular expression/],
      ['*a', /Cannot use/],
    ]
    for (const [pattern, message] of rows) {
      assert.throws(
        () => compilePython(pattern),
        (error: unknown) => isRefused(error) && error instanceof Error && message.test(error.message),
        pattern,
      )
    }
  })
})

describe('filter', () => {
  const admitted = (rules: FilterRules, ...paths: string[]): string[] => {
    const filter = new Filter(rules).at('/home/x')
    return paths.filter((path) => filter.reaches(path.replace(/\/$/, ''), path.endsWith('/')))
  }
  const globs = (...texts: string[]): FilterRules => ({
    globs: texts.map((text) => ({ kind: text.startsWith('+') ? 'include' : 'exclude', glob: text.slice(1) })),
  })

  test('the first glob that matches decides, and what none matches takes part', () => {
    assert.deepEqual(admitted(globs('+keep.tmp', '-*.tmp'), 'keep.tmp', 'a.tmp', 'b'), ['keep.tmp', 'b'])
    assert.deepEqual(admitted(globs('-*.tmp', '+keep.tmp'), 'keep.tmp', 'a.tmp', 'b'), ['b'])
    assert.deepEqual(admitted({}, 'a', 'a/b/'), ['a', 'a/b/'])
  })

  test('what lies in an excluded directory does not take part, whatever includes it', () => {
    assert.deepEqual(admitted(globs('+*.mp3', '-cache'), 'a.mp3', 'cache/a.mp3', 'x/cache/y/a.mp3'), ['a.mp3'])
    assert.deepEqual(admitted(globs('+*/', '+*.mp3', '-*'), 'a.mp3', 'x/y/a.mp3', 'x/', 'a.txt'), [
      'a.mp3',
      'x/y/a.mp3',
      'x/',
    ])
  })

  test('includes alone, which would leave nothing out, are refused with what was most likely meant', () => {
    assert.throws(
      () => new Filter(globs('+*.mp3')),
      (error: unknown) => isRefused(error) && error instanceof Error && /--exclude '\*'/.test(error.message),
    )
  })

  test("autosync's expressions are asked of files by their absolute paths, not of directories", () => {
    const sourceFilter = '^.*[mM][pP]3$'
    assert.deepEqual(admitted({ sourceFilter }, 'a.mp3', 'd/b.MP3', 'c.txt', 'd/'), ['a.mp3', 'd/b.MP3', 'd/'])
    assert.deepEqual(admitted({ sourceFilter: '/home/x/d/' }, 'a', 'd/b'), ['d/b'])
    assert.deepEqual(admitted({ sourceExclude: '.*/\\.' }, 'a', '.b', 'd/.c'), ['a'])
    assert.deepEqual(admitted({ sourceFilter, sourceExclude: '/home/x/d/' }, 'a.mp3', 'd/b.mp3'), ['a.mp3'])
    assert.deepEqual(admitted({ ...globs('-d/'), sourceFilter }, 'a.mp3', 'd/b.mp3'), ['a.mp3'])
  })

  test('the fingerprint is that of the rules and of their order', () => {
    const all: FilterRules[] = [
      {},
      globs('-a'),
      globs('-b'),
      globs('-a', '-b'),
      globs('-b', '-a'),
      globs('+a', '-b'),
      { sourceFilter: 'a' },
      { sourceExclude: 'a' },
      { sourceFilter: 'a', sourceExclude: 'a' },
    ]
    const prints = all.map((rules) => new Filter(rules).fingerprint)
    assert.equal(new Set(prints).size, all.length)
    assert.deepEqual(
      all.map((rules) => new Filter(structuredClone(rules)).fingerprint),
      prints,
    )
  })

  test('a scan lists what the filter admits and never enters an excluded directory', async () => {
    const root = mkdtempSync(join(tmpdir(), 'eider-filters-'))
    try {
      for (const path of ['a/b', 'node_modules/c/d', 'x/node_modules/e'])
        mkdirSync(join(root, path), { recursive: true })
      for (const path of ['a/b/f.txt', 'a/f.tmp', 'node_modules/c/d/g', 'x/h']) writeFileSync(join(root, path), '')
      const filter = new Filter(globs('-node_modules/', '-*.tmp')).at(root)
      const asked: string[] = []
      const told = {
        admits: (path: string, isDirectory: boolean): boolean => {
          asked.push(path)
          return filter.admits(path, isDirectory)
        },
      }
      const paths: string[] = []
      for await (const page of new Scan(root, { filter: told })) paths.push(...page.map(({ path }) => path))
      assert.deepEqual(paths, ['a', 'a/b', 'a/b/f.txt', 'x', 'x/h'])
      assert.deepEqual(asked.filter((path) => path.includes('node_modules')).toSorted(), [
        'node_modules',
        'x/node_modules',
      ])
    } finally {
      rmSync(root, { recursive: true })
    }
  })
})
