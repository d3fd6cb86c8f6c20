/**
 * `eider mount`: a store as a folder. In the background it is started again as `--foreground` by a parent that waits until
 * it is ready, so that what is wrong is told where the command was typed, with its exit code. What serves the mount is
 * `mount-process.ts`.
 */
import { closeSync, lstatSync, rmdirSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { OperationError } from '#base/errors.ts'
import { logger } from '#base/log.ts'
import { ON_CONFLICT } from '#mount/conflict-policy.ts'
import { makeDirectories, whyNotMade } from '#os/make-directories.ts'
import { command, EXIT, type ExitCode } from './command.ts'
import {
  boolean,
  bytes,
  choice,
  defined,
  COMMON_OPTIONS,
  type CommonOptions,
  duration,
  flagsOf,
  hostPort,
  integer,
  type OptionValues,
  octal,
  path,
} from './options.ts'
import { STORE_OPTIONS, storeUrl } from './store-options.ts'

const UID_MAX = 2 ** 32 - 2

/** The options of `mount` alone. */
export const MOUNT_OPTIONS = {
  foreground: boolean({ help: 'Stays in the foreground and logs to stderr', group: 'Mount', short: 'f' }),
  mkdir: boolean({ help: 'Makes DIR where it is missing', group: 'Mount' }),
  readOnly: boolean({ help: 'Refuses every change', group: 'Mount' }),
  allowOther: boolean({
    help: 'Lets other users in, as the modes of files allow; where root mounts it always does',
    group: 'Mount',
  }),
  validity: duration({
    help: 'How long what the store said is believed before it is asked again',
    group: 'Mount',
    default: 1000,
    max: 24 * 3_600_000,
  }),
  onConflict: choice(ON_CONFLICT, {
    help: 'What becomes of a file that somebody else has changed since it was opened here: its close fails, ours gets another name next to it, or ours replaces it',
    group: 'Mount',
    default: 'fail',
  }),
  writeBack: boolean({
    help: 'Has close and fsync return when the bytes are safe on the staging disk, and stores them in the background, also after a crash',
    group: 'Mount',
  }),
  staging: path({
    help: 'Where files being written lie until they are in the store',
    group: 'Mount',
    placeholder: 'DIRECTORY',
    defaultText: 'a directory in /var/lib/eider, or in ~/.local/state/eider',
  }),
  memory: bytes({
    help: 'The most memory for what is read ahead, waits for readers or is on its way up: about half is lent to it, the rest is for what comes with it; the program itself takes some 150 MiB more',
    group: 'Mount',
    default: 256 * 1024 ** 2,
    min: 32 * 1024 ** 2,
  }),
  hedge: boolean({
    help: 'Asks a second time for what takes longer than 95 of 100 reads did, and takes the first answer',
    group: 'Mount',
  }),
  uid: integer({ help: 'The owner of what the store tells none of', group: 'Mount', min: 0, max: UID_MAX }),
  gid: integer({ help: 'The group of what the store tells none of', group: 'Mount', min: 0, max: UID_MAX }),
  umask: octal({
    help: 'What is taken from the modes of what the store tells none of',
    group: 'Mount',
    default: 0o022,
  }),
  dryRun: boolean({
    help: 'Shows changes on this mount alone, sends none to the store, and logs what each would have cost',
    group: 'Mount',
  }),
  cache: path({ help: 'Keeps what was read and written in that directory', group: 'Cache', placeholder: 'DIRECTORY' }),
  cacheSize: bytes({ help: 'How much of it', group: 'Cache', default: 10 * 1024 ** 3, min: 1024 ** 2 }),
  cacheMinFree: bytes({
    help: 'How much is left free on its disk, whatever its size may be',
    group: 'Cache',
    default: 1024 ** 3,
  }),
  passthrough: boolean({
    help: 'Reads and writes whole cached files through the mount rather than by the kernel alone',
    group: 'Cache',
    default: true,
  }),
  ...STORE_OPTIONS,
  log: path({
    help: 'Where the log goes',
    group: 'Watching it',
    placeholder: 'FILE',
    defaultText: 'in the background a file in /var/log/eider or ~/.local/state/eider',
  }),
  metrics: hostPort({ help: 'Serves metrics for Prometheus there, at /metrics', group: 'Watching it' }),
} as const

type MountValues = OptionValues<typeof MOUNT_OPTIONS & CommonOptions>

export const mount = command({
  name: 'mount',
  summary: 'a store as a folder',
  description:
    'Mounts a store as a folder that ordinary programs work in. Goes to the background once the folder answers, or says in one sentence why it cannot. A file is in the store when its close or fsync returns.',
  arguments: [
    { name: 'STORE', help: 's3://BUCKET/PREFIX or file:///DIRECTORY' },
    { name: 'DIR', help: 'an empty directory' },
  ],
  options: MOUNT_OPTIONS,
  examples: [
    {
      line: 'eider mount s3://my-bucket/photos /mnt/photos',
      help: 'a part of a bucket, with the credentials that the AWS tools find',
    },
    {
      line: 'eider mount s3://tree?endpoint=http://127.0.0.1:9000 mnt -f',
      help: 'a bucket of another S3 server, in the foreground',
    },
  ],
  run: async ([store = '', directory = ''], values) => {
    const url = await storeUrl(store)
    const target = resolve(directory)
    const made = values.mkdir ? makeDirectory(target) : []
    try {
      return await startMount(url, target, values)
    } catch (error) {
      removeMade(made)
      throw error
    }
  },
})

async function startMount(url: string, target: string, values: MountValues): Promise<ExitCode> {
  if (values.foreground) {
    const { serveMount } = await import('./mount-process.ts')
    return serveMount(url, target, values)
  }
  const { logDirectory } = await import('./places.ts')
  const log = values.log ?? join(logDirectory(), `mount${target.replaceAll('/', '-')}.log`)
  const flags = flagsOf({ ...MOUNT_OPTIONS, ...COMMON_OPTIONS }, { ...values, log, foreground: true })
  return startInBackground([url, target, ...flags], log)
}

/** All that comes before a mount and changes nothing, for `mount -f`. @throws OperationError for what keeps it from being mounted. */
export async function checkMount(
  [store = '', directory = '']: readonly string[],
  values: Readonly<Record<string, unknown>>,
): Promise<ExitCode> {
  const { tryMount } = await import('./mount-process.ts')
  return tryMount(
    await storeUrl(store),
    resolve(directory),
    values as OptionValues<typeof MOUNT_OPTIONS & CommonOptions>,
  )
}

/** Gives the directories that were missing, the innermost first. */
function makeDirectory(directory: string): string[] {
  const missing: string[] = []
  try {
    for (let next = directory; !isThere(next); next = dirname(next)) missing.push(next)
    makeDirectories(directory)
    return missing
  } catch (error) {
    // A dead mount says EEXIST or ENOTCONN here, and is dealt with where it is replaced.
    const { code } = error as NodeJS.ErrnoException
    if (code === 'EEXIST' || code === 'ENOTCONN') return []
    removeMade(missing)
    const isRefused = code === 'EACCES' || code === 'EPERM'
    const hint = isRefused
      ? 'Name a directory below one of yours, or have root make this one for this user.'
      : undefined
    throw new OperationError('MOUNT_POINT_UNUSABLE', `Cannot make '${directory}': ${whyNotMade(directory, error)}`, {
      cause: error,
      ...defined({ hint }),
    })
  }
}

/** Whether something has that name; what it is, or whether it answers, is not asked. */
function isThere(name: string): boolean {
  try {
    return lstatSync(name, { throwIfNoEntry: false }) !== undefined
  } catch (error) {
    // A dead mount, or what may not be looked at, is there; below a file nothing is.
    return (error as NodeJS.ErrnoException).code !== 'ENOTDIR'
  }
}

/** Takes away what was made for a mount that did not come up, as far as nobody has put anything in it. */
function removeMade(directories: readonly string[]): void {
  for (const directory of directories) {
    try {
      rmdirSync(directory)
    } catch (error) {
      const { code = '' } = error as NodeJS.ErrnoException
      if (!LEFT_BY.has(code)) logger('cli/mount').warn({ err: error }, 'cannot remove what --mkdir made')
    }
  }
}

/** It was not made after all, has entries by now, or lies below what has. */
const LEFT_BY: ReadonlySet<string> = new Set(['ENOENT', 'ENOTEMPTY', 'EBUSY', 'ENOTDIR'])

async function startInBackground(args: readonly string[], log: string): Promise<ExitCode> {
  const { letGo, openErrors, startReady } = await import('./readiness.ts')
  const { stopSignal } = await import('./stop-signal.ts')
  const errors = openErrors(log)
  try {
    const options = { errors, environment: process.env, signal: stopSignal() }
    const { child, facts } = await startReady(['mount', ...args], options)
    await letGo(child)
    process.stdout.write(`${facts['store']} is mounted on ${facts['directory']}; log: ${log}\n`)
    return EXIT.done
  } finally {
    closeSync(errors)
  }
}
