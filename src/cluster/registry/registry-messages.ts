/** What the registry answers to processes and clients of the cluster. People and tools ask it by HTTP (`http-api.ts`). */
import { clusterId } from '#cluster/cluster-id.ts'
import { boolean, choice, list, optional, struct, text, u32, u53, u8, type ValueOf } from '#cluster/wire/codec.ts'
import { diskId, diskKey, offMs } from '#cluster/wire/forms.ts'
import { message, MessageTable } from '#cluster/wire/message.ts'

/** `host:port`. */
const address = text(255)
const domain = text(255)
const location = text(255)
/** Names one process from its first start on: random, kept in its data directory. */
const processId = u53
/** What tells its directory from a copy of it: compared, and not looked into. */
const place = text(255)
export const DISKS_MAX = 65_536
const FAILURE_BYTES_MAX = 1024

/** What an operator or the registry itself says of a disk. */
const diskFlag = choice('stale', 'no-read', 'no-write', 'decommissioned')
/** By which a process writes: how far it is ahead of the registry's as far as is known, and whether that is little enough. */
const clock = optional(struct({ isTrusted: boolean, aheadMs: offMs }))
export type ToldClock = ValueOf<typeof clock>
/** What time it is for the registry, in milliseconds since 1970; missing while its clock was set but lately. */
const time = optional(u53)
/** Random at each start of the registry. Versions of one start grow; those of different ones, and of what was lost in between, mean different things. */
const run = u53
const room = { capacityBytes: u53, usedBytes: u53, freeBytes: u53, blocks: u53 }

/** What everybody may know of a disk. */
export const knownDisk = struct({
  disk: diskId,
  address,
  class: u8,
  domain,
  location,
  flags: list(diskFlag, 4),
  /** Of a disk that has withdrawn itself: why. */
  failure: text(FAILURE_BYTES_MAX),
  ...room,
})

export const registryMessages = {
  registerShards: message('registerShards', {
    kind: 0x01,
    does: 'write',
    isInternal: true,
    request: struct({ cluster: clusterId, process: processId, place, address, location, clock, first: u8, last: u8 }),
    reply: struct({ version: u53, timeMs: time }),
    meaning: 'The process serves these shards; also its heartbeat.',
  }),
  registerCoordinator: message('registerCoordinator', {
    kind: 0x02,
    does: 'write',
    isInternal: true,
    request: struct({ cluster: clusterId, process: processId, place, address, location, clock }),
    reply: struct({ version: u53, timeMs: time }),
    meaning: 'The process is the coordinator; also its heartbeat.',
  }),
  registerDisks: message('registerDisks', {
    kind: 0x03,
    does: 'write',
    isInternal: true,
    request: struct({
      process: processId,
      address,
      location,
      clock,
      disks: list(
        struct({
          /** Where one is of another, none is taken. */
          cluster: clusterId,
          disk: diskId,
          key: diskKey,
          class: u8,
          domain,
          path: text(4096),
          /** Disks that lie on one file system share its free bytes, and tell the same number; 0 where it is not known. */
          fileSystem: u53,
          failure: text(FAILURE_BYTES_MAX),
          ...room,
        }),
        1024,
      ),
    }),
    /** `refused`: the disks that were not taken, the others were. */
    reply: struct({
      version: u53,
      timeMs: time,
      refused: list(struct({ disk: diskId, why: text(FAILURE_BYTES_MAX) }), 1024),
    }),
    meaning: 'The process serves these disks; also its heartbeat.',
  }),
  map: message('map', {
    kind: 0x04,
    does: 'read',
    /** `cluster`: of who has one. */
    request: struct({ cluster: optional(clusterId), run, known: u53 }),
    reply: struct({
      run,
      version: u53,
      /** Missing where `known` is this version still, and of this run. */
      map: optional(
        struct({
          shards: list(struct({ first: u8, last: u8, address, isStale: boolean }), 256),
          coordinator: optional(struct({ address, isStale: boolean })),
          disks: list(knownDisk, DISKS_MAX),
        }),
      ),
    }),
    meaning: 'Where everything is.',
  }),
  shardDisks: message('shardDisks', {
    kind: 0x05,
    does: 'read',
    isInternal: true,
    request: struct({ cluster: clusterId, run, known: u53, first: u8, last: u8 }),
    reply: struct({
      run,
      version: u53,
      disks: optional(
        struct({
          all: list(struct({ disk: diskId, key: diskKey, class: u8, domain, location }), DISKS_MAX),
          /** By shard and class: the disks that new blocks may go to. */
          writable: list(struct({ shard: u8, class: u8, disks: list(diskId, 256) }), 65_536),
        }),
      ),
    }),
    meaning: 'The keys of all disks, and which ones these shards are to write to.',
  }),
  setFlags: message('setFlags', {
    kind: 0x06,
    does: 'write',
    request: struct({ disk: diskId, set: list(diskFlag, 4), clear: list(diskFlag, 4) }),
    reply: struct({ version: u53 }),
    meaning: 'What an operator says of a disk. `decommissioned` is for ever.',
  }),
  info: message('info', {
    kind: 0x07,
    does: 'read',
    request: struct({}),
    reply: struct({
      cluster: clusterId,
      disks: u32,
      domains: u32,
      capacityBytes: u53,
      usedBytes: u53,
      freeBytes: u53,
      health: text(1024),
    }),
    meaning: 'Totals, and how the whole is, in one sentence.',
  }),
  greet: message('greet', {
    kind: 0x08,
    does: 'read',
    isInternal: true,
    request: struct({}),
    reply: struct({ cluster: clusterId, timeMs: time }),
    meaning: 'Which cluster this is, for those that are new to it, and what time it is.',
  }),
}

export const REGISTRY_MESSAGES = new MessageTable('Registry', registryMessages)
