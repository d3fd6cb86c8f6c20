/** A directory store among other programs: what they plant in it, change under it, and put next to it. */
import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  appendFileSync,
  chmodSync,
  chownSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
  writeSync,
  openSync,
  closeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { setImmediate } from 'node:timers/promises'

import { openDirectoryStore } from '#store/directory-store.ts'
import { ABSENT, ANY, ifVersion, type Store } from '#store/store.ts'
import { assertContent, keysOf, listAll, noise, rejectsWith } from '#store/suite/case.ts'

async function inDirectory(use: (store: Store, root: string, outside: string) => Promise<void>): Promise<void> {
  const base = mkdtempSync(join(tmpdir(), 'eider-outside-'))
  const root = join(base, 'root')
  const outside = join(base, 'outside')
  mkdirSync(root)
  mkdirSync(outside)
  const store = await openDirectoryStore(root)
  try {
    await use(store, root, outside)
  } finally {
    await store.close()
    rmSync(base, { recursive: true, force: true })
  }
}

function openDescriptors(): number {
  return readdirSync('/proc/self/fd').length
}

test('[S10] directory: no path leads out through a symlink in its middle', async () => {
  await inDirectory(async (store, root, outside) => {
    writeFileSync(join(outside, 'secret'), 'secret')
    mkdirSync(join(outside, 'sub'))
    mkdirSync(join(root, 'dir'))
    for (const [name, target] of [
      ['absolute', outside],
      ['relative', '../outside'],
      ['dir/nested', '../../outside'],
      ['inside', 'dir'],
    ] as const) {
      symlinkSync(target, join(root, name))
      for (const path of [`${name}/secret`, `${name}/sub/new`, `${name}/new`]) {
        await rejectsWith(store.stat(path), 'STORE_NOT_DIRECTORY')
        await rejectsWith(store.read(path), 'STORE_NOT_DIRECTORY')
        await rejectsWith(store.put(path, noise(1, 1), { guard: ANY }), 'STORE_NOT_DIRECTORY')
        await rejectsWith(store.put(path, noise(1, 1), { guard: ABSENT }), 'STORE_NOT_DIRECTORY')
        await rejectsWith(store.makeDirectory(path, { guard: ANY }), 'STORE_NOT_DIRECTORY')
        await rejectsWith(store.symlink(path, 'x', { guard: ANY }), 'STORE_NOT_DIRECTORY')
        await rejectsWith(store.remove(path, { guard: ANY }), 'STORE_NOT_DIRECTORY')
        await rejectsWith(store.removeDirectory(path), 'STORE_NOT_DIRECTORY')
        await rejectsWith(store.setAttributes(path, { mode: 0 }, { guard: ANY }), 'STORE_NOT_DIRECTORY')
        await rejectsWith(store.rename(path, 'x', { guard: ANY, targetGuard: ANY }), 'STORE_NOT_DIRECTORY')
        await rejectsWith(store.copy(path, 'x', { guard: ANY }), 'STORE_NOT_DIRECTORY')
      }
      await rejectsWith(listAll(store, name), 'STORE_NOT_DIRECTORY')
      await rejectsWith(listAll(store, `${name}/sub`), 'STORE_NOT_DIRECTORY')
    }
    await store.put('mine', noise(1, 2), { guard: ABSENT })
    await rejectsWith(store.rename('mine', 'absolute/mine', { guard: ANY, targetGuard: ANY }), 'STORE_NOT_DIRECTORY')
    assert.deepEqual(readdirSync(outside).toSorted(), ['secret', 'sub'])
    assert.equal(readFileSync(join(outside, 'secret'), 'utf8'), 'secret')
    // A walk shows the symlinks and does not enter them.
    const walked = keysOf(await listAll(store, '', { recursive: true }), '')
    assert.deepEqual(walked, ['absolute', 'dir/', 'dir/nested', 'inside', 'mine', 'relative'])
    // Replacing a symlink replaces itself, and changing its owner does not reach its target.
    await store.put('absolute', noise(10, 3), { guard: ANY })
    await assertContent(store, 'absolute', noise(10, 3))
    assert.equal(readlinkSync(join(root, 'relative')), '../outside')
  })
})

test('[S10] directory: its own area is no path, and is not shown', async () => {
  await inDirectory(async (store, root) => {
    await store.put('file', noise(1, 4), { guard: ABSENT })
    assert.ok(existsSync(join(root, '.eider/tmp')))
    for (const path of ['.eider', '.eider/tmp', '.eider/x']) {
      await rejectsWith(store.stat(path), 'STORE_NAME_INVALID')
      await rejectsWith(listAll(store, path), 'STORE_NAME_INVALID')
      await rejectsWith(store.put(path, noise(1, 4), { guard: ANY }), 'STORE_NAME_INVALID')
      await rejectsWith(store.rename('file', path, { guard: ANY, targetGuard: ANY }), 'STORE_NAME_INVALID')
      await rejectsWith(store.rename(path, 'x', { guard: ANY, targetGuard: ANY }), 'STORE_NAME_INVALID')
    }
    // Only there, and only that name.
    for (const path of ['.eiderdown', 'dir/.eider', 'dir/.eider2']) {
      await store.put(path, noise(1, 4), { guard: ABSENT })
    }
    assert.deepEqual(keysOf(await listAll(store, ''), ''), ['.eiderdown', 'dir/', 'file'])
    assert.deepEqual(keysOf(await listAll(store, '', { recursive: true }), '').length, 5)
  })
})

test('directory: names that are not UTF-8 and devices are hidden', async (t) => {
  await inDirectory(async (store, root) => {
    await store.put('dir/file', noise(1, 5), { guard: ABSENT })
    writeFileSync(Buffer.concat([Buffer.from(`${root}/dir/`), Buffer.from([0xff, 0xfe])]), 'latin')
    assert.deepEqual(keysOf(await listAll(store, 'dir'), 'dir'), ['file'])
    await rejectsWith(store.removeDirectory('dir'), 'STORE_NOT_EMPTY')
    if (process.getuid?.() !== 0) return t.skip('only root makes device nodes')
    execFileSync('mknod', [join(root, 'dir/null'), 'c', '1', '3'])
    const { version } = await store.stat('dir/file')
    assert.deepEqual(keysOf(await listAll(store, 'dir'), 'dir'), ['file'])
    await rejectsWith(store.stat('dir/null'), 'STORE_NOT_FOUND')
    await rejectsWith(store.read('dir/null'), 'STORE_NOT_FOUND')
    await rejectsWith(store.remove('dir/null', { guard: ANY }), 'STORE_NOT_FOUND')
    await rejectsWith(store.exchange('dir/null', 'dir/file', { guard: ANY, otherGuard: ANY }), 'STORE_NOT_FOUND')
    await rejectsWith(store.put('dir/null', noise(1, 5), { guard: ANY }), 'STORE_DENIED')
    await rejectsWith(store.put('dir/null', noise(1, 5), { guard: ABSENT }), 'STORE_CONFLICT')
    const [outcome] = await store.removeAll([{ path: 'dir/null', kind: 'file', version }])
    assert.equal(outcome?.code, 'STORE_NOT_FOUND')
  })
})

test('[S80] directory: fifos and sockets are real ones, and those of other programs are never opened', async () => {
  await inDirectory(async (store, root) => {
    for (const [kind, mode] of [
      ['fifo', 0o640],
      ['socket', 0o604],
    ] as const) {
      await store.makeSpecial(`made-${kind}`, kind, { guard: ABSENT, attributes: { mode } })
      const status = lstatSync(join(root, `made-${kind}`))
      assert.deepEqual([status.isFIFO(), status.isSocket()], [kind === 'fifo', kind === 'socket'])
      assert.equal(status.mode & 0o7777, mode)
    }
    execFileSync('mkfifo', [join(root, 'pipe')])
    assert.equal((await store.stat('pipe')).kind, 'fifo')
    // A writer waits in open(2) until somebody opens the fifo for reading: whoever did so would let it go on.
    const writer = spawn('sh', ['-c', 'echo waiting; echo through > "$0"', join(root, 'pipe')], { stdio: 'pipe' })
    try {
      await once(writer.stdout, 'data')
      while (!/^\d+ \(sh\) S /.test(readFileSync(`/proc/${writer.pid}/stat`, 'utf8'))) await setImmediate()
      await rejectsWith(store.read('pipe'), 'INPUT_INVALID')
      await rejectsWith(store.copy('pipe', 'copy', { guard: ANY }), 'INPUT_INVALID')
      await store.setAttributes('pipe', { mode: 0o600 }, { guard: ANY })
      await store.rename('pipe', 'moved', { guard: ANY, targetGuard: ABSENT })
      const { version } = await store.stat('moved')
      const segments = [{ path: 'moved', version, offset: 0, length: 0 }]
      await rejectsWith(store.put('new', { kind: 'file', segments }, { guard: ANY }), 'STORE_CONFLICT')
      assert.deepEqual(keysOf(await listAll(store, ''), ''), ['made-fifo', 'made-socket', 'moved'])
      // A writer that was let go has met a broken pipe by now, and nobody answers.
      assert.equal(execFileSync('timeout', ['10', 'cat', join(root, 'moved')], { encoding: 'utf8' }), 'through\n')
    } finally {
      writer.kill('SIGKILL')
    }
    // With the fifo replaced, what the writer's descriptor was of is not touched.
    await store.put('moved', noise(10, 5), { guard: ANY })
    assert.equal(lstatSync(join(root, 'moved')).isFile(), true)
  })
})

test('directory: a stored piece that another program changes under the put is a conflict, and stores nothing', async () => {
  await inDirectory(async (store, root) => {
    const large = noise(40 << 20, 9)
    const { version } = await store.put('source', large, { guard: ABSENT })
    const segments = Array.from({ length: 40 }, (_, index) => ({
      path: 'source',
      version,
      offset: index << 20,
      length: 1 << 20,
    }))
    const put = store.put('target', { kind: 'file', segments }, { guard: ABSENT })
    // The first piece is being copied by now; the put has looked at the version already.
    await setImmediate()
    writeFileSync(join(root, 'source'), 'other', { flag: 'r+' })
    await rejectsWith(put, 'STORE_CONFLICT')
    await rejectsWith(store.stat('target'), 'STORE_NOT_FOUND')
    const own = [{ path: '.eider/tmp', version, offset: 0, length: 1 }]
    await rejectsWith(store.put('target', { kind: 'file', segments: own }, { guard: ANY }), 'STORE_NAME_INVALID')
  })
})

test('directory: what another program changes has another version, and a guard sees it', async () => {
  await inDirectory(async (store, root) => {
    const changes: ((path: string) => void)[] = [
      (path) => appendFileSync(path, 'x'),
      (path) => {
        const fd = openSync(path, 'r+')
        writeSync(fd, 'y', 0)
        closeSync(fd)
      },
      (path) => utimesSync(path, 1, 1),
      (path) => {
        writeFileSync(`${path}.new`, noise(100, 6))
        renameSync(`${path}.new`, path)
      },
    ]
    for (const change of changes) {
      const { version } = await store.put('file', noise(100, 6), { guard: ANY, attributes: { mode: 0o600 } })
      change(join(root, 'file'))
      await rejectsWith(store.read('file', { version }), 'STORE_CONFLICT')
      await rejectsWith(store.put('file', noise(1, 7), { guard: ifVersion(version) }), 'STORE_CONFLICT')
      await rejectsWith(store.remove('file', { guard: ifVersion(version) }), 'STORE_CONFLICT')
      await rejectsWith(store.rename('file', 'x', { guard: ifVersion(version), targetGuard: ANY }), 'STORE_CONFLICT')
    }
  })
})

test('directory: a reading goes on from a replaced file for ever, and fails on one that is changed in place', async () => {
  await inDirectory(async (store, root) => {
    const bytes = noise(5 << 20, 8)
    for (const how of ['replace', 'remove', 'truncate', 'overwrite'] as const) {
      await store.put('file', bytes, { guard: ANY })
      const reading = await store.read('file')
      const chunks: Uint8Array[] = []
      const readAll = async (): Promise<void> => {
        for await (const chunk of reading.body) {
          if (chunks.length === 0) {
            if (how === 'replace') await store.put('file', noise(10, 9), { guard: ANY })
            if (how === 'remove') await store.remove('file', { guard: ANY })
            if (how === 'truncate') truncateSync(join(root, 'file'), 3 << 20)
            if (how === 'overwrite') {
              const fd = openSync(join(root, 'file'), 'r+')
              writeSync(fd, 'overwritten', 4 << 20)
              closeSync(fd)
            }
          }
          chunks.push(chunk)
        }
      }
      if (how === 'replace' || how === 'remove') {
        await readAll()
        assert.ok(Buffer.concat(chunks).equals(bytes))
      } else {
        await rejectsWith(readAll(), 'STORE_CORRUPT', 'STORE_CONFLICT')
        assert.ok(Buffer.concat(chunks).length < bytes.length)
      }
    }
  })
})

test('directory: readings that are left, cancelled, aborted or fail keep no descriptor', async () => {
  await inDirectory(async (store, root) => {
    await store.put('file', noise(4 << 20, 10), { guard: ABSENT })
    await store.put('cut', noise(4 << 20, 10), { guard: ABSENT })
    let before = 0
    for (let round = 0; round < 10; round++) {
      // The first round opens lock files, which stay open.
      if (round === 1) before = openDescriptors()
      ;(await store.read('file')).cancel()
      const begun = await store.read('file')
      for await (const chunk of begun.body) if (chunk.length > 0) break
      const controller = new AbortController()
      const aborted = await store.read('file', { signal: controller.signal })
      const untouched = await store.read('file', { signal: controller.signal })
      const bytes = aborted.bytes()
      controller.abort()
      await rejectsWith(bytes, 'ABORTED')
      await rejectsWith(untouched.bytes(), 'ABORTED')
      const failing = await store.read('cut')
      truncateSync(join(root, 'cut'), 2 << 20)
      await rejectsWith(failing.bytes(), 'STORE_CORRUPT')
      truncateSync(join(root, 'cut'), 4 << 20)
      await rejectsWith(store.read('file', { version: begun.entry.version.slice(1) as never }), 'STORE_CONFLICT')
      await rejectsWith(store.read('file/x'), 'STORE_NOT_DIRECTORY')
      await rejectsWith(store.read('.'), 'STORE_NAME_INVALID')
      await rejectsWith(store.put('file/x', noise(1, 1), { guard: ANY }), 'STORE_NOT_DIRECTORY')
      await rejectsWith(store.rename('file', 'file/x', { guard: ANY, targetGuard: ANY }), 'STORE_NOT_DIRECTORY')
      await rejectsWith(store.put('file', noise(1, 1), { guard: ABSENT }), 'STORE_CONFLICT')
      await listAll(store, '', { recursive: true })
      for await (const page of store.list('', { pageEntries: 1 })) if (page.length > 0) break
    }
    // Reads that were under way when a reading ended close its descriptor when they have ended themselves.
    for (let turn = 0; turn < 10_000 && openDescriptors() > before; turn++) {
      await setImmediate()
    }
    assert.equal(openDescriptors(), before)
    assert.deepEqual(readdirSync(join(root, '.eider/tmp')).length, 1)
  })
})

test('directory: hard links of other programs are files like others', async () => {
  await inDirectory(async (store, root) => {
    await store.put('a', noise(10, 11), { guard: ABSENT })
    linkSync(join(root, 'a'), join(root, 'b'))
    await store.rename('a', 'b', { guard: ANY, targetGuard: ANY })
    assert.deepEqual(keysOf(await listAll(store, ''), ''), ['b'])
    linkSync(join(root, 'b'), join(root, 'c'))
    await store.put('b', noise(10, 12), { guard: ANY })
    assert.deepEqual(readFileSync(join(root, 'c')), noise(10, 11))
  })
})

test('directory: as an ordinary user, owners that may not be set are kept beside the file', async (t) => {
  if (process.geteuid?.() !== 0) return t.skip('needs root to become somebody else')
  await inDirectory(async (rootStore, root) => {
    await rootStore.close()
    rmSync(join(root, '.eider'), { recursive: true, force: true })
    chmodSync(dirname(root), 0o755)
    chownSync(root, 65_534, 65_534)
    process.setegid?.(65_534)
    process.seteuid?.(65_534)
    try {
      const store = await openDirectoryStore(root)
      const xattrs = new Map([['user.x', Buffer.from('y')]])
      const put = await store.put('file', noise(10, 13), { guard: ABSENT, attributes: { uid: 12, gid: 34, xattrs } })
      assert.deepEqual([put.attributes?.uid, put.attributes?.gid], [12, 34])
      assert.deepEqual([...(put.attributes?.xattrs?.keys() ?? [])], ['user.x'])
      const [listed] = await listAll(store, '')
      assert.deepEqual([listed?.attributes?.uid, listed?.attributes?.gid], [12, 34])
      const changed = await store.setAttributes('file', { uid: 56, xattrs: new Map() }, { guard: ANY })
      assert.deepEqual([changed.attributes?.uid, changed.attributes?.gid], [56, 34])
      assert.equal(statSync(join(root, 'file')).uid, 65_534)
      const copied = await store.copy('file', 'copy', { guard: ABSENT })
      assert.deepEqual([copied.attributes?.uid, copied.attributes?.gid], [56, 34])
      mkdirSync(join(root, 'locked'), 0o500)
      await rejectsWith(store.put('locked/file', noise(1, 14), { guard: ABSENT }), 'STORE_DENIED')
      await store.close()
    } finally {
      process.seteuid?.(0)
      process.setegid?.(0)
    }
  })
})

test('directory: extended attributes that mean something to the kernel are refused and not shown', async () => {
  await inDirectory(async (store, root) => {
    for (const name of ['trusted.x', 'security.capability', 'system.posix_acl_access', 'user.eider.owner']) {
      const xattrs = new Map([[name, Buffer.from('1')]])
      await rejectsWith(store.put('file', noise(1, 15), { guard: ANY, attributes: { xattrs } }), 'STORE_UNSUPPORTED')
    }
    await rejectsWith(store.stat('file'), 'STORE_NOT_FOUND')
    const large = new Map([['user.large', Buffer.alloc(70_000)]])
    await store.put('file', noise(1, 15), {
      guard: ANY,
      attributes: { xattrs: new Map([['user.a', Buffer.from('1')]]) },
    })
    await rejectsWith(store.setAttributes('file', { xattrs: large }, { guard: ANY }), 'STORE_ATTRIBUTES_TOO_LARGE')
    assert.deepEqual([...((await store.stat('file')).attributes?.xattrs?.keys() ?? [])], ['user.a'])
    assert.deepEqual(readdirSync(join(root, '.eider/tmp')).length, 1)
  })
})
