import assert from 'node:assert/strict'
import { test } from 'node:test'

import { isOperationError } from '#base/errors.ts'

import { blockName, blockPath } from './block-id.ts'
import { BLOCK_BYTES_MAX, blockFileBytes } from './block-trailer.ts'
import { Clock, codeOf, factsOf, idAt, madeUp, NOW_MS, openDisk, put, stream } from './disk-fixture.ts'
import { Disk, ERASE_AGE_MS_MIN, WRITE_AGE_MS_MAX, WRITE_AHEAD_MS_MAX } from './disk.ts'
import { MemoryBlockFiles, type StepCall, systemError } from './memory-block-files.ts'
import { erasePermit, eraseReceipt, isSame, writePermit, writeReceipt } from './permit.ts'

const id = idAt()
const bytes = madeUp(10_000)

interface Scene {
  readonly files: MemoryBlockFiles
  readonly clock: Clock
  readonly disk: Disk
}

async function scene(options: Parameters<typeof openDisk>[2] = {}): Promise<Scene> {
  const files = new MemoryBlockFiles()
  const clock = new Clock()
  return { files, clock, disk: await openDisk(files, clock, options) }
}

async function contents(disk: Disk, of = id): Promise<Buffer> {
  const { facts } = (await disk.check(of)) as { facts: { size: number } }
  const read = await disk.fetch(of, 0, facts.size)
  assert.ok(read.outcome === 'whole')
  return Buffer.from(read.bytes)
}

/** What the steps are, from now on until they are asked for. */
function recorded(files: MemoryBlockFiles): () => StepCall[] {
  const calls: StepCall[] = []
  files.before = ({ call }) => {
    calls.push(call)
  }
  return () => {
    files.before = undefined
    return calls
  }
}

/** A promise and what resolves it. */
function gate(): { readonly opened: Promise<void>; readonly open: () => void } {
  let open = (): void => undefined
  const opened = new Promise<void>((resolve) => {
    open = resolve
  })
  return { opened, open }
}

test('a block is written, read by ranges, checked and erased, each with its receipt', async () => {
  const { disk, clock, files } = await scene()
  const facts = factsOf(id, bytes)
  const receipt = await put(disk, id, bytes)
  assert.ok(isSame(receipt, writeReceipt(disk.identity, facts)))
  assert.ok(bytes.equals(await contents(disk)))
  const read = await disk.fetch(id, 4000, 200)
  assert.ok(read.outcome === 'whole' && bytes.subarray(4000, 4200).equals(read.bytes))
  assert.deepEqual(await disk.check(id), { outcome: 'whole', facts })
  clock.forwardMs(ERASE_AGE_MS_MIN)
  const erased = await disk.erase(id, erasePermit(disk.identity, id))
  assert.ok(isSame(erased, eraseReceipt(disk.identity, id)))
  assert.equal(await codeOf(disk.fetch(id, 0, 1)), 'BLOCK_NOT_FOUND')
  assert.equal(await codeOf(disk.check(id)), 'BLOCK_NOT_FOUND')
  assert.ok(isSame(await disk.erase(id, erasePermit(disk.identity, id)), erased), 'missing is success')
  await disk.close()
  assert.equal(files.openCount, 0)
})

test('a write syncs its file once and its directory once, and its steps come in the order that a crash needs', async () => {
  const { disk, files } = await scene()
  const calls = recorded(files)
  await put(disk, id, bytes)
  const made = calls()
  assert.deepEqual(
    made.filter((call) => call !== 'room'),
    ['create', 'append', 'append', 'sync', 'readBack', 'close', 'rename', 'syncDirectory'],
  )
})

test('the second range of a block costs one read, and none is left open by an erasure', async () => {
  const { disk, files, clock } = await scene()
  await put(disk, id, bytes)
  const first = recorded(files)
  await disk.fetch(id, 0, 4096)
  assert.deepEqual(first(), ['open', 'read', 'read'])
  const second = recorded(files)
  await disk.fetch(id, 4096, 4096)
  assert.deepEqual(second(), ['read'])
  assert.equal(files.openCount, 1)
  clock.forwardMs(ERASE_AGE_MS_MIN)
  await disk.erase(id, erasePermit(disk.identity, id))
  assert.equal(files.openCount, 0)
})

test('writes of one moment share the syncs of their directory', async () => {
  const { disk, files } = await scene({ limits: { writes: 16 } })
  const hold = gate()
  let held = 0
  files.before = ({ call }) => {
    if (call !== 'syncDirectory') return undefined
    held++
    return hold.opened
  }
  const writes = Array.from({ length: 16 }, (_, n) => put(disk, idAt(NOW_MS, n), bytes))
  while ((files.counts.get('rename') ?? 0) < 17) await new Promise(setImmediate)
  await new Promise(setImmediate)
  hold.open()
  await Promise.all(writes)
  assert.equal(held, 2, 'one that had begun before the others came, and one for all of those')
  assert.equal(files.counts.get('sync'), 17, 'one of each block, and one of the identity')
})

test('who brings the same block again gets the same receipt; who brings another is refused, and the first one stays', async () => {
  const { disk, files } = await scene()
  const receipt = await put(disk, id, bytes)
  assert.deepEqual(await put(disk, id, bytes), receipt)
  assert.equal(await codeOf(put(disk, id, madeUp(10_000, 2))), 'BLOCK_CONFLICT')
  assert.equal(await codeOf(put(disk, id, bytes.subarray(1))), 'BLOCK_CONFLICT')
  assert.ok(bytes.equals(await contents(disk)))
  const both = await Promise.all([put(disk, idAt(NOW_MS, 1), bytes), put(disk, idAt(NOW_MS, 1), bytes)])
  assert.deepEqual(both[0], both[1])
  assert.deepEqual(
    files.paths().filter((path) => path.startsWith('tmp/')),
    [],
  )
  assert.equal((await disk.usage()).blocks, 2)
})

test('a block that was damaged since is not acknowledged again', async () => {
  const { disk, files } = await scene()
  await put(disk, id, bytes)
  const stored = files.bytesOf(blockPath(id))
  assert.ok(stored !== undefined)
  stored[5000] = ~(stored[5000] ?? 0)
  assert.equal(await codeOf(put(disk, id, bytes)), 'BLOCK_CORRUPT')
  assert.equal(disk.status, 'serving')
})

test('without the permit for just that nothing is written or erased', async () => {
  const { disk, files, clock } = await scene()
  const facts = factsOf(id, bytes)
  const wrong = [
    Buffer.alloc(16),
    Buffer.alloc(0),
    writePermit(disk.identity, { ...facts, size: facts.size + 1 }),
    writePermit(disk.identity, { ...facts, crc: 0 }),
    writePermit(disk.identity, { ...facts, id: idAt(NOW_MS, 1) }),
    writeReceipt(disk.identity, facts),
    erasePermit(disk.identity, id),
  ]
  const before = files.paths()
  for (const permit of wrong) assert.equal(await codeOf(disk.write(facts, permit, stream(bytes))), 'BLOCK_REFUSED')
  assert.deepEqual(files.paths(), before)
  await put(disk, id, bytes)
  clock.forwardMs(ERASE_AGE_MS_MIN)
  for (const permit of [writePermit(disk.identity, facts), eraseReceipt(disk.identity, id), Buffer.alloc(16)]) {
    assert.equal(await codeOf(disk.erase(id, permit)), 'BLOCK_REFUSED')
  }
  assert.ok(bytes.equals(await contents(disk)))
})

test('sizes and checksums that no block has are refused', async () => {
  const { disk } = await scene()
  for (const [size, crc] of [
    [0, 0],
    [-1, 0],
    [1.5, 0],
    [BLOCK_BYTES_MAX + 1, 0],
    [10, -1],
    [10, 2 ** 32],
  ] as const) {
    const facts = { id, size, crc }
    assert.equal(await codeOf(disk.write(facts, Buffer.alloc(16), stream(bytes))), 'INPUT_INVALID')
  }
})

test('a block can be written while its id is young, and erased once it is old, by the clock of the disk', async () => {
  const { disk, clock } = await scene()
  const at = (ms: number): ReturnType<typeof idAt> => idAt(NOW_MS + ms)
  assert.equal(await codeOf(put(disk, at(-WRITE_AGE_MS_MAX), bytes)), undefined)
  assert.equal(await codeOf(put(disk, at(-WRITE_AGE_MS_MAX - 1), bytes)), 'BLOCK_OUT_OF_TIME')
  assert.equal(await codeOf(put(disk, at(WRITE_AHEAD_MS_MAX), bytes)), undefined)
  assert.equal(await codeOf(put(disk, at(WRITE_AHEAD_MS_MAX + 1), bytes)), 'BLOCK_OUT_OF_TIME')
  await put(disk, id, bytes)
  const permit = erasePermit(disk.identity, id)
  clock.forwardMs(ERASE_AGE_MS_MIN - 1)
  assert.equal(await codeOf(disk.erase(id, permit)), 'BLOCK_OUT_OF_TIME')
  assert.ok(bytes.equals(await contents(disk)))
  clock.forwardMs(1)
  assert.equal(await codeOf(disk.erase(id, permit)), undefined)
})

test('a block whose write is still under way, however slow, is not erased', async () => {
  const { disk, clock } = await scene()
  const hold = gate()
  async function* slow(): AsyncGenerator<Uint8Array> {
    yield bytes.subarray(0, 5000)
    await hold.opened
    yield bytes.subarray(5000)
  }
  const facts = factsOf(id, bytes)
  const written = disk.write(facts, writePermit(disk.identity, facts), slow())
  clock.forwardMs(ERASE_AGE_MS_MIN)
  const permit = erasePermit(disk.identity, id)
  assert.equal(await codeOf(disk.erase(id, permit)), 'BLOCK_BUSY')
  hold.open()
  await written
  await disk.erase(id, permit)
  assert.equal(await codeOf(disk.fetch(id, 0, 1)), 'BLOCK_NOT_FOUND')
})

test('what was cut short is removed at the start, and what is used is counted anew', async () => {
  const { disk, files, clock } = await scene()
  await put(disk, id, bytes)
  await put(disk, idAt(NOW_MS + 77), bytes.subarray(0, 50))
  const usage = await disk.usage()
  assert.deepEqual([usage.blocks, usage.usedBytes], [2, blockFileBytes(10_000) + blockFileBytes(50)])
  assert.equal(usage.capacityBytes, usage.usedBytes + usage.freeBytes)
  await disk.close()
  files.place(`tmp/${blockName(id)}-0`, bytes)
  const again = await openDisk(files, clock)
  assert.deepEqual(
    files.paths().filter((path) => path.startsWith('tmp/')),
    [],
  )
  const counted = await again.usage()
  assert.deepEqual([counted.blocks, counted.usedBytes], [usage.blocks, usage.usedBytes])
  clock.forwardMs(ERASE_AGE_MS_MIN)
  await again.erase(id, erasePermit(again.identity, id))
  assert.deepEqual((await again.usage()).usedBytes, blockFileBytes(50))
})

test('blocks that come and go while they are counted are counted once', async () => {
  const { disk, files, clock } = await scene()
  for (let n = 0; n < 64; n++) await put(disk, idAt(NOW_MS + n * 4), bytes.subarray(0, 100))
  await disk.close()
  clock.forwardMs(2 * ERASE_AGE_MS_MIN)
  const again = await Disk.open({ files, reserveBytes: 0, now: () => clock.nowMs })
  let n = 0
  // Between the directories that are counted, and within them.
  const work: Promise<unknown>[] = []
  files.before = ({ call }) => {
    if (call !== 'list') return
    if (n < 64 && n % 2 === 0)
      work.push(again.erase(idAt(NOW_MS + n * 4), erasePermit(again.identity, idAt(NOW_MS + n * 4))))
    work.push(put(again, idAt(clock.nowMs + n), bytes.subarray(0, 100)))
    n++
  }
  await again.counted
  await Promise.all(work)
  files.before = undefined
  const blocks = files.paths().filter((path) => /^[0-9a-f]{2}\//.test(path)).length
  assert.ok(blocks > 200)
  const usage = await again.usage()
  assert.deepEqual([usage.isCounted, usage.blocks, usage.usedBytes], [true, blocks, blocks * blockFileBytes(100)])
})

test('a full disk refuses writes without a trace, keeps its reserve, and goes on to read and erase', async () => {
  const files = new MemoryBlockFiles(100_000)
  const clock = new Clock()
  const disk = await openDisk(files, clock, { reserveBytes: 40_000 })
  await put(disk, id, madeUp(30_000))
  const before = files.paths()
  assert.equal(await codeOf(put(disk, idAt(NOW_MS, 1), madeUp(30_000))), 'DISK_FULL')
  assert.deepEqual(files.paths(), before)
  assert.equal(disk.status, 'serving')
  assert.ok((await files.room()).freeBytes >= 40_000)
  await put(disk, idAt(NOW_MS, 2), madeUp(20_000))
  assert.equal((await contents(disk)).length, 30_000)
  clock.forwardMs(ERASE_AGE_MS_MIN)
  await disk.erase(id, erasePermit(disk.identity, id))
  await put(disk, idAt(clock.nowMs), madeUp(30_000))
})

test('writes at once do not take the same room twice', async () => {
  const files = new MemoryBlockFiles(100_000)
  const disk = await openDisk(files, new Clock(), { reserveBytes: 20_000 })
  const codes = await Promise.all(
    Array.from({ length: 8 }, (_, n) => codeOf(put(disk, idAt(NOW_MS, n), madeUp(18_000)))),
  )
  assert.equal(codes.filter((code) => code === undefined).length, 4)
  assert.equal(codes.filter((code) => code === 'DISK_FULL').length, 4)
  assert.ok((await files.room()).freeBytes >= 20_000)
})

test('a disk that is filled by others behind its back undoes the write, wherever that is found out', async () => {
  for (const failing of ['create', 'append', 'sync', 'rename'] as const) {
    const { disk, files } = await scene()
    const before = files.paths()
    files.before = ({ call }) => {
      if (call === failing) throw systemError(call, 'ENOSPC')
    }
    assert.equal(await codeOf(put(disk, id, bytes)), 'DISK_FULL', failing)
    files.before = undefined
    assert.deepEqual(files.paths(), before, failing)
    assert.equal(files.openCount, 0, failing)
    assert.equal(disk.status, 'serving')
    await put(disk, id, bytes)
  }
})

test('an I/O error at one file is that block alone; the disk serves on', async () => {
  const { disk, files } = await scene()
  await put(disk, id, bytes)
  await put(disk, idAt(NOW_MS, 1), bytes)
  files.before = ({ call, path }) => {
    if (call === 'read' && path === blockPath(id)) throw systemError('read', 'EIO')
  }
  assert.equal(await codeOf(disk.fetch(id, 0, 1)), 'BLOCK_IO_FAILED')
  assert.equal(await codeOf(disk.check(id)), 'BLOCK_IO_FAILED')
  assert.equal(disk.status, 'serving')
  assert.ok(bytes.equals(await contents(disk, idAt(NOW_MS, 1))))
  files.before = ({ call, path }) => {
    if (call === 'sync' && path.startsWith(`tmp/${blockName(idAt(NOW_MS, 2))}`)) throw systemError('fsync', 'EIO')
  }
  assert.equal(await codeOf(put(disk, idAt(NOW_MS, 2), bytes)), 'BLOCK_IO_FAILED')
  assert.equal(await codeOf(disk.fetch(idAt(NOW_MS, 2), 0, 1)), 'BLOCK_NOT_FOUND')
  assert.equal(disk.status, 'serving')
  assert.deepEqual(
    files.paths().filter((path) => path.startsWith('tmp/')),
    [],
  )
})

test('a disk that gives back other bytes than were written acknowledges none of it', async () => {
  const { disk, files } = await scene()
  files.before = ({ call, path }) => {
    const stored = call === 'readBack' && !path.endsWith('probe') ? files.bytesOf(path) : undefined
    if (stored !== undefined) stored[9000] = ~(stored[9000] ?? 0)
  }
  assert.equal(await codeOf(put(disk, id, bytes)), 'BLOCK_IO_FAILED')
  files.before = undefined
  assert.equal(await codeOf(disk.fetch(id, 0, 1)), 'BLOCK_NOT_FOUND')
  await put(disk, id, bytes)
})

test('after an error of the device the disk withdraws itself, and refuses every call', async () => {
  const failures: Record<string, (step: { call: StepCall; path: string }) => void> = {
    'reads fail everywhere': ({ call }) => {
      if (call === 'read') throw systemError('read', 'EIO')
    },
    'writes fail everywhere': ({ call }) => {
      if (call === 'sync') throw systemError('fsync', 'EIO')
    },
    'the file system went read-only': ({ call }) => {
      if (call === 'create') throw systemError('open', 'EROFS')
    },
    'the device is gone': () => {
      throw systemError('open', 'ENXIO')
    },
    'the device hangs': ({ call }) => {
      if (call === 'sync' || call === 'read') throw systemError('fsync', 'ETIMEDOUT')
    },
    'the sync of a directory fails': ({ call }) => {
      if (call === 'syncDirectory') throw systemError('fsync', 'EIO')
    },
    'another identity is there': ({ call, path }) => {
      if (path.startsWith('tmp/') && call === 'sync') throw systemError('fsync', 'EIO')
    },
  }
  for (const [name, before] of Object.entries(failures)) {
    const { disk, files, clock } = await scene()
    await put(disk, id, bytes)
    if (name.startsWith('another')) {
      const other = await scene()
      files.place('disk', other.files.bytesOf('disk') ?? Buffer.alloc(0))
    }
    files.before = before
    clock.forwardMs(ERASE_AGE_MS_MIN)
    const fresh = idAt(clock.nowMs)
    const first = name.startsWith('reads') ? disk.fetch(id, 0, 1) : put(disk, fresh, bytes)
    assert.equal(await codeOf(first), 'DISK_FAILED', name)
    assert.equal(disk.status, 'failed', name)
    assert.ok(isOperationError(disk.failure, 'DISK_FAILED'))
    files.before = undefined
    const later = [
      disk.fetch(id, 0, 1),
      disk.check(id),
      put(disk, fresh, bytes),
      disk.erase(id, erasePermit(disk.identity, id)),
      disk.usage(),
    ].map((call) => codeOf(call))
    assert.deepEqual(await Promise.all(later), Array(5).fill('DISK_FAILED'), name)
    await disk.close()
    assert.equal(files.openCount, 0, name)
  }
})

test('many bad sectors in a short time are the end of a disk', async () => {
  const { disk, files, clock } = await scene()
  await put(disk, id, bytes)
  files.before = ({ call, path }) => {
    if (call === 'read' && path === blockPath(id)) throw systemError('read', 'EIO')
  }
  const fail = (): Promise<string | undefined> => codeOf(disk.fetch(id, 0, 1))
  for (let n = 0; n < 4; n++) assert.equal(await fail(), 'BLOCK_IO_FAILED')
  clock.forwardMs(6 * 60_000)
  for (let n = 0; n < 4; n++) assert.equal(await fail(), 'BLOCK_IO_FAILED')
  assert.equal(disk.status, 'serving', 'those of more than five minutes ago do not count')
  assert.equal(await fail(), 'DISK_FAILED')
  assert.equal(disk.status, 'failed')
})

test('few bad sectors among many good reads are not', async () => {
  const { disk, files } = await scene()
  await put(disk, id, bytes)
  await put(disk, idAt(NOW_MS, 1), bytes)
  files.before = ({ call, path }) => {
    if (call === 'read' && path === blockPath(id)) throw systemError('read', 'EIO')
  }
  for (let n = 0; n < 20; n++) {
    for (let good = 0; good < 12; good++) await disk.fetch(idAt(NOW_MS, 1), 0, 100)
    assert.equal(await codeOf(disk.fetch(id, 0, 1)), 'BLOCK_IO_FAILED')
  }
  assert.equal(disk.status, 'serving')
})

test('no more is under way or waits than the limits say, and who comes then is told so', async () => {
  const { disk, files } = await scene({ limits: { reads: 2, waiting: 3 } })
  await put(disk, id, bytes)
  const hold = gate()
  let atOnce = 0
  let atOnceMax = 0
  files.before = async ({ call }) => {
    if (call !== 'read') return
    atOnceMax = Math.max(atOnceMax, ++atOnce)
    await hold.opened
    atOnce--
  }
  const giveUp = new AbortController()
  const reads = Array.from({ length: 5 }, (_, n) => disk.fetch(id, n, 1, n === 3 ? { signal: giveUp.signal } : {}))
  const outcomes = reads.map((read) => codeOf(read))
  assert.equal(await codeOf(disk.fetch(id, 0, 1)), 'BLOCK_BUSY')
  assert.equal(await codeOf(put(disk, idAt(NOW_MS, 1), bytes)), undefined, 'writes have limits of their own')
  giveUp.abort()
  assert.equal(await outcomes[3], 'ABORTED')
  const late = codeOf(disk.fetch(id, 0, 1))
  hold.open()
  assert.deepEqual(await Promise.all(outcomes), [undefined, undefined, undefined, 'ABORTED', undefined])
  assert.equal(await late, undefined, 'who gave up made room for another')
  assert.ok(atOnceMax <= 2)
})

test('a read that hangs is left by its caller, and keeps its slot until it ends', async () => {
  const { disk, files } = await scene({ limits: { reads: 1, waiting: 0 } })
  await put(disk, id, bytes)
  const hold = gate()
  files.before = ({ call }) => (call === 'read' ? hold.opened : undefined)
  const giveUp = new AbortController()
  const read = codeOf(disk.fetch(id, 0, 1, { signal: giveUp.signal }))
  giveUp.abort()
  assert.equal(await read, 'ABORTED')
  assert.equal(await codeOf(disk.fetch(id, 0, 1)), 'BLOCK_BUSY')
  hold.open()
  while ((await codeOf(disk.fetch(id, 0, 1))) === 'BLOCK_BUSY') await new Promise(setImmediate)
  assert.equal(await codeOf(disk.fetch(id, 0, 1)), undefined)
})

test('a write that is given up leaves nothing behind', async () => {
  const { disk, files } = await scene()
  const before = files.paths()
  const giveUp = new AbortController()
  async function* halted(): AsyncGenerator<Uint8Array> {
    yield bytes.subarray(0, 5000)
    giveUp.abort()
    yield bytes.subarray(5000)
  }
  const facts = factsOf(id, bytes)
  const written = disk.write(facts, writePermit(disk.identity, facts), halted(), giveUp.signal)
  assert.equal(await codeOf(written), 'ABORTED')
  assert.deepEqual(files.paths(), before)
  assert.equal(files.openCount, 0)
  assert.equal((await disk.usage()).usedBytes, 0)
})

test('closing waits for what is under way, and sends away who waits', async () => {
  const { disk, files } = await scene({ limits: { writes: 1 } })
  const hold = gate()
  files.before = ({ call }) => (call === 'sync' ? hold.opened : undefined)
  const first = codeOf(put(disk, id, bytes))
  const second = codeOf(put(disk, idAt(NOW_MS, 1), bytes))
  while (!files.counts.has('append')) await new Promise(setImmediate)
  const closed = disk.close()
  assert.equal(await second, 'DISK_FAILED')
  hold.open()
  assert.equal(await first, undefined)
  await closed
  assert.equal(files.openCount, 0)
  assert.equal(await codeOf(disk.fetch(id, 0, 1)), 'DISK_FAILED')
})

test('a disk that lost its identity, or has a damaged one, is refused and stays as it is', async () => {
  const { disk, files, clock } = await scene()
  await put(disk, id, bytes)
  await disk.close()
  const identity = Buffer.from(files.bytesOf('disk') ?? [])
  for (let at = 0; at < identity.length; at++) {
    const damaged = Buffer.from(identity)
    damaged[at] = (damaged[at] ?? 0) ^ 1
    files.place('disk', damaged)
    assert.equal(await codeOf(openDisk(files, clock)), 'DISK_UNUSABLE', `byte ${at}`)
    assert.deepEqual(files.bytesOf('disk'), damaged)
    files.place('disk', identity.subarray(0, at))
    assert.equal(await codeOf(openDisk(files, clock)), 'DISK_UNUSABLE', `cut to ${at}`)
  }
  await files.remove('disk')
  assert.equal(await codeOf(openDisk(files, clock)), 'DISK_UNUSABLE')
  files.place('disk', identity)
  const again = await openDisk(files, clock)
  assert.deepEqual(again.identity, disk.identity)
  assert.ok(bytes.equals(await contents(again)))
})

test("a directory with anybody's files in it is not made a disk", async () => {
  const files = new MemoryBlockFiles()
  files.place('letter.txt', Buffer.from('dear'))
  assert.equal(await codeOf(openDisk(files, new Clock())), 'DISK_UNUSABLE')
  assert.deepEqual(files.paths(), ['letter.txt'])
  const root = new MemoryBlockFiles()
  await root.makeDirectory('lost+found')
  assert.equal(await codeOf(openDisk(root, new Clock())), undefined)
})
