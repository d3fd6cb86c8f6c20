/**
 * Backing files and copies between files, at the level of the FUSE session: what the kernel does itself once an open was
 * answered with a backing file, and what it still asks for. What the mount makes of it is in mount-passthrough.test.ts.
 */
import assert from 'node:assert/strict'
import { closeSync, fstatSync, mkdtempSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'

import { MemoryFileSystem } from './memory-file-system.ts'
import { run, withMount } from './memory-mount.ts'
import { setLogLevel } from '#base/log.ts'
import type { AttributesAnswer, BackingFiles, BackingId, NodeId, OpenAnswer } from '#fuse/file-system.ts'
import { FOPEN_PASSTHROUGH } from '#fuse/protocol.ts'

setLogLevel('silent')

const root = { skip: process.getuid?.() === 0 ? false : 'needs root to mount', timeout: 60_000 }

/** Whose only file is a local one, read and written by the kernel. */
class PassedThrough extends MemoryFileSystem {
  readonly fd: number
  readonly node: NodeId
  backing: BackingFiles | undefined
  #id: BackingId | undefined

  constructor(fd: number) {
    super()
    this.fd = fd
    this.node = this.put('file', Buffer.alloc(fstatSync(fd).size)).id
  }

  override async open(node: NodeId, flags: number): Promise<OpenAnswer> {
    const answer = await super.open(node, flags)
    if (node !== this.node) return answer
    this.#id ??= this.backing?.open(this.fd)
    return this.#id === undefined ? answer : { ...answer, openFlags: FOPEN_PASSTHROUGH, backing: this.#id }
  }

  override async getattr(node: NodeId): Promise<AttributesAnswer> {
    const answer = await super.getattr(node)
    if (node !== this.node) return answer
    return { ...answer, attributes: { ...answer.attributes, size: fstatSync(this.fd).size } }
  }
}

async function withBacking(body: (fd: number, path: string) => Promise<void>): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'eider-backing-'))
  const path = join(directory, 'backing')
  const fd = openSync(path, 'w+')
  try {
    await body(fd, path)
  } finally {
    closeSync(fd)
    rmSync(directory, { recursive: true })
  }
}

test('a file with a backing file is read, written and appended to without a request', root, async (t) => {
  await withBacking(async (fd, path) => {
    writeSync(fd, 'first\n')
    const fileSystem = new PassedThrough(fd)
    fileSystem.validMs = 3_600_000
    await withMount(
      fileSystem,
      async ({ directory, session }) => {
        if (session.backing === undefined) return t.skip('the kernel has no passthrough')
        fileSystem.backing = session.backing
        const script = `cd ${directory}; cat file; echo second >> file; stat -c %s file; cat file; printf F | dd of=file conv=notrunc status=none; cat file`
        const { stdout, stderr } = await run(script)
        assert.equal(stderr, '')
        assert.equal(stdout, 'first\n13\nfirst\nsecond\nFirst\nsecond\n')
        assert.equal(readFileSync(path, 'utf8'), 'First\nsecond\n')
        assert.deepEqual(
          fileSystem.calls.filter((call) => call === 'read' || call === 'write'),
          [],
        )
      },
      { passthrough: true },
    )
  })
})

test('what cannot be a backing file has no id, and a connection that has ended takes none', root, async (t) => {
  await withBacking(async (fd) => {
    let kept: BackingFiles | undefined
    await withMount(
      new MemoryFileSystem(),
      async ({ session }) => {
        kept = session.backing
        if (kept === undefined) return t.skip('the kernel has no passthrough')
        const proc = openSync('/proc/self/status', 'r')
        assert.equal(kept.open(proc), undefined)
        closeSync(proc)
        // One refusal is of one file.
        const id = kept.open(fd)
        assert.ok(id !== undefined)
        kept.close(id)
      },
      { passthrough: true },
    )
    assert.equal(kept?.open(fd), undefined)
  })
})

test('without passthrough asked for there are no backing files', root, async () => {
  await withMount(new MemoryFileSystem(), async ({ session }) => {
    assert.equal(session.backing, undefined)
  })
})

test(
  'copies between open files are the file system’s to make, and the kernel makes them where it will not',
  root,
  async () => {
    const asked: unknown[] = []
    class Copying extends MemoryFileSystem {
      copyFileRange(...call: unknown[]): number {
        asked.push(call.slice(0, 7))
        return 4096
      }
    }
    const copy = `python3 -c "
import os, sys
a = os.open(sys.argv[1] + '/from', os.O_RDONLY)
b = os.open(sys.argv[1] + '/to', os.O_RDWR)
print(os.copy_file_range(a, b, 100000, 16, 32))"`
    for (const fileSystem of [new Copying(), new MemoryFileSystem()]) {
      const from = fileSystem.put('from', Buffer.alloc(8192, 'f')).id
      const to = fileSystem.put('to', Buffer.alloc(8192, 't'))
      await withMount(fileSystem, async ({ directory }) => {
        const { stdout } = await run(`${copy} ${directory}`)
        assert.equal(stdout.trim(), fileSystem instanceof Copying ? '4096' : '8176')
      })
      if (fileSystem instanceof Copying) assert.deepEqual(asked, [[from, from, 16, to.id, to.id, 32, 8176]])
      else assert.equal(to.data.subarray(32, 36).toString(), 'ffff')
    }
  },
)
