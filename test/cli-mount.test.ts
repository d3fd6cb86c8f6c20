/** `eider mount` and `eider unmount` as a user types them: to the background and back, and what is said when they cannot. */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { mkdir, open, readFile, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { after, before, test } from 'node:test'
import { probeFuse } from '#fuse/probe.ts'
import { type Gateway, startGateway } from '#gateway/gateway.ts'
import { unmountFuse } from '#os/fuse-unmount.ts'
import { mounts, mountsOf } from '#os/mount-table.ts'
import { openStore } from '#store/open-store.ts'
import type { Store } from '#store/store.ts'
import { eider, gone, startEider } from './eider-process.ts'

const fuse = await probeFuse()
const skip = fuse.available ? false : `no mount can be made here: ${fuse.why}`

const KEYS = { accessKey: 'TESTKEY', secretKey: 'a-secret-that-must-not-be-logged' }
const HOUR_MS = 3_600_000
const scratch = mkdtempSync(join(tmpdir(), 'eider-cli-mount-'))
const data = join(scratch, 'data')
const state = join(scratch, 'state')
let store: Store
let gateway: Gateway
/** Its clock is an hour ahead. */
let aheadGateway: Gateway
/** Takes requests for eu-west-1 only. */
let regionGateway: Gateway

const env = { AWS_ACCESS_KEY_ID: KEYS.accessKey, AWS_SECRET_ACCESS_KEY: KEYS.secretKey, XDG_STATE_HOME: state }
const bucketAt = ({ address }: Gateway, bucket = 'bucket', region = 'us-east-1'): string =>
  `s3://${bucket}?endpoint=http://127.0.0.1:${address.port}&region=${region}&style=path`

before(async () => {
  mkdirSync(join(data, 'bucket'), { recursive: true })
  store = await openStore(data)
  const common = { store, host: '127.0.0.1', port: 0, ...KEYS }
  gateway = await startGateway({ ...common, stagingDirectory: join(scratch, 'uploads') })
  aheadGateway = await startGateway({
    ...common,
    stagingDirectory: join(scratch, 'uploads-ahead'),
    nowMs: () => Date.now() + HOUR_MS,
  })
  regionGateway = await startGateway({
    ...common,
    stagingDirectory: join(scratch, 'uploads-region'),
    region: 'eu-west-1',
  })
})

after(async () => {
  for (const { directory } of mounts()) {
    if (directory.startsWith(`${scratch}/`)) await unmountFuse(directory, { lazy: true })
  }
  await Promise.all([gateway.close(), aheadGateway.close(), regionGateway.close()])
  await store.close()
  rmSync(scratch, { recursive: true, force: true })
})

test(
  '[S30] a mount goes to the background once it answers, and unmount returns when all is in the store',
  { skip },
  async () => {
    const folder = join(scratch, 'background')
    const mounted = await eider(['mount', bucketAt(gateway), folder, '--mkdir'], { env })
    assert.equal(mounted.stderr, '')
    assert.equal(mounted.code, 0)
    assert.match(mounted.stdout, /^s3:\/\/bucket.* is mounted on .*background; log: .*\n$/)
    await writeFile(join(folder, 'file'), 'bytes')
    // Not closed when the mount is taken away would be busy; written and closed, it is in the store already.
    const unmounted = await eider(['unmount', folder], { env })
    assert.deepEqual(unmounted, { code: 0, stdout: '', stderr: '' })
    assert.equal(readFileSync(join(data, 'bucket', 'file'), 'utf8'), 'bytes')
    assert.deepEqual(mountsOf(folder), [])

    const [log] = readdirSync(join(state, 'eider')).filter((name) => name.endsWith('.log'))
    const text = readFileSync(join(state, 'eider', log ?? ''), 'utf8')
    assert.match(text, /"msg":"mounted"/)
    assert.ok(!text.includes(KEYS.secretKey), 'the secret is not in the log')
  },
)

test('a mount in use is not taken away, and who uses it is told', { skip }, async () => {
  const folder = join(scratch, 'busy')
  await eider(['mount', bucketAt(gateway), folder, '--mkdir'], { env })
  // The shell goes in, rather than `cwd`: a spawn waits for that, and the gateway answers in this very process.
  const user = spawn('sh', ['-c', 'cd "$0" && echo in && exec sleep 100', folder], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  try {
    await once(user.stdout, 'data')
    const refused = await eider(['unmount', folder], { env })
    assert.equal(refused.code, 1)
    assert.match(refused.stderr, new RegExp(`in use by .*${user.pid} \\(sleep\\)`))
    await endOf(user)
    assert.equal((await eider(['unmount', folder], { env })).code, 0)
  } finally {
    user.kill('SIGKILL')
  }
})

test('[S31] what a killed mount left behind is replaced by the next, or removed by unmount', { skip }, async () => {
  const folder = join(scratch, 'killed')
  const kill = async (): Promise<void> => {
    const pid = servingProcess(folder)
    process.kill(pid, 'SIGKILL')
    await gone(pid)
    await assert.rejects(readFile(join(folder, 'file')), /ENOTCONN|ECONNABORTED/)
  }
  await eider(['mount', bucketAt(gateway), folder, '--mkdir'], { env })
  await writeFile(join(folder, 'kept'), 'kept')
  await kill()
  const again = await eider(['mount', bucketAt(gateway), folder, '--mkdir'], { env })
  assert.equal(again.stderr, '')
  assert.equal(again.code, 0)
  assert.equal(await readFile(join(folder, 'kept'), 'utf8'), 'kept')
  await kill()
  const removed = await eider(['unmount', folder], { env })
  assert.equal(removed.code, 0)
  assert.match(removed.stdout, /^Removed what a crashed mount had left on /)
  assert.deepEqual(mountsOf(folder), [])
})

test('a mount over a mount is refused', { skip }, async () => {
  const folder = join(scratch, 'twice')
  await eider(['mount', bucketAt(gateway), folder, '--mkdir'], { env })
  try {
    const second = await eider(['mount', bucketAt(gateway), folder], { env })
    assert.equal(second.code, 1)
    assert.match(second.stderr, /^eider: Cannot mount on '.*twice': .*is mounted there already\n {2}hint: /)
  } finally {
    assert.equal((await eider(['unmount', folder], { env })).code, 0)
  }
})

test('a mount over what its own server works with is refused, either way round', { skip }, async () => {
  const outer = join(scratch, 'nested')
  mkdirSync(join(outer, 'mnt'), { recursive: true })
  for (const [from, on] of [
    [outer, join(outer, 'mnt')],
    [join(outer, 'mnt'), outer],
    [outer, outer],
  ] as const) {
    const outcome = await eider(['mount', `file://${from}`, on], { env })
    assert.equal(outcome.code, 1)
    assert.match(
      outcome.stderr,
      /^eider: Cannot mount on '.*': the store is in '.*', and one would be inside the other\n/,
    )
    assert.deepEqual(mountsOf(on), [])
  }
  const staging = await eider(['mount', bucketAt(gateway), outer, `--staging=${join(outer, 'staging')}`], { env })
  assert.equal(staging.code, 1)
  assert.match(staging.stderr, /the staging directory is in/)
})

test('a bucket without its scheme, and a directory that cannot be made, are one sentence', { skip }, async () => {
  const bare = await eider(['mount', 'bucket', join(scratch, 'bare')], { env })
  assert.equal(bare.code, 2)
  assert.match(bare.stderr, /a bucket is written s3:\/\/bucket\n/)
  const proc = await eider(['mount', bucketAt(gateway), '/proc/eider-cannot-be/below', '--mkdir'], { env })
  assert.equal(proc.code, 1)
  assert.match(proc.stderr, /^eider: Cannot make '\/proc\/eider-cannot-be\/below': ENOENT/)
})

test('a directory that is missing, or that this user may not make, is told with what to do', { skip }, async () => {
  const absent = await eider(['mount', bucketAt(gateway), join(scratch, 'absent')], { env })
  assert.equal(absent.code, 1)
  assert.match(absent.stderr, /^eider: Cannot mount on '.*absent': it does not exist\n {2}hint: .*--mkdir/)
  if (process.getuid?.() !== 0) return
  // Where that user gets to, and may not write.
  const locked = mkdtempSync(join(tmpdir(), 'eider-locked-'))
  chmodSync(locked, 0o755)
  try {
    const refused = await eider(['mount', bucketAt(gateway), join(locked, 'a', 'b'), '--mkdir'], {
      env: { ...env, XDG_STATE_HOME: join(locked, 'state') },
      through: ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups'],
    })
    assert.equal(refused.code, 1)
    const message = `eider: Cannot make '${locked}/a/b': '${locked}' is not writable for this user\n  hint: Name a directory`
    assert.ok(refused.stderr.startsWith(message), refused.stderr)
  } finally {
    rmSync(locked, { recursive: true })
  }
})

test('what --mkdir made is taken away where the mount does not come up, and nothing else', { skip }, async () => {
  const outer = join(scratch, 'made')
  for (const how of [[], ['-f']]) {
    const args = ['mount', bucketAt(gateway, 'absent'), join(outer, 'a', 'b'), '--mkdir', '--log-level=fatal', ...how]
    assert.equal((await eider(args, { env })).code, 1)
    assert.ok(!existsSync(outer))
    mkdirSync(outer)
    assert.equal((await eider(args, { env })).code, 1)
    assert.deepEqual(readdirSync(outer), [])
    mkdirSync(join(outer, 'a', 'b'), { recursive: true })
    assert.equal((await eider(args, { env })).code, 1)
    assert.ok(existsSync(join(outer, 'a', 'b')))
    rmSync(outer, { recursive: true })
  }
})

test('a cache that is a file, or another mount has, is told with what to do', { skip }, async () => {
  const file = join(scratch, 'a-file')
  await writeFile(file, '')
  const wrong = await eider(['mount', bucketAt(gateway), join(scratch, 'cached'), '--mkdir', `--cache=${file}`], {
    env,
  })
  assert.equal(wrong.code, 1)
  assert.match(wrong.stderr, /^eider: Cannot keep attributes in ".*a-file": '.*a-file' is not a directory\n/)
  const [one, two, cache] = ['one', 'two', 'cache'].map((name) => join(scratch, name)) as [string, string, string]
  await eider(['mount', bucketAt(gateway), one, '--mkdir', `--cache=${cache}`], { env })
  const second = await eider(['mount', bucketAt(gateway), two, '--mkdir', `--cache=${cache}`], { env })
  assert.equal(second.code, 1)
  assert.match(
    second.stderr,
    new RegExp(`^eider: .*: another process uses it \\(${servingProcess(one)}\\)\n  hint: Give each mount .*--cache`),
  )
  assert.equal((await eider(['unmount', one], { env })).code, 0)
})

test('told to end by a signal, it ends under a program that uses it', { skip }, async () => {
  const folder = join(scratch, 'signalled')
  const mount = startEider(['mount', bucketAt(gateway), folder, '--mkdir', '-f'], { env })
  await present(folder)
  const user = spawn('sh', ['-c', 'cd "$0" && echo in && exec sleep 100', folder], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  try {
    await once(user.stdout, 'data')
    mount.child.kill('SIGTERM')
    assert.equal(await mount.ended, 0)
    assert.match(mount.stderr, /detached from under the programs that use it/)
    assert.deepEqual(mountsOf(folder), [])
  } finally {
    mount.child.kill('SIGKILL')
    user.kill('SIGKILL')
  }
})

test(
  'told to end while a file is open, it says until when it waits, and ends as soon as that is closed',
  { skip },
  async () => {
    const folder = join(scratch, 'waited-for')
    const mount = startEider(['mount', bucketAt(gateway), folder, '--mkdir', '-f'], { env })
    await present(folder)
    const user = spawn('sh', ['-c', 'exec 9>"$0/open"; echo open; read line; printf late >&9', folder], {
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    try {
      await once(user.stdout, 'data')
      const asked = Date.now()
      mount.child.kill('SIGTERM')
      const [line] = await mount.complains(/^.*programs still use it, and have until then to close their files.*$/m)
      const { why, until, openFiles } = JSON.parse(line) as { why: string; until: string; openFiles: number }
      assert.match(why, new RegExp(`in use by .*${user.pid} `))
      assert.equal(openFiles, 1)
      assert.ok(Date.parse(until) > asked)
      user.stdin.end('\n')
      assert.equal(await mount.ended, 0)
      assert.equal(readFileSync(join(data, 'bucket', 'open'), 'utf8'), 'late')
      assert.doesNotMatch(mount.stderr, /"stack"/)
    } finally {
      mount.child.kill('SIGKILL')
      user.kill('SIGKILL')
    }
  },
)

test('what cannot be stored is kept, and unmount names it and ends with 3', { skip }, async () => {
  const folder = join(scratch, 'cut')
  const away = await startGateway({
    store,
    host: '127.0.0.1',
    port: 0,
    ...KEYS,
    stagingDirectory: join(scratch, 'away'),
  })
  await eider(['mount', bucketAt(away), folder, '--mkdir', '--io-timeout=2s'], { env })
  const file = await open(join(folder, 'lost'), 'w')
  await file.write('bytes')
  await away.close()
  await assert.rejects(file.close(), { code: 'EIO' })
  const outcome = await eider(['unmount', folder], { env })
  assert.equal(outcome.code, 3)
  const [, kept = ''] = /^eider: A file could not be stored; kept here:\n {2}(\S+)\n$/m.exec(outcome.stderr) ?? []
  assert.equal(readFileSync(kept, 'utf8'), 'bytes')
  assert.deepEqual(mountsOf(folder), [])
})

test('unmount tells of a program that waits for a store which is gone, and how to end that', { skip }, async () => {
  const folder = join(scratch, 'blocked')
  const uploads = join(scratch, 'gone')
  const away = await startGateway({ store, host: '127.0.0.1', port: 0, ...KEYS, stagingDirectory: uploads })
  await eider(['mount', bucketAt(away), folder, '--mkdir'], { env })
  const pid = servingProcess(folder)
  const user = spawn('sh', ['-c', 'exec 9>"$0/blocked"; printf 12345 >&9; echo open; read line; exec 9>&-', folder], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  try {
    await once(user.stdout, 'data')
    await away.close()
    user.stdin.end('\n')
    const waits = async (): Promise<boolean> => {
      const { stdout } = await eider(['status', '--json', `--mount=${folder}`], { env })
      const { mounts: told } = JSON.parse(stdout) as { mounts: { waiting: { pid: number } | null }[] }
      return told.some(({ waiting }) => waiting?.pid === user.pid)
    }
    while (!(await waits()));
    assert.match((await eider(['status', `--mount=${folder}`], { env })).stdout, /^ {2}waiting +1 request of programs/m)
    const { code, stderr } = await eider(['unmount', folder], { env })
    assert.equal(code, 1)
    const who = `in use; process ${user.pid} waits for s3:\\S+ since \\S+Z \\(not stored: 1 file, 5 B\\)`
    assert.match(stderr, new RegExp(`^eider: Cannot unmount '${folder}': it is ${who}\n  hint: .*"kill -TERM ${pid}"`))
  } finally {
    process.kill(pid, 'SIGKILL')
    user.kill('SIGKILL')
  }
})

test('unmount leaves alone what is not its own', { skip }, async () => {
  const nothing = await eider(['unmount', scratch], { env })
  assert.equal(nothing.code, 1)
  assert.match(nothing.stderr, /^eider: Cannot unmount '.*': nothing is mounted there\n/)
  const proc = await eider(['unmount', '/proc'], { env })
  assert.equal(proc.code, 1)
  assert.match(proc.stderr, /^eider: Cannot unmount '\/proc': what is mounted there \('proc', proc\) is not Eider's\n/)
})

/** What is wrong, how it is typed, and what is said; each before anything is mounted, with exit code 1. */
const WRONG: readonly (readonly [
  what: string,
  store: () => string,
  env: Readonly<Record<string, string>>,
  message: RegExp,
])[] = [
  ['bucket', () => bucketAt(gateway, 'absent'), {}, /bucket.*absent|absent.*bucket/i],
  ['access key', () => bucketAt(gateway), { AWS_ACCESS_KEY_ID: 'WRONG' }, /key|credential/i],
  [
    'secret key',
    () => bucketAt(gateway),
    { AWS_SECRET_ACCESS_KEY: 'wrong-secret-key' },
    /signature|secret|credential/i,
  ],
  ['clock', () => bucketAt(aheadGateway), {}, /clock|time/i],
  ['endpoint', () => 's3://bucket?endpoint=http://127.0.0.1:1&region=us-east-1', {}, /127\.0\.0\.1:1|reach|connect/i],
]
for (const [what, url, wrong, message] of WRONG) {
  for (const how of ['background', 'foreground'] as const) {
    test(
      `[S32] a wrong ${what} is one sentence, a hint and exit code 1 before the mount appears, in the ${how}`,
      { skip },
      async () => {
        const folder = join(scratch, 'wrong')
        await mkdir(folder, { recursive: true })
        const args = ['mount', url(), folder, '--log-level=fatal', ...(how === 'foreground' ? ['-f'] : [])]
        const outcome = await eider(args, { env: { ...env, ...wrong } })
        assert.equal(outcome.code, 1, outcome.stderr)
        assert.match(outcome.stderr, /^eider: Cannot [^\n]+\n {2}hint: [^\n]+\n$/)
        assert.match(outcome.stderr, message)
        assert.ok(!outcome.stderr.includes(KEYS.secretKey))
        assert.deepEqual(mountsOf(folder), [])
      },
    )
  }
}

for (const [what, wrong, message] of [
  ['endpoint', ['s3://bucket', '--endpoint', 'foo'], /Cannot use --endpoint "foo": http:/],
  ['protocol of the endpoint', ['s3://bucket', '--endpoint', 'ftp://a'], /Cannot use --endpoint "ftp:\/\/a": http:/],
  ['endpoint in a URL', ['s3://bucket?endpoint=foo'], /Cannot use the endpoint "foo"/],
  ['kind of store', ['bogus:x'], /Cannot open the store "bogus:x": there is none of the kind "bogus:"/],
  ['number of slashes', ['s3:/bkt'], /Cannot open "s3:\/bkt": it is not s3:\/\/BUCKET/],
  ['directory URL', ['file://data'], /Cannot open the store "file:\/\/data": expected file:\/\/\/DIRECTORY/],
  ['bucket left out', ['s3://'], /Cannot open "s3:\/\/": it names no bucket/],
  ['option of a URL', ['s3://bucket?regoin=x'], /unknown option "regoin"/],
] as const) {
  test(`[S32] a wrong ${what} is an error of usage, before anything is made or asked`, async () => {
    const folder = join(scratch, 'usage')
    const [url, ...flags] = wrong
    for (const command of [
      ['mount', url, folder, '--mkdir'],
      ['serve', 's3', url],
    ]) {
      const outcome = await eider([...command, ...flags], { env })
      assert.equal(outcome.code, 2, outcome.stderr)
      assert.match(outcome.stderr, /^eider: Cannot [^\n]+\n {2}hint: [^\n]*(?:s3:\/\/BUCKET|http:\/\/)[^\n]*\n$/)
      assert.match(outcome.stderr, message)
      assert.ok(!existsSync(folder))
    }
  })
}

for (const how of ['background', 'foreground'] as const) {
  test(
    `a log file has lines of JSON alone, also where the mount does not come up in the ${how}`,
    { skip },
    async () => {
      const log = join(scratch, `${how}.log`)
      const unreached = 's3://bucket?endpoint=http://127.0.0.1:1&region=us-east-1'
      const args = ['mount', unreached, join(scratch, 'none'), '--mkdir', `--log=${log}`]
      const outcome = await eider(how === 'foreground' ? [...args, '-f'] : args, { env })
      const [, message] = /^eider: (.*)$/m.exec(outcome.stderr) ?? []
      const lines = readFileSync(log, 'utf8')
        .trimEnd()
        .split('\n')
        .map((line) => JSON.parse(line) as { level: string; msg: string; hint?: string })
      const failure = lines.find(({ level }) => level === 'error')
      assert.equal(failure?.msg, message)
      assert.match(failure?.hint ?? '', /endpoint/)
    },
  )
}

test('[S32] no credentials at all are one sentence with a hint', async () => {
  const outcome = await eider(['mount', bucketAt(gateway), join(scratch, 'none'), '--mkdir'], {
    env: { XDG_STATE_HOME: state, HOME: scratch },
  })
  assert.equal(outcome.code, 1)
  assert.match(outcome.stderr, /^eider: Cannot [^\n]+ credentials [^\n]+\n {2}hint: Set AWS_ACCESS_KEY_ID/)
})

test('[S32] a wrong region is put right by what the endpoint says, or told in one sentence', { skip }, async () => {
  const folder = join(scratch, 'region')
  const outcome = await eider(['mount', bucketAt(regionGateway, 'bucket', 'us-east-1'), folder, '--mkdir'], { env })
  if (outcome.code === 0) {
    assert.equal((await eider(['unmount', folder], { env })).code, 0)
  } else {
    assert.equal(outcome.code, 1)
    assert.match(outcome.stderr, /^eider: Cannot [^\n]*region[^\n]*\n {2}hint: [^\n]+\n$/)
  }
})

test('a log file that cannot be written is told where the command was typed', async () => {
  await writeFile(join(scratch, 'not-a-directory'), '')
  const outcome = await eider(['mount', bucketAt(gateway), scratch, '--log', join(scratch, 'not-a-directory', 'log')], {
    env,
  })
  assert.equal(outcome.code, 1)
  assert.match(outcome.stderr, /^eider: Cannot log to '.*not-a-directory\/log': /)
})

/** The process that serves the mount, from what the command keeps about it. */
function servingProcess(folder: string): number {
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      const args = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0')
      if (args.includes('--foreground') && args.includes(folder)) return Number(pid)
    } catch {
      // It has ended meanwhile.
    }
  }
  throw new Error(`no process serves ${folder}`)
}

/** Resolves when something is mounted there. */
async function present(folder: string): Promise<void> {
  while (mountsOf(folder).length === 0) await delay(10)
}

async function endOf(child: ChildProcess): Promise<void> {
  const ended = once(child, 'exit')
  child.kill('SIGTERM')
  await ended
}
