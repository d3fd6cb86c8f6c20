/** A block service on a real machine: its disks, each a directory that is locked, its port, its registration. */
import { mkdirSync, statSync } from 'node:fs'
import { hostname } from 'node:os'
import { resolve } from 'node:path'

import { OperationError } from '#base/errors.ts'
import { BlockServer } from '#cluster/block/block-server.ts'
import { Disk } from '#cluster/block/disk.ts'
import { LinuxBlockFiles } from '#cluster/block/linux-block-files.ts'
import { ClockTrust, trustedClock } from '#cluster/clock-trust.ts'
import type { ServedDisk } from '#cluster/block/served-disk.ts'
import { registryTarget } from '#cluster/registry/registry-target.ts'
import { systemSurroundings } from '#cluster/system-surroundings.ts'

import {
  advertisedAddress,
  daemonOf,
  makeDataDirectory,
  processIdOf,
  type Daemon,
  type RegisteredOptions,
} from './daemon.ts'
import { originOf } from './place.ts'

export interface DiskOptions {
  readonly path: string
  readonly class: number
  /** What fails with it. */
  readonly domain: string
}

export interface BlockDaemonOptions extends RegisteredOptions {
  readonly disks: readonly DiskOptions[]
  /** Kept free on each file system. */
  readonly reserveBytes: number
}

/** Resolves when the registry knows of it. @throws DISK_UNUSABLE, ADDRESS_UNUSABLE, CLUSTER_MISMATCH */
export async function startBlockService(options: BlockDaemonOptions): Promise<Daemon> {
  const { data, listen, registry, location, reserveBytes } = options
  const surroundings = systemSurroundings(options.network)
  const trust = new ClockTrust(surroundings.clock)
  const clock = trustedClock(surroundings.clock, trust)
  await using opened = new AsyncDisposableStack()
  const disks: ServedDisk[] = []
  for (const each of options.disks) {
    const served = await openDisk(each, reserveBytes, () => clock.nowMs())
    opened.defer(() => served.disk.close())
    disks.push(served)
  }
  // After the disks, as it may lie in one, and a new disk is an empty directory.
  makeDataDirectory(data)
  const server = opened.adopt(new BlockServer({ surroundings, disks }), (each) => each.close())
  const address = advertisedAddress(await server.listen(listen), options.advertiseHost)
  const process = await processIdOf(data, originOf(data))
  await server.register(registryTarget(registry), { process, address, location }, trust)
  return daemonOf(address, opened)
}

async function openDisk(
  { path, class: storageClass, domain }: DiskOptions,
  reserveBytes: number,
  now: () => number,
): Promise<ServedDisk> {
  const absolute = resolve(path)
  try {
    mkdirSync(absolute, { recursive: true, mode: 0o700 })
  } catch (error) {
    const detail = (error as Error).message
    throw new OperationError('DISK_UNUSABLE', `Cannot open disk "${path}": ${detail}`, { cause: error })
  }
  const disk = await Disk.open({ files: LinuxBlockFiles.open(absolute), reserveBytes, now })
  return { disk, class: storageClass, domain, path: absolute, fileSystem: fileSystemOf(absolute) }
}

/** A number that disks on one file system of one machine share. */
function fileSystemOf(path: string): number {
  const device = statSync(path).dev
  let hash = 0
  for (const character of `${hostname()}:${device}`) hash = (hash * 31 + (character.codePointAt(0) ?? 0)) % 2 ** 44
  return hash + 1
}
