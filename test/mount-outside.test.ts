/**
 * A bucket that is changed from outside while a mount reads it: files that are overwritten, deleted, and replaced by
 * directories. What a program reads through one open is one version, to its end or until ESTALE; what it sees never goes back.
 */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { test, type TestContext } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'

import { probeFuse } from '#fuse/probe.ts'
import { openS3Store } from '#store/s3/s3-store.ts'
import { ANY, type Store } from '#store/store.ts'

import { BucketMount } from './bucket-mount.ts'
import { s3OptionsOf } from './servers/bucket.ts'

const READERS = fileURLToPath(new URL('./versioned-readers.py', import.meta.url))
const READER_COUNT = 8
const READS_MIN = 3000
const CHANGES_MIN = 120
const CHANGES_MAX = 2000
const LINE_BYTES = 32
const FILES = ['one', 'two', 'd/three', 'four']

const fuse = await probeFuse()
const skip = fuse.available ? false : `no mount can be made here: ${fuse.why}`

/** The bytes of a version; sizes from none to more than what is read ahead at first, the same for the same version. */
function bytesOf(version: number): Buffer {
  const lines = [0, 1, 700, 5000, 40_000, 110_000][version % 6] ?? 0
  const size = lines * LINE_BYTES
  const bytes = Buffer.alloc(size)
  for (let at = 0; at < size; at += LINE_BYTES) {
    bytes.write(
      `${String(version).padStart(8)} ${String(at).padStart(11)} ${String(size).padStart(10)}\n`,
      at,
      'latin1',
    )
  }
  return bytes
}

interface Report {
  readonly counts: Readonly<Record<string, number>>
  readonly latest: Readonly<Record<string, number>>
  readonly wrong: readonly string[]
}

/** Starts a reader; resolves with what it saw once it has been told to stop. */
async function reader(directory: string, notes: string, index: number): Promise<Report> {
  const child = spawn('python3', [READERS, directory, notes, `reader ${index}`, String(index), ...FILES], {
    cwd: '/',
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const [stdout, stderr] = await Promise.all([text(child.stdout), text(child.stderr)])
  assert.equal(stderr, '')
  return JSON.parse(stdout) as Report
}

/** Changes files in the bucket, in all ways; gives the version that each file ends with. */
class Outsider {
  readonly versions = new Map<string, number>()
  readonly #store: Store
  #last = 0
  changes = 0

  constructor(store: Store) {
    this.#store = store
  }

  async write(path: string): Promise<void> {
    const version = ++this.#last
    await this.#store.put(path, bytesOf(version), { guard: ANY })
    this.versions.set(path, version)
    this.changes++
  }

  async change(path: string): Promise<void> {
    switch (this.changes % 7) {
      case 2:
        await this.#store.remove(path, { guard: ANY })
        await sleep(20)
        break
      case 5:
        await this.#store.remove(path, { guard: ANY })
        await this.#store.put(`${path}/inner`, bytesOf(++this.#last), { guard: ANY })
        await sleep(100)
        await this.#store.remove(`${path}/inner`, { guard: ANY })
        await this.#store.removeDirectory(path).catch(() => undefined)
        break
      default:
    }
    await this.write(path)
  }
}

async function changedWhileRead(t: TestContext, mountArguments: readonly string[]): Promise<void> {
  const notes = mkdtempSync(join(tmpdir(), 'eider-outside-'))
  try {
    await using mount = await BucketMount.start({ mountArguments: ['--validity', '200ms', ...mountArguments] })
    const server = {
      endpoint: mount.endpoint,
      region: 'us-east-1',
      accessKey: 'EIDERTESTKEY',
      secretKey: 'eider/test+secret',
    }
    const store = await openS3Store('s3://bucket', s3OptionsOf(server, { style: 'path' }))
    try {
      const outsider = new Outsider(store)
      for (const path of FILES) await outsider.write(path)
      let running = READER_COUNT
      const readers = Promise.all(
        Array.from({ length: READER_COUNT }, (_, index) =>
          reader(mount.directory, notes, index).finally(() => running--),
        ),
      )
      const begun = performance.now()
      while (running === READER_COUNT && outsider.changes < CHANGES_MAX) {
        if (outsider.changes >= CHANGES_MIN && performance.now() - begun > 12_000) break
        await outsider.change(FILES[outsider.changes % FILES.length] ?? '')
        await sleep(15)
      }
      writeFileSync(join(notes, 'stop'), '')
      const reports = await readers
      assert.deepEqual(
        reports.flatMap(({ wrong }) => wrong),
        [],
      )
      const counts: Record<string, number> = {}
      for (const report of reports) {
        for (const [name, count] of Object.entries(report.counts)) counts[name] = (counts[name] ?? 0) + count
      }
      t.diagnostic(`${outsider.changes} changes, seen as ${JSON.stringify(counts)}`)
      assert.ok((counts['reads'] ?? 0) >= READS_MIN, 'there was much to read')
      assert.ok(outsider.changes >= CHANGES_MIN, 'there was much to change')
      // And in the end everybody sees the last version of each.
      await sleep(250)
      for (const [path, version] of outsider.versions) {
        const expected = join(mount.work, 'expected')
        writeFileSync(expected, bytesOf(version))
        await mount.sh(`cmp "$M/${path}" '${expected}'`)
      }
    } finally {
      await store.close()
    }
  } finally {
    rmSync(notes, { recursive: true, force: true })
  }
}

test(
  '[S21] [S22] files that others overwrite, delete and replace while they are read are seen in one version at a time',
  { skip },
  (t) => changedWhileRead(t, []),
)

test('[S21] [S66] the same with a disk cache', { skip }, async (t) => {
  const cache = mkdtempSync(join(tmpdir(), 'eider-outside-cache-'))
  try {
    await changedWhileRead(t, ['--cache', cache, '--cache-size', '20MB', '--cache-min-free', '1MB'])
  } finally {
    rmSync(cache, { recursive: true, force: true })
  }
})
