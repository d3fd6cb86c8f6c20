/** Whether two entries are the same: the table, and the traps of times and etags. */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { mkdtempSync, rmSync, utimesSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'

import type { Timestamp } from '#base/time.ts'
import type { Kind, Version } from '#store/store.ts'

import {
  isRacy,
  isSameToPrecision,
  samenessOf,
  TICK_NS,
  type Known,
  type Remembered,
  type Sameness,
  type SamenessRules,
} from './equality.ts'
import { Scan } from './scan.ts'
import type { TreeEntry } from './tree.ts'

const RULES: SamenessRules = { targetPrecisionNs: 1, sourceGranularityNs: TICK_NS, byHash: false }
const OLD = { seconds: 1000, nanoseconds: 123_456_789 }
const KNOWN: Known = { lookedAt: { seconds: 2000, nanoseconds: 0 } }
const IDENTITY = { device: 1, inode: 2, ctime: OLD }
const V1 = 'v1' as Version

function entry(changes: Partial<TreeEntry> = {}): TreeEntry {
  return { path: 'f', kind: 'file', size: 5, mtime: OLD, ...changes }
}
function remembered(changes: Partial<Remembered> = {}): Remembered {
  return {
    size: 5,
    mtime: OLD,
    identity: IDENTITY,
    lookedAt: { seconds: 1500, nanoseconds: 0 },
    targetVersion: V1,
    ...changes,
  }
}
function decide(
  source: Partial<TreeEntry>,
  target: Partial<TreeEntry>,
  known: Partial<Known> = {},
  rules: Partial<SamenessRules> = {},
): Sameness {
  return samenessOf(entry(source), entry(target), { ...KNOWN, ...known }, { ...RULES, ...rules })
}

test('equality: kinds, sizes and times', () => {
  const rows: [Sameness, Partial<TreeEntry>, Partial<TreeEntry>][] = [
    ['same', {}, {}],
    ['different', { size: 6 }, {}],
    ['different', { size: 6 }, { mtime: undefined }],
    ['different', { mtime: { seconds: 1001, nanoseconds: 0 } }, {}],
    // An older source is as different as a newer one.
    ['different', { mtime: { seconds: 999, nanoseconds: 0 } }, {}],
    ['different', { mtime: { ...OLD, nanoseconds: 123_456_788 } }, {}],
    ['unsure', {}, { mtime: undefined }],
    ['unsure', { mtime: undefined }, {}],
    ['same', { kind: 'directory', size: 0, mtime: undefined }, { kind: 'directory', size: 0 }],
    ['different', { kind: 'directory', size: 0 }, { size: 0 }],
    ['different', { kind: 'symlink' }, { attributes: {} }],
    ['different', { attributes: {} }, { kind: 'symlink' }],
  ]
  for (const [expected, source, target] of rows) {
    assert.equal(decide(source, target), expected, JSON.stringify([source, target]))
  }
})

test('equality: a listing that tells no attributes may call a symlink a file', () => {
  const symlink: { kind: Kind } = { kind: 'symlink' }
  assert.equal(decide(symlink, { mtime: undefined, attributes: undefined }), 'unsure')
  assert.equal(decide({ kind: 'directory', size: 5 }, { attributes: undefined }), 'different')
})

test('[trap 10] an edit that keeps size and mtime is not called the same: ctime tells it', () => {
  const known = { remembered: remembered() }
  const target = { version: V1 }
  assert.equal(decide({ identity: IDENTITY }, target, known), 'same')
  const ctime = { ...OLD, nanoseconds: OLD.nanoseconds + 1 }
  assert.equal(decide({ identity: { ...IDENTITY, ctime } }, target, known), 'unsure')
  // Another file was moved over it, with the same size and time.
  assert.equal(decide({ identity: { ...IDENTITY, inode: 3 } }, target, known), 'unsure')
  // By time and size alone this was the blind spot.
  assert.equal(decide({}, {}), 'same')
})

test('[trap 10] on a real file: the same size and the mtime set back', async () => {
  const root = mkdtempSync(join(tmpdir(), 'eider-equality-'))
  try {
    const file = join(root, 'f')
    const look = async (): Promise<{ entry: TreeEntry; lookedAt: Timestamp }> => {
      const scan = new Scan(root)
      for await (const [first] of scan) if (first !== undefined) return { entry: first, lookedAt: scan.startedAt }
      return assert.fail('nothing was listed')
    }
    writeFileSync(file, 'before')
    utimesSync(file, 1000, 1000)
    const first = await look()
    // Until a look at it is later than its tick, so that what is remembered of it can be trusted.
    let sent = first
    while (isRacy(sent.entry.identity?.ctime ?? first.lookedAt, sent.lookedAt, TICK_NS)) sent = await look()
    const { size, mtime, identity } = sent.entry
    assert.ok(mtime !== undefined && identity !== undefined)
    const memory = { size, mtime, identity, lookedAt: sent.lookedAt, targetVersion: V1 }
    const target = entry({ size, mtime: undefined, version: V1 })
    const again = await look()
    assert.equal(samenessOf(again.entry, target, { lookedAt: again.lookedAt, remembered: memory }, RULES), 'same')
    writeFileSync(file, 'after!')
    utimesSync(file, 1000, 1000)
    const edited = await look()
    assert.deepEqual([edited.entry.size, edited.entry.mtime], [size, mtime])
    assert.equal(samenessOf(edited.entry, target, { lookedAt: edited.lookedAt, remembered: memory }, RULES), 'unsure')
  } finally {
    rmSync(root, { recursive: true })
  }
})

test('[trap 11] times are compared to what the target keeps: nanoseconds, a second, two on FAT', () => {
  const at = (seconds: number, nanoseconds: number): Timestamp => ({ seconds, nanoseconds })
  const rows: [boolean, number, Timestamp, Timestamp][] = [
    [true, 1, at(10, 1), at(10, 1)],
    [false, 1, at(10, 1), at(10, 2)],
    [true, 1000, at(10, 1999), at(10, 1000)],
    [false, 1000, at(10, 2000), at(10, 1999)],
    [true, 1e9, at(10, 999_999_999), at(10, 0)],
    [false, 1e9, at(11, 0), at(10, 999_999_999)],
    [true, 1e9, at(-1, 999_999_999), at(-1, 0)],
    [true, 2e9, at(11, 999_999_999), at(10, 0)],
    [false, 2e9, at(12, 0), at(11, 0)],
  ]
  for (const [expected, precision, a, b] of rows) {
    assert.equal(isSameToPrecision(a, b, precision), expected, JSON.stringify([precision, a, b]))
    assert.equal(isSameToPrecision(b, a, precision), expected)
  }
  assert.equal(decide({}, { mtime: { seconds: 1000, nanoseconds: 0 } }, {}, { targetPrecisionNs: 1e9 }), 'same')
  assert.equal(decide({}, { mtime: { seconds: 1000, nanoseconds: 0 } }), 'different')
})

test('[trap 11] a file changed within a tick of the look at it is racily clean: only its bytes tell', () => {
  const lookedAt = { seconds: 2000, nanoseconds: 5_000_000 }
  const racy = [
    { seconds: 2000, nanoseconds: 5_000_000 },
    { seconds: 2000, nanoseconds: 1 },
    { seconds: 1999, nanoseconds: 995_000_000 },
    { seconds: 2001, nanoseconds: 0 },
  ]
  for (const mtime of racy) {
    assert.equal(decide({ mtime }, { mtime }, { lookedAt }), 'unsure', JSON.stringify(mtime))
    assert.equal(decide({ mtime, size: 6 }, { mtime }, { lookedAt }), 'different')
  }
  const mtime = { seconds: 1999, nanoseconds: 994_999_999 }
  assert.equal(decide({ mtime }, { mtime }, { lookedAt }), 'same')
  assert.equal(decide({ mtime }, { mtime }, { lookedAt }, { sourceGranularityNs: 2e9 }), 'unsure')
  // A time of modification set into the future does not make a file racy for ever: ctime is the kernel's own.
  const future = { seconds: 9000, nanoseconds: 0 }
  assert.equal(decide({ mtime: future, identity: IDENTITY }, { mtime: future }, { lookedAt }), 'same')
})

test('[trap 11] what was remembered of a racily clean file is not trusted either', () => {
  const memory = remembered({ lookedAt: { seconds: 1000, nanoseconds: 130_000_000 } })
  assert.equal(decide({ identity: IDENTITY }, { version: V1 }, { remembered: memory }), 'unsure')
  const later = remembered({ lookedAt: { seconds: 1000, nanoseconds: 133_456_790 } })
  assert.equal(decide({ identity: IDENTITY }, { version: V1 }, { remembered: later }), 'same')
})

test('equality: a target that does not tell its time is known by its version, while that is the one that was stored', () => {
  const known = { remembered: remembered() }
  const target = { mtime: undefined, version: V1 }
  assert.equal(decide({ identity: IDENTITY }, target, known), 'same')
  assert.equal(decide({ identity: IDENTITY }, { ...target, version: 'v2' as Version }, known), 'unsure')
  assert.equal(decide({ identity: IDENTITY, mtime: { seconds: 1001, nanoseconds: 0 } }, target, known), 'different')
  assert.equal(decide({ identity: IDENTITY }, { ...target, size: 4 }, known), 'different')
  // Of a target without versions its time decides.
  assert.equal(decide({ identity: IDENTITY }, {}, { remembered: remembered({ targetVersion: undefined }) }), 'same')
})

test('equality: hashes decide where both are known, and where they are asked for nothing else does', () => {
  const [one, two] = [
    { algorithm: 'sha256', digest: '01' },
    { algorithm: 'sha256', digest: '02' },
  ]
  const touched = { mtime: { seconds: 1001, nanoseconds: 0 } }
  assert.equal(decide(touched, {}, { sourceHash: one, targetHash: one }), 'same')
  assert.equal(decide({}, {}, { sourceHash: one, targetHash: two }), 'different')
  assert.equal(decide({}, {}, {}, { byHash: true }), 'unsure')
  assert.equal(decide({ size: 4 }, {}, {}, { byHash: true }), 'different')
  assert.equal(
    decide({}, {}, { sourceHash: one, targetHash: { ...one, algorithm: 'crc32' } }, { byHash: true }),
    'unsure',
  )
  assert.equal(decide({}, {}, { sourceHash: one }, { byHash: true }), 'unsure')
})

test('[trap 22] an etag that looks like the MD5 of the bytes is no hash of them, and one that does not is no difference', () => {
  const md5 = createHash('md5').update('bytes').digest('hex')
  const sourceHash = { algorithm: 'md5', digest: md5 }
  assert.equal(decide({}, { mtime: undefined, version: md5 as Version }, { sourceHash }), 'unsure')
  assert.equal(decide({}, { version: md5 as Version }, { sourceHash }, { byHash: true }), 'unsure')
  // Of a multipart upload, or of an encrypted one.
  assert.equal(decide({}, { mtime: undefined, version: `${md5}-2` as Version }, { sourceHash }), 'unsure')
  assert.equal(decide({}, { version: `${md5}-2` as Version }, { sourceHash }), 'same')
})
