/** A whole cluster in this process: registry, all shards, coordinator, and block services with a disk each, on free ports in a directory that goes with it. */
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { type BlockDaemonOptions, startBlockService } from '#cluster/daemons/block-daemon.ts'
import { startCoordinator } from '#cluster/daemons/coordinator-daemon.ts'
import type { Daemon } from '#cluster/daemons/daemon.ts'
import { startRegistry } from '#cluster/daemons/registry-daemon.ts'
import { startShard } from '#cluster/daemons/shard-daemon.ts'

import { eider, type Outcome } from '#test/eider-process.ts'

const LISTEN = '127.0.0.1:0'

export interface TestClusterOptions {
  /** Directories for the disks; otherwise so many in the directory of the cluster. */
  readonly disks?: number | readonly string[]
  /** Which of them fail as one; otherwise each by itself. */
  readonly domain?: (index: number) => string
  readonly hasCoordinator?: boolean
  readonly secret?: Buffer
  readonly reserveBytes?: number
}

export class TestCluster implements AsyncDisposable {
  readonly directory: string
  readonly disks: readonly string[]
  readonly registry: string
  readonly #daemons: Daemon[]

  private constructor(directory: string, disks: readonly string[], registry: string, daemons: Daemon[]) {
    this.directory = directory
    this.disks = disks
    this.registry = registry
    this.#daemons = daemons
  }

  static async start(options: TestClusterOptions = {}): Promise<TestCluster> {
    const { disks: given = 4, domain, hasCoordinator = true, secret, reserveBytes = 0 } = options
    const directory = mkdtempSync(join(tmpdir(), 'eider-cluster-'))
    const disks =
      typeof given === 'number' ? Array.from({ length: given }, (_, index) => join(directory, `disk${index}`)) : given
    const onFailed = (error: Error): never => {
      throw error
    }
    const own = { listen: LISTEN, onFailed, ...(secret !== undefined && { network: { secret } }) }
    const daemons: Daemon[] = []
    const registry = await startRegistry({ ...own, data: join(directory, 'registry') })
    daemons.push(registry)
    const registered = { ...own, registry: registry.address, location: 'here' }
    const services = disks.map((path, index): BlockDaemonOptions => {
      const disk = { path, class: 2, domain: domain?.(index) ?? `domain${index}` }
      return { ...registered, data: join(directory, `service${index}`), disks: [disk], reserveBytes }
    })
    // Shards that start after the disks know all of them from the start.
    daemons.push(...(await Promise.all(services.map((each) => startBlockService(each)))))
    const shards = { data: join(directory, 'shards'), first: 0, last: 255, reserveBytes: 0 }
    daemons.push(await startShard({ ...registered, ...shards }))
    if (hasCoordinator) daemons.push(await startCoordinator({ ...registered, data: join(directory, 'coordinator') }))
    return new TestCluster(directory, disks, registry.address, daemons)
  }

  /** Runs `eider fs ARGS` to its end. */
  fs(...args: string[]): Promise<Outcome> {
    return eider(['fs', ...args], { env: { EIDER_REGISTRY: this.registry }, cwd: this.directory })
  }

  /** The files that blocks of a disk lie in. */
  blockFiles(disk: number): string[] {
    const root = this.disks[disk] ?? ''
    return readdirSync(root, { recursive: true, encoding: 'utf8' })
      .filter((path) => /(?:^|\/)[0-9a-f]{14}$/.test(path))
      .map((path) => join(root, path))
  }

  /** Ends all of it in order; the directory stays. */
  async stop(): Promise<void> {
    for (const daemon of this.#daemons.splice(0).toReversed()) await daemon.close()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
    rmSync(this.directory, { recursive: true, force: true })
  }
}
