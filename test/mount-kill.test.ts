/**
 * SIGKILL of a mount at random points, a hundred times, while programs write, replace, rename and remove, and large files go up
 * while they are written: what was acknowledged is in the store, whole, and nothing is left over.
 */
import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'

import { probeFuse } from '#fuse/probe.ts'
import { openUploads } from '#store/s3/open-uploads.ts'

import { checked, randoms, Writers } from './acknowledging-writers.ts'
import { BucketMount } from './bucket-mount.ts'
import { until } from './memory-mount.ts'
import { clientOf } from './servers/bucket.ts'

const KILLS = Number(process.env['EIDER_KILLS'] ?? 100)
/** Kills come up to so long after a mount is ready: the start of the writers, the middle of uploads. */
const KILL_MS_MAX = 250
const CHECK_EVERY = 20
const SEED = 7

const fuse = await probeFuse()
const skip = fuse.available ? false : `no mount can be made here: ${fuse.why}`

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
      writers = new Writers(notes, mount.directory, ['a', 'b', 'c', 'large'], SEED)
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
