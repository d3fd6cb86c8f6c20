/**
 * SIGKILL of a mount at random points, a hundred times, while programs write, replace, rename and remove, and large files go up
 * while they are written: what was acknowledged is in the store, whole, and nothing is left over.
 */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'

import { probeFuse } from '#fuse/probe.ts'
import { openUploads } from '#store/s3/open-uploads.ts'

import { BucketMount } from './bucket-mount.ts'
import { until } from './memory-mount.ts'
import { clientOf } from './servers/bucket.ts'

const WRITERS = fileURLToPath(new URL('./acknowledging-writers.py', import.meta.url))
const KILLS = Number(process.env['EIDER_KILLS'] ?? 100)
/** Kills come up to so long after a mount is ready: the start of the writers, the middle of uploads. */
const KILL_MS_MAX = 250
const CHECK_EVERY = 20
const SEED = 7

const fuse = await probeFuse()
const skip = fuse.available ? false : `no mount can be made here: ${fuse.why}`

/** From 0 up to 1, the same every time. */
function* randoms(seed: number): Generator<number, never> {
  for (let state = seed; ;) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    yield state / 2 ** 32
  }
}

class Writers {
  readonly notes: string
  readonly #children: readonly ChildProcess[]
  readonly #said: string[] = []

  constructor(notes: string, directory: string, names: readonly string[]) {
    this.notes = notes
    this.#children = names.map((name, index) => {
      const child = spawn('python3', [WRITERS, 'write', directory, notes, name, String(SEED + index)], {
        cwd: '/',
        stdio: ['ignore', 'ignore', 'pipe'],
      })
      child.stderr.on('data', (chunk: Buffer) => this.#said.push(chunk.toString()))
      return child
    })
  }

  /** Resolves when all have ended, none of them by an error that it did not expect. */
  async stop(): Promise<void> {
    writeFileSync(join(this.notes, 'stop'), '')
    for (const child of this.#children) {
      if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
    }
    assert.deepEqual(this.#said, [])
  }

  kill(): void {
    for (const child of this.#children) child.kill('SIGKILL')
  }
}

/** What is wrong in `tree` by the notes of the writers; and how many of their items were acknowledged. */
async function checked(
  mount: BucketMount,
  notes: string,
  tree: string,
): Promise<{ acknowledged: number; wrong: string[] }> {
  return JSON.parse(await mount.sh(`python3 '${WRITERS}' check '${notes}' '${tree}'`)) as {
    acknowledged: number
    wrong: string[]
  }
}

test(
  `[S18] [S19] [S31] ${KILLS} times SIGKILL under load: what was acknowledged is whole, and nothing is left over`,
  { skip },
  async (t) => {
    const scratch = mkdtempSync(join(tmpdir(), 'eider-kill-'))
    const notes = join(scratch, 'notes')
    mkdirSync(notes)
    let writers: Writers | undefined
    try {
      const mountArguments = ['--cache', join(scratch, 'cache'), '--cache-size', '200MB', '--cache-min-free', '1MB']
      await using mount = await BucketMount.start({ mountArguments })
      writers = new Writers(notes, mount.directory, ['a', 'b', 'c', 'large'])
      const random = randoms(SEED)
      for (let kills = 1; kills <= KILLS; kills++) {
        await sleep(random.next().value * KILL_MS_MAX)
        await mount.kill()
        // Nothing runs, so this is what a reader of the bucket would find.
        if (kills % CHECK_EVERY === 0)
          assert.deepEqual((await checked(mount, notes, mount.bucket)).wrong, [], `after ${kills} kills`)
        await mount.mount()
      }
      await writers.stop()
      assert.deepEqual(mount.stagedNames, [], 'nothing is staged any more')
      assert.deepEqual(mount.keptNames, [], 'nothing was in conflict')
      const keys = {
        region: 'us-east-1',
        endpoint: mount.endpoint,
        accessKey: 'EIDERTESTKEY',
        secretKey: 'eider/test+secret',
      }
      const client = clientOf(keys, 'bucket')
      try {
        await until('no upload is open', async () => {
          for await (const _ of openUploads(client, '', undefined)) return false
          return true
        })
      } finally {
        await client.close()
      }
      const seen = await checked(mount, notes, mount.directory)
      assert.deepEqual(seen.wrong, [], 'through the mount')
      await mount.unmount()
      const stored = await checked(mount, notes, mount.bucket)
      assert.deepEqual(stored.wrong, [], 'in the bucket')
      assert.ok(stored.acknowledged >= KILLS, `${stored.acknowledged} files were acknowledged`)
      assert.deepEqual(readdirSync(mount.staging), ['conflicts'])
      t.diagnostic(`${stored.acknowledged} files and moves were acknowledged`)
    } finally {
      writers?.kill()
      rmSync(scratch, { recursive: true, force: true })
    }
  },
)
