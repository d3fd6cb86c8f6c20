/**
 * A mount of a memory file system for tests, and commands run on it: always in processes of their own that start outside of
 * the mount and have a time limit, since the process that serves a mount must not use it.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtemp, rmdir } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import type { MemoryFileSystem } from './memory-file-system.ts'
import { SESSION_DEFAULTS, type Session, type SessionOptions, startSession } from '#fuse/session.ts'
import { type FuseMount, mountFuse } from '#os/fuse-mount.ts'
import { unmountFuse } from '#os/fuse-unmount.ts'
import { mountsOf } from '#os/mount-table.ts'

export const MOUNT_OPTIONS = {
  source: 'memory',
  subtype: 'eider-test',
  readOnly: false,
  allowOther: true,
  defaultPermissions: true,
  maxReadBytes: 1_048_576,
} as const

const REPOSITORY = fileURLToPath(new URL('..', import.meta.url))

export interface MemoryMount<F extends MemoryFileSystem = MemoryFileSystem> {
  readonly directory: string
  readonly fileSystem: F
  readonly session: Session
  readonly how: FuseMount['how']
}

/** Mounts `fileSystem` on `directory`, and waits for the kernel. */
export async function mountMemory<F extends MemoryFileSystem>(
  directory: string,
  fileSystem: F,
  options: Partial<SessionOptions> = {},
  allowOther = true,
): Promise<MemoryMount<F>> {
  const { fd, how } = await mountFuse({ ...MOUNT_OPTIONS, directory, allowOther })
  const session = startSession(fileSystem, fd, { ...SESSION_DEFAULTS, ...options })
  await session.initialised
  return { directory, fileSystem, session, how }
}

/** Runs `body` on a mount that is gone afterwards, whatever happens. */
export async function withMount<F extends MemoryFileSystem>(
  fileSystem: F,
  body: (mount: MemoryMount<F>) => Promise<void>,
  options: Partial<SessionOptions> = {},
): Promise<void> {
  await withDirectory(async (directory) => {
    const mount = await mountMemory(directory, fileSystem, options)
    try {
      await body(mount)
    } finally {
      await takeAway(directory)
      await mount.session.destroy()
    }
  })
}

/** Runs `body` with an empty directory; mounts left on it are taken away. */
export async function withDirectory(body: (directory: string) => Promise<void>): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), 'eider-fuse-test-'))
  try {
    await body(directory)
  } finally {
    await takeAway(directory)
    await rmdir(directory)
  }
}

async function takeAway(directory: string): Promise<void> {
  while (mountsOf(directory).length > 0) await unmountFuse(directory, { lazy: true, force: process.getuid?.() === 0 })
}

export interface Outcome {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

/** Starts a shell command outside of the mount, with a limit of 30 s. */
export function start(command: string): { readonly child: ChildProcess; readonly outcome: Promise<Outcome> } {
  return watch(
    spawn('timeout', ['--foreground', '-k', '1', '30', 'sh', '-c', command], {
      cwd: '/',
      stdio: ['ignore', 'pipe', 'pipe'],
    }),
  )
}

/** Runs a shell command to its end. */
export function run(command: string): Promise<Outcome> {
  return start(command).outcome
}

/** The program that runs `code`, an ES module of this repository. */
export function nodeProgram(code: string): string[] {
  return [process.execPath, '--input-type=module', '--eval', code]
}

/** Starts a program in the repository, which lies outside of any mount. */
export function startProgram([program = '', ...args]: string[]): {
  readonly child: ChildProcess
  readonly outcome: Promise<Outcome>
} {
  return watch(spawn(program, args, { cwd: REPOSITORY, stdio: ['ignore', 'pipe', 'pipe'] }))
}

function watch(child: ChildProcess): { readonly child: ChildProcess; readonly outcome: Promise<Outcome> } {
  const exited = new Promise<number | null>((resolve, reject) => {
    child.once('error', reject)
    child.once('exit', resolve)
  })
  const read = (stream: ChildProcess['stdout']): Promise<string> =>
    stream === null ? Promise.resolve('') : text(stream)
  const outcome = Promise.all([exited, read(child.stdout), read(child.stderr)])
  return { child, outcome: outcome.then(([code, stdout, stderr]) => ({ code, stdout, stderr })) }
}

/** Waits until `condition` holds. */
export async function until(what: string, condition: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = Date.now() + 20_000
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`Waited in vain until ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}
