/** Programs that write to a mount while it is killed, and note what was acknowledged: see `acknowledging-writers.py`. */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

import type { BucketMount } from './bucket-mount.ts'

const PROGRAM = fileURLToPath(new URL('./acknowledging-writers.py', import.meta.url))

/** From 0 up to 1, the same every time. */
export function* randoms(seed: number): Generator<number, never> {
  for (let state = seed; ;) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    yield state / 2 ** 32
  }
}

export class Writers {
  readonly #notes: string
  readonly #children: readonly ChildProcess[]
  readonly #said: string[] = []

  constructor(notes: string, directory: string, names: readonly string[], seed: number) {
    this.#notes = notes
    this.#children = names.map((name, index) => {
      const child = spawn('python3', [PROGRAM, 'write', directory, notes, name, String(seed + index)], {
        cwd: '/',
        stdio: ['ignore', 'ignore', 'pipe'],
      })
      child.stderr.on('data', (chunk: Buffer) => this.#said.push(chunk.toString()))
      return child
    })
  }

  /** Resolves when all have ended, none of them by an error that it did not expect. */
  async stop(): Promise<void> {
    writeFileSync(join(this.#notes, 'stop'), '')
    for (const child of this.#children) {
      if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
    }
    assert.deepEqual(this.#said, [])
  }

  kill(): void {
    for (const child of this.#children) child.kill('SIGKILL')
  }
}

/** What is wrong in `tree` by the notes of the writers; and how many of their items were acknowledged. */
export async function checked(
  mount: BucketMount,
  notes: string,
  tree: string,
): Promise<{ acknowledged: number; wrong: string[] }> {
  return JSON.parse(await mount.sh(`python3 '${PROGRAM}' check '${notes}' '${tree}'`)) as {
    acknowledged: number
    wrong: string[]
  }
}
