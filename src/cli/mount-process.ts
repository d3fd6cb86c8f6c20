/**
 * The process that serves a mount: opens the store, mounts, says that it is ready, and stays until the mount is taken away
 * or it is told to stop. It never touches its own mount, and starts no process while it has one.
 *
 * The end, however it came: what is open is published, then the record tells what could not be, then the process ends. So
 * whoever waits for the end of the process knows that all is in the store, or where it is kept. Its exit code says the
 * same: 0 all is stored, 3 some of it is kept or could not be removed, 1 some of it is lost.
 */
import { createHash } from 'node:crypto'
import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { OperationError } from '#base/errors.ts'
import { logger, logToFile, logToStderr } from '#base/log.ts'
import { lendable, MemoryBudget } from '#base/memory-budget.ts'
import { countsOf } from '#base/metrics.ts'
import type { AttributeIndex } from '#cache/attribute-index.ts'
import type { FileCache } from '#cache/file-cache.ts'
import { openAttributeIndex } from '#cache/open-attribute-index.ts'
import { openFileCache } from '#cache/open-file-cache.ts'
import { type Mount, type MountEnd, mountStore } from '#mount/mount.ts'
import { checkMountPoint } from '#os/fuse-mount.ts'
import { makeDirectories } from '#os/make-directories.ts'
import { giveLargeBuffersBack } from '#os/malloc.ts'
import { mountPath } from '#os/mount-table.ts'
import type { DryRunOptions } from '#store/dry-run-store.ts'
import { openStore } from '#store/open-store.ts'
import { estimatedCostUsd } from '#store/s3/prices.ts'
import type { Store } from '#store/store.ts'
import { EXIT, type ExitCode } from './command.ts'
import { stepLogLevelOnSignal } from './log-level-signal.ts'
import { serveMetrics } from './metrics-server.ts'
import type { MOUNT_OPTIONS } from './mount.ts'
import { type MountRecord, removeMountRecord, statusSocket, writeMountRecord } from './mount-records.ts'
import { type MountStatus, serveStatus } from './mount-status.ts'
import { type CommonOptions, defined, formatHostPort, type OptionValues } from './options.ts'
import { stateDirectory } from './places.ts'
import { identityOf } from './process-identity.ts'
import { tellReady } from './readiness.ts'
import { stopped, stopSignal } from './stop-signal.ts'
import { s3OptionsOf } from './store-options.ts'

/** Of what could not be removed, so many are told by name. */
const REMOVALS_NAMED_MAX = 10

const log = logger('cli/mount')
/** For programs that still have files open when the mount is told to end; then they get ENOTCONN. */
const DETACHED_MS_MAX = 10_000
/** For storing when told to end: less than who sent the signal waits before SIGKILL (`eider up` 60 s, systemd 90 s). */
const PUBLISH_MS_MAX = 45_000

/**
 * A mount over what its own server works with would have the server wait for itself, for ever.
 * @throws OperationError `MOUNT_POINT_UNUSABLE`.
 */
function refuseNesting(directory: string, target: string, what: string): void {
  const real = mountPath(directory)
  if (!isWithin(real, target) && !(what === 'the store' && isWithin(target, real))) return
  const message = `Cannot mount on '${target}': ${what} is in '${real}', and one would be inside the other`
  throw new OperationError('MOUNT_POINT_UNUSABLE', message)
}

function isWithin(path: string, directory: string): boolean {
  return path === directory || path.startsWith(directory === '/' ? '/' : `${directory}/`)
}

/** Serves until the mount ends or a signal comes. @throws OperationError for what keeps it from being mounted. */
export async function serveMount(
  url: string,
  directory: string,
  values: OptionValues<typeof MOUNT_OPTIONS & CommonOptions>,
): Promise<ExitCode> {
  const signal = stopSignal()
  stepLogLevelOnSignal()
  if (values.log === undefined) logToStderr()
  else logToFile(values.log)
  const target = mountPath(directory)
  const stagingDirectory = values.staging ?? stateOf('staging', target)
  const keptBefore = keptIn(stagingDirectory)
  refuseNestings(url, target, stagingDirectory, values.cache)
  // Every path is absolute by now. Who stands elsewhere keeps no file system busy, and starts no helper in the mount.
  process.chdir('/')
  giveLargeBuffersBack()
  const memory = new MemoryBudget(lendable(values.memory))
  const store = await openStore(url, {
    signal,
    readOnly: values.readOnly,
    s3: { ...s3OptionsOf(values), memory },
    ...(values.dryRun ? { dryRun: dryRunIn(stagingDirectory, values.storageClass) } : {}),
  })
  const kept = await openKept(store, values, target).catch(async (error: unknown) => {
    await store.close()
    throw error
  })
  try {
    const metrics = values.metrics && (await serveMetrics(values.metrics, () => !signal.aborted))
    if (metrics !== undefined) log.info({ address: formatHostPort(metrics.address) }, 'serving metrics')
    const record: MountRecord = {
      directory: target,
      store: store.url,
      process: identityOf(process.pid),
      socket: statusSocket(target),
      ...(values.log === undefined ? {} : { log: values.log }),
    }
    const keptNow = (): string[] => keptIn(stagingDirectory).filter((path) => !keptBefore.includes(path))
    const mount = await mountStore({
      store,
      directory: target,
      readOnly: values.readOnly,
      allowOther: values.allowOther || process.getuid?.() === 0,
      stagingDirectory,
      validityMs: values.validity,
      memory,
      hedge: values.hedge,
      onConflict: values.onConflict,
      writeBack: values.writeBack && !values.dryRun,
      passthrough: values.passthrough,
      umask: values.umask,
      ...defined({ uid: values.uid, gid: values.gid }),
      ...kept,
      ...(values.dryRun ? { journal: false } : {}),
      signal,
      onStuck: (paths) => tellStuck({ ...record, unpublished: keptNow(), lost: [...paths] }),
    })
    // A second signal ends the process at once, and so does a defect: what is staged has no name and would go with it.
    process.once('exit', () => mount.keepAtOnce())
    const since = new Date().toISOString()
    const telling = await serveStatus(statusSocket(target), () =>
      statusOf(mount, { store: store.url, since }, values.storageClass ?? 'STANDARD'),
    )
    const { lost, notRemoved } = await serve(mount, record, signal).finally(() => telling.close())
    const unpublished = keptNow()
    for (const path of unpublished) log.error({ path }, 'kept what could not be stored')
    for (const path of lost) log.fatal({ path }, 'lost what could neither be stored nor kept')
    if (notRemoved.length > 0) {
      const paths = notRemoved.slice(0, REMOVALS_NAMED_MAX)
      log.error({ count: notRemoved.length, paths }, 'could not remove all that was removed here: it is there again')
    }
    const isAll = unpublished.length === 0 && notRemoved.length === 0
    if (isAll && lost.length === 0) removeMountRecord(target, process.pid)
    else {
      const removals = { count: notRemoved.length, paths: notRemoved.slice(0, REMOVALS_NAMED_MAX) }
      writeMountRecord({ ...record, unpublished, lost: [...lost], notRemoved: removals })
    }
    if (lost.length > 0) return EXIT.failed
    return isAll ? EXIT.done : EXIT.partly
  } finally {
    await Promise.all([kept.cache?.close(), kept.attributeIndex?.close()])
    await store.close()
  }
}

/** Looks at all that a mount needs, and makes none: the place, the directories, and whether the store answers. @throws OperationError */
export async function tryMount(
  url: string,
  directory: string,
  values: OptionValues<typeof MOUNT_OPTIONS & CommonOptions>,
): Promise<ExitCode> {
  const signal = stopSignal()
  const target = mountPath(directory)
  refuseNestings(url, target, values.staging ?? stateOf('staging', target), values.cache)
  const isMade = values.mkdir && !existsSync(target)
  if (!isMade) await checkMountPoint({ directory: target }, signal)
  const store = await openStore(url, { signal, readOnly: true, s3: s3OptionsOf(values) })
  await store.close()
  return EXIT.done
}

/** @throws OperationError `MOUNT_POINT_UNUSABLE`. */
function refuseNestings(url: string, target: string, staging: string, cache: string | undefined): void {
  if (url.startsWith('file:')) refuseNesting(fileURLToPath(url), target, 'the store')
  refuseNesting(staging, target, 'the staging directory')
  if (cache !== undefined) refuseNesting(cache, target, 'the cache')
}

/** What outlives the mount on local disk: versions of files, and attributes that cost a request each. */
interface Kept {
  readonly cache?: FileCache
  readonly attributeIndex?: AttributeIndex
}

async function openKept(
  store: Store,
  { cache: directory, cacheSize, cacheMinFree, dryRun }: OptionValues<typeof MOUNT_OPTIONS>,
  target: string,
): Promise<Kept> {
  // What a dry run shows is nowhere stored: nobody may find it here later.
  if (dryRun) return {}
  const { listingComplete, attributes } = store.capabilities
  const attributeIndex =
    listingComplete || !attributes
      ? undefined
      : await openAttributeIndex({ directory: directory ?? stateOf('index', target), storeUrl: store.url })
  if (directory === undefined) return defined({ attributeIndex })
  const limits = { bytesMax: cacheSize, bytesFreeMin: cacheMinFree }
  const cache = await openFileCache({ directory, storeUrl: store.url, ...limits }).catch(async (error: unknown) => {
    await attributeIndex?.close()
    throw error
  })
  return defined({ cache, attributeIndex })
}

function dryRunIn(stagingDirectory: string, storageClass: string | undefined): DryRunOptions {
  makeDirectories(stagingDirectory, 0o700)
  return { directory: stagingDirectory, log, ...defined({ storageClass }) }
}

/** How the mount stands, for who asks. */
async function statusOf(
  mount: Mount,
  about: Pick<MountStatus, 'store' | 'since'>,
  prices: string,
): Promise<MountStatus> {
  const { isServing, knownNodes: _, cache = null, failing = null, waiting, ...figures } = mount.status
  const counts = await countsOf('eider_s3_requests_total')
  const requests: Record<string, number> = {}
  for (const [count, operation = ''] of counts) requests[operation] = (requests[operation] ?? 0) + count
  const usd = estimatedCostUsd(
    counts.map(([count, operation = '', outcome = '']) => ({ operation, outcome, count })),
    prices,
  )
  return {
    ...about,
    directory: mount.directory,
    pid: process.pid,
    state: isServing ? 'mounted' : 'storing',
    ...figures,
    cache,
    failing,
    waiting:
      waiting === undefined
        ? null
        : { requests: waiting.requests, pid: waiting.pid, since: new Date(Date.now() - waiting.ms).toISOString() },
    requests,
    cost: counts.length === 0 ? null : { usd, prices: `Amazon's list prices of ${prices} in us-east-1` },
  }
}

/** From the mount to its end, which is waited for also where telling that it is ready fails. */
async function serve(mount: Mount, record: MountRecord, signal: AbortSignal): Promise<MountEnd> {
  const { directory, store } = record
  try {
    writeMountRecord(record)
    log.info({ store, directory }, 'mounted')
    await tellReady({ store, directory })
    const ended = await Promise.race([stopped(signal), mount.ended])
    if (ended !== undefined) return ended
  } catch (error) {
    await stop(mount, 'failed')
    throw error
  }
  return stop(mount, String(signal.reason))
}

/** The log has told already; a record that cannot be written must not end the tries. */
function tellStuck(record: MountRecord): void {
  try {
    writeMountRecord(record)
  } catch (error) {
    log.error({ err: error }, 'cannot tell eider unmount what is neither stored nor kept')
  }
}

function stop(mount: Mount, reason: string): Promise<MountEnd> {
  log.info({ reason }, 'unmounting')
  return mount.stop({ graceMs: DETACHED_MS_MAX, publishMs: PUBLISH_MS_MAX })
}

/** A directory for each mount point: two mounts must not share one, and the next mount there finds what was kept. */
function stateOf(what: 'staging' | 'index', target: string): string {
  return join(stateDirectory(), what, createHash('sha256').update(target).digest('hex').slice(0, 24))
}

/** What was kept since it could not be stored. */
function keptIn(stagingDirectory: string): string[] {
  const conflicts = join(stagingDirectory, 'conflicts')
  try {
    return readdirSync(conflicts).map((name) => join(conflicts, name))
  } catch {
    return []
  }
}
