/**
 * Renames, exchanges and removals through a mount of a bucket of which one answer after another is lost, with nobody to ask
 * after that until the call has failed: whatever the errno, the mount then shows what the bucket has, what is open goes on
 * where its bytes are, and nothing is lost, empty, kept as if somebody else had written, or left to be finished.
 */
import assert from 'node:assert/strict'
import { spawn, type ChildProcess } from 'node:child_process'
import { createInterface } from 'node:readline'
import { describe, test } from 'node:test'

import { probeFuse } from '#fuse/probe.ts'

import { BucketMount } from './bucket-mount.ts'
import { type FaultProxy, type Noted, startFaultProxy } from './servers/fault-proxy.ts'

const fuse = await probeFuse()
const skip = fuse.available ? false : `no mount can be made here: ${fuse.why}`

/** Python: what is open before a call, the call, and what is written after it; one line for each. */
const ACTOR = `
import ctypes, errno, json, os, sys
top = sys.argv[1]
libc = ctypes.CDLL(None, use_errno=True)
def call(function, *args):
    try:
        function(*args)
        return 'done'
    except OSError as error:
        return errno.errorcode[error.errno]
def exchange(a, b):
    if libc.renameat2(-100, a.encode(), -100, b.encode(), 2) != 0:
        raise OSError(ctypes.get_errno(), 'exchange')
files = {}
for line in sys.stdin:
    step = json.loads(line)
    at = [os.path.join(top, name) for name in step.get('names', [])]
    what = step['do']
    answer = 'done'
    if what == 'open':
        files[step['names'][0]] = os.open(at[0], os.O_RDWR)
        os.pwrite(files[step['names'][0]], b'1', 0)
        os.fsync(files[step['names'][0]])
    elif what == 'write': answer = call(os.pwrite, files[step['names'][0]], b'2', 1)
    elif what == 'read': answer = os.pread(files[step['names'][0]], 100, 0).decode()
    elif what == 'close': answer = call(os.close, files.pop(step['names'][0]))
    elif what == 'rename': answer = call(os.rename, *at)
    elif what == 'exchange': answer = call(exchange, *at)
    elif what == 'unlink': answer = call(os.unlink, *at)
    elif what == 'rmdir': answer = call(os.rmdir, *at)
    elif what == 'tree':
        answer = {}
        def fail(error): raise error
        for folder, directories, names in os.walk(at[0], onerror=fail):
            for name in directories: answer[os.path.relpath(os.path.join(folder, name), at[0])] = None
            for name in names:
                with open(os.path.join(folder, name)) as file: answer[os.path.relpath(file.name, at[0])] = file.read()
    print(json.dumps(answer), flush=True)
`

/** What lies in a directory: the texts of files, by path. */
type Tree = Readonly<Record<string, string | null>>

interface Scenario {
  readonly name: string
  /** Files that are there before, by path; what ends in a slash is a directory. */
  readonly there: readonly string[]
  readonly open: readonly string[]
  readonly call: { readonly do: string; readonly names: readonly string[] }
  /** How many requests that change something it makes. */
  readonly changes: number
  /** What may be gone after it. */
  readonly gone?: string
}

const SCENARIOS: readonly Scenario[] = [
  {
    name: 'the rename of a file',
    there: ['from'],
    open: ['from'],
    call: { do: 'rename', names: ['from', 'to'] },
    changes: 2,
  },
  {
    name: 'a rename over a file',
    there: ['from', 'to'],
    open: ['from', 'to'],
    call: { do: 'rename', names: ['from', 'to'] },
    changes: 2,
    gone: 'to',
  },
  {
    name: 'the rename of a directory',
    there: ['from/', 'from/a', 'from/b', 'from/in/', 'from/in/c'],
    open: ['from/a', 'from/in/c'],
    call: { do: 'rename', names: ['from', 'to'] },
    changes: 9,
  },
  {
    name: 'an exchange of files',
    there: ['from', 'to'],
    open: ['from', 'to'],
    call: { do: 'exchange', names: ['from', 'to'] },
    changes: 8,
  },
  {
    name: 'a removal',
    there: ['from'],
    open: ['from'],
    call: { do: 'unlink', names: ['from'] },
    changes: 1,
    gone: 'from',
  },
  {
    name: 'the removal of a directory',
    there: ['from/'],
    open: [],
    call: { do: 'rmdir', names: ['from'] },
    changes: 1,
  },
]

class Actor implements AsyncDisposable {
  readonly #child: ChildProcess
  readonly #lines: AsyncIterator<string>

  constructor(directory: string) {
    this.#child = spawn('timeout', ['-k', '2', '100', 'python3', '-c', ACTOR, directory], {
      cwd: '/',
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    assert.ok(this.#child.stdout !== null, 'its output is a pipe')
    this.#lines = createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]()
  }

  async take(what: string, ...names: readonly string[]): Promise<unknown> {
    this.#child.stdin?.write(`${JSON.stringify({ do: what, names })}\n`)
    const { value, done } = await this.#lines.next()
    assert.ok(done !== true, `${what} ${names.join(' ')} returned`)
    return JSON.parse(value)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.stdin?.end()
    await this.#lines.next()
  }
}

const changes = ({ method }: Noted): boolean => method !== 'GET' && method !== 'HEAD'

/** The `count`th change from now on loses its answer, and nothing is answered after that. */
function loseAnswer(proxy: FaultProxy, count: number): { readonly happened: () => boolean } {
  let seen = 0
  let isGone = false
  proxy.clear()
  proxy.fault(
    (request) => {
      if (isGone || !changes(request) || ++seen < count) return false
      isGone = true
      return true
    },
    { kind: 'lose' },
  )
  proxy.fault(() => isGone, { kind: 'refuse' }, Infinity)
  return { happened: () => isGone }
}

describe('lost answers to changes of names', { skip, concurrency: 3 }, () => {
  for (const validity of ['1s', '1h']) {
    test(`[S110] [S111] [S112] a mount shows what a bucket has after any answer to a change of names was lost (validity ${validity})`, async (t) => {
      let proxy: FaultProxy | undefined
      const failures: string[] = []
      try {
        await using mount = await BucketMount.start({
          mountArguments: ['--io-timeout', '400ms', '--validity', validity],
          proxied: async (endpoint) => {
            proxy = await startFaultProxy(endpoint)
            return proxy.endpoint
          },
        })
        assert.ok(proxy !== undefined, 'the mount goes through the proxy')
        const trees: Record<string, Tree> = {}
        for (const [number, scenario] of SCENARIOS.entries()) {
          for (let count = 1; count <= scenario.changes; count++) {
            // The kernel believes for longer in the same way after each.
            if (validity === '1h' && count !== 1 && count !== scenario.changes) continue
            const top = `s${number}-${count}`
            const of = `${scenario.name}, answer ${count}`
            try {
              trees[top] = await play(mount, proxy, scenario, top, count, t.diagnostic.bind(t))
            } catch (error) {
              failures.push(`${of}: ${error instanceof Error ? error.message : String(error)}`)
            }
          }
        }
        proxy.clear()
        assert.deepEqual(failures, [], failures.join('\n---\n'))
        assert.deepEqual(mount.keptNames, [], mount.log)
        await mount.sh('sleep 1.1')
        await assertTrees(mount, trees, 'later')
        // Whoever opens the bucket next finds nothing that was left to be finished, and the same.
        await mount.unmount()
        await mount.sh('[ -z "$(find "$B/.eider" -name "*.json")" ]; [ -z "$(ls "$B/.eider/exchange" || true)" ]')
        await mount.mount()
        await assertTrees(mount, trees, 'to another mount')
      } finally {
        await proxy?.close()
      }
    })
  }

  test('[S111] what --write-back has acknowledged after a rename that lost its answer survives SIGKILL where the file is', async () => {
    let proxy: FaultProxy | undefined
    try {
      await using mount = await BucketMount.start({
        mountArguments: ['--io-timeout', '400ms', '--write-back'],
        proxied: async (endpoint) => {
          proxy = await startFaultProxy(endpoint)
          return proxy.endpoint
        },
      })
      assert.ok(proxy !== undefined, 'the mount goes through the proxy')
      for (const [count, expected] of [
        [1, { from: '12from', to: '1 from' }],
        [2, { to: '12from' }],
      ] as const) {
        const top = `s${count}`
        await mount.sh(`mkdir "$M/${top}"; printf '0 from' > "$M/${top}/from"`)
        await mount.sh(`for i in $(seq 500); do [ ! -s "$B/${top}/from" ] || break; sleep 0.02; done`)
        {
          await using actor = new Actor(`${mount.directory}/${top}`)
          await actor.take('open', 'from')
          await mount.sh(`for i in $(seq 500); do [ "$(cat "$B/${top}/from")" != '1 from' ] || break; sleep 0.02; done`)
          loseAnswer(proxy, count)
          assert.equal(await actor.take('rename', 'from', 'to'), 'EIO')
          assert.equal(await actor.take('write', 'from'), 'done')
          assert.equal(await actor.take('close', 'from'), 'done')
        }
        await mount.kill()
        proxy.clear()
        await mount.mount()
        await mount.remount()
        await using actor = new Actor(mount.directory)
        assert.deepEqual(await actor.take('tree', top), expected, `answer ${count}`)
      }
      assert.deepEqual(mount.keptNames, [], mount.log)
    } finally {
      await proxy?.close()
    }
  })
})

/** Takes the steps of a scenario; gives what the mount shows in the end. */
async function play(
  mount: BucketMount,
  proxy: FaultProxy,
  { there, open, call, gone }: Scenario,
  top: string,
  count: number,
  tell: (line: string) => void,
): Promise<Tree> {
  proxy.clear()
  const make = there.map((name) => (name.endsWith('/') ? `mkdir "$T/${name}"` : `printf '0 ${name}' > "$T/${name}"`))
  await mount.sh(`T="$M/${top}"; mkdir "$T"; ${make.join('; ')}; ls -lR "$T" > /dev/null`)
  await using actor = new Actor(`${mount.directory}/${top}`)
  for (const name of open) await actor.take('open', name)
  const lost = loseAnswer(proxy, count)
  const errno = await actor.take(call.do, ...call.names)
  const written = new Set<string>()
  for (const name of open) if ((await actor.take('write', name)) === 'done') written.add(name)
  const happened = lost.happened()
  proxy.clear()
  tell(`${top} ${call.do}: ${String(errno)}${happened ? '' : ', no such change'}`)
  assert.ok(errno === 'done' || errno === 'EIO', String(errno))
  for (const name of open) {
    const text = `1${written.has(name) ? '2' : ' '}${name}`
    const read = String(await actor.take('read', name))
    assert.equal(read, text, `${name} through its handle after ${errno}`)
    assert.equal(await actor.take('close', name), 'done', `${name} closes`)
  }
  const tree = (await actor.take('tree', '')) as Tree
  const files = there.filter((name) => !name.endsWith('/'))
  const texts = (names: readonly string[]): string[] =>
    names.map((name) => (open.includes(name) ? `12${name}` : `0 ${name}`)).toSorted()
  const found = Object.values(tree)
    .filter((text) => text !== null)
    .toSorted()
  const isGone = gone !== undefined && found.length < files.length
  assert.deepEqual(
    found,
    texts(files.filter((name) => !isGone || name !== gone)),
    'each file is there once, with its bytes',
  )
  return tree
}

async function assertTrees(mount: BucketMount, trees: Readonly<Record<string, Tree>>, when: string): Promise<void> {
  await using actor = new Actor(mount.directory)
  for (const [top, tree] of Object.entries(trees))
    assert.deepEqual(await actor.take('tree', top), tree, `${top} ${when}`)
}
