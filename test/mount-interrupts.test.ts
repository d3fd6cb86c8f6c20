/** Programs that are killed while the endpoint of their mount does not answer: they end, and what they had asked for goes on. */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'

import { probeFuse } from '#fuse/probe.ts'

import { BucketMount } from './bucket-mount.ts'
import { until } from './memory-mount.ts'
import { type FaultProxy, startFaultProxy } from './servers/fault-proxy.ts'

const fuse = await probeFuse()
const skip = fuse.available ? false : `no mount can be made here: ${fuse.why}`

/**
 * What the programs ask, each with the request of the store by which it is known to be under way. That the program waits for
 * the mount does not tell it: the kernel may be at its look at the name before, which ends with the program.
 */
const CALLS: readonly (readonly [call: string, request: string])[] = [
  ['os.mkdir(m + "/made")', 'PUT /bucket/made/'],
  ['os.symlink("target", m + "/linked")', 'PUT /bucket/linked'],
  ['os.rmdir(m + "/empty")', 'GET /bucket?encoding-type=url&list-type=2&max-keys=2&prefix=empty%2F'],
  ['os.unlink(m + "/removed")', 'DELETE /bucket/removed'],
  ['os.rename(m + "/moved", m + "/there")', 'HEAD /bucket/moved'],
  ['os.chmod(m + "/changed", 0o600)', 'HEAD /bucket/changed'],
]

test(
  '[S129] who is killed while the store does not answer ends, and its call takes effect all the same',
  { skip },
  async () => {
    let proxy: FaultProxy | undefined
    const proxied = async (endpoint: string): Promise<string> => {
      proxy = await startFaultProxy(endpoint)
      return proxy.endpoint
    }
    const mount = await BucketMount.start({ proxied, mountArguments: ['--io-timeout', '120s', '--validity', '1h'] })
    const answering = Promise.withResolvers<void>()
    const children: ChildProcess[] = []
    try {
      const { noted, ...faults } = proxy ?? assert.fail('no endpoint was asked for')
      await mount.sh('mkdir "$M/empty"; for f in removed moved changed; do echo x > "$M/$f"; done; ls -l "$M"')
      faults.clear()
      faults.fault(() => true, { kind: 'wait', until: () => answering.promise }, Infinity)
      for (const [call, request] of CALLS) {
        const child = spawn('python3', ['-c', `import os; m = "${mount.directory}"; ${call}`], {
          cwd: '/',
          stdio: ['ignore', 'inherit', 'inherit'],
        })
        children.push(child)
        await until(`${call} is under way`, () => noted.some(({ method, url }) => `${method} ${url}` === request))
        const exit = once(child, 'exit')
        child.kill('SIGKILL')
        const late = new Promise((resolve) => setTimeout(resolve, 20_000, 'it still waits').unref())
        assert.deepEqual(await Promise.race([exit, late]), [null, 'SIGKILL'], call)
      }
      answering.resolve()
      const at = (name: string): boolean => existsSync(join(mount.bucket, name))
      await until('the rest has happened', () => at('linked') && at('there') && !at('removed') && !at('moved'))
      await mount.sh('touch "$M/later"; ls "$M" > /dev/null')
      await mount.remount()
      assert.equal(
        await mount.sh('ls "$M"; stat -c %a "$M/changed"; readlink "$M/linked"; test -d "$M/made"'),
        'changed\nlater\nlinked\nmade\nthere\n600\ntarget\n',
      )
    } finally {
      answering.resolve()
      for (const child of children) child.kill('SIGKILL')
      await mount[Symbol.asyncDispose]()
      await proxy?.close()
    }
  },
)
