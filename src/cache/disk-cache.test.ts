import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import {
  closeSync,
  copyFileSync,
  constants,
  existsSync,
  fstatSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readSync,
  rmSync,
  statSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { setImmediate } from 'node:timers/promises'

import fc from 'fast-check'

import { setLogLevel } from '#base/log.ts'
import { O_TMPFILE } from '#os/at.ts'
import type { Version } from '#store/store.ts'

import { BLOCK_BYTES } from './blocks.ts'
import type { CachedVersion, CacheKey, FileCache, FileCacheOptions } from './file-cache.ts'
import { openFileCache } from './open-file-cache.ts'

setLogLevel('silent')

interface Place {
  readonly directory: string
  readonly open: (options?: Partial<FileCacheOptions>) => Promise<FileCache>
}

/** With a directory of its own; caches that the test leaves open are closed. */
function withCache(body: (place: Place) => Promise<void>): () => Promise<void> {
  return async () => {
    const directory = mkdtempSync(join(tmpdir(), 'eider-cache-'))
    const opened: FileCache[] = []
    const open = async (options: Partial<FileCacheOptions> = {}): Promise<FileCache> => {
      const cache = await openFileCache({
        directory,
        storeUrl: 's3://a',
        bytesMax: 1 << 30,
        bytesFreeMin: 0,
        ...options,
      })
      opened.push(cache)
      return cache
    }
    try {
      await body({ directory, open })
    } finally {
      for (const cache of opened) await cache.close()
      rmSync(directory, { recursive: true })
    }
  }
}

const keyOf = (path: string, size: number, version = 'v1'): CacheKey => ({ path, version: version as Version, size })

/** What a version consists of. */
function bytesOf({ path, version, size }: CacheKey): Buffer {
  const bytes = Buffer.alloc(size)
  for (let at = 0; at < size; at += 4096) {
    bytes.fill(createHash('sha256').update(`${path} ${version} ${at}`).digest(), at, Math.min(at + 4096, size))
  }
  return bytes
}

/** A local file without a name that holds the version. */
function stagedFile(directory: string, key: CacheKey): number {
  const fd = openSync(directory, constants.O_RDWR | O_TMPFILE, 0o600)
  writeSync(fd, bytesOf(key))
  return fd
}

async function keepAll(cache: FileCache, key: CacheKey): Promise<void> {
  const held = cache.hold(key)
  await held.keep(0, bytesOf(key))
  held.release()
}

/** Whether all of the version is given; what is given is right. */
async function isCached(cache: FileCache, key: CacheKey): Promise<boolean> {
  const held = cache.hold(key)
  const bytes = await held.read(0, key.size)
  held.release()
  if (bytes !== undefined) assert.ok(bytes.equals(bytesOf(key)), `the bytes of ${key.path} are right`)
  return bytes !== undefined
}

function dataFiles(directory: string): string[] {
  const data = join(directory, 'data')
  return readdirSync(data).flatMap((fan) => readdirSync(join(data, fan)).map((name) => join(data, fan, name)))
}

const allocatedIn = (directory: string): number =>
  dataFiles(directory).reduce((sum, path) => sum + statSync(path).blocks * 512, 0)

function flip(path: string, offset: number): void {
  const fd = openSync(path, 'r+')
  const byte = Buffer.alloc(1)
  readSync(fd, byte, 0, 1, offset)
  byte[0] = (byte[0] ?? 0) ^ 1
  writeSync(fd, byte, 0, 1, offset)
  closeSync(fd)
}

/** Waits until the condition holds; the test's own time limit bounds it. */
async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await condition())) await setImmediate()
}

test(
  '[S60] ranges that were kept are read, also after a restart, and the others are missing',
  withCache(async ({ open }) => {
    let cache = await open()
    const key = keyOf('a/b', 5 * BLOCK_BYTES + 1000)
    const bytes = bytesOf(key)
    let held = cache.hold(key)
    assert.equal(held.read(0, 100), undefined)
    assert.deepEqual(held.missing(3 * BLOCK_BYTES + 5, 10), { offset: 3 * BLOCK_BYTES, length: BLOCK_BYTES })
    assert.deepEqual(held.align(5 * BLOCK_BYTES + 1, 5), { offset: 5 * BLOCK_BYTES, length: 1000 })
    // The first and the last block of it are not whole.
    await held.keep(10, bytes.subarray(10, 3 * BLOCK_BYTES + 10))
    assert.deepEqual(held.missing(0, key.size), { offset: 0, length: BLOCK_BYTES })
    assert.deepEqual(held.missing(BLOCK_BYTES, key.size), { offset: 3 * BLOCK_BYTES, length: 2 * BLOCK_BYTES + 1000 })
    assert.equal(held.read(0, 100), undefined)
    assert.equal(held.isWhole, false)
    held.release()
    for (let round = 0; round < 2; round++) {
      held = cache.hold(key)
      const part = await held.read(BLOCK_BYTES + 7, BLOCK_BYTES)
      assert.ok(part?.equals(bytes.subarray(BLOCK_BYTES + 7, 2 * BLOCK_BYTES + 7)))
      assert.equal(held.read(2 * BLOCK_BYTES, 2 * BLOCK_BYTES), undefined)
      held.release()
      await cache.close()
      cache = await open()
    }
    held = cache.hold(key)
    await held.keep(0, bytes)
    assert.equal(held.missing(0, key.size), undefined)
    assert.equal(held.isWhole, false, 'not all of it was checked in this process')
    assert.ok(held.backing() !== undefined)
    assert.equal(held.isWhole, true)
    const end = await held.read(key.size - 10, 1000)
    assert.ok(end?.equals(bytes.subarray(key.size - 10)), 'a read past the end gives what there is')
    assert.equal((await held.read(key.size, 10))?.length, 0)
    held.release()
  }),
)

test(
  '[S61] a byte that changed on the disk is found, counted, and fetched again',
  withCache(async ({ directory, open }) => {
    const key = keyOf('a', 4 * BLOCK_BYTES)
    let cache = await open()
    await keepAll(cache, key)
    await cache.close()
    const [path = ''] = dataFiles(directory)
    flip(path, 2 * BLOCK_BYTES + 77)
    cache = await open()
    const held = cache.hold(key)
    assert.ok((await held.read(0, 2 * BLOCK_BYTES)) !== undefined, 'the blocks before it are right')
    assert.equal(await held.read(2 * BLOCK_BYTES, 10), undefined)
    assert.equal(cache.status.corruptBlocks, 1)
    assert.equal(held.backing(), undefined)
    assert.deepEqual(held.missing(0, key.size), { offset: 2 * BLOCK_BYTES, length: BLOCK_BYTES })
    await held.keep(2 * BLOCK_BYTES, bytesOf(key).subarray(2 * BLOCK_BYTES, 3 * BLOCK_BYTES))
    assert.ok((await held.read(0, key.size))?.equals(bytesOf(key)))
    assert.ok(held.backing() !== undefined)
    held.release()
    // Between two openings in one process.
    flip(path, 5)
    const again = cache.hold(key)
    assert.equal(again.backing(), undefined, 'the time of the file has changed, so it was checked again')
    assert.equal(cache.status.corruptBlocks, 2)
    again.release()
    await cache.close()
    // Cut short, and gone.
    for (const harm of [() => truncateSync(path, 100), () => unlinkSync(dataFiles(directory)[0] ?? '')]) {
      cache = await open()
      await keepAll(cache, key)
      await cache.close()
      harm()
      cache = await open()
      assert.equal(await isCached(cache, key), false)
      await keepAll(cache, key)
      assert.equal(await isCached(cache, key), true)
      await cache.close()
    }
  }),
)

test(
  '[S61] a file or its copy that has changed unseen since it was checked is told before anything is made of it',
  withCache(async ({ directory, open }) => {
    const key = keyOf('file', 20 * BLOCK_BYTES + 5)
    const cache = await open()
    await keepAll(cache, key)
    const held = cache.hold(key)
    const fd = held.backing()
    assert.ok(fd !== undefined)
    assert.equal(await held.verify(fd), true)
    const copy = join(directory, 'copy')
    copyFileSync(`/proc/self/fd/${fd}`, copy)
    flip(copy, 17 * BLOCK_BYTES)
    const copied = openSync(copy, 'r')
    assert.equal(await held.verify(copied), false)
    closeSync(copied)
    assert.ok((await held.read(0, key.size))?.equals(bytesOf(key)), 'its own file is right')
    flip(dataFiles(directory)[0] ?? '', 3)
    assert.equal(await held.verify(fd), false)
    assert.equal(held.backing(), undefined)
    held.release()
    await cache.close()
  }),
)

test(
  'a large file is handed out whole after it was checked in the background',
  withCache(async ({ directory, open }) => {
    const key = keyOf('large', 40 * BLOCK_BYTES + 5)
    let cache = await open()
    await keepAll(cache, key)
    const held = cache.hold(key)
    assert.ok(held.backing() !== undefined, 'what was written here needs no check')
    held.release()
    await cache.close()
    cache = await open()
    const whole = async (): Promise<boolean> => {
      const version = cache.hold(key)
      const fd = version.backing()
      if (fd !== undefined) assert.equal(statSync(`/proc/self/fd/${fd}`).size, key.size)
      version.release()
      return Promise.resolve(fd !== undefined)
    }
    assert.equal(await whole(), false)
    await until(whole)
    await cache.close()
    flip(dataFiles(directory)[0] ?? '', 39 * BLOCK_BYTES)
    cache = await open()
    assert.equal(await whole(), false)
    await until(() => cache.status.corruptBlocks === 1)
    assert.equal(await whole(), false)
  }),
)

test(
  '[S62] the bound holds whatever is kept, and [S63] what was not used for longest goes first, never what is open',
  withCache(async ({ directory, open }) => {
    const bytesMax = 20 * BLOCK_BYTES
    let cache = await open({ bytesMax })
    const open0 = cache.hold(keyOf('open', 2 * BLOCK_BYTES))
    await open0.keep(0, bytesOf(open0.key))
    for (let count = 0; count < 50; count++) {
      await keepAll(cache, keyOf(`f${count}`, 2 * BLOCK_BYTES - 100))
      assert.ok(allocatedIn(directory) <= bytesMax)
      assert.equal(cache.status.bytes, allocatedIn(directory))
      assert.ok(await isCached(cache, keyOf('f0', 2 * BLOCK_BYTES - 100)), `f0 is used all the time, ${count}`)
    }
    assert.ok(await isCached(cache, keyOf('f49', 2 * BLOCK_BYTES - 100)))
    assert.ok(await isCached(cache, keyOf('f48', 2 * BLOCK_BYTES - 100)))
    assert.equal(await isCached(cache, keyOf('f1', 2 * BLOCK_BYTES - 100)), false)
    assert.ok((await open0.read(0, open0.key.size))?.equals(bytesOf(open0.key)))
    assert.ok(cache.status.evictedBytes > 30 * 2 * BLOCK_BYTES)
    open0.release()
    await cache.close()
    cache = await open({ bytesMax })
    assert.equal(cache.status.bytes, allocatedIn(directory), 'the order and the total outlive a restart')
    await keepAll(cache, keyOf('new', 2 * BLOCK_BYTES))
    assert.ok(await isCached(cache, keyOf('f0', 2 * BLOCK_BYTES - 100)))
    // Larger than all that is allowed, and all that is allowed held by one.
    const large = cache.hold(keyOf('large', 30 * BLOCK_BYTES))
    await large.keep(0, bytesOf(large.key))
    for (let block = 0; block < 30; block++) {
      const from = block * BLOCK_BYTES
      await large.keep(from, bytesOf(large.key).subarray(from, from + BLOCK_BYTES))
      assert.ok(allocatedIn(directory) <= bytesMax)
    }
    assert.ok((await large.read(0, 15 * BLOCK_BYTES)) !== undefined)
    assert.equal(large.isWhole, false)
    large.release()
  }),
)

test(
  '[S62] a bound that is lower than at the last start holds soon after the start',
  withCache(async ({ directory, open }) => {
    let cache = await open({ bytesMax: 40 * BLOCK_BYTES })
    for (let count = 0; count < 15; count++) await keepAll(cache, keyOf(`f${count}`, 2 * BLOCK_BYTES))
    await cache.close()
    assert.ok(allocatedIn(directory) > 20 * BLOCK_BYTES)
    cache = await open({ bytesMax: 20 * BLOCK_BYTES })
    await until(() => cache.status.bytes <= 20 * BLOCK_BYTES && cache.status.bytes === allocatedIn(directory))
  }),
)

test(
  '[S63] versions that were replaced go before all others',
  withCache(async ({ open }) => {
    const cache = await open({ bytesMax: 10 * BLOCK_BYTES + 100_000 })
    const size = 2 * BLOCK_BYTES
    for (const name of ['a', 'b', 'c']) await keepAll(cache, keyOf(name, size))
    await keepAll(cache, keyOf('c', size, 'v2'))
    for (const name of ['d', 'e']) await keepAll(cache, keyOf(name, size))
    assert.equal(await isCached(cache, keyOf('c', size)), false)
    for (const name of ['a', 'b']) assert.ok(await isCached(cache, keyOf(name, size)), name)
    assert.ok(await isCached(cache, keyOf('c', size, 'v2')))
  }),
)

test(
  '[S62] so much is left free on the disk',
  withCache(async ({ open }) => {
    const cache = await open({ bytesFreeMin: 2 ** 50 })
    await keepAll(cache, keyOf('a', 1000))
    assert.equal(await isCached(cache, keyOf('a', 1000)), false)
    assert.equal(cache.status.bytes, 0)
  }),
)

test(
  '[S66] another version, size, path or store is never served',
  withCache(async ({ open }) => {
    let cache = await open()
    await keepAll(cache, keyOf('a', 1000))
    for (const key of [keyOf('a', 1000, 'v2'), keyOf('a', 999), keyOf('b', 1000)]) {
      assert.equal(await isCached(cache, key), false)
    }
    await cache.close()
    cache = await open({ storeUrl: 's3://b' })
    assert.equal(await isCached(cache, keyOf('a', 1000)), false)
    await cache.close()
    cache = await open()
    assert.ok(await isCached(cache, keyOf('a', 1000)))
  }),
)

test(
  '[S65] a directory is one process alone',
  withCache(async ({ directory, open }) => {
    const cache = await open()
    await assert.rejects(open(), {
      code: 'LOCAL_FAILED',
      message: new RegExp(`another process uses it \\(${process.pid}\\)$`),
      hint: /--cache/,
    })
    await cache.close()
    await (await open()).close()
    writeFileSync(join(directory, 'file'), '')
    const message = /: '.*file' is not a directory$/
    await assert.rejects(open({ directory: join(directory, 'file') }), { code: 'LOCAL_FAILED', message })
  }),
)

test(
  '[S68] a damaged index is begun anew, and what it alone knew is removed',
  withCache(async ({ directory, open }) => {
    const index = join(directory, 'index')
    const key = keyOf('a', 3 * BLOCK_BYTES)
    const harms = [
      () => writeFileSync(index, Buffer.alloc(20_000, 7)),
      () => writeFileSync(index, 'short'),
      () => truncateSync(index, 8192),
      () => rmSync(index),
    ]
    for (const [number, harm] of harms.entries()) {
      let cache = await open()
      await keepAll(cache, key)
      for (let count = 0; count < 100; count++) await keepAll(cache, keyOf(`small ${count}`, 10))
      await cache.close()
      harm()
      cache = await open()
      await until(async () => {
        await keepAll(cache, key)
        return isCached(cache, key)
      })
      await until(() => cache.status.bytes === allocatedIn(directory) || cache.status.files === 0)
      assert.equal(await isCached(cache, keyOf('small 1', 10)), false, `harm ${number}`)
      await cache.close()
      rmSync(directory, { recursive: true })
    }
    assert.equal(existsSync(directory), false)
    await open()
  }),
)

test(
  'what is given away keeps a name where it is asked to, and comes back by that without a copy',
  withCache(async ({ directory, open }) => {
    const cache = await open()
    const key = keyOf('a', BLOCK_BYTES)
    const fd = stagedFile(directory, key)
    assert.equal(await cache.adopt(key, fd), true)
    closeSync(fd)
    const held = cache.hold(key)
    const name = join(directory, 'given away')
    const taken = held.take(name)
    held.release()
    assert.ok(taken !== undefined)
    assert.equal(dataFiles(directory).length, 0)
    assert.equal(statSync(name).ino, fstatSync(taken).ino)
    assert.equal(await cache.adopt(keyOf('a', key.size, 'v2'), taken), true)
    assert.deepEqual(
      dataFiles(directory).map((path) => statSync(path).ino),
      [fstatSync(taken).ino],
    )
    closeSync(taken)
    rmSync(name)
    await cache.close()
  }),
)

test(
  'a staged file is adopted without a copy, and given away to be written to',
  withCache(async ({ directory, open }) => {
    let cache = await open()
    const key = keyOf('a', 9 * BLOCK_BYTES + 3)
    const fd = stagedFile(directory, key)
    const held = cache.hold(key)
    await held.keep(0, bytesOf(key).subarray(0, BLOCK_BYTES))
    assert.equal(await cache.adopt(key, fd), true)
    const [path = ''] = dataFiles(directory)
    assert.equal(dataFiles(directory).length, 1)
    assert.equal(statSync(path).ino, statSync(`/proc/self/fd/${fd}`).ino, 'it is that very file')
    closeSync(fd)
    assert.ok(held.isWhole)
    assert.ok((await held.read(0, key.size))?.equals(bytesOf(key)))
    assert.equal(cache.status.bytes, allocatedIn(directory))
    assert.ok(held.backing() !== undefined)
    const other = cache.hold(key)
    const taken = held.take()
    assert.ok(taken !== undefined)
    assert.equal(dataFiles(directory).length, 0)
    assert.equal(cache.status.bytes, 0)
    for (const version of [held, other]) {
      assert.equal(version.isWhole, false)
      assert.equal(version.backing(), undefined)
      assert.equal(version.read(0, 10), undefined)
      version.release()
    }
    writeSync(taken, 'changed', 0)
    // It is published as another version, and comes back.
    const changed = keyOf('a', key.size, 'v2')
    assert.equal(await cache.adopt(changed, taken), true)
    closeSync(taken)
    const back = cache.hold(changed)
    assert.equal((await back.read(0, 9))?.toString('latin1', 0, 7), 'changed')
    assert.ok(back.backing() !== undefined)
    back.release()
    await cache.close()
    cache = await open()
    assert.equal(await isCached(cache, key), false)
    // Wrong lengths are not taken, whatever the caller thinks.
    const wrong = stagedFile(directory, key)
    ftruncateSync(wrong, key.size - 1)
    assert.equal(await cache.adopt(key, wrong), false)
    closeSync(wrong)
    // Another file system.
    const far = openSync('/dev/shm', constants.O_RDWR | O_TMPFILE, 0o600)
    writeSync(far, bytesOf(key))
    assert.equal(await cache.adopt(key, far), true)
    closeSync(far)
    assert.ok(await isCached(cache, key))
    assert.equal(cache.status.bytes, allocatedIn(directory))
  }),
)

test(
  'what is cached of a file goes along when it moves',
  withCache(async ({ directory, open }) => {
    let cache = await open()
    const from = keyOf('old', 3 * BLOCK_BYTES)
    const to = keyOf('new', 3 * BLOCK_BYTES, 'v9')
    const bytes = bytesOf(from)
    await keepAll(cache, from)
    const held = cache.hold(from)
    cache.moved(from, to)
    assert.ok((await held.read(0, 10)) !== undefined, 'also for those who hold it')
    assert.equal(await isCached(cache, from), false)
    held.release()
    for (let round = 0; round < 2; round++) {
      const moved = cache.hold(to)
      assert.ok((await moved.read(0, from.size))?.equals(bytes))
      moved.release()
      assert.equal(await isCached(cache, from), false)
      await cache.close()
      cache = await open()
    }
    assert.equal(dataFiles(directory).length, 1)
    assert.equal(cache.status.bytes, allocatedIn(directory))
  }),
)

test(
  '[S60] many that are kept faster than the index is written are all there after a restart',
  withCache(async ({ open }) => {
    let cache = await open()
    const keys = Array.from({ length: 2500 }, (_, count) => keyOf(`many/${count}`, 20))
    await Promise.all(keys.map((key) => keepAll(cache, key)))
    await cache.close()
    cache = await open()
    assert.equal(cache.status.files, keys.length)
    for (const key of keys) assert.ok(await isCached(cache, key))
  }),
)

const PATHS = ['a', 'b', 'c', 'd']
const SIZES = [1, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES - 5, 6 * BLOCK_BYTES]
type Step =
  | { readonly do: 'keep' | 'read'; readonly file: number; readonly from: number; readonly length: number }
  | { readonly do: 'adopt' | 'take' | 'hold' | 'release' | 'flip'; readonly file: number }
  | { readonly do: 'restart' }
const fileNumber = fc.nat(PATHS.length * SIZES.length - 1)
const range = { from: fc.nat(6 * BLOCK_BYTES), length: fc.nat(4 * BLOCK_BYTES) }
const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.oneof(
    { weight: 6, arbitrary: fc.record({ do: fc.constant('keep' as const), file: fileNumber, ...range }) },
    { weight: 6, arbitrary: fc.record({ do: fc.constant('read' as const), file: fileNumber, ...range }) },
    {
      weight: 5,
      arbitrary: fc.record({
        do: fc.constantFrom('adopt' as const, 'take' as const, 'hold' as const, 'release' as const, 'flip' as const),
        file: fileNumber,
      }),
    },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('restart' as const) }) },
  ),
  { minLength: 10, maxLength: 60 },
)
const keyOfNumber = (file: number): CacheKey =>
  keyOf(PATHS[file % PATHS.length] ?? '', SIZES[Math.floor(file / PATHS.length)] ?? 0)

/** Carries out the steps; `expected` gets the blocks that must be there while nothing is evicted. */
async function play(place: Place, list: readonly Step[], bytesMax: number): Promise<void> {
  let cache = await place.open({ bytesMax })
  const exact = bytesMax > 1 << 28
  const holds = new Map<number, CachedVersion>()
  const blocks = new Map<number, Set<number>>()
  const flipped = new Set<number>()
  const held = (file: number): CachedVersion => {
    let version = holds.get(file)
    if (version === undefined) holds.set(file, (version = cache.hold(keyOfNumber(file))))
    return version
  }
  const release = (file: number): void => {
    holds.get(file)?.release()
    holds.delete(file)
  }
  for (const step of list) {
    if (step.do === 'restart') {
      for (const file of holds.keys()) release(file)
      await cache.close()
      cache = await place.open({ bytesMax })
      continue
    }
    const { file } = step
    const key = keyOfNumber(file)
    const has = blocks.get(file) ?? blocks.set(file, new Set()).get(file) ?? new Set()
    if (step.do === 'hold') held(file)
    else if (step.do === 'release') release(file)
    else if (step.do === 'keep') {
      const from = Math.min(step.from, key.size)
      const end = Math.min(from + step.length, key.size)
      await held(file).keep(from, bytesOf(key).subarray(from, end))
      for (let block = Math.ceil(from / BLOCK_BYTES); block * BLOCK_BYTES < end; block++) {
        if (Math.min((block + 1) * BLOCK_BYTES, key.size) <= end) has.add(block)
      }
    } else if (step.do === 'read') {
      const end = Math.min(step.from + step.length, key.size)
      const bytes = await held(file).read(step.from, step.length)
      if (bytes !== undefined) assert.ok(bytes.equals(bytesOf(key).subarray(step.from, Math.max(step.from, end))))
      let all = true
      for (let block = Math.floor(step.from / BLOCK_BYTES); block * BLOCK_BYTES < end; block++) all &&= has.has(block)
      if (exact && !flipped.has(file)) assert.equal(bytes !== undefined, all || end <= step.from, 'no more and no less')
    } else if (step.do === 'adopt') {
      const fd = stagedFile(place.directory, key)
      const isTaken = await cache.adopt(key, fd)
      closeSync(fd)
      if (exact) assert.ok(isTaken)
      for (let block = 0; block * BLOCK_BYTES < key.size; block++) has.add(block)
    } else if (step.do === 'take') {
      const fd = held(file).take()
      if (fd === undefined) continue
      const bytes = Buffer.alloc(key.size)
      assert.equal(readSync(fd, bytes, 0, key.size, 0), key.size)
      assert.ok(bytes.equals(bytesOf(key)), 'what is given away is right')
      writeSync(fd, 'written by its owner', 0)
      closeSync(fd)
      has.clear()
    } else {
      // Changed while nobody has it open, with a time that tells.
      for (const other of holds.keys()) release(other)
      const paths = dataFiles(place.directory)
      const path = paths[file % Math.max(1, paths.length)]
      if (path === undefined) continue
      flip(path, Math.floor(statSync(path).size / 2))
      for (let other = 0; other < PATHS.length * SIZES.length; other++) flipped.add(other)
    }
    assert.ok(allocatedIn(place.directory) <= bytesMax, 'the bound holds')
  }
  for (const file of holds.keys()) release(file)
  // A byte that was changed in a hole has filled it.
  if (flipped.size === 0) assert.equal(cache.status.bytes, allocatedIn(place.directory))
  await cache.close()
}

for (const [name, bytesMax] of [
  ['[S60] with room for all, just what was kept is given', 1 << 30],
  ['[S61] [S62] with room for little, what is given is right and the bound holds', 9 * BLOCK_BYTES],
] as const) {
  test(name, async () => {
    await fc.assert(
      fc.asyncProperty(steps, (list) => withCache((place) => play(place, list, bytesMax))()),
      { seed: 7, numRuns: 15 },
    )
  })
}
