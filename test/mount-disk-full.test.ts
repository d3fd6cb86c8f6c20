/**
 * A mount whose local disk, with the staged files and the cache on it, is small, full, or changes what it holds: writers are told
 * by ENOSPC, readers get the right bytes, nothing that was acknowledged is lost, and it goes on when there is room again.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import {
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'

import { probeFuse } from '#fuse/probe.ts'

import { BucketMount } from './bucket-mount.ts'

const MIB = 2 ** 20
/** Whole files are handed to the kernel from here on, and read in more than one piece. */
const FILE_BYTES = 700_000

const fuse = await probeFuse()
const noMount = fuse.available ? false : `no mount can be made here: ${fuse.why}`
const skip = noMount || (process.getuid?.() === 0 ? false : 'mounting a small disk needs root')

function local(...command: readonly string[]): void {
  const [program = '', ...args] = command
  const { status, stderr } = spawnSync(program, args, { cwd: '/', encoding: 'utf8' })
  assert.equal(status, 0, `${command.join(' ')}: ${stderr}`)
}

/** A small disk of its own, with a real file system on it. */
class SmallDisk implements Disposable {
  readonly directory: string
  readonly image: string
  readonly #scratch: string

  constructor(bytes: number) {
    this.#scratch = mkdtempSync(join(tmpdir(), 'eider-disk-'))
    this.directory = join(this.#scratch, 'disk')
    const image = join(this.#scratch, 'image')
    this.image = image
    mkdirSync(this.directory)
    writeFileSync(image, '')
    truncateSync(image, bytes)
    local('mkfs.ext4', '-q', '-F', '-m', '0', '-O', '^has_journal', image)
    local('mount', '-o', 'loop', image, this.directory)
  }

  [Symbol.dispose](): void {
    local('umount', '-l', this.directory)
    rmSync(this.#scratch, { recursive: true, force: true })
  }
}

/** Python: `data(name, size)` are bytes that name their file at every place; `result` tells how a call ended. */
const PROGRAM = `
import errno, os, sys, time
mount, work = os.environ['M'], os.environ['W']
def data(name, size):
    line = (name + ' ' * 64)[:63].encode() + b'\\n'
    return (line * (size // 64 + 1))[:size]
def put(name, size):
    fd = os.open(mount + '/' + name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        content = data(name, size)
        for at in range(0, size, 131072): write(fd, content[at : at + 131072])
    finally:
        os.close(fd)
def write(fd, piece):
    while piece: piece = piece[os.write(fd, piece) :]
def check(directory, name, size):
    with open(directory + '/' + name, 'rb') as file:
        if file.read() != data(name, size): sys.exit(f'{name} in {directory} has other bytes')
`

function python(code: string): string {
  return `python3 - <<'END'\n${PROGRAM}${code}\nEND\n`
}

/** The files with cached bytes in a cache directory. */
function dataFiles(cache: string): string[] {
  const data = join(cache, 'data')
  return readdirSync(data).flatMap((part) => readdirSync(join(data, part)).map((name) => join(data, part, name)))
}

/** Turns a bit over somewhere in each of its data files. */
function flipBits(cache: string): number {
  const files = dataFiles(cache)
  for (const [index, path] of files.entries()) {
    const { size } = statSync(path)
    if (size === 0) continue
    const at = (index * 7919 * 13) % size
    const byte = Buffer.alloc(1)
    const fd = openSync(path, 'r+')
    readSync(fd, byte, 0, 1, at)
    byte[0] = (byte[0] ?? 0) ^ (1 << (index % 8))
    writeSync(fd, byte, 0, 1, at)
    closeSync(fd)
  }
  return files.length
}

test(
  '[S18] [S33] a full staging disk: ENOSPC to who writes, all that was acknowledged is stored, and it goes on with room',
  { skip },
  async () => {
    using disk = new SmallDisk(48 * MIB)
    await using mount = await BucketMount.start({ staging: join(disk.directory, 'staging') })
    // Files that stay open hold their room; others are written next to them, until nothing goes any more.
    const acknowledged = await mount.sh(
      python(`
put('before', 500_000)
held, refused, stored = [], 0, ['before']
for index in range(200):
    name = f'file{index}'
    try:
        if index % 2 == 0:
            fd = os.open(mount + '/' + name, os.O_WRONLY | os.O_CREAT)
            held.append((name, fd))
            write(fd, data(name, 1_000_000))
        else:
            put(name, 300_000)
            stored.append(name)
    except OSError as error:
        assert error.errno == errno.ENOSPC, error
        refused += 1
        if refused == 5: break
assert refused == 5, 'the disk is full'
try:
    put('before', 2_000_000)
except OSError as error:
    assert error.errno == errno.ENOSPC, error
else:
    sys.exit('there is room after all')
# What could not be written in full is dropped by its writer; all else is kept.
sizes = {}
for name, fd in held:
    size = os.fstat(fd).st_size
    try:
        os.close(fd)
        assert size == 1_000_000, 'it is told that all is stored'
        stored.append(name)
    except OSError as error:
        assert error.errno == errno.ENOSPC and size < 1_000_000, error
# The disk has room again.
put('after', 3_000_000)
check(mount, 'after', 3_000_000)
print(' '.join(stored[1:]))`),
    )
    assert.ok(acknowledged.split(' ').length >= 20, acknowledged)
    const names = JSON.stringify(acknowledged.trim().split(' '))
    await mount.sh(
      python(`
for where in (mount, os.environ['B']):
    for name in ${names}:
        check(where, name, 300_000 if int(name[4:]) % 2 else 1_000_000)
    check(where, 'after', 3_000_000)
    check(where, 'before', 500_000)`),
    )
    await mount.unmount()
    assert.deepEqual(mount.keptNames, [])
    assert.deepEqual(mount.stagedNames, [])
  },
)

test(
  '[S33] a full disk under a file that the kernel writes itself: its close fails, and what is stored stays',
  { skip },
  async () => {
    using disk = new SmallDisk(24 * MIB)
    await using mount = await BucketMount.start({
      staging: join(disk.directory, 'staging'),
      mountArguments: ['--cache', join(disk.directory, 'cache'), '--cache-min-free', '0'],
    })
    await mount.sh(
      python(`
put('file', 1_000_000)
check(mount, 'file', 1_000_000)
fd = os.open(mount + '/file', os.O_RDWR)
with open('${join(disk.directory, 'hog')}', 'wb') as hog:
    try:
        while True: hog.write(bytes(65536)); hog.flush()
    except OSError: pass
os.truncate(hog.name, os.path.getsize(hog.name) - 1_500_000)
refused = 0
try:
    for piece in range(64): os.pwrite(fd, bytes(1 << 20), 1_000_000 + (piece << 20))
except OSError as error:
    assert error.errno == errno.ENOSPC, error
    refused += 1
try:
    os.close(fd)
except OSError as error:
    assert error.errno == errno.ENOSPC, error
    refused += 1
assert refused == 2, refused
os.unlink('${join(disk.directory, 'hog')}')
# The kernel tells the mount of the end of an open file a moment after its close.
deadline = time.monotonic() + 30
while os.path.getsize(mount + '/file') != 1_000_000 and time.monotonic() < deadline: time.sleep(0.01)
for where in (mount, os.environ['B']): check(where, 'file', 1_000_000)
put('file', 2_000_000)
for where in (mount, os.environ['B']): check(where, 'file', 2_000_000)`),
    )
    await mount.unmount()
    assert.deepEqual(mount.keptNames, [])
  },
)

test('[S64] a full cache disk is no error: what finds no room is read and written without it', { skip }, async () => {
  using disk = new SmallDisk(12 * MIB)
  const cache = join(disk.directory, 'cache')
  await using mount = await BucketMount.start({ mountArguments: ['--cache', cache, '--cache-min-free', '0'] })
  const names = `[f'file{index}' for index in range(40)]`
  const reading = python(`
for name in ${names}:
    check(mount, name, ${FILE_BYTES})`)
  await mount.sh(python(`for name in ${names}: put(name, ${FILE_BYTES})`) + reading + reading)
  await mount.remount()
  await mount.sh(reading + reading)
  // Somebody else takes all that is left of the disk.
  const hog = join(disk.directory, 'hog')
  await mount.attempt(`head -c ${20 * MIB} /dev/zero > ${hog}`)
  await mount.sh(reading + python(`put('new', ${FILE_BYTES}); check(mount, 'new', ${FILE_BYTES})`))
  await mount.remount()
  await mount.sh(reading)
  rmSync(hog)
  await mount.sh(reading)
  await mount.unmount()
})

test('[S61] bits that turn over in the cache, between two mounts and under one, are never read', { skip }, async () => {
  const cache = mkdtempSync(join(tmpdir(), 'eider-flips-'))
  try {
    await using mount = await BucketMount.start({
      mountArguments: ['--cache', cache, '--cache-min-free', '1MB'],
    })
    const names = `[f'file{index}' for index in range(12)]`
    // What the kernel has of a file in its own pages would hide what the cache gives.
    const reading = python(`
for name in ${names}:
    fd = os.open(mount + '/' + name, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)
    check(mount, name, ${FILE_BYTES})`)
    await mount.sh(python(`for name in ${names}: put(name, ${FILE_BYTES})`) + reading)
    await mount.unmount()
    assert.ok(flipBits(cache) >= 12, 'the files are cached')
    await mount.mount()
    await mount.sh(reading)
    assert.ok(flipBits(cache) >= 12, 'they are cached again')
    await mount.sh(reading)
    // In files that are then edited: what was not written is still what it was.
    flipBits(cache)
    await mount.sh(
      python(`
for name in ${names}:
    fd = os.open(mount + '/' + name, os.O_RDWR)
    os.pwrite(fd, data(name, 64), 0)
    os.close(fd)
for where in (mount, os.environ['B']):
    for name in ${names}: check(where, name, ${FILE_BYTES})`),
    )
    await mount.remount()
    await mount.sh(reading)
    await mount.unmount()
  } finally {
    rmSync(cache, { recursive: true, force: true })
  }
})

test(
  '[S61] what a disk forgets under a file that the kernel reads is not written into the store',
  { skip },
  async () => {
    using disk = new SmallDisk(64 * MIB)
    await using mount = await BucketMount.start({
      staging: join(disk.directory, 'staging'),
      mountArguments: ['--cache', join(disk.directory, 'cache'), '--cache-min-free', '0'],
    })
    await mount.sh(
      python(`
def content(name):
    return data(name, 1_000_000) + b'REMEMBERED' + data(name, 2_000_000)
def forget():
    os.sync()
    with open('${disk.image}', 'r+b') as image:
        whole = image.read()
        at = whole.find(b'REMEMBERED')
        assert at >= 0
        while at >= 0:
            image.seek(at)
            image.write(b'FORGOTTEN!')
            at = whole.find(b'REMEMBERED', at + 1)
    os.sync()
    for directory, _, names in os.walk('${join(disk.directory, 'cache', 'data')}'):
        for name in names: drop(os.path.join(directory, name))
def drop(path):
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)
for name in ('alone', 'read'):
    with open(mount + '/' + name, 'wb') as file: file.write(content(name))
    for _ in range(2):
        with open(mount + '/' + name, 'rb') as file: assert file.read() == content(name)
reader = os.open(mount + '/read', os.O_RDONLY)
os.pread(reader, 10, 0)
forget()
# One that nobody has open is fetched anew.
with open(mount + '/alone', 'ab') as file: file.write(b'more')
# The readers of one that somebody has open have the damaged file: a writer gets none.
try:
    os.close(os.open(mount + '/read', os.O_RDWR | os.O_APPEND))
    sys.exit('it was opened to be written')
except OSError as error:
    assert error.errno == errno.EIO, error
os.close(reader)
deadline = time.monotonic() + 30
while True:
    try:
        with open(mount + '/read', 'ab') as file: file.write(b'more')
        break
    except OSError:
        assert time.monotonic() < deadline
        time.sleep(0.01)
for name in ('alone', 'read'):
    for where in (mount, os.environ['B']):
        with open(where + '/' + name, 'rb') as file: assert file.read() == content(name) + b'more', (where, name)`),
    )
    await mount.unmount()
  },
)
