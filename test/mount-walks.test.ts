/**
 * find, cp -r and rm -r of a tree of many directories in a mounted bucket, each by a mount that knows nothing yet: what they
 * give, against a local tree, and how many requests they cost.
 */
import assert from 'node:assert/strict'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'

import { probeFuse } from '#fuse/probe.ts'

import { BucketMount } from './bucket-mount.ts'
import { type FaultProxy, type Noted, startFaultProxy } from './servers/fault-proxy.ts'

const fuse = await probeFuse()
const skip = fuse.available ? false : `no mount can be made here: ${fuse.why}`

const DIRECTORIES = 1 + 10 + 200
const FILES = 1000

interface Counts {
  readonly lists: number
  readonly heads: number
  readonly deletes: number
}

function countsOf(noted: readonly Noted[]): Counts {
  const count = (of: (request: Noted) => boolean): number => noted.filter(of).length
  return {
    lists: count(({ method, url }) => method === 'GET' && url.includes('list-type=2')),
    heads: count(({ method }) => method === 'HEAD'),
    deletes: count(({ method, url }) => method === 'DELETE' || (method === 'POST' && url.includes('delete'))),
  }
}

test(
  '[S100] [S89] find, cp -r and rm -r of 211 directories cost a few listings, and each look once',
  { skip },
  async (t) => {
    let proxy: FaultProxy | undefined
    try {
      await using mount = await BucketMount.start({
        // So that the counts do not depend on how fast this machine is.
        mountArguments: ['--validity', '5m'],
        proxied: async (endpoint) => {
          proxy = await startFaultProxy(endpoint)
          return proxy.endpoint
        },
      })
      const { noted } = proxy ?? assert.fail('the mount goes through the proxy')
      await mount.sh(`mkdir "$W/tree"
      for share in $(seq 10); do for directory in $(seq 20); do
        mkdir -p "$W/tree/s$share/d$directory"
        for file in 1 2 3 4 5; do echo "$share $directory $file" > "$W/tree/s$share/d$directory/f$file"; done
      done; done
      cp -r "$W/tree" "$M/tree"`)
      /** Runs a script on a mount that has never seen the tree. */
      const counted = async (name: string, script: string): Promise<Counts> => {
        await mount.unmount()
        await rm(join(mount.scratch, 'state'), { recursive: true, force: true })
        await mount.mount()
        const before = noted.length
        await mount.sh(script)
        const counts = countsOf(noted.slice(before))
        t.diagnostic(`${name}: ${JSON.stringify(counts)}`)
        return counts
      }

      const found = await counted(
        'find',
        `(cd "$M" && find tree | sort) > "$W/found"; (cd "$W" && find tree | sort) | diff - "$W/found"`,
      )
      assert.ok(found.lists <= 6, `${found.lists} listings`)
      // A listing does not tell whether a small file is a symlink.
      assert.ok(found.heads <= DIRECTORIES + FILES + 10, `${found.heads} looks`)

      const copied = await counted('cp -r', `cp -r "$M/tree" "$W/back"; diff -r "$W/tree" "$W/back"`)
      assert.ok(copied.lists <= 6, `${copied.lists} listings`)
      assert.ok(copied.heads <= DIRECTORIES + FILES + 10, `${copied.heads} looks`)

      const removed = await counted('rm -r', `rm -r "$M/tree"; [ -z "$(ls -A "$M")" ]; sync -f "$M"`)
      assert.ok(removed.lists <= 7, `${removed.lists} listings`)
      assert.ok(removed.heads <= DIRECTORIES + FILES + 10, `${removed.heads} looks`)
      assert.ok(removed.deletes <= 20, `${removed.deletes} removals`)
      await mount.unmount()
      await mount.mount()
      await mount.sh('[ -z "$(ls -A "$M")" ]')
    } finally {
      await proxy?.close()
    }
  },
)
