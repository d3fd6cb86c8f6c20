/** `eider up`: it starts, says what is where, ends in order, and finds everything again, however it ended. */
import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { readdir, readFile, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, afterEach, beforeEach, test } from 'node:test'
import { probeFuse } from '#fuse/probe.ts'
import { unmountFuse } from '#os/fuse-unmount.ts'
import { mounts, mountsOf } from '#os/mount-table.ts'
import { gone, type Running, startEider } from './eider-process.ts'

const fuse = await probeFuse()
const skip = fuse.available ? false : `no mount can be made here: ${fuse.why}`

const notRoot = process.getuid?.() === 0 ? false : 'only root can take the right to mount from a process'

const UP = /Ctrl-C ends it/
let home: string
let folder: string
const homes: string[] = []
const running = new Set<Running>()

beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), 'eider-up-'))
  homes.push(home)
  folder = join(home, 'mnt')
})

afterEach(async () => {
  for (const each of running) {
    each.child.kill('SIGTERM')
    await each.ended
  }
  running.clear()
})

after(async () => {
  for (const { directory } of mounts()) {
    if (homes.some((each) => directory.startsWith(`${each}/`))) await unmountFuse(directory, { lazy: true })
  }
  for (const each of homes) rmSync(each, { recursive: true, force: true })
})

function start(...args: string[]): Running {
  return startThrough([], args)
}

function startThrough(through: readonly string[], args: readonly string[]): Running {
  const started = startEider(['up', ...args], { cwd: home, env: { XDG_STATE_HOME: join(home, 'state') }, through })
  running.add(started)
  return started
}

/** Facts of the screen by name. */
async function shown(up: Running): Promise<Map<string, string>> {
  await up.shows(UP)
  return new Map(
    [...up.stdout.matchAll(/^ {2}(\S+(?: \S+)?) {2,}(\S+)$/gm)].map(([, name = '', value = '']) => [name, value]),
  )
}

async function end(up: Running, signal: NodeJS.Signals): Promise<number | null> {
  running.delete(up)
  up.child.kill(signal)
  return up.ended
}

function children(): number[] {
  const state = JSON.parse(readFileSync(join(home, 'data', '.eider', 'up.json'), 'utf8')) as {
    children: { pid: number }[]
  }
  return state.children.map(({ pid }) => pid)
}

test('a tree is written, ended by Ctrl-C, and found again with the same keys', { skip }, async () => {
  const first = start('--listen=127.0.0.1:0')
  const facts = await shown(first)
  assert.equal(facts.get('folder'), folder)
  assert.equal(facts.get('kept in'), join(home, 'data', 'tree'))
  await writeFile(join(folder, 'file'), 'bytes')
  assert.equal(await readFile(join(home, 'data', 'tree', 'file'), 'utf8'), 'bytes')
  const parts = children()
  assert.equal(parts.length, 2)
  assert.equal(await end(first, 'SIGINT'), 0)
  assert.match(first.stdout, /Ended; all that was written is in .*data\n$/)
  assert.equal(first.stderr, '')
  assert.deepEqual(mountsOf(folder), [])
  for (const pid of parts) await gone(pid)

  const second = start('--listen=127.0.0.1:0')
  const again = await shown(second)
  assert.equal(again.get('access key'), facts.get('access key'))
  assert.equal(again.get('secret key'), facts.get('secret key'))
  assert.equal(await readFile(join(folder, 'file'), 'utf8'), 'bytes')
  assert.equal(await end(second, 'SIGTERM'), 0)
})

test('the screen is enough to read the bucket by its S3 API', { skip }, async () => {
  const facts = await shown(start('--listen=127.0.0.1:0'))
  await writeFile(join(folder, 'one'), '1')
  const { ListObjectsV2Command, S3Client } = await import('@aws-sdk/client-s3')
  const client = new S3Client({
    endpoint: facts.get('S3 endpoint') ?? '',
    region: 'us-east-1',
    forcePathStyle: true,
    credentials: { accessKeyId: facts.get('access key') ?? '', secretAccessKey: facts.get('secret key') ?? '' },
  })
  const listed = await client.send(new ListObjectsV2Command({ Bucket: facts.get('bucket') }))
  assert.ok(listed.Contents?.some(({ Key }) => Key === 'one'))
  client.destroy()
})

test('killed with SIGKILL, its parts end by themselves and a start finds every closed file', { skip }, async () => {
  const first = start('--listen=127.0.0.1:0')
  await shown(first)
  await writeFile(join(folder, 'closed'), 'closed')
  const parts = children()
  assert.equal(await end(first, 'SIGKILL'), null)
  for (const pid of parts) await gone(pid)
  const second = start('--listen=127.0.0.1:0')
  await shown(second)
  assert.equal(await readFile(join(folder, 'closed'), 'utf8'), 'closed')
  assert.deepEqual(await readdir(folder), ['closed'])
})

test('all of it killed with SIGKILL, the dead mount is replaced and every closed file is there', { skip }, async () => {
  const first = start('--listen=127.0.0.1:0')
  await shown(first)
  await writeFile(join(folder, 'closed'), 'closed')
  const parts = children()
  for (const pid of parts) process.kill(pid, 'SIGKILL')
  await end(first, 'SIGKILL')
  for (const pid of parts) await gone(pid)
  assert.equal(mountsOf(folder).length, 1)
  const second = start('--listen=127.0.0.1:0')
  await shown(second)
  assert.equal(mountsOf(folder).length, 1)
  assert.equal(await readFile(join(folder, 'closed'), 'utf8'), 'closed')
})

test('when its mount is killed, the dead folder is taken away, and the end claims no loss', { skip }, async () => {
  const up = start('--listen=127.0.0.1:0')
  await shown(up)
  await writeFile(join(folder, 'closed'), 'closed')
  const [, mount = 0] = children()
  process.kill(mount, 'SIGKILL')
  await up.complains(/has ended; the S3 API is still served\n {2}hint: Stop and start "eider up" again to have it back/)
  assert.deepEqual(mountsOf(folder), [])
  assert.equal(await end(up, 'SIGINT'), 1)
  assert.match(up.stdout, /Ended; the mount was killed: every file closed before is in .*data, /)
  assert.equal(await readFile(join(home, 'data', 'tree', 'closed'), 'utf8'), 'closed')
  const again = start('--listen=127.0.0.1:0')
  await shown(again)
  assert.equal(await readFile(join(folder, 'closed'), 'utf8'), 'closed')
})

for (const left of ['', '{"port":90', 'null']) {
  test(`it starts anew over a state file that holds '${left}', and says so`, { skip }, async () => {
    mkdirSync(join(home, 'data', '.eider'), { recursive: true })
    await writeFile(join(home, 'data', '.eider', 'up.json'), left)
    const up = start('--listen=127.0.0.1:0')
    await shown(up)
    assert.match(up.stderr, /starting anew, as what the last start left is damaged/)
    assert.equal(children().length, 2)
    assert.equal(await end(up, 'SIGINT'), 0)
  })
}

test('when its gateway dies, it says so, takes the mount away and ends with 1', { skip }, async () => {
  const up = start('--listen=127.0.0.1:0')
  await shown(up)
  const [gateway = 0] = children()
  process.kill(gateway, 'SIGKILL')
  running.delete(up)
  assert.equal(await up.ended, 1)
  assert.match(up.stderr, /^eider: Cannot go on: the gateway has ended; its log: .*gateway\.log\n/)
  assert.deepEqual(mountsOf(folder), [])
})

test('a second one on the same data is refused, and the first goes on', { skip }, async () => {
  await shown(start('--listen=127.0.0.1:0'))
  const second = start('--listen=127.0.0.1:0', `--mount=${join(home, 'other')}`)
  running.delete(second)
  assert.equal(await second.ended, 1)
  assert.match(
    second.stderr,
    /^eider: Cannot start on '.*data': another "eider up" runs on it \(process \d+\)\n {2}hint: .*--data/,
  )
  await writeFile(join(folder, 'file'), 'still works')
})

test('a port that is taken is said and another one used, but not where it was asked for', { skip }, async () => {
  const first = start('--listen=127.0.0.1:0')
  const port = Number(new URL((await shown(first)).get('S3 endpoint') ?? '').port)
  await end(first, 'SIGINT')
  // The port of the last time is the usual one of this tree.
  const other = createServer()
  await new Promise<void>((resolve) => other.listen(port, '127.0.0.1', resolve))
  try {
    const second = start()
    const facts = await shown(second)
    assert.notEqual(new URL(facts.get('S3 endpoint') ?? '').port, String(port))
    assert.match(second.stdout, new RegExp(`Port ${port} is taken by another program`))
    await end(second, 'SIGINT')
    const third = start(`--listen=127.0.0.1:${port}`)
    running.delete(third)
    assert.equal(await third.ended, 1)
    assert.match(third.stderr, new RegExp(`Cannot listen at 127\\.0\\.0\\.1:${port}: another program listens there`))
  } finally {
    other.close()
  }
})

test('a folder with something in it is refused, and nothing is left running', { skip }, async () => {
  mkdirSync(join(folder, 'something'), { recursive: true })
  const up = start('--listen=127.0.0.1:0')
  running.delete(up)
  assert.equal(await up.ended, 1)
  assert.match(up.stderr, /^eider: Cannot mount on '.*': it is not empty\n {2}hint: /)
  assert.equal(up.stdout, '')
  assert.deepEqual(children(), [])
})

test('data and folder inside one another are refused', async () => {
  const up = start('--mount=data/mnt')
  running.delete(up)
  assert.equal(await up.ended, 2)
  assert.match(up.stderr, /one is inside the other/)
})

test('where a mount is not allowed it says why, and serves the rest', { skip: notRoot }, async () => {
  const up = startThrough(['setpriv', '--bounding-set=-sys_admin'], ['--listen=127.0.0.1:0'])
  const facts = await shown(up)
  assert.match(up.stdout, /There is no folder: Cannot mount on '.*mnt': .*not permitted/)
  assert.equal(facts.get('folder'), undefined)
  const answer = await fetch(facts.get('S3 endpoint') ?? '')
  assert.equal(answer.status, 403)
  assert.equal(await end(up, 'SIGINT'), 0)
})
