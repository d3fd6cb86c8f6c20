import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'

import fc from 'fast-check'

import { setLogLevel } from '#base/log.ts'
import type { Entry, Version } from '#store/store.ts'

import { decodeAttributes, encodeAttributes } from './attribute-record.ts'
import { openAttributeIndex } from './open-attribute-index.ts'

setLogLevel('error')

function withDirectory(body: (directory: string) => Promise<void>): () => Promise<void> {
  return async () => {
    const directory = mkdtempSync(join(tmpdir(), 'eider-attributes-'))
    try {
      await body(directory)
    } finally {
      rmSync(directory, { recursive: true })
    }
  }
}

const entryOf = (path: string, more: Partial<Entry> = {}): Entry => ({
  path,
  kind: 'file',
  size: 7,
  version: '0123456789abcdef0123456789abcdef' as Version,
  modified: { seconds: 1_700_000_000, nanoseconds: 123_000_000 },
  attributes: { mode: 0o640, uid: 1, gid: 2, xattrs: new Map([['user.a', Uint8Array.of(1, 2)]]) },
  ...more,
})
/** As a listing tells it: no attributes, times to the second, and anything taken for a file. */
const listed = (entry: Entry, more: Partial<Entry> = {}): Entry => ({
  ...entry,
  kind: entry.kind === 'directory' ? 'directory' : 'file',
  attributes: undefined,
  modified: { seconds: entry.modified.seconds, nanoseconds: 0 },
  ...more,
})

const timestamps = fc.record(
  { seconds: fc.integer({ min: -(2 ** 46), max: 2 ** 46 }), nanoseconds: fc.integer({ min: 0, max: 999_999_999 }) },
  { noNullPrototype: true },
)
const attributes = fc.record(
  {
    mode: fc.integer({ min: 0, max: 0o7777 }),
    uid: fc.integer({ min: 0, max: 2 ** 32 - 1 }),
    gid: fc.integer({ min: 0, max: 2 ** 32 - 1 }),
    atime: timestamps,
    mtime: timestamps,
    ctime: timestamps,
    xattrs: fc
      .array(fc.tuple(fc.string({ minLength: 1, maxLength: 60 }), fc.uint8Array({ maxLength: 300 })), { maxLength: 5 })
      .map((pairs) => new Map(pairs)),
  },
  { requiredKeys: [], noNullPrototype: true },
)

test('what no record holds is not remembered', () => {
  const mtime = { seconds: 999_999_999_999_999, nanoseconds: 0 }
  assert.equal(encodeAttributes(entryOf('a'), { mtime }), undefined)
  assert.equal(encodeAttributes(entryOf('a'), { uid: 2 ** 32 }), undefined)
})

test('a record gives back every attribute, and nothing for another version or time, or when it is cut', () => {
  fc.assert(
    fc.property(
      attributes,
      fc.constantFrom('file' as const, 'directory' as const, 'symlink' as const, 'fifo' as const, 'socket' as const),
      fc.oneof(fc.stringMatching(/^[0-9a-f]{32}$/), fc.string({ minLength: 1, maxLength: 60 })),
      (given, kind, version) => {
        const entry = entryOf('a', { kind, version: version.toWellFormed() as Version })
        const record = encodeAttributes(entry, given)
        assert.ok(record !== undefined)
        const told = decodeAttributes(record, listed(entry))
        assert.deepEqual(told, { kind, attributes: given })
        assert.equal(decodeAttributes(record, listed(entry, { version: 'another' as Version })), undefined)
        const later = { seconds: entry.modified.seconds + 1, nanoseconds: 0 }
        assert.equal(decodeAttributes(record, listed(entry, { modified: later })), undefined)
        for (const length of [0, 1, 8, 12]) {
          assert.equal(decodeAttributes(record.subarray(0, length), listed(entry)), undefined)
        }
      },
    ),
    { seed: 1, numRuns: 300 },
  )
})

test(
  '[S69] attributes are known again after a restart, of the same version and time of the same store alone',
  withDirectory(async (directory) => {
    let index = await openAttributeIndex({ directory, storeUrl: 's3://a' })
    const link = entryOf('d/link', { kind: 'symlink' })
    const file = entryOf('d/file', { version: 'v-2' as Version })
    index.note(link)
    index.note(file)
    index.note(entryOf('d/gone'))
    assert.deepEqual(index.known(listed(link))?.attributes, link.attributes)
    await index.close()
    index = await openAttributeIndex({ directory, storeUrl: 's3://a' })
    const known = index.known(listed(link))
    assert.equal(known?.kind, 'symlink')
    assert.deepEqual(known.attributes, link.attributes)
    assert.deepEqual(index.known(listed(file))?.attributes, file.attributes)
    assert.equal(index.known(listed(file, { version: 'v-3' as Version })), undefined)
    assert.equal(index.known(listed(file, { modified: { seconds: 1, nanoseconds: 0 } })), undefined)
    index.forget('d/gone')
    assert.equal(index.known(listed(entryOf('d/gone'))), undefined)
    await index.close()
    const other = await openAttributeIndex({ directory, storeUrl: 's3://b' })
    assert.equal(other.known(listed(link)), undefined)
    await other.close()
    index = await openAttributeIndex({ directory, storeUrl: 's3://a' })
    assert.equal(index.known(listed(entryOf('d/gone'))), undefined)
    await index.close()
  }),
)

test(
  'what nobody asks for is forgotten when there is too much, what is asked for stays',
  withDirectory(async (directory) => {
    let index = await openAttributeIndex({ directory, storeUrl: 's3://a', entriesMax: 200 })
    const used = entryOf('used')
    index.note(used)
    for (let round = 0; round < 10; round++) {
      for (let count = 0; count < 60; count++) index.note(entryOf(`round-${round}/${count}`))
      assert.ok(index.known(listed(used)) !== undefined, `round ${round}`)
      // Each closing commits, as time does.
      await index.close()
      index = await openAttributeIndex({ directory, storeUrl: 's3://a', entriesMax: 200 })
    }
    let left = 0
    for (let round = 0; round < 10; round++) {
      for (let count = 0; count < 60; count++) {
        if (index.known(listed(entryOf(`round-${round}/${count}`))) !== undefined) left++
      }
    }
    assert.ok(left >= 60 && left <= 260, `${left} are left`)
    await index.close()
  }),
)

test(
  '[S68] an index that is no database is begun anew',
  withDirectory(async (directory) => {
    const entry = entryOf('a')
    for (const damage of [Buffer.alloc(20_000, 7), Buffer.alloc(100), Buffer.alloc(0)]) {
      writeFileSync(join(directory, 'attributes'), damage)
      const index = await openAttributeIndex({ directory, storeUrl: 's3://a' })
      assert.equal(index.known(listed(entry)), undefined)
      index.note(entry)
      await index.close()
      const again = await openAttributeIndex({ directory, storeUrl: 's3://a' })
      assert.ok(again.known(listed(entry)) !== undefined)
      await again.close()
    }
  }),
)
