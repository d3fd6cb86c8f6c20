import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'

import type { Attributes, Kind } from '#store/store.ts'
import { isOperationError } from '#base/errors.ts'
import { checkMetadata, decodeMetadata, encodeMetadata } from './metadata.ts'

const roundTrip = (kind: Kind, attributes: Attributes): ReturnType<typeof decodeMetadata> => {
  const { attr, xattr } = encodeMetadata('p', kind, 5, attributes)
  return decodeMetadata(attr, xattr)
}

test('attributes are written as yas3fs 2.4.6 writes them', () => {
  const { attr, xattr } = encodeMetadata('p', 'file', 12, {
    mode: 0o644,
    uid: 1000,
    gid: 100,
    atime: { seconds: 1_385_638_236, nanoseconds: 123_457_000 },
    mtime: { seconds: 1_385_638_236, nanoseconds: 0 },
    ctime: { seconds: 1_385_638_237, nanoseconds: 1 },
    xattrs: new Map([['user.note', Buffer.from('häy')]]),
  })
  assert.equal(
    attr,
    '{"st_uid": 1000, "st_gid": 100, "st_mode": 33188, "st_atime": 1385638236.123457, ' +
      '"st_mtime": 1385638236, "st_ctime": 1385638237.000000001, "st_size": 12}',
  )
  assert.equal(xattr, String.raw`{"user.note": "h\u00e4y"}`)
})

test('what 2.4.6 wrote is read, stray members and all', () => {
  const { attributes, kind, foreign } = decodeMetadata(
    '{"st_uid": 0, "st_ctime": 1385638236.123457, "st_nlink": 1, "st_mode": 16877, "st_size": 0, "x": {"st_uid": 9}}',
    '{"user.a": "b"}',
  )
  assert.equal(kind, 'directory')
  assert.deepEqual([attributes.mode, attributes.uid, attributes.gid], [0o755, 0, undefined])
  assert.deepEqual(attributes.ctime, { seconds: 1_385_638_236, nanoseconds: 123_457_000 })
  assert.equal(Buffer.from(attributes.xattrs?.get('user.a') ?? []).toString(), 'b')
  assert.deepEqual(
    [...foreign],
    [
      ['st_nlink', '1'],
      ['x', '{"st_uid":9}'],
    ],
  )
})

test('members of others are written again', () => {
  const { foreign } = decodeMetadata('{"st_uid": 1, "st_nlink": 12345678901234567890, "note": "é"}', undefined)
  const { attr } = encodeMetadata('p', 'file', 1, { uid: 2 }, foreign)
  assert.equal(attr, String.raw`{"st_uid": 2, "st_size": 1, "st_nlink": 12345678901234567890, "note": "\u00e9"}`)
})

test('the text of before 2014 is read', () => {
  const { attributes, kind } = decodeMetadata(
    'st_uid=1000;st_gid=1001;st_mode=41471;st_atime=1355318000.5;st_mtime=1355318001;st_ctime=1355318002.25',
    undefined,
  )
  assert.equal(kind, 'symlink')
  assert.deepEqual(attributes, {
    mode: 0o777,
    uid: 1000,
    gid: 1001,
    atime: { seconds: 1_355_318_000, nanoseconds: 500_000_000 },
    mtime: { seconds: 1_355_318_001, nanoseconds: 0 },
    ctime: { seconds: 1_355_318_002, nanoseconds: 250_000_000 },
  })
})

test('nonsense counts as not told', () => {
  for (const attr of ['', '[]', '3', '{', 'null', '{"st_mode": "x", "st_mtime": [], "st_uid": -1, "st_gid": 1.5}']) {
    assert.deepEqual(decodeMetadata(attr, '{"user.a": 3}').attributes, {}, attr)
  }
})

test('[S128] an owner that no user or group can be counts as not told', () => {
  for (const id of ['4294967295', '4294967296', '9007199254740991', '"4294967295"', '-1', '1.5']) {
    assert.deepEqual(decodeMetadata(`{"st_uid": ${id}, "st_gid": ${id}, "st_mode": 33152}`, undefined).attributes, {
      mode: 0o600,
    })
  }
  const { attributes } = decodeMetadata('{"st_uid": 4294967294, "st_gid": 65534}', undefined)
  assert.deepEqual(attributes, { uid: 4294967294, gid: 65534 })
})

test('nothing to say is no header', () => {
  assert.deepEqual(encodeMetadata('p', 'file', 3, {}), {})
  assert.deepEqual(encodeMetadata('p', 'file', 3, { xattrs: new Map() }), {})
})

test('a symlink always has the mode of one', () => {
  assert.equal(encodeMetadata('p', 'symlink', 3, {}).attr, '{"st_mode": 41471, "st_size": 3}')
})

test('more than S3 holds is refused', () => {
  const xattrs = new Map([['user.big', Buffer.alloc(2100, 'x')]])
  assert.throws(
    () => encodeMetadata('p', 'file', 3, { xattrs }),
    (error) => isOperationError(error, 'STORE_ATTRIBUTES_TOO_LARGE'),
  )
})

const isTooLarge = (error: unknown): boolean => isOperationError(error, 'STORE_ATTRIBUTES_TOO_LARGE')

const times = fc.record(
  {
    seconds: fc.integer({ min: -(2 ** 40), max: 2 ** 40 }),
    nanoseconds: fc.integer({ min: 0, max: 999_999_999 }),
  },
  { noNullPrototype: true },
)

test('all that is written is read again, in printable ASCII without two spaces in a row', () => {
  const xattrs = fc
    .array(fc.tuple(fc.string({ unit: 'binary', minLength: 1, maxLength: 10 }), fc.uint8Array({ maxLength: 20 })), {
      minLength: 1,
      maxLength: 5,
    })
    .map((pairs) => new Map(pairs.map(([name, value]) => [`user.${name.toWellFormed()}`, value])))
  const all = fc.record(
    {
      mode: fc.integer({ min: 0, max: 0o7777 }),
      uid: fc.integer({ min: 0, max: 2 ** 32 - 2 }),
      gid: fc.integer({ min: 0, max: 2 ** 32 - 2 }),
      atime: times,
      mtime: times,
      ctime: times,
      xattrs,
    },
    { requiredKeys: ['mode'], noNullPrototype: true },
  )
  fc.assert(
    fc.property(all, fc.constantFrom<Kind>('file', 'directory', 'symlink'), (attributes, kind) => {
      const { attr = '', xattr = '' } = encodeMetadata('p', kind, 5, attributes)
      assert.match(attr + xattr, /^[ -~]*$/)
      assert.ok(!attr.includes('  ') && !xattr.includes('  '))
      const found = roundTrip(kind, attributes)
      assert.equal(found.kind, kind)
      assert.deepEqual(
        { ...found.attributes, xattrs: [...(found.attributes.xattrs ?? [])].map(([n, v]) => [n, [...v]]) },
        { ...attributes, xattrs: [...(attributes.xattrs ?? [])].map(([n, v]) => [n, [...v]]) },
      )
    }),
    { seed: 7, numRuns: 300 },
  )
})

test('extended attributes that the check lets pass fit, whatever the others become', () => {
  const others = fc.record(
    {
      mode: fc.integer({ min: 0, max: 0o7777 }),
      uid: fc.integer({ min: 0, max: 2 ** 32 - 2 }),
      gid: fc.integer({ min: 0, max: 2 ** 32 - 2 }),
      atime: times,
      mtime: times,
      ctime: times,
    },
    { noNullPrototype: true },
  )
  let passed = 0
  fc.assert(
    fc.property(others, fc.integer({ min: 1600, max: 2100 }), fc.nat(2 ** 45), (attributes, length, size) => {
      const xattrs = new Map([['user.big', Buffer.alloc(length, 'x')]])
      try {
        checkMetadata('p', 'file', { xattrs })
      } catch (error) {
        assert.ok(isTooLarge(error))
        return
      }
      passed++
      encodeMetadata('p', 'file', size, { ...attributes, xattrs })
    }),
    { seed: 8, numRuns: 300 },
  )
  assert.ok(passed > 30 && passed < 270, `${passed} of 300 passed`)
})

test('the check is of extended attributes alone, and leaves most of the room to them', () => {
  checkMetadata('p', 'file', { mode: 0o644 })
  checkMetadata('p', 'file', { xattrs: new Map([['user.big', Buffer.alloc(1700, 'x')]]) })
  assert.throws(() => checkMetadata('p', 'file', { xattrs: new Map([['user.big', Buffer.alloc(3000)]]) }), isTooLarge)
})
