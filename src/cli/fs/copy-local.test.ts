/** This machine as an end of `cp`: holes, files that change while they are read, and names and times of all kinds. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import {
  appendFileSync,
  closeSync,
  ftruncateSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'

import { isHole, type Piece } from '#cluster/client/pieces.ts'

import { NO_XATTRS } from './copy-end.ts'
import { LocalEnd } from './copy-local.ts'

const MIB = 2 ** 20
const root = mkdtempSync(join(tmpdir(), 'eider-copy-'))
const { signal } = new AbortController()
const more = { keepsOwner: false, xattrs: NO_XATTRS, signal }
after(() => rmSync(root, { recursive: true, force: true }))

/** Bytes as texts, without zeros, holes as numbers. */
async function shown(pieces: AsyncIterable<Piece>, onPiece = (): void => undefined): Promise<(string | number)[]> {
  const found: (string | number)[] = []
  for await (const piece of pieces) {
    const last = found.at(-1)
    if (isHole(piece)) found.push(piece.zeros)
    else {
      const text = Buffer.from(piece).toString().replaceAll('\0', '')
      if (typeof last === 'string') found[found.length - 1] = `${last}${text}`
      else found.push(text)
    }
    onPiece()
  }
  return found
}

/** A file that has these bytes at these places, and nothing else. */
function makeSparse(path: string, size: number, data: Readonly<Record<number, string>>): void {
  const fd = openSync(path, 'w')
  for (const [at, text] of Object.entries(data)) writeSync(fd, text, Number(at))
  ftruncateSync(fd, size)
  closeSync(fd)
}

test('large holes are told and not read, small ones are read', async () => {
  const path = join(root, 'sparse')
  makeSparse(path, 2 ** 40, { 0: 'first', 65_536: 'second', [512 * MIB]: 'third', [2 ** 40 - 3]: 'end' })
  const local = new LocalEnd()
  const pieces = await shown(local.read(path, await local.node(path), signal))
  const [first, hole, third, rest, end] = pieces
  assert.equal(pieces.length, 5)
  assert.deepEqual([first, third, end], ['firstsecond', 'third', 'end'])
  assert.ok(Number(hole) > 511 * MIB && Number(hole) <= 512 * MIB)
  assert.ok(Number(rest) > 2 ** 40 - 514 * MIB)
})

test('a file that is one hole is one, and one without bytes is none', async () => {
  const path = join(root, 'hole')
  makeSparse(path, 10 * MIB, {})
  const local = new LocalEnd()
  assert.deepEqual(await shown(local.read(path, await local.node(path), signal)), [10 * MIB])
  truncateSync(path)
  assert.deepEqual(await shown(local.read(path, await local.node(path), signal)), [])
})

test('holes are written as such, at the end, too', async () => {
  const pieces = async function* (): AsyncGenerator<Piece> {
    yield { zeros: 2 ** 35 }
    yield Buffer.from('middle')
    yield { zeros: 2 ** 36 }
  }
  const path = join(root, 'written')
  const node = { kind: 'file', size: 0, mode: 0o640, uid: 0, gid: 0, mtime: -1 } as const
  const size = 2 ** 35 + 6 + 2 ** 36
  assert.equal(await new LocalEnd().writeFile(path, node, pieces(), more), size)
  const stats = statSync(path, { bigint: true })
  assert.deepEqual([stats.size, stats.mtimeNs], [BigInt(size), -1000n])
  assert.ok(stats.blocks * 512n < BigInt(MIB))
  const local = new LocalEnd()
  const [, bytes] = await shown(local.read(path, await local.node(path), signal))
  assert.equal(bytes, 'middle')
})

test('a file that somebody writes to while it is read is told of, and one that nobody does is not', async () => {
  const changed: string[] = []
  const local = new LocalEnd((path) => changed.push(path))
  for (const [name, content] of [
    ['plain', 'x'.repeat(3 * MIB)],
    ['small', 'x'],
  ] as const) {
    const path = join(root, name)
    writeFileSync(path, content)
    const node = await local.node(path)
    await shown(local.read(path, node, signal))
    assert.deepEqual(changed, [])
    await shown(local.read(path, node, signal), () => appendFileSync(path, ''))
    assert.deepEqual(changed, [])
    let isFirst = true
    const read = await shown(local.read(path, node, signal), () => {
      if (isFirst) appendFileSync(path, 'more')
      isFirst = false
    })
    assert.deepEqual(changed.splice(0), [path])
    // What is there by then is taken along, but for what a small file had after its only read.
    assert.equal(read.join('').length, name === 'plain' ? 3 * MIB + 4 : 1)
  }
  const path = join(root, 'shorter')
  makeSparse(path, 10 * MIB, { 0: 'x', [9 * MIB]: 'y' })
  const node = await local.node(path)
  await shown(local.read(path, node, signal), () => truncateSync(path, MIB))
  assert.deepEqual(changed, [path])
})

test('names of 255 bytes are written, however many bytes a character takes', async () => {
  const names = ['\u20ac'.repeat(85), '\u{1f9a2}'.repeat(63), 'x'.repeat(255)]
  const directory = join(root, 'names')
  mkdirSync(directory)
  const local = new LocalEnd()
  const node = { kind: 'file', size: 1, mode: 0o644, uid: 0, gid: 0, mtime: 0 } as const
  const bytes = async function* (): AsyncGenerator<Piece> {
    yield Buffer.from('x')
  }
  for (const name of names) {
    await local.writeFile(local.below(directory, name), node, bytes(), more)
    await local.makeSymlink(local.below(directory, name), { ...node, kind: 'symlink' }, name, more)
  }
  assert.deepEqual(readdirSync(directory).toSorted(), names.toSorted())
})

test('times are rounded down to the microsecond, before 1970, too', async () => {
  const path = join(root, 'old')
  for (const [time, expected] of [
    ['1969-12-31T23:59:58.4999995Z', -1_500_001],
    ['1969-12-31T23:59:58.499999Z', -1_500_001],
    ['1970-01-01T00:00:00.0000019Z', 1],
  ] as const) {
    execFileSync('touch', ['-d', time, path])
    assert.equal((await new LocalEnd().node(path)).mtime, expected)
  }
  execFileSync('touch', ['-d', '2300-01-01T00:00:00Z', path])
  // Not every file system keeps such a time.
  const last = Math.min(Number.MAX_SAFE_INTEGER, statSync(path).mtimeMs * 1000)
  assert.equal((await new LocalEnd().node(path)).mtime, last)
})

test('a target that is a symlink to a directory is that directory, and a source that ends with a slash, too', async () => {
  mkdirSync(join(root, 'real'))
  symlinkSync('real', join(root, 'link'))
  symlinkSync('nowhere', join(root, 'dangling'))
  const local = new LocalEnd()
  assert.equal(await local.kindAt(join(root, 'link')), 'directory')
  assert.equal(await local.kindAt(join(root, 'dangling')), undefined)
  assert.equal(await LocalEnd.followed(join(root, 'link')), join(root, 'real'))
  await assert.rejects(LocalEnd.followed(join(root, 'small')), /ENOTDIR/)
  assert.equal(readFileSync(join(root, 'small'), 'utf8')[0], 'x')
})
