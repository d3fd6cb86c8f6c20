import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  closeSync,
  constants,
  fstatSync,
  futimesSync,
  mkdtempSync,
  openSync,
  readSync,
  rmSync,
  writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { test } from 'node:test'
import { setTimeout } from 'node:timers/promises'

import { O_TMPFILE } from './at.ts'
import { isOnlyWriter, tellsOfWrites, writeOut } from './unseen-writes.ts'

function withFile(body: (fd: number) => Promise<void> | void): () => Promise<void> {
  return async () => {
    const directory = mkdtempSync(join(tmpdir(), 'eider-unseen-'))
    const fd = openSync(directory, constants.O_RDWR | O_TMPFILE, 0o600)
    try {
      await body(fd)
    } finally {
      closeSync(fd)
      rmSync(directory, { recursive: true })
    }
  }
}

test(
  'whoever else has a file open for writing is seen, also of a file without a name',
  withFile((fd) => {
    assert.equal(isOnlyWriter(fd), true)
    const other = openSync(`/proc/self/fd/${fd}`, 'r+')
    assert.equal(isOnlyWriter(fd), false)
    closeSync(other)
    assert.equal(isOnlyWriter(fd), true)
    // And nobody waits for a lease that is left behind.
    closeSync(openSync(`/proc/self/fd/${fd}`, 'r+'))
  }),
)

/** Maps its standard input, closes it, and stores into the mapping whenever it is told to. */
const MAPPER = `
import mmap, os, sys, ctypes
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
fd = os.open(sys.argv[1], os.O_RDWR)
at = libc.mmap(None, 4096, 3, 1, fd, 0)
os.close(fd)
for line in sys.stdin:
    ctypes.memset(at, ord(line[0]), 1)
    print(line[0], flush=True)
`

test(
  'each store through a mapping after a page was written out is told by the time of the file',
  withFile(async (fd) => {
    if (!tellsOfWrites(fd)) return
    writeSync(fd, Buffer.alloc(4096))
    const child = spawn('python3', ['-c', MAPPER, `/proc/${process.pid}/fd/${fd}`], {
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
    const exited = once(child, 'exit')
    const store = async (letter: string): Promise<void> => {
      child.stdin.write(`${letter}\n`)
      await lines.next()
    }
    try {
      for (const letter of 'abc') {
        futimesSync(fd, 1, 1)
        assert.equal(await writeOut(fd), true)
        assert.equal(fstatSync(fd).mtimeMs, 1000, 'nobody wrote')
        await store(letter)
        const byte = Buffer.alloc(1)
        readSync(fd, byte, 0, 1, 0)
        assert.equal(byte.toString(), letter)
        assert.notEqual(fstatSync(fd).mtimeMs, 1000, 'the store is told')
        assert.equal(isOnlyWriter(fd), false, 'the mapping is seen')
      }
    } finally {
      child.stdin.end()
      await exited
    }
    // The kernel closes the files of a process that has ended in its own time.
    const deadline = Date.now() + 20_000
    while (!isOnlyWriter(fd)) {
      assert.ok(Date.now() < deadline, 'the mapping is gone')
      await setTimeout(1)
    }
  }),
)
