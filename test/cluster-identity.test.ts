/** Which cluster parts belong to, as an operator meets it: real processes that are pointed at a wrong registry, and a registry that was lost. */
import assert from 'node:assert/strict'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { setTimeout } from 'node:timers/promises'

import { eider, type Outcome, type Running, startEider } from './eider-process.ts'

const scratch = mkdtempSync(join(tmpdir(), 'eider-identity-'))
const running = new Set<Running>()

after(async () => {
  for (const { child, ended } of running) {
    child.kill('SIGKILL')
    await ended
  }
  rmSync(scratch, { recursive: true, force: true })
})

interface Started {
  readonly process: Running
  readonly address: string
}

async function start(words: readonly string[], ready: RegExp): Promise<Started> {
  const process = startEider([...words, '--listen=127.0.0.1:0'], { cwd: scratch })
  running.add(process)
  const [, address = ''] = await process.shows(ready)
  return { process, address }
}

function startCluster(data: string, ...words: readonly string[]): Promise<Started> {
  return start(['cluster', '--data', join(scratch, data), '--reserve=1', ...words], /Its registry is (\S+), its page/)
}

async function end({ process }: Started): Promise<void> {
  running.delete(process)
  process.child.kill('SIGTERM')
  assert.equal(await process.ended, 0)
}

function refused(words: readonly string[]): Promise<Outcome> {
  return eider([...words, '--listen=127.0.0.1:0'], { cwd: scratch })
}

async function get<T>(address: string, path: string): Promise<T> {
  return (await (await fetch(`http://${address}/api/v1/${path}`)).json()) as T
}

interface Health {
  readonly cluster: string
  readonly sentence: string
}

/** All that its directory has but for locks. */
function kept(data: string): string {
  const files = readdirSync(data, { recursive: true, withFileTypes: true }).filter((each) => each.isFile())
  const facts = files.map(({ parentPath, name }) => {
    const path = join(parentPath, name)
    return `${path} ${name.includes('lock') ? '' : readFileSync(path).toString('base64')}`
  })
  return facts.sort().join('\n')
}

test('[S165] a shard, a coordinator and a disk of another cluster are refused at their start, and nothing is changed', async () => {
  const home = await startCluster('home', '--disks=2')
  const { cluster } = await get<Health>(home.address, 'health')
  await end(home)
  const foreign = await start(['registry', '--data', join(scratch, 'foreign')], /^Registry at (\S+);/)
  const other = (await get<Health>(foreign.address, 'health')).cluster
  assert.match(cluster, /^[0-9a-f]{32}$/)
  assert.notEqual(cluster, other)
  const there = (name: string): string => join(scratch, 'home', name)
  const parts: readonly (readonly string[])[] = [
    ['shard', '--data', there('shards')],
    ['coordinator', '--data', there('coordinator')],
    ['block-service', there('disk-1'), '--reserve=1', '--data', there('block-service-1')],
    ['block-service', join(scratch, 'fresh'), there('disk-2'), '--reserve=1', '--data', join(scratch, 'fresh-data')],
  ]
  const before = kept(join(scratch, 'home'))
  for (const part of parts) {
    const { code, stderr } = await refused([...part, '--registry', foreign.address])
    assert.equal(code, 1)
    assert.match(
      stderr,
      new RegExp(`^eider: Cannot .*the part is of cluster ${cluster}, and the registry of cluster ${other}`, 'm'),
    )
    assert.match(stderr, /^ {2}hint: Give it the address of its own registry/m)
  }
  assert.equal(kept(join(scratch, 'home')), before)
  assert(!existsSync(join(scratch, 'fresh', 'cluster')), 'a new disk beside one of another cluster joins none')
  assert.deepEqual(await get<{ disks: unknown[] }>(foreign.address, 'disks').then(({ disks }) => disks), [])
  assert.match((await get<Health>(foreign.address, 'health')).sentence, /; nothing has registered yet/)
  await end(foreign)
  const again = await startCluster('home', '--disks=2')
  assert.equal((await get<Health>(again.address, 'health')).cluster, cluster)
  await end(again)
})

test('[S165] where the directory of the registry is lost, its cluster goes on with a new one that is told so', async () => {
  const content = join(scratch, 'content')
  writeFileSync(content, 'what is kept\n'.repeat(10_000))
  const first = await startCluster('lost')
  const { cluster } = await get<Health>(first.address, 'health')
  assert.equal((await eider(['fs', 'cp', content, ':/file', '--registry', first.address])).code, 0)
  await end(first)
  const registry = join(scratch, 'lost', 'registry')
  rmSync(registry, { recursive: true })
  const words = ['cluster', '--data', join(scratch, 'lost'), '--reserve=1']
  const unasked = await refused(words)
  assert.equal(unasked.code, 1)
  assert.match(unasked.stderr, new RegExp(`hint: .*--cluster-id ${cluster}`))
  assert(!existsSync(registry), 'it is not begun by itself')
  const wrong = await refused([...words, '--cluster-id', '0'.repeat(32)])
  assert.equal(wrong.code, 1)
  assert.match(wrong.stderr, /the part is of cluster/)
  rmSync(registry, { recursive: true })
  assert.equal((await refused([...words, '--cluster-id', 'nonsense'])).code, 2)
  const anew = await startCluster('lost', '--cluster-id', cluster)
  const read = await eider(['fs', 'cat', '/file', '--registry', anew.address])
  assert.equal(read.stdout, readFileSync(content, 'utf8'))
  await end(anew)
  const later = await startCluster('lost')
  assert.match(
    (await get<Health>(later.address, 'health')).sentence,
    /^All 4 disks, 256 shards and the coordinator are there/,
  )
  await end(later)
  const another = await refused(['registry', '--data', registry, '--cluster-id', '1'.repeat(32)])
  assert.equal(another.code, 1)
  assert.match(another.stderr, new RegExp(`its directory is that of the registry of cluster ${cluster}`))
})

test('[S167] a cluster on one machine serves every disk that it has, whatever number it is given', async () => {
  const first = await startCluster('disks', '--disks=4')
  await end(first)
  const fewer = await startCluster('disks', '--disks=2')
  await fewer.process.shows(/^It has 4 disks already, and all of them are served\.$/m)
  const { sentence } = await get<Health>(fewer.address, 'health')
  assert.match(sentence, /^All 4 disks, 256 shards and the coordinator are there/)
  await end(fewer)
})

test('[S165] parts that run go on while another registry is in the place of theirs, and register with theirs by themselves', async () => {
  const data = (name: string): string[] => ['--data', join(scratch, 'running', name)]
  const ready = /^(?:Registry|Shards 0 to 255|Coordinator|1 disk) at ([^;\s]+)/
  let registry = await start(['registry', ...data('registry')], ready)
  const { address } = registry
  const { cluster } = await get<Health>(address, 'health')
  const listen = [...data('registry'), '--listen', address]
  const own = ['--registry', address]
  const parts = [
    await start(['shard', ...data('shards'), ...own], ready),
    await start(['coordinator', ...data('coordinator'), ...own], ready),
    await start(['block-service', join(scratch, 'running', 'disk'), '--reserve=1', ...data('service'), ...own], ready),
  ]
  const restarted = async (...words: readonly string[]): Promise<Started> => {
    await end(registry)
    rmSync(join(scratch, 'running', 'registry'), { recursive: true })
    const process = startEider(['registry', ...listen, ...words], { cwd: scratch })
    running.add(process)
    await process.shows(ready)
    return { process, address }
  }
  registry = await restarted()
  await Promise.all(parts.map(({ process }) => process.complains(new RegExp(`CLUSTER_MISMATCH.*${cluster}`))))
  assert.match(
    (await get<Health>(address, 'health')).sentence,
    new RegExp(`^Parts of another cluster, ${cluster}, come here`),
  )
  const { disks } = await get<{ readonly disks: readonly unknown[] }>(address, 'disks')
  assert.deepEqual(disks, [])
  registry = await restarted('--cluster-id', cluster)
  // Each comes with its next heartbeat.
  const whole = 'The disk, 256 shards and the coordinator are there.'
  for (let tries = 0; ; tries++) {
    const { sentence } = await get<Health>(address, 'health')
    if (sentence.startsWith(whole)) break
    assert(tries < 600, sentence)
    await setTimeout(100)
  }
  assert.equal((await eider(['fs', 'mkdir', '/made', '--registry', address])).code, 0)
  for (const part of parts) await end(part)
  await end(registry)
})
