/** Calls relative to a directory, on real directories. */
import assert from 'node:assert/strict'
import {
  closeSync,
  constants,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'

import {
  exchangeAt,
  makeNodeAt,
  O_PATH,
  openBeneath,
  openByParts,
  readEntries,
  readLinkAt,
  renameNoReplaceAt,
} from './at.ts'
import { SystemCallError } from './libc.ts'
import { S_IFIFO, S_IFMT, S_IFSOCK, statusAt, statusOf } from './status.ts'

describe('calls relative to a directory', () => {
  let base = ''
  let root = -1

  before(() => {
    base = mkdtempSync(join(tmpdir(), 'eider-at-'))
    mkdirSync(join(base, 'root/a/b'), { recursive: true })
    mkdirSync(join(base, 'outside'))
    writeFileSync(join(base, 'root/a/b/file'), 'inside')
    writeFileSync(join(base, 'outside/file'), 'outside')
    symlinkSync(join(base, 'outside'), join(base, 'root/out'))
    symlinkSync('b', join(base, 'root/a/to-b'))
    symlinkSync('file', join(base, 'root/a/b/link'))
    root = openSync(join(base, 'root'), constants.O_RDONLY)
  })
  after(() => {
    closeSync(root)
    rmSync(base, { recursive: true, force: true })
  })

  for (const [name, open] of [
    ['openat2', openBeneath],
    ['one component after another', openByParts],
  ] as const) {
    test(`opening beneath a root by ${name} follows no symlink and does not leave`, () => {
      const fd = open(root, 'a/b/file', constants.O_RDONLY | constants.O_NOFOLLOW)
      assert.equal(readFileSync(fd, 'utf8'), 'inside')
      closeSync(fd)
      for (const [path, ...codes] of [
        ['out/file', 'ELOOP', 'ENOTDIR'],
        ['out/new', 'ELOOP', 'ENOTDIR'],
        ['a/to-b/file', 'ELOOP', 'ENOTDIR'],
        ['a/b/link', 'ELOOP'],
        ['a/b/file/x', 'ENOTDIR'],
        ['a/none', 'ENOENT'],
        ['none/none', 'ENOENT'],
      ] as const) {
        assert.throws(
          () => open(root, path, constants.O_RDONLY | constants.O_NOFOLLOW),
          (error: unknown) => error instanceof SystemCallError && codes.some((code) => code === error.code),
          path,
        )
      }
      const link = open(root, 'a/b/link', O_PATH | constants.O_NOFOLLOW)
      assert.equal(readLinkAt(link, '').toString(), 'file')
      closeSync(link)
    })
  }

  test('an entry list is complete, with kinds, however small the steps', () => {
    const many = join(base, 'many')
    mkdirSync(many)
    const names = Array.from({ length: 500 }, (_, index) => `${index}-${'n'.repeat(index % 200)}`)
    for (const name of names) writeFileSync(join(many, name), '')
    mkdirSync(join(many, 'directory'))
    symlinkSync('x', join(many, 'symlink'))
    const fd = openSync(many, constants.O_RDONLY)
    const found = new Map<string, string>()
    while (readEntries(fd, Buffer.alloc(1024), (name = '', type) => found.set(name, type))) {
      // The callback collects.
    }
    closeSync(fd)
    assert.equal(found.get('directory'), 'directory')
    assert.equal(found.get('symlink'), 'symlink')
    assert.deepEqual([...found.keys()].filter((name) => found.get(name) === 'file').toSorted(), names.toSorted())
  })

  test('a status says what stat says', () => {
    const expected = statusOf(root)
    assert.equal(statusAt(root, 'none'), undefined)
    assert.equal(statusAt(root, '.')?.id, expected.id)
    assert.equal(statusAt(root, 'a')?.mode, 0o40000 + (0o777 & ~process.umask()))
  })

  test('a rename that replaces nothing', () => {
    writeFileSync(join(base, 'root/one'), '1')
    writeFileSync(join(base, 'root/two'), '2')
    assert.throws(() => renameNoReplaceAt(root, 'one', root, 'two'), /EEXIST/)
    renameNoReplaceAt(root, 'one', root, 'three')
    assert.equal(readFileSync(join(base, 'root/three'), 'utf8'), '1')
    assert.equal(readFileSync(join(base, 'root/two'), 'utf8'), '2')
    assert.equal(statusAt(root, 'one'), undefined)
  })

  test('an exchange of two names', () => {
    writeFileSync(join(base, 'root/left'), 'l')
    mkdirSync(join(base, 'root/right'))
    exchangeAt(root, 'left', root, 'right')
    assert.equal(readFileSync(join(base, 'root/right'), 'utf8'), 'l')
    assert.equal((statusAt(root, 'left')?.mode ?? 0) & S_IFMT, 0o40000)
    assert.throws(() => exchangeAt(root, 'left', root, 'nothing'), /ENOENT/)
    assert.throws(() => exchangeAt(root, 'left', root, 'left/in-itself'), /ENOENT|EINVAL/)
  })

  test('fifos and sockets are made, and told in a list', () => {
    mkdirSync(join(base, 'nodes'))
    const fd = openSync(join(base, 'nodes'), constants.O_RDONLY)
    makeNodeAt(fd, 'fifo', S_IFIFO | 0o600)
    makeNodeAt(fd, 'socket', S_IFSOCK | 0o600)
    assert.equal(statusAt(fd, 'fifo')?.mode, S_IFIFO | 0o600)
    assert.equal(statusAt(fd, 'socket')?.mode, S_IFSOCK | 0o600)
    assert.throws(() => makeNodeAt(fd, 'fifo', S_IFSOCK | 0o600), /EEXIST/)
    const types: string[] = []
    readEntries(fd, Buffer.alloc(1024), (_name, type) => types.push(type))
    closeSync(fd)
    assert.deepEqual(types.toSorted(), ['fifo', 'socket'])
  })
})
