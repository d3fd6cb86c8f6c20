/**
 * CopyObject: within the store, without the bytes passing through here. A copy of an object onto itself, which is how
 * S3's clients change metadata, touches the attributes only. Also where a copy's source is read from a request, which
 * UploadPartCopy does as well.
 */
import { createHash } from 'node:crypto'

import { isOperationError } from '#base/errors.ts'
import type { Timestamp } from '#base/time.ts'
import { ifVersion, type Entry, type Guard } from '#store/store.ts'
import type { XmlNode } from '#store/s3/xml.ts'

import { answerSlowly } from './answer-slowly.ts'
import { CHECKSUM_ALGORITHMS, checksumAlgorithmOf } from './checksum.ts'
import { checkCopySource, underCondition, writeCondition } from './conditions.ts'
import { isNothingThere, S3Error } from './errors.ts'
import { randomEtag } from './etag.ts'
import { decodeText, type Exchange } from './exchange.ts'
import { isoDate } from './list-objects.ts'
import { describeObject, type ByteFacts, type Description } from './object-metadata.ts'
import { objectOf, type StoredObject } from './object-tree.ts'
import { refuseUnsupported, type Operation, type Request } from './operation.ts'
import { attributeOf, factsOf, markDirectory, uniqueNow } from './put-object.ts'

/** How often a copy begins anew because its source was replaced after it was looked at. */
const ATTEMPTS = 4

export const copyObject: Operation = {
  name: 'CopyObject',
  takesBody: false,
  async run(request) {
    const { exchange, tree } = request
    const { bucket, key, signal } = exchange
    refuseUnsupported(exchange)
    const replace = directiveOf(exchange, 'x-amz-metadata-directive') === 'REPLACE'
    directiveOf(exchange, 'x-amz-tagging-directive')
    const fresh = replace ? describeObject(exchange) : undefined
    const condition = writeCondition(exchange)
    tree.pathOf(bucket, key)
    await tree.requireBucket(bucket, signal)
    const source = await findSource(request)
    refuseNewChecksum(exchange, source.object)
    if (!replace && source.bucket === bucket && source.object.key === key) {
      throw new S3Error(
        'InvalidRequest',
        'This copy request is illegal because it is trying to copy an object to itself without changing its metadata',
      )
    }
    const work = underCondition(tree, bucket, key, condition, signal, (guard) =>
      copyOnce(request, source, fresh, condition.ifNoneMatch, guard),
    )
    await answerSlowly(exchange, work, (copied) => ['CopyObjectResult', copyResult(copied)])
  },
}

/** The elements of a CopyObjectResult. */
export function copyResult(object: Pick<StoredObject, 'etag' | 'modified' | 'checksums' | 'checksumType'>): XmlNode[] {
  const nodes: XmlNode[] = [
    ['LastModified', isoDate(object.modified)],
    ['ETag', `"${object.etag}"`],
  ]
  for (const algorithm of CHECKSUM_ALGORITHMS) {
    const value = object.checksums[algorithm]
    if (value !== undefined) nodes.push([`Checksum${algorithm}`, value], ['ChecksumType', object.checksumType])
  }
  return nodes
}

function directiveOf(exchange: Exchange, name: string): string {
  const value = exchange.header(name) ?? 'COPY'
  if (value !== 'COPY' && value !== 'REPLACE') throw new S3Error('InvalidArgument', `Unknown ${name}`)
  return value
}

/** A checksum that the source does not have would have to be computed over all its bytes, which a copy does not read. */
function refuseNewChecksum(exchange: Exchange, source: StoredObject): void {
  const word = exchange.header('x-amz-checksum-algorithm')
  if (word === undefined) return
  const algorithm = checksumAlgorithmOf(word)
  if (algorithm === undefined) throw new S3Error('InvalidRequest', 'Checksum algorithm provided is unsupported')
  if (source.checksums[algorithm] === undefined) {
    throw new S3Error('NotImplemented', `The source has no ${algorithm} checksum, and a copy here does not compute one`)
  }
}

export interface CopySource {
  readonly bucket: string
  readonly object: StoredObject
}

/** The object that a copy is of, its conditions checked. @throws S3Error `NoSuchKey`, `PreconditionFailed` and others. */
export async function findSource({ exchange, tree }: Request): Promise<CopySource> {
  const header = exchange.header('x-amz-copy-source') ?? ''
  const question = header.indexOf('?versionId=')
  if (question !== -1 && header.slice(question + 11) !== 'null') throw new S3Error('NoSuchVersion')
  const text = decodeText(question === -1 ? header : header.slice(0, question))
  const path = text.startsWith('/') ? text.slice(1) : text
  const slash = path.indexOf('/')
  if (slash < 1 || slash === path.length - 1)
    throw new S3Error('InvalidArgument', 'The copy source is to be BUCKET/KEY')
  const bucket = path.slice(0, slash)
  const object = await tree.require(bucket, path.slice(slash + 1), exchange.signal)
  checkCopySource(exchange, object)
  return { bucket, object }
}

async function copyOnce(
  request: Request,
  source: CopySource,
  fresh: Description | undefined,
  absent: boolean,
  guard: Guard,
): Promise<StoredObject> {
  const { tree, exchange } = request
  const { bucket, key, signal } = exchange
  const path = tree.pathOf(bucket, key)
  for (let attempt = 1; ; attempt++) {
    const { object } = attempt === 1 ? source : await findSource(request)
    const { entry } = object
    const description = fresh ?? object
    if (key.endsWith('/') || entry.kind === 'directory') {
      if (object.size > 0)
        throw new S3Error('InvalidArgument', 'A key that ends in "/" is a directory here and cannot hold bytes')
      if (!key.endsWith('/')) return copyBytes(request, object, description, guard)
      return objectOf(key, await markDirectory(tree, bucket, key, description, object, absent, signal))
    }
    if (entry.kind === 'symlink') return copyBytes(request, object, description, guard)
    const modified = uniqueNow()
    const onto = entry.path === path
    const xattrs = attributeOf(description, onto ? object : factsOfCopy(object), object.size, modified)
    try {
      if (onto) return objectOf(key, await describeAnew(request, entry, xattrs, modified, guard))
      const copied = await tree.store.copy(entry.path, path, {
        version: entry.version,
        guard,
        attributes: { mtime: modified, xattrs },
        signal,
      })
      return objectOf(key, copied)
    } catch (error) {
      // Which of the two moved is not said. If it was the source, the next attempt finds another version of it; if it
      // was the target, its guard fails again.
      const moved = isOperationError(error, 'STORE_CONFLICT') || isNothingThere(error)
      if (!moved || attempt >= ATTEMPTS) throw error
    }
  }
}

/** An MD5 is that of the copy as well. Other tags name one object, as S3's do, and a copy in one piece has no parts. */
function factsOfCopy({ etag, checksums, checksumType }: StoredObject): ByteFacts {
  return {
    etag: etag.includes('-') ? randomEtag() : etag,
    checksums: checksumType === 'FULL_OBJECT' ? checksums : {},
    checksumType: 'FULL_OBJECT',
    parts: undefined,
  }
}

function describeAnew(
  { tree, exchange }: Request,
  entry: Entry,
  own: ReadonlyMap<string, Uint8Array>,
  modified: Timestamp,
  guard: Guard,
): Promise<Entry> {
  const xattrs = new Map([...(entry.attributes?.xattrs ?? []), ...own])
  const changed = guard.kind === 'version' ? guard : ifVersion(entry.version)
  return tree.store.setAttributes(entry.path, { mtime: modified, xattrs }, { guard: changed, signal: exchange.signal })
}

/** A copy of what is no file: the target of a symlink, or the nothing of a directory, as the bytes of a file. */
async function copyBytes(
  request: Request,
  object: StoredObject,
  description: Description,
  guard: Guard,
): Promise<StoredObject> {
  const { tree, exchange } = request
  const { bucket, key, signal } = exchange
  const { entry } = object
  const target = entry.kind === 'symlink' ? await tree.store.readLink(entry.path, { signal }) : ''
  const bytes = Buffer.from(target)
  const modified = uniqueNow()
  const facts = factsOf(createHash('md5').update(bytes).digest('hex'), undefined)
  const xattrs = attributeOf(description, facts, bytes.length, modified)
  const put = await tree.store.put(tree.pathOf(bucket, key), bytes, {
    guard,
    attributes: { mtime: modified, xattrs },
    signal,
  })
  return objectOf(key, put)
}
