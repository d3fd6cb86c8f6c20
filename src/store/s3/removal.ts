/**
 * Removing objects: one under a guard, or many in bulk, each in the version that was seen and with an outcome of its own. Where
 * the server does not hold removals to a version, versions are looked at just before, by listings where those cost fewer
 * requests than looking at each object. So are they wherever a removal is sent again: by then somebody else may have made the very
 * same bytes under that name, which their time of modification tells.
 */
import { createHash } from 'node:crypto'
import { performance } from 'node:perf_hooks'

import { isOperationError, OperationError } from '#base/errors.ts'
import type { Timestamp } from '#base/time.ts'
import { compareUtf8 } from '#store/path.ts'
import { ANY, ifVersion, IMPLICIT_VERSION, type Guard, type Removal, type Version } from '#store/store.ts'
import type { BeforeAttempt, S3Client } from './client.ts'
import type { S3Context } from './context.ts'
import { mayHaveActed, S3Error, s3ErrorOf } from './errors.ts'
import { conflict } from './guards.ts'
import { listPage } from './listing.ts'
import { deleteObject, guardHeaders, headObject, readXml, type ObjectHead } from './objects.ts'
import { inParallel } from '#store/parallel.ts'
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
  /** As far as it is known: where that is in doubt, what is later is another. */
  readonly modified?: Timestamp | undefined
  /** What became of it so far; absent for what only this store makes, or what nobody asks for again. */
  readonly asked?: Asked | undefined
}

/** What is known of a removal that was sent already. */
export interface Asked {
  /** By `performance.now()`: what was made after that is somebody else's. */
  sentAt?: number
  /** An answer was lost, so that it may have been done. */
  unanswered?: boolean
}

/** Of the removals that were asked for and have not been answered: they may be asked for again. */
const askedBefore = new WeakMap<Removal, Asked>()

/** What kept an object, or undefined where it is gone. */
export type Outcome = OperationError | undefined

export interface GuardedRemoval {
  /** For messages. */
  readonly path: string
  readonly key: string
  readonly guard: Guard
  /** It has been looked at just now. */
  readonly looked?: boolean
  readonly modified?: Timestamp | undefined
  readonly asked?: Asked | undefined
  readonly signal: AbortSignal | undefined
}

/**
 * Removes what was just seen under its guard; gone already is a conflict unless an attempt of ours did it. One request. One more
 * before each attempt where the guard has to be looked at, and before each that follows one whose answer was lost: what
 * somebody has made since is not what was meant, for all that it may be of the same version.
 */
export async function removeGuarded(context: S3Context, removal: GuardedRemoval): Promise<void> {
  const { client, honoured } = context
  const { path, key, guard, looked = false, modified, asked = {}, signal } = removal
  const version = guard.kind === 'version' ? guard.version : undefined
  const isHeld = version === undefined || honoured.remove
  const before: BeforeAttempt = async (attempt, unanswered) => {
    const { sentAt } = asked
    asked.sentAt ??= performance.now()
    const mayBeDone = (asked.unanswered ||= unanswered)
    if (!mayBeDone && (isHeld || (attempt === 1 && looked))) return
    const head = await headObject(client, key, signal)
    if (head === undefined) throw mayBeDone ? done : gone(path)
    if (version !== undefined && head.version !== version) throw conflict('remove', path)
    if (!mayBeDone || !isLater(client, head.modified, modified, sentAt)) return
    throw version === undefined ? done : conflict('remove', path)
  }
  try {
    await deleteObject(client, key, isHeld ? guardHeaders(guard) : [], signal, before)
  } catch (error) {
    if (error === done) return
    if (isOperationError(error) && mayHaveActed(error)) asked.unanswered = true
    if (!(error instanceof S3Error)) throw error
    const isGone = error.code === 'STORE_NOT_FOUND' || error.code === 'STORE_CONFLICT'
    if (!isGone) throw error
    if (asked.unanswered === true && (await headObject(client, key, signal)) === undefined) return
    throw conflict('remove', path, error)
  }
}

/** Ends a request that has nothing left to do. */
const done = new Error('nothing is left to be removed')

function gone(path: string): OperationError {
  return conflict('remove', path, notFound(path))
}

/**
 * Whether an object was made after a removal was first sent. Times are told to the second, and that of the sending is known to a
 * second by the endpoint's clock: within two seconds, what is later than what was meant is taken for another's, and where that is
 * not known everything is.
 */
function isLater(
  client: S3Client,
  found: Timestamp,
  meant: Timestamp | undefined,
  sentAt: number | undefined,
): boolean {
  const sentMs = sentAt === undefined ? undefined : client.serverMs(sentAt)
  const foundMs = found.seconds * 1000
  if (sentMs !== undefined && foundMs + 1000 <= sentMs) return false
  if (sentMs !== undefined && foundMs > sentMs + 1000) return true
  return meant === undefined || found.seconds > meant.seconds
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
  for (const [index, removal] of removals.entries()) {
    const { path, kind, version } = removal
    const directory = kind === 'directory'
    // Listings that are trusted do not know whether a directory has an object.
    if (directory && version === IMPLICIT_VERSION && context.trustListing !== true) continue
    try {
      if (path === '') throw new OperationError('INPUT_INVALID', 'Cannot remove "": it is the root')
      // A directory's object has no bytes, so its version says nothing.
      const key = directory ? context.keys.directory(path) : context.keys.file(path)
      const modified = version === IMPLICIT_VERSION ? undefined : removal.modified
      const asked = askedBefore.get(removal) ?? {}
      askedBefore.set(removal, asked)
      keys.push({ key, version: directory ? undefined : version, modified, asked })
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
  const starts: number[] = []
  for (let start = 0; start < removals.length; start += BULK_KEYS_MAX) starts.push(start)
  const failures: unknown[] = []
  await inParallel(starts, BULKS_AT_ONCE, async (start) => {
    const batch = removals.slice(start, start + BULK_KEYS_MAX)
    try {
      const found = await removeBatch(context, batch, looked, signal)
      for (const [at, outcome] of found.entries()) outcomes[start + at] = outcome
    } catch (error) {
      if (!isOperationError(error) || error.code === 'ABORTED') throw error
      failures.push(error)
      for (const at of batch.keys()) outcomes[start + at] = error
    }
  })
  if (failures.length > 0 && failures.length === starts.length) throw failures[0]
  return outcomes
}

/** What stayed, as an error: not what was gone already. */
export function firstKept(outcomes: readonly Outcome[]): OperationError | undefined {
  return outcomes.find((outcome) => outcome !== undefined && outcome.code !== 'STORE_NOT_FOUND')
}

async function removeBatch(
  context: S3Context,
  batch: readonly KeyRemoval[],
  looked: boolean,
  signal: AbortSignal | undefined,
): Promise<readonly Outcome[]> {
  if (!singly.has(context.client)) {
    try {
      return await removeBulk(context, batch, looked, signal)
    } catch (error) {
      if (!isOperationError(error, 'STORE_UNSUPPORTED')) throw error
      // Not every S3 server removes in bulk.
      singly.add(context.client)
    }
  }
  const outcomes: Outcome[] = Array.from({ length: batch.length })
  await inParallel(batch, SINGLES_AT_ONCE, async ({ key, version, modified, asked }, index) => {
    const guard = version === undefined ? ANY : ifVersion(version)
    try {
      await removeGuarded(context, { path: key, key, guard, looked, modified, asked, signal })
    } catch (error) {
      if (!isOperationError(error) || error.code === 'ABORTED') throw error
      outcomes[index] = isOperationError(error.cause, 'STORE_NOT_FOUND') ? notFound(key, error) : error
    }
  })
  return outcomes
}

/** Removes in one request, which is sent again for what the server could not remove at first, once that has been looked at. */
async function removeBulk(
  context: S3Context,
  batch: readonly KeyRemoval[],
  looked: boolean,
  signal: AbortSignal | undefined,
): Promise<readonly Outcome[]> {
  const { client, honoured } = context
  const asked = new Map(batch.map((removal) => [removal.key, removal.asked ?? {}]))
  const outcomes = new Map<string, Outcome>()
  let left = batch
  let sent = bulkRequest(Buffer.from(deleteDocument(left, honoured.removeBulk)))
  let passing: S3Error | undefined
  const tell = (removals: readonly KeyRemoval[]): void => {
    for (const { key } of removals) Object.assign(asked.get(key) ?? {}, { unanswered: true })
  }
  const before: BeforeAttempt = async (attempt, unanswered) => {
    if (unanswered) tell(left)
    const all = attempt > 1 || !(honoured.removeBulk || looked)
    const some = all ? left : left.filter(({ key }) => asked.get(key)?.sentAt !== undefined)
    if (some.length > 0) {
      const found = await lookAt(context, some, asked, signal)
      left = left.filter(({ key }) => !found.has(key))
      for (const [key, outcome] of found) outcomes.set(key, outcome)
      if (left.length === 0) throw done
      sent = bulkRequest(Buffer.from(deleteDocument(left, honoured.removeBulk)))
    }
    for (const { key } of left) {
      const each = asked.get(key)
      if (each !== undefined) each.sentAt ??= performance.now()
    }
  }
  const { operation, method, query } = sent
  const request = { operation, method, query, signal } as const
  try {
    await client.send({ ...request, before, headers: () => sent.headers, body: () => sent.body }, (answer) => {
      const action = client.action(request)
      passing = undefined
      for (const { key } of left) outcomes.delete(key)
      for (const element of childrenOf(readXml(action, answer, 'DeleteResult'), 'Error')) {
        const s3Code = textOf(element, 'Code') ?? 'InternalError'
        const key = textOf(element, 'Key') ?? ''
        const detail = `${textOf(element, 'Message') ?? ''} ("${key}")`
        const error = s3ErrorOf(action, { status: 200, s3Code, detail, region: undefined })
        if (s3Code === 'NoSuchKey') outcomes.set(key, asked.get(key)?.unanswered === true ? undefined : notFound(key))
        else outcomes.set(key, error)
        if (error.again) passing = error
      }
      if (passing === undefined) return
      left = left.filter(({ key }) => isPassing(outcomes.get(key)))
      throw passing
    })
  } catch (error) {
    if (isOperationError(error) && mayHaveActed(error)) tell(left)
    if (error !== passing && error !== done) throw error
  }
  return batch.map(({ key }) => outcomes.get(key))
}

function isPassing(outcome: Outcome): boolean {
  return outcome instanceof S3Error && outcome.again
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

/** Looks at objects before they are removed; gives the outcomes of those that are not to be. */
async function lookAt(
  context: S3Context,
  removals: readonly KeyRemoval[],
  asked: ReadonlyMap<string, Asked>,
  signal: AbortSignal | undefined,
): Promise<ReadonlyMap<string, Outcome>> {
  const seen: Seen = new Map()
  const groups = new Map<string, string[]>()
  for (const { key, version, asked: own } of removals) {
    if (!isDoubtful({ version, asked: own })) continue
    const directory = key.slice(0, key.lastIndexOf('/') + 1)
    const group = groups.get(directory)
    if (group === undefined) groups.set(directory, [key])
    else group.push(key)
  }
  await inParallel([...groups], SINGLES_AT_ONCE, ([directory, keys]) => lookIn(context, directory, keys, seen, signal))
  const outcomes = new Map<string, Outcome>()
  for (const { key, version, modified, asked: own } of removals) {
    if (!isDoubtful({ version, asked: own })) continue
    const { sentAt, unanswered } = asked.get(key) ?? {}
    const found = seen.get(key)
    if (found === undefined) outcomes.set(key, unanswered === true ? undefined : notFound(key))
    else if (version !== undefined && found.version !== version) outcomes.set(key, conflict('remove', key))
    else if (sentAt !== undefined && isLater(context.client, found.modified, modified, sentAt)) {
      outcomes.set(key, conflict('remove', key))
    }
  }
  return outcomes
}

/** Whether there can be another object in its place: what goes in any version is another only where it may have been removed already. */
function isDoubtful({ version, asked }: Pick<KeyRemoval, 'version' | 'asked'>): boolean {
  return version !== undefined || asked?.unanswered === true
}

/** What was found under some keys. */
type Seen = Map<string, Pick<ObjectHead, 'version' | 'modified'> | undefined>

/** Notes what is under some keys of one directory, by as many pages of its listing as there are keys, less one, or by looking at each. */
async function lookIn(
  context: S3Context,
  directory: string,
  keys: readonly string[],
  seen: Seen,
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
      if ('key' in item && left.delete(item.key)) seen.set(item.key, item)
    }
    token = page.token
    // Whatever has not come by now, where the listing has gone past it, is not there.
    for (const key of left) if (token === undefined || compareUtf8(key, end) <= 0) left.delete(key)
    if (token === undefined || compareUtf8(end, last) >= 0) return
  }
  await inParallel([...left], SINGLES_AT_ONCE, async (key) => {
    seen.set(key, await headObject(client, key, signal))
  })
}
