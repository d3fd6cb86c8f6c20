/**
 * The walk through the README of the prototype, with today's names: its daemons started one by one as real processes, the page, then each
 * of its client's commands as it shows them. `basic_client.py` is `eider fs`, shuckle the registry, `cross_dir_coord.py` the coordinator.
 */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'

import { eider, type Outcome, type Running, startEider } from './eider-process.ts'

const INODE = /^0x[0-9a-f]{16}\n$/
/** More than all of the walk takes, on a busy machine too. */
const DAEMON_MS = 900_000
const home = mkdtempSync(join(tmpdir(), 'eider-walk-'))
const running: Running[] = []
let registry = ''

async function start(announces: RegExp, ...args: string[]): Promise<RegExpExecArray> {
  const process = startEider(args, { cwd: home, patienceMs: DAEMON_MS })
  running.push(process)
  return process.shows(announces)
}

function fs(...args: string[]): Promise<Outcome> {
  return eider(['fs', ...args, '--registry', registry], { cwd: home })
}

/** What a command prints that does what it is asked for. */
async function shown(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await fs(...args)
  assert.equal(code, 0, stderr)
  assert.equal(stderr, '')
  return stdout
}

/** The facts of `stat` by name. */
async function stat(path: string): Promise<ReadonlyMap<string, string>> {
  const lines = (await shown('stat', path)).trimEnd().split('\n')
  return new Map(lines.map((line) => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)]))
}

before(async () => {
  const listen = ['--listen', '127.0.0.1:0']
  const [, address = ''] = await start(/Registry at (\S+);/, 'registry', '--data', 'registry', ...listen)
  registry = address
  const at = ['--registry', registry, ...listen]
  await start(/Shards 0 to 127 /, 'shard', '--shards', '0-127', '--data', 'shards-a', ...at)
  await start(/Shards 128 to 255 /, 'shard', '--shards', '128-255', '--data', 'shards-b', ...at)
  await start(/Coordinator /, 'coordinator', '--data', 'coordinator', ...at)
  for (const disk of ['disk-1', 'disk-2', 'disk-3']) {
    await start(/1 disk /, 'block-service', disk, '--storage-class', '2', '--reserve', '0', ...at)
  }
})

after(async () => {
  for (const { child, ended } of running.toReversed()) {
    child.kill('SIGTERM')
    await ended
  }
  rmSync(home, { recursive: true, force: true })
})

test('the page of the registry answers, and knows every block service', async () => {
  const page = await fetch(`http://${registry}/`)
  assert.equal(page.status, 200)
  assert.match(page.headers.get('content-type') ?? '', /^text\/html/)
  const disks = (await (await fetch(`http://${registry}/api/v1/disks`)).json()) as { disks: { class: number }[] }
  assert.deepEqual(
    disks.disks.map((disk) => disk.class),
    [2, 2, 2],
  )
})

test('mkdir makes a directory, and prints its inode', async () => {
  assert.match(await shown('mkdir', '/a'), INODE)
})

test('rmdir removes it again, and it stays in the dead map of its parent', async () => {
  await shown('mkdir', '/gone')
  assert.equal(await shown('rmdir', '/gone'), '')
  assert.equal(await shown('ls', '/'), 'a\n')
  assert.equal(await shown('ls_dead_ge', '/'), 'gone\n')
})

test('stat of a directory shows inode, type, mtime and parent first', async () => {
  const inode = (await shown('mkdir', '/b')).trim()
  const facts = await stat('/b')
  assert.deepEqual([...facts.keys()].slice(0, 4), ['inode', 'type', 'mtime', 'parent'])
  assert.equal(facts.get('inode'), inode)
  assert.equal(facts.get('type'), 'DIRECTORY')
  assert.match(facts.get('mtime') ?? '', /^\d{16}$/)
  assert.equal(facts.get('parent'), (await stat('/')).get('inode'))
})

test('mv moves a directory to another one, and ls shows it there', async () => {
  const inode = (await stat('/a')).get('inode')
  assert.equal(await shown('mv', '/a', '/b/a'), '')
  assert.equal(await shown('ls', '/b'), 'a\n')
  const moved = await stat('/b/a')
  assert.equal(moved.get('inode'), inode)
  assert.equal(moved.get('parent'), (await stat('/b')).get('inode'))
})

test('the dead map shows with time stamps what was there', async () => {
  await shown('mkdir', '/c')
  const made = (await stat('/c')).get('mtime') ?? ''
  await shown('mkdir', '/c/d')
  const between = (await stat('/c')).get('mtime') ?? ''
  assert.equal(await shown('ls', '/c'), 'd\n')
  assert.equal(await shown('ls_dead_ge', '/c', made), '', 'it lives')
  await shown('rmdir', '/c/d')
  const later = (await stat('/c')).get('mtime') ?? ''
  assert.equal(await shown('ls', '/c'), '')
  assert.equal(await shown('ls_dead_ge', '/c', made), 'd\n')
  assert.equal(await shown('ls_dead_le', '/c', made), '', 'it was not there yet')
  assert.equal(await shown('ls_dead_le', '/c', between), 'd\n')
  assert.equal(await shown('ls_dead_le', '/c', later), '', 'it was there no more')
  assert.equal(await shown('ls_dead_all_le', '/c', later), 'd [deleted]\n')
  assert.equal(await shown('ls_dead_all_ge', '/c', later), 'd [deleted]\n')
  assert.equal(await shown('ls_dead_all_ge', '/c', String(Number(later) + 1)), '')
  assert.equal(await shown('ls', '/c', '--as-of', between), 'd\n')
  assert.match(await shown('resolve_dead_le', '/c/d', between), /^inode=0x[0-9a-f]{16}\ncreated=\d{16}\nstate=left\n$/)
})

test('the test file has three spans in all three forms, and cat puts them together', async () => {
  assert.match(await shown('create_test_file', '/hello.txt'), INODE)
  const facts = await stat('/hello.txt')
  assert.deepEqual([...facts.keys()].slice(0, 4), ['inode', 'type', 'mtime', 'size'])
  assert.equal(facts.get('type'), 'FILE')
  assert.equal(facts.get('size'), '22')
  assert.equal(await shown('cat', '/hello.txt'), `hello, world${'\0'.repeat(10)}`)
  const spans = (await shown('locations', '/hello.txt')).split('\n').filter((line) => /^\d/.test(line))
  assert.deepEqual(spans, ['0-6  6 bytes inline', '6-12  6 bytes, mirrored 1+2, class 2', '12-22  10 zeros'])
})

test('rm removes it softly: the name is gone, the file is not', async () => {
  assert.equal(await shown('rm', '/hello.txt'), '')
  const { code, stderr } = await fs('cat', '/hello.txt')
  assert.equal(code, 1)
  assert.match(stderr, /^eider: Cannot find "\/hello\.txt": there is no "hello\.txt"\n {2}hint: /)
  const inode = /^inode=(0x[0-9a-f]{16})$/m.exec(await shown('resolve_dead_ge', '/hello.txt'))?.[1] ?? ''
  assert.equal(await shown('cat', inode), `hello, world${'\0'.repeat(10)}`)
})
