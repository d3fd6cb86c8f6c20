import assert from 'node:assert/strict'
import { describe, test } from 'node:test'

import fc from 'fast-check'

import type { DiskId } from '#cluster/block/permit.ts'
import { COUNTER_MAX, makeInodeId, ROOT_INODE, type InodeId } from '#cluster/inode-id.ts'
import { crc32c, crc32cZeros } from '#cluster/erasure/crc32c.ts'
import type { Edge } from '#cluster/wire/forms.ts'

import { shardMessages as m } from './shard-messages.ts'
import { addSpanOf, ATTRIBUTES, spanOf, TestShard } from './shard-fixture.ts'

const directory = ROOT_INODE

function byBytes(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b))
}

function listed(shard: TestShard, limit: number, asOf?: number): string[] {
  const names: string[] = []
  for (let after = '', pages = 0; ; pages++) {
    assert.ok(pages <= 1000, 'a listing comes to an end')
    const page = { directory, after, limit }
    const { entries, isLast } =
      asOf === undefined
        ? shard.read('list', { ...page, withStatus: false })
        : shard.read('listAsOf', { ...page, asOf })
    names.push(...entries.map(({ name }) => name))
    if (isLast) return names
    assert.ok(entries.length > 0 && entries.length <= limit)
    after = entries.at(-1)?.name ?? ''
  }
}

/** Names near each other's borders in the order of bytes. */
const NAME = fc.oneof(
  fc.string({
    unit: fc.constantFrom('a', 'b', '\u0001', '\u007f', 'ä', '\uffff', '\u{1f9a2}'),
    minLength: 1,
    maxLength: 4,
  }),
  fc.constantFrom('x'.repeat(255), 'ü'.repeat(127), `${'x'.repeat(254)}y`),
)

describe('listings', () => {
  test('[S148] have all names in order of bytes, in pages of any size', () => {
    fc.assert(
      fc.property(fc.uniqueArray(NAME, { maxLength: 30 }), fc.integer({ min: 1, max: 7 }), (names, limit) => {
        const shard = new TestShard()
        shard.isStrict = false
        for (const name of names) shard.create(name)
        const expected = names.toSorted(byBytes)
        assert.deepEqual(listed(shard, limit), expected)
        assert.deepEqual(listed(shard, limit, shard.nowUs), expected)
        // The same with history between the names.
        for (const name of names) shard.create(name)
        assert.deepEqual(listed(shard, limit), expected)
        assert.deepEqual(listed(shard, limit, shard.nowUs), expected)
      }),
      { seed: 148, numRuns: 60 },
    )
  })

  test('[S148] what is there all the time comes once, whatever comes and goes between pages', () => {
    fc.assert(
      fc.property(
        fc.uniqueArray(NAME, { minLength: 4, maxLength: 30 }),
        fc.integer({ min: 1, max: 4 }),
        fc.infiniteStream(fc.nat()),
        (names, limit, random) => {
          const shard = new TestShard()
          shard.isStrict = false
          const [staying, passing] = [names.slice(0, names.length / 2), names.slice(names.length / 2)]
          for (const name of staying) shard.create(name)
          const seen: string[] = []
          let after = ''
          for (let isLast = false; !isLast;) {
            const page = shard.read('list', { directory, after, limit, withStatus: true })
            seen.push(...page.entries.map(({ name }) => name))
            isLast = page.isLast
            after = seen.at(-1) ?? ''
            const changed = passing[(random.next().value ?? 0) % passing.length] ?? ''
            if (shard.names().includes(changed)) shard.unlink(changed)
            else shard.create(changed)
          }
          assert.deepEqual(seen, seen.toSorted(byBytes))
          assert.equal(new Set(seen).size, seen.length)
          assert.deepEqual(
            seen.filter((name) => staying.includes(name)),
            staying.toSorted(byBytes),
          )
        },
      ),
      { seed: 149, numRuns: 60 },
    )
  })

  test('tell what inodes are where that is asked for', () => {
    const shard = new TestShard()
    const { inode } = shard.create('f', { content: 'abc' })
    const made = shard.makeDirectory('d', 9)
    const { entries } = shard.read('list', { directory, after: '', limit: 9, withStatus: true })
    assert.deepEqual(
      entries.map(({ name, status }) => [name, status]),
      [
        ['d', shard.read('stat', { inode: made })],
        ['f', shard.read('stat', { inode })],
      ],
    )
    assert.equal(shard.read('list', { directory, after: '', limit: 0, withStatus: false }).entries.length, 1)
  })
})

describe('history', () => {
  /** Three names with some history each, and one that is a part of another. */
  function newShard(): { shard: TestShard; all: readonly Edge[] } {
    const shard = new TestShard()
    shard.create('b')
    shard.create('a')
    shard.create('b')
    shard.unlink('b')
    shard.create('ab')
    shard.create('a')
    shard.create('b')
    shard.unlink('ab')
    const all = shard.read('history', whole(false)).edges
    return { shard, all }
  }
  const whole = (isBackwards: boolean, limit = 1000) => ({
    directory,
    name: isBackwards ? '\u{10ffff}' : '',
    time: isBackwards ? Number.MAX_SAFE_INTEGER : 0,
    isBackwards,
    isSameName: false,
    limit,
  })

  test('has all edges by name and time, and backwards', () => {
    const { shard, all } = newShard()
    assert.deepEqual(
      all.map(({ name, state }) => `${name} ${state}`),
      ['a owned', 'a current', 'ab owned', 'ab removed', 'b owned', 'b owned', 'b removed', 'b current'],
    )
    assert.deepEqual(shard.read('history', whole(true)).edges, all.toReversed())
  })

  test('can be taken up anywhere, in both directions, in pages of any size', () => {
    const { shard, all } = newShard()
    for (const isBackwards of [false, true]) {
      const expected = isBackwards ? all.toReversed() : all
      for (let limit = 1; limit <= all.length + 1; limit++) {
        const found: Edge[] = []
        let request = whole(isBackwards, limit)
        for (let isLast = false; !isLast;) {
          const page = shard.read('history', request)
          found.push(...page.edges)
          isLast = page.isLast
          const last = found.at(-1) as Edge
          request = { ...request, name: last.name, time: last.created + (isBackwards ? -1 : 1) }
        }
        assert.deepEqual(found, expected)
      }
      for (const [index, { name, created }] of expected.entries()) {
        const request = { ...whole(isBackwards), name, time: created }
        assert.deepEqual(shard.read('history', request).edges, expected.slice(index))
        const same = shard.read('history', { ...request, isSameName: true })
        assert.deepEqual(
          same.edges,
          expected.slice(index).filter((edge) => edge.name === name),
        )
        assert.equal(same.isLast, true)
      }
    }
  })

  test('of a name that nothing ever had is empty', () => {
    const { shard } = newShard()
    for (const isBackwards of [false, true]) {
      const request = { ...whole(isBackwards), name: 'aa', isSameName: true }
      assert.deepEqual(shard.read('history', request), { edges: [], isLast: true })
    }
  })
})

describe('listAsOf', () => {
  test('[S149] gives the names of then and what they led to, page by page', () => {
    const shard = new TestShard()
    const a = shard.create('a')
    const b = shard.create('b')
    const c = shard.create('c')
    const second = shard.create('b')
    const { removed } = shard.unlink('a')
    const at = (asOf: number): unknown[] =>
      shard.read('listAsOf', { directory, asOf, after: '', limit: 9 }).entries.map(({ name, inode }) => [name, inode])
    assert.deepEqual(at(a.created - 1), [])
    assert.deepEqual(at(a.created), [['a', a.inode]])
    assert.deepEqual(at(c.created), [
      ['a', a.inode],
      ['b', b.inode],
      ['c', c.inode],
    ])
    assert.deepEqual(at(removed - 1), [
      ['a', a.inode],
      ['b', second.inode],
      ['c', c.inode],
    ])
    assert.deepEqual(at(removed), [
      ['b', second.inode],
      ['c', c.inode],
    ])
    for (const limit of [1, 2, 3]) assert.deepEqual(listed(shard, limit, c.created), ['a', 'b', 'c'])
  })
})

describe('spans', () => {
  test('begin with the one that has the byte, and end with the file', () => {
    const shard = new TestShard()
    const own = shard.construct()
    for (let index = 0; index < 5; index++) {
      const crc = crc32cZeros(0, 1000)
      shard.write(m.addInline, { ...own, offset: index * 1000, size: 1000, crc, bytes: Buffer.alloc(0) })
    }
    const from = (offset: number, limit = 9): number[] =>
      shard.read('spans', { file: own.file, offset, limit }).spans.map((span) => span.offset)
    assert.deepEqual(from(0), [0, 1000, 2000, 3000, 4000])
    assert.deepEqual(from(999), [0, 1000, 2000, 3000, 4000])
    assert.deepEqual(from(1000), [1000, 2000, 3000, 4000])
    assert.deepEqual(from(4999), [4000])
    assert.deepEqual(from(5000), [])
    assert.deepEqual(from(Number.MAX_SAFE_INTEGER), [])
    assert.deepEqual(from(1500, 2), [1000, 2000])
    assert.equal(shard.read('spans', { file: own.file, offset: 1500, limit: 2 }).isLast, false)
    assert.equal(shard.read('spans', { file: own.file, offset: 3500, limit: 2 }).isLast, true)
    const file = makeInodeId('file', 0, 999)
    assert.throws(() => shard.read('spans', { file, offset: 0, limit: 1 }), { code: 'INODE_NOT_FOUND' })
    assert.throws(() => shard.read('spans', { file: makeInodeId('file', 9, 1), offset: 0, limit: 1 }), {
      code: 'INPUT_INVALID',
    })
  })

  test('a page of many inline bytes ends before it has all', () => {
    const shard = new TestShard()
    shard.isStrict = false
    const own = shard.construct()
    const bytes = Buffer.alloc(65_536)
    for (let index = 0; index < 40; index++) {
      const crc = crc32cZeros(0, bytes.length)
      shard.write(m.addInline, { ...own, offset: index * bytes.length, size: bytes.length, crc, bytes })
    }
    const found: number[] = []
    let pages = 0
    for (let isLast = false; !isLast; pages++) {
      const page = shard.read('spans', { file: own.file, offset: found.length * bytes.length, limit: 1000 })
      assert.ok(page.spans.length < 20)
      found.push(...page.spans.map(({ offset }) => offset))
      isLast = page.isLast
    }
    assert.equal(found.length, 40)
    assert.ok(pages > 1)
  })
})

describe('visits', () => {
  test('pass all inodes of a kind on the shard once, by id', () => {
    const shard = new TestShard()
    const files = ['a', 'b', 'c'].map((name) => shard.create(name).inode)
    const symlink = {
      directory,
      name: 'l',
      guard: { how: 'any', inode: 0 as InodeId } as const,
      type: 'symlink' as const,
      attributes: ATTRIBUTES,
      xattrs: [],
    }
    const bytes = Buffer.alloc(1, 'x')
    const made = shard.write(m.create, { ...symlink, size: 1, crc: crc32c(bytes), bytes })
    const own = [shard.construct(), shard.construct()]
    const made2 = shard.makeDirectory('d', 4)
    shard.makeDirectory('e', 4, ROOT_INODE, 0, 1)
    const visited = (what: 'directories' | 'files' | 'transient', limit: number, at = 0): number[] => {
      const found: number[] = []
      for (let isLast = false; !isLast;) {
        const page = shard.read('visit', { what, after: found.at(-1) ?? 0, limit }, at)
        found.push(...page.inodes.map(({ inode }) => inode))
        isLast = page.isLast
      }
      return found
    }
    for (const limit of [1, 2, 3, 100]) {
      assert.deepEqual(visited('files', limit), [...files, made.inode])
      assert.deepEqual(
        visited('transient', limit),
        own.map(({ file }) => file),
      )
      assert.deepEqual(visited('directories', limit), [ROOT_INODE, made2])
      assert.deepEqual(visited('directories', limit, 1), [makeInodeId('directory', 1, 4)])
    }
    const { deadline, cookie } = shard.read('visit', { what: 'transient', after: 0, limit: 1 }).inodes[0] ?? {}
    assert.deepEqual(cookie, own[0]?.cookie)
    assert.equal(deadline, shard.read('stat', { inode: own[0]?.file as InodeId }).transient?.deadline)
  })

  test('[S162] of the last shard, and of the last inode and block there can be, are like any other', () => {
    const shard = new TestShard()
    for (const what of ['directories', 'files', 'transient'] as const) {
      for (const after of [0, Number.MAX_SAFE_INTEGER]) {
        assert.deepEqual(shard.read('visit', { what, after, limit: 9 }, 255), { inodes: [], isLast: true })
      }
    }
    const last = makeInodeId('symlink', 255, COUNTER_MAX)
    assert.equal(last, Number.MAX_SAFE_INTEGER)
    const code = 'INODE_NOT_FOUND'
    assert.throws(() => shard.read('xattrs', { inode: last }, 255), { code })
    assert.throws(() => shard.read('stat', { inode: last }, 255), { code })
    assert.throws(() => shard.read('spans', { file: last, offset: 0, limit: 1 }, 255), { code })
    const disk = Number.MAX_SAFE_INTEGER as DiskId
    const none = { blocks: [], isLast: true }
    assert.deepEqual(shard.read('diskBlocks', { disk, after: Number.MAX_SAFE_INTEGER, limit: 1 }, 255), none)
    const xattr = { name: 'a', value: Buffer.alloc(0) }
    shard.refuses(code, m.setXattr, { inode: last, xattr, how: 'any' }, { shard: 255 })
  })

  test('the blocks of a disk come in pages', () => {
    const shard = new TestShard()
    shard.learnDisks(2)
    const blocks: number[] = []
    for (let count = 0; count < 5; count++) {
      const request = addSpanOf(shard.construct(), 0, spanOf(5000, 1, 1))
      blocks.push(shard.write(m.addSpan, request, { chosen: [1, 2] }).blocks[1]?.block ?? 0)
    }
    for (const limit of [1, 2, 5, 9]) {
      const found: number[] = []
      for (let isLast = false; !isLast;) {
        const page = shard.read('diskBlocks', { disk: 2 as DiskId, after: found.at(-1) ?? 0, limit })
        found.push(...page.blocks.map(({ block }) => block))
        isLast = page.isLast
      }
      assert.deepEqual(found, blocks)
    }
    assert.deepEqual(shard.read('diskBlocks', { disk: 3 as DiskId, after: 0, limit: 9 }).blocks, [])
  })
})
