/** Prefix arithmetic: each worked example of autosync's README, the slash rules, and what is refused. */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'

import fc from 'fast-check'

import { isOperationError } from '#base/errors.ts'

import { Prefixes, type PrefixOptions } from './prefixes.ts'

const HOME = '/home/adeprince'
const FILES = ['1', 'a/2', 'a/b/3', 'c/4'].map((file) => `${HOME}/mystuff/${file}`)

interface Example {
  readonly name: string
  readonly path?: string
  readonly cwd?: string
  readonly sourcePrefix?: string
  readonly targetPrefix?: string
  /** The names that autosync shows, and the paths in a store. */
  readonly keys: readonly string[]
  readonly targets: readonly string[]
}

function prefixesOf(example: Partial<Example>, more: Partial<PrefixOptions> = {}): Prefixes {
  const { path = 'mystuff', cwd = HOME, sourcePrefix, targetPrefix } = example
  return new Prefixes({ paths: [{ path, isDirectory: true }], cwd, sourcePrefix, targetPrefix, ...more })
}

const WHOLE = [
  'home/adeprince/mystuff/1',
  'home/adeprince/mystuff/a/2',
  'home/adeprince/mystuff/a/b/3',
  'home/adeprince/mystuff/c/4',
]
const SHORT = ['1', 'a/2', 'a/b/3', 'c/4']

const EXAMPLES: readonly Example[] = [
  { name: 'autosync mystuff', keys: WHOLE.map((key) => `/${key}`), targets: WHOLE },
  {
    name: 'autosync --source_prefix="/home/" mystuff',
    sourcePrefix: '/home/',
    keys: WHOLE.map((key) => key.slice(5)),
    targets: WHOLE.map((key) => key.slice(5)),
  },
  {
    name: 'autosync --source_prefix=$PWD/mystuff/ mystuff',
    sourcePrefix: `${HOME}/mystuff/`,
    keys: SHORT,
    targets: SHORT,
  },
  {
    name: 'the same without the trailing slash',
    sourcePrefix: `${HOME}/mystuff`,
    keys: SHORT.map((key) => `/${key}`),
    targets: SHORT,
  },
  {
    name: 'autosync --source_prefix=$PWD/mystuff/ --target-prefix=/foo/bar/ mystuff',
    sourcePrefix: `${HOME}/mystuff/`,
    targetPrefix: '/foo/bar/',
    keys: SHORT.map((key) => `/foo/bar/${key}`),
    targets: SHORT.map((key) => `foo/bar/${key}`),
  },
  {
    name: 'a target prefix without its trailing slash',
    sourcePrefix: `${HOME}/mystuff/`,
    targetPrefix: 'foo/bar',
    keys: SHORT.map((key) => `foo/bar/${key}`),
    targets: SHORT.map((key) => `foo/bar/${key}`),
  },
  {
    name: 'a source prefix without its trailing slash keeps the target prefix',
    sourcePrefix: `${HOME}/mystuff`,
    targetPrefix: 'foo/bar/',
    keys: SHORT.map((key) => `foo/bar/${key}`),
    targets: SHORT.map((key) => `foo/bar/${key}`),
  },
  {
    name: 'a source prefix that ends within a name',
    sourcePrefix: `${HOME}/my`,
    keys: SHORT.map((key) => `stuff/${key}`),
    targets: SHORT.map((key) => `stuff/${key}`),
  },
  {
    name: 'a source prefix that no path begins with',
    sourcePrefix: 'mystuff/',
    keys: WHOLE.map((key) => `/${key}`),
    targets: WHOLE,
  },
]

describe('prefixes', () => {
  for (const example of EXAMPLES) {
    test(example.name, () => {
      const prefixes = prefixesOf(example)
      assert.deepEqual(
        FILES.map((file) => prefixes.keyOf(file)),
        example.keys,
      )
      assert.deepEqual(
        FILES.map((file) => prefixes.targetOf(file)),
        example.targets,
      )
      assert.deepEqual(
        example.targets.map((target) => prefixes.sourceOf(target)),
        FILES,
      )
    })
  }

  test('the tree that tar makes of "cd ~/mystuff; tar *" is that of a sync of "." with the prefix of its slash', () => {
    const prefixes = prefixesOf({ path: '.', cwd: `${HOME}/mystuff`, sourcePrefix: `${HOME}/mystuff/` })
    assert.deepEqual(
      FILES.map((file) => prefixes.targetOf(file)),
      SHORT,
    )
  })

  test('the installation of the README: a root with a trailing slash, and the same as prefix', () => {
    const path = '/home/DAVID/audio/audioroot/main/'
    const prefixes = prefixesOf({ path, sourcePrefix: path })
    assert.deepEqual(prefixes.roots, [{ source: path.slice(0, -1), isDirectory: true, target: '' }])
    assert.equal(prefixes.keyOf(`${path}show/one.mp3`), 'show/one.mp3')
    assert.equal(prefixes.targetOf(`${path}show/one.mp3`), 'show/one.mp3')
    assert.equal(prefixes.sourceOf('show/one.mp3'), `${path}show/one.mp3`)
  })

  test("what lies outside is nobody's: of the sources, and of the target", () => {
    const prefixes = prefixesOf({ sourcePrefix: `${HOME}/mystuff/`, targetPrefix: 'foo/' })
    assert.equal(prefixes.targetPrefix, 'foo')
    assert.equal(prefixes.targetOf(`${HOME}/mystuff2/1`), undefined)
    assert.equal(prefixes.targetOf(`${HOME}/mystuff`), 'foo')
    assert.equal(prefixes.sourceOf('foo'), `${HOME}/mystuff`)
    assert.equal(prefixes.sourceOf('foo2/1'), undefined)
    assert.equal(prefixes.sourceOf('1'), undefined)
  })

  test('a prefix that takes nothing off is told', () => {
    assert.equal(prefixesOf({}).isSourcePrefixIdle, false)
    assert.equal(prefixesOf({ sourcePrefix: 'mystuff/' }).isSourcePrefixIdle, true)
    assert.equal(prefixesOf({ sourcePrefix: `${HOME}/mystuff/` }).isSourcePrefixIdle, false)
  })

  test('several paths, files among them, come in the order of their sort keys; one within another is part of it', () => {
    const paths = [
      { path: '/d/x', isDirectory: true },
      { path: '/d/x-b', isDirectory: true },
      { path: '/d/x/below', isDirectory: true },
      { path: '/d/file', isDirectory: false },
      { path: '/d/x/', isDirectory: true },
    ]
    const prefixes = prefixesOf({ sourcePrefix: '/d/' }, { paths })
    assert.deepEqual(
      prefixes.roots.map(({ target }) => target),
      ['file', 'x-b', 'x'],
    )
    assert.equal(prefixes.targetOf('/d/file'), 'file')
    assert.equal(prefixes.targetOf('/d/file/x'), undefined)
    assert.equal(prefixes.sourceOf('file'), '/d/file')
    assert.equal(prefixes.sourceOf('file/x'), undefined)
    assert.equal(prefixes.targetOf('/d/x/below/y'), 'x/below/y')
  })

  test('the root of the file system can be synced', () => {
    const prefixes = prefixesOf({ path: '/', targetPrefix: 'all' })
    assert.equal(prefixes.targetOf('/etc/hosts'), 'all/etc/hosts')
    assert.equal(prefixes.sourceOf('all/etc/hosts'), '/etc/hosts')
  })

  const REFUSED: readonly [string, readonly [string, boolean][], string | undefined, RegExp][] = [
    [
      'one path loses its prefix and the other lies in what that becomes',
      [
        ['/a/x', true],
        ['/b/y', true],
      ],
      '/a/x/',
      /lies in the root of the target.*source prefix that both/,
    ],
    [
      'two become one',
      [
        ['/d/x/same', true],
        ['/same', true],
      ],
      '/d/x',
      /both become "same"/,
    ],
    [
      'two files become one',
      [
        ['/d/x/same', false],
        ['/same', false],
      ],
      '/d/x',
      /both become "same"/,
    ],
    [
      'a file lies in what a directory becomes',
      [
        ['/a', true],
        ['/b/f', false],
      ],
      '/a/',
      /lies in the root of the target/,
    ],
    [
      'a prefix that only a part begins with',
      [['/data', true]],
      '/data/in/',
      /only a part.*name "\/data\/in" as the path/,
    ],
    ['a prefix that only a part begins with, within a name', [['/data', true]], '/data/i', /only a part/],
    ['a file whose whole path is the prefix', [['/data/f', false]], '/data/f', /without a name/],
  ]
  for (const [name, paths, sourcePrefix, message] of REFUSED) {
    test(`refused: ${name}`, () => {
      const named = paths.map(([path, isDirectory]) => ({ path, isDirectory }))
      assert.throws(
        () => prefixesOf({}, { paths: named, sourcePrefix }),
        (error: unknown) => isOperationError(error, 'INPUT_INVALID') && message.test(error.message),
      )
    })
  }

  test('[trap 15] refused: no path, and target prefixes with ".", "..", empty names or NUL', () => {
    const isRefused = (error: unknown): boolean => isOperationError(error, 'INPUT_INVALID')
    assert.throws(() => prefixesOf({}, { paths: [] }), isRefused)
    for (const targetPrefix of ['a//b', 'a/../b', './a', 'a\0b']) {
      assert.throws(() => prefixesOf({ targetPrefix }), isRefused, targetPrefix)
    }
  })

  test('no two sources become one target, and the inverse leads back, for whatever is not refused', () => {
    const name = fc.constantFrom('a', 'b', 'ab')
    const path = fc.array(name, { minLength: 1, maxLength: 3 }).map((parts) => `/${parts.join('/')}`)
    const root = fc.record({ path, isDirectory: fc.boolean() })
    const prefix = fc.tuple(path, fc.constantFrom('', '/')).map(([one, end]) => one + end)
    let accepted = 0
    fc.assert(
      fc.property(
        fc.array(root, { minLength: 1, maxLength: 3 }),
        fc.option(prefix, { nil: undefined }),
        fc.option(prefix, { nil: undefined }),
        fc.uniqueArray(path, { minLength: 10, maxLength: 30 }),
        (paths, sourcePrefix, targetPrefix, files) => {
          // A file that is named cannot have others below it.
          const real = paths.filter(
            (one) => one.isDirectory || !paths.some((other) => other.path.startsWith(`${one.path}/`)),
          )
          let prefixes: Prefixes
          try {
            prefixes = new Prefixes({ paths: real, sourcePrefix, targetPrefix })
          } catch (error) {
            assert.ok(isOperationError(error, 'INPUT_INVALID'), String(error))
            return
          }
          accepted++
          const all = [
            ...files,
            ...real.flatMap((one) => (one.isDirectory ? files.map((file) => one.path + file) : one.path)),
          ]
          const sources = new Map<string, string>()
          for (const file of new Set(all)) {
            const target = prefixes.targetOf(file)
            if (target === undefined) continue
            assert.equal(sources.get(target), undefined, `${file} and ${sources.get(target)} become ${target}`)
            sources.set(target, file)
            assert.equal(prefixes.sourceOf(target), file)
            if (!real.some((one) => one.isDirectory && one.path === file)) {
              assert.equal(target, prefixes.keyOf(file).replace(/^\//, ''))
            }
          }
        },
      ),
      { seed: 44, numRuns: 1000 },
    )
    assert.ok(accepted > 200, `${accepted} were accepted`)
  })
})
