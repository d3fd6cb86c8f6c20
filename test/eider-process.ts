/** Runs the program itself, from the sources, as a user does: to its end, or in the background of a test. */
import { type ChildProcess, spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { hasEnded, identityOf } from '#cli/process-identity.ts'

const MAIN = fileURLToPath(new URL('../src/main.ts', import.meta.url))
/** More than any start or end takes, on a busy machine too. */
const PATIENCE_MS = 60_000

export interface RunOptions {
  readonly cwd?: string
  readonly env?: Readonly<Record<string, string>>
  /** A program, with arguments, that runs it: one that takes rights away. */
  readonly through?: readonly string[]
  /** When it is killed at the latest, where that is longer than any start or end takes. */
  readonly patienceMs?: number
}

export interface Outcome {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

/** Of the environment only what a program needs: nothing of the tester's own settings. */
function environment(env: Readonly<Record<string, string>> = {}): NodeJS.ProcessEnv {
  const kept = Object.entries(process.env).filter(([name]) => !/^(?:AWS|XDG)_|^EIDER_(?!TEST_)/.test(name))
  return { ...Object.fromEntries(kept), AWS_EC2_METADATA_DISABLED: 'true', ...env }
}

/** Runs `eider ARGS` to its end. Never blocks this process, which may be serving it. */
export async function eider(args: readonly string[], options: RunOptions = {}): Promise<Outcome> {
  const running = startEider(args, options)
  const code = await running.ended
  return { code, stdout: running.stdout, stderr: running.stderr }
}

export interface Running {
  readonly child: ChildProcess
  readonly stdout: string
  readonly stderr: string
  /** Its exit code; null after a signal. */
  readonly ended: Promise<number | null>
  /** Resolves when standard output has it; rejects when the process ends before. */
  shows(pattern: RegExp): Promise<RegExpExecArray>
  /** The same of standard error. */
  complains(pattern: RegExp): Promise<RegExpExecArray>
}

/** Starts `eider ARGS`; the test ends it. */
export function startEider(args: readonly string[], options: RunOptions = {}): Running {
  const [program = process.execPath, ...rest] = [...(options.through ?? []), process.execPath, MAIN, ...args]
  const child = spawn(program, rest, {
    cwd: options.cwd,
    env: environment(options.env),
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: options.patienceMs ?? PATIENCE_MS,
    killSignal: 'SIGKILL',
  })
  let stdout = ''
  let stderr = ''
  const seen = new Set<() => void>()
  child.stdout.on('data', (chunk: Buffer) => {
    stdout += chunk.toString()
    for (const look of seen) look()
  })
  child.stderr.on('data', (chunk: Buffer) => {
    stderr += chunk.toString()
    for (const look of seen) look()
  })
  const ended = new Promise<number | null>((resolve) => child.on('close', resolve))
  const appears = (pattern: RegExp, text: () => string): Promise<RegExpExecArray> =>
    new Promise((resolve, reject) => {
      const look = (): void => {
        const match = pattern.exec(text())
        if (match !== null) resolve(match)
      }
      seen.add(look)
      look()
      void ended.then((code) => reject(new Error(`ended with ${code} before it showed ${pattern}\n${stdout}${stderr}`)))
    })
  return {
    child,
    ended,
    get stdout() {
      return stdout
    },
    get stderr() {
      return stderr
    },
    shows: (pattern) => appears(pattern, () => stdout),
    complains: (pattern) => appears(pattern, () => stderr),
  }
}

/** Resolves when the process with that number is gone. */
export async function gone(pid: number): Promise<void> {
  if (!(await hasEnded(identityOf(pid), PATIENCE_MS))) throw new Error(`process ${pid} did not end`)
}
