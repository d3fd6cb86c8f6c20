/**
 * Disks in real directories of this machine.
 */
import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'

import { blockPath } from './block-id.ts'
import { blockFileBytes } from './block-trailer.ts'
import { Clock, codeOf, factsOf, idAt, madeUp, NOW_MS, openDisk, put } from './disk-fixture.ts'
import { type Disk, ERASE_AGE_MS_MIN } from './disk.ts'
import { LinuxBlockFiles } from './linux-block-files.ts'
import { erasePermit } from './permit.ts'

class Place implements AsyncDisposable {
  readonly directory = mkdtempSync(join(tmpdir(), 'eider-disk-'))
  readonly clock = new Clock()
  readonly #disks: Disk[] = []
  #isMounted = false

  async disk(reserveBytes = 0): Promise<Disk> {
    const disk = await openDisk(LinuxBlockFiles.open(this.directory), this.clock, { reserveBytes })
    this.#disks.push(disk)
    return disk
  }

  /** Lays a small file system of its own over the directory. */
  mount(...options: readonly string[]): void {
    const { status, stderr } = spawnSync('mount', [...options, this.directory], { encoding: 'utf8' })
    assert.equal(status, 0, stderr)
    this.#isMounted = true
  }

  path(name: string): string {
    return join(this.directory, name)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const disk of this.#disks) await disk.close()
    if (this.#isMounted) assert.equal(spawnSync('umount', [this.directory]).status, 0)
    rmSync(this.directory, { recursive: true })
  }
}

const id = idAt()
const notRoot = process.getuid?.() === 0 ? false : 'only root makes a small disk'

test('blocks of all sizes are written to real files, and read back, also by another start', async () => {
  await using place = new Place()
  const disk = await place.disk()
  const sizes = [1, 511, 4095, 4096, 4097, 70_000, (1 << 20) - 8, 1 << 20, (1 << 20) + 1, 5_000_003]
  for (const [n, size] of sizes.entries()) await put(disk, idAt(NOW_MS, n), madeUp(size, n))
  await disk.close()
  const again = await place.disk()
  assert.deepEqual(again.identity, disk.identity)
  for (const [n, size] of sizes.entries()) {
    const bytes = madeUp(size, n)
    const of = idAt(NOW_MS, n)
    assert.deepEqual(await again.check(of), { outcome: 'whole', facts: factsOf(of, bytes) })
    for (let at = 0; at < size; at += 2_000_001) {
      const read = await again.fetch(of, at, Math.min(2_000_001, size - at))
      assert.ok(read.outcome === 'whole' && bytes.subarray(at, at + 2_000_001).equals(read.bytes), `${size} bytes`)
    }
    const file = readFileSync(place.path(blockPath(of)))
    assert.equal(file.length, blockFileBytes(size))
    assert.ok(file.subarray(0, size).equals(bytes), 'the bytes lie at the start of the file')
  }
  const usage = await again.usage()
  assert.equal(
    usage.usedBytes,
    sizes.reduce((sum, size) => sum + blockFileBytes(size), 0),
  )
  assert.deepEqual(readdirSync(place.path('tmp')), [])
})

test('files of a disk are for its owner alone', async () => {
  await using place = new Place()
  const disk = await place.disk()
  await put(disk, id, madeUp(100))
  for (const name of ['disk', blockPath(id)]) assert.equal(statSync(place.path(name)).mode & 0o777, 0o600)
  for (const name of ['tmp', '00', 'ff']) assert.equal(statSync(place.path(name)).mode & 0o777, 0o700)
  assert.equal(readdirSync(place.directory).length, 258)
})

test('a disk is used by one process at a time, once', async () => {
  await using place = new Place()
  const disk = await place.disk()
  assert.throws(() => LinuxBlockFiles.open(place.directory), { code: 'DISK_UNUSABLE', message: /uses it/ })
  const program = `
    import { LinuxBlockFiles } from ${JSON.stringify(new URL('linux-block-files.ts', import.meta.url).href)}
    try { LinuxBlockFiles.open(process.argv[1]) } catch (error) { console.log(error.code, error.message) }`
  const other = spawnSync(process.execPath, ['--input-type=module-typescript', '-e', program, place.directory], {
    encoding: 'utf8',
    cwd: new URL('.', import.meta.url).pathname,
  })
  assert.match(other.stdout, new RegExp(`^DISK_UNUSABLE .*process ${process.pid} uses it`), other.stderr)
  await disk.close()
  const again = await place.disk()
  assert.equal(again.status, 'serving')
  assert.throws(() => LinuxBlockFiles.open(place.path('none')), { code: 'DISK_UNUSABLE' })
})

test('an erased block is gone from the directory, and its room is told free', async () => {
  await using place = new Place()
  const disk = await place.disk()
  await put(disk, id, madeUp(100_000))
  await disk.fetch(id, 0, 10)
  place.clock.forwardMs(ERASE_AGE_MS_MIN)
  await disk.erase(id, erasePermit(disk.identity, id))
  assert.equal(existsSync(place.path(blockPath(id))), false)
  assert.equal(await codeOf(disk.fetch(id, 0, 10)), 'BLOCK_NOT_FOUND')
  assert.equal((await disk.usage()).usedBytes, 0)
})

test('what happens to real files is told: flipped, cut, removed', async () => {
  await using place = new Place()
  const disk = await place.disk()
  const [flipped, cut, removed] = [idAt(NOW_MS, 1), idAt(NOW_MS, 2), idAt(NOW_MS, 3)]
  for (const each of [flipped, cut, removed]) await put(disk, each, madeUp(20_000))
  const bytes = readFileSync(place.path(blockPath(flipped)))
  bytes[9000] = ~(bytes[9000] ?? 0)
  writeFileSync(place.path(blockPath(flipped)), bytes)
  truncateSync(place.path(blockPath(cut)), 10_000)
  rmSync(place.path(blockPath(removed)))
  assert.deepEqual(await disk.fetch(flipped, 0, 20_000), { outcome: 'bad-pages', pages: [2] })
  assert.deepEqual(await disk.check(flipped), { outcome: 'bad-pages', pages: [2] })
  assert.equal((await disk.fetch(flipped, 12_288, 7000)).outcome, 'whole')
  assert.equal(await codeOf(disk.fetch(cut, 0, 1)), 'BLOCK_CUT')
  assert.equal(await codeOf(disk.check(cut)), 'BLOCK_CUT')
  assert.equal(await codeOf(disk.fetch(removed, 0, 1)), 'BLOCK_NOT_FOUND')
  assert.equal(await codeOf(disk.check(removed)), 'BLOCK_NOT_FOUND')
  assert.equal(disk.status, 'serving')
})

test('many writes, reads and erasures at once', async () => {
  await using place = new Place()
  const disk = await place.disk()
  const count = 100
  await Promise.all(Array.from({ length: count }, (_, n) => put(disk, idAt(NOW_MS, n), madeUp(1 + n * 997, n))))
  await Promise.all(
    Array.from({ length: count }, async (_, n) => {
      const size = 1 + n * 997
      const read = await disk.fetch(idAt(NOW_MS, n), size >> 1, size - (size >> 1))
      assert.ok(
        read.outcome === 'whole' &&
          madeUp(size, n)
            .subarray(size >> 1)
            .equals(read.bytes),
      )
    }),
  )
  place.clock.forwardMs(2 * ERASE_AGE_MS_MIN)
  await Promise.all(
    Array.from({ length: count }, (_, n) => disk.erase(idAt(NOW_MS, n), erasePermit(disk.identity, idAt(NOW_MS, n)))),
  )
  const { blocks, usedBytes } = await disk.usage()
  assert.deepEqual([blocks, usedBytes], [0, 0])
})

test('what a process acknowledged before it was killed is there, and its lock is free', async () => {
  await using place = new Place()
  const here = (name: string): string => JSON.stringify(new URL(name, import.meta.url).href)
  const program = `
    import { LinuxBlockFiles } from ${here('linux-block-files.ts')}
    import { Clock, idAt, madeUp, openDisk, put } from ${here('disk-fixture.ts')}
    import { writeSync } from 'node:fs'
    const disk = await openDisk(LinuxBlockFiles.open(process.argv[1]), new Clock())
    let next = 0
    const work = async () => {
      for (;;) {
        const n = next++
        await put(disk, idAt(undefined, n), madeUp(1 + n * 1511, n))
        writeSync(1, n + '\\n')
      }
    }
    for (let worker = 0; worker < 8; worker++) void work()`
  const child = spawn(process.execPath, ['--input-type=module-typescript', '-e', program, place.directory], {
    cwd: new URL('.', import.meta.url).pathname,
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  let told = ''
  child.stdout.on('data', (piece: Buffer) => {
    told += piece.toString()
    if (told.split('\n').length > 40) child.kill('SIGKILL')
  })
  await once(child, 'close')
  assert.equal(child.signalCode, 'SIGKILL')
  const acknowledged = told.split('\n').slice(0, -1).map(Number)
  const disk = await place.disk()
  assert.deepEqual(readdirSync(place.path('tmp')), [])
  for (const n of acknowledged) {
    const bytes = madeUp(1 + n * 1511, n)
    const of = idAt(NOW_MS, n)
    assert.deepEqual(await disk.check(of), { outcome: 'whole', facts: factsOf(of, bytes) })
  }
  const { blocks } = await disk.usage()
  assert.ok(blocks >= acknowledged.length && blocks <= acknowledged.length + 8, 'and at most what was under way')
})

for (const [name, prepare] of [
  ['tmpfs', (place: Place) => place.mount('-t', 'tmpfs', '-o', 'size=4m', 'eider-test')],
  [
    'ext4',
    (place: Place) => {
      const image = `${place.directory}.image`
      writeFileSync(image, '')
      truncateSync(image, 16 << 20)
      const made = spawnSync('mkfs.ext4', ['-q', '-F', '-m', '0', image], { encoding: 'utf8' })
      assert.equal(made.status, 0, made.stderr)
      place.mount('-o', 'loop', image)
      // The loop device keeps the file for as long as it is mounted.
      rmSync(image)
    },
  ],
] as const) {
  test(
    `a full disk (${name}) refuses writes without a trace, and serves reads and erasures`,
    { skip: notRoot },
    async () => {
      await using place = new Place()
      prepare(place)
      const disk = await place.disk()
      const size = 700_000
      let stored = 0
      // So that the file system says it, not the disk's own account of its room.
      const { freeBytes } = await disk.usage()
      const filler = Buffer.alloc(freeBytes - 2_000_000)
      writeFileSync(place.path('filler'), filler)
      let code: string | undefined
      while ((code = await codeOf(put(disk, idAt(NOW_MS, stored), madeUp(size, stored)))) === undefined) stored++
      assert.equal(code, 'DISK_FULL')
      assert.ok(stored >= 1 && stored <= 2)
      assert.deepEqual(readdirSync(place.path('tmp')), [])
      assert.equal(disk.status, 'serving')
      assert.ok((await disk.usage()).freeBytes < blockFileBytes(size))
      for (let n = 0; n < stored; n++) assert.equal((await disk.check(idAt(NOW_MS, n))).outcome, 'whole')
      place.clock.forwardMs(ERASE_AGE_MS_MIN + 1000)
      await disk.erase(id, erasePermit(disk.identity, id))
      await put(disk, idAt(place.clock.nowMs), madeUp(size))
      // Filled behind the disk's back, between its look at the room and its write.
      place.clock.forwardMs(2000)
      const { freeBytes: left } = await disk.usage()
      rmSync(place.path('filler'))
      place.clock.forwardMs(2000)
      assert.ok((await disk.usage()).freeBytes > left)
      writeFileSync(place.path('filler'), filler)
      assert.equal(await codeOf(put(disk, idAt(place.clock.nowMs), madeUp(size))), 'DISK_FULL')
      assert.deepEqual(readdirSync(place.path('tmp')), [])
      assert.equal(disk.status, 'serving')
      rmSync(place.path('filler'))
      place.clock.forwardMs(2000)
      await put(disk, idAt(place.clock.nowMs), madeUp(size))
    },
  )
}

test('a file system without uncached reads serves as well', { skip: notRoot }, async () => {
  await using place = new Place()
  place.mount('-t', 'ramfs', 'eider-test')
  const disk = await openDisk(LinuxBlockFiles.open(place.directory), place.clock, { reserveBytes: -(1 << 30) })
  const bytes = madeUp(3_000_000)
  await put(disk, id, bytes)
  assert.deepEqual(await disk.check(id), { outcome: 'whole', facts: factsOf(id, bytes) })
  await disk.close()
})

test('a disk whose file system goes read-only withdraws itself', { skip: notRoot }, async () => {
  await using place = new Place()
  place.mount('-t', 'tmpfs', '-o', 'size=4m', 'eider-test')
  const disk = await place.disk()
  await put(disk, id, madeUp(1000))
  assert.equal(spawnSync('mount', ['-o', 'remount,ro', place.directory]).status, 0)
  assert.equal(await codeOf(put(disk, idAt(NOW_MS, 1), madeUp(1000))), 'DISK_FAILED')
  assert.equal(disk.status, 'failed')
  assert.equal(await codeOf(disk.fetch(id, 0, 1)), 'DISK_FAILED')
})

test('another file system that is mounted over a disk is not taken for it', { skip: notRoot }, async () => {
  await using place = new Place()
  const disk = await place.disk()
  await put(disk, id, madeUp(1000))
  place.mount('-t', 'tmpfs', '-o', 'size=1m', 'eider-test')
  assert.equal((await disk.check(id)).outcome, 'whole')
  await put(disk, idAt(NOW_MS, 1), madeUp(1000))
  assert.deepEqual(readdirSync(place.directory), [])
})

test('what is no file is none, and keeps nobody waiting', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'eider-block-files-'))
  try {
    const files = LinuxBlockFiles.open(directory)
    assert.equal(spawnSync('mkfifo', [join(directory, 'pipe')]).status, 0)
    await files.makeDirectory('directory')
    for (const name of ['pipe', 'directory']) assert.equal(await files.open(name, 'cached'), undefined)
    await files.close()
  } finally {
    rmSync(directory, { recursive: true })
  }
})
