import assert from 'node:assert/strict'
import { before, test } from 'node:test'

import { ERRNO } from '#base/errno.ts'
import { isOperationError } from '#base/errors.ts'
import { setLogLevel } from '#base/log.ts'
import { ClusterClient } from '#cluster/client/cluster-client.ts'
import { ClusterFiles } from '#cluster/client/cluster-files.ts'
import { gathered } from '#cluster/client/span-reader.ts'
import { isWritable } from '#cluster/client/disk-choice.ts'
import { ROOT_INODE } from '#cluster/inode-id.ts'
import { EMPTY_POLICY } from '#cluster/wire/forms.ts'
import { chunksOf, contentOf } from '#sim/workloads/tree-worker.ts'
import { World } from '#sim/world.ts'

import { CLASS, ClusterWorld, REGISTRY_ADDRESS } from './cluster-world.ts'

const HOUR_US = 3_600_000_000
const SPAN_BYTES = 20_000
const SIZE = 3 * SPAN_BYTES
const POLICY = {
  ...EMPTY_POLICY,
  spans: [{ bytesMax: SPAN_BYTES, data: 2, parity: 1 }],
  classes: [{ bytesMin: 0, class: CLASS }],
  inlineBytesMax: 100,
}
const ATTRIBUTES = { mode: 0o644, uid: 0, gid: 0, mtime: undefined, atime: undefined }

/** A cluster and a client in a world without faults, but for those of the test. */
class Scene {
  readonly world: World
  readonly cluster: ClusterWorld
  readonly client: ClusterClient
  readonly files: ClusterFiles

  private constructor(client: ClusterClient, world: World, cluster: ClusterWorld) {
    this.world = world
    this.cluster = cluster
    this.client = client
    this.files = new ClusterFiles(client)
  }

  static async start(): Promise<Scene> {
    const world = new World(7)
    const cluster = new ClusterWorld(world, { shardProcesses: 2, blockServices: 3, disksEach: 1 })
    const user = world.process('user', ({ surroundings }) =>
      ClusterClient.connect({ surroundings, registry: REGISTRY_ADDRESS, location: 'here' }),
    )
    const starting = cluster.start().then(() => user.start())
    return new Scene(await world.timeline.until('the start', starting, HOUR_US), world, cluster)
  }

  until<T>(promise: Promise<T>): Promise<T> {
    return this.world.timeline.until('it', promise, HOUR_US)
  }

  write(name: string, bytes: Buffer): Promise<unknown> {
    const file = { directory: ROOT_INODE, name, attributes: ATTRIBUTES, policy: POLICY }
    return this.until(this.files.write(file, chunksOf(bytes)))
  }

  async read(path: string): Promise<Buffer> {
    const { inode } = await this.until(this.client.find(path))
    return this.until(gathered(this.files.read(inode)))
  }

  fill(isFull: boolean): void {
    for (const { disk } of this.cluster.blockServices) disk.faults.isFull = isFull
  }
}

before(() => setLogLevel('silent'))

test('a cluster comes up, and keeps directories and files', async () => {
  const scene = await Scene.start()
  const directory = await scene.until(scene.client.makeDirectory({ directory: ROOT_INODE, name: 'd' }, ATTRIBUTES))
  const bytes = contentOf(1, SIZE)
  await scene.write('file', bytes)
  assert.deepEqual(await scene.read('/file'), bytes)
  const place = await scene.until(scene.client.find('/file'))
  await scene.until(scene.client.move(place, { directory: directory.inode, name: 'moved' }))
  assert.deepEqual(await scene.read('/d/moved'), bytes)
})

test('with all disks full a write is refused for want of room and undone, what is there can be removed, and later all is well', async () => {
  const scene = await Scene.start()
  await scene.write('before', contentOf(1, SIZE))
  scene.fill(true)
  // More often than there is memory for spans that nobody gives back.
  for (let count = 0; count < 5; count++) {
    const error: unknown = await scene.write('full', contentOf(2, SIZE)).catch((failure: unknown) => failure)
    assert.ok(isOperationError(error), String(error))
    assert.equal(error.errno, ERRNO.ENOSPC)
  }
  assert.equal(await scene.until(scene.client.lookup(ROOT_INODE, 'full')), undefined)
  await scene.until(scene.client.find('/before').then((place) => scene.client.remove(place)))
  scene.fill(false)
  await scene.write('after', contentOf(3, SIZE))
  assert.deepEqual(await scene.read('/after'), contentOf(3, SIZE))
})

test('whoever asks a registry that has just started can write at once, and knows the room of disks soon', async () => {
  const scene = await Scene.start()
  const { registry } = scene.cluster
  registry.kill()
  await scene.until(registry.start())
  await scene.until(scene.client.map.refresh())
  assert.ok([...scene.client.map.all()].every((disk) => isWritable(disk)))
  await scene.write('file', contentOf(1, SIZE))
  await scene.until(scene.world.timeline.delay(30_000_000))
  assert.ok([...scene.client.map.all()].every(({ capacityBytes, freeBytes }) => capacityBytes > 0 && freeBytes > 0))
})
