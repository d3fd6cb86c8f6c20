/** `eider unmount`: ends a mount, and returns when all that was written in it is in the store. */
import { resolve } from 'node:path'
import { OperationError } from '#base/errors.ts'
import { command, EXIT, type ExitCode } from './command.ts'

export const unmount = command({
  name: 'unmount',
  summary: 'ends a mount when all is in the store',
  description:
    'Takes a mount away and waits until all that was written in it is in the store. Refuses while programs use it, and names them. What a crashed mount left behind is removed.',
  arguments: [{ name: 'DIR', help: 'the directory that the store is mounted on' }],
  options: {},
  run: async ([directory = '']) => {
    const [{ mountPath, mountsOf }, { readMountRecord, removeMountRecord }, { isRunning }] = await Promise.all([
      import('#os/mount-table.ts'),
      import('./mount-records.ts'),
      import('./process-identity.ts'),
    ])
    const target = mountPath(resolve(directory))
    const top = mountsOf(target).at(-1)
    const record = readMountRecord(target)
    const served = record !== undefined && isRunning(record.process)
    if (top === undefined && !served) {
      if (record !== undefined) removeMountRecord(target, record.process.pid)
      throw new OperationError('NOT_MOUNTED', `Cannot unmount '${target}': nothing is mounted there`)
    }
    if (top !== undefined && top.type !== TYPE) {
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
      await unmountFuse(target)
    }
    if (record === undefined || !served) {
      process.stderr.write(
        `eider: ${target} is unmounted; which process served it is not known, so it may still be storing\n`,
      )
      return EXIT.partly
    }
    await ending(target, record.process, record.store)
    return outcome(target, record.process.pid)
  },
})

/** As in the mount table. */
const TYPE = 'fuse.eider'
const PATIENCE_MS = 1000

/** @throws OperationError `LOCAL_FAILED` where the process goes on since it can neither store nor keep some of it. */
async function ending(target: string, process_: { pid: number; startTicks: number }, store: string): Promise<void> {
  const [{ hasEnded }, { readMountRecord }] = await Promise.all([
    import('./process-identity.ts'),
    import('./mount-records.ts'),
  ])
  for (let looks = 0; !(await hasEnded(process_, PATIENCE_MS)); looks++) {
    const record = readMountRecord(target)
    if (record?.process.pid === process_.pid && record.lost !== undefined) {
      throw new OperationError(
        'LOCAL_FAILED',
        `Cannot store or keep ${record.lost.length} files of '${target}': ${named(record.lost)}; process ${process_.pid} still has them and goes on trying until it gets SIGTERM; its log: ${record.log ?? 'none'}`,
      )
    }
    if (looks === 0) process.stderr.write(`Waiting until all is in ${store} (process ${process_.pid}) …\n`)
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
  const { unpublished, lost = [] } = record
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
  process.stderr.write(
    `eider: ${unpublished.length === 1 ? 'A file' : `${unpublished.length} files`} could not be stored; kept here:\n`,
  )
  for (const line of unpublished) process.stderr.write(`  ${line}\n`)
  return EXIT.partly
}
