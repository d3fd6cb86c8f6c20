import assert from 'node:assert/strict'
import { test } from 'node:test'

import { setLogLevel } from '#base/log.ts'
import type { ClusterId } from '#cluster/cluster-id.ts'
import { BlockServer } from '#cluster/block/block-server.ts'
import { Disk } from '#cluster/block/disk.ts'
import { HEARTBEAT_MS } from '#cluster/block/block-registration.ts'
import { idAt } from '#cluster/block/disk-fixture.ts'
import { systemError } from '#cluster/block/memory-block-files.ts'
import { BlockCaller } from '#cluster/client/block-caller.ts'
import { REGISTRY_MESSAGES, registryMessages } from '#cluster/registry/registry-messages.ts'
import type { ValueOf } from '#cluster/wire/codec.ts'
import { Responder } from '#cluster/wire/responder.ts'

import type { Process } from './process.ts'
import { World } from './world.ts'

const CLUSTER = '0123456789abcdef'.repeat(2) as ClusterId
const HOUR_US = 3_600_000_000
type Told = ValueOf<typeof registryMessages.registerDisks.request>

interface Pair {
  readonly world: World
  readonly service: Process<{ readonly disks: readonly Disk[]; readonly known: Promise<void> }>
  readonly registry: Process
  /** What the registry was told, and when (milliseconds). */
  readonly told: { readonly ms: number; readonly request: Told }[]
  readonly pass: (ms: number) => Promise<void>
}

/** A block service of two disks, and a registry that takes down what it hears. */
async function pair(): Promise<Pair> {
  setLogLevel('silent')
  const world = new World(3)
  const told: { readonly ms: number; readonly request: Told }[] = []
  const registry = world.process('registry', async ({ surroundings }) => {
    const responder = new Responder(REGISTRY_MESSAGES, (incoming) => {
      if (incoming.is(registryMessages.greet)) {
        return incoming.reply(registryMessages.greet, { cluster: CLUSTER, timeMs: undefined })
      }
      told.push({ ms: world.timeline.nowUs / 1000, request: incoming.read(registryMessages.registerDisks) })
      incoming.reply(registryMessages.registerDisks, { version: 1, timeMs: undefined, refused: [] })
    })
    await surroundings.network.listen('registry:1', responder.accept)
  })
  const service = world.process('service', async ({ surroundings, disk }) => {
    const disks = await Promise.all(
      ['a', 'b'].map((name) =>
        Disk.open({
          files: disk.blocks(name, 1 << 20),
          reserveBytes: 0,
          now: () => surroundings.clock.nowMs(),
          random: (count) => surroundings.chance.bytes(count),
        }),
      ),
    )
    const served = disks.map((each, index) => {
      return { disk: each, class: 2 + index, domain: `shelf ${index}`, path: `/disks/${index}`, fileSystem: 7 }
    })
    const server = new BlockServer({ surroundings, disks: served })
    const address = await server.listen('service:0')
    const target = { name: 'the registry', address: () => 'registry:1' }
    return { disks, known: server.register(target, { process: 99, address, location: 'here' }) }
  })
  const pass = (ms: number): Promise<void> => world.timeline.until('time', world.timeline.delay(ms * 1000), HOUR_US)
  return { world, service, registry, told, pass }
}

test('a block service tells the registry of its disks at once, and every ten seconds or so', async () => {
  const { world, service, registry, told, pass } = await pair()
  await world.timeline.until('the start', registry.start(), HOUR_US)
  const running = await world.timeline.until('the start', service.start(), HOUR_US)
  await world.timeline.until('the registry', running.known, HOUR_US)
  assert.equal(told.length, 1)
  const request = told[0]?.request
  assert.ok(request !== undefined)
  assert.deepEqual([request.process, request.location, request.disks.length], [99, 'here', 2])
  const [first, second] = request.disks
  const [disk] = running.disks
  assert.ok(first !== undefined && disk !== undefined)
  assert.deepEqual([first.disk, first.key], [disk.id, Buffer.from(disk.identity.key)])
  assert.deepEqual([first.class, first.domain, first.path, first.fileSystem], [2, 'shelf 0', '/disks/0', 7])
  assert.deepEqual([first.failure, first.usedBytes, first.blocks, second?.class], ['', 0, 0, 3])
  assert.ok(first.freeBytes > 0 && first.freeBytes <= 1 << 20)
  await pass(10 * HEARTBEAT_MS)
  const gaps = told.slice(1).map(({ ms }, index) => ms - (told[index]?.ms ?? 0))
  assert.ok(gaps.length >= 9 && gaps.length <= 11, `${gaps.length} heartbeats`)
  assert.ok(gaps.every((ms) => ms > 0.85 * HEARTBEAT_MS && ms < 1.15 * HEARTBEAT_MS))
})

test('a registry that is away is told once it is back', async () => {
  const { world, service, registry, told, pass } = await pair()
  const running = await world.timeline.until('the start', service.start(), HOUR_US)
  await pass(40_000)
  await world.timeline.until('the start', registry.start(), HOUR_US)
  await world.timeline.until('the registry', running.known, HOUR_US)
  assert.equal(told.length, 1)
})

test('a disk that hangs keeps nobody from hearing of the others', async () => {
  const { world, service, registry, told, pass } = await pair()
  await world.timeline.until('the start', Promise.all([registry.start(), service.start()]), HOUR_US)
  await pass(5000)
  const count = told.length
  const files = service.disk.blocks('a')
  const before: typeof files.before = files.before
  files.before = (step) => (step.call === 'room' ? new Promise(() => undefined) : before?.(step))
  await pass(4 * HEARTBEAT_MS)
  assert.ok(told.length >= count + 3, 'heartbeats go on')
  assert.ok((told.at(-1)?.request.disks[0]?.freeBytes ?? 0) > 0, 'the disk is told of as it was')
})

test('a disk that has failed is told of with its reason, and goes on to be', async () => {
  const { world, service, registry, told, pass } = await pair()
  await world.timeline.until('the start', Promise.all([registry.start(), service.start()]), HOUR_US)
  await pass(1000)
  const files = service.disk.blocks('b')
  files.before = () => {
    throw systemError('statfs', 'EIO')
  }
  await pass(3 * HEARTBEAT_MS)
  const last = told.at(-1)?.request.disks
  assert.equal(last?.[0]?.failure, '')
  assert.match(last?.[1]?.failure ?? '', /EIO/)
  assert.ok(told.filter(({ request }) => request.disks[1]?.failure !== '').length >= 2)
})

test('a disk that a request finds to have failed is told of before the next heartbeat', async () => {
  const { world, service, registry, told, pass } = await pair()
  const client = world.process('client', (machine) => machine)
  const all = Promise.all([registry.start(), client.start(), service.start()])
  const [, { surroundings }, { disks, known }] = await world.timeline.until('the start', all, HOUR_US)
  await world.timeline.until('the registry', known, HOUR_US)
  const [disk] = disks
  const address = told[0]?.request.address
  assert.ok(disk !== undefined && address !== undefined)
  service.disk.blocks('a').before = () => {
    throw systemError('open', 'EIO')
  }
  const target = { name: 'the disk', address: () => address }
  const range = { disk: disk.id, block: idAt(), offset: 0, length: 1 }
  const asked = new BlockCaller(surroundings).fetch(target, range, { deadlineMs: 1000 })
  await assert.rejects(world.timeline.until('the answer', asked, HOUR_US), { code: 'DISK_FAILED' })
  await pass(HEARTBEAT_MS / 2)
  assert.equal(told.length, 2)
  assert.match(told[1]?.request.disks[0]?.failure ?? '', /EIO/)
})
