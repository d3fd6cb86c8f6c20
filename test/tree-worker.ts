/**
 * The process that makes system calls on trees in place of a test (`tree-worker.py`): a test may serve the mount, and a call
 * that hangs must not hang it. One step at a time, each under a time limit.
 */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

const PROGRAM = fileURLToPath(new URL('./tree-worker.py', import.meta.url))
const STEP_MS_MAX = 60_000

/** What a step came to on one tree. */
export interface StepOutcome {
  readonly value?: unknown
  /** The name of the errno. */
  readonly error?: string
  /** Of several calls in one step, the one that failed. */
  readonly stage?: string
}

export class TreeWorker implements AsyncDisposable {
  readonly #child: ChildProcess
  readonly #lines: AsyncIterator<string>
  #said = ''

  /** Starts it for the trees at `roots`, which steps name by position. */
  constructor(roots: readonly string[]) {
    this.#child = spawn('python3', [PROGRAM, ...roots], { cwd: '/', stdio: ['pipe', 'pipe', 'pipe'] })
    const { stdout, stderr } = this.#child
    assert.ok(stdout !== null && stderr !== null, 'its output is a pipe')
    this.#lines = createInterface({ input: stdout })[Symbol.asyncIterator]()
    stderr.on('data', (chunk: Buffer) => (this.#said += chunk.toString()))
    // Its end is what the next step reports.
    this.#child.stdin?.on('error', () => undefined)
  }

  /** Takes one step on some trees, in that order. */
  async take(step: object, on: readonly number[]): Promise<StepOutcome[]> {
    this.#child.stdin?.write(`${JSON.stringify({ ...step, on })}\n`)
    const late = setTimeout(() => this.#child.kill('SIGKILL'), STEP_MS_MAX)
    const { value, done } = await this.#lines.next()
    clearTimeout(late)
    assert.ok(done !== true, `${JSON.stringify(step)} did not return: ${this.#said}`)
    return JSON.parse(value) as StepOutcome[]
  }

  /** As `take`, of a step that must succeed, on one tree; gives its value. */
  async value(step: object, on: number): Promise<unknown> {
    const [outcome] = await this.take(step, [on])
    assert.equal(outcome?.error, undefined, JSON.stringify(step))
    return outcome?.value
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return
    const exit = once(this.#child, 'exit')
    this.#child.stdin?.end()
    const patience = setTimeout(() => this.#child.kill('SIGKILL'), 10_000)
    await exit
    clearTimeout(patience)
  }
}
