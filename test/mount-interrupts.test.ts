/** Programs that are killed while the endpoint of their mount does not answer: they end, and what they had asked for goes on. */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'

import { probeFuse } from '#fuse/probe.ts'

import { BucketMount } from './bucket-mount.ts'
import { until } from './memory-mount.ts'
import { type FaultProxy, startFaultProxy } from './servers/fault-proxy.ts'

const fuse = await probeFuse()
const skip = fuse.available ? false : `no mount can be made here: ${fuse.why}`

const CALLS = [
  'os.mkdir(m + "/made")',
  'os.symlink("target", m + "/linked")',
  'os.rmdir(m + "/empty")',
  'os.unlink(m + "/removed")',
  'os.rename(m + "/moved", m + "/there")',
  'os.chmod(m + "/changed", 0o600)',
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
      assert.ok(proxy !== undefined)
      await mount.sh('mkdir "$M/empty"; for f in removed moved changed; do echo x > "$M/$f"; done; ls -l "$M"')
      proxy.fault(() => true, { kind: 'wait', until: () => answering.promise }, Infinity)
      const waiting = CALLS.map(async (call) => {
        const child = spawn('python3', ['-c', `import os; m = "${mount.directory}"; print(1, flush=True); ${call}`], {
          cwd: '/',
          stdio: ['ignore', 'pipe', 'inherit'],
        })
        children.push(child)
        assert.ok(child.stdout !== null)
        await once(child.stdout, 'data')
        const inCall = (): boolean => /request_wait|fuse/.test(readFileSync(`/proc/${child.pid}/wchan`, 'latin1'))
        await until(`${call} waits for the mount`, inCall)
        const exit = once(child, 'exit')
        child.kill('SIGKILL')
        const late = new Promise((resolve) => setTimeout(resolve, 20_000, 'it still waits').unref())
        assert.deepEqual(await Promise.race([exit, late]), [null, 'SIGKILL'], call)
      })
      await Promise.all(waiting)
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
