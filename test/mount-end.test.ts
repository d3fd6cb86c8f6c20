/**
 * How a mount ends while there is something that the store does not have: by signals and by `eider unmount`, with a store
 * that is gone, and under programs that go on writing. What a write or close has acknowledged is in the store or is kept,
 * and the exit code says which: 0 all is stored, 3 some is kept, 1 some is neither.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, test } from 'node:test'

import { probeFuse } from '#fuse/probe.ts'
import { mountsOf } from '#os/mount-table.ts'

import { BucketMount } from './bucket-mount.ts'
import { type FaultProxy, startFaultProxy } from './servers/fault-proxy.ts'
import { eider } from './eider-process.ts'

const fuse = await probeFuse()
const skip = fuse.available ? false : `no mount can be made here: ${fuse.why}`
const skipUnlessRoot = skip || (process.getuid?.() === 0 ? false : 'mounting a small disk needs root')

const BYTES = 4_000_000

/** Python with the mount and the local directory at hand. */
function python(code: string): string {
  return `python3 - <<'EOF'
import errno, os, time
mount, work = os.environ['M'], os.environ['W']
def mark(name, text=''):
    with open(work + '/' + name + '.new', 'w') as file: file.write(text)
    os.rename(work + '/' + name + '.new', work + '/' + name)
def wait_for(name):
    while not os.path.exists(work + '/' + name): time.sleep(0.02)
${code}
EOF
`
}

/** Writes a file and leaves its close to fail, as the store is gone by then. */
async function writeToGoneStore(mount: BucketMount): Promise<void> {
  const writing = mount.attempt(
    python(`
file = os.open(mount + '/only', os.O_WRONLY | os.O_CREAT)
assert os.write(file, b'P' * ${BYTES}) == ${BYTES}
mark('written'); wait_for('gone')
try:
    os.close(file)
except OSError as error:
    assert error.errno == errno.EIO, error
    mark('failed')`),
  )
  await marked(mount, 'written')
  await mount.killGateway()
  writeFileSync(join(mount.work, 'gone'), '')
  const { code, stderr } = await writing
  assert.equal(code, 0, stderr)
  assert.ok(existsSync(join(mount.work, 'failed')), 'the close told that the store does not have it')
}

/** Resolves when a script has marked something as done. */
async function marked(mount: BucketMount, name: string): Promise<void> {
  await mount.sh(`for i in $(seq 3000); do [ ! -e "$W/${name}" ] || break; sleep 0.02; done; [ -e "$W/${name}" ]`)
}

function theKept(mount: BucketMount): Buffer {
  const [name, ...others] = mount.keptNames
  assert.ok(name !== undefined && others.length === 0, `one file is kept: ${mount.keptNames.join(' ')}`)
  return readFileSync(join(mount.staging, 'conflicts', name))
}

describe('the end of a mount', { skip, concurrency: 8 }, () => {
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) {
    test(`[S30] ${signal} while the store is gone keeps what was written, and says where`, async () => {
      await using mount = await BucketMount.start()
      await writeToGoneStore(mount)
      assert.equal(await mount.ends(signal), 3, mount.log)
      assert.ok(theKept(mount).equals(Buffer.alloc(BYTES, 'P')))
      assert.match(mount.log, new RegExp(`"path":"[^"]*${mount.keptNames[0]}"[^\\n]*kept what could not be stored`))
      assert.deepEqual(mountsOf(mount.directory), [])
    })
  }

  test('a store that takes requests and answers none does not hold up the end, and what was written is kept', async () => {
    await using mount = await BucketMount.start()
    const writing = mount.attempt(
      python(`
for number in range(20):
    file = os.open(mount + '/file%d' % number, os.O_WRONLY | os.O_CREAT)
    assert os.write(file, b'P' * 100000) == 100000
mark('written'); wait_for('ended')`),
    )
    await marked(mount, 'written')
    mount.hangGateway()
    try {
      assert.equal(await mount.ends('SIGTERM'), 3, mount.log)
      const conflicts = join(mount.staging, 'conflicts')
      for (const name of mount.keptNames) {
        assert.ok(readFileSync(join(conflicts, name)).equals(Buffer.alloc(100_000, 'P')), name)
      }
      assert.equal(mount.keptNames.length, 20)
      assert.deepEqual(mountsOf(mount.directory), [])
    } finally {
      writeFileSync(join(mount.work, 'ended'), '')
      await mount.killGateway()
      await writing
    }
  })

  test('a second signal ends a mount at once, and what was written is kept all the same', async () => {
    await using mount = await BucketMount.start()
    const writing = mount.attempt(
      python(`
file = os.open(mount + '/only', os.O_WRONLY | os.O_CREAT)
assert os.write(file, b'P' * ${BYTES}) == ${BYTES}
mark('written'); wait_for('ended')`),
    )
    await marked(mount, 'written')
    await mount.killGateway()
    const ended = mount.ends('SIGTERM')
    // Signals that come right after the first are taken for the same.
    const again = setInterval(() => void mount.ends('SIGTERM'), 100)
    assert.equal(await ended, 1, mount.log)
    clearInterval(again)
    writeFileSync(join(mount.work, 'ended'), '')
    await writing
    assert.ok(theKept(mount).equals(Buffer.alloc(BYTES, 'P')))
    assert.match(mount.log, /"path":"[^"]*only","kept":"[^"]+"[^\n]*the process ends/)
  })

  test('a staging directory on a file system without nameless files is one all the same', async () => {
    await using disk = await BucketMount.start()
    await using mount = await BucketMount.start({ staging: join(disk.directory, 'staging') })
    const names = (): string => `ls "${mount.staging}" | grep -c staged || true`
    await mount.sh(`echo stored > "$M/stored"; [ "$(cat "$B/stored")" = stored ]`)
    // The kernel tells of the last close without waiting for an answer.
    await mount.sh(`for i in $(seq 500); do [ "$(${names()})" != 0 ] || exit 0; sleep 0.02; done; exit 1`)
    await writeToGoneStore(mount)
    assert.equal((await mount.sh(names())).trim(), '1')
    assert.equal(await mount.ends('SIGTERM'), 3, mount.log)
    const kept = await disk.sh(
      `cd "${mount.staging}" && ls && cat conflicts/*-only | tr -d P | wc -c && wc -c < conflicts/*-only`,
    )
    assert.deepEqual(kept.trim().split(/\s+/), ['conflicts', '0', String(BYTES)])
  })

  for (const gone of [false, true]) {
    const where = gone ? 'kept, as the store is gone' : 'stored'
    test(`[S30] under a program that goes on writing, all that was acknowledged before the end is ${where}`, async () => {
      await using mount = await BucketMount.start()
      const writing = mount.attempt(
        python(`
file = os.open(mount + '/growing', os.O_WRONLY | os.O_CREAT)
done = os.write(file, b'G' * 1000)
mark('written')
try:
    while True:
        done += os.write(file, b'G' * 1000)
        time.sleep(0.01)
except OSError as error:
    mark('refused', str(done))`),
      )
      await marked(mount, 'written')
      if (gone) await mount.killGateway()
      assert.equal(await mount.ends('SIGTERM'), gone ? 3 : 0, mount.log)
      await writing
      const acknowledged = Number(readFileSync(join(mount.work, 'refused'), 'utf8'))
      const bytes = gone ? theKept(mount) : readFileSync(join(mount.bucket, 'growing'))
      assert.ok(bytes.length >= acknowledged, `${bytes.length} of ${acknowledged} bytes`)
      assert.ok(acknowledged > 1000, 'the program wrote on after the signal')
      assert.ok(bytes.equals(Buffer.alloc(bytes.length, 'G')))
      assert.deepEqual(mountsOf(mount.directory), [])
    })
  }

  test('a full staging disk does not keep unmount from keeping what is staged', { skip: skipUnlessRoot }, async () => {
    const small = mkdtempSync(join(tmpdir(), 'eider-small-'))
    assert.equal(spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=6m', 'small', small], { cwd: '/' }).status, 0)
    try {
      await using mount = await BucketMount.start({ staging: join(small, 'staging') })
      await writeToGoneStore(mount)
      const outcome = await eider(['unmount', mount.directory])
      assert.equal(outcome.code, 3, outcome.stderr)
      const [, path = ''] = /A file could not be stored; kept here:\n {2}(\S+)\n$/.exec(outcome.stderr) ?? []
      assert.ok(readFileSync(path).equals(Buffer.alloc(BYTES, 'P')))
      assert.equal(statSync(path).nlink, 1)
      assert.equal(await mount.ends(), 3)
    } finally {
      spawnSync('umount', ['-l', small], { cwd: '/' })
      rmSync(small, { recursive: true, force: true })
    }
  })

  test('what can neither be stored nor kept is named by unmount, and kept once that can be', async () => {
    await using mount = await BucketMount.start()
    await writeToGoneStore(mount)
    const conflicts = join(mount.staging, 'conflicts')
    rmSync(conflicts, { recursive: true })
    writeFileSync(conflicts, 'in the way')
    const outcome = await eider(['unmount', mount.directory])
    assert.equal(outcome.code, 1)
    assert.match(outcome.stderr, /^eider: Cannot store or keep 1 files of '[^']+': '[^']*only'; process \d+ still has/m)
    rmSync(conflicts)
    assert.equal(await mount.ends(), 3)
    assert.ok(theKept(mount).equals(Buffer.alloc(BYTES, 'P')))
  })

  test('a signal ends a mount also where something can neither be stored nor kept, with 1 and its path', async () => {
    await using mount = await BucketMount.start()
    await writeToGoneStore(mount)
    rmSync(join(mount.staging, 'conflicts'), { recursive: true })
    writeFileSync(join(mount.staging, 'conflicts'), 'in the way')
    assert.equal(await mount.ends('SIGTERM'), 1)
    assert.match(mount.log, /"path":"[^"]*only"[^\n]*lost what could neither be stored nor kept/)
    assert.deepEqual(mountsOf(mount.directory), [])
  })

  test('[S114] unmount names what was removed here and could not be removed from the store, and ends with 3', async () => {
    let proxy: FaultProxy | undefined
    try {
      await using mount = await BucketMount.start({
        mountArguments: ['--io-timeout', '1s'],
        proxied: async (endpoint) => {
          proxy = await startFaultProxy(endpoint)
          proxy.fault(({ method, url }) => method === 'POST' && url.includes('delete'), { kind: 'refuse' }, Infinity)
          return proxy.endpoint
        },
      })
      await mount.sh('for i in $(seq -w 16); do touch "$M/f$i"; done; rm "$M"/f*; [ -z "$(ls "$M")" ]')
      const outcome = await eider(['unmount', mount.directory])
      assert.equal(outcome.code, 3, outcome.stderr)
      const names = ['03', '04', '05', '06', '07', '08', '09', '10', '11', '12'].map((number) => `  f${number}\n`)
      assert.match(outcome.stderr, /^eider: 14 removals could not be made in s3:\S+; this is there again:$/m)
      assert.ok(outcome.stderr.endsWith(`${names.join('')}  and 4 more\n`), outcome.stderr)
      assert.equal(await mount.ends(), 3)
      assert.match(mount.log, /"count":14,[^\n]*could not remove all that was removed here/)
      assert.equal(readdirSync(mount.bucket).filter((name) => name.startsWith('f')).length, 14)
    } finally {
      await proxy?.close()
    }
  })
})
