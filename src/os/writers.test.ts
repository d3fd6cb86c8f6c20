import assert from 'node:assert/strict'
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'

import { hasWriters } from './writers.ts'

test('a file has writers for as long as somebody has it open for writing', () => {
  const directory = mkdtempSync(join(tmpdir(), 'eider-writers-'))
  const path = join(directory, 'file')
  writeFileSync(path, 'x')
  const fd = openSync(path, 'r')
  try {
    assert.equal(hasWriters(fd), false)
    const reader = openSync(path, 'r')
    assert.equal(hasWriters(fd), false)
    const writer = openSync(path, 'r+')
    assert.equal(hasWriters(fd), true)
    writeSync(writer, 'y')
    closeSync(writer)
    assert.equal(hasWriters(fd), false, 'and not after it')
    // The lease was given back: nobody waits for it.
    closeSync(openSync(path, 'r+'))
    closeSync(reader)
  } finally {
    closeSync(fd)
    rmSync(directory, { recursive: true })
  }
})
