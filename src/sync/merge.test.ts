/** The merge against sets, and what it makes of listings that break, lie or never end. */
import assert from 'node:assert/strict'
import { test } from 'node:test'

import fc from 'fast-check'

import { isOperationError, OperationError } from '#base/errors.ts'
import { sortKey } from '#store/store.ts'

import { mergeListings, type Pair } from './merge.ts'
import type { TreeEntry } from './tree.ts'

function entryOf(key: string, size = 0): TreeEntry {
  const isDirectory = key.endsWith('/')
  return {
    path: isDirectory ? key.slice(0, -1) : key,
    kind: isDirectory ? 'directory' : 'file',
    size,
    mtime: undefined,
  }
}

/** Pages of so many entries, empty ones among them. */
async function* listed(keys: Iterable<string>, pageEntries = 2): AsyncGenerator<readonly TreeEntry[]> {
  let page: TreeEntry[] = []
  for (const key of keys) {
    page.push(entryOf(key))
    if (page.length < pageEntries) continue
    yield page
    yield []
    page = []
  }
  yield page
}

function inOrder(keys: Iterable<string>): string[] {
  return [...keys].sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)))
}

function sidesOf({ source, target }: Pair): string {
  return `${source === undefined ? '' : sortKey(source)}|${target === undefined ? '' : sortKey(target)}`
}

async function merged(source: AsyncIterable<readonly TreeEntry[]>, target: typeof source): Promise<string[]> {
  const sides: string[] = []
  for await (const pairs of mergeListings(source, target)) sides.push(...pairs.map(sidesOf))
  return sides
}

test('[trap 14] merge: pairs are what two sets say, in the order of UTF-8 bytes', async () => {
  const name = fc.string({
    unit: fc.constantFrom('a', 'b', '-', '0', '\uffee', '\u{10348}'),
    minLength: 1,
    maxLength: 2,
  })
  const key = fc
    .tuple(fc.array(name, { minLength: 1, maxLength: 3 }), fc.boolean())
    .map(([parts, isDirectory]) => parts.join('/') + (isDirectory ? '/' : ''))
  const size = fc.integer({ min: 1, max: 5 })
  await fc.assert(
    fc.asyncProperty(fc.uniqueArray(key), fc.uniqueArray(key), size, size, async (left, right, leftSize, rightSize) => {
      const [source, target] = [new Set(left), new Set(right)]
      const expected = inOrder(source.union(target)).map(
        (one) => `${source.has(one) ? one : ''}|${target.has(one) ? one : ''}`,
      )
      assert.deepEqual(await merged(listed(inOrder(left), leftSize), listed(inOrder(right), rightSize)), expected)
    }),
    { seed: 42, numRuns: 300 },
  )
})

test('[trap 14] merge: a tree that is walked and flat keys meet where "a-b", "a/b" and "a0" are', async () => {
  assert.deepEqual(await merged(listed(['a-b', 'a/', 'a/b', 'a0']), listed(['a-b', 'a/b', 'a0'])), [
    'a-b|a-b',
    'a/|',
    'a/b|a/b',
    'a0|a0',
  ])
})

test('merge: the first and the last remaining entries of the longer side are told, also where the other has none', async () => {
  assert.deepEqual(await merged(listed(['a', 'b']), listed([])), ['a|', 'b|'])
  assert.deepEqual(await merged(listed(['b']), listed(['a', 'b', 'c', 'd'])), ['|a', 'b|b', '|c', '|d'])
  assert.deepEqual(await merged(listed([]), listed([])), [])
})

test('merge: the first pairs come before either side has ended', async () => {
  async function* endless(): AsyncGenerator<readonly TreeEntry[]> {
    for (let index = 0; ; index++) yield [entryOf(`f${String(index).padStart(9, '0')}`)]
  }
  const seen: string[] = []
  for await (const pairs of mergeListings(endless(), endless())) {
    seen.push(...pairs.map(({ path }) => path))
    if (seen.length >= 3) break
  }
  assert.deepEqual(seen, ['f000000000', 'f000000001', 'f000000002'])
})

test('merge: at most two pages of each side are held, however long they are', async () => {
  const taken = { source: 0, target: 0 }
  let told = 0
  let most = 0
  async function* counted(side: 'source' | 'target'): AsyncGenerator<readonly TreeEntry[]> {
    for (let index = 0; index < 1000; index++) {
      taken[side]++
      most = Math.max(most, taken.source - told, taken.target - told)
      yield [entryOf(`f${String(index).padStart(4, '0')}`)]
    }
  }
  for await (const pairs of mergeListings(counted('source'), counted('target'))) told += pairs.length
  assert.equal(told, 1000)
  assert.ok(most <= 2, `${most} pages were held`)
})

for (const side of ['source', 'target'] as const) {
  test(`merge: where the ${side} breaks, nothing after what it told is taken for missing, and both are given up`, async () => {
    const closed: string[] = []
    async function* broken(): AsyncGenerator<readonly TreeEntry[]> {
      try {
        yield [entryOf('a'), entryOf('b')]
        throw new OperationError('STORE_UNAVAILABLE', 'Cannot list: the line broke')
      } finally {
        closed.push('broken')
      }
    }
    async function* whole(): AsyncGenerator<readonly TreeEntry[]> {
      try {
        yield [entryOf('a'), entryOf('b'), entryOf('c')]
        yield [entryOf('d')]
        yield [entryOf('e')]
      } finally {
        closed.push('whole')
      }
    }
    const told: string[] = []
    await assert.rejects(
      async () => {
        const merge = side === 'source' ? mergeListings(broken(), whole()) : mergeListings(whole(), broken())
        for await (const pairs of merge) told.push(...pairs.map(sidesOf))
      },
      (error: unknown) => isOperationError(error, 'STORE_UNAVAILABLE'),
    )
    assert.deepEqual(told, ['a|a', 'b|b'])
    assert.deepEqual(closed.toSorted(), ['broken', 'whole'])
  })

  for (const [what, keys] of [
    ['out of order', ['a', 'c', 'b']],
    ['in UTF-16 order', ['\u{10348}', '\uffee']],
    ['that names something twice', ['a', 'a']],
    ['that sorts a directory by its name alone', ['a/', 'a-b']],
  ] as const) {
    test(`[trap 14] merge: a ${side} ${what} is STORE_PROTOCOL, whatever its pages`, async () => {
      for (const pageEntries of [1, 2, 3]) {
        const [bad, good] = [listed(keys, pageEntries), listed(['a', 'b', 'c'])]
        await assert.rejects(
          side === 'source' ? merged(bad, good) : merged(good, bad),
          (error: unknown) => isOperationError(error, 'STORE_PROTOCOL') && error.message.includes(side),
        )
      }
    })
  }
}

test("merge: a page that fails ahead of its turn is told in its turn, and until then is nobody's unhandled failure", async () => {
  async function* broken(): AsyncGenerator<readonly TreeEntry[]> {
    yield [entryOf('a')]
    throw new Error('broken ahead')
  }
  const told: string[] = []
  await assert.rejects(async () => {
    for await (const pairs of mergeListings(broken(), listed(['a', 'b']))) {
      told.push(...pairs.map(sidesOf))
      // Rejections that nobody handles are told after a turn of the event loop.
      await new Promise((resolve) => setImmediate(resolve))
    }
  }, /broken ahead/)
  assert.deepEqual(told, ['a|a'])
})

test('merge: who stops early leaves both sides closed', async () => {
  let closed = 0
  async function* side(): AsyncGenerator<readonly TreeEntry[]> {
    try {
      for (const key of ['a', 'b', 'c', 'd', 'e']) yield [entryOf(key)]
    } finally {
      closed++
    }
  }
  for await (const pairs of mergeListings(side(), side())) {
    assert.equal(pairs.length, 1)
    break
  }
  assert.equal(closed, 2)
})
