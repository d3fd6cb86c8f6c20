/**
 * How a command that stays tells the process which started it that it is ready, or why it cannot be. The channel is Node's
 * IPC: whoever is started with one uses it. Closing it means something too: with a word before (`letGo`), that the child goes
 * on alone; without one, that its parent died, and the child ends as on SIGTERM (see `stop-signal.ts`).
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { openSync } from 'node:fs'
import { dirname } from 'node:path'
import { OperationError } from '#base/errors.ts'
import { makeDirectories } from '#os/make-directories.ts'
import { EXIT } from './command.ts'
import { ChildFailure, type Failure } from './failure.ts'

type Message =
  | { readonly kind: 'ready'; readonly facts: Facts }
  | { readonly kind: 'failed'; readonly failure: Failure }
/** What a child tells with being ready, such as the address that it listens on. */
export type Facts = Readonly<Record<string, string>>

/** The word that lets a child go on without its parent. */
export const LET_GO = 'let go'

/** Tells the parent that this command is ready, where there is one that listens. */
export async function tellReady(facts: Facts = {}): Promise<void> {
  await tell({ kind: 'ready', facts })
}

/** Tells the parent why this command cannot be ready. Resolves to false where nobody listens. */
export function tellFailure(failure: Failure): Promise<boolean> {
  return tell({ kind: 'failed', failure })
}

function tell(message: Message): Promise<boolean> {
  return new Promise((resolve) => {
    if (process.send === undefined || !process.connected) resolve(false)
    // The process may exit right after, so it waits until the message is out.
    else process.send(message, (error: Error | null) => resolve(error === null))
  })
}

export interface Started {
  readonly child: ChildProcess
  readonly facts: Facts
}

export interface StartOptions {
  /** A descriptor for its standard error: the last words of a crash. What it says on standard output is left out. */
  readonly errors: number
  /** All of its environment. */
  readonly environment: NodeJS.ProcessEnv
  readonly signal?: AbortSignal
}

/** Opens the log of a process that is to be started, for its standard error. @throws OperationError `LOCAL_FAILED`. */
export function openErrors(log: string): number {
  try {
    makeDirectories(dirname(log))
    return openSync(log, 'a', 0o640)
  } catch (error) {
    const detail = error instanceof Error ? error.message : String(error)
    throw new OperationError('LOCAL_FAILED', `Cannot log to '${log}': ${detail}`, { cause: error })
  }
}

/**
 * Starts this program with other arguments, in a session of its own (so that the terminal's Ctrl-C does not reach it),
 * and waits until it is ready. Once `signal` fires, or where it fails, the child is ended.
 * @throws ChildFailure, or OperationError `ABORTED`.
 */
export async function startReady(args: readonly string[], options: StartOptions): Promise<Started> {
  const [node, script] = process.argv
  if (node === undefined || script === undefined) throw new TypeError('no script to start again')
  const child = spawn(process.execPath, [...process.execArgv, script, ...args], {
    // Never where the user stands: that may be the mount itself, or keep another file system busy.
    cwd: '/',
    detached: true,
    stdio: ['ignore', 'ignore', options.errors, 'ipc'],
    env: options.environment,
  })
  try {
    return { child, facts: await readiness(child, args, options.signal) }
  } catch (error) {
    if (child.exitCode === null && child.signalCode === null) child.kill('SIGTERM')
    throw error
  }
}

function readiness(child: ChildProcess, args: readonly string[], signal: AbortSignal | undefined): Promise<Facts> {
  return new Promise((resolve, reject) => {
    const onAbort = (): void => reject(new OperationError('ABORTED', `Cannot start "eider ${args[0]}": it was stopped`))
    signal?.addEventListener('abort', onAbort, { once: true })
    if (signal?.aborted) onAbort()
    child.once('error', reject)
    child.on('message', (message: Message) => {
      if (message.kind === 'ready') resolve(message.facts)
      else reject(new ChildFailure(message.failure))
    })
    child.once('exit', (code, by) => {
      const how = by === null ? `code ${code}` : by
      reject(
        new ChildFailure({
          message: `Cannot start "eider ${args[0]}": it ended by ${how}`,
          hint: 'Its log may say more.',
          exitCode: EXIT.failed,
        }),
      )
    })
  })
}

/** Lets a ready child go on alone. */
export async function letGo(child: ChildProcess): Promise<void> {
  await new Promise<void>((resolve) => {
    child.send(LET_GO, () => resolve())
  })
  child.disconnect()
  child.unref()
}
