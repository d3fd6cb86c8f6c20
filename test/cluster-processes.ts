/** A cluster of real processes, one for each part, on free ports of this machine: any of them can be killed and started again. */
import { join } from 'node:path'

import { type Running, startEider } from '#test/eider-process.ts'

const READY = / at (127\.0\.0\.1:\d+)/
/** Longer than any test. */
const PATIENCE_MS = 3600e3

interface Part {
  readonly name: string
  words: readonly string[]
  running: Running | undefined
}

export class ClusterProcesses {
  readonly directory: string
  readonly #parts: Part[] = []
  #registry = ''

  private constructor(directory: string) {
    this.directory = directory
  }

  /** A registry, two shard processes, the second from shard `split` on, a coordinator, and so many block services. */
  static async start(directory: string, disks: number, split: number): Promise<ClusterProcesses> {
    const cluster = new ClusterProcesses(directory)
    const data = (name: string): string[] => ['--data', join(directory, name)]
    const registry = ['registry', ...data('registry'), '--listen']
    cluster.#registry = await cluster.#add('registry', [...registry, '127.0.0.1:0'])
    const [first] = cluster.#parts
    // Its port is what all others were told.
    if (first !== undefined) first.words = [...registry, cluster.#registry]
    const own = ['--registry', cluster.#registry]
    const others: [name: string, words: string[]][] = [
      ['shards-a', ['shard', '--shards', `0-${split - 1}`, ...data('shards-a'), ...own]],
      ['shards-b', ['shard', '--shards', `${split}-255`, ...data('shards-b'), ...own]],
      ['coordinator', ['coordinator', ...data('coordinator'), ...own]],
      ...Array.from({ length: disks }, (_, index): [string, string[]] => {
        const name = `disk-${index + 1}`
        return [
          name,
          ['block-service', join(directory, name), '--reserve', '1', ...data(`service-${index + 1}`), ...own],
        ]
      }),
    ]
    await Promise.all(others.map(([name, words]) => cluster.#add(name, words)))
    return cluster
  }

  get registry(): string {
    return this.#registry
  }

  get names(): readonly string[] {
    return this.#parts.map(({ name }) => name)
  }

  /** What the part has logged since its last start. */
  logOf(name: string): string {
    return this.#find(name).running?.stderr ?? ''
  }

  /** Ends it by SIGKILL. */
  async kill(name: string): Promise<void> {
    const { running } = this.#find(name)
    running?.child.kill('SIGKILL')
    await running?.ended
  }

  /** Starts it again; resolves when it is ready. */
  async restart(name: string): Promise<void> {
    const part = this.#find(name)
    part.running = startEider(part.words, { patienceMs: PATIENCE_MS })
    await part.running.shows(READY)
  }

  /** Ends all in order, those that register first; gives their exit codes by name. */
  async stop(): Promise<Record<string, number | null>> {
    const codes: Record<string, number | null> = {}
    for (const { name, running } of this.#parts.toReversed()) {
      running?.child.kill('SIGTERM')
      codes[name] = (await running?.ended) ?? null
    }
    return codes
  }

  /** Whatever runs still. */
  async end(): Promise<void> {
    for (const { running } of this.#parts) running?.child.kill('SIGKILL')
    await Promise.all(this.#parts.map(async ({ running }) => running?.ended))
  }

  async #add(name: string, words: readonly string[]): Promise<string> {
    const running = startEider(words, { patienceMs: PATIENCE_MS })
    this.#parts.push({ name, words, running })
    return (await running.shows(READY))[1] ?? ''
  }

  #find(name: string): Part {
    const found = this.#parts.find((part) => part.name === name)
    if (found === undefined) throw new Error(`there is no part ${name}`)
    return found
  }
}
