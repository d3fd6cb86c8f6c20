import assert from 'node:assert/strict'
import { mkdtempSync, openSync, readFileSync, rmSync, truncateSync, writeFileSync, writeSync, closeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'

import { numberKey } from '#cluster/journal/keys.ts'
import { openLmdbState } from '#cluster/journal/lmdb-state.ts'
import { findValue } from '#cluster/journal/sealed-value.ts'
import type { Change, Key, StateReader, StoredState } from '#cluster/journal/state.ts'

import { LmdbFile } from './lmdb-file.ts'

const directory = mkdtempSync(join(tmpdir(), 'eider-lmdb-'))
after(() => rmSync(directory, { recursive: true }))

/** Keys of several kinds, values from none to some pages, in an order that is not theirs. */
function changes(count: number): Change[] {
  return Array.from({ length: count }, (_, index) => {
    const number = (index * 7919) % count
    const kind = 'dfsx'[number % 4] ?? ''
    const bytes = number % 97 === 0 ? 10_000 + number : number % 60
    return [kind + numberKey(number), Buffer.alloc(bytes, number)]
  })
}

function allOf(reader: StateReader, from: Key, to: Key, isBackwards = false): [Key, string][] {
  const found: [Key, string][] = []
  const each = (key: Key, value: Buffer): boolean => {
    found.push([key, value.toString('latin1')])
    return true
  }
  if (isBackwards) reader.rangeBackwards(from, to, each)
  else reader.range(from, to, each)
  return found
}

/** Of long lists, the difference that an assertion would print takes minutes. */
function assertSame(actual: readonly [Key, string][], expected: readonly [Key, string][]): void {
  assert.equal(actual.length, expected.length)
  const at = actual.findIndex(([key, value], index) => key !== expected[index]?.[0] || value !== expected[index]?.[1])
  assert.deepEqual(actual[at], expected[at])
}

const DAMAGED = Buffer.from('damaged').toString('latin1')

/** Its pairs, as a machine sealed them. */
function opened(file: LmdbFile): StateReader {
  const tree = file.database('pairs')
  const open = (key: Key, sealed: Buffer): Buffer => findValue(key, sealed) ?? Buffer.from(DAMAGED)
  return {
    get: (key) => {
      const sealed = tree.get(key)
      return sealed === undefined ? undefined : open(key, sealed)
    },
    range: (from, to, each) => tree.range(from, to, (key, sealed) => each(key, open(key, sealed))),
    rangeBackwards: (from, to, each) => tree.rangeBackwards(from, to, (key, sealed) => each(key, open(key, sealed))),
  }
}

describe('a file of LMDB read as bytes', () => {
  const path = join(directory, 'state', 'data.lmdb')
  let state: StoredState
  let expected: [Key, string][]

  before(async () => {
    state = await openLmdbState(directory)
    const all = changes(20_000)
    for (let at = 0; at < all.length; at += 1000) await state.commit(all.slice(at, at + 1000), at + 1000)
    // Some go again, so that pages are merged.
    await state.commit(
      all.filter((_, index) => index % 5 === 0).map(([key]) => [key, null]),
      20_001,
    )
    expected = allOf(state, '', '\xff')
  })
  after(() => state.close())

  test('gives what LMDB gives: single values, ranges from anywhere, both ways', () => {
    const damage: string[] = []
    const file = LmdbFile.open(path, (detail) => damage.push(detail))
    const pairs = opened(file)
    assertSame(allOf(pairs, '', '\xff'), expected)
    assertSame(allOf(pairs, '', '\xff', true), expected.toReversed())
    for (let index = 0; index < 20_000; index += 997) {
      const key = 'dfsx'.charAt(index % 4) + numberKey(index)
      assert.deepEqual(pairs.get(key), state.get(key))
      const to = `s${numberKey(Math.min(19_999, index + 500))}`
      for (const isBackwards of [false, true]) {
        assertSame(allOf(pairs, key, to, isBackwards), allOf(state, key, to, isBackwards))
      }
    }
    assert.equal(pairs.get('z'), undefined)
    assert.equal(file.database('facts').get('format')?.toString(), 'eider state 2\n')
    assert.deepEqual(allOf(file.database('nothing'), '', '\xff'), [])
    assert.deepEqual(damage, [])
    file.close()
  })

  test('tells of damaged pages once, and gives all that lies on others', () => {
    const copy = join(directory, 'damaged.lmdb')
    const bytes = readFileSync(path)
    writeFileSync(copy, bytes)
    const fd = openSync(copy, 'r+')
    for (let page = 200; page < 210; page++) writeSync(fd, Buffer.alloc(4096, 0xa5), 0, 4096, page * 4096)
    closeSync(fd)
    const damage: string[] = []
    const file = LmdbFile.open(copy, (detail) => damage.push(detail))
    const pairs = opened(file)
    const found = allOf(pairs, '', '\xff')
    allOf(pairs, '', '\xff', true)
    file.close()
    const known = new Map(expected)
    // Of a value of several pages, its own checksum alone tells whether they are as they were.
    assert.ok(found.every(([key, value]) => value === DAMAGED || known.get(key) === value))
    assert.ok(found.length > expected.length / 2 && found.length < expected.length, `${found.length}`)
    assert.ok(damage.length >= 1 && damage.length <= 10, damage.join())
    assert.equal(new Set(damage).size, damage.length)
  })

  test('reads what is left of a file that was cut, and refuses what is none', () => {
    const copy = join(directory, 'cut.lmdb')
    writeFileSync(copy, readFileSync(path))
    truncateSync(copy, 300 * 4096)
    const damage: string[] = []
    const file = LmdbFile.open(copy, (detail) => damage.push(detail))
    allOf(file.database('pairs'), '', '\xff')
    file.close()
    assert.match(damage[0] ?? '', /^has lost its end/)
    writeFileSync(copy, Buffer.alloc(8192, 1))
    assert.throws(() => LmdbFile.open(copy, () => undefined), { code: 'JOURNAL_CORRUPT' })
    writeFileSync(copy, '')
    assert.deepEqual(allOf(LmdbFile.open(copy, () => undefined).root, '', '\xff'), [])
  })

  test('survives any single page of garbage', () => {
    const bytes = readFileSync(path)
    const copy = join(directory, 'garbage.lmdb')
    for (let page = 2; page < bytes.length / 4096; page += 41) {
      const broken = Buffer.from(bytes)
      for (let at = 16; at < 4096; at += 3) broken[page * 4096 + at] = (at * page * 31) & 0xff
      writeFileSync(copy, broken)
      const file = LmdbFile.open(copy, () => undefined)
      allOf(file.database('pairs'), '', '\xff')
      file.database('facts').get('applied')
      file.close()
    }
  })
})
