/** A registry that serves on this machine, in memory, with a clock that a test sets ahead, and processes that register with it. */
import { MemoryJournal } from '#cluster/journal/memory-journal.ts'
import { MemoryState } from '#cluster/journal/memory-state.ts'
import { RegistryHttp } from '#cluster/registry/http-api.ts'
import { registryMessages } from '#cluster/registry/registry-messages.ts'
import { RegistryServer } from '#cluster/registry/registry-server.ts'
import type { ClusterId } from '#cluster/cluster-id.ts'
import type { DiskId } from '#cluster/block/permit.ts'
import type { Clock, Listener } from '#cluster/surroundings.ts'
import { systemSurroundings } from '#cluster/system-surroundings.ts'
import { Caller } from '#cluster/wire/caller.ts'
import { TcpNetwork } from '#cluster/wire/tcp-network.ts'
import type { ValueOf } from '#cluster/wire/codec.ts'

type RegisterDisks = ValueOf<typeof registryMessages.registerDisks.request>
/** But for what cluster it belongs to, and how its clock is, which heartbeats here fill in where nothing is said. */
export type ToldDisk = Omit<RegisterDisks['disks'][number], 'cluster'>
export type ToldDisks = Omit<RegisterDisks, 'disks' | 'clock'> & { readonly disks: readonly ToldDisk[] }
type Told<K extends keyof typeof registryMessages> = ValueOf<(typeof registryMessages)[K]['reply']>

const GB = 1e9

export interface RegistryFixture {
  readonly server: RegistryServer
  readonly address: string
  readonly url: string
  readonly caller: Caller
  readonly listener: Listener
  /** The clock goes ahead, and all who were not heard of meanwhile are silent. */
  pass(ms: number): void
  heartbeat<K extends keyof typeof registryMessages>(kind: K, request: object): Promise<Told<K>>
  close(): Promise<void>
}

/** @param secret of the cluster */
export async function startRegistry(secret?: Buffer, port = 0): Promise<RegistryFixture> {
  const real = systemSurroundings()
  let aheadMs = 0
  const clock: Clock = {
    nowMs: () => real.clock.nowMs() + aheadMs,
    monotonicMs: () => real.clock.monotonicMs() + aheadMs,
    sleptMs: () => 0,
    after: (ms, action) => real.clock.after(ms, action),
    soon: (action) => real.clock.soon(action),
  }
  const serving: { http?: RegistryHttp } = {}
  const network = new TcpNetwork(real, {
    ...(secret === undefined ? {} : { secret }),
    foreign: (socket) => serving.http?.handle(socket),
  })
  const server = await RegistryServer.open({
    surroundings: { ...real, clock, network },
    journal: new MemoryJournal(),
    stored: new MemoryState(),
    onFailed: (error) => {
      throw error
    },
  })
  const http = new RegistryHttp({ server, clock, secret })
  serving.http = http
  const listener = await network.listen(`127.0.0.1:${port}`, (link) => server.accept(link))
  const caller = new Caller({ ...real, network }, { isInternal: true })
  const target = { name: 'the registry', address: () => listener.address }
  return {
    server,
    listener,
    caller,
    address: listener.address,
    url: `http://${listener.address}`,
    pass(ms) {
      aheadMs += ms
      server.view.sweep()
    },
    heartbeat: (kind, request) =>
      caller.call(target, registryMessages[kind] as never, ofCluster(server.cluster, request) as never),
    async close() {
      caller.close()
      http.close()
      await listener.close()
      await server.close()
    },
  }
}

/** What a part of the cluster says, as a whole. */
export function ofCluster<R extends object>(cluster: ClusterId, request: R): R {
  const own = { cluster, run: 0, clock: undefined, place: '', ...request }
  return 'disks' in own ? { ...own, disks: (own.disks as ToldDisk[]).map((disk) => ({ cluster, ...disk })) } : own
}

/** One disk of a process of its own; the same each time for the same number. */
export function diskOf(number: number, facts: Partial<ToldDisk> = {}): ToldDisk {
  return {
    disk: number as DiskId,
    key: Buffer.alloc(32, number),
    class: 2,
    domain: `rack-${number}`,
    path: `/srv/disk-${number}`,
    fileSystem: 0,
    failure: '',
    capacityBytes: 1000 * GB,
    usedBytes: 80 * GB * number,
    freeBytes: (1000 - 80 * number) * GB,
    blocks: 1000 * number,
    ...facts,
  }
}

export function disksOf(number: number, facts: Partial<ToldDisk> = {}): ToldDisks {
  return { process: 1000 + number, address: `10.0.0.${number}:8601`, location: '', disks: [diskOf(number, facts)] }
}

/** Four disks in four failure domains, two shard processes and the coordinator. */
export async function registerAll(registry: RegistryFixture): Promise<void> {
  await registry.heartbeat('registerShards', {
    process: 1,
    address: '10.0.0.1:8610',
    location: '',
    first: 0,
    last: 127,
  })
  await registry.heartbeat('registerShards', {
    process: 2,
    address: '10.0.0.2:8610',
    location: '',
    first: 128,
    last: 255,
  })
  await registry.heartbeat('registerCoordinator', { process: 3, address: '10.0.0.1:8620', location: '' })
  for (const number of [1, 2, 3, 4]) await registry.heartbeat('registerDisks', disksOf(number))
}
