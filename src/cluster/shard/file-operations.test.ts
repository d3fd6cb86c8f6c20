import assert from 'node:assert/strict'
import { describe, test } from 'node:test'

import { crc32c, crc32cZeros } from '#cluster/erasure/crc32c.ts'
import { inodeType, makeInodeId, ROOT_INODE, type InodeId } from '#cluster/inode-id.ts'
import { EMPTY_POLICY, NO_INODE, type NameGuard, type Policy } from '#cluster/wire/forms.ts'

import { shardMessages as m } from './shard-messages.ts'
import { addSpanOf, ANYTHING, ATTRIBUTES, digestOf, KEYS_END, NOTHING, spanOf, TestShard } from './shard-fixture.ts'

const HOUR_US = 3600e6
const NO_COOKIE = Buffer.alloc(16, 1)
const UNKNOWN_FILE = makeInodeId('file', 0, 4711)
const BAD_NAMES = ['', '.', '..', 'a/b', '/', 'a\0b'] as const

function inlineOf(text: string): { size: number; crc: number; bytes: Buffer } {
  const bytes = Buffer.from(text)
  return { size: bytes.length, crc: crc32c(bytes), bytes }
}

function newFile(text: string): typeof BODY & ReturnType<typeof inlineOf> {
  return { ...BODY, ...inlineOf(text) }
}
const MODE_600 = { mode: 0o600, uid: undefined, gid: undefined, mtime: undefined, atime: undefined }
const BODY = { type: 'file' as const, attributes: ATTRIBUTES, xattrs: [], guard: ANYTHING, directory: ROOT_INODE }

/** But those of answers. */
function keysOf(shard: TestShard): string[] {
  const keys: string[] = []
  shard.state.range('d', KEYS_END, (key) => keys.push(key) > 0)
  return keys
}

describe('names', () => {
  test('[S154] 255 bytes of any UTF-8 but / and NUL are a name, in every request that takes one', () => {
    const shard = new TestShard()
    const names = [
      'n'.repeat(255),
      'ü'.repeat(127),
      '\u{1f9a2}'.repeat(63),
      ' ',
      '\u0001',
      '\ufffd',
      '...',
      '\ufeffa',
      '%2F',
    ]
    for (const name of names) shard.create(name)
    assert.deepEqual(
      shard.names(),
      names.toSorted((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b))),
    )
    for (const name of names) shard.unlink(name)
    assert.deepEqual(shard.names(), [])
  })

  test('[S151] [S154] other names are refused by code, with nothing changed', () => {
    const shard = new TestShard()
    const { inode, created } = shard.create('here')
    const gone = shard.create('gone')
    shard.unlink('gone')
    const own = shard.construct()
    const directory = ROOT_INODE
    const cases = [
      ...BAD_NAMES.map((name) => ['STORE_NAME_INVALID', name] as const),
      ['STORE_NAME_TOO_LONG', 'n'.repeat(256)] as const,
      ['STORE_NAME_TOO_LONG', 'ü'.repeat(128)] as const,
      ['STORE_NAME_TOO_LONG', 'n'.repeat(4096)] as const,
    ]
    for (const [code, name] of cases) {
      shard.refuses(code, m.create, { ...newFile('x'), name })
      shard.refuses(code, m.link, { ...own, directory, name, guard: ANYTHING, size: 0 })
      shard.refuses(code, m.rename, { directory, name: 'here', inode, created, newName: name, guard: ANYTHING })
      shard.refuses(code, m.undelete, {
        directory,
        name: 'gone',
        created: gone.created,
        newName: name,
        guard: ANYTHING,
      })
      shard.refuses(code, m.createEdge, { directory, name, target: makeInodeId('directory', 0, 5), guard: ANYTHING })
    }
  })

  test('[S154] what is too long for a name is never looked for', () => {
    const shard = new TestShard()
    const directory = ROOT_INODE
    const name = 'n'.repeat(4096)
    const created = 1
    const page = { limit: 1 }
    const reads = [
      () => shard.read('lookup', { directory, name }),
      () => shard.read('list', { directory, after: name, withStatus: false, ...page }),
      () => shard.read('listAsOf', { directory, after: name, asOf: 1, ...page }),
      () => shard.read('history', { directory, name, time: 0, isBackwards: true, isSameName: true, ...page }),
    ]
    for (const read of reads) assert.throws(read, { code: 'STORE_NAME_TOO_LONG' })
    const code = 'STORE_NAME_TOO_LONG'
    shard.refuses(code, m.unlink, { directory, name, inode: UNKNOWN_FILE, created })
    shard.refuses(code, m.rename, { directory, name, inode: UNKNOWN_FILE, created, newName: 'a', guard: ANYTHING })
    shard.refuses(code, m.undelete, { directory, name, created, newName: 'a', guard: ANYTHING })
    shard.refuses(code, m.dropEdge, { directory, name, created })
    shard.refuses(code, m.hardUnlink, { directory, name, created, file: UNKNOWN_FILE })
    shard.refuses(code, m.removeOwnedEdge, { directory, name, created, file: UNKNOWN_FILE })
    shard.refuses(code, m.lockEdge, { directory, name, target: UNKNOWN_FILE, created })
  })
})

describe('rules of history', () => {
  test('[S147] a file takes a free name', () => {
    const shard = new TestShard()
    shard.create('a')
    assert.deepEqual(shard.edges('a'), ['current'])
  })

  test('[S147] a file takes the name of a file: history owns the old one', () => {
    const shard = new TestShard()
    const old = shard.create('a')
    const { replaced } = shard.create('a')
    assert.equal(replaced, old.inode)
    assert.deepEqual(shard.edges('a'), ['owned', 'current'])
    assert.equal(shard.read('stat', { inode: old.inode }).transient, undefined)
  })

  test('[S147] a file is unlinked: history owns it, and the name is marked as removed', () => {
    const shard = new TestShard()
    const { created } = shard.create('a')
    const { removed } = shard.unlink('a')
    const request = { directory: ROOT_INODE, name: 'a', time: 0, isBackwards: false, isSameName: true, limit: 9 }
    const times = shard.read('history', request).edges.map((edge) => [edge.state, edge.created])
    assert.deepEqual(times, [
      ['owned', created],
      ['removed', removed],
    ])
  })

  test('[S147] a rename leaves an edge that owns nothing, and takes over what it replaces', () => {
    const shard = new TestShard()
    const a = shard.create('a')
    const b = shard.create('b')
    const { replaced } = shard.write(m.rename, {
      ...a,
      directory: ROOT_INODE,
      name: 'a',
      newName: 'b',
      guard: ANYTHING,
    })
    assert.equal(replaced, b.inode)
    assert.deepEqual(shard.edges('a'), ['left', 'removed'])
    assert.deepEqual(shard.edges('b'), ['owned', 'current'])
    assert.equal(shard.read('lookup', { directory: ROOT_INODE, name: 'b' }).inode, a.inode)
  })

  test('[S147] [S158] undelete gives a name to what the history owned, which owns it no more', () => {
    const shard = new TestShard()
    const first = shard.create('a', { content: 'one' })
    shard.create('a', { content: 'two' })
    shard.unlink('a')
    const request = { directory: ROOT_INODE, name: 'a', created: first.created, newName: 'a', guard: NOTHING }
    assert.equal(shard.write(m.undelete, request).inode, first.inode)
    assert.deepEqual(shard.edges('a'), ['left', 'owned', 'removed', 'current'])
    const again = { ...request, newName: 'b' }
    shard.refuses('EDGE_CHANGED', m.undelete, again)
    shard.refuses('NAME_NOT_FOUND', m.undelete, { ...again, created: first.created - 1 })
  })

  test('[S158] what has the name is not lost when another version takes it back', () => {
    const shard = new TestShard()
    const first = shard.create('a')
    const second = shard.create('a')
    const request = { directory: ROOT_INODE, name: 'a', created: first.created, newName: 'a' }
    shard.refuses('NAME_TAKEN', m.undelete, { ...request, guard: NOTHING })
    shard.write(m.undelete, { ...request, guard: { how: 'is', inode: second.inode } as const })
    assert.deepEqual(shard.edges('a'), ['left', 'owned', 'current'])
  })

  test('an owned edge is not dropped; others are, and those that are gone already', () => {
    const shard = new TestShard()
    const a = shard.create('a')
    const { removed } = shard.unlink('a')
    const drop = { directory: ROOT_INODE, name: 'a' }
    shard.refuses('EDGE_OWNED', m.dropEdge, { ...drop, created: a.created })
    for (let again = 0; again < 2; again++) shard.write(m.dropEdge, { ...drop, created: removed })
    assert.deepEqual(shard.edges('a'), ['owned'])
  })

  test('[S147] hardUnlink forgets an owned edge and gives the file up, once', () => {
    const shard = new TestShard()
    const a = shard.create('a', { content: 'x' })
    const request = { directory: ROOT_INODE, name: 'a', created: a.created, file: a.inode }
    shard.refuses('NAME_NOT_FOUND', m.hardUnlink, request)
    shard.unlink('a')
    shard.refuses('EDGE_CHANGED', m.hardUnlink, { ...request, file: UNKNOWN_FILE })
    shard.write(m.hardUnlink, request)
    assert.deepEqual(shard.edges('a'), ['removed'])
    assert.notEqual(shard.read('stat', { inode: a.inode }).transient, undefined)
    // Who asks again under another id must not believe that it was this that gave the file up.
    shard.refuses('NAME_NOT_FOUND', m.hardUnlink, request)
  })

  test('what was created with its bytes has them in one record, through all changes, and as a span once it is given up', () => {
    const shard = new TestShard()
    const before = keysOf(shard)
    const a = shard.create('a', { content: 'abc' })
    const added = keysOf(shard).filter((key) => !before.includes(key))
    assert.equal(added.map((key) => key[0]).join(''), 'efm', 'its name, its record, the counter')
    const spans = (offset = 0): unknown => shard.read('spans', { file: a.inode, offset, limit: 10 })
    const span = { offset: 0, size: 3, crc: crc32c(Buffer.from('abc')), inline: Buffer.from('abc'), blocks: undefined }
    const expected = { size: 3, spans: [{ ...span, isCertified: true }], isLast: true }
    assert.deepEqual(spans(), expected)
    assert.deepEqual(spans(2), expected)
    assert.deepEqual(spans(3), { ...expected, spans: [] })
    shard.write(m.setAttributes, { inode: a.inode, changes: MODE_600 })
    shard.unlink('a')
    assert.deepEqual(spans(), expected)
    shard.write(m.hardUnlink, { directory: ROOT_INODE, name: 'a', created: a.created, file: a.inode })
    assert.deepEqual(spans(), expected)
    const [gone] = shard.read('visit', { what: 'transient', after: 0, limit: 1 }).inodes
    const own = { file: a.inode, cookie: gone?.cookie ?? Buffer.alloc(0) }
    assert.equal(shard.write(m.removeSpan, own).outcome, 'removed')
    assert.equal(shard.write(m.removeSpan, own).outcome, 'empty')
    assert.deepEqual(spans(), { ...expected, size: 0, spans: [] })
    shard.write(m.removeInode, { inode: a.inode })
    assert.throws(spans, { code: 'INODE_NOT_FOUND' })
  })
})

describe('guards', () => {
  const guards = (inode: InodeId): Record<string, NameGuard> => ({
    any: ANYTHING,
    absent: NOTHING,
    is: { how: 'is', inode },
    'is another': { how: 'is', inode: UNKNOWN_FILE },
    'is none': { how: 'is', inode: NO_INODE },
  })
  const expected = {
    free: { any: 'ok', absent: 'ok', is: 'EDGE_CHANGED', 'is another': 'EDGE_CHANGED', 'is none': 'EDGE_CHANGED' },
    file: { any: 'ok', absent: 'NAME_TAKEN', is: 'ok', 'is another': 'EDGE_CHANGED', 'is none': 'EDGE_CHANGED' },
    directory: {
      any: 'NAME_TAKEN',
      absent: 'NAME_TAKEN',
      is: 'NAME_TAKEN',
      'is another': 'EDGE_CHANGED',
      'is none': 'EDGE_CHANGED',
    },
    locked: {
      any: 'NAME_LOCKED',
      absent: 'NAME_LOCKED',
      is: 'NAME_LOCKED',
      'is another': 'EDGE_CHANGED',
      'is none': 'EDGE_CHANGED',
    },
  } as const

  for (const [what, row] of Object.entries(expected)) {
    for (const [guard, outcome] of Object.entries(row)) {
      test(`[S151] a name that leads to: ${what}, under guard: ${guard}, gives: ${outcome}`, () => {
        const shard = new TestShard()
        let target = UNKNOWN_FILE
        if (what === 'directory') target = shard.makeDirectory('n', 9)
        if (what === 'file' || what === 'locked') {
          const { inode, created } = shard.create('n')
          target = inode
          if (what === 'locked') shard.write(m.lockEdge, { directory: ROOT_INODE, name: 'n', target, created })
        }
        const request = { ...newFile(''), name: 'n', guard: guards(target)[guard] ?? ANYTHING }
        if (outcome === 'ok') assert.equal(shard.write(m.create, request).replaced, what === 'file' ? target : NO_INODE)
        else shard.refuses(outcome, m.create, request)
      })
    }
  }

  test('unlink and rename ask for the edge that was looked up', () => {
    const shard = new TestShard()
    const { inode, created } = shard.create('a')
    const edge = { directory: ROOT_INODE, name: 'a', inode, created }
    const rename = { newName: 'b', guard: ANYTHING }
    shard.refuses('EDGE_CHANGED', m.unlink, { ...edge, created: created - 1 })
    shard.refuses('EDGE_CHANGED', m.unlink, { ...edge, inode: UNKNOWN_FILE })
    shard.refuses('NAME_NOT_FOUND', m.unlink, { ...edge, name: 'b' })
    shard.refuses('FILE_EXPECTED', m.unlink, { ...edge, inode: ROOT_INODE })
    shard.refuses('EDGE_CHANGED', m.rename, { ...edge, ...rename, created: created + 1 })
    shard.refuses('NAME_NOT_FOUND', m.rename, { ...edge, ...rename, name: 'c' })
    shard.refuses('INPUT_INVALID', m.rename, { ...edge, ...rename, newName: 'a' })
    shard.write(m.lockEdge, { ...edge, target: inode })
    shard.refuses('NAME_LOCKED', m.unlink, edge)
    shard.refuses('NAME_LOCKED', m.rename, { ...edge, ...rename })
  })

  test('a directory is renamed within its directory, and takes the place of nothing', () => {
    const shard = new TestShard()
    const target = shard.makeDirectory('d', 1)
    shard.create('f')
    const { created } = shard.read('lookup', { directory: ROOT_INODE, name: 'd' })
    const request = { directory: ROOT_INODE, name: 'd', inode: target, created, guard: ANYTHING }
    shard.refuses('NAME_TAKEN', m.rename, { ...request, newName: 'f' })
    shard.write(m.rename, { ...request, newName: 'e' })
    assert.deepEqual(shard.names(), ['e', 'f'])
    assert.deepEqual(shard.edges('d'), ['left', 'removed'])
  })

  test('directories that are not there, are none, are history or lie elsewhere have no names', () => {
    const shard = new TestShard()
    const removed = shard.makeDirectory('d', 1)
    shard.write(m.removeOwner, { directory: removed, policy: undefined })
    const directories = {
      INODE_NOT_FOUND: makeInodeId('directory', 0, 99),
      DIRECTORY_EXPECTED: shard.create('f').inode,
      DIRECTORY_REMOVED: removed,
      INPUT_INVALID: makeInodeId('directory', 3, 1),
    } as const
    for (const [code, directory] of Object.entries(directories) as [keyof typeof directories, InodeId][]) {
      if (code !== 'DIRECTORY_EXPECTED') shard.refuses(code, m.create, { ...newFile(''), directory, name: 'x' })
      const own = shard.construct()
      shard.refuses(code, m.link, { ...own, directory, name: 'x', guard: ANYTHING, size: 0 })
      assert.throws(() => shard.read('lookup', { directory, name: 'x' }), { code })
      assert.throws(() => shard.read('list', { directory, after: '', limit: 1, withStatus: false }), { code })
    }
  })
})

describe('transient files', () => {
  test('[S146] a file has no name before it is linked, and is whole then', () => {
    const shard = new TestShard()
    const own = shard.construct()
    shard.write(m.addInline, { ...own, offset: 0, ...inlineOf('abc') })
    shard.write(m.addInline, { ...own, offset: 3, ...inlineOf('def') })
    assert.deepEqual(shard.names(), [])
    assert.equal(shard.read('stat', { inode: own.file }).transient?.note, '')
    const { created } = shard.write(m.link, { ...own, directory: ROOT_INODE, name: 'a', guard: NOTHING, size: 6 })
    assert.deepEqual(shard.read('lookup', { directory: ROOT_INODE, name: 'a' }), {
      inode: own.file,
      created,
      isLocked: false,
    })
    const { size, transient, ctime } = shard.read('stat', { inode: own.file })
    assert.deepEqual([size, transient, ctime], [6, undefined, created])
    // The same wish under another id finds it done.
    const again = shard.write(m.link, { ...own, directory: ROOT_INODE, name: 'a', guard: NOTHING, size: 6 })
    assert.equal(again.created, created)
    shard.refuses('INODE_NOT_FOUND', m.link, { ...own, directory: ROOT_INODE, name: 'b', guard: NOTHING, size: 6 })
    shard.refuses('INODE_NOT_FOUND', m.addInline, { ...own, offset: 6, ...inlineOf('x') })
  })

  test('[S146] a file whose last span is not certified is not linked', () => {
    const shard = new TestShard()
    shard.learnDisks(1)
    const own = shard.construct()
    shard.write(m.addSpan, addSpanOf(own, 0, spanOf(9000, 1, 0)), { chosen: [1] })
    const link = { ...own, directory: ROOT_INODE, name: 'a', guard: ANYTHING }
    shard.refuses('SPAN_OUT_OF_ORDER', m.link, { ...link, size: 9000 })
    shard.write(m.removeSpan, own)
    shard.refuses('TRANSIENT_EXPIRED', m.link, { ...link, size: 9000 })
  })

  test('[S146] a file that has fewer or more bytes than its client meant is not linked', () => {
    const shard = new TestShard()
    const own = shard.construct()
    const link = { ...own, directory: ROOT_INODE, name: 'a', guard: ANYTHING }
    shard.refuses('SPAN_OUT_OF_ORDER', m.link, { ...link, size: 3 })
    shard.write(m.addInline, { ...own, offset: 0, ...inlineOf('abc') })
    for (const size of [0, 2, 4, Number.MAX_SAFE_INTEGER]) shard.refuses('SPAN_OUT_OF_ORDER', m.link, { ...link, size })
    assert.throws(() => shard.write(m.link, { ...link, size: 6 }), /it has 3 bytes here, and 6 were meant/)
    assert.deepEqual(shard.names(), [])
    // It can still be finished.
    shard.write(m.addInline, { ...own, offset: 3, ...inlineOf('def') })
    shard.write(m.link, { ...link, size: 6 })
    assert.deepEqual(shard.names(), ['a'])
  })

  test('[S157] an hour after the last thing that was done with it, it is given up', () => {
    const shard = new TestShard()
    const own = shard.construct()
    shard.nowUs += HOUR_US - 3
    shard.write(m.addInline, { ...own, offset: 0, ...inlineOf('a') })
    shard.refuses('TRANSIENT_EXPECTED', m.removeInode, { inode: own.file })
    shard.nowUs += HOUR_US - 3
    shard.write(m.addInline, { ...own, offset: 1, ...inlineOf('b') })
    shard.nowUs += HOUR_US
    shard.refuses('TRANSIENT_EXPIRED', m.addInline, { ...own, offset: 2, ...inlineOf('c') })
    shard.refuses('TRANSIENT_EXPIRED', m.link, { ...own, directory: ROOT_INODE, name: 'a', guard: ANYTHING, size: 2 })
  })

  test('[S157] what is scrapped cannot be written, and is removed from its end on, without a trace', () => {
    const shard = new TestShard()
    const before = digestOf(shard.state, true)
    const own = shard.construct()
    shard.write(m.addInline, { ...own, offset: 0, ...inlineOf('a') })
    shard.write(m.addInline, { ...own, offset: 1, ...inlineOf('b') })
    shard.write(m.setXattr, { inode: own.file, xattr: { name: 'user.a', value: Buffer.from('1') }, how: 'any' })
    for (let again = 0; again < 2; again++) shard.write(m.scrap, own)
    shard.refuses('TRANSIENT_EXPIRED', m.addInline, { ...own, offset: 2, ...inlineOf('c') })
    shard.refuses('SPAN_OUT_OF_ORDER', m.removeInode, { inode: own.file })
    assert.deepEqual(shard.write(m.removeSpan, own), { outcome: 'removed', offset: 1, blocks: [] })
    assert.deepEqual(shard.write(m.removeSpan, own), { outcome: 'removed', offset: 0, blocks: [] })
    assert.deepEqual(shard.write(m.removeSpan, own), { outcome: 'empty', offset: 0, blocks: [] })
    for (let again = 0; again < 2; again++) shard.write(m.removeInode, { inode: own.file })
    const counters: string[] = []
    shard.state.range('mc', 'md', (key) => counters.push(key) > 0)
    assert.equal(counters.length, 1, 'the counter stays, so that no id is given out twice')
    assert.notEqual(digestOf(shard.state, true), before)
    assert.notEqual(shard.construct().file, own.file)
  })

  test('only who has the cookie can go on with one', () => {
    const shard = new TestShard()
    const { file, cookie } = shard.construct()
    const other = shard.construct()
    for (const wrong of [NO_COOKIE, other.cookie]) {
      const own = { file, cookie: wrong }
      shard.refuses('COOKIE_REFUSED', m.addInline, { ...own, offset: 0, ...inlineOf('a') })
      shard.refuses('COOKIE_REFUSED', m.addSpan, addSpanOf(own, 0, spanOf(5000, 1, 0)), { chosen: [1] })
      shard.refuses('COOKIE_REFUSED', m.certify, { ...own, offset: 0, receipts: [] })
      shard.refuses('COOKIE_REFUSED', m.link, { ...own, directory: ROOT_INODE, name: 'a', guard: ANYTHING, size: 0 })
      shard.refuses('COOKIE_REFUSED', m.scrap, own)
      shard.refuses('COOKIE_REFUSED', m.removeSpan, own)
      shard.refuses('COOKIE_REFUSED', m.certifyRemoval, { ...own, offset: 0, receipts: [] })
      const move = { offset: 0, toOffset: 0, to: other.file, toCookie: other.cookie }
      shard.refuses('COOKIE_REFUSED', m.moveSpan, { ...own, ...move })
    }
    assert.deepEqual(shard.read('visit', { what: 'transient', after: 0, limit: 1 }).inodes[0]?.cookie, cookie)
  })

  test('a linked file is not removed, one that is gone is', () => {
    const shard = new TestShard()
    const { inode } = shard.create('a')
    shard.refuses('TRANSIENT_EXPECTED', m.removeInode, { inode })
    shard.refuses('FILE_EXPECTED', m.removeInode, { inode: ROOT_INODE })
    shard.write(m.removeInode, { inode: UNKNOWN_FILE })
  })
})

describe('inline spans', () => {
  test('[S151] facts that contradict each other are refused', () => {
    const shard = new TestShard()
    const own = shard.construct()
    const good = inlineOf('abc')
    const bad = [
      { ...good, crc: (good.crc ^ 1) >>> 0 },
      { ...good, size: 2 },
      { ...good, size: 4 },
      { ...good, size: 0 },
      { ...inlineOf(''), size: 0 },
      { ...good, size: 2 ** 30 + 1 },
    ]
    for (const each of bad) shard.refuses('SPAN_INVALID', m.addInline, { ...own, offset: 0, ...each })
    for (const offset of [1, 4096]) shard.refuses('SPAN_OUT_OF_ORDER', m.addInline, { ...own, offset, ...good })
    // A size without bytes is a create of an empty file that contradicts itself, too.
    shard.refuses('SPAN_INVALID', m.create, { ...newFile(''), name: 'a', bytes: Buffer.from('x') })
    shard.refuses('SPAN_INVALID', m.create, { ...newFile('x'), name: 'a', crc: 1 })
  })

  test('what a span has beyond its bytes is zeros', () => {
    const shard = new TestShard()
    const own = shard.construct()
    const bytes = Buffer.from('abc')
    const size = 1_000_000
    const request = { ...own, offset: 0, size, bytes, crc: crc32cZeros(crc32c(bytes), size - 3) }
    shard.write(m.addInline, request)
    const none = { ...own, offset: size, size: 2 ** 30, bytes: Buffer.alloc(0), crc: crc32cZeros(0, 2 ** 30) }
    shard.write(m.addInline, none)
    const { spans, size: all } = shard.read('spans', { file: own.file, offset: 0, limit: 9 })
    assert.equal(all, size + 2 ** 30)
    assert.deepEqual(
      spans.map((span) => [span.offset, span.size, span.inline?.toString(), span.blocks]),
      [
        [0, size, 'abc', undefined],
        [size, 2 ** 30, undefined, undefined],
      ],
    )
  })

  test('no file is longer than a number of its size can be', () => {
    const shard = new TestShard()
    const own = shard.construct()
    const end = Number.MAX_SAFE_INTEGER
    shard.refuses('SPAN_INVALID', m.addInline, { ...own, offset: end, ...inlineOf('a') })
  })

  test('[S153] what is kept of a request does not change with the memory that it came in', () => {
    const shard = new TestShard()
    const value = Buffer.alloc(500, 'v')
    const { inode } = shard.write(m.create, {
      ...newFile('content'),
      name: 'a',
      xattrs: [{ name: 'user.a', value }],
    })
    shard.write(m.setXattr, { inode, xattr: { name: 'user.b', value }, how: 'any' })
    // The fixture overwrites each frame once it is applied.
    assert.equal(shard.read('spans', { file: inode, offset: 0, limit: 1 }).spans[0]?.inline?.toString(), 'content')
    assert.deepEqual(shard.read('xattrs', { inode }).xattrs, [
      { name: 'user.a', value },
      { name: 'user.b', value },
    ])
    assert.equal(digestOf(shard.replayed()), digestOf(shard.state))
  })
})

describe('symlinks', () => {
  test('have a target of 1 to 4,095 bytes without NUL, in one span', () => {
    const shard = new TestShard()
    const link = (target: string): Parameters<typeof shard.write>[1] => ({
      ...newFile(target),
      type: 'symlink',
      name: 'l',
    })
    for (const bad of ['', 'a\0b', 'x'.repeat(4096)]) shard.refuses('INPUT_INVALID', m.create, link(bad) as never)
    shard.write(m.create, link('x'.repeat(4095)) as never)
    const own = shard.write(m.construct, { type: 'symlink', attributes: ATTRIBUTES, note: '' })
    assert.equal(inodeType(own.file), 'symlink')
    const name = { directory: ROOT_INODE, name: 'm', guard: ANYTHING }
    shard.refuses('INPUT_INVALID', m.link, { ...own, ...name, size: 0 })
    shard.refuses('INPUT_INVALID', m.addInline, { ...own, offset: 0, ...inlineOf('a\0') })
    shard.refuses('INPUT_INVALID', m.addInline, {
      ...own,
      offset: 0,
      ...inlineOf('a'),
      size: 2,
      crc: crc32cZeros(crc32c(Buffer.from('a')), 1),
    })
    shard.refuses('SPAN_INVALID', m.addSpan, addSpanOf(own, 0, spanOf(5000, 1, 0)), { chosen: [1] })
    shard.write(m.addInline, { ...own, offset: 0, ...inlineOf('../target') })
    shard.refuses('SPAN_OUT_OF_ORDER', m.addInline, { ...own, offset: 9, ...inlineOf('more') })
    shard.write(m.link, { ...own, ...name, size: 9 })
    assert.equal(shard.read('stat', { inode: own.file }).type, 'symlink')
  })

  test('directories are not made by the requests for files', () => {
    const shard = new TestShard()
    shard.refuses('INPUT_INVALID', m.construct, { type: 'directory', attributes: ATTRIBUTES, note: '' })
    shard.refuses('INPUT_INVALID', m.create, { ...newFile(''), type: 'directory', name: 'd' })
  })
})

describe('attributes', () => {
  const NO_CHANGE = { mode: undefined, uid: undefined, gid: undefined, mtime: undefined, atime: undefined }

  test('of files, transient ones and directories are set one by one; ctime is the time of it', () => {
    const shard = new TestShard()
    const inodes = [ROOT_INODE, shard.create('a').inode, shard.construct().file]
    for (const inode of inodes) {
      const before = shard.read('stat', { inode })
      const changes = { ...NO_CHANGE, mode: 0o107_755, mtime: -5_000_000, uid: 0xffff_ffff }
      shard.write(m.setAttributes, { inode, changes })
      const set = { mode: 0o7755, mtime: -5_000_000, uid: 0xffff_ffff, ctime: shard.nowUs }
      assert.deepEqual(shard.read('stat', { inode }), { ...before, ...set })
    }
    shard.refuses('INODE_NOT_FOUND', m.setAttributes, { inode: UNKNOWN_FILE, changes: NO_CHANGE })
    const lost = makeInodeId('directory', 0, 77)
    shard.refuses('INODE_NOT_FOUND', m.setAttributes, { inode: lost, changes: NO_CHANGE })
    shard.refuses('INPUT_INVALID', m.setAttributes, { inode: makeInodeId('file', 1, 1), changes: NO_CHANGE })
  })

  test('each change of a name is one of its directory at that time', () => {
    const shard = new TestShard()
    const at = (): number[] => {
      const { mtime, ctime } = shard.read('stat', { inode: ROOT_INODE })
      return [mtime, ctime]
    }
    const edge = shard.create('a')
    assert.deepEqual(at(), [edge.created, edge.created])
    const { created } = shard.write(m.rename, {
      ...edge,
      directory: ROOT_INODE,
      name: 'a',
      newName: 'b',
      guard: ANYTHING,
    })
    assert.deepEqual(at(), [created, created])
    const { removed } = shard.unlink('b')
    assert.deepEqual(at(), [removed, removed])
    const stat = shard.read('stat', { inode: ROOT_INODE })
    assert.deepEqual([stat.mode, stat.uid, stat.gid, stat.owner], [0o755, 0, 0, NO_INODE])
  })

  test('times that a client gives are kept to the microsecond', () => {
    const shard = new TestShard()
    const atime = 8_000_000_000_000_123
    for (const [index, mtime] of [-1, 0, 1, Number.MAX_SAFE_INTEGER, -Number.MAX_SAFE_INTEGER].entries()) {
      const attributes = { ...ATTRIBUTES, mtime, atime }
      const { inode } = shard.write(m.create, { ...newFile(''), name: `a${index}`, attributes })
      const stat = shard.read('stat', { inode })
      assert.deepEqual([stat.mtime, stat.atime], [mtime, atime])
    }
  })
})

describe('extended attributes', () => {
  const set = (name: string, value: Buffer | string, how: 'any' | 'create' | 'replace' = 'any') => ({
    xattr: { name, value: Buffer.from(value) },
    how,
  })

  test('are set, made, replaced, removed and listed in order', () => {
    const shard = new TestShard()
    for (const inode of [ROOT_INODE, shard.create('a').inode, shard.construct().file]) {
      shard.refuses('ATTRIBUTE_NOT_FOUND', m.setXattr, { inode, ...set('user.b', '1', 'replace') })
      shard.write(m.setXattr, { inode, ...set('user.b', '1', 'create') })
      shard.refuses('NAME_TAKEN', m.setXattr, { inode, ...set('user.b', '2', 'create') })
      shard.write(m.setXattr, { inode, ...set('user.b', '2', 'replace') })
      shard.write(m.setXattr, { inode, ...set('user.ü', '', 'any') })
      shard.write(m.setXattr, { inode, ...set('user.a', '3', 'any') })
      assert.equal(shard.read('stat', { inode }).ctime, shard.nowUs)
      const found = shard.read('xattrs', { inode }).xattrs.map(({ name, value }) => `${name}=${value.toString()}`)
      assert.deepEqual(found, ['user.a=3', 'user.b=2', 'user.ü='])
      shard.write(m.removeXattr, { inode, name: 'user.b' })
      shard.refuses('ATTRIBUTE_NOT_FOUND', m.removeXattr, { inode, name: 'user.b' })
      assert.equal(shard.read('xattrs', { inode }).xattrs.length, 2)
    }
    for (const name of ['', 'a\0b']) shard.refuses('INPUT_INVALID', m.setXattr, { inode: ROOT_INODE, ...set(name, '') })
    shard.refuses('INODE_NOT_FOUND', m.setXattr, { inode: UNKNOWN_FILE, ...set('a', '') })
    shard.refuses('INODE_NOT_FOUND', m.removeXattr, { inode: UNKNOWN_FILE, name: 'a' })
    assert.throws(() => shard.read('xattrs', { inode: UNKNOWN_FILE }), { code: 'INODE_NOT_FOUND' })
  })

  test('[S159] together they have 64 KiB at most, what is replaced not counted', () => {
    const shard = new TestShard()
    const { inode } = shard.create('a')
    shard.write(m.setXattr, { inode, ...set('a', Buffer.alloc(65_535)) })
    shard.refuses('STORE_ATTRIBUTES_TOO_LARGE', m.setXattr, { inode, ...set('b', '') })
    shard.refuses('STORE_ATTRIBUTES_TOO_LARGE', m.setXattr, { inode, ...set('a', Buffer.alloc(65_536)) })
    shard.write(m.setXattr, { inode, ...set('a', Buffer.alloc(65_000)) })
    shard.write(m.setXattr, { inode, ...set('b', Buffer.alloc(534)) })
    const xattrs = [{ name: 'a', value: Buffer.alloc(65_536) }]
    shard.refuses('STORE_ATTRIBUTES_TOO_LARGE', m.create, { ...newFile(''), name: 'b', xattrs })
  })

  test('[S159] there are 4,096 at most, and so many can be listed', () => {
    const shard = new TestShard()
    shard.isStrict = false
    const many = Array.from({ length: 4096 }, (_, index) => ({ name: index.toString(36), value: Buffer.alloc(0) }))
    const { inode } = shard.write(m.create, { ...newFile(''), name: 'a', xattrs: many })
    shard.refuses('STORE_ATTRIBUTES_TOO_LARGE', m.setXattr, { inode, ...set('more', '') })
    shard.write(m.setXattr, { inode, ...set('0', 'x') })
    assert.equal(shard.read('xattrs', { inode }).xattrs.length, 4096)
  })
})

describe('policies', () => {
  const steps = (...bytesMax: number[]): Policy['spans'] =>
    bytesMax.map((each) => ({ bytesMax: each, data: 4, parity: 2 }))

  test('are kept, inherited by nobody here, and taken away by an empty one', () => {
    const shard = new TestShard()
    const policy: Policy = {
      history: { ageUs: 1, versions: undefined },
      spans: steps(4096, 2 ** 30),
      classes: [
        { bytesMin: 0, class: 3 },
        { bytesMin: 65_536, class: 2 },
      ],
      stripeBytes: 4096,
      inlineBytesMax: 65_536,
    }
    shard.write(m.setPolicy, { directory: ROOT_INODE, policy })
    assert.deepEqual(shard.read('stat', { inode: ROOT_INODE }).policy, policy)
    shard.write(m.setPolicy, { directory: ROOT_INODE, policy: EMPTY_POLICY })
    assert.equal(shard.read('stat', { inode: ROOT_INODE }).policy, undefined)
  })

  const bad: Record<string, Partial<Policy>> = {
    'no spans': { spans: [] },
    'spans that do not ascend': { spans: steps(8192, 8192) },
    'spans of nothing': { spans: steps(0) },
    'spans over 1 GiB': { spans: steps(2 ** 30 + 1) },
    'spans under a page': { spans: steps(4095, 8192) },
    'no redundancy': { spans: [{ bytesMax: 4096, data: 2, parity: 0 }] },
    'too much redundancy': { spans: [{ bytesMax: 4096, data: 16, parity: 1 }] },
    'no classes': { classes: [] },
    'classes that do not begin at 0': { classes: [{ bytesMin: 1, class: 2 }] },
    'classes that do not ascend': {
      classes: [
        { bytesMin: 0, class: 2 },
        { bytesMin: 0, class: 3 },
      ],
    },
    'a class that is none of blocks': { classes: [{ bytesMin: 0, class: 1 }] },
    'stripes under a page': { stripeBytes: 4095 },
    'too much inline': { inlineBytesMax: 65_537 },
  }
  for (const [what, policy] of Object.entries(bad)) {
    test(`[S151] one with ${what} is refused`, () => {
      const shard = new TestShard()
      shard.refuses('INPUT_INVALID', m.setPolicy, { directory: ROOT_INODE, policy: { ...EMPTY_POLICY, ...policy } })
    })
  }
})
