import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'

import { openMemoryStore } from '#store/memory-store.ts'
import { compareUtf8 } from '#store/path.ts'
import { ANY } from '#store/store.ts'

import { EMPTY_MD5 } from './etag.ts'
import { listPage, type ListFrom } from './listing.ts'
import { NO_DESCRIPTION } from './object-metadata.ts'
import { ObjectTree } from './object-tree.ts'
import { factsOf, markDirectory } from './put-object.ts'

const { signal } = new AbortController()

/** A bucket with these keys. */
async function bucketOf(keys: readonly string[]): Promise<ObjectTree> {
  const tree = new ObjectTree(openMemoryStore())
  for (const key of keys) {
    if (!key.endsWith('/')) await tree.store.put(`bucket/${key}`, Buffer.alloc(1), { guard: ANY })
    else await markDirectory(tree, 'bucket', key, NO_DESCRIPTION, factsOf(EMPTY_MD5, undefined), false, signal)
  }
  return tree
}

interface Asked {
  readonly prefix: string
  readonly delimiter: string
  readonly after?: string
}

/** What S3 lists, by its definition: keys after the start, rolled up, each once. */
function expected(keys: readonly string[], { prefix, delimiter, after = '' }: Asked): string[] {
  const shown = keys
    .filter((key) => key.startsWith(prefix) && compareUtf8(key, after) > 0)
    .toSorted(compareUtf8)
    .map((key) => {
      const at = delimiter === '' ? -1 : key.indexOf(delimiter, prefix.length)
      return at === -1 ? key : `${key.slice(0, at + delimiter.length)} (prefix)`
    })
  return [...new Set(shown)]
}

async function listAll(tree: ObjectTree, asked: Asked, itemsMax: number): Promise<string[]> {
  const found: string[] = []
  let from: ListFrom | undefined
  if (asked.after !== undefined && asked.after !== '') from = { after: asked.after, skipUnder: false }
  for (;;) {
    const { items, next } = await listPage(tree, 'bucket', { ...asked, from, itemsMax }, signal)
    assert.ok(items.length <= itemsMax)
    if (next !== undefined) assert.equal(items.length, itemsMax, 'a page with a successor is full')
    found.push(...items.map(({ kind, key }) => (kind === 'prefix' ? `${key} (prefix)` : key)))
    if (next === undefined) return found
    from = next
  }
}

const KEYS = ['a', 'a-', 'a-d/x', 'a.b', 'b/', 'b/c', 'b/c0', 'b/d/e/f', 'b/d/e/g', 'b0', 'empty/', 'ü', 'ｆ', '😀/x']

describe('listing', () => {
  test('every page size, prefix and delimiter gives what S3 defines', async () => {
    const tree = await bucketOf(KEYS)
    for (const prefix of [
      '',
      'a',
      'a-',
      'b',
      'b/',
      'b/d',
      'b/d/',
      'empty/',
      'empty',
      'none/',
      'a//',
      '/',
      '..',
      '😀',
    ]) {
      for (const delimiter of ['', '/', '-', 'd/e', 'b/']) {
        for (const itemsMax of [1, 2, 3, 1000]) {
          const asked = { prefix, delimiter }
          assert.deepEqual(
            await listAll(tree, asked, itemsMax),
            expected(KEYS, asked),
            JSON.stringify({ ...asked, itemsMax }),
          )
        }
      }
    }
  })

  test('random trees, starts and pages', async () => {
    const name = fc.constantFrom('a', 'b', 'a-', 'a0', 'ab', 'é', '😀', '.x')
    const path = fc.array(name, { minLength: 1, maxLength: 3 }).map((names) => names.join('/'))
    const keysOf = fc.uniqueArray(fc.tuple(path, fc.boolean()), { maxLength: 12, selector: ([text]) => text })
    await fc.assert(
      fc.asyncProperty(
        keysOf,
        fc.oneof(
          path,
          path.map((text) => `${text}/`),
          fc.constant(''),
        ),
        fc.constantFrom('', '/', 'a', '/a'),
        fc.oneof(
          path,
          path.map((text) => `${text}/`),
          fc.constant(''),
        ),
        fc.integer({ min: 1, max: 4 }),
        async (drawn, prefix, delimiter, after, itemsMax) => {
          // A file keeps a directory of its name from being, and the other way round.
          const paths = drawn.map(([text]) => text)
          const keys = drawn
            .filter(
              ([text]) =>
                !paths.some(
                  (other) => text.startsWith(`${other}/`) && drawn.some(([t, marked]) => t === other && !marked),
                ),
            )
            .map(([text, marked]) => (marked ? `${text}/` : text))
          const tree = await bucketOf(keys)
          const asked = { prefix, delimiter, after }
          assert.deepEqual(
            await listAll(tree, asked, itemsMax),
            expected(keys, asked),
            JSON.stringify({ keys, ...asked }),
          )
        },
      ),
      { seed: 20_261, numRuns: 300 },
    )
  })

  test('a directory is an object while it is empty, and with a mark also when it is not', async () => {
    const tree = await bucketOf(['marked/', 'marked/x', 'plain/x'])
    await tree.store.makeDirectory('bucket/bare', { guard: ANY })
    assert.deepEqual(await listAll(tree, { prefix: '', delimiter: '' }, 10), [
      'bare/',
      'marked/',
      'marked/x',
      'plain/x',
    ])
    await tree.store.remove('bucket/marked/x', { guard: ANY })
    await tree.pruneAbove('bucket/marked/x', signal)
    assert.deepEqual(await listAll(tree, { prefix: 'marked/', delimiter: '/' }, 10), ['marked/'])
  })
})
