/** Options of `eider mount` that change what programs see or what the store gets, and the time limit of `eider unmount`. */
import assert from 'node:assert/strict'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { mkdir, open, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { probeFuse } from '#fuse/probe.ts'
import { unmountFuse } from '#os/fuse-unmount.ts'
import { mounts, mountsOf } from '#os/mount-table.ts'
import { eider, gone } from './eider-process.ts'
import { startTestGateway, type TestGateway } from './servers/gateway.ts'

const fuse = await probeFuse()
const skip = fuse.available ? false : `no mount can be made here: ${fuse.why}`
const scratch = mkdtempSync(join(tmpdir(), 'eider-cli-options-'))
let gateway: TestGateway
let env: Record<string, string>

before(async () => {
  gateway = await startTestGateway()
  mkdirSync(join(gateway.root, 'bucket'))
  env = {
    XDG_STATE_HOME: join(scratch, 'state'),
    AWS_ACCESS_KEY_ID: gateway.accessKey,
    AWS_SECRET_ACCESS_KEY: gateway.secretKey,
  }
})

after(async () => {
  for (const { directory } of mounts()) {
    if (directory.startsWith(`${scratch}/`)) await unmountFuse(directory, { lazy: true })
  }
  await gateway.stop()
  rmSync(scratch, { recursive: true, force: true })
})

const bucket = (): string => `s3://bucket?endpoint=${gateway.endpoint}&region=us-east-1&style=path`

test('[S82] a dry run shows changes on its mount, and the store has none of them', { skip }, async () => {
  const folder = join(scratch, 'dry')
  const log = join(scratch, 'dry.log')
  const stored = join(gateway.root, 'bucket')
  writeFileSync(join(stored, 'there'), 'as it was')
  const mounted = await eider(['mount', bucket(), folder, '--mkdir', '--dry-run', `--log=${log}`], { env })
  assert.equal(mounted.stderr, '')
  await writeFile(join(folder, 'there'), 'changed')
  await mkdir(join(folder, 'new'))
  await writeFile(join(folder, 'new', 'file'), 'new bytes')
  await rename(join(folder, 'new'), join(folder, 'renamed'))
  assert.equal(await readFile(join(folder, 'renamed', 'file'), 'utf8'), 'new bytes')
  assert.equal(await readFile(join(folder, 'there'), 'utf8'), 'changed')
  await rm(join(folder, 'there'))
  assert.equal((await eider(['unmount', folder], { env })).code, 0)

  assert.deepEqual(readdirSync(stored), ['there'])
  assert.equal(readFileSync(join(stored, 'there'), 'utf8'), 'as it was')
  const lines = readFileSync(log, 'utf8')
  for (const path of ['"path":"there"', 'new/file', 'renamed']) assert.ok(lines.includes(path), `${path} is logged`)
  assert.match(
    lines,
    /"changes":\d+,"bytes":\d+,"requests":\d+,"costUsd":0\.0000\d+.*the dry run has ended: none of these changes was sent/,
  )
  rmSync(join(stored, 'there'))
})

test('owner and mode of what the store tells none of are chosen by options', { skip }, async () => {
  const folder = join(scratch, 'owned')
  writeFileSync(join(gateway.root, 'bucket', 'foreign'), 'x')
  mkdirSync(join(gateway.root, 'bucket', 'folder'))
  writeFileSync(join(gateway.root, 'bucket', 'folder', 'below'), 'x')
  await eider(['mount', bucket(), folder, '--mkdir', '--uid=1234', '--gid=4321', '--umask=027'], { env })
  const { uid, gid, mode } = await stat(join(folder, 'foreign'))
  assert.deepEqual({ uid, gid, mode: mode & 0o7777 }, { uid: 1234, gid: 4321, mode: 0o640 })
  assert.equal((await stat(join(folder, 'folder'))).mode & 0o7777, 0o750)
  // What is made here has its own, which the store keeps.
  await writeFile(join(folder, 'made'), 'x', { mode: 0o604 })
  const made = await stat(join(folder, 'made'))
  assert.deepEqual(
    { uid: made.uid, mode: made.mode & 0o7777 },
    { uid: process.getuid?.(), mode: 0o604 & ~process.umask() },
  )
  await eider(['unmount', folder], { env })
  for (const umask of ['9', '7777']) {
    const wrong = await eider(['mount', bucket(), folder, `--umask=${umask}`], { env })
    assert.equal(wrong.code, 2)
    assert.match(wrong.stderr, new RegExp(`^eider: Cannot use --umask "${umask}": an octal number from 000 to 777`))
  }
})

test('[S30] unmount with a time limit returns, and the process of the mount goes on storing', { skip }, async () => {
  const folder = join(scratch, 'slow')
  const away = await startTestGateway()
  mkdirSync(join(away.root, 'bucket'))
  const url = `s3://bucket?endpoint=${away.endpoint}&region=us-east-1&style=path`
  const credentials = { ...env, AWS_ACCESS_KEY_ID: away.accessKey, AWS_SECRET_ACCESS_KEY: away.secretKey }
  await eider(['mount', url, folder, '--mkdir', '--io-timeout=1s'], { env: credentials })
  const status = await eider(['status', '--json', `--mount=${folder}`], { env })
  const { mounts: told } = JSON.parse(status.stdout) as { mounts: { pid: number; requests: Record<string, number> }[] }
  const [{ pid, requests } = { pid: 0, requests: {} }] = told
  assert.ok((requests['ListObjectsV2'] ?? 0) > 0, 'requests are counted')
  const file = await open(join(folder, 'left'), 'w')
  await file.write('bytes')
  await away.stop()
  await assert.rejects(file.close(), { code: 'EIO' })
  const { code, stderr } = await eider(['unmount', folder, '--timeout=100ms'], { env })
  assert.equal(code, 3)
  assert.match(
    stderr,
    /^eider: .* is unmounted, but not all is in .* yet \(1 file, 5 B\); process \d+ goes on storing$/m,
  )
  assert.deepEqual(mountsOf(folder), [])
  await gone(pid)
  assert.ok(existsSync(join(scratch, 'state', 'eider', 'staging')), 'what could not be stored is kept')
})
