/** The disk cache under processes that are killed at any moment, and on a disk that is full. */
import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, readdirSync, rmSync, statfsSync, statSync, writeFileSync, truncateSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { test } from 'node:test'
import { setImmediate } from 'node:timers/promises'

import { setLogLevel } from '#base/log.ts'
import { countsBy } from '#base/metrics.ts'
import { BLOCK_BYTES } from '#cache/blocks.ts'
import type { CacheKey, FileCache } from '#cache/file-cache.ts'
import { openFileCache } from '#cache/open-file-cache.ts'
import type { Version } from '#store/store.ts'

setLogLevel('silent')

const BYTES_MAX = 12 << 20
const FILES = 40
const sizeOf = (file: number): number => 1000 + file * 37_123
const keyOf = (file: number): CacheKey => ({ path: `f${file}`, version: 'v' as Version, size: sizeOf(file) })
/** A byte of a file tells its block and its file. */
const byteOf = (file: number, block: number): number => (file * 31 + block * 7 + 1) & 0xff

function bytesOf(file: number): Buffer {
  const bytes = Buffer.alloc(sizeOf(file))
  for (let block = 0; block * BLOCK_BYTES < bytes.length; block++) bytes.fill(byteOf(file, block), block * BLOCK_BYTES)
  return bytes
}

/** Keeps, takes and moves at random until it is killed; tells by a line that it is under way. */
const CHILD = `
import { openSync, closeSync, writeSync, constants } from 'node:fs'
import { openFileCache } from './src/cache/open-file-cache.ts'
const cache = await openFileCache({ directory: process.argv[1], storeUrl: 's3://a', bytesMax: ${BYTES_MAX}, bytesFreeMin: 0 })
const sizeOf = ${sizeOf.toString()}
const byteOf = ${byteOf.toString()}
const BLOCK_BYTES = ${BLOCK_BYTES}
const keyOf = (file) => ({ path: 'f' + file, version: 'v', size: sizeOf(file) })
const bytesOf = ${bytesOf.toString().replace(/: (?:number|Buffer)/g, '')}
let round = 0
const lane = async () => {
  for (;;) {
    const file = Math.floor(Math.random() * ${FILES})
    const key = keyOf(file)
    const held = cache.hold(key)
    await held.keep(0, bytesOf(file))
    const dice = Math.random()
    if (dice < 0.2) {
      const fd = held.take()
      if (fd !== undefined) {
        writeSync(fd, 'its owner writes', 0)
        closeSync(fd)
      }
    } else if (dice < 0.4) {
      const fd = openSync(process.argv[1], constants.O_RDWR | 0o20000000 | constants.O_DIRECTORY, 0o600)
      writeSync(fd, bytesOf(file), 0, key.size, 0)
      await cache.adopt(key, fd)
      closeSync(fd)
    }
    held.release()
    if (++round === 20) console.log('under way')
  }
}
await Promise.all([lane(), lane(), lane()])
`

async function isCached(cache: FileCache, file: number): Promise<boolean> {
  const held = cache.hold(keyOf(file))
  const bytes = await held.read(0, sizeOf(file))
  held.release()
  if (bytes !== undefined) assert.ok(bytes.equals(bytesOf(file)), `the bytes of file ${file} are right`)
  return bytes !== undefined
}

function allocatedIn(directory: string): number {
  const data = join(directory, 'data')
  return readdirSync(data)
    .flatMap((fan) => readdirSync(join(data, fan)).map((name) => join(data, fan, name)))
    .reduce((sum, path) => sum + (statSync(path, { throwIfNoEntry: false })?.blocks ?? 0) * 512, 0)
}

test('[S67] a process that is killed at any moment leaves a cache that opens and gives right bytes', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'eider-cache-kill-'))
  let found = 0
  try {
    for (let round = 0; round < 20; round++) {
      const child = spawn(process.execPath, ['--input-type=module', '--eval', CHILD, directory], {
        stdio: ['ignore', 'pipe', 'inherit'],
      })
      const ended = once(child, 'exit')
      const lines = createInterface(child.stdout)[Symbol.asyncIterator]()
      assert.equal((await lines.next()).value, 'under way')
      for (let turn = 0; turn < round * 300; turn++) await setImmediate()
      child.kill('SIGKILL')
      await ended
      const cache = await openFileCache({ directory, storeUrl: 's3://a', bytesMax: BYTES_MAX, bytesFreeMin: 0 })
      for (let file = 0; file < FILES; file++) if (await isCached(cache, file)) found++
      assert.equal(cache.status.corruptBlocks, 0, 'a killed process leaves nothing half')
      // What the index did not know is removed, and the rest is counted, before anything is taken in.
      for (let kept = false; !kept; await setImmediate()) {
        const held = cache.hold(keyOf(0))
        await held.keep(0, bytesOf(0))
        kept = held.read(0, 1) !== undefined
        held.release()
      }
      for (let turns = 0; cache.status.bytes !== allocatedIn(directory); turns++) {
        assert.ok(turns < 100_000, `${cache.status.bytes} counted, ${allocatedIn(directory)} there`)
        await setImmediate()
      }
      assert.ok(cache.status.bytes <= BYTES_MAX)
      await cache.close()
    }
    assert.ok(found > 100, `files outlive their process: ${found}`)
  } finally {
    rmSync(directory, { recursive: true })
  }
})

/** A small ext4 of its own, or the reason why there is none. */
function smallDisk(directory: string, bytes: number): string | undefined {
  const image = join(directory, 'image')
  const point = join(directory, 'disk')
  if (process.getuid?.() !== 0) return 'takes root'
  writeFileSync(image, '')
  truncateSync(image, bytes)
  mkdirSync(point)
  const made = spawnSync('mkfs.ext4', ['-q', '-O', '^has_journal', '-m', '0', image])
  if (made.status !== 0) return `mkfs.ext4: ${made.error?.message ?? made.stderr.toString()}`
  const mounted = spawnSync('mount', ['-o', 'loop', image, point])
  return mounted.status === 0 ? undefined : `mount: ${mounted.stderr.toString()}`
}

test('[S64] a full disk is no error: what finds no room is not cached', async (context) => {
  const directory = mkdtempSync(join(tmpdir(), 'eider-cache-full-'))
  const reason = smallDisk(directory, 24 << 20)
  const disk = join(directory, 'disk')
  try {
    if (reason !== undefined) {
      context.skip(reason)
      return
    }
    const free = (): number => {
      const { bavail, bsize } = statfsSync(disk)
      return bavail * bsize
    }
    const options = { directory: join(disk, 'cache'), storeUrl: 's3://a', bytesMax: 1 << 30 }
    // A part of the disk stays free.
    const bytesFreeMin = 8 << 20
    let cache = await openFileCache({ ...options, bytesFreeMin })
    const keep = async (file: number): Promise<void> => {
      const held = cache.hold(keyOf(file))
      await held.keep(0, bytesOf(file))
      held.release()
    }
    for (let file = 0; file < FILES; file++) {
      await keep(file)
      assert.ok(free() >= bytesFreeMin, `${free()} bytes are free after file ${file}`)
    }
    assert.ok(cache.status.evictedBytes > 0)
    assert.ok(await isCached(cache, FILES - 1))
    // Somebody else fills the disk, to the last byte: the cache gives up what it has, and takes nothing in.
    const filler = join(disk, 'filler')
    const filled = spawnSync('dd', ['if=/dev/zero', `of=${filler}`, 'bs=64k'])
    assert.match(filled.stderr.toString(), /No space/)
    for (let file = 0; file < FILES; file++) await keep(file)
    for (let file = 0; file < FILES; file++) await isCached(cache, file)
    const failures = await countsBy('eider_cache_keep_failures_total')
    assert.ok((failures.get('room') ?? 0) > 0, 'what was not kept is counted')
    await cache.close()
    // With nothing kept free, writes meet the end of the disk, those of the index included.
    cache = await openFileCache({ ...options, bytesFreeMin: 0 })
    spawnSync('dd', ['if=/dev/zero', `of=${filler}-2`, 'bs=4k'])
    const filling = (async (): Promise<void> => {
      for (let round = 0; round < 3; round++) for (let file = 0; file < FILES; file++) await keep(file)
    })()
    await filling
    for (let file = 0; file < FILES; file++) await isCached(cache, file)
    await cache.close()
    // There is room again.
    rmSync(filler)
    rmSync(`${filler}-2`, { force: true })
    cache = await openFileCache({ ...options, bytesFreeMin: 0 })
    for (let found = false; !found; await setImmediate()) {
      await keep(3)
      found = await isCached(cache, 3)
    }
    for (let file = 0; file < FILES; file++) await isCached(cache, file)
    await cache.close()
  } finally {
    if (reason === undefined) spawnSync('umount', [disk])
    rmSync(directory, { recursive: true })
  }
})
