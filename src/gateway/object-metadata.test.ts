import assert from 'node:assert/strict'
import { describe, test } from 'node:test'

import { timestamp } from '#base/time.ts'
import type { Attributes, Entry, Kind, Version } from '#store/store.ts'

import { etagOfVersion, matchesEtag, multipartEtag, randomEtag } from './etag.ts'
import { decodeMetadata, encodeMetadata, METADATA_XATTR, type ObjectMetadata } from './object-metadata.ts'
import { isBucketName, objectOf, ObjectTree } from './object-tree.ts'
import { openMemoryStore } from '#store/memory-store.ts'

const METADATA: ObjectMetadata = {
  etag: '5d41402abc4b2a76b9719d911017c592',
  size: 5,
  modified: timestamp(1_700_000_000, 123_000_007),
  contentType: 'text/plain',
  content: { 'Cache-Control': 'no-cache' },
  user: { colour: 'bl\u00fce', empty: '' },
  checksums: { CRC32: 'NhCmhg==' },
  checksumType: 'FULL_OBJECT',
  parts: undefined,
}

function entry(kind: Kind, size: number, attributes: Attributes): Entry {
  return { path: 'b/k', kind, size, version: 'v1' as Version, modified: timestamp(5), attributes }
}

function stored(value: string | Buffer, more: Attributes = {}): Entry {
  return entry('file', 5, {
    mtime: METADATA.modified,
    xattrs: new Map([[METADATA_XATTR, Buffer.from(value)]]),
    ...more,
  })
}

describe('object metadata', () => {
  test('what is encoded is decoded', () => {
    assert.deepEqual(decodeMetadata(stored(encodeMetadata(METADATA))), METADATA)
    const parts = { ...METADATA, checksumType: 'COMPOSITE' as const, parts: { count: 3, bytes: 5 << 20 } }
    assert.deepEqual(decodeMetadata(stored(encodeMetadata(parts))), parts)
  })

  test('an attribute that somebody else wrote is not believed', () => {
    const good = JSON.parse(encodeMetadata(METADATA).toString()) as object
    for (const bad of ['', 'x', 'null', '[]', '{}']) assert.equal(decodeMetadata(stored(bad)), undefined, bad)
    for (const change of [
      { e: 'x' },
      { e: '"' },
      { s: -0.5 },
      { m: [1] },
      { m: [1, 1e9] },
      { t: 'a\r\nX-Evil: 1' },
      { u: { 'a\nb': '' } },
      { u: [] },
      { h: { X: '\u0000' } },
      { p: 5 },
    ]) {
      assert.equal(decodeMetadata(stored(JSON.stringify({ ...good, ...change }))), undefined, JSON.stringify(change))
    }
  })

  test('tag and checksums are told only while the file is the one that was put', () => {
    const value = encodeMetadata(METADATA)
    const same = objectOf('k', stored(value))
    assert.deepEqual([same.etag, same.checksums], [METADATA.etag, METADATA.checksums])
    const touched = objectOf('k', stored(value, { mtime: timestamp(1_700_000_000, 124_000_007) }))
    assert.deepEqual([touched.etag, touched.checksums], [etagOfVersion('v1' as Version), {}])
    const grown = objectOf('k', { ...stored(value), size: 6 })
    assert.deepEqual(
      [grown.etag, grown.contentType, grown.user],
      [etagOfVersion('v1' as Version), 'text/plain', METADATA.user],
    )
    assert.match(grown.etag, /^[0-9a-f]{32}-1$/)
  })

  test('a symlink is an object of the type that S3 file systems give it', () => {
    const link = objectOf('k', entry('symlink', 7, {}))
    assert.deepEqual([link.contentType, link.size], ['application/x-symlink', 7])
  })
})

describe('tags', () => {
  test('of parts: S3 form, from the digests', () => {
    const md5s = ['5d41402abc4b2a76b9719d911017c592', '7d793037a0760186574b0282f2f435e7']
    assert.equal(multipartEtag(md5s), '065947336a2f2a95ba8899f3675c3be6-2')
    assert.match(multipartEtag([randomEtag()]), /^[0-9a-f]{32}-1$/)
  })

  test('conditions list them with and without quotes', () => {
    for (const list of ['*', 'abc', '"abc"', 'W/"abc"', '"x", "abc"'])
      assert.equal(matchesEtag(list, 'abc'), true, list)
    for (const list of ['', '"x"', '"abc-1"', '""']) assert.equal(matchesEtag(list, 'abc'), false, list)
  })
})

describe('keys and buckets', () => {
  test('a key that cannot be a path in its bucket is refused', () => {
    const tree = new ObjectTree(openMemoryStore())
    assert.equal(tree.pathOf('bucket', 'x/y'), 'bucket/x/y')
    assert.equal(tree.pathOf('bucket', 'x/y/'), 'bucket/x/y')
    assert.equal(tree.pathOf('bucket', '..x/...'), 'bucket/..x/...')
    for (const key of ['/', '//', '/x', 'x//y', 'x//', '.', '..', '../x', 'x/../y', 'x/.', 'x\u0000y', '\ud800']) {
      assert.throws(() => tree.pathOf('bucket', key), { code: 'InvalidArgument' }, JSON.stringify(key))
      assert.equal(tree.pathSought('bucket', key), undefined)
    }
    for (const key of ['x'.repeat(256), 'ü'.repeat(128), 'x/'.repeat(513)]) {
      assert.throws(() => tree.pathOf('bucket', key), { code: 'KeyTooLongError' })
    }
  })

  test('bucket names are those of S3', () => {
    for (const name of ['abc', 'a.b-c', '0x0', 'a'.repeat(63)]) assert.equal(isBucketName(name), true, name)
    for (const name of [
      '',
      'ab',
      '.eider',
      'Abc',
      'a_b',
      'a..b',
      '-ab',
      'ab-',
      '1.2.3.4',
      'a/b',
      '..',
      'a'.repeat(64),
    ]) {
      assert.equal(isBucketName(name), false, name)
    }
  })
})
