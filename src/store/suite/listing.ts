/** Cases of the store suite: listings in order, resumed, filtered, of whole trees, and of large directories. */
import assert from 'node:assert/strict'

import { compareUtf8 } from '#store/path.ts'
import { ABSENT, ANY, IMPLICIT_VERSION, sortKey, type Entry, type ListOptions, type Store } from '#store/store.ts'

import { inParallel, keysOf, listAll, noise, rejectsWith, type SuiteCase, type SuiteContext } from './case.ts'

/** Fails unless the listing gives just these keys, in order where the store keeps one. */
async function assertListing(
  store: Store,
  directory: string,
  options: ListOptions,
  expected: readonly string[],
): Promise<void> {
  const entries = await listAll(store, directory, options)
  // Implicit directories may be left out of a listing of a whole tree, so its directories are not compared.
  const shown = options.recursive === true ? entries.filter((entry) => entry.kind !== 'directory') : entries
  const keys = keysOf(shown, directory)
  if (store.capabilities.listingOrdered) assertOrdered(entries)
  assert.deepEqual(keys.toSorted(compareUtf8), expected.toSorted(compareUtf8), JSON.stringify(options))
}

function assertOrdered(entries: readonly Entry[]): void {
  for (let index = 1; index < entries.length; index++) {
    const [before, after] = [entries[index - 1], entries[index]]
    assert.ok(before !== undefined && after !== undefined)
    assert.ok(compareUtf8(sortKey(before), sortKey(after)) < 0, `"${sortKey(before)}" before "${sortKey(after)}"`)
  }
}

/** Files whose names lie around the slash, which sorts between "." and "0". */
const TREE = ['a', 'a-', 'a.txt', 'b-/x', 'b/1', 'b/2/deep/er', 'b/2/x', 'b/3', 'b0', 'c/\u{10348}', 'c/\uffee', 'd']
const TOP = ['a', 'a-', 'a.txt', 'b-/', 'b/', 'b0', 'c/', 'd']

async function makeTree({ store, at, options }: SuiteContext): Promise<void> {
  await inParallel(TREE.length, options.parallel, async (index) => {
    await store.put(at(TREE[index] ?? ''), noise(index, index), { guard: ABSENT })
  })
}

export const listingCases: readonly SuiteCase[] = [
  {
    name: '[S7] listing: a directory by sort key, with kinds and sizes',
    run: async (context) => {
      const { store, directory } = context
      await makeTree(context)
      await assertListing(store, directory, {}, TOP)
      const entries = await listAll(store, directory)
      if (store.capabilities.listingOrdered) assert.deepEqual(keysOf(entries, directory), TOP)
      for (const entry of entries) {
        const found = await store.stat(entry.path)
        assert.equal(entry.kind, found.kind)
        assert.equal(entry.size, found.size)
        assert.equal(entry.version, found.version)
        if (store.capabilities.listingComplete) {
          // Reading a directory may set its access time, so that is not compared.
          assert.deepEqual({ ...entry.attributes, atime: 0 }, { ...found.attributes, atime: 0 })
        }
      }
    },
  },
  {
    name: '[S7] listing: resumed after every key and between keys',
    run: async (context) => {
      const { store, directory } = context
      await makeTree(context)
      const afters = [...TOP, '', 'a,', 'a/', 'b', 'b/1', 'b/9', 'b//', 'c/\uffee', 'c0', 'e', '\u{10ffff}']
      for (const after of afters) {
        const expected = TOP.filter((key) => compareUtf8(key, after) > 0)
        await assertListing(store, directory, { after }, expected)
      }
    },
  },
  {
    name: 'listing: by prefix, also together with after',
    run: async (context) => {
      const { store, directory } = context
      await makeTree(context)
      for (const prefix of ['', 'a', 'a-', 'b', 'b/', 'b/2', 'c', 'c/', 'x', 'd']) {
        for (const after of ['', 'a', 'b-/', 'b/', 'b/1', 'c']) {
          const expected = TOP.filter((key) => key.startsWith(prefix) && compareUtf8(key, after) > 0)
          await assertListing(store, directory, { prefix, after }, expected)
        }
      }
    },
  },
  {
    name: 'listing: of a whole tree, resumed and by prefix',
    run: async (context) => {
      const { store, directory } = context
      await makeTree(context)
      await assertListing(store, directory, { recursive: true }, TREE)
      for (const prefix of ['', 'b', 'b/', 'b/2', 'b/2/d', 'c/']) {
        for (const after of ['', 'a-', 'b/', 'b/1', 'b/2', 'b/2/deep/', 'b/2/deep/er', 'b/2/y', 'c/\uffee', 'z']) {
          const expected = TREE.filter((key) => key.startsWith(prefix) && compareUtf8(key, after) > 0)
          await assertListing(store, directory, { recursive: true, prefix, after }, expected)
        }
      }
    },
  },
  {
    name: '[S7] listing: a tree by pages, each directory before what lies in it, resumed after any string',
    run: async (context) => {
      const { store, directory, at, skip } = context
      if (store.listTree === undefined) {
        skip('the store has none')
        return
      }
      await makeTree(context)
      await store.makeDirectory(at('b/2/made'), { guard: ABSENT })
      await store.makeDirectory(at('c'), { guard: ANY })
      const directories = ['b-/', 'b/', 'b/2/', 'b/2/deep/', 'b/2/made/', 'c/']
      const expected = [...TREE, ...directories].toSorted(compareUtf8)
      for (const pageEntries of [1000, 4]) {
        for (const after of [
          '',
          'a-',
          'b',
          'b/',
          'b/1',
          'b/2',
          'b/2/',
          'b/2/deep/',
          'b/2/deep/er',
          'b/2/y',
          'c/',
          'z',
        ]) {
          const keys: string[] = []
          for (let from = after, isLast = false; !isLast;) {
            const page = await store.listTree(directory, { after: from, pageEntries })
            const found = keysOf(page.entries, directory)
            assert.ok(found.length > 0 || page.isLast, `something after "${from}"`)
            keys.push(...found)
            from = found.at(-1) ?? from
            isLast = page.isLast
          }
          const rest = expected.filter((key) => compareUtf8(key, after) > 0)
          assert.deepEqual(keys, rest, `after "${after}", ${pageEntries} a page`)
        }
      }
      const { entries } = await store.listTree(directory)
      for (const entry of entries) {
        const { kind, size, version, attributes } = await store.stat(entry.path)
        assert.deepEqual([entry.kind, entry.size, entry.version], [kind, size, version], entry.path)
        // A directory that nobody has made has none, and is known by that.
        if (version === IMPLICIT_VERSION) assert.deepEqual([entry.attributes, attributes], [{}, {}], entry.path)
      }
      const nothing = await store.listTree(at('nothing'))
      assert.deepEqual(nothing, { entries: [], isLast: true })
    },
  },
  {
    name: 'listing: in small pages, none of them much larger than asked for',
    run: async (context) => {
      const { store, directory } = context
      await makeTree(context)
      for (const recursive of [false, true]) {
        const pages: (readonly Entry[])[] = []
        for await (const page of store.list(directory, { pageEntries: 3, recursive })) pages.push(page)
        for (const page of pages) assert.ok(page.length <= 6, `a page of ${page.length} where 3 were asked for`)
        const files = pages.flat().filter((entry) => entry.kind !== 'directory')
        assert.equal(files.length, recursive ? TREE.length : 5)
      }
    },
  },
  {
    name: 'listing: what is not a directory, and what is not there',
    run: async ({ store, at, options }) => {
      await store.put(at('file'), noise(1, 70), { guard: ABSENT })
      await store.makeDirectory(at('empty'), { guard: ABSENT })
      await rejectsWith(listAll(store, at('file')), 'STORE_NOT_DIRECTORY')
      await rejectsWith(listAll(store, at('nothing')), 'STORE_NOT_FOUND')
      if (options.treeChecked) await rejectsWith(listAll(store, at('file/x')), 'STORE_NOT_DIRECTORY')
      assert.deepEqual(await listAll(store, at('empty')), [])
      assert.deepEqual(await listAll(store, at('empty'), { recursive: true }), [])
    },
  },
  {
    name: 'listing: an abort before and between pages is ABORTED',
    run: async (context) => {
      const { store, directory } = context
      await makeTree(context)
      await rejectsWith(listAll(store, directory, { signal: AbortSignal.abort() }), 'ABORTED')
      const controller = new AbortController()
      const pages = store.list(directory, { signal: controller.signal, pageEntries: 2, recursive: true })
      await rejectsWith(
        (async () => {
          for await (const page of pages) {
            assert.ok(page.length < TREE.length, 'a page is not the whole tree')
            controller.abort()
          }
        })(),
        'ABORTED',
      )
    },
  },
  {
    name: 'listing: the root, without what is the store’s own',
    run: async (context) => {
      const { store, directory } = context
      await makeTree(context)
      const top = directory.slice(0, directory.indexOf('/'))
      const keys = keysOf(await listAll(store, ''), '')
      assert.ok(keys.includes(`${top}/`))
      for (const key of keys) assert.ok(!key.startsWith('.eider'), `"${key}" is hidden`)
      const [only] = await listAll(store, '', { prefix: `${top}/` })
      assert.equal(only?.path, top)
    },
  },
  {
    name: 'listing: a directory of many entries, whole and from its middle',
    run: async ({ store, at, options }) => {
      const count = options.entriesInOneDirectory
      const nameOf = (index: number): string => `entry-${String(index).padStart(6, '0')}`
      await inParallel(count, options.parallel, async (index) => {
        await store.put(at(`many/${nameOf(index)}`), new Uint8Array(0), { guard: ABSENT })
      })
      const entries = await listAll(store, at('many'))
      assert.equal(entries.length, count)
      if (store.capabilities.listingOrdered) assertOrdered(entries)
      const middle = nameOf(count >> 1)
      const rest = await listAll(store, at('many'), { after: middle })
      assert.equal(rest.length, count - (count >> 1) - 1)
      const ten = await listAll(store, at('many'), { prefix: nameOf(0).slice(0, -1) })
      assert.equal(ten.length, Math.min(10, count))
    },
  },
]
