/** A directory store at the edges of its file system: huge sparse files, no room, no extended attributes, read-only. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import {
  closeSync,
  ftruncateSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'

import { openDirectoryStore } from '#store/directory-store.ts'
import { dryRunStore } from '#store/dry-run-store.ts'
import { openMemoryStore } from '#store/memory-store.ts'
import { openStore } from '#store/open-store.ts'
import { ABSENT, ANY, type Store } from '#store/store.ts'
import { assertContent, keysOf, listAll, noise, rejectsWith } from '#store/suite/case.ts'

const GIB = 2 ** 30

async function withDirectory(use: (directory: string) => Promise<void>): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'eider-limits-'))
  try {
    await use(directory)
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
}

/** Mounts a file system of memory for the test, where that is allowed. */
async function withMount(
  t: TestContext,
  type: string,
  options: string,
  use: (mountPoint: string) => Promise<void>,
): Promise<void> {
  if (process.geteuid?.() !== 0) return t.skip('needs root to mount')
  await withDirectory(async (directory) => {
    const mountPoint = join(directory, 'mount')
    mkdirSync(mountPoint)
    try {
      execFileSync('mount', ['-t', type, '-o', options, 'none', mountPoint], { stdio: 'pipe' })
    } catch {
      return t.skip(`this machine does not allow to mount ${type}`)
    }
    try {
      await use(mountPoint)
    } finally {
      execFileSync('umount', [mountPoint])
    }
  })
}

async function withStore(root: string, use: (store: Store) => Promise<void>): Promise<void> {
  const store = await openDirectoryStore(root)
  try {
    await use(store)
  } finally {
    await store.close()
  }
}

test('directory: a sparse file of 5 GiB stays sparse, and is read right at its ends', async () => {
  await withDirectory(async (directory) => {
    const root = join(directory, 'root')
    mkdirSync(root)
    const fd = openSync(join(directory, 'source'), 'w+')
    const marks: readonly (readonly [number, string])[] = [
      [0, 'start'],
      [2 * GIB - 3, 'across 2 GiB'],
      [4 * GIB - 3, 'across 4 GiB'],
      [5 * GIB - 2 ** 20, 'before the last hole'],
    ]
    for (const [offset, text] of marks) writeSync(fd, text, offset)
    ftruncateSync(fd, 5 * GIB)
    try {
      await withStore(root, async (store) => {
        const segments = [{ fd, offset: 0, length: 5 * GIB }]
        const put = await store.put('sparse', { kind: 'file', segments }, { guard: ABSENT })
        assert.equal(put.size, 5 * GIB)
        const copied = await store.copy('sparse', 'copy', { guard: ABSENT, version: put.version })
        assert.equal(copied.size, 5 * GIB)
        for (const { path, version } of [put, copied]) {
          assert.ok(statSync(join(root, path)).blocks * 512 < 16 << 20, `${path} takes little room`)
          for (const [offset, text] of marks) {
            const reading = await store.read(path, { version, offset: offset - (offset > 0 ? 2 : 0), length: 100 })
            const found = (await reading.bytes()).subarray(offset > 0 ? 2 : 0).subarray(0, text.length)
            assert.equal(found.toString(), text)
          }
          const end = await store.read(path, { version, offset: 5 * GIB - 10 })
          assert.deepEqual(await end.bytes(), Buffer.alloc(10))
          assert.equal((await store.read(path, { version, offset: 5 * GIB })).length, 0)
        }
        const shifted = [
          { fd, offset: 4 * GIB - 3, length: 12 },
          { fd, offset: 1 * GIB, length: 4 * GIB },
        ]
        const joined = await store.put('joined', { kind: 'file', segments: shifted }, { guard: ABSENT })
        assert.equal(joined.size, 4 * GIB + 12)
        const middle = await store.read('joined', { offset: 3 * GIB + 12 - 3, length: 12 })
        assert.equal((await middle.bytes()).toString(), 'across 4 GiB')
      })
    } finally {
      closeSync(fd)
    }
  })
})

test('directory: without room a put is STORE_NO_SPACE and leaves the old version and nothing else', async (t) => {
  await withMount(t, 'tmpfs', 'size=2m', async (root) => {
    await withStore(root, async (store) => {
      await store.put('kept', noise(100_000, 1), { guard: ABSENT })
      const room = await store.space()
      assert.equal(room?.bytesTotal, 2 << 20)
      assert.ok((room?.bytesFree ?? 0) < 2 << 20)
      const large = noise(4 << 20, 2)
      await rejectsWith(store.put('kept', large, { guard: ANY }), 'STORE_NO_SPACE')
      const stream = (async function* () {
        for (let at = 0; at < large.length; at += 100_000) yield large.subarray(at, at + 100_000)
      })()
      await rejectsWith(store.put('new', { kind: 'stream', stream }, { guard: ANY }), 'STORE_NO_SPACE')
      await assertContent(store, 'kept', noise(100_000, 1))
      assert.deepEqual(keysOf(await listAll(store, ''), ''), ['kept'])
      const [session = ''] = readdirSync(join(root, '.eider/tmp'))
      assert.deepEqual(readdirSync(join(root, '.eider/tmp', session)), [])
      await store.put('kept', noise(500_000, 3), { guard: ANY })
      await assertContent(store, 'kept', noise(500_000, 3))
    })
  })
})

test('directory: on a file system without extended attributes it says so, and refuses them', async (t) => {
  await withMount(t, 'ramfs', 'mode=755', async (root) => {
    await withStore(root, async (store) => {
      assert.equal(store.capabilities.attributes, false)
      await store.put('dir/file', noise(100, 4), { guard: ABSENT, attributes: { mode: 0o600 } })
      assert.equal((await store.stat('dir/file')).attributes?.mode, 0o600)
      const attributes = { xattrs: new Map([['user.x', Buffer.from('y')]]) }
      await rejectsWith(store.put('new', noise(1, 5), { guard: ABSENT, attributes }), 'STORE_UNSUPPORTED')
      assert.deepEqual(keysOf(await listAll(store, ''), ''), ['dir/'])
      // Renaming without replacing needs a second way here.
      await rejectsWith(store.put('dir/file', noise(1, 5), { guard: ABSENT }), 'STORE_CONFLICT')
      await assertContent(store, 'dir/file', noise(100, 4))
    })
  })
})

test('directory: on a read-only file system everything can be read and every change is STORE_READ_ONLY', async (t) => {
  await withMount(t, 'tmpfs', 'size=2m', async (root) => {
    await withStore(root, (store) => store.put('file', noise(100, 6), { guard: ABSENT }).then(() => undefined))
    execFileSync('mount', ['-o', 'remount,ro', root])
    await withStore(root, async (store) => {
      await assertContent(store, 'file', noise(100, 6))
      await rejectsWith(store.put('file', noise(1, 7), { guard: ANY }), 'STORE_READ_ONLY')
      await rejectsWith(store.remove('file', { guard: ANY }), 'STORE_READ_ONLY')
      await rejectsWith(store.setAttributes('file', { mode: 0 }, { guard: ANY }), 'STORE_READ_ONLY')
    })
  })
})

test('open: each scheme opens its store, others are refused with the known ones', async () => {
  await withDirectory(async (directory) => {
    const root = join(directory, 'with space')
    mkdirSync(root)
    const store = await openStore(`file://${encodeURI(root)}`)
    await store.put('file', noise(10, 8), { guard: ABSENT })
    assert.equal(store.url, `file://${encodeURI(root)}`)
    await store.close()
    const readOnly = await openStore(root, { readOnly: true })
    await assertContent(readOnly, 'file', noise(10, 8))
    await rejectsWith(readOnly.put('file', noise(1, 9), { guard: ANY }), 'STORE_READ_ONLY')
    await rejectsWith(readOnly.removeDirectory('x'), 'STORE_READ_ONLY')
    await readOnly.close()
    await (await openStore('memory:')).close()
    for (const url of ['ftp://host/x', 'relative/path', '', 'file://host/x', 'file:']) {
      await rejectsWith(openStore(url), 'INPUT_INVALID', 'STORE_NOT_FOUND')
    }
    await assert.rejects(openStore('ftp://x'), /s3:\/\/BUCKET.*file:\/\/\/.*memory:/)
    await rejectsWith(openStore(`file://${root}/missing`), 'STORE_NOT_FOUND')
    await rejectsWith(openStore(`file://${encodeURI(root)}/file`), 'STORE_NOT_DIRECTORY')
  })
})

test('dry run: a full local disk is told as that, and what was there before shows on', async (t) => {
  await withMount(t, 'tmpfs', 'size=2m', async (directory) => {
    const store = dryRunStore(openMemoryStore(), { directory, log: { info: () => undefined } })
    try {
      const { version } = await store.put('file', noise(1 << 20, 20), { guard: ABSENT })
      await rejectsWith(store.put('file', noise(2 << 20, 21), { guard: ANY }), 'STAGING_NO_SPACE')
      await rejectsWith(store.put('other', noise(2 << 20, 21), { guard: ANY }), 'STAGING_NO_SPACE')
      assert.equal((await store.stat('file')).version, version)
      await assertContent(store, 'file', noise(1 << 20, 20))
      assert.deepEqual(keysOf(await listAll(store, ''), ''), ['file'])
      assert.equal(store.summary().changes, 1)
      await store.put('small', noise(1000, 22), { guard: ABSENT })
    } finally {
      await store.close()
    }
    assert.deepEqual(readdirSync(directory), [])
  })
})
