/**
 * The process that serves a mount: opens the store, mounts, says that it is ready, and stays until the mount is taken away
 * or it is told to stop. It never touches its own mount, and starts no process while it has one.
 *
 * The end, however it came: what is open is published, then the record tells what could not be, then the process ends. So
 * whoever waits for the end of the process knows that all is in the store.
 */
import { createHash } from 'node:crypto'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { logger, logToFile, logToStderr } from '#base/log.ts'
import { type Mount, mountStore } from '#mount/mount.ts'
import { mountPath } from '#os/mount-table.ts'
import { openStore } from '#store/open-store.ts'
import type { Store } from '#store/store.ts'
import { EXIT, type ExitCode } from './command.ts'
import { serveMetrics } from './metrics-server.ts'
import type { MOUNT_OPTIONS } from './mount.ts'
import { type MountRecord, removeMountRecord, writeMountRecord } from './mount-records.ts'
import { type CommonOptions, formatHostPort, type OptionValues } from './options.ts'
import { stateDirectory } from './places.ts'
import { identityOf } from './process-identity.ts'
import { tellReady } from './readiness.ts'
import { stopped, stopSignal } from './stop-signal.ts'
import { s3OptionsOf } from './store-options.ts'

const log = logger('cli/mount')
/** For programs that still have files open when the mount is told to end; then they get ENOTCONN. */
const DETACHED_MS_MAX = 10_000
const LOOK_MS = 50

/** Serves until the mount ends or a signal comes. @throws OperationError for what keeps it from being mounted. */
export async function serveMount(
  url: string,
  directory: string,
  values: OptionValues<typeof MOUNT_OPTIONS & CommonOptions>,
): Promise<ExitCode> {
  const signal = stopSignal()
  if (values.log === undefined) logToStderr()
  else logToFile(values.log)
  const target = mountPath(directory)
  const stagingDirectory = values.staging ?? usualStaging(target)
  const keptBefore = keptIn(stagingDirectory)
  // Every path is absolute by now. Who stands elsewhere keeps no file system busy, and starts no helper in the mount.
  process.chdir('/')
  const store = await openStore(url, { signal, readOnly: values.readOnly, s3: s3OptionsOf(values) })
  try {
    const metrics = values.metrics && (await serveMetrics(values.metrics, () => !signal.aborted))
    if (metrics !== undefined) log.info({ address: formatHostPort(metrics.address) }, 'serving metrics')
    const mount = await mountStore({
      store,
      directory: target,
      readOnly: values.readOnly,
      allowOther: values.allowOther || process.getuid?.() === 0,
      stagingDirectory,
      validityMs: values.validity,
      signal,
    })
    const kept = await serve(mount, store, values, signal, () =>
      keptIn(stagingDirectory).filter((path) => !keptBefore.includes(path)),
    )
    return kept.length === 0 ? EXIT.done : EXIT.partly
  } finally {
    await store.close()
  }
}

/** From the mount to its end; gives the paths of what could not be stored. */
async function serve(
  mount: Mount,
  store: Store,
  values: OptionValues<typeof MOUNT_OPTIONS & CommonOptions>,
  signal: AbortSignal,
  kept: () => string[],
): Promise<string[]> {
  const { directory } = mount
  const record: MountRecord = {
    directory,
    store: store.url,
    process: identityOf(process.pid),
    ...(values.log === undefined ? {} : { log: values.log }),
  }
  try {
    writeMountRecord(record)
    log.info({ store: store.url, directory }, 'mounted')
    await tellReady({ store: store.url, directory })
    await Promise.race([stopped(signal), mount.ended])
  } finally {
    await takeDown(mount, signal)
  }
  const unpublished = kept()
  if (unpublished.length === 0) removeMountRecord(directory, process.pid)
  else writeMountRecord({ ...record, unpublished })
  for (const path of unpublished) log.error({ path }, 'kept what could not be stored')
  return unpublished
}

/** Ends the mount, also under programs that use it: who sent a signal will not wait for them. */
async function takeDown(mount: Mount, signal: AbortSignal): Promise<void> {
  let ended = false
  const end = mount.ended.then(() => {
    ended = true
  })
  if (!signal.aborted) {
    // Taken away by others, or failed right after the start.
    await Promise.race([end, delay(0)])
    if (ended) return
  }
  log.info({ reason: String(signal.reason ?? 'failed') }, 'unmounting')
  try {
    await mount.unmount()
    return
  } catch (error) {
    if (ended) return
    log.warn({ err: error }, 'detached from under the programs that use it')
  }
  const detached = mount.unmount({ lazy: true })
  detached.catch((error: unknown) => log.error({ err: error }, 'cannot detach'))
  const deadline = performance.now() + DETACHED_MS_MAX
  while (!ended && mount.status().openFiles > 0 && performance.now() < deadline) await delay(LOOK_MS)
}

/** A directory for each mount point: two mounts must not share one, and the next mount there finds what was kept. */
function usualStaging(target: string): string {
  return join(stateDirectory(), 'staging', createHash('sha256').update(target).digest('hex').slice(0, 24))
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
