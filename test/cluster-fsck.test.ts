/** `eider fs fsck --offline`: a cluster that is stopped or was killed, read from its directories alone, whole and in all ways damaged. */
import assert from 'node:assert/strict'
import {
  closeSync,
  cpSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'

import { setLogLevel } from '#base/log.ts'
import { blockPath, makeBlockId } from '#cluster/block/block-id.ts'
import { ClusterClient } from '#cluster/client/cluster-client.ts'
import { ClusterFiles } from '#cluster/client/cluster-files.ts'
import type { InodeId } from '#cluster/inode-id.ts'
import { openFileJournal } from '#cluster/journal/file-journal.ts'
import { numberKey } from '#cluster/journal/keys.ts'
import { LmdbEnvironment } from '#cluster/journal/lmdb-environment.ts'
import { openLmdbState } from '#cluster/journal/lmdb-state.ts'
import { sealValue } from '#cluster/journal/sealed-value.ts'
import { segmentName } from '#cluster/journal/segment.ts'
import { shardMessages } from '#cluster/shard/shard-messages.ts'
import { systemSurroundings } from '#cluster/system-surroundings.ts'
import { EMPTY_POLICY } from '#cluster/wire/forms.ts'

import { ClusterProcesses } from './cluster-processes.ts'
import { eider, type Outcome } from './eider-process.ts'
import { TestCluster } from './servers/cluster.ts'

const ATTRIBUTES = { mode: 0o640, uid: 0, gid: 0, mtime: 1_700_000_000_000_000, atime: undefined }
/** So many blocks of a span may be gone: of six disks, a span has 4+2. */
const PARITY = 2

function fsck(...args: string[]): Promise<Outcome> {
  return eider(['fs', 'fsck', '--offline', ...args])
}

function bytesOf(size: number, seed: number): Buffer {
  const bytes = Buffer.alloc(size)
  for (let at = 0; at < size; at += 4)
    bytes.writeUInt32LE((Math.imul(at + seed, 0x9e3779b1) ^ seed) >>> 0, Math.min(at, size - 4))
  return bytes
}

class Writer {
  readonly client: ClusterClient
  readonly files: ClusterFiles
  /** What each path has, as it was acknowledged. */
  readonly contents = new Map<string, Buffer>()

  private constructor(client: ClusterClient) {
    this.client = client
    this.files = new ClusterFiles(client)
  }

  static async connect(registry: string): Promise<Writer> {
    return new Writer(await ClusterClient.connect({ surroundings: systemSurroundings(), registry }))
  }

  async file(path: string, bytes: Buffer): Promise<{ inode: InodeId; created: number }> {
    const source = async function* (): AsyncGenerator<Buffer> {
      yield bytes
    }
    const slot = await this.client.slot(path)
    const file = { ...slot, attributes: ATTRIBUTES, policy: EMPTY_POLICY, sizeHint: bytes.length }
    const written = await this.files.write(file, source())
    this.contents.set(path, bytes)
    return written
  }

  async directory(path: string): Promise<InodeId> {
    return this.client.ensureDirectory(await this.client.slot(path), ATTRIBUTES)
  }
}

/** Every file, with size and time of change: what must not be touched. */
function printOf(directory: string): string {
  return readdirSync(directory, { recursive: true, encoding: 'utf8' })
    .toSorted()
    .map((name) => {
      const { size, mtimeMs, mode } = lstatSync(join(directory, name))
      return `${name} ${size} ${mtimeMs} ${mode}`
    })
    .join('\n')
}

function checkExtracted(into: string, contents: ReadonlyMap<string, Buffer>, but: readonly string[] = []): void {
  for (const [path, bytes] of contents) {
    if (but.includes(path)) assert.ok(!existsSync(join(into, path)), path)
    else assert.ok(readFileSync(join(into, path)).equals(bytes), `${path} is as it was acknowledged`)
  }
}

describe('a cluster that was stopped', { timeout: 240_000 }, () => {
  let cluster: TestCluster
  let scratch: string
  let writer: Writer
  /** When the tree was as `before`. */
  let beforeUs: number
  let removedBytes: Buffer

  before(async () => {
    setLogLevel('error')
    scratch = mkdtempSync(join(tmpdir(), 'eider-fsck-'))
    cluster = await TestCluster.start({ disks: 6 })
    writer = await Writer.connect(cluster.registry)
    const { client } = writer
    await writer.directory('/photos')
    await writer.directory('/photos/old')
    await writer.directory('/papers')
    await writer.file('/photos/large', bytesOf(9_000_001, 1))
    await writer.file('/photos/old/middle', bytesOf(300_000, 2))
    await writer.file('/papers/small', bytesOf(2000, 3))
    await writer.file('/papers/empty', Buffer.alloc(0))
    const { inode } = await writer.file('/papers/tagged', bytesOf(10, 4))
    const xattr = { name: 'colour', value: Buffer.from('red') }
    await client.ask(inode, shardMessages.setXattr, { inode, xattr, how: 'any' })
    removedBytes = bytesOf(50_000, 5)
    const removed = await writer.file('/papers/removed', removedBytes)
    await writer.file('/papers/replaced', bytesOf(70_000, 6))
    beforeUs = (await writer.file('/papers/last', bytesOf(100, 7))).created
    await writer.file('/papers/replaced', bytesOf(80_000, 8))
    await client.remove(await client.find('/papers/removed'))
    writer.contents.delete('/papers/removed')
    assert.ok(removed.created < beforeUs)
    const source = async function* (): AsyncGenerator<Buffer> {
      yield Buffer.from('../photos/large')
    }
    const slot = await client.slot('/papers/link')
    await writer.files.write({ ...slot, type: 'symlink', attributes: ATTRIBUTES, policy: EMPTY_POLICY }, source())
    // To another directory and back, so that owners and shards differ.
    await client.move(await client.find('/photos/old'), await client.slot('/papers/old'))
    writer.contents.set('/papers/old/middle', bytesOf(300_000, 2))
    writer.contents.delete('/photos/old/middle')
    await writer.directory('/gone')
    await client.remove(await client.find('/gone'))
    client.close()
    await cluster.stop()
  })
  after(async () => {
    await cluster[Symbol.asyncDispose]()
    rmSync(scratch, { recursive: true, force: true })
  })

  /** A copy that may be damaged. */
  function copied(name: string): string {
    const to = join(scratch, name)
    cpSync(cluster.directory, to, { recursive: true, preserveTimestamps: true })
    return to
  }

  /** The block files of the copy, by disk. */
  function blocksOf(directory: string, disk: number): string[] {
    const root = join(directory, `disk${disk}`)
    return readdirSync(root, { recursive: true, encoding: 'utf8' })
      .filter((path) => /^[0-9a-f]{2}\/[0-9a-f]{14}$/.test(path))
      .map((path) => join(root, path))
  }

  test('is clean, is told so, and nothing in it is touched', async () => {
    const print = printOf(cluster.directory)
    const { code, stdout, stderr } = await fsck(cluster.directory, '--blocks')
    assert.equal(code, 0, stdout + stderr)
    assert.match(stdout, /^Clean$/m)
    assert.match(stdout, /^4 directories, 8 files/m)
    assert.match(stdout, /^History: 2 files of .*, 1 directories/m)
    const json = await fsck(cluster.directory, '--json')
    const summary = JSON.parse(json.stdout.trim().split('\n').at(-1) ?? '') as Record<string, unknown>
    assert.equal(summary['what'], 'summary')
    assert.deepEqual(summary['problems'], { lost: 0, degraded: 0, leak: 0 })
    assert.equal(printOf(cluster.directory), print)
  })

  test('is listed as it is, and as it was', async () => {
    const now = await fsck(cluster.directory, '--list')
    assert.equal(now.code, 0, now.stderr)
    assert.match(now.stdout, /^file +80000 +2 {2}\/papers\/replaced$/m)
    assert.match(now.stdout, /^symlink +15 +1 {2}\/papers\/link$/m)
    assert.match(now.stdout, /^directory .*\/papers\/old$/m)
    assert.ok(!now.stdout.includes('removed'))
    const past = await fsck(cluster.directory, '--list', '--path', '/papers', '--as-of', String(beforeUs))
    assert.match(past.stdout, /^file +70000 .*\/papers\/replaced$/m)
    assert.match(past.stdout, /^file +50000 .*\/papers\/removed$/m)
    assert.ok(!past.stdout.includes('/papers/link') && !past.stdout.includes('/photos'))
  })

  test('gives its files back as they were acknowledged, with attributes, links and history', async () => {
    const into = join(scratch, 'extracted')
    const print = printOf(cluster.directory)
    const { code, stdout, stderr } = await fsck(cluster.directory, '--extract', into)
    assert.equal(code, 0, stdout + stderr)
    checkExtracted(into, writer.contents)
    const { mode, mtimeMs } = lstatSync(join(into, 'papers/small'))
    assert.equal(mode & 0o7777, 0o640)
    assert.equal(mtimeMs, 1_700_000_000_000)
    assert.equal(readlinkSync(join(into, 'papers/link')), '../photos/large')
    assert.equal(printOf(cluster.directory), print)
    const past = join(scratch, 'past')
    const then = await fsck(cluster.directory, '--extract', past, '--as-of', String(beforeUs))
    assert.equal(then.code, 0, then.stderr)
    assert.ok(readFileSync(join(past, 'papers/removed')).equals(removedBytes))
    assert.ok(readFileSync(join(past, 'papers/replaced')).equals(bytesOf(70_000, 6)))
  })

  test('gives its files back with as many blocks of every span gone as there is parity, and says what is lost beyond', async () => {
    const directory = copied('disks')
    for (let disk = 0; disk < PARITY - 1; disk++) rmSync(join(directory, `disk${disk}`), { recursive: true })
    // One disk is gone, of another one all blocks, one cut, the others with a flipped bit.
    const [first, ...others] = blocksOf(directory, PARITY - 1)
    if (first !== undefined) truncateSync(first, 5000)
    for (const path of others) {
      const bytes = readFileSync(path)
      bytes[100] = (bytes[100] ?? 0) ^ 4
      writeFileSync(path, bytes)
    }
    const checked = await fsck(directory, '--blocks')
    assert.equal(checked.code, 3)
    assert.match(checked.stdout, /^degraded {2}\/photos\/large: 2 of the 6 blocks .*disk 0?.*is not there/m)
    assert.match(checked.stdout, /^0 lost, \d+ degraded, 0 leaked$/m)
    const into = join(scratch, 'rebuilt')
    const rebuilt = await fsck(directory, '--extract', into)
    assert.equal(rebuilt.code, 0, rebuilt.stdout)
    checkExtracted(into, writer.contents)
    for (const path of blocksOf(directory, PARITY)) rmSync(path)
    const lost = ['/photos/large', '/papers/old/middle', '/papers/replaced']
    const beyond = await fsck(directory, '--blocks')
    assert.equal(beyond.code, 3)
    for (const path of lost) assert.match(beyond.stdout, new RegExp(`^lost {6}${path}: 3 of the 6 blocks`, 'm'))
    const partly = join(scratch, 'partly')
    const rest = await fsck(directory, '--extract', partly)
    assert.equal(rest.code, 3)
    for (const path of lost) assert.match(rest.stdout, new RegExp(`^lost {6}${path}: `, 'm'))
    checkExtracted(partly, writer.contents, lost)
  })

  test('takes disks that lie elsewhere', async () => {
    const directory = copied('elsewhere')
    const aside = join(scratch, 'aside')
    mkdirSync(aside)
    for (let disk = 0; disk < 3; disk++) renameSync(join(directory, `disk${disk}`), join(aside, `d${disk}`))
    const parts = ['shards', 'coordinator', 'disk3', 'disk4'].map((name) => join(directory, name))
    const { code, stdout } = await fsck(...parts, '--disk', aside, '--disk', join(directory, 'disk5'))
    assert.equal(code, 0, stdout)
  })

  test('tells of blocks that no span has: young ones are in order, old ones are a leak', async () => {
    const directory = copied('orphans')
    const block = (timeMs: number): string => join(directory, 'disk0', blockPath(makeBlockId(timeMs, 1, 7)))
    writeFileSync(block(Date.now() - 1000), 'written just now')
    const young = await fsck(directory)
    assert.equal(young.code, 0, young.stdout)
    assert.match(young.stdout, /^1 blocks of less than a day have no span yet$/m)
    writeFileSync(block(Date.UTC(2024, 0, 1)), 'written long ago')
    const old = await fsck(directory)
    assert.equal(old.code, 3)
    assert.match(old.stdout, /^leak .*disk0: no span has 1 of its blocks, of 16 bytes$/m)
  })

  test('gives what can be read of a damaged state, and says what cannot', async () => {
    const directory = copied('damaged')
    const path = join(directory, 'shards/state/data.lmdb')
    const pages = Math.floor(lstatSync(path).size / 4096)
    const fd = openSync(path, 'r+')
    // Half of its pages, but those that it begins with.
    for (let page = 3; page < pages; page += 2) writeSync(fd, Buffer.alloc(4096, page), 0, 4096, page * 4096)
    closeSync(fd)
    const { code, stdout, stderr } = await fsck(directory)
    assert.ok(code === 3 || code === 1, `${code} ${stderr}`)
    assert.match(stdout + stderr, /page \d+ is not the one that it should be|no shards can be read/)
    writeFileSync(path, Buffer.alloc(100_000, 7))
    const none = await fsck(directory)
    assert.equal(none.code, 1)
    assert.match(none.stderr, /no shards can be read/)
  })

  test('says from where on a journal cannot be applied, or that it is not enough', async () => {
    const directory = copied('journal')
    const data = join(directory, 'shards')
    // Each group in a segment of its own.
    const state = await openLmdbState(data)
    const journal = await openFileJournal(data, { segmentBytes: 1, state })
    const { last } = journal
    for (const add of [1, 2]) await journal.append(last + add, [Buffer.from('none that the machine knows')])
    await journal.trim(last)
    await journal.close()
    await state.close()
    const beyond = await fsck(directory)
    assert.equal(beyond.code, 3)
    const expected = new RegExp(`^lost .*shards: journal: entries from ${last + 1} on cannot be applied: `, 'm')
    assert.match(beyond.stdout, expected)
    // All that is in the state is there.
    assert.match(beyond.stdout, /^4 directories, 8 files/m)
    const segment = join(data, 'journal', segmentName(last + 1))
    const bytes = readFileSync(segment)
    bytes[bytes.indexOf('machine')] = 0
    writeFileSync(segment, bytes)
    assert.match((await fsck(directory)).stdout, /cannot be applied: .* is damaged$/m)
    rmSync(join(data, 'state/data.lmdb'))
    writeFileSync(join(data, 'state/data.lmdb'), '')
    const none = await fsck(directory)
    assert.equal(none.code, 1)
    assert.match(none.stdout, /its state is empty, and its journal begins with entry \d+/)
  })

  test('finds an edge whose target is gone, a file that has no name, and a lock that nobody holds', async () => {
    const directory = copied('edges')
    const state = await openLmdbState(join(directory, 'shards'))
    const edges: [string, Buffer][] = []
    state.range('e', 'f', (key, value) => edges.push([key, value]) > 0)
    const named = (name: string): [string, Buffer] => {
      const found = edges.find(([key]) => key.endsWith(name))
      assert.ok(found !== undefined)
      return found
    }
    const [small, middle, last, large] = [named('small'), named('middle'), named('last'), named('large')]
    const locked = Buffer.from(large[1])
    locked[14] = 1
    const fileOf = ([, value]: [string, Buffer]): string => `f${value.toString('latin1', 0, 7)}`
    await state.commit(
      [
        // One has its bytes in its record, the other a span.
        [fileOf(small), null],
        [fileOf(middle), null],
        [last[0], null],
        [large[0], locked],
      ],
      state.applied,
    )
    await state.close()
    const { code, stdout } = await fsck(directory)
    assert.equal(code, 3)
    for (const path of ['/papers/small', '/papers/old/middle']) {
      assert.match(stdout, new RegExp(`^lost {6}${path}: file 0x\\w+ is not there, and the name leads to it$`, 'm'))
    }
    assert.match(stdout, /^lost {6}0x\w+: no name leads to this file, and no history keeps it$/m)
    assert.match(stdout, /^degraded {2}\/photos\/large: the name is locked, and no transaction/m)
    assert.match(stdout, /^leak .*there are spans of 1 files that are not there$/m)
    const into = join(scratch, 'found')
    const rescued = await fsck(directory, '--extract', into)
    assert.equal(rescued.code, 3)
    const [orphan = ''] = readdirSync(join(into, 'lost+found'))
    assert.ok(readFileSync(join(into, 'lost+found', orphan)).equals(bytesOf(100, 7)))
  })

  test('honours a commit of many lots that was broken off', async () => {
    const directory = copied('lots')
    const data = join(directory, 'shards')
    const state = await openLmdbState(data)
    // As a process leaves it that is killed after its second step: all lots are there, and none is in the state.
    const { applied } = state
    const edges: [string, Buffer][] = []
    state.range('e', 'f', (key, value) => edges.push([key, value]) > 0)
    await state.close()
    const environment = await LmdbEnvironment.open(join(data, 'state'))
    const lotOf = (key: string, value: Buffer): Buffer => {
      const head = Buffer.alloc(6)
      head.writeUInt16LE(key.length, 0)
      head.writeUInt32LE(value.length, 2)
      return Buffer.concat([head, Buffer.from(key, 'latin1'), value])
    }
    const [key, value] = edges.find(([each]) => each.endsWith('small')) ?? ['', Buffer.alloc(0)]
    const renamed = key.replace(/small$/, 'smaller')
    const removal = lotOf(key, Buffer.alloc(0))
    removal.writeUInt32LE(0xffffffff, 2)
    const put = (database: string, at: string, bytes: Buffer): Promise<void> =>
      environment.committed(environment.database(database).put(at, sealValue(at, bytes)))
    await put('lots', numberKey(0), lotOf(renamed, value))
    await put('lots', numberKey(1), removal)
    await put('facts', 'lots', Buffer.from(numberKey(applied) + numberKey(2), 'latin1'))
    await environment.close()
    const { code, stdout } = await fsck(directory, '--list', '--path', '/papers')
    assert.equal(code, 0, stdout)
    assert.match(stdout, /\/papers\/smaller$/m)
    assert.ok(!/\/papers\/small$/m.test(stdout))
  })

  test('is refused while a process has it, and where nothing is to be found', async () => {
    await using running = await TestCluster.start({ disks: 1 })
    const { code, stdout, stderr } = await fsck(running.directory)
    assert.equal(code, 1)
    assert.equal(stdout, '')
    assert.match(stderr, /Cannot read ".*": process \d+ uses it\n {2}hint: Stop the processes of the cluster first/)
    const disk = await fsck(join(cluster.directory, 'shards'), '--disk', running.disks[0] ?? '')
    assert.equal(disk.code, 1)
    assert.match(disk.stderr, /uses it/)
    const empty = join(scratch, 'empty')
    mkdirSync(empty)
    assert.equal((await fsck(empty)).code, 2)
    assert.equal((await eider(['fs', 'fsck', cluster.directory])).code, 2)
  })
})

describe('a cluster of processes that were killed in the midst of writes', { timeout: 240_000 }, () => {
  test('has all that was acknowledged; without one of its shards, all that lay on the others', async () => {
    setLogLevel('error')
    const scratch = mkdtempSync(join(tmpdir(), 'eider-fsck-'))
    const directory = join(scratch, 'cluster')
    mkdirSync(directory)
    const cluster = await ClusterProcesses.start(directory, 3, 4)
    const writer = await Writer.connect(cluster.registry)
    try {
      const paths = Array.from({ length: 8 }, (_, index) => `/d${index}`)
      for (const path of paths) await writer.directory(path)
      let count = 0
      const write = async (path: string): Promise<void> => {
        for (;;) {
          const number = count++
          await writer.file(`${path}/f${number % 40}`, bytesOf([10, 3000, 90_000][number % 3] ?? 1, number))
        }
      }
      // They end when the client is closed.
      const writing = paths.map((path) => write(path).catch(() => undefined))
      while (count < 300) await new Promise((resolve) => setTimeout(resolve, 20))
      await Promise.all(cluster.names.map((name) => cluster.kill(name)))
      writer.client.close()
      await Promise.all(writing)
      const checked = await fsck(directory, '--blocks')
      assert.equal(checked.code, 0, checked.stdout + checked.stderr)
      const into = join(scratch, 'extracted')
      const extracted = await fsck(directory, '--extract', into)
      assert.equal(extracted.code, 0, extracted.stdout)
      // A file that was being replaced may have been, without an answer.
      let replaced = 0
      for (const [path, bytes] of writer.contents) if (!readFileSync(join(into, path)).equals(bytes)) replaced++
      assert.ok(replaced <= paths.length, `${replaced} of ${writer.contents.size} differ from what was acknowledged`)
      rmSync(join(directory, 'shards-a'), { recursive: true })
      const half = join(scratch, 'half')
      const missing = await fsck(directory, '--extract', half)
      assert.equal(missing.code, 3)
      assert.match(missing.stdout, /^lost {6}\/: .*no directory given has shard 0/m)
      // The root is gone with its shard, and the names of directories with it; these come with the inodes that they had.
      const rescued = readdirSync(join(half, 'lost+found'), { recursive: true, encoding: 'utf8' })
      const files = rescued.filter((path) => /\/f\d+$/.test(path))
      assert.ok(files.length >= 40, `${files.length} files came back`)
      const known = new Set([...writer.contents.values()].map((bytes) => bytes.toString('latin1')))
      const same = files.filter((path) => known.has(readFileSync(join(half, 'lost+found', path), 'latin1')))
      assert.ok(same.length >= files.length - paths.length, `${same.length} of ${files.length} are as they were`)
      const told = await fsck(directory)
      assert.equal(told.code, 3)
      assert.match(told.stdout, /^lost {6}shards 0-3: none of the directories given has them$/m)
    } finally {
      writer.client.close()
      await cluster.end()
      rmSync(scratch, { recursive: true, force: true })
    }
  })
})
