/**
 * Opening an S3 store: one cheap request says whether the bucket is there, the credentials hold, the clock is right and the
 * region is known; then the probe says which guards are honoured. What is wrong is one sentence.
 */
import { setTimeout as sleep } from 'node:timers/promises'

import { OperationError, type ErrorCode } from '#base/errors.ts'
import { logger } from '#base/log.ts'
import { timestampNow } from '#base/time.ts'
import type { Store } from '#store/store.ts'
import { S3Client } from './client.ts'
import { limitsOf, type S3Context } from './context.ts'
import { parseS3Url, type S3Location, type S3Options } from './endpoint.ts'
import { S3Error } from './errors.ts'
import { NONE_HONOURED, type Honoured } from './guards.ts'
import { Keys } from './keys.ts'
import { listPage } from './listing.ts'
import { PartBuffers } from './part-buffers.ts'
import { probeGuards } from './probe.ts'
import { Recovery } from './recovery.ts'
import { intentsPrefix } from './rename-intents.ts'
import { firstRegion } from './region.ts'
import { notesPrefix, UploadNotes } from './upload-notes.ts'
import { UploadRecovery } from './upload-recovery.ts'
import { BucketStore } from './bucket-store.ts'

const log = logger('store/s3')
/** Whoever waits for a store to open wants to know soon that it does not. */
const OPEN_ATTEMPTS_MAX = 3
/** An endpoint that takes connections and says nothing is told after so long. */
const OPEN_MS_MAX = 15_000

/** How long an opening waits for the renames that a crash has left. */
const RECOVERY_MS_MAX = 10_000

/** Opens `s3://BUCKET/PREFIX?…`; options in the URL stand where `options` has none. @throws OperationError with one clear sentence. */
export async function openS3Store(url: string, options: S3Options = {}): Promise<Store> {
  const location = parseS3Url(url, options)
  const client = new S3Client(location, await firstRegion(location.options))
  const { attemptsMax, ioTimeoutMs } = client
  client.attemptsMax = Math.min(attemptsMax, OPEN_ATTEMPTS_MAX)
  // Whoever opens a store waits for its answer; a wrong endpoint is told at once.
  client.ioTimeoutMs = 0
  try {
    const keys = new Keys(location.prefix)
    const left = await checkBucket(client, location, keys)
    const honoured = await honouredBy(client, location, keys)
    client.attemptsMax = attemptsMax
    client.ioTimeoutMs = ioTimeoutMs
    const recovery = new Recovery(() => context)
    const notes = new UploadNotes(client, keys)
    const limits = limitsOf(location.options)
    const context: S3Context = {
      client,
      keys,
      options: location.options,
      honoured,
      limits,
      partBuffers: new PartBuffers(limits.putPartBytes),
      metadata: location.options.trustListing !== true && (location.options.metadata ?? true),
      trustListing: location.options.trustListing === true,
      onIntentLeft: (key, isBegun) => recovery.left(key, isBegun),
      notes,
      opened: timestampNow(),
    }
    const uploads = new UploadRecovery(client, keys, notes.key)
    const { readOnly, anonymous } = location.options
    if (readOnly !== true && anonymous !== true) {
      const looks: Promise<void>[] = []
      if (left.renames) looks.push(recovery.look())
      if (left.uploads) looks.push(uploads.look())
      // What takes longer goes on while the store is used.
      await Promise.race([Promise.all(looks), sleep(RECOVERY_MS_MAX, undefined, { ref: false })])
    }
    return new BucketStore(context, recovery, uploads)
  } catch (error) {
    await client.close()
    throw error
  }
}

/** What others may have left behind: what is asked for has to be something, and costs no request more so. */
async function checkBucket(
  client: S3Client,
  location: S3Location,
  keys: Keys,
): Promise<{ readonly renames: boolean; readonly uploads: boolean }> {
  const { bucket, options } = location
  const late = AbortSignal.timeout(OPEN_MS_MAX)
  const signal = options.signal === undefined ? late : AbortSignal.any([options.signal, late])
  try {
    const { items, token } = await listPage(client, { prefix: keys.own, delimited: false, signal })
    const has = (prefix: string): boolean =>
      token !== undefined || items.some((item) => 'key' in item && item.key.startsWith(prefix))
    return { renames: has(intentsPrefix({ keys })), uploads: has(notesPrefix(keys)) }
  } catch (error) {
    if (!(error instanceof OperationError)) throw error
    let code: ErrorCode = error.code
    let detail = error.message.replace(/^Cannot (?:do .* at \S+|[^:]*): /, '')
    if (code === 'ABORTED' && options.signal?.aborted !== true) {
      code = 'STORE_TIMEOUT'
      detail = `no answer came in ${OPEN_MS_MAX / 1000} seconds`
    } else if (code === 'STORE_NOT_FOUND') {
      // A server of S3's kind says which thing is not there, in a document of its own.
      const foreign = error instanceof S3Error && error.s3Code.startsWith('HTTP ')
      code = foreign ? 'STORE_PROTOCOL' : 'BUCKET_NOT_FOUND'
      if (foreign) detail = 'what answers there is not an S3 server'
    }
    throw new OperationError(code, `Cannot open bucket "${bucket}" at ${client.endpoint.origin}: ${detail}`, {
      cause: error,
    })
  }
}

async function honouredBy(client: S3Client, location: S3Location, keys: Keys): Promise<Honoured> {
  const { options } = location
  if (options.readOnly === true || options.probe === false || options.anonymous === true) return NONE_HONOURED
  return probeGuards(client, keys, options.signal).catch((error: unknown) => {
    if (!(error instanceof OperationError) || error.code === 'ABORTED') throw error
    log.info({ bucket: location.bucket, reason: error.message }, 'cannot write here, so guards are not probed')
    return NONE_HONOURED
  })
}
