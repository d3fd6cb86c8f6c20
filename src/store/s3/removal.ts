/**
 * Removing objects: one under a guard, or many in bulk, each in the version that was seen and with an outcome of its own. Where
 * the server does not hold removals to a version, versions are looked at just before, by listings where those cost fewer
 * requests than looking at each object.
 */
import { createHash } from 'node:crypto'

import { isOperationError, OperationError } from '#base/errors.ts'
import { compareUtf8 } from '#store/path.ts'
import { ANY, ifVersion, IMPLICIT_VERSION, type Guard, type Removal, type Version } from '#store/store.ts'
import type { S3Client } from './client.ts'
import type { S3Context } from './context.ts'
import { S3Error, s3ErrorOf } from './errors.ts'
import { checkGuard, conflict } from './guards.ts'
import { listPage } from './listing.ts'
import { deleteObject, guardHeaders, headObject, readXml } from './objects.ts'
import { inParallel } from './parallel.ts'
import type { Header } from './signer.ts'
import { childrenOf, textOf, writeXml } from './xml.ts'

/** What S3 takes in one request. */
const BULK_KEYS_MAX = 1000
/** S3 takes 3,500 removals a second under one prefix, which four requests of 1,000 keys are near. */
const BULKS_AT_ONCE = 4
/** Requests for single objects that are under way at a time. */
const SINGLES_AT_ONCE = 16

/** Clients of servers that remove nothing in bulk. */
const singly = new WeakSet<S3Client>()

/** An object to be removed: in this version only, or whatever it is by now. */
export interface KeyRemoval {
  readonly key: string
  readonly version: Version | undefined
}

/** What kept an object, or undefined where it is gone. */
export type Outcome = OperationError | undefined

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

/** Removes entries of the store, each by its own object. Requests as `removeKeys`; none for a directory without an object. */
export async function removeEntries(
  context: S3Context,
  removals: readonly Removal[],
  signal: AbortSignal | undefined,
): Promise<readonly Outcome[]> {
  const outcomes: Outcome[] = Array.from({ length: removals.length })
  const keys: KeyRemoval[] = []
  const indexes: number[] = []
  for (const [index, { path, kind, version }] of removals.entries()) {
    const directory = kind === 'directory'
    // Listings that are trusted do not know whether a directory has an object.
    if (directory && version === IMPLICIT_VERSION && context.trustListing !== true) continue
    try {
      if (path === '') throw new OperationError('INPUT_INVALID', 'Cannot remove "": it is the root')
      // A directory's object has no bytes, so its version says nothing.
      if (directory) keys.push({ key: context.keys.directory(path), version: undefined })
      else keys.push({ key: context.keys.file(path), version })
      indexes.push(index)
    } catch (error) {
      if (!isOperationError(error)) throw error
      outcomes[index] = error
    }
  }
  const found = await removeKeys(context, keys, false, signal)
  for (const [at, index] of indexes.entries()) outcomes[index] = found[at]
  return outcomes
}

/**
 * Removes objects, in bulk where the server does; `looked` says that their versions have been seen just now. Rejects only where
 * nothing is known of any. One request for 1,000 keys; where versions have to be looked at, one more for 1,000 of a directory
 * (or for each key, where those are fewer).
 */
export async function removeKeys(
  context: S3Context,
  removals: readonly KeyRemoval[],
  looked: boolean,
  signal: AbortSignal | undefined,
): Promise<readonly Outcome[]> {
  const outcomes: Outcome[] = Array.from({ length: removals.length })
  const held = context.honoured.removeBulk
  const refused = held || looked ? undefined : await lookAt(context, removals, signal)
  const left: number[] = []
  for (const index of removals.keys()) {
    const error = refused?.[index]
    if (error === undefined) left.push(index)
    else outcomes[index] = error
  }
  const batches: number[][] = []
  for (let start = 0; start < left.length; start += BULK_KEYS_MAX)
    batches.push(left.slice(start, start + BULK_KEYS_MAX))
  const failures: unknown[] = []
  await inParallel(batches, BULKS_AT_ONCE, async (batch) => {
    const some = batch.map((index) => removals[index] as KeyRemoval)
    try {
      const found = await removeBatch(context, some, signal)
      for (const [at, index] of batch.entries()) outcomes[index] = found[at]
    } catch (error) {
      if (!isOperationError(error) || error.code === 'ABORTED') throw error
      failures.push(error)
      for (const index of batch) outcomes[index] = error
    }
  })
  if (failures.length > 0 && failures.length === batches.length && left.length === removals.length) throw failures[0]
  return outcomes
}

/** What stayed, as an error: not what was gone already. */
export function firstKept(outcomes: readonly Outcome[]): OperationError | undefined {
  return outcomes.find((outcome) => outcome !== undefined && outcome.code !== 'STORE_NOT_FOUND')
}

async function removeBatch(
  context: S3Context,
  batch: readonly KeyRemoval[],
  signal: AbortSignal | undefined,
): Promise<readonly Outcome[]> {
  if (!singly.has(context.client)) {
    try {
      return await removeBulk(context, batch, signal)
    } catch (error) {
      if (!isOperationError(error, 'STORE_UNSUPPORTED')) throw error
      // Not every S3 server removes in bulk.
      singly.add(context.client)
    }
  }
  const outcomes: Outcome[] = Array.from({ length: batch.length })
  await inParallel(batch, SINGLES_AT_ONCE, async ({ key, version }, index) => {
    const guard = version !== undefined && context.honoured.remove ? ifVersion(version) : ANY
    try {
      await removeGuarded(context, key, key, guard, signal)
    } catch (error) {
      if (!isOperationError(error) || error.code === 'ABORTED') throw error
      const gone = error.cause instanceof S3Error && error.cause.code === 'STORE_NOT_FOUND'
      outcomes[index] = gone ? notFound(key, error) : error
    }
  })
  return outcomes
}

async function removeBulk(
  context: S3Context,
  batch: readonly KeyRemoval[],
  signal: AbortSignal | undefined,
): Promise<readonly Outcome[]> {
  const { client, honoured } = context
  const body = Buffer.from(deleteDocument(batch, honoured.removeBulk))
  const request = { ...bulkRequest(body), signal } as const
  const errors = new Map<string, OperationError>()
  let passing: S3Error | undefined
  try {
    await client.send(request, (answer) => {
      const action = client.action(request)
      errors.clear()
      passing = undefined
      for (const element of childrenOf(readXml(action, answer, 'DeleteResult'), 'Error')) {
        const s3Code = textOf(element, 'Code') ?? 'InternalError'
        const key = textOf(element, 'Key') ?? ''
        if (s3Code === 'NoSuchKey') {
          // Where this is not the first attempt, one before it has removed it.
          if (answer.attempts === 1) errors.set(key, notFound(key))
          continue
        }
        const detail = `${textOf(element, 'Message') ?? ''} ("${key}")`
        const error = s3ErrorOf(action, { status: 200, s3Code, detail, region: undefined })
        errors.set(key, error)
        if (error.again) passing = error
      }
      // All of them once more: what is gone stays gone.
      if (passing !== undefined) throw passing
    })
  } catch (error) {
    if (error !== passing) throw error
  }
  return batch.map(({ key }) => errors.get(key))
}

/** The document of a removal in bulk that tells only what failed. */
export function deleteDocument(batch: readonly KeyRemoval[], conditional: boolean): string {
  return writeXml('Delete', [
    ['Quiet', true],
    ...batch.map(
      ({ key, version }) =>
        [
          'Object',
          [
            ['Key', key],
            ['ETag', conditional && version !== undefined ? `"${version}"` : undefined],
          ],
        ] as const,
    ),
  ])
}

/** The request that a document goes with. */
export function bulkRequest(body: Buffer): {
  readonly operation: 'DeleteObjects'
  readonly method: 'POST'
  readonly query: 'delete='
  readonly headers: readonly Header[]
  readonly body: Buffer
} {
  const headers: Header[] = [
    ['content-md5', createHash('md5').update(body).digest('base64')],
    ['content-type', 'application/xml'],
  ]
  return { operation: 'DeleteObjects', method: 'POST', query: 'delete=', headers, body }
}

function notFound(key: string, cause?: unknown): OperationError {
  return new OperationError('STORE_NOT_FOUND', `Cannot remove "${key}": nothing is there`, { cause })
}

/** For each removal the error of a version that is another or gone. */
async function lookAt(
  context: S3Context,
  removals: readonly KeyRemoval[],
  signal: AbortSignal | undefined,
): Promise<readonly Outcome[]> {
  const versions = new Map<string, Version | undefined>()
  const groups = new Map<string, string[]>()
  for (const { key, version } of removals) {
    if (version === undefined) continue
    const directory = key.slice(0, key.lastIndexOf('/') + 1)
    const group = groups.get(directory)
    if (group === undefined) groups.set(directory, [key])
    else group.push(key)
  }
  await inParallel([...groups], SINGLES_AT_ONCE, ([directory, keys]) =>
    lookIn(context, directory, keys, versions, signal),
  )
  return removals.map(({ key, version }) => {
    if (version === undefined) return undefined
    const found = versions.get(key)
    if (found === undefined) return notFound(key)
    return found === version ? undefined : conflict('remove', key)
  })
}

/** Notes the versions of some keys of one directory, by as many pages of its listing as there are keys, less one, or by looking at each. */
async function lookIn(
  context: S3Context,
  directory: string,
  keys: readonly string[],
  versions: Map<string, Version | undefined>,
  signal: AbortSignal | undefined,
): Promise<void> {
  const { client } = context
  const left = new Set(keys.toSorted(compareUtf8))
  const [first = ''] = left
  const last = [...left].at(-1) ?? ''
  let token: string | undefined
  for (let pages = 0; pages < keys.length - 1 && left.size > 1; pages++) {
    // A key without its last character comes before it, and few others come between.
    const after = first.slice(0, -1)
    const query = { prefix: directory, delimited: true, signal, ...(after > directory ? { after } : {}) }
    const page = await listPage(client, query, token)
    let end = ''
    for (const item of page.items) {
      end = 'key' in item ? item.key : item.prefix
      if ('key' in item && left.delete(item.key)) versions.set(item.key, item.version)
    }
    token = page.token
    // Whatever has not come by now, where the listing has gone past it, is not there.
    for (const key of left) if (token === undefined || compareUtf8(key, end) <= 0) left.delete(key)
    if (token === undefined || compareUtf8(end, last) >= 0) return
  }
  await inParallel([...left], SINGLES_AT_ONCE, async (key) => {
    versions.set(key, (await headObject(client, key, signal))?.version)
  })
}
