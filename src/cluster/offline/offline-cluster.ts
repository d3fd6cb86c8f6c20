/**
 * A cluster by its directories alone, with no process running: which of those named are shards, the coordinator and disks, and where the state of
 * each inode is. What cannot be read is told of, and the rest is there.
 */
import { readdirSync, realpathSync } from 'node:fs'
import { join } from 'node:path'

import { isOperationError, OperationError } from '#base/errors.ts'
import type { DiskId } from '#cluster/block/permit.ts'
import { inodeShard, type InodeId, SHARDS } from '#cluster/inode-id.ts'
import type { StateReader } from '#cluster/journal/state.ts'
import { SHARDS_KEY } from '#cluster/shard/records.ts'

import { DirectoryInUseError, isMachineDirectory, type MachineState, openMachine } from './machine-directory.ts'
import { isDiskDirectory, OfflineDisk } from './offline-disks.ts'
import type { OnProblem } from './problem.ts'

/** A shard process, by its directory. */
export interface ShardDirectory {
  readonly path: string
  readonly state: StateReader
  readonly first: number
  readonly last: number
}

export class OfflineCluster {
  readonly #machines: MachineState[] = []
  readonly #byShard = new Map<number, ShardDirectory>()
  readonly shards: ShardDirectory[] = []
  coordinator: StateReader | undefined
  readonly disks = new Map<DiskId, OfflineDisk>()

  /**
   * Of the directories of processes, or of a whole cluster, and of disks.
   * @throws JOURNAL_FAILED where a process uses one of them, or no shards are there at all; USAGE
   */
  static async open(data: readonly string[], disks: readonly string[], onProblem: OnProblem): Promise<OfflineCluster> {
    const cluster = new OfflineCluster()
    try {
      const found = new Set([...data, ...disks].flatMap((path) => partsOf(path)))
      for (const path of found) {
        if (isMachineDirectory(path)) cluster.#openMachine(path, onProblem)
        if (isDiskDirectory(path)) await cluster.#openDisk(path, onProblem)
      }
      if (cluster.shards.length === 0) {
        throw new OperationError('JOURNAL_FAILED', `Cannot check ${data.join(', ')}: no shards can be read there`, {
          hint: 'Name the --data of "eider cluster", or the directories of all shard processes and of the coordinator.',
        })
      }
      return cluster
    } catch (error) {
      await cluster.close()
      throw error
    }
  }

  async close(): Promise<void> {
    for (const machine of this.#machines) machine.close()
    for (const disk of this.disks.values()) await disk.close()
  }

  /** Where all that is known of an inode is; undefined where that shard is not there. */
  stateOf(inode: InodeId): StateReader | undefined {
    return this.ofShard(inodeShard(inode))
  }

  ofShard(shard: number): StateReader | undefined {
    return this.#byShard.get(shard)?.state
  }

  /** Shards that no directory has. */
  get missing(): number[] {
    return Array.from({ length: SHARDS }, (_, shard) => shard).filter((shard) => !this.#byShard.has(shard))
  }

  #openMachine(path: string, onProblem: OnProblem): void {
    let machine: MachineState | undefined
    const damaged = (detail: string): void => onProblem({ severity: 'lost', where: path, detail })
    try {
      machine = openMachine(path, damaged)
    } catch (error) {
      if (!isOperationError(error) || error instanceof DirectoryInUseError) throw error
      damaged(error.message)
      return
    }
    if (machine === undefined) return
    this.#machines.push(machine)
    if (machine.kind === 'coordinator') {
      if (this.coordinator !== undefined) throw twice(path, 'another directory has the coordinator, too')
      this.coordinator = machine.state
      return
    }
    const range = machine.state.get(SHARDS_KEY)
    const [first, last] = [range?.[0], range?.[1]]
    if (first === undefined || last === undefined) {
      damaged('nothing tells which shards it has')
      return
    }
    const shards = { path, state: machine.state, first, last }
    for (let shard = first; shard <= last; shard++) {
      const other = this.#byShard.get(shard)
      if (other !== undefined) throw twice(path, `${other.path} has shard ${shard}, too`)
      this.#byShard.set(shard, shards)
    }
    this.shards.push(shards)
  }

  async #openDisk(path: string, onProblem: OnProblem): Promise<void> {
    try {
      const disk = await OfflineDisk.open(path)
      const other = this.disks.get(disk.id)
      if (other !== undefined) {
        await disk.close()
        throw twice(path, `${other.path} is the same disk`)
      }
      this.disks.set(disk.id, disk)
    } catch (error) {
      if (!isOperationError(error, 'DISK_UNUSABLE', 'BLOCK_IO_FAILED')) throw error
      onProblem({ severity: 'degraded', where: path, detail: error.message })
    }
  }
}

function twice(path: string, detail: string): OperationError {
  return new OperationError('USAGE', `Cannot use "${path}": ${detail}`, {
    hint: 'Name each part once; of copies, the newest one.',
  })
}

/** The directory itself, or those of the parts of a cluster that lie in it. @throws USAGE */
function partsOf(path: string): string[] {
  if (isPart(path)) return [realpathSync(path)]
  let names: string[]
  try {
    names = readdirSync(path)
  } catch (error) {
    throw new OperationError('USAGE', `Cannot read "${path}": ${(error as Error).message}`, { cause: error })
  }
  const parts = names.map((name) => join(path, name)).filter((each) => isPart(each))
  if (parts.length > 0) return parts.map((part) => realpathSync(part))
  throw new OperationError('USAGE', `Cannot use "${path}": it has neither journal and state nor blocks in it`)
}

function isPart(path: string): boolean {
  return isMachineDirectory(path) || isDiskDirectory(path)
}
