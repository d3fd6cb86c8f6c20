import assert from 'node:assert/strict'
import { constants, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'

import { OperationError } from '#base/errors.ts'
import { setLogLevel } from '#base/log.ts'
import { FOPEN_KEEP_CACHE } from '#fuse/protocol.ts'
import { openMemoryStore } from '#store/memory-store.ts'
import { ABSENT, ANY, type Store } from '#store/store.ts'

import { CALLER, codeOf, content, Gate, O_RDONLY, O_RDWR, O_WRONLY, replacing, rig } from './kernel-double.ts'
import { pendingFilesMax } from './pending-files.ts'

// What is tested here is what callers see; the lines about conflicts and failures would hide the report.
setLogLevel('silent')

/** What somebody else does to the store, behind the mount. */
async function elsewhere(store: Store, path: string, text: string): Promise<void> {
  await store.put(path, Buffer.from(text), { guard: ANY })
}

test('what is written and closed is in the store, with its attributes', async () => {
  const store = openMemoryStore()
  await using it = await rig(store)
  await it.kernel.mkdir('dir')
  await it.kernel.writeFile('dir/file', 'hello', 0o640)
  assert.equal(await content(store, 'dir/file'), 'hello')
  assert.equal((await store.stat('dir/file')).attributes?.mode, 0o640)
  assert.equal((await it.kernel.readFile('dir/file')).toString(), 'hello')
})

test('a created file is seen here at once, and by others when it is flushed', async () => {
  const store = openMemoryStore()
  await using it = await rig(store)
  const file = await it.kernel.create('new')
  await it.kernel.write(file, 0, 'part')
  assert.equal((await it.kernel.stat('new')).size, 4)
  assert.deepEqual(await it.kernel.names(''), ['new'])
  assert.equal(await codeOf(store.stat('new')), 'STORE_NOT_FOUND')
  await it.kernel.fsync(file)
  assert.equal(await content(store, 'new'), 'part')
  await it.kernel.write(file, 4, ' two')
  await it.kernel.close(file)
  assert.equal(await content(store, 'new'), 'part two')
})

test('O_EXCL refuses what the store has, and another open takes it', async () => {
  const store = openMemoryStore()
  await elsewhere(store, 'taken', 'theirs')
  await using it = await rig(store)
  const exclusive = it.fs.create(1, 'taken', 0o644, 0, O_WRONLY | constants.O_EXCL, CALLER)
  assert.equal(await codeOf(exclusive), 'FILE_EXISTS')
  const opened = await it.fs.create(1, 'taken', 0o644, 0, O_RDONLY, CALLER)
  const file = { node: opened.attributes.node, handle: opened.handle, openFlags: 0 }
  assert.equal((await it.kernel.read(file, 0, 100)).toString(), 'theirs')
})

test('appends of two handles follow each other', async () => {
  const store = openMemoryStore()
  await using it = await rig(store)
  await it.kernel.writeFile('log', 'start ')
  const flags = O_WRONLY | constants.O_APPEND
  const [a, b] = [await it.kernel.open('log', flags), await it.kernel.open('log', flags)]
  await it.kernel.write(a, 6, 'one ')
  // The kernel may still believe the old end.
  await it.kernel.write(b, 6, 'two ')
  await it.kernel.close(a)
  await it.kernel.close(b)
  assert.equal(await content(store, 'log'), 'start one two ')
})

test('[S20] a close after somebody else has written is ESTALE; both versions are kept', async () => {
  const store = openMemoryStore()
  await using it = await rig(store)
  await it.kernel.writeFile('shared', 'base')
  const file = await it.kernel.open('shared', O_RDWR)
  await it.kernel.write(file, 0, 'ours')
  await elsewhere(store, 'shared', 'theirs')
  assert.equal(await codeOf(it.kernel.close(file)), 'STORE_CONFLICT')
  assert.equal(await content(store, 'shared'), 'theirs')
  assert.equal((await it.kernel.readFile('shared')).toString(), 'theirs')
  const kept = readdirSync(join(it.stagingDirectory, 'conflicts'))
  assert.equal(kept.length, 1)
  assert.match(kept[0] ?? '', /-shared$/)
  assert.equal(readFileSync(join(it.stagingDirectory, 'conflicts', kept[0] ?? ''), 'utf8'), 'ours')
  assert.equal(it.fs.status.dirtyBytes, 0)
})

test('a created file whose name somebody else took meanwhile is kept, not written over theirs', async () => {
  const store = openMemoryStore()
  await using it = await rig(store)
  const file = await it.kernel.create('name')
  await it.kernel.write(file, 0, 'ours')
  await elsewhere(store, 'name', 'theirs')
  assert.equal(await codeOf(it.kernel.flush(file)), 'STORE_CONFLICT')
  assert.equal(await codeOf(it.kernel.read(file, 0, 4)), 'FILE_STALE')
  await it.fs.release(file.node, file.handle)
  assert.equal((await it.kernel.readFile('name')).toString(), 'theirs')
  assert.equal(readdirSync(join(it.stagingDirectory, 'conflicts')).length, 1)
})

test('[S21] a reader of a replaced file gets ESTALE, a new open the new version, never a mix', async () => {
  const store = openMemoryStore()
  const bytes = Buffer.alloc(3 << 20, 'a')
  await store.put('file', bytes, { guard: ABSENT })
  await using it = await rig(store)
  const old = await it.kernel.open('file', O_RDONLY)
  assert.equal((await it.kernel.read(old, 2_500_000, 3)).toString(), 'aaa')
  await store.put('file', Buffer.alloc(3 << 20, 'b'), { guard: ANY })
  assert.equal(await codeOf(it.kernel.read(old, 100_000, 3)), 'FILE_STALE')
  it.clock.ms += 2000
  const fresh = await it.kernel.open('file', O_RDONLY)
  assert.notEqual(fresh.node, old.node)
  assert.equal(fresh.openFlags & FOPEN_KEEP_CACHE, 0)
  assert.equal((await it.kernel.read(fresh, 0, 3)).toString(), 'bbb')
  assert.equal(await codeOf(it.kernel.read(old, 0, 3)), 'FILE_STALE')
  assert.equal((await it.kernel.fstat(old)).size, 3 << 20)
})

test('[S21] a node that the kernel knows by the size of one version is never opened as another', async () => {
  const store = openMemoryStore()
  await elsewhere(store, 'file', 'short')
  await using it = await rig(store)
  const node = await it.kernel.node('file')
  await elsewhere(store, 'file', 'much longer than before')
  it.clock.ms += 2000
  // The kernel's own clock may still believe the name, and the size.
  assert.equal(await codeOf((async () => it.fs.open(node, O_RDONLY))()), 'FILE_STALE')
  const fresh = await it.kernel.open('file', O_RDONLY)
  assert.notEqual(fresh.node, node)
  assert.equal((await it.kernel.read(fresh, 0, 100)).toString(), 'much longer than before')
})

test('the kernel keeps its pages exactly while the version is the one that they are of', async () => {
  const store = openMemoryStore()
  await elsewhere(store, 'file', 'one')
  await using it = await rig(store)
  const open = async (): Promise<boolean> => {
    it.clock.ms += 2000
    const file = await it.kernel.open('file', O_RDONLY)
    await it.kernel.close(file)
    return (file.openFlags & FOPEN_KEEP_CACHE) !== 0
  }
  assert.equal(await open(), false)
  assert.equal(await open(), true)
  await elsewhere(store, 'file', 'two')
  assert.equal(await open(), false)
  assert.equal(await open(), true)
  await it.kernel.setattr('file', { mode: 0o600 })
  assert.equal(await open(), true)
})

test('an open by node id of a file that was replaced while open is ESTALE, so that the kernel looks again', async () => {
  const store = openMemoryStore()
  await elsewhere(store, 'file', 'one')
  await using it = await rig(store)
  const old = await it.kernel.open('file', O_RDONLY)
  await elsewhere(store, 'file', 'two')
  it.clock.ms += 2000
  assert.equal(await codeOf(Promise.resolve(it.fs.open(old.node, O_RDONLY))), 'FILE_STALE')
  assert.equal((await it.kernel.readFile('file')).toString(), 'two')
})

test('[S27] an unlinked open file stays readable and writable, and is in no listing or store', async () => {
  const store = openMemoryStore()
  await using it = await rig(store)
  await it.kernel.writeFile('file', 'content')
  const file = await it.kernel.open('file', O_RDWR)
  await it.kernel.unlink('file')
  assert.equal(await codeOf(store.stat('file')), 'STORE_NOT_FOUND')
  assert.deepEqual(await it.kernel.names(''), [])
  assert.equal((await it.kernel.read(file, 0, 100)).toString(), 'content')
  await it.kernel.write(file, 0, 'CON')
  assert.equal((await it.kernel.read(file, 0, 100)).toString(), 'CONtent')
  assert.equal((await it.kernel.fstat(file)).nlink, 0)
  await it.kernel.close(file)
  assert.equal(await codeOf(store.stat('file')), 'STORE_NOT_FOUND')
  assert.equal(it.fs.status.dirtyFiles, 0)
})

test('[S27] a file that is renamed over while open keeps its bytes for its readers', async () => {
  const store = openMemoryStore()
  await using it = await rig(store)
  await it.kernel.writeFile('target', 'old')
  await it.kernel.writeFile('source', 'new')
  const old = await it.kernel.open('target', O_RDONLY)
  await it.kernel.rename('source', 'target')
  assert.equal((await it.kernel.read(old, 0, 9)).toString(), 'old')
  assert.equal((await it.kernel.readFile('target')).toString(), 'new')
  assert.deepEqual(await it.kernel.names(''), ['target'])
})

test('[S26] rename answers as POSIX says', async () => {
  const store = openMemoryStore()
  await using it = await rig(store)
  const { kernel } = it
  for (const path of ['full', 'empty', 'empty2', 'dir', 'dir/sub']) await kernel.mkdir(path)
  for (const path of ['full/x', 'file', 'file2', 'dir/sub/deep']) await kernel.writeFile(path, path)
  assert.equal(await codeOf(kernel.rename('file', 'empty')), 'STORE_IS_DIRECTORY')
  assert.equal(await codeOf(kernel.rename('empty', 'file')), 'STORE_NOT_DIRECTORY')
  assert.equal(await codeOf(kernel.rename('empty', 'full')), 'STORE_NOT_EMPTY')
  assert.equal(await codeOf(kernel.rename('dir', 'dir/sub/in')), 'INPUT_INVALID')
  assert.equal(await codeOf(kernel.rename('file', 'file2', 1)), 'FILE_EXISTS')
  assert.equal(await codeOf(kernel.rename('file', 'file2', 4)), 'INPUT_INVALID')
  assert.equal(await codeOf(kernel.rename('none', 'file2')), 'STORE_NOT_FOUND')
  await kernel.rename('file', 'file')
  assert.equal((await kernel.readFile('file')).toString(), 'file')
  await kernel.rename('empty', 'empty2')
  await kernel.rename('dir', 'empty2')
  assert.equal((await kernel.readFile('empty2/sub/deep')).toString(), 'dir/sub/deep')
  assert.equal(await content(store, 'empty2/sub/deep'), 'dir/sub/deep')
  assert.deepEqual(await kernel.names(''), ['empty2', 'file', 'file2', 'full'])
})

test('[S26] an open file goes on under its new name, also below a directory that moves', async () => {
  const store = openMemoryStore()
  await using it = await rig(store)
  await it.kernel.mkdir('dir')
  await it.kernel.writeFile('dir/old', 'published')
  const reader = await it.kernel.open('dir/old', O_RDONLY)
  const writer = await it.kernel.open('dir/old', O_RDWR)
  const fresh = await it.kernel.create('dir/new')
  await it.kernel.write(fresh, 0, 'unpublished')
  await it.kernel.write(writer, 9, '!')
  await it.kernel.rename('dir', 'moved')
  assert.equal(await content(store, 'moved/old'), 'published!')
  await it.kernel.write(writer, 10, '!')
  await it.kernel.close(writer)
  await it.kernel.rename('moved/new', 'moved/newer')
  await it.kernel.close(fresh)
  assert.equal((await it.kernel.read(reader, 0, 99)).toString(), 'published!!')
  assert.equal(await content(store, 'moved/old'), 'published!!')
  assert.equal(await content(store, 'moved/newer'), 'unpublished')
  assert.deepEqual(await it.kernel.names(''), ['moved'])
  assert.deepEqual(await it.kernel.names('moved'), ['newer', 'old'])
})

test('an unpublished file that is renamed over a stored one replaces it at its close, not before', async () => {
  const store = openMemoryStore()
  await using it = await rig(store)
  await it.kernel.writeFile('target', 'old')
  const file = await it.kernel.create('temporary')
  await it.kernel.write(file, 0, 'new')
  await it.kernel.rename('temporary', 'target')
  assert.equal((await it.kernel.readFile('target')).toString(), 'new')
  await it.kernel.close(file)
  assert.equal(await content(store, 'target'), 'new')
  assert.equal(await codeOf(store.stat('temporary')), 'STORE_NOT_FOUND')
})

test('nothing is published under a directory while it moves', async () => {
  const memory = openMemoryStore()
  const gate = new Gate()
  const store = replacing(memory, {
    rename: async (...args) => {
      await gate.pass()
      return memory.rename(...args)
    },
  })
  await using it = await rig(store)
  await it.kernel.mkdir('dir')
  const file = await it.kernel.create('dir/file')
  await it.kernel.write(file, 0, 'text')
  const move = it.kernel.rename('dir', 'moved')
  await gate.reached
  const close = it.kernel.close(file)
  gate.open()
  await Promise.all([move, close])
  assert.equal(await content(memory, 'moved/file'), 'text')
  assert.equal(await codeOf(memory.stat('dir')), 'STORE_NOT_FOUND')
})

test('[S28] a directory that was there only by its entries stays without them', async () => {
  const store = openMemoryStore()
  await elsewhere(store, 'a/one', '1')
  await elsewhere(store, 'b/one', '1')
  await elsewhere(store, 'c/sub/one', '1')
  await using it = await rig(store)
  await it.kernel.unlink('a/one')
  await it.kernel.rename('b/one', 'a/two')
  await it.kernel.unlink('c/sub/one')
  await it.kernel.rmdir('c/sub')
  assert.deepEqual(await it.kernel.names(''), ['a', 'b', 'c'])
  it.clock.ms += 5000
  assert.deepEqual(await it.kernel.names('b'), [])
  assert.equal((await store.stat('c')).kind, 'directory')
})

test('an answer of the store that a removal here has overtaken brings nothing back', async () => {
  const memory = openMemoryStore()
  await elsewhere(memory, 'file', 'x')
  let gate: Gate | undefined
  const store = replacing(memory, {
    stat: async (...args) => {
      const entry = await memory.stat(...args)
      await gate?.pass()
      return entry
    },
  })
  await using it = await rig(store)
  await it.kernel.stat('file')
  it.clock.ms += 2000
  gate = new Gate()
  const slow = it.kernel.find('file')
  await gate.reached
  const held = gate
  gate = undefined
  // The removal knows the file from before.
  it.clock.ms -= 2000
  await it.fs.unlink(1, 'file', CALLER)
  held.open()
  assert.equal(await slow, undefined)
  assert.deepEqual(await it.kernel.names(''), [])
})

test('a listing shows what was made here meanwhile, and not what was removed', async () => {
  const memory = openMemoryStore()
  for (const name of ['a', 'b', 'c']) await elsewhere(memory, name, name)
  let gate: Gate | undefined = new Gate()
  const store = replacing(memory, {
    list: async function* (...args) {
      for await (const page of memory.list(...args)) {
        await gate?.pass()
        yield page
      }
    },
  })
  await using it = await rig(store)
  await it.kernel.stat('b')
  const listing = it.kernel.names('')
  await gate.reached
  await it.fs.unlink(1, 'b', CALLER)
  await it.kernel.create('new')
  gate.open()
  gate = undefined
  assert.deepEqual(await listing, ['a', 'c', 'new'])
})

test('a write during a put waits for it and is published by the next', async () => {
  const memory = openMemoryStore()
  let gate: Gate | undefined
  const store = replacing(memory, {
    put: async (...args) => {
      await gate?.pass()
      return memory.put(...args)
    },
  })
  await using it = await rig(store)
  const file = await it.kernel.create('file')
  await it.kernel.write(file, 0, 'first')
  gate = new Gate()
  const held = gate
  const sync = it.kernel.fsync(file)
  await held.reached
  let written = false
  const write = it.kernel.write(file, 0, 'FIRST').then(() => (written = true))
  assert.equal(written, false)
  gate = undefined
  held.open()
  await sync
  assert.equal(await content(memory, 'file'), 'first')
  await write
  await it.kernel.close(file)
  assert.equal(await content(memory, 'file'), 'FIRST')
})

test('a failed close says so, loses nothing, and is made good later', async () => {
  const memory = openMemoryStore()
  let broken = true
  const store = replacing(memory, {
    put: async (...args) => {
      if (broken) throw new OperationError('STORE_UNAVAILABLE', 'Cannot put: the store is away')
      return memory.put(...args)
    },
  })
  await using it = await rig(store)
  const file = await it.kernel.create('file')
  await it.kernel.write(file, 0, 'precious')
  assert.equal(await codeOf(it.kernel.close(file)), 'STORE_UNAVAILABLE')
  assert.equal((await it.kernel.readFile('file')).toString(), 'precious')
  assert.equal((await it.fs.publishFailed()).length, 1)
  broken = false
  assert.deepEqual(await it.fs.publishFailed(), [])
  assert.equal(await content(memory, 'file'), 'precious')
  assert.equal(it.fs.status.dirtyFiles, 0)
})

test('[S118] what the store refuses for now is an error of close and is tried again, but for what is too much', async () => {
  const memory = openMemoryStore()
  let denies = true
  const store = replacing(memory, {
    put: async (...args) => {
      if (denies) throw new OperationError('STORE_DENIED', 'Cannot put: these credentials may not')
      return memory.put(...args)
    },
  })
  await using it = await rig(store)
  const waiting = pendingFilesMax()
  const files = waiting + 10
  for (let number = 0; number < files; number++) {
    assert.equal(await codeOf(it.kernel.writeFile(`f${number}`, String(number))), 'STORE_DENIED')
  }
  await it.fs.publishFailed()
  const kept = readdirSync(join(it.stagingDirectory, 'conflicts')).length
  const left = it.fs.status.dirtyFiles
  assert.equal(kept + left, files)
  assert.ok(kept > 0 && left > 0 && left <= waiting, `${left} wait`)
  denies = false
  assert.deepEqual(await it.fs.publishFailed(), [])
  assert.equal(it.fs.status.dirtyFiles, 0)
  assert.equal((await Array.fromAsync(memory.list(''))).flat().length, left)
})

test('what the store refuses for good is an error of close, and then kept where its owner finds it', async () => {
  const memory = openMemoryStore()
  await elsewhere(memory, 'file', 'before')
  const store = replacing(memory, {
    put: async () => {
      throw new OperationError('STORE_FILE_TOO_LARGE', 'Cannot put: it is too large')
    },
  })
  await using it = await rig(store)
  const file = await it.kernel.open('file', O_WRONLY | constants.O_TRUNC)
  await it.kernel.write(file, 0, 'precious')
  assert.equal(await codeOf(it.kernel.close(file)), 'STORE_FILE_TOO_LARGE')
  await it.fs.publishFailed()
  assert.equal(it.fs.status.dirtyFiles, 0)
  const [kept] = readdirSync(join(it.stagingDirectory, 'conflicts'))
  assert.equal(readFileSync(join(it.stagingDirectory, 'conflicts', kept ?? ''), 'utf8'), 'precious')
  assert.equal((await it.kernel.readFile('file')).toString(), 'before')
})

test('truncation cuts, extends with zeros, and is in the store at once where nobody has the file open', async () => {
  const store = openMemoryStore()
  await using it = await rig(store)
  await it.kernel.writeFile('file', 'abcdef')
  await it.kernel.setattr('file', { size: 3 })
  assert.equal(await content(store, 'file'), 'abc')
  await it.kernel.setattr('file', { size: 5 })
  assert.equal(await content(store, 'file'), 'abc\0\0')
  const file = await it.kernel.open('file', O_RDWR | constants.O_TRUNC)
  assert.equal((await it.kernel.stat('file')).size, 0)
  assert.equal(await content(store, 'file'), 'abc\0\0')
  await it.kernel.close(file)
  assert.equal(await content(store, 'file'), '')
})

test('a write into the middle of a stored file keeps the rest', async () => {
  const store = openMemoryStore()
  await using it = await rig(store)
  await it.kernel.writeFile('file', 'aaaaaaaaaa')
  const file = await it.kernel.open('file', O_WRONLY)
  await it.kernel.write(file, 3, 'BB')
  await it.kernel.write(file, 12, 'C')
  await it.kernel.close(file)
  assert.equal(await content(store, 'file'), 'aaaBBaaaaa\0\0C')
})

test('extended attributes: kept in the store, with the flags and the errors of the calls', async () => {
  const store = openMemoryStore()
  await using it = await rig(store)
  await it.kernel.writeFile('file', 'x')
  const node = await it.kernel.node('file')
  await it.fs.setxattr(node, 'user.a', Buffer.from('1'), 1)
  assert.equal(await codeOf(it.fs.setxattr(node, 'user.a', Buffer.from('2'), 1)), 'FILE_EXISTS')
  assert.equal(await codeOf(it.fs.setxattr(node, 'user.b', Buffer.from('2'), 2)), 'ATTRIBUTE_NOT_FOUND')
  await it.fs.setxattr(node, 'user.a', Buffer.from('2'), 2)
  assert.equal(Buffer.from(await it.fs.getxattr(node, 'user.a')).toString(), '2')
  assert.deepEqual(await it.fs.listxattr(node), ['user.a'])
  assert.deepEqual([...((await store.stat('file')).attributes?.xattrs ?? [])].map(String), ['user.a,2'])
  await it.fs.removexattr(node, 'user.a')
  assert.equal(await codeOf(it.fs.removexattr(node, 'user.a')), 'ATTRIBUTE_NOT_FOUND')
  assert.equal(await codeOf((async () => it.fs.getxattr(node, 'system.posix_acl_access'))()), 'STORE_UNSUPPORTED')
  assert.equal((await it.kernel.readFile('file')).toString(), 'x')
})

test('a setgid directory gives its group on; a chown takes setuid away', async () => {
  const store = openMemoryStore()
  await using it = await rig(store)
  await it.kernel.mkdir('dir')
  await it.kernel.setattr('dir', { mode: 0o2775, gid: 77 })
  await it.kernel.mkdir('dir/sub')
  await it.kernel.writeFile('dir/file', 'x')
  const [sub, file] = [await it.kernel.stat('dir/sub'), await it.kernel.stat('dir/file')]
  assert.deepEqual([sub.gid, sub.mode & 0o7777, file.gid], [77, 0o2755, 77])
  await it.kernel.setattr('dir/file', { mode: 0o6755 })
  await it.kernel.setattr('dir/file', { uid: 5 })
  assert.equal((await it.kernel.stat('dir/file')).mode & 0o7777, 0o755)
  assert.equal((await store.stat('dir/file')).attributes?.uid, 5)
})

test('[S29] what a store cannot hold is refused by the right error', async () => {
  const memory = openMemoryStore()
  const store = replacing(memory, { capabilities: { ...memory.capabilities, pathBytesMax: 300 } })
  await using it = await rig(store)
  await it.kernel.writeFile('file', 'x')
  const node = await it.kernel.node('file')
  assert.equal(await codeOf((async () => it.fs.link(node))()), 'OPERATION_NOT_PERMITTED')
  assert.equal(await codeOf(it.fs.mknod(1, 'disk', 0o060644, 0, 0, CALLER)), 'OPERATION_NOT_PERMITTED')
  assert.equal(await codeOf(it.kernel.find('n'.repeat(256))), 'STORE_NAME_TOO_LONG')
  await it.kernel.mkdir('d'.repeat(200))
  assert.equal(await codeOf(it.kernel.create(`${'d'.repeat(200)}/${'f'.repeat(200)}`)), 'STORE_NAME_TOO_LONG')
  await it.kernel.writeFile('ü'.repeat(127), 'name of 254 bytes')
  assert.equal((await it.kernel.readFile('ü'.repeat(127))).toString(), 'name of 254 bytes')
})

test('mknod makes an empty file that is in the store at once', async () => {
  const store = openMemoryStore()
  await using it = await rig(store)
  await it.fs.mknod(1, 'empty', 0o100600, 0, 0o022, CALLER)
  assert.equal((await store.stat('empty')).attributes?.mode, 0o600)
  assert.equal(await codeOf(it.fs.mknod(1, 'empty', 0o100600, 0, 0, CALLER)), 'FILE_EXISTS')
})

test('a read-only mount changes nothing', async () => {
  const store = openMemoryStore()
  await elsewhere(store, 'file', 'x')
  await using it = await rig(store, { readOnly: true })
  assert.equal((await it.kernel.readFile('file')).toString(), 'x')
  assert.equal(await codeOf(it.kernel.writeFile('file', 'y')), 'STORE_READ_ONLY')
  assert.equal(await codeOf(it.kernel.mkdir('dir')), 'STORE_READ_ONLY')
  assert.equal(await codeOf(it.kernel.unlink('file')), 'STORE_READ_ONLY')
})

test('[S22] a change made elsewhere is seen within the validity', async () => {
  const store = openMemoryStore()
  await elsewhere(store, 'file', 'one')
  await using it = await rig(store)
  assert.equal((await it.kernel.stat('file')).size, 3)
  await elsewhere(store, 'file', 'three')
  it.clock.ms += 1001
  assert.equal((await it.kernel.stat('file')).size, 5)
  await store.remove('file', { guard: ANY })
  it.clock.ms += 1001
  assert.equal(await it.kernel.exists('file'), false)
  await store.makeDirectory('file', { guard: ABSENT })
  it.clock.ms += 1001
  assert.equal((await it.kernel.stat('file')).mode & 0o170000, 0o040000)
})

test('rm of what somebody has just replaced works at the second try, as the kernel makes it', async () => {
  const store = openMemoryStore()
  await elsewhere(store, 'file', 'one')
  await using it = await rig(store)
  await it.kernel.stat('file')
  await elsewhere(store, 'file', 'two')
  assert.equal(await codeOf(it.kernel.unlink('file')), 'STORE_CONFLICT')
  await it.kernel.unlink('file')
  assert.equal(await codeOf(store.stat('file')), 'STORE_NOT_FOUND')
})

test('offsets of an open directory stay while names come and go, and a listing goes on after any of them', async () => {
  const store = openMemoryStore()
  const names = Array.from({ length: 2500 }, (_, index) => `f${String(index).padStart(5, '0')}`)
  for (const name of names) await elsewhere(store, name, '')
  await using it = await rig(store)
  assert.deepEqual(await it.kernel.names(''), names)
  it.clock.ms += 2000
  const items = await it.kernel.readdir('', { plus: true, batch: 7 })
  assert.deepEqual(
    items.map(({ name }) => name),
    names,
  )
  assert.ok(items.every(({ entry }) => entry !== undefined))
  assert.deepEqual(
    items.map(({ offset }) => offset),
    names.map((_, index) => index + 3),
  )
})
