/**
 * Write-back under SIGKILL: what a close has acknowledged is in the store in the end, once and whole, also where the store was
 * away when the mount was killed.
 */
import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'

import { probeFuse } from '#fuse/probe.ts'

import { checked, randoms, Writers } from './acknowledging-writers.ts'
import { BucketMount } from './bucket-mount.ts'
import { until } from './memory-mount.ts'
import { type FaultProxy, startFaultProxy } from './servers/fault-proxy.ts'

const KILLS = Number(process.env['EIDER_KILLS'] ?? 20)
const KILL_MS_MAX = 800
const SEED = 11

const fuse = await probeFuse()
const skip = fuse.available ? false : `no mount can be made here: ${fuse.why}`

test(
  `[S96] [S97] [S98] [S99] ${KILLS} times SIGKILL under load with write-back: what was acknowledged is stored, and nothing is left over`,
  { skip },
  async (t) => {
    const scratch = mkdtempSync(join(tmpdir(), 'eider-write-back-'))
    const notes = join(scratch, 'notes')
    mkdirSync(notes)
    let writers: Writers | undefined
    try {
      await using mount = await BucketMount.start({ mountArguments: ['--write-back'] })
      writers = new Writers(notes, mount.directory, ['a', 'b', 'c', 'large'], SEED)
      const random = randoms(SEED)
      for (let kills = 1; kills <= KILLS; kills++) {
        await sleep(random.next().value * KILL_MS_MAX)
        await mount.kill()
        await mount.mount()
      }
      await writers.stop()
      assert.deepEqual((await checked(mount, notes, mount.directory)).wrong, [], `through the mount\n${mount.log}`)
      await mount.unmount()
      assert.deepEqual(mount.keptNames, [], `nothing was in conflict\n${mount.log}`)
      const stored = await checked(mount, notes, mount.bucket)
      assert.deepEqual(stored.wrong, [], `in the bucket\n${mount.log}`)
      assert.ok(stored.acknowledged >= KILLS, `${stored.acknowledged} files were acknowledged`)
      assert.deepEqual(readdirSync(mount.staging).sort(), ['conflicts', 'journal'])
      assert.deepEqual(readdirSync(join(mount.staging, 'journal')), [])
      t.diagnostic(`${stored.acknowledged} files and moves were acknowledged`)
    } finally {
      writers?.kill()
      rmSync(scratch, { recursive: true, force: true })
    }
  },
)

test(
  '[S96] [S97] what was closed while the store was away is stored by the mount after a SIGKILL',
  { skip },
  async () => {
    let proxy: FaultProxy | undefined
    let isAway = false
    try {
      const proxied = async (endpoint: string): Promise<string> => {
        proxy = await startFaultProxy(endpoint)
        proxy.fault(() => isAway, { kind: 'refuse' }, Infinity)
        return proxy.endpoint
      }
      await using mount = await BucketMount.start({ proxied, mountArguments: ['--write-back', '--validity', '1h'] })
      await mount.sh(`
      mkdir "$M/d"
      for number in {1..40}; do echo before > "$M/d/changed$number"; done
      ls "$M" "$M/d" > /dev/null
      sync "$M/d/changed1"
    `)
      await until('all is stored', () => readdirSync(join(mount.staging, 'journal')).length === 0)
      isAway = true
      // The last ones wait for their turn to be sent: one whose put may have reached the store cannot be removed unasked.
      // Each close is answered by the disk alone: without write-back the first one would wait for its 20 seconds.
      await mount.sh(`
      cd "$M/d"
      for number in {1..40}; do echo "after $number" > changed$number; echo "new $number" > new$number; done
      chmod 600 new7
      rm new40
      head -c 3000000 /dev/zero > large
      printf later | dd of=large bs=1 seek=1000000 conv=notrunc status=none
    `)
      assert.equal(readdirSync(join(mount.staging, 'journal')).length, 2 * 80)
      await mount.kill()
      isAway = false
      await mount.mount()
      const look = `
      cat new{1..39} changed{1..40} large | sha256sum
      test ! -e new40
    `
      const seen = await mount.sh(`cd "$M/d"; ${look}`)
      assert.match(await mount.sh('stat -c %a "$M/d/new7"'), /600/)
      await mount.unmount()
      assert.deepEqual(mount.keptNames, [])
      assert.deepEqual(readdirSync(join(mount.staging, 'journal')), [])
      assert.equal(await mount.sh(`cd "$B/d"; ${look}`), seen)
      assert.equal(await mount.sh('cat "$B/d/new39" "$B/d/changed39"'), 'new 39\nafter 39\n')
    } finally {
      await proxy?.close()
    }
  },
)

test(
  '[S93] a file that was changed in the bucket while a program had it open is stored next to that',
  { skip },
  async () => {
    await using mount = await BucketMount.start({ mountArguments: ['--on-conflict', 'keep-both'] })
    const hold = (text: string): string => `
    exec 5<> "$M/report.txt"
    printf '${text}' >&5
    printf theirs > "$B/report.txt"
    exec 5>&-
  `
    await mount.sh(`printf base > "$M/report.txt"; ${hold('ours')}`)
    assert.equal(await mount.sh('cat "$B/report.txt"'), 'theirs')
    assert.equal(await mount.sh('cat "$B"/report\\ \\(conflict*.txt'), 'ours')
    await mount.unmount()
    assert.deepEqual(mount.keptNames, [])
    assert.match(mount.log, /what was written here goes to/)
  },
)
