import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'

import { makeDirectories, whyNotMade } from './make-directories.ts'

const scratch = mkdtempSync(join(tmpdir(), 'eider-make-'))
after(() => rmSync(scratch, { recursive: true }))

test('what is missing is made, what is there stays', () => {
  makeDirectories(join(scratch, 'a/b/c'), 0o700)
  assert.equal(statSync(join(scratch, 'a/b/c')).mode & 0o777, 0o700)
  makeDirectories(join(scratch, 'a/b/c'), 0o755)
  assert.equal(statSync(join(scratch, 'a/b/c')).mode & 0o777, 0o700)
})

test('a file in the way, and a file system that takes none, are errors at once', () => {
  writeFileSync(join(scratch, 'file'), '')
  assert.throws(() => makeDirectories(join(scratch, 'file')), { code: 'EEXIST' })
  assert.throws(() => makeDirectories(join(scratch, 'file/below')), { code: 'ENOTDIR' })
  assert.throws(() => makeDirectories('/proc/eider-cannot-be/below'), { code: 'ENOENT' })
})

test('why a directory cannot be made is said with the place that is in the way', () => {
  const why = (path: string): string => {
    try {
      makeDirectories(path)
      return 'made'
    } catch (error) {
      return whyNotMade(path, error)
    }
  }
  writeFileSync(join(scratch, 'taken'), '')
  assert.equal(why(join(scratch, 'taken')), `'${join(scratch, 'taken')}' is not a directory`)
  assert.equal(why(join(scratch, 'taken', 'a', 'b')), `'${join(scratch, 'taken')}' is not a directory`)
  assert.match(why('/proc/eider-cannot-be/below'), /^ENOENT/)
  const refused = Object.assign(new Error('EACCES'), { code: 'EACCES' })
  assert.equal(whyNotMade(join(scratch, 'x', 'y'), refused), `'${scratch}' is not writable for this user`)
})
