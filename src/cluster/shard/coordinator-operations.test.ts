import assert from 'node:assert/strict'
import { describe, test } from 'node:test'

import { makeInodeId, ROOT_INODE } from '#cluster/inode-id.ts'
import { EMPTY_POLICY, NO_INODE } from '#cluster/wire/forms.ts'

import { shardMessages as m } from './shard-messages.ts'
import { ANYTHING, ATTRIBUTES, NOTHING, TestShard } from './shard-fixture.ts'

const DIRECTORY = makeInodeId('directory', 0, 5)
const ELSEWHERE = makeInodeId('directory', 3, 6)

describe('directories', () => {
  test('are made, owned, emptied, removed and forgotten', () => {
    const shard = new TestShard()
    const directory = shard.makeDirectory('d', 5)
    assert.deepEqual(shard.names(), ['d'])
    assert.deepEqual(shard.names(directory), [])
    assert.equal(shard.read('stat', { inode: directory }).owner, ROOT_INODE)
    shard.write(m.setOwner, { directory, owner: ELSEWHERE })
    assert.equal(shard.read('stat', { inode: directory }).owner, ELSEWHERE)
    const file = shard.create('f', { directory })
    shard.refuses('DIRECTORY_NOT_EMPTY', m.removeOwner, { directory, policy: undefined })
    shard.unlink('f', directory)
    const policy = { ...EMPTY_POLICY, stripeBytes: 8192 }
    for (let again = 0; again < 2; again++) shard.write(m.removeOwner, { directory, policy })
    const stat = shard.read('stat', { inode: directory })
    assert.deepEqual([stat.owner, stat.policy], [NO_INODE, policy])
    // It is history: nothing new can be in it, and what was there can be looked at.
    shard.refuses('DIRECTORY_REMOVED', m.setOwner, { directory, owner: ROOT_INODE })
    shard.refuses('DIRECTORY_REMOVED', m.undelete, {
      directory,
      name: 'f',
      created: file.created,
      newName: 'f',
      guard: ANYTHING,
    })
    const past = shard.read('listAsOf', { directory, asOf: file.created, after: '', limit: 9 })
    assert.deepEqual(
      past.entries.map(({ name }) => name),
      ['f'],
    )
    shard.refuses('DIRECTORY_NOT_EMPTY', m.removeDirectory, { directory })
    shard.write(m.hardUnlink, { directory, name: 'f', created: file.created, file: file.inode })
    const left = shard.read('history', {
      directory,
      name: '',
      time: 0,
      isBackwards: false,
      isSameName: false,
      limit: 9,
    })
    for (const { name, created } of left.edges) shard.write(m.dropEdge, { directory, name, created })
    shard.write(m.setXattr, { inode: directory, xattr: { name: 'a', value: Buffer.from('1') }, how: 'any' })
    for (let again = 0; again < 2; again++) shard.write(m.removeDirectory, { directory })
    assert.throws(() => shard.read('stat', { inode: directory }), { code: 'INODE_NOT_FOUND' })
    assert.throws(() => shard.read('xattrs', { inode: directory }), { code: 'INODE_NOT_FOUND' })
  })

  test('[S151] are refused where they cannot be', () => {
    const shard = new TestShard()
    shard.makeDirectory('d', 5)
    const create = { directory: DIRECTORY, owner: ROOT_INODE, attributes: ATTRIBUTES }
    const file = shard.create('f').inode
    shard.refuses('NAME_TAKEN', m.createDirectory, create)
    shard.refuses('DIRECTORY_EXPECTED', m.createDirectory, { ...create, directory: file })
    shard.refuses('DIRECTORY_EXPECTED', m.createDirectory, { ...create, owner: file })
    shard.refuses('INPUT_INVALID', m.createDirectory, { ...create, directory: ELSEWHERE })
    shard.refuses('DIRECTORY_EXPECTED', m.setOwner, { directory: DIRECTORY, owner: file })
    shard.refuses('INODE_NOT_FOUND', m.setOwner, { directory: makeInodeId('directory', 0, 9), owner: ROOT_INODE })
    for (const request of [m.setOwner, m.removeOwner, m.removeDirectory] as const) {
      const asked = { directory: ROOT_INODE, owner: ROOT_INODE, policy: undefined }
      shard.refuses('ROOT_REFUSED', request, asked)
    }
    shard.refuses('DIRECTORY_NOT_EMPTY', m.removeDirectory, { directory: DIRECTORY })
    shard.refuses('DIRECTORY_EXPECTED', m.removeDirectory, { directory: file })
  })
})

describe('locks', () => {
  test('[S160] while a name is locked, only its unlock changes it', () => {
    const shard = new TestShard()
    const { inode, created } = shard.create('a')
    const edge = { directory: ROOT_INODE, name: 'a', target: inode, created }
    shard.write(m.lockEdge, edge)
    assert.equal(shard.read('lookup', { directory: ROOT_INODE, name: 'a' }).isLocked, true)
    const known = { directory: ROOT_INODE, name: 'a', inode, created }
    shard.refuses('NAME_LOCKED', m.unlink, known)
    shard.refuses('NAME_LOCKED', m.rename, { ...known, newName: 'b', guard: ANYTHING })
    shard.refuses('NAME_LOCKED', m.lockEdge, edge)
    const other = shard.create('b')
    shard.refuses('NAME_LOCKED', m.rename, {
      ...other,
      directory: ROOT_INODE,
      name: 'b',
      newName: 'a',
      guard: ANYTHING,
    })
    shard.refuses('NAME_LOCKED', m.createEdge, { directory: ROOT_INODE, name: 'a', target: inode, guard: ANYTHING })
    const own = shard.construct()
    shard.refuses('NAME_LOCKED', m.link, { ...own, directory: ROOT_INODE, name: 'a', guard: ANYTHING, size: 0 })
    assert.deepEqual(shard.write(m.unlockEdge, { ...edge, hasLeft: false }), { removed: 0 })
    shard.refuses('EDGE_CHANGED', m.unlockEdge, { ...edge, hasLeft: true })
    assert.deepEqual(shard.edges('a'), ['current'])
    shard.unlink('a')
  })

  test('[S147] what has left goes to history, which owns nothing of it', () => {
    const shard = new TestShard()
    const { inode, created } = shard.create('a')
    const edge = { directory: ROOT_INODE, name: 'a', target: inode, created }
    shard.write(m.lockEdge, edge)
    const { removed } = shard.write(m.unlockEdge, { ...edge, hasLeft: true })
    assert.equal(removed, shard.nowUs)
    assert.deepEqual(shard.edges('a'), ['left', 'removed'])
    shard.refuses('NAME_NOT_FOUND', m.unlockEdge, { ...edge, hasLeft: true })
  })

  test('a lock is for the edge that was looked up', () => {
    const shard = new TestShard()
    const { inode, created } = shard.create('a')
    const edge = { directory: ROOT_INODE, name: 'a', target: inode, created }
    shard.refuses('EDGE_CHANGED', m.lockEdge, { ...edge, created: created - 1 })
    shard.refuses('EDGE_CHANGED', m.lockEdge, { ...edge, target: DIRECTORY })
    shard.refuses('NAME_NOT_FOUND', m.lockEdge, { ...edge, name: 'b' })
    shard.refuses('EDGE_CHANGED', m.unlockEdge, { ...edge, hasLeft: true })
  })
})

describe('edges to other shards', () => {
  test('[S147] a file that comes in takes over what it replaces', () => {
    const shard = new TestShard()
    const old = shard.create('a')
    const target = makeInodeId('file', 7, 1)
    const { created, replaced } = shard.write(m.createEdge, {
      directory: ROOT_INODE,
      name: 'a',
      target,
      guard: ANYTHING,
    })
    assert.deepEqual([created, replaced], [shard.nowUs, old.inode])
    assert.deepEqual(shard.edges('a'), ['owned', 'current'])
    // Of another shard's inode nothing is known here.
    const { entries } = shard.read('list', { directory: ROOT_INODE, after: '', limit: 9, withStatus: true })
    assert.deepEqual(
      entries.map(({ inode, status }) => [inode, status]),
      [[target, undefined]],
    )
    shard.unlink('a')
    const edge = { directory: ROOT_INODE, name: 'a', created, file: target }
    shard.refuses('INPUT_INVALID', m.hardUnlink, edge)
    shard.refuses('EDGE_CHANGED', m.removeOwnedEdge, { ...edge, file: old.inode })
    shard.write(m.removeOwnedEdge, edge)
    shard.refuses('NAME_NOT_FOUND', m.removeOwnedEdge, edge)
    assert.deepEqual(shard.edges('a'), ['owned', 'removed'])
  })

  test('a directory takes the place of nothing', () => {
    const shard = new TestShard()
    shard.create('f')
    shard.makeDirectory('d', 5)
    const edge = { directory: ROOT_INODE, target: ELSEWHERE }
    for (const name of ['f', 'd']) {
      shard.refuses('NAME_TAKEN', m.createEdge, { ...edge, name, guard: ANYTHING })
      shard.refuses('NAME_TAKEN', m.createEdge, { ...edge, name, guard: NOTHING })
    }
    shard.write(m.createEdge, { ...edge, name: 'free', guard: NOTHING })
  })

  test('a file that nothing owns is given up, once', () => {
    const shard = new TestShard()
    const { inode } = shard.create('a', { content: 'x' })
    for (let again = 0; again < 2; again++) shard.write(m.makeTransient, { file: inode })
    const { transient, size } = shard.read('stat', { inode })
    assert.deepEqual([transient?.note, size], ['unlinked', 1])
    const cookie = shard.read('visit', { what: 'transient', after: 0, limit: 1 }).inodes[0]?.cookie as Buffer
    shard.refuses('TRANSIENT_EXPIRED', m.link, {
      file: inode,
      cookie,
      directory: ROOT_INODE,
      name: 'b',
      guard: ANYTHING,
      size: 1,
    })
    shard.write(m.removeSpan, { file: inode, cookie })
    shard.write(m.removeInode, { inode })
    shard.write(m.makeTransient, { file: inode })
    shard.refuses('FILE_EXPECTED', m.makeTransient, { file: DIRECTORY })
    shard.refuses('INPUT_INVALID', m.makeTransient, { file: makeInodeId('file', 2, 2) })
  })
})
