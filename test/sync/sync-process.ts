/**
 * `eider sync ... --json` as a process, for tests: what it tells, until when to wait, and how it ends. It has a state directory of its
 * own, so that nothing of the tester's is used. Not here: what the ends are compared by (`compare.ts`).
 */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'

const MAIN = fileURLToPath(new URL('../../src/main.ts', import.meta.url))
/** More than anything takes that a test waits for, on a busy machine too. */
const PATIENCE_MS = 90_000
const LOOK_MS = 20

/** One line of what a sync tells: its counts are those of a snapshot, by the same names. */
export interface SyncEvent {
  readonly event: 'started' | 'progress' | 'failed' | 'skipped' | 'error' | 'done'
  readonly phase?: string
  readonly path?: string
  readonly reason?: string
  readonly code?: string
  readonly message?: string
  readonly state?: string
  readonly pid?: number
  readonly queued?: number
  readonly inFlight?: number
  readonly listedSource?: number
  readonly same?: number
  readonly sent?: number
  readonly sentBytes?: number
  readonly renamed?: number
  readonly removed?: number
  readonly keptBack?: number
  /** Of a plan: why it would be. */
  readonly deletesRefused?: string
  readonly retried?: number
  readonly failed?: number
  readonly skipped?: number
  readonly watcher?: { readonly kind: string; readonly overflows: number }
}

export interface SyncEnd {
  /** Null after a signal that it did not handle. */
  readonly code: number | null
  readonly events: readonly SyncEvent[]
  readonly stderr: string
  /** The last event, where it came to its end. */
  readonly done: SyncEvent | undefined
}

export interface SyncRun {
  readonly child: ChildProcess
  readonly events: readonly SyncEvent[]
  readonly stderr: string
  readonly ended: Promise<SyncEnd>
  /** The first event that matches, of those so far or of those to come; rejects where the process ends before. */
  event(what: string, matches: (event: SyncEvent) => boolean): Promise<SyncEvent>
  /** Resolves when it has compared all and follows the changes. */
  watching(): Promise<SyncEvent>
  /** Ends it and waits for its end. */
  stop(signal?: NodeJS.Signals): Promise<SyncEnd>
}

export interface SyncRunOptions {
  readonly cwd?: string
  readonly env?: Readonly<Record<string, string>>
  /** A program, with arguments, that runs it: one that takes rights away. */
  readonly through?: readonly string[]
  readonly input?: 'ignore' | 'pipe'
}

/** Of the environment only what a program needs: nothing of the tester's own settings. */
function environment(env: Readonly<Record<string, string>> = {}): NodeJS.ProcessEnv {
  const kept = Object.entries(process.env).filter(([name]) => !/^(?:AWS|XDG)_|^EIDER_(?!TEST_)/.test(name))
  return { ...Object.fromEntries(kept), AWS_EC2_METADATA_DISABLED: 'true', ...env }
}

/** Starts `eider sync ARGS --json`; the test ends it. */
export function startSync(args: readonly string[], options: SyncRunOptions = {}): SyncRun {
  const words = [...(options.through ?? []), process.execPath, MAIN, 'sync', ...args, '--json']
  const [program = process.execPath, ...rest] = words
  const child = spawn(program, rest, {
    cwd: options.cwd,
    env: environment(options.env),
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const events: SyncEvent[] = []
  const waiters = new Set<() => void>()
  let stderr = ''
  const lines = createInterface({ input: child.stdout })
  lines.on('line', (line) => {
    events.push(JSON.parse(line) as SyncEvent)
    for (const look of waiters) look()
  })
  child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()))
  const told = once(lines, 'close')
  const ended = once(child, 'close').then(async ([code]): Promise<SyncEnd> => {
    await told
    const done = events.findLast(({ event }) => event === 'done')
    return { code: code as number | null, events, stderr, done }
  })
  const event = (what: string, matches: (event: SyncEvent) => boolean): Promise<SyncEvent> =>
    new Promise((resolve, reject) => {
      const end = (): void => {
        waiters.delete(look)
        clearTimeout(timer)
      }
      const fail = (why: string): void => {
        end()
        reject(new Error(`The sync did not tell ${what}: ${why}\n${JSON.stringify(events.slice(-3))}\n${stderr}`))
      }
      const timer = setTimeout(() => fail('nothing more came'), PATIENCE_MS)
      const look = (): void => {
        const found = events.find((each) => matches(each))
        if (found === undefined) return
        end()
        resolve(found)
      }
      waiters.add(look)
      look()
      void ended.then(({ code }) => fail(`it ended with ${code}`))
    })
  return {
    child,
    events,
    get stderr() {
      return stderr
    },
    ended,
    event,
    watching: () => event('that it is watching', ({ phase }) => phase === 'watching'),
    stop: async (signal = 'SIGTERM') => {
      child.kill(signal)
      return ended
    },
  }
}

/** Runs `eider sync ARGS --json` to its end, as with `--once`. */
export function runSync(args: readonly string[], options: SyncRunOptions = {}): Promise<SyncEnd> {
  return endOf(startSync(args, options))
}

/** The end that it comes to by itself; it is killed where it comes to none. */
export async function endOf(run: SyncRun): Promise<SyncEnd> {
  const timer = setTimeout(() => run.child.kill('SIGKILL'), PATIENCE_MS)
  const end = await run.ended
  clearTimeout(timer)
  return end
}

/** Lets a sync follow its source for as long as `use` takes; it ends without a failure. */
export async function following(
  args: readonly string[],
  use: (run: SyncRun) => Promise<void>,
  options: SyncRunOptions = {},
): Promise<SyncRun> {
  const run = startSync(args, options)
  try {
    await run.watching()
    await use(run)
    const end = await run.stop()
    assert.equal(end.code, 0, `${JSON.stringify(end.events.slice(-4))}\n${end.stderr}`)
    return run
  } finally {
    await run.stop('SIGKILL')
  }
}

/** Waits until `differences` finds none; what is left when patience ends is what the test fails with. */
export async function settled(differences: () => readonly string[] | Promise<readonly string[]>): Promise<void> {
  const deadline = performance.now() + PATIENCE_MS
  for (;;) {
    const found = await unlessGone(differences)
    if (found.length === 0) return
    if (performance.now() > deadline) assert.deepEqual(found.slice(0, 40), [])
    await delay(LOOK_MS)
  }
}

/** What is compared may go while it is looked at. */
async function unlessGone(
  differences: () => readonly string[] | Promise<readonly string[]>,
): Promise<readonly string[]> {
  try {
    return await differences()
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return [error.message]
    throw error
  }
}

/** Waits for what comes about by itself. */
export async function until(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  await settled(async () => ((await holds()) ? [] : [what]))
}
