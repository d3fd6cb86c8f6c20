/**
 * A mount whose endpoint is gone for a while: within the patience that it was given every operation waits and then succeeds;
 * beyond it, it fails by EIO, and works again when the endpoint does. Nothing that was acknowledged is lost either way.
 */
import assert from 'node:assert/strict'
import { existsSync, readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'

import { probeFuse } from '#fuse/probe.ts'

import { BucketMount } from './bucket-mount.ts'
import { until } from './memory-mount.ts'
import { type FaultProxy, startFaultProxy } from './servers/fault-proxy.ts'

const fuse = await probeFuse()
const skip = fuse.available ? false : `no mount can be made here: ${fuse.why}`

/** What every kind of operation needs to be there before. */
const PREPARE = `
  mkdir "$M/d" "$M/unlisted" "$M/empty"
  for name in acknowledged read replaced appended moved changed removed; do echo "before $name" > "$M/$name"; done
  echo listed > "$M/unlisted/file"
`

/** Python: one call of each kind, all at once; how each ended is written to a file of its name. */
const OPERATIONS = `python3 - <<'EOF'
import errno, os, threading
mount, work, large = os.environ['M'], os.environ['W'] + '/' + os.environ['ROUND'], 20_000_000
os.mkdir(work)
def put(name, data, flags, sync=False):
    fd = os.open(mount + '/' + name, os.O_WRONLY | flags, 0o644)
    try:
        os.write(fd, data)
        if sync: os.fsync(fd)
    finally:
        os.close(fd)
def read(name):
    with open(mount + '/' + name) as file: assert file.read() == 'before ' + name + '\\n'
new = os.environ['ROUND']
calls = {
    'read': lambda: read('read'),
    'created': lambda: put('created-' + new, b'created', os.O_CREAT),
    'large': lambda: put('large-' + new, b'large' * (large // 5), os.O_CREAT),
    'synced': lambda: put('synced-' + new, b'synced', os.O_CREAT, True),
    'replaced': lambda: put('replaced', b'after', os.O_TRUNC),
    'appended': lambda: put('appended', b'after', os.O_APPEND),
    'moved': lambda: os.rename(mount + '/moved', mount + '/d/moved'),
    'changed': lambda: os.chmod(mount + '/changed', 0o600),
    'removed': lambda: os.unlink(mount + '/removed'),
    'directory': lambda: os.mkdir(mount + '/directory'),
    'emptied': lambda: os.rmdir(mount + '/empty'),
    'linked': lambda: os.symlink('target', mount + '/linked'),
    'listed': lambda: os.listdir(mount + '/unlisted') == ['file'] or 1 / 0,
}
def attempt(name):
    result = 'something else'
    try:
        calls[name]()
        result = 'done'
    except OSError as error:
        result = errno.errorcode[error.errno]
    finally:
        with open(work + '/' + name + '.tmp', 'w') as file: file.write(result)
        os.rename(work + '/' + name + '.tmp', work + '/' + name)
threads = [threading.Thread(target=attempt, args=(name,)) for name in calls]
for thread in threads: thread.start()
for thread in threads: thread.join()
EOF
`

/** Python: writes to a file, and closes it while the endpoint is gone. */
const HOLDING = `python3 - <<'EOF'
import errno, os, time
work = os.environ['W'] + '/'
fd = os.open(os.environ['M'] + '/held', os.O_WRONLY | os.O_CREAT)
os.write(fd, b'held')
open(work + 'written', 'w').close()
while not os.path.exists(work + 'gone'): time.sleep(0.02)
try:
    os.close(fd)
    print('closed')
except OSError as error:
    print(errno.errorcode[error.errno])
EOF
`

const OPERATION_NAMES = [
  'read',
  'created',
  'large',
  'synced',
  'replaced',
  'appended',
  'moved',
  'changed',
  'removed',
  'directory',
  'emptied',
  'linked',
  'listed',
]

/** A mount through a proxy that the test can make refuse connections. */
async function withProxied(
  ioTimeout: string,
  body: (mount: BucketMount, proxy: FaultProxy) => Promise<void>,
): Promise<void> {
  let proxy: FaultProxy | undefined
  try {
    await using mount = await BucketMount.start({
      // So what is looked at is asked for, not remembered.
      mountArguments: ['--io-timeout', ioTimeout, '--validity', '0ms'],
      proxied: async (endpoint) => {
        proxy = await startFaultProxy(endpoint)
        return proxy.endpoint
      },
    })
    assert.ok(proxy !== undefined, 'the mount goes through the proxy')
    await body(mount, proxy)
    // All is stored, and nothing had to be kept.
    await mount.unmount()
    assert.deepEqual(mount.keptNames, [])
  } finally {
    await proxy?.close()
  }
}

function breakConnections(proxy: FaultProxy): void {
  proxy.clear()
  proxy.fault(() => true, { kind: 'refuse' }, Infinity)
}

/** How the operations of a round ended; those that run are left out. */
function results(mount: BucketMount, round: string): Record<string, string> {
  const directory = join(mount.work, round)
  if (!existsSync(directory)) return {}
  const names = readdirSync(directory).filter((name) => !name.endsWith('.tmp'))
  return Object.fromEntries(names.map((name) => [name, readFileSync(join(directory, name), 'utf8')]))
}

/** What must be in the bucket once the operations of `round` were done. */
function doneOf(round: string): string {
  return `
    [ "$(cat "$B/acknowledged")" = 'before acknowledged' ]
    [ "$(cat "$B/created-${round}")" = created ]; [ "$(cat "$B/synced-${round}")" = synced ]
    [ "$(stat -c %s "$B/large-${round}")" = 20000000 ]
    [ "$(cat "$B/replaced")" = after ]; [ "$(head -n 1 "$B/appended")" = 'before appended' ]
    [ "$(cat "$B/d/moved")" = 'before moved' ]; [ ! -e "$B/moved" ]; [ ! -e "$B/removed" ]; [ ! -e "$M/removed" ]
    [ "$(stat -c %a "$M/changed")" = 600 ]; [ -d "$M/directory" ]; [ ! -e "$M/empty" ]; [ "$(readlink "$M/linked")" = target ]`
}

test(
  '[S18] operations wait for an endpoint that is gone for less than --io-timeout, and then succeed',
  { skip },
  async () => {
    const goneMs = 8000
    await withProxied('60s', async (mount, proxy) => {
      await mount.sh(PREPARE)
      breakConnections(proxy)
      const operations = mount.sh(`export ROUND=one; ${OPERATIONS}`)
      await until('the endpoint was asked in vain', () => proxy.noted.length > OPERATION_NAMES.length)
      await sleep(goneMs)
      assert.deepEqual(results(mount, 'one'), {}, 'nothing has ended while the endpoint is gone')
      proxy.clear()
      await operations
      assert.deepEqual(
        results(mount, 'one'),
        Object.fromEntries(OPERATION_NAMES.toSorted().map((name) => [name, 'done'])),
      )
      await mount.sh(doneOf('one'))
      // Whoever looks after the mount is told once when it began, and once when it was over.
      assert.deepEqual(mount.log.match(/the endpoint (does not answer|answers again)/g), [
        'the endpoint does not answer',
        'the endpoint answers again',
      ])
    })
  },
)

test(
  '[S18] [S30] operations fail by EIO once an endpoint is gone for longer than --io-timeout, and work again after that',
  { skip },
  async () => {
    await withProxied('2s', async (mount, proxy) => {
      await mount.sh(PREPARE)
      const holding = mount.sh(HOLDING)
      await until('a file is open and written', () => existsSync(join(mount.work, 'written')))
      breakConnections(proxy)
      await mount.sh('touch "$W/gone"')
      assert.equal(await holding, 'EIO\n')
      await mount.sh(`export ROUND=one; ${OPERATIONS}`)
      assert.deepEqual(
        results(mount, 'one'),
        Object.fromEntries(OPERATION_NAMES.toSorted().map((name) => [name, 'EIO'])),
      )
      proxy.clear()
      await mount.sh(`export ROUND=two; ${OPERATIONS}`)
      assert.deepEqual(
        results(mount, 'two'),
        Object.fromEntries(OPERATION_NAMES.toSorted().map((name) => [name, 'done'])),
      )
      await mount.sh(doneOf('two'))
      // What was written in vain was not dropped: it is stored once that can be.
      await until('what was written before it was gone is stored', () => existsSync(join(mount.bucket, 'held')))
      await mount.sh('[ "$(cat "$B/held")" = held ]; [ "$(cat "$M/held")" = held ]')
    })
  },
)
