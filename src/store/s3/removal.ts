/** Removing objects: one under a guard, or many in bulk, each in the version that was seen. */
import { createHash } from 'node:crypto'

import { logger } from '#base/log.ts'
import { OperationError } from '#base/errors.ts'
import { ifVersion, type Guard, type Version } from '#store/store.ts'
import type { S3Context } from './context.ts'
import { S3Error, s3ErrorOf } from './errors.ts'
import { checkGuard, conflict } from './guards.ts'
import { deleteObject, guardHeaders, headObject, readXml } from './objects.ts'
import type { Header } from './signer.ts'
import { childrenOf, textOf, writeXml } from './xml.ts'

/** What S3 takes in one request. */
const BULK_KEYS_MAX = 1000

const log = logger('store/s3')

export interface Seen {
  readonly key: string
  readonly version: Version
}

/** Removes what was just seen under its guard; gone already is a conflict unless an attempt of ours did it. One request, two where the guard has to be looked at. */
export async function removeGuarded(
  context: S3Context,
  path: string,
  key: string,
  guard: Guard,
  signal: AbortSignal | undefined,
): Promise<void> {
  const { client, honoured } = context
  let headers: Header[] = []
  if (guard.kind === 'version' && honoured.remove) headers = guardHeaders(guard)
  else if (guard.kind === 'version') checkGuard('remove', path, (await headObject(client, key, signal))?.version, guard)
  try {
    await deleteObject(client, key, headers, signal)
  } catch (error) {
    if (!(error instanceof S3Error)) throw error
    const gone = error.code === 'STORE_NOT_FOUND' || error.code === 'STORE_CONFLICT'
    if (!gone) throw error
    if (error.attempts > 1 && (await headObject(client, key, signal)) === undefined) return
    throw conflict('remove', path, error)
  }
}

/** Removes keys in bulk. @throws OperationError of the first key that stayed. One request for 1,000 keys. */
export async function removeMany(
  context: S3Context,
  keys: readonly Seen[],
  signal: AbortSignal | undefined,
): Promise<void> {
  for (let start = 0; start < keys.length; start += BULK_KEYS_MAX) {
    const some = keys.slice(start, start + BULK_KEYS_MAX)
    try {
      await removeBulk(context, some, signal)
    } catch (error) {
      if (!(error instanceof OperationError) || error.code !== 'STORE_UNSUPPORTED') throw error
      // Not every S3 server removes in bulk.
      for (const { key, version } of some) await removeGuarded(context, key, key, ifVersion(version), signal)
    }
  }
}

async function removeBulk(context: S3Context, keys: readonly Seen[], signal: AbortSignal | undefined): Promise<void> {
  const { client, honoured } = context
  const document = writeXml('Delete', [
    ['Quiet', true],
    ...keys.map(
      ({ key, version }) =>
        [
          'Object',
          [
            ['Key', key],
            ['ETag', honoured.remove ? `"${version}"` : undefined],
          ],
        ] as const,
    ),
  ])
  const body = Buffer.from(document)
  const headers: Header[] = [
    ['content-md5', createHash('md5').update(body).digest('base64')],
    ['content-type', 'application/xml'],
  ]
  const request = { operation: 'DeleteObjects', method: 'POST', query: 'delete=', headers, body, signal } as const
  await client.send(request, (answer) => {
    const action = client.action(request)
    for (const error of childrenOf(readXml(action, answer, 'DeleteResult'), 'Error')) {
      const s3Code = textOf(error, 'Code') ?? 'InternalError'
      // An attempt before this one has removed it.
      if (s3Code === 'NoSuchKey') continue
      const detail = `${textOf(error, 'Message') ?? ''} ("${textOf(error, 'Key') ?? ''}")`
      throw s3ErrorOf(action, { status: 200, s3Code, detail, region: undefined })
    }
  })
}

/** Removes copies that a failed operation had made; what fails here is only told in the log. */
export async function removeLeftovers(context: S3Context, keys: readonly Seen[]): Promise<void> {
  try {
    await removeMany(context, keys, AbortSignal.timeout(60_000))
  } catch (error) {
    const code = error instanceof OperationError ? error.code : undefined
    log.warn({ err: error, code, keys: keys.length }, 'cannot remove the copies of a rename that failed')
  }
}
