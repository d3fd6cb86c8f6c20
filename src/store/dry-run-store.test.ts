/** The dry run: the suite over several stores within that refuse every change, and its own promises. */
import assert from 'node:assert/strict'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, utimesSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'

import fc from 'fast-check'

import { isOperationError } from '#base/errors.ts'

import { openDirectoryStore } from './directory-store.ts'
import { dryRunStore, type DryRunStore } from './dry-run-store.ts'
import { openMemoryStore } from './memory-store.ts'
import { isWithin } from './path.ts'
import { readOnlyStore } from './read-only-store.ts'
import { runStoreSuite } from './store-suite.ts'
import { ABSENT, ANY, ifVersion, type Entry, type ListOptions, type Store } from './store.ts'
import { assertContent, assertGone, contentOf, keysOf, listAll, noise, rejectsWith } from './suite/case.ts'
import { withHidden } from './suite/hidden-double.ts'

const SILENT = { info: () => undefined }

function temporary(): string {
  return mkdtempSync(join(tmpdir(), 'eider-dry-'))
}

runStoreSuite('dry run over memory', async () => {
  const directory = temporary()
  const store = dryRunStore(readOnlyStore(openMemoryStore()), { directory, log: SILENT })
  return {
    store,
    close: async () => {
      await store.close()
      assert.deepEqual(readdirSync(directory), [])
      rmSync(directory, { recursive: true })
    },
  }
})

runStoreSuite('dry run over a directory', async () => {
  const directory = temporary()
  const root = join(directory, 'root')
  mkdirSync(root)
  const store = dryRunStore(readOnlyStore(await openDirectoryStore(root)), { directory, log: SILENT })
  return {
    store,
    close: async () => {
      await store.close()
      assert.deepEqual(readdirSync(directory), ['root'])
      rmSync(directory, { recursive: true })
    },
  }
})

runStoreSuite('dry run over memory that others fill', async () => {
  const directory = temporary()
  const inner = openMemoryStore()
  const dryRun = dryRunStore(inner, { directory, log: SILENT })
  return {
    store: filledBelow(dryRun, inner),
    close: async () => {
      await dryRun.close()
      rmSync(directory, { recursive: true })
    },
  }
})

/** A store whose new entries come into being in `inner`, wherever the dry run has not been asked for a change yet. */
function filledBelow(dryRun: DryRunStore, inner: Store): Store {
  const touched = new Set<string>()
  const touching = <T>(paths: readonly string[], work: () => Promise<T>): Promise<T> => {
    for (const path of paths) touched.add(path)
    return work()
  }
  const place = (path: string): Store => {
    for (const other of touched) if (isWithin(path, other) || isWithin(other, path)) return dryRun
    return inner
  }
  return {
    url: dryRun.url,
    capabilities: dryRun.capabilities,
    stat: (path, o) => dryRun.stat(path, o),
    list: (path, o) => dryRun.list(path, o),
    read: (path, o) => dryRun.read(path, o),
    readLink: (path, o) => dryRun.readLink(path, o),
    put: async (path, source, o) => place(path).put(path, source, o),
    symlink: async (path, target, o) => place(path).symlink(path, target, o),
    makeSpecial: async (path, kind, o) => place(path).makeSpecial(path, kind, o),
    makeDirectory: async (path, o) => place(path).makeDirectory(path, o),
    setAttributes: (path, changes, o) => touching([path], () => dryRun.setAttributes(path, changes, o)),
    copy: (from, to, o) => touching([to], () => dryRun.copy(from, to, o)),
    rename: (from, to, o) => touching([from, to], () => dryRun.rename(from, to, o)),
    exchange: (path, other, o) => touching([path, other], () => dryRun.exchange(path, other, o)),
    remove: (path, o) => touching([path], () => dryRun.remove(path, o)),
    removeDirectory: (path, o) => touching([path], () => dryRun.removeDirectory(path, o)),
    removeAll: (removals, o) =>
      touching(
        removals.map(({ path }) => path),
        () => dryRun.removeAll(removals, o),
      ),
    space: (o) => dryRun.space(o),
    close: () => dryRun.close(),
  }
}

/** Runs `use` with a dry run over `inner`, and what it has logged. */
async function inDryRun(
  inner: Store,
  use: (store: DryRunStore, lines: Record<string, unknown>[], directory: string) => Promise<void>,
): Promise<void> {
  const directory = temporary()
  const lines: Record<string, unknown>[] = []
  const info = (fields: object, message?: string): void => {
    lines.push({ ...fields, message })
  }
  const store = dryRunStore(inner, { directory, log: { info } })
  try {
    await use(store, lines, directory)
  } finally {
    await store.close()
    rmSync(directory, { recursive: true, force: true })
  }
}

async function filled(paths: readonly string[]): Promise<Store> {
  const inner = openMemoryStore()
  for (const [index, path] of paths.entries()) {
    if (path.endsWith('/')) await inner.makeDirectory(path.slice(0, -1), { guard: ABSENT })
    else await inner.put(path, noise(10 + index, index), { guard: ABSENT, attributes: { mode: 0o640 } })
  }
  return inner
}

/** All entries with their bytes, for comparison. */
async function imageOf(store: Store): Promise<string[]> {
  const lines: string[] = []
  for (const { path, kind, size, attributes } of await listAll(store, '', { recursive: true })) {
    const bytes = kind === 'file' ? (await contentOf(store, path)).toString('hex') : ''
    lines.push(`${path} ${kind} ${size} ${attributes?.mode} ${bytes}`)
  }
  return lines
}

test('[S82] dry run: changes show through it, none is sent, each is told with its cost, and all are gone with it', async () => {
  const inner = await filled(['a', 'dir/b', 'dir/c', 'dir/sub/d'])
  const before = await imageOf(inner)
  await inDryRun(inner, async (store, lines) => {
    const { version } = await store.stat('a')
    await store.put('a', noise(1000, 1), { guard: ifVersion(version) })
    await store.put('large', { kind: 'stream', stream: large() }, { guard: ABSENT })
    await store.rename('dir', 'moved/here', { guard: ANY, targetGuard: ABSENT })
    await store.remove('moved/here/b', { guard: ANY })
    await store.setAttributes('moved/here/c', { mode: 0o600 }, { guard: ANY })
    await rejectsWith(store.put('a', noise(1, 1), { guard: ABSENT }), 'STORE_CONFLICT')
    await assertContent(store, 'a', noise(1000, 1))
    await assertContent(store, 'moved/here/sub/d', noise(13, 3))
    await assertGone(store, 'dir')
    assert.deepEqual(keysOf(await listAll(store, 'moved/here', { recursive: true }), 'moved/here'), [
      'c',
      'sub/',
      'sub/d',
    ])
    assert.deepEqual(keysOf(await listAll(store, ''), ''), ['a', 'large', 'moved/'])
    assert.deepEqual(
      lines.map(({ change, path, to, bytes, requests }) => [change, path, to, bytes, requests]),
      [
        ['put', 'a', undefined, 1000, 1],
        ['put', 'large', undefined, 17 << 20, 5],
        ['rename', 'dir', 'moved/here', 0, 3 + 2 * 4 + 2],
        ['remove', 'moved/here/b', undefined, 0, 2],
        ['setAttributes', 'moved/here/c', undefined, 0, 2],
      ],
    )
    assert.deepEqual(store.summary(), { changes: 5, bytes: (17 << 20) + 1000, requests: 23 })
    assert.deepEqual(await imageOf(inner), before)
    await store.close()
    const { message, ...said } = lines.at(-1) ?? {}
    assert.match(String(message), /none of these changes was sent/)
    assert.deepEqual(said, store.summary())
  })
})

test('[S82] dry run: a removal of many tells how many were removed and the first of them, and no price where none is asked', async () => {
  const names = Array.from({ length: 12 }, (_, index) => `file-${String(index).padStart(2, '0')}`)
  const inner = await filled(names)
  await inDryRun(inner, async (store, lines) => {
    const found = await listAll(store, '')
    const [first] = found
    assert.ok(first !== undefined)
    await store.remove(first.path, { guard: ANY })
    await store.removeAll(found)
    const { change, entries, paths, path, requests, costUsd } = lines.at(-1) ?? {}
    assert.deepEqual([change, entries, path, requests, costUsd], ['removeAll', 11, undefined, 1, undefined])
    assert.deepEqual(paths, names.slice(1, 11))
  })
})

async function* large(): AsyncGenerator<Uint8Array> {
  for (let count = 0; count < 17; count++) yield Buffer.alloc(1 << 20, count)
}

test('dry run: a directory is moved without asking for what lies in it but once, and its files keep their versions', async () => {
  const names = Array.from({ length: 500 }, (_, index) => `dir/f${String(index).padStart(3, '0')}`)
  const inner = await filled(names)
  const { version } = await inner.stat('dir/f007')
  const calls: string[] = []
  await inDryRun(counting(inner, calls), async (store) => {
    await store.rename('dir', 'a/b', { guard: ANY, targetGuard: ABSENT })
    await store.rename('a', 'c', { guard: ANY, targetGuard: ABSENT })
    assert.deepEqual(
      calls.filter((call) => call.startsWith('read')),
      [],
    )
    assert.ok(calls.length <= 12, calls.join(', '))
    assert.equal((await store.stat('c/b/f007')).version, version)
    const reading = await store.read('c/b/f007', { version, offset: 1, length: 3 })
    assert.equal(reading.entry.path, 'c/b/f007')
    assert.deepEqual(await reading.bytes(), noise(17, 7).subarray(1, 4))
    await rejectsWith(store.removeDirectory('c/b'), 'STORE_NOT_EMPTY')
    assert.equal((await listAll(store, 'c/b')).length, 500)
    await store.remove('c/b/f000', { guard: ANY })
    await store.put('c/b/f001x', noise(5, 1), { guard: ABSENT })
    assert.deepEqual(keysOf(await listAll(store, 'c/b', { prefix: 'f00', after: 'f000' }), 'c/b').slice(0, 3), [
      'f001',
      'f001x',
      'f002',
    ])
  })
})

function counting(inner: Store, calls: string[]): Store {
  return {
    ...readOnlyStore(inner),
    stat: (path, o) => {
      calls.push(`stat ${path}`)
      return inner.stat(path, o)
    },
    list: (path, o) => {
      calls.push(`list ${path}`)
      return inner.list(path, o)
    },
    read: (path, o) => {
      calls.push(`read ${path}`)
      return inner.read(path, o)
    },
  }
}

test('dry run: what the store within hides is told of by the names that it shows under', async () => {
  const inner = withHidden(openMemoryStore(), ['d/e/..', 'd//x', 'other/.'])
  for (const path of ['d/e/f', 'other/g']) await inner.put(path, Buffer.from(path), { guard: ABSENT })
  await inDryRun(inner, async (store) => {
    const told = async (path: string): Promise<string[]> => {
      const paths: string[] = []
      for await (const _ of store.list(path, { recursive: true, onHidden: (hidden) => paths.push(hidden.path) })) void _
      return paths.toSorted()
    }
    assert.deepEqual(await told(''), ['d//x', 'd/e/..', 'other/.'])
    await store.rename('d', 'moved', { guard: ANY, targetGuard: ABSENT })
    assert.deepEqual(await told('moved/e'), ['moved/e/..'])
    await store.put('moved/new', Buffer.from('new'), { guard: ABSENT })
    assert.deepEqual(await told('moved'), ['moved/e/..'])
    assert.deepEqual(await told(''), ['moved/e/..', 'other/.'])
  })
})

test('dry run: what others change in the store within shows where nothing was changed here', async () => {
  const inner = await filled(['dir/kept', 'dir/changed'])
  await inDryRun(inner, async (store) => {
    const mine = await store.put('dir/changed', noise(9, 9), { guard: ANY })
    await inner.put('dir/changed', noise(8, 8), { guard: ANY })
    await inner.put('dir/new', noise(7, 7), { guard: ABSENT })
    await inner.remove('dir/kept', { guard: ANY })
    assert.deepEqual(keysOf(await listAll(store, 'dir'), 'dir'), ['changed', 'new'])
    assert.equal((await store.stat('dir/changed')).version, mine.version)
    await assertContent(store, 'dir/changed', noise(9, 9))
    await assertContent(store, 'dir/new', noise(7, 7))
    // Of a file that was only given another mode here, its bytes are those of the version that was here then.
    await store.setAttributes('dir/new', { mode: 0o400 }, { guard: ANY })
    await inner.put('dir/new', noise(6, 6), { guard: ANY })
    await rejectsWith(contentOf(store, 'dir/new'), 'STORE_CONFLICT')
  })
})

test('dry run: bodies that nothing has any more take no room, and what is being read stays', async () => {
  await inDryRun(openMemoryStore(), async (store, _lines, directory) => {
    const bodies = (): number => readdirSync(join(directory, readdirSync(directory)[0] ?? '')).length
    for (let index = 0; index < 20; index++) await store.put('file', noise(600_000, index), { guard: ANY })
    await store.copy('file', 'copy', { guard: ABSENT })
    const reading = await store.read('file')
    await store.remove('file', { guard: ANY })
    await assertContent(store, 'copy', noise(600_000, 19))
    await rejectsWith(store.put('copy', noise(1, 1), { guard: ABSENT }), 'STORE_CONFLICT')
    while (bodies() > 1) await new Promise((resolve) => setImmediate(resolve))
    await store.remove('copy', { guard: ANY })
    while (bodies() > 0) await new Promise((resolve) => setImmediate(resolve))
    assert.deepEqual(await reading.bytes(), noise(600_000, 19))
  })
})

test('dry run: what a killed one left is removed by the next, and what a live one has is not', async () => {
  await inDryRun(openMemoryStore(), async (live, _lines, directory) => {
    await live.put('file', noise(10, 1), { guard: ABSENT })
    const [own = ''] = readdirSync(directory)
    mkdirSync(join(directory, 'eider-dry-run-left'))
    mkdirSync(join(directory, 'another'))
    for (const name of readdirSync(directory)) utimesSync(join(directory, name), 1, 1)
    const next = dryRunStore(openMemoryStore(), { directory, log: SILENT })
    assert.equal(existsSync(join(directory, 'eider-dry-run-left')), false)
    assert.equal(existsSync(join(directory, 'another')), true)
    assert.equal(existsSync(join(directory, own)), true)
    await next.close()
    await assertContent(live, 'file', noise(10, 1))
  })
})

const names = fc.constantFrom('a', 'a-', 'b', 'ü')
const paths = fc.array(names, { minLength: 1, maxLength: 3 }).map((parts) => parts.join('/'))
const steps = fc.oneof(
  { weight: 3, arbitrary: fc.record({ op: fc.constant('put' as const), path: paths, seed: fc.nat(500) }) },
  { weight: 3, arbitrary: fc.record({ op: fc.constant('remove' as const), path: paths }) },
  { weight: 3, arbitrary: fc.record({ op: fc.constant('makeDirectory' as const), path: paths }) },
  { weight: 2, arbitrary: fc.record({ op: fc.constant('removeDirectory' as const), path: paths }) },
  { weight: 2, arbitrary: fc.record({ op: fc.constant('setAttributes' as const), path: paths, mode: fc.nat(0o777) }) },
  { weight: 4, arbitrary: fc.record({ op: fc.constant('rename' as const), path: paths, to: paths }) },
  { weight: 3, arbitrary: fc.record({ op: fc.constant('exchange' as const), path: paths, to: paths }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('copy' as const), path: paths, to: paths }) },
)
type Step = typeof steps extends fc.Arbitrary<infer T> ? T : never

async function perform(store: Store, step: Step): Promise<unknown> {
  const { path } = step
  switch (step.op) {
    case 'put':
      return store.put(path, noise(step.seed, step.seed), { guard: ANY, attributes: { mode: 0o600 } })
    case 'remove':
      return store.remove(path, { guard: ANY })
    case 'makeDirectory':
      return store.makeDirectory(path, { guard: ABSENT })
    case 'removeDirectory':
      return store.removeDirectory(path)
    case 'setAttributes':
      return store.setAttributes(path, { mode: step.mode }, { guard: ANY })
    case 'rename':
      return store.rename(path, step.to, { guard: ANY, targetGuard: ANY })
    case 'exchange':
      return store.exchange(path, step.to, { guard: ANY, otherGuard: ANY })
    case 'copy':
      return store.copy(path, step.to, { guard: ANY })
  }
}

async function outcomeOf(work: Promise<unknown>): Promise<string> {
  try {
    await work
    return 'done'
  } catch (error) {
    if (!isOperationError(error)) throw error
    return error.code
  }
}

/** Whether what the step makes would make directories above it: stores differ in how long those stay. */
async function needsParents(store: Store, step: Step): Promise<boolean> {
  const to = 'to' in step ? step.to : step.path
  const parent = to.includes('/') ? to.slice(0, to.lastIndexOf('/')) : ''
  return (await outcomeOf(store.stat(parent))) === 'STORE_NOT_FOUND'
}

function shown({ path, kind, size, attributes }: Entry): string {
  return `${path} ${kind} ${size} ${attributes?.mode}`
}

test('[S82] dry run: random changes over a filled store do what they do in a store that makes them', async () => {
  const filters = fc.record({
    prefix: fc.constantFrom('', 'a', 'a/', 'a-/b', 'b/ü/'),
    after: fc.option(paths, { nil: '' }),
  })
  const trees = fc.array(steps, { maxLength: 25 })
  const property = fc.asyncProperty(
    trees,
    trees,
    fc.array(filters, { maxLength: 5 }),
    async (first, second, scopes) => {
      const [inner, reference] = [openMemoryStore(), openMemoryStore()]
      for (const step of first) {
        if (await needsParents(reference, step)) continue
        for (const store of [inner, reference]) await outcomeOf(perform(store, step))
      }
      const before = await imageOf(inner)
      await inDryRun(readOnlyStore(inner), async (store) => {
        for (const step of second) {
          if (await needsParents(reference, step)) continue
          const expected = await outcomeOf(perform(reference, step))
          assert.equal(await outcomeOf(perform(store, step)), expected, JSON.stringify(step))
        }
        assert.deepEqual(await imageOf(store), await imageOf(reference))
        for (const { prefix, after } of scopes) {
          for (const recursive of [false, true]) {
            for (const path of ['', 'a', 'a/b']) {
              const options: ListOptions = { prefix, after, recursive, pageEntries: 2 }
              const expected = await listAll(reference, path, options).catch(() => undefined)
              const found = await listAll(store, path, options).catch(() => undefined)
              assert.deepEqual(found?.map(shown), expected?.map(shown), JSON.stringify([path, options]))
            }
          }
        }
      })
      assert.deepEqual(await imageOf(inner), before)
    },
  )
  await fc.assert(property, { seed: 20_261, numRuns: 200 })
})
