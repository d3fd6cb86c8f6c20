/** A data directory that was copied is not served beside the original: real processes, as an operator meets them. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'

import { isOperationError } from '#base/errors.ts'
import { coordinatorMessages } from '#cluster/coordinator/coordinator-messages.ts'
import { startCoordinator } from '#cluster/daemons/coordinator-daemon.ts'
import { ROOT_INODE } from '#cluster/inode-id.ts'
import { systemSurroundings } from '#cluster/system-surroundings.ts'

import { eider, type Running, startEider } from './eider-process.ts'
import { startRegistry } from './registry-fixture.ts'

const scratch = mkdtempSync(join(tmpdir(), 'eider-places-'))
const running = new Set<Running>()

after(async () => {
  for (const { child, ended } of running) {
    child.kill('SIGKILL')
    await ended
  }
  rmSync(scratch, { recursive: true, force: true })
})

const ANYWHERE = '--listen=127.0.0.1:0'
const there = (name: string): string => join(scratch, name)

interface Started {
  readonly process: Running
  readonly address: string
}

async function start(part: string, data: string, ...words: readonly string[]): Promise<Started> {
  const process = startEider([part, '--data', there(data), ANYWHERE, ...words], { cwd: scratch })
  running.add(process)
  const [, address = ''] = await process.shows(/^(?:Registry|Shards 0 to 255|Coordinator) at ([^;\s]+)/)
  return { process, address }
}

async function end({ process }: Started): Promise<void> {
  running.delete(process)
  process.child.kill('SIGTERM')
  assert.equal(await process.ended, 0)
}

async function fs(registry: string, ...words: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await eider(['fs', ...words, '--registry', registry])
  assert.equal(code, 0, stderr)
  return stdout
}

test('[S169] a copy of the directory of a running shard or coordinator is refused, and nothing is lost', async () => {
  const registry = await start('registry', 'registry')
  const own = ['--registry', registry.address]
  const shard = await start('shard', 'shard', ...own)
  const coordinator = await start('coordinator', 'coordinator', ...own)
  await fs(registry.address, 'mkdir', '/before')
  const parts = [
    ['shard', 'Cannot register shards 0 to 255 at', `serves them at ${shard.address}`],
    ['coordinator', 'Cannot register a coordinator at', `is the coordinator at ${coordinator.address}`],
  ] as const
  for (const [part] of parts) execFileSync('cp', ['-a', there(part), there(`${part}-copy`)])
  await fs(registry.address, 'mkdir', '/since-then')
  for (const [part, action, does] of parts) {
    const { code, stderr } = await eider([part, '--data', there(`${part}-copy`), ANYWHERE, ...own], { cwd: scratch })
    assert.equal(code, 1)
    const words = `^eider: ${action} \\S+: a process that has the same directory, or a copy of it, ${does}$`
    assert.match(stderr, new RegExp(words, 'm'))
    assert.match(stderr, /^ {2}hint: A copy must not be served beside the original/m)
  }
  await fs(registry.address, 'mkdir', '/after')
  assert.deepEqual((await fs(registry.address, 'ls', '/')).split(/\s+/).filter(Boolean).sort(), [
    'after',
    'before',
    'since-then',
  ])
  // In its own place, and at another address.
  await end(shard)
  const again = await start('shard', 'shard', ...own)
  assert.notEqual(again.address, shard.address)
  await fs(registry.address, 'mkdir', '/again')
  for (const each of [again, coordinator, registry]) await end(each)
})

test('[S169] a shard and a coordinator that were silent end once their place was given to another', async () => {
  const registry = await startRegistry()
  try {
    const own = ['--registry', registry.address]
    const [shard, coordinator] = [await start('shard', 'late', ...own), await start('coordinator', 'later', ...own)]
    const copyOf = (data: string): object => {
      const process = Number(readFileSync(join(there(data), 'process'), 'utf8'))
      return { process, place: 'of a copy', address: '127.0.0.1:9', location: '' }
    }
    for (;;) {
      registry.pass(26_000)
      const told = await Promise.allSettled([
        registry.heartbeat('registerShards', { ...copyOf('late'), first: 0, last: 255 }),
        registry.heartbeat('registerCoordinator', copyOf('later')),
      ])
      const [why] = told.filter((each) => each.status === 'rejected')
      if (why === undefined) break
      // One of the others was heard of just now.
      if (!isOperationError(why.reason, 'REGISTRATION_REFUSED')) throw why.reason
    }
    for (const [{ process }, does] of [
      [shard, 'serves them'],
      [coordinator, 'is the coordinator'],
    ] as const) {
      const code = await process.ended
      running.delete(process)
      assert.equal(code, 1)
      const words = `a process that has the same directory, or a copy of it, ${does} at 127\\.0\\.0\\.1:9$`
      assert.match(process.stderr, new RegExp(words, 'm'))
    }
  } finally {
    await registry.close()
  }
})

test('[S169] a copy of the directory of a coordinator asks nothing of shards, whatever was under way', async () => {
  const registry = await startRegistry()
  const { network } = systemSurroundings()
  const [asked, connected] = [Promise.withResolvers<void>(), new Set<string>()]
  // Shards that never answer.
  const shards = await network.listen('127.0.0.1:0', ({ peer }) => {
    connected.add(peer)
    return { onFrame: () => asked.resolve(), onClosed: () => undefined }
  })
  const place = { address: shards.address, location: '', first: 0, last: 255 }
  await registry.heartbeat('registerShards', { process: 1, ...place })
  const options = {
    listen: '127.0.0.1:0',
    registry: registry.address,
    location: '',
    onFailed: (error: Error) => assert.fail(error),
  }
  const original = await startCoordinator({ ...options, data: there('asking') })
  const given = new AbortController()
  const attributes = { mode: 0o755, uid: 0, gid: 0 }
  const making = registry.caller.call(
    { name: 'the coordinator', address: () => original.address },
    coordinatorMessages.makeDirectory,
    { owner: ROOT_INODE, name: 'new', attributes },
    { signal: given.signal },
  )
  making.catch(() => undefined)
  try {
    await asked.promise
    assert.equal(connected.size, 1)
    execFileSync('cp', ['-a', there('asking'), there('asking-copy')])
    await assert.rejects(startCoordinator({ ...options, data: there('asking-copy') }), (error) =>
      isOperationError(error, 'REGISTRATION_REFUSED'),
    )
    assert.equal(connected.size, 1)
    await original.close()
    // In its own place what was under way is asked again.
    const again = await startCoordinator({ ...options, data: there('asking') })
    while (connected.size < 2) await new Promise((resolve) => setImmediate(resolve))
    await again.close()
  } finally {
    given.abort()
    await original.close()
    await shards.close()
    await registry.close()
  }
})
