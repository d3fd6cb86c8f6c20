/** `eider unmount`: ends a mount, and returns when all that was written in it is in the store. */
import { resolve } from 'node:path'
import { isOperationError, OperationError } from '#base/errors.ts'
import { command, EXIT, type ExitCode } from './command.ts'
import type { MountRecord } from './mount-records.ts'
import { duration } from './options.ts'

export const unmount = command({
  name: 'unmount',
  summary: 'ends a mount when all is in the store',
  description:
    'Takes a mount away and waits until all that was written in it is in the store, with progress on a terminal. Refuses while programs use it, and names them. What a crashed mount left behind is removed.',
  arguments: [{ name: 'DIR', help: 'the directory that the store is mounted on' }],
  options: {
    timeout: duration({
      help: 'How long to wait for the store, for ever where not given; after it this command ends with 3, and the process of the mount goes on storing',
      group: 'Unmounting',
    }),
  },
  run: async ([directory = ''], { timeout }) => {
    const [{ mountPath, mountsOf }, { MOUNT_TYPE, readMountRecord, removeMountRecord }, { isRunning }] =
      await Promise.all([import('#os/mount-table.ts'), import('./mount-records.ts'), import('./process-identity.ts')])
    const target = mountPath(resolve(directory))
    const top = mountsOf(target).at(-1)
    const record = readMountRecord(target)
    const served = record !== undefined && isRunning(record.process)
    if (top === undefined && !served) {
      if (record !== undefined) removeMountRecord(target, record.process.pid)
      throw new OperationError('NOT_MOUNTED', `Cannot unmount '${target}': nothing is mounted there`)
    }
    if (top !== undefined && top.type !== MOUNT_TYPE) {
      throw new OperationError(
        'NOT_MOUNTED',
        `Cannot unmount '${target}': what is mounted there ('${top.source}', ${top.type}) is not Eider's`,
      )
    }
    if (top !== undefined) {
      const { clearStaleMount } = await import('#os/mount-point.ts')
      if (!served && (await clearStaleMount(target))) {
        if (record !== undefined) removeMountRecord(target, record.process.pid)
        process.stdout.write(`Removed what a crashed mount had left on ${target}\n`)
        return EXIT.done
      }
      const { unmountFuse } = await import('#os/fuse-unmount.ts')
      await unmountFuse(target).catch(async (error: unknown) => {
        throw served && isOperationError(error, 'MOUNT_BUSY') ? await busy(error, record) : error
      })
    }
    if (record === undefined || !served) {
      process.stderr.write(
        `eider: ${target} is unmounted; which process served it is not known, so it may still be storing\n`,
      )
      return EXIT.partly
    }
    const stored = await ending(target, record, timeout)
    return stored ? outcome(target, record.process.pid) : EXIT.partly
  },
})

/**
 * The error with what of the mount waits for the store: a program in `close` has the file open no more, so that /proc does not
 * tell of it.
 */
async function busy(error: OperationError, { process: server, socket, store }: MountRecord): Promise<OperationError> {
  if (socket === undefined) return error
  const [{ askStatus }, { notStored }] = await Promise.all([import('./mount-status.ts'), import('./status-screen.ts')])
  const status = await askStatus(socket).catch(() => undefined)
  if (status === undefined || status.waiting === null) return error
  const { pid, since } = status.waiting
  const who = pid === 0 ? 'a program' : `process ${pid}`
  const message = `${error.message}; ${who} waits for ${store} since ${since} (not stored: ${notStored(status)})`
  const hint = `Wait until the store answers, or end the mount by "kill -TERM ${server.pid}": what cannot be stored is then kept, and its log says where.`
  return new OperationError('MOUNT_BUSY', message, { cause: error, hint })
}

/** How often progress is shown. */
const STEP_MS = 500

/**
 * Waits for the end of the process that serves the mount; false where `timeoutMs` is over first.
 * @throws OperationError `LOCAL_FAILED` where it goes on since it can neither store nor keep some of it.
 */
async function ending(target: string, record: MountRecord, timeoutMs: number | undefined): Promise<boolean> {
  const [{ hasEnded }, { readMountRecord }] = await Promise.all([
    import('./process-identity.ts'),
    import('./mount-records.ts'),
  ])
  const { process: server, store } = record
  const deadline = performance.now() + (timeoutMs ?? Number.POSITIVE_INFINITY)
  const progress = new Progress(store, server.pid)
  try {
    for (;;) {
      const left = deadline - performance.now()
      if (await hasEnded(server, Math.max(0, Math.min(STEP_MS, left)))) return true
      const now = readMountRecord(target)
      // One that has lost nothing has written what became of all, and is about to end.
      if (now?.process.pid === server.pid && now.lost !== undefined && now.lost.length > 0) {
        throw new OperationError(
          'LOCAL_FAILED',
          `Cannot store or keep ${now.lost.length} files of '${target}': ${named(now.lost)}; process ${server.pid} still has them and goes on trying until it gets SIGTERM; its log: ${now.log ?? 'none'}`,
        )
      }
      const words = await progress.show(record.socket)
      if (performance.now() < deadline) continue
      progress.end()
      process.stderr.write(
        `eider: ${target} is unmounted, but not all is in ${store} yet (${words}); process ${server.pid} goes on storing\n`,
      )
      return false
    }
  } finally {
    progress.end()
  }
}

/** One line that is written over on a terminal, and written once elsewhere. */
class Progress {
  readonly #store: string
  readonly #pid: number
  #shown = false

  constructor(store: string, pid: number) {
    this.#store = store
    this.#pid = pid
  }

  /** Shows what is left, and gives it in words. */
  async show(socket: string | undefined): Promise<string> {
    const left = await leftToStore(socket)
    if (process.stderr.isTTY) {
      process.stderr.write(`\r\x1b[KStoring in ${this.#store}: ${left} left`)
    } else if (!this.#shown) {
      process.stderr.write(`Waiting until all is in ${this.#store} (process ${this.#pid}): ${left} left …\n`)
    }
    this.#shown = true
    return left
  }

  end(): void {
    if (this.#shown && process.stderr.isTTY) process.stderr.write('\r\x1b[K')
    this.#shown = false
  }
}

async function leftToStore(socket: string | undefined): Promise<string> {
  if (socket === undefined) return 'some'
  const [{ askStatus }, { notStored }] = await Promise.all([import('./mount-status.ts'), import('./status-screen.ts')])
  try {
    return notStored(await askStatus(socket))
  } catch {
    // It ends just now, or hangs: the wait itself tells which.
    return 'some'
  }
}

const NAMED_MAX = 5

function named(paths: readonly string[]): string {
  const first = paths.slice(0, NAMED_MAX).map((path) => `'${path}'`)
  return paths.length > NAMED_MAX ? `${first.join(', ')}, …` : first.join(', ')
}

async function outcome(target: string, pid: number): Promise<ExitCode> {
  const { readMountRecord, removeMountRecord } = await import('./mount-records.ts')
  const record = readMountRecord(target)
  // The process removes its record when all is well.
  if (record === undefined || record.process.pid !== pid) return EXIT.done
  removeMountRecord(target, pid)
  const { unpublished, lost = [], notRemoved = { count: 0, paths: [] } } = record
  if (notRemoved.count > 0) {
    const what = notRemoved.count === 1 ? 'A removal' : `${notRemoved.count} removals`
    process.stderr.write(`eider: ${what} could not be made in ${record.store}; this is there again:\n`)
    for (const path of notRemoved.paths) process.stderr.write(`  ${path}\n`)
    const more = notRemoved.count - notRemoved.paths.length
    if (more > 0) process.stderr.write(`  and ${more} more\n`)
  }
  if (lost.length > 0) {
    throw new OperationError(
      'LOCAL_FAILED',
      `Cannot store or keep ${lost.length} files of '${target}', and they are lost: ${named(lost)}; log: ${record.log ?? 'none'}`,
    )
  }
  if (unpublished === undefined) {
    throw new OperationError(
      'LOCAL_FAILED',
      `Cannot tell whether all is in the store: process ${pid}, which served '${target}', died; its log: ${record.log ?? 'none'}`,
    )
  }
  if (unpublished.length === 0) return EXIT.partly
  process.stderr.write(
    `eider: ${unpublished.length === 1 ? 'A file' : `${unpublished.length} files`} could not be stored; kept here:\n`,
  )
  for (const line of unpublished) process.stderr.write(`  ${line}\n`)
  return EXIT.partly
}
