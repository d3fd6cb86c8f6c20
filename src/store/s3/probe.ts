/**
 * Finds out which conditions an endpoint honours, by trying: some S3 servers ignore a condition they do not know, so that two
 * writers both win; others refuse even the right one. A condition counts as honoured only where a wrong one is refused with 412 and
 * a right one taken. Keys are under `.eider/` and are removed again. Known for an endpoint and bucket, it is not asked again by
 * this process.
 *
 * Requests: 19 in two chains side by side, 7 in a row.
 */
import { randomBytes } from 'node:crypto'

import { logger } from '#base/log.ts'
import type { Version } from '#store/store.ts'
import type { S3Client } from './client.ts'
import { copySource } from './endpoint.ts'
import { S3Error } from './errors.ts'
import { NONE_HONOURED, strengthsOf, type Honoured } from './guards.ts'
import type { Keys } from './keys.ts'
import { abortUpload, completeUpload, uploadParts, type Upload } from './multipart.ts'
import { deleteObject, putObject, readXml, versionOf } from './objects.ts'
import { bulkRequest, deleteDocument } from './removal.ts'
import type { Header } from './signer.ts'
import { childrenOf, textOf } from './xml.ts'

const log = logger('store/s3')
const known = new Map<string, Promise<Honoured>>()
const WRONG: Header = ['if-match', '"00000000000000000000000000000000"']
const ABSENT: Header = ['if-none-match', '*']
const BODY = Buffer.from('Eider tries out which conditions this server honours. This can be removed.\n')

type Signal = AbortSignal | undefined

/** What the endpoint honours. @throws OperationError where nothing can be written. */
export function probeGuards(client: S3Client, keys: Keys, signal: Signal): Promise<Honoured> {
  const id = `${client.endpoint.origin}${client.endpoint.base}`
  let found = known.get(id)
  if (found === undefined) {
    found = probe(client, keys, signal)
    known.set(id, found)
    // A failure is not an answer.
    found.catch(() => known.delete(id))
  }
  return found
}

async function probe(client: S3Client, keys: Keys, signal: Signal): Promise<Honoured> {
  const key = `${keys.own}probe-${randomBytes(8).toString('hex')}`
  const [objects, uploads] = await Promise.all([
    probeObjects(client, key, signal),
    probeUploads(client, `${key}-parts`, signal),
  ])
  const honoured = { ...NONE_HONOURED, ...objects, ...uploads }
  report(client, honoured)
  return honoured
}

function report(client: S3Client, honoured: Honoured): void {
  const weaker = Object.entries(strengthsOf(honoured)).filter(([, strength]) => strength === 'checked')
  const endpoint = client.endpoint.origin
  if (weaker.length === 0) log.debug({ endpoint }, 'all guards are decided by the server')
  else {
    const names = weaker.map(([name]) => name).join(', ')
    log.info({ endpoint, guards: names }, 'this server does not decide all guards: they are looked at just before')
  }
}

async function probeObjects(client: S3Client, key: string, signal: Signal): Promise<Partial<Honoured>> {
  const first = await putObject(client, key, BODY, [], signal)
  try {
    const [create, replaceRefused, copyCreate, copyRefused] = await Promise.all([
      refused(putObject(client, key, BODY, [ABSENT], signal)),
      refused(putObject(client, key, BODY, [WRONG], signal)),
      refused(copyOnto(client, key, '*', [ABSENT], signal)),
      refused(copyOnto(client, key, '*', [WRONG], signal)),
    ])
    const put = replaceRefused ? await taken(putObject(client, key, BODY, [ifMatch(first)], signal)) : undefined
    const copied =
      copyRefused && replaceRefused && put !== undefined
        ? await taken(copyOnto(client, key, put.version, [ifMatch(put)], signal))
        : undefined
    const current = copied ?? put ?? first
    const removeRefused = await refused(deleteObject(client, key, [WRONG], signal))
    const removed = removeRefused
      ? await taken(deleteObject(client, key, [ifMatch(current)], signal).then(() => true))
      : undefined
    return {
      ...{ create, replace: put !== undefined, copyCreate, copyReplace: copied !== undefined },
      remove: removed !== undefined,
    }
  } finally {
    await removeProbe(client, key)
  }
}

async function probeUploads(client: S3Client, key: string, signal: Signal): Promise<Partial<Honoured>> {
  const [first, upload] = await Promise.all([
    putObject(client, key, BODY, [], signal),
    uploadParts(client, key, [], onePart(), signal),
  ])
  let completed = false
  const complete = async (condition: Header): Promise<boolean> => {
    const done = await refused(completeUpload(client, key, upload, [condition], signal))
    completed ||= !done
    return done
  }
  try {
    const completeCreate = await complete(ABSENT)
    // An upload that was completed in spite of a wrong condition is gone.
    const wrong = !completed && (await complete(WRONG))
    const right = wrong ? await taken(completeUpload(client, key, upload, [ifMatch(first)], signal)) : undefined
    completed ||= right !== undefined
    return { completeCreate, completeReplace: right !== undefined, removeBulk: await refusesBulk(client, key, signal) }
  } finally {
    await Promise.all([removeProbe(client, key), completed ? undefined : giveUp(client, key, upload)])
  }
}

/** Whether a removal in bulk leaves an object of another version than it names, and says so. */
async function refusesBulk(client: S3Client, key: string, signal: Signal): Promise<boolean> {
  const body = Buffer.from(deleteDocument([{ key, version: '00000000000000000000000000000000' as Version }], true))
  const request = { ...bulkRequest(body), signal } as const
  const codes = await taken(
    client.send(request, (answer) => {
      const result = readXml(client.action(request), answer, 'DeleteResult')
      return childrenOf(result, 'Error').map((error) => textOf(error, 'Code'))
    }),
  )
  return codes?.includes('PreconditionFailed') === true
}

function onePart(): { next(number: number): Promise<{ body: Buffer } | undefined> } {
  return { next: (number) => Promise.resolve(number === 1 ? { body: BODY } : undefined) }
}

function ifMatch(written: { readonly version: string }): Header {
  return ['if-match', `"${written.version}"`]
}

/** Copies a key onto itself, whatever its version where that is `*`. */
function copyOnto(
  client: S3Client,
  key: string,
  version: string,
  headers: readonly Header[],
  signal: Signal,
): Promise<{ readonly version: string }> {
  const source: Header[] = [
    ['x-amz-copy-source', copySource(client.endpoint, key)],
    ['x-amz-metadata-directive', 'REPLACE'],
  ]
  if (version !== '*') source.push(['x-amz-copy-source-if-match', `"${version}"`])
  const request = { operation: 'CopyObject', method: 'PUT', key, body: new Uint8Array(0), signal } as const
  return client.send({ ...request, headers: [...source, ...headers], errorIn200: true }, (answer) => ({
    version: versionOf(textOf(readXml(client.action(request), answer, 'CopyObjectResult'), 'ETag')),
  }))
}

/** Whether a request failed by its condition. Another refusal means that the server cannot do it at all. */
async function refused(request: Promise<unknown>): Promise<boolean> {
  try {
    await request
    return false
  } catch (error) {
    if (!(error instanceof S3Error)) throw error
    return error.httpStatus === 412
  }
}

/** What a request with the right condition gives; undefined where it is refused. */
async function taken<T>(request: Promise<T>): Promise<T | undefined> {
  try {
    return await request
  } catch (error) {
    if (!(error instanceof S3Error)) throw error
    return undefined
  }
}

async function removeProbe(client: S3Client, key: string): Promise<void> {
  try {
    await deleteObject(client, key, [], AbortSignal.timeout(10_000))
  } catch (error) {
    log.warn({ err: error, key }, 'cannot remove the object that guards were tried on')
  }
}

function giveUp(client: S3Client, key: string, upload: Upload): Promise<void> {
  return abortUpload(client, key, upload)
}
