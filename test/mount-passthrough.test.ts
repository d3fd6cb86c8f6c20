/**
 * Passthrough on real mounts: what the kernel reads and writes itself costs no request, arrives in the store all the same,
 * and no order of opens meets an error. Needs root, Linux 6.9, and a disk that tells of writes; what cannot be
 * passed through is read and written through the mount, which is shown here too.
 */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import {
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statfsSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'

import { setLogLevel } from '#base/log.ts'
import { probeFuse } from '#fuse/probe.ts'
import type { FileCache } from '#cache/file-cache.ts'
import { openFileCache } from '#cache/open-file-cache.ts'
import type { MountOptions } from '#mount/mount.ts'
import { openMemoryStore } from '#store/memory-store.ts'

import { CachedMount } from './cached-mount.ts'
import { until } from './memory-mount.ts'
import { WholeFileCache } from './whole-file-cache.ts'

setLogLevel('error')

const fuse = await probeFuse()
const skip =
  !fuse.available || !fuse.passthrough ? `the kernel passes nothing through: ${fuse.why ?? fuse.passthroughWhy}` : false
const options = { skip, timeout: 60_000 }

interface Rig {
  readonly mount: CachedMount
  readonly cache: WholeFileCache
}

/** A mount of a store with one file, `f`, which is cached. */
async function withCached(
  bytes: Uint8Array,
  body: (rig: Rig) => Promise<void>,
  mountOptions: Partial<MountOptions> = {},
  disk?: string,
): Promise<void> {
  const cache = new WholeFileCache(disk)
  try {
    await using mount = await CachedMount.start(cache, mountOptions)
    cache.put(await mount.put('f', bytes), bytes)
    mount.stored()
    await body({ mount, cache })
    await mount.unmount()
    assert.equal(cache.held, 0, 'what was held is released')
  } finally {
    cache.remove()
  }
}

const DATA = Buffer.from('0123456789'.repeat(30_000))

/** Python: opens and closes a mapping of the whole file, whose descriptor is closed at once. */
const MAPPING = `
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
def mapped(path, size):
    fd = os.open(path, os.O_RDWR)
    at = libc.mmap(None, size, 3, 1, fd, 0)
    os.close(fd)
    return at
`

test(
  '[S55] a cached file is read without a request for its bytes, by the kernel or of the store',
  options,
  async () => {
    await withCached(DATA, async ({ mount }) => {
      assert.equal(
        await mount.sh('sha256sum < f'),
        await mount.run(`
import hashlib
print(hashlib.sha256(b'0123456789' * 30000).hexdigest() + '  -')`),
      )
      await mount.sh('cat f f f > /dev/null')
      const { OPEN: opens = 0, READ: reads = 0 } = await mount.requests()
      assert.ok(opens >= 4)
      assert.equal(reads, 0)
      assert.deepEqual(
        Object.keys(mount.stored()).filter((name) => name === 'read'),
        [],
      )
    })
  },
)

test('[S56] a write that the kernel makes itself is in the store when close returns', options, async () => {
  await withCached(DATA, async ({ mount, cache }) => {
    const size = await mount.run(`
fd = os.open(m + '/f', os.O_RDWR)
os.pwrite(fd, b'ABC', 5)
print(os.fstat(fd).st_size, os.pread(fd, 5, 4).decode())
os.close(fd)`)
    assert.equal(size, `${DATA.length} 4ABC8`)
    const expected = Buffer.from(DATA)
    expected.write('ABC', 5)
    assert.ok((await mount.content('f')).equals(expected))
    const asked = await mount.requests()
    assert.equal(asked['WRITE'], undefined)
    assert.equal(asked['READ'], undefined)
    assert.equal(mount.stored()['put'], 1)
    // And what was written here is read from here.
    await until('what was written is cached', () => cache.calls.includes('adopt f'))
    assert.ok(!cache.calls.includes('take f'), 'a file that nobody reads is written as a copy')
    await mount.requests()
    assert.equal(await mount.sh('head -c 8 f'), '01234ABC')
    assert.equal((await mount.requests())['READ'], undefined)
  })
})

test(
  '[S56] fsync of what the kernel wrote itself returns when the store has it, and later writes follow',
  options,
  async () => {
    await withCached(DATA, async ({ mount }) => {
      const step = (name: string): string => join(mount.scratch, name)
      const program = mount.run(`
fd = os.open(m + '/f', os.O_RDWR)
for index in range(3):
    os.pwrite(fd, b'X', index)
    os.fsync(fd)
    os.fsync(fd)
    open('${mount.scratch}/synced%d' % index, 'w').close()
    while not os.path.exists('${mount.scratch}/go%d' % index): time.sleep(0.01)`)
      for (const [index, text] of ['X123', 'XX23', 'XXX3'].entries()) {
        await until('fsync has returned', () => existsSync(step(`synced${index}`)))
        assert.equal((await mount.content('f')).toString('latin1', 0, 4), text)
        writeFileSync(step(`go${index}`), '')
      }
      await program
      assert.equal(mount.stored()['put'], 3)
    })
  },
)

test('[S56] a file that is opened to be written and is not stays as it is', options, async () => {
  await withCached(DATA, async ({ mount }) => {
    const before = await mount.sh('stat -c %y f')
    await mount.run(`
fd = os.open(m + '/f', os.O_RDWR)
os.pread(fd, 5, 4)
os.fsync(fd)
os.close(fd)`)
    assert.equal(await mount.sh('stat -c %y f'), before)
    assert.equal(mount.stored()['put'], undefined)
  })
})

test('[S57] stores through a mapping reach the store at each close, and when the mapping goes', options, async () => {
  await withCached(DATA, async ({ mount }) => {
    const step = (name: string): string => join(mount.scratch, name)
    const program = mount.run(`${MAPPING}
def step(name):
    while not os.path.exists('${mount.scratch}/' + name): time.sleep(0.01)
at = mapped(m + '/f', ${DATA.length})
for index, letter in enumerate('xyz'):
    # The page is dirty already from the second on, and nothing of it was told to anybody.
    ctypes.memset(at + index, ord(letter), 1)
    os.close(os.open(m + '/f', os.O_RDWR))
    open('${mount.scratch}/closed' + letter, 'w').close()
    step('go' + letter)
ctypes.memset(at + 3, ord('!'), 1)
step('end')`)
    for (const [letter, text] of Object.entries({ x: 'x123', y: 'xy23', z: 'xyz3' })) {
      await until(`the close after ${letter} has returned`, () => existsSync(step(`closed${letter}`)))
      assert.equal((await mount.content('f')).toString('latin1', 0, 4), text)
      writeFileSync(step(`go${letter}`), '')
    }
    await until('the last store shows', async () => (await mount.sh('head -c 4 f')) === 'xyz!')
    writeFileSync(step('end'), '')
    await program
    await until('the mapping is gone', async () => (await mount.content('f')).toString('latin1', 0, 4) === 'xyz!')
  })
})

test('[S58] readers and writers of one file meet no error, in whatever order they open it', options, async () => {
  const kinds = [
    'os.O_RDONLY',
    'os.O_WRONLY',
    'os.O_RDWR',
    'os.O_RDWR | os.O_APPEND',
    'os.O_RDONLY | os.O_DIRECT',
    'os.O_RDWR | os.O_TRUNC',
  ]
  await withCached(DATA, async ({ mount }) => {
    const output = await mount.run(`
import itertools
kinds = [${kinds.join(', ')}]
def check(order):
    fds = []
    for kind in order:
        fds.append(os.open(m + '/f', kind))
    for fd, kind in zip(fds, order):
        if kind & 3 != os.O_WRONLY and not kind & os.O_DIRECT: os.pread(fd, 100, 0)
        if kind & 3: os.write(fd, b'0123456789')
    for fd in fds: os.fsync(fd)
    for fd in fds: os.close(fd)
count = 0
for length in (2, 3):
    for order in itertools.product(kinds, repeat=length):
        check(order)
        count += 1
print(count)`)
    assert.equal(output, String(36 + 216))
  })
})

test('[S58] what two processes append is all there', options, async () => {
  await withCached(DATA, async ({ mount }) => {
    const append = (letter: string): Promise<string> =>
      mount.run(`
fd = os.open(m + '/f', os.O_WRONLY | os.O_APPEND)
for index in range(500): os.write(fd, b'${letter}' * 7)
os.close(fd)`)
    await Promise.all([append('a'), append('b')])
    const bytes = await mount.content('f')
    assert.equal(bytes.length, DATA.length + 7000)
    const appended = bytes.toString('latin1', DATA.length)
    assert.match(appended, /^(?:a{7}|b{7})*$/)
    assert.equal(appended.replaceAll('b', '').length, 3500)
  })
})

test(
  '[S58] a reader of the cached file sees what is written to it, and the cache keeps none of it',
  options,
  async () => {
    await withCached(DATA, async ({ mount, cache }) => {
      const output = await mount.run(`
reader = os.open(m + '/f', os.O_RDONLY)
seen = [os.pread(reader, 4, 0)]
writer = os.open(m + '/f', os.O_RDWR)
os.pwrite(writer, b'new', 0)
seen.append(os.pread(reader, 4, 0))
os.close(writer)
seen.append(os.pread(reader, 4, 0))
os.ftruncate(os.open(m + '/f', os.O_RDWR), 2)
seen.append(os.pread(reader, 4, 0))
os.close(reader)
print(b' '.join(seen).decode())`)
      assert.equal(output, '0123 new3 new3 ne')
      assert.deepEqual(cache.calls.slice(0, 1), ['take f'])
      await until('the end is stored', async () => (await mount.content('f')).toString() === 'ne')
      await until('what was written is cached', () => cache.calls.at(-1) === 'adopt f')
      assert.equal(await mount.sh('cat f'), 'ne')
    })
  },
)

test(
  '[S27] a cached file that is removed or replaced stays readable and writable where it is open',
  options,
  async () => {
    for (const removal of ["os.unlink(m + '/f')", "os.rename(m + '/g', m + '/f')"]) {
      await withCached(DATA, async ({ mount }) => {
        const output = await mount.run(`
open(m + '/g', 'w').write('other')
fd = os.open(m + '/f', os.O_RDONLY)
${removal}
again = os.open('/proc/self/fd/%d' % fd, os.O_RDWR)
os.pwrite(again, b'new', 0)
print(os.pread(fd, 4, 0).decode(), os.fstat(fd).st_size, os.fstat(fd).st_nlink)`)
        assert.equal(output, `new3 ${DATA.length} 0`)
      })
    }
  },
)

test('[S56] a rename takes what was written along, and what is cached', options, async () => {
  await withCached(DATA, async ({ mount, cache }) => {
    await mount.sh('mkdir d && mv f d/g && mv d e')
    await mount.requests()
    assert.equal(await mount.sh('head -c 4 e/g'), '0123')
    assert.equal((await mount.requests())['READ'], undefined)
    await mount.run(`
fd = os.open(m + '/e/g', os.O_RDWR)
os.pwrite(fd, b'new', 0)
os.rename(m + '/e/g', m + '/h')
os.pwrite(fd, b'er', 3)
os.close(fd)`)
    assert.equal((await mount.content('h')).toString('latin1', 0, 6), 'newer5')
    assert.ok(cache.calls.includes('moved f d/g'), cache.calls.join())
  })
})

test('[S58] a large cached file is written through the mount, unless somebody reads it', options, async () => {
  const large = Buffer.alloc(20 << 20, 'large ')
  await withCached(large, async ({ mount, cache }) => {
    await mount.run(`
fd = os.open(m + '/f', os.O_RDWR)
os.pwrite(fd, b'L', 0)
os.close(fd)`)
    assert.ok(((await mount.requests())['WRITE'] ?? 0) > 0)
    const key = { path: 'f', version: (await mount.store.stat('f')).version, size: large.length }
    cache.put(key, await mount.content('f'))
    await mount.run(`
reader = os.open(m + '/f', os.O_RDONLY)
fd = os.open(m + '/f', os.O_RDWR)
os.pwrite(fd, b'S', 6)
os.close(fd)
os.close(reader)`)
    assert.equal((await mount.requests())['WRITE'], undefined)
    assert.ok(cache.calls.includes('take f'))
    assert.equal((await mount.content('f')).toString('latin1', 0, 11), 'Large Sarge')
  })
})

test('[S58] a set-user-id bit goes with a write, whichever way it is made', options, async () => {
  await withCached(DATA, async ({ mount }) => {
    const nobody = 'setpriv --reuid 65534 --regid 65534 --clear-groups'
    await mount.sh('chmod 4777 f')
    await mount.sh(`printf x | ${nobody} dd of=f conv=notrunc status=none`)
    // With the time, which the kernel has to ask for.
    assert.match(await mount.sh("stat -c '%a %y' f"), /^777 /)
    await mount.sh('chmod 4777 f')
    await mount.sh(
      `exec 3< f; printf x | ${nobody} dd of=f conv=notrunc status=none; stat -c '%a %y' f > ${mount.scratch}/mode`,
    )
    assert.match(readFileSync(join(mount.scratch, 'mode'), 'utf8'), /^777 /)
  })
})

test('[S58] direct and truncating opens work as ever', options, async () => {
  await withCached(DATA, async ({ mount }) => {
    const output = await mount.run(`
fd = os.open(m + '/f', os.O_RDWR | os.O_DIRECT)
page = mmap.mmap(-1, 4096)
page[:] = b'd' * 4096
os.pwritev(fd, [page], 4096)
os.preadv(fd, [page], 4096)
print(page[:3].decode())
os.close(fd)
fd = os.open(m + '/f', os.O_RDWR | os.O_TRUNC)
os.write(fd, b'cut')
os.close(fd)
print(open(m + '/f').read())`)
    assert.equal(output, 'ddd\ncut')
    assert.equal((await mount.content('f')).toString(), 'cut')
  })
})

test(
  '[S30] what the kernel wrote and no close has published is stored, or kept, when the mount ends',
  options,
  async () => {
    for (const how of ['copy', 'taken'] as const) {
      await withCached(DATA, async ({ mount }) => {
        const written = join(mount.scratch, 'written')
        const program = mount.python(`
if '${how}' == 'taken': reader = os.open(m + '/f', os.O_RDONLY)
fd = os.open(m + '/f', os.O_RDWR)
os.pwrite(fd, b'new', 0)
open('${written}', 'w').close()
time.sleep(${how === 'copy' ? 1 : 0.5})`)
        await until('it is written', () => existsSync(written))
        mount.keepAtOnce()
        assert.deepEqual(
          mount.kept.map((path) => readFileSync(path, 'latin1').slice(0, 4)),
          ['new3'],
        )
        if (how === 'copy') await mount.stop()
        await program
        assert.equal((await mount.content('f')).toString('latin1', 0, 4), 'new3')
      })
    }
  },
)

test('[S59] without passthrough, or on disks that tell nothing, the same is done by itself', options, async () => {
  const program = `
reader = os.open(m + '/f', os.O_RDONLY)
writer = os.open(m + '/f', os.O_RDWR)
os.pwrite(writer, b'new', 0)
print(os.pread(reader, 4, 0).decode())
os.close(writer)
os.close(reader)`
  const asWell = async ({ mount }: Rig): Promise<void> => {
    assert.equal(await mount.run(program), 'new3')
    assert.ok(((await mount.requests())['WRITE'] ?? 0) > 0)
    assert.equal((await mount.content('f')).toString('latin1', 0, 4), 'new3')
  }
  await withCached(DATA, asWell, { passthrough: false })
  // tmpfs does not tell of stores through mappings.
  if (statfsSync('/dev/shm').type === 0x1021994) await withCached(DATA, asWell, {}, '/dev/shm')
})

/** Runs `body` with the disk cache itself, which can be closed and opened anew. */
async function withDiskCache(
  body: (directory: string, open: () => Promise<FileCache>) => Promise<void>,
): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'eider-cache-'))
  const limits = { bytesMax: 1 << 30, bytesFreeMin: 0, storeUrl: 'memory:' }
  try {
    await body(directory, () => openFileCache({ directory, ...limits }))
  } finally {
    rmSync(directory, { recursive: true })
  }
}

function dataFiles(directory: string): string[] {
  const names = readdirSync(join(directory, 'data'), { recursive: true, encoding: 'utf8' })
  return names.map((name) => join(directory, 'data', name)).filter((path) => statSync(path).isFile())
}

test(
  '[S55, S60] what was read once, or written here, is passed through from then on, also after a restart',
  options,
  async () => {
    await withDiskCache(async (_directory, open) => {
      const store = openMemoryStore()
      const sum = createHash('sha256').update(DATA).digest('hex')
      let cache = await open()
      {
        await using mount = await CachedMount.start(cache, { store })
        await mount.put('f', DATA)
        assert.equal(await mount.sh('sha256sum < f'), `${sum}  -`)
        assert.ok((mount.stored()['read'] ?? 0) > 0)
        await until('the bytes are kept', () => cache.status.bytes >= DATA.length)
        await mount.requests()
        assert.equal(await mount.sh('sha256sum < f'), `${sum}  -`)
        assert.equal((await mount.requests())['READ'], undefined)
        await mount.sh('cp f g')
        await until('what was written is kept', () => cache.status.files === 2)
        await mount.requests()
        assert.equal(await mount.sh('sha256sum < g'), `${sum}  -`)
        assert.equal((await mount.requests())['READ'], undefined)
        await mount.unmount()
      }
      await cache.close()
      cache = await open()
      {
        await using mount = await CachedMount.start(cache, { store })
        assert.equal(await mount.sh('cat f g | wc -c'), String(2 * DATA.length))
        assert.equal((await mount.requests())['READ'], undefined)
        assert.equal(mount.stored()['read'], undefined)
        await mount.unmount()
      }
      await cache.close()
    })
  },
)

test(
  '[S61] a cached file that was damaged between two opens is not passed through, and read right',
  options,
  async () => {
    await withDiskCache(async (directory, open) => {
      const cache = await open()
      {
        await using mount = await CachedMount.start(cache)
        await mount.put('f', DATA)
        await mount.sh('cat f > /dev/null')
        await until('the bytes are kept', () => cache.status.bytes >= DATA.length)
        for (const path of dataFiles(directory)) {
          const fd = openSync(path, 'r+')
          writeSync(fd, 'harm', 200_000)
          closeSync(fd)
        }
        const sum = createHash('sha256').update(DATA).digest('hex')
        assert.equal(await mount.sh('sha256sum < f'), `${sum}  -`)
        assert.ok(cache.status.corruptBlocks > 0)
        await mount.unmount()
      }
      await cache.close()
    })
  },
)

test('[S58] programs that change one cached file at random see one file', options, async () => {
  await withDiskCache(async (_directory, open) => {
    const cache = await open()
    {
      await using mount = await CachedMount.start(cache)
      await mount.put('f', DATA)
      await mount.sh('cat f > /dev/null')
      await until('the bytes are kept', () => cache.status.bytes >= DATA.length)
      // While it has the file open nothing changes the way that it is read and written.
      const over = join(mount.scratch, 'over')
      const reader = mount.run(`
fd = os.open(m + '/f', os.O_RDONLY)
open('${over}ture', 'w').close()
while not os.path.exists('${over}'): time.sleep(0.01)`)
      await until('the file is open', () => existsSync(`${over}ture`))
      // Each writer has its own stripes, and checks before and after each step what it has written there last.
      const program = (index: number): string => `
import random
rnd = random.Random(${index})
size = ${DATA.length}
mine = {}
def check(fd):
    for at, letter in mine.items():
        got = os.pread(fd, 10, at)
        if got != letter * 10: sys.exit('%r at %d, not %r' % (got, at, letter))
for step in range(150):
    writes = rnd.random() < 0.7
    fd = os.open(m + '/f', os.O_RDWR if writes else os.O_RDONLY)
    check(fd)
    for _ in range(rnd.randrange(4) if writes else 0):
        at = rnd.randrange(size // 30) * 30 + ${index} * 10
        letter = bytes([rnd.randrange(97, 123)])
        if rnd.random() < 0.5: os.pwrite(fd, letter * 10, at)
        else:
            with mmap.mmap(fd, size) as memory: memory[at:at + 10] = letter * 10
        mine[at] = letter
        if rnd.random() < 0.1: os.fsync(fd)
    check(fd)
    os.close(fd)
print(','.join('%d:%s' % (at, letter.decode()) for at, letter in mine.items()))`
      const outputs = await Promise.all([0, 1, 2].map((index) => mount.run(program(index))))
      const expected = Buffer.from(DATA)
      for (const pair of outputs.join(',').split(',')) {
        const [at, letter = ''] = pair.split(':')
        expected.fill(letter, Number(at), Number(at) + 10)
      }
      assert.ok((await mount.content('f')).equals(expected), 'all of it is stored')
      assert.equal((await mount.requests())['WRITE'], undefined)
      writeFileSync(over, '')
      await reader
      await mount.unmount()
    }
    await cache.close()
  })
})
