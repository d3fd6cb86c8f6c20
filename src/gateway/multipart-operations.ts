/**
 * Uploads in parts: their operations over `upload-staging.ts`. A part is checked like any body and kept on local disk;
 * completing puts the parts into the store as one file, under the conditions of the request, all or nothing.
 */
import { createHash } from 'node:crypto'

import { timestampFromMs } from '#base/time.ts'
import { encodePath } from '#store/s3/sigv4.ts'
import { childrenOf, textOf, type XmlElement, type XmlNode } from '#store/s3/xml.ts'

import { answerSlowly } from './answer-slowly.ts'
import { PUT_BYTES_MAX, type Checksum } from './body.ts'
import {
  CHECKSUM_ALGORITHMS,
  checksumAlgorithmOf,
  checksumHeader,
  compositeChecksum,
  createChecksumHasher,
  joinedChecksum,
  type ChecksumAlgorithm,
  type ChecksumType,
} from './checksum.ts'
import { underCondition, writeCondition } from './conditions.ts'
import { copyResult, findSource } from './copy-object.ts'
import { S3Error } from './errors.ts'
import { MD5_BYTES_MAX, multipartEtag, randomEtag, unquoteEtag } from './etag.ts'
import type { Exchange, FlatHeaders } from './exchange.ts'
import { freeChunk } from './free-chunk.ts'
import { describeObject, type ByteFacts } from './object-metadata.ts'
import { objectOf } from './object-tree.ts'
import { readXml, refuseUnsupported, requireUpload, XML_BYTES_MAX, type Operation, type Request } from './operation.ts'
import { attributeOf, uniqueNow } from './put-object.ts'
import { PARTS_MAX, type Part, type Upload, type UploadPlan } from './upload-staging.ts'

/** Smallest part but for the last, as in S3. */
const PART_BYTES_MIN = 5 * 1024 * 1024

export const createMultipartUpload: Operation = {
  name: 'CreateMultipartUpload',
  takesBody: false,
  async run(request) {
    const { exchange, tree, uploads } = request
    const { bucket, key, signal } = exchange
    refuseUnsupported(exchange)
    if (key.endsWith('/')) {
      throw new S3Error('InvalidArgument', 'A key that ends in "/" is a directory here and cannot hold bytes')
    }
    const checksum = plannedChecksum(exchange)
    const description = describeObject(exchange)
    tree.pathOf(bucket, key)
    await tree.requireBucket(bucket, signal)
    const { id } = await uploads.create({ bucket, key, createdMs: Date.now(), description, checksum })
    const headers: FlatHeaders =
      checksum === undefined
        ? []
        : ['x-amz-checksum-algorithm', checksum.algorithm, 'x-amz-checksum-type', checksum.type]
    exchange.answerXml(
      'InitiateMultipartUploadResult',
      [
        ['Bucket', bucket],
        ['Key', key],
        ['UploadId', id],
      ],
      headers,
    )
  },
}

function plannedChecksum(exchange: Exchange): UploadPlan['checksum'] {
  const word = exchange.header('x-amz-checksum-algorithm')
  if (word === undefined) return undefined
  const algorithm = checksumAlgorithmOf(word)
  if (algorithm === undefined) throw new S3Error('InvalidRequest', 'Checksum algorithm provided is unsupported')
  const type = exchange.header('x-amz-checksum-type') ?? (algorithm === 'CRC64NVME' ? 'FULL_OBJECT' : 'COMPOSITE')
  const composite = type === 'COMPOSITE' && algorithm !== 'CRC64NVME'
  const full = type === 'FULL_OBJECT' && !algorithm.startsWith('SHA')
  if (!composite && !full) {
    throw new S3Error('InvalidRequest', `The ${type} checksum type cannot be used with the ${algorithm} algorithm`)
  }
  return { algorithm, type: composite ? 'COMPOSITE' : 'FULL_OBJECT' }
}

export const uploadPart: Operation = {
  name: 'UploadPart',
  takesBody: true,
  async run(request) {
    const { exchange } = request
    refuseUnsupported(exchange)
    const upload = requireUpload(request)
    const number = partNumberOf(exchange)
    const body = request.openBody()
    const planned = upload.plan.checksum?.algorithm
    if (planned !== undefined && body.checksumAlgorithm !== planned) {
      const actual = body.checksumAlgorithm ?? 'null'
      throw new S3Error('InvalidRequest', `Checksum Type mismatch occurred, expected ${planned}, actual ${actual}`)
    }
    const withMd5 = body.size <= MD5_BYTES_MAX
    const finish = (): Pick<Part, 'etag' | 'checksum'> => ({ etag: body.md5 ?? randomEtag(), checksum: body.checksum })
    const part = await upload.writePart(number, body.size, body.stream(withMd5), finish, body.release)
    const { checksum } = part
    const checksumHeaders = checksum === undefined ? [] : [checksumHeader(checksum.algorithm), checksum.value]
    exchange.answer(200, ['ETag', `"${part.etag}"`, ...checksumHeaders])
  },
}

export const uploadPartCopy: Operation = {
  name: 'UploadPartCopy',
  takesBody: false,
  async run(request) {
    const { exchange } = request
    refuseUnsupported(exchange)
    const upload = requireUpload(request)
    const number = partNumberOf(exchange)
    await answerSlowly(exchange, copyPart(request, upload, number), (part) => {
      const checksums = part.checksum === undefined ? {} : { [part.checksum.algorithm]: part.checksum.value }
      const modified = timestampFromMs(part.modifiedMs)
      return ['CopyPartResult', copyResult({ etag: part.etag, modified, checksums, checksumType: 'FULL_OBJECT' })]
    })
  },
}

async function copyPart(request: Request, upload: Upload, number: number): Promise<Part> {
  const { exchange, tree } = request
  const { signal } = exchange
  const { object } = await findSource(request)
  const { offset, length } = sourceRange(exchange, object.size)
  if (length > PUT_BYTES_MAX) throw new S3Error('InvalidRequest', 'The copy source is larger than 5 GiB')
  const { version } = object.entry
  const reading = await tree.store.read(object.entry.path, { version, offset, length, signal })
  const algorithm = upload.plan.checksum?.algorithm
  const hasher = algorithm === undefined ? undefined : await createChecksumHasher(algorithm)
  const md5 = length <= MD5_BYTES_MAX ? createHash('md5') : undefined
  const hashed = async function* (): AsyncGenerator<Uint8Array> {
    for await (const chunk of reading.body) {
      hasher?.update(chunk)
      md5?.update(chunk)
      yield chunk
    }
  }
  let digested = false
  try {
    const finish = (): Pick<Part, 'etag' | 'checksum'> => {
      digested = true
      const value = hasher?.digest().toString('base64')
      const checksum = algorithm === undefined || value === undefined ? undefined : { algorithm, value }
      return { etag: md5?.digest('hex') ?? randomEtag(), checksum }
    }
    return await upload.writePart(number, length, hashed(), finish, freeChunk)
  } finally {
    if (!digested) hasher?.cancel()
    reading.cancel()
  }
}

function sourceRange(exchange: Exchange, size: number): { offset: number; length: number } {
  const header = exchange.header('x-amz-copy-source-range')
  if (header === undefined) return { offset: 0, length: size }
  const match = /^bytes=(\d{1,15})-(\d{1,15})$/.exec(header)
  const first = Number(match?.[1])
  const last = Number(match?.[2])
  if (match === null || first > last) {
    throw new S3Error('InvalidArgument', 'The x-amz-copy-source-range value must be of the form bytes=first-last')
  }
  if (last >= size) throw new S3Error('InvalidRange', `Range specified is not valid for source object of size: ${size}`)
  return { offset: first, length: last - first + 1 }
}

function partNumberOf(exchange: Exchange): number {
  const text = exchange.query.get('partNumber') ?? ''
  const number = /^\d{1,5}$/.test(text) ? Number(text) : 0
  if (number < 1 || number > PARTS_MAX) {
    throw new S3Error('InvalidArgument', `Part number must be an integer between 1 and ${PARTS_MAX}, inclusive`)
  }
  return number
}

export const abortMultipartUpload: Operation = {
  name: 'AbortMultipartUpload',
  takesBody: false,
  async run(request) {
    const upload = requireUpload(request)
    if (upload.completion !== undefined) throw new S3Error('OperationAborted', 'The upload is being completed')
    await request.uploads.finish(upload)
    request.exchange.answer(204)
  },
}

export const completeMultipartUpload: Operation = {
  name: 'CompleteMultipartUpload',
  takesBody: true,
  async run(request) {
    const { exchange, tree, uploads } = request
    const { bucket, key, signal, query } = exchange
    const condition = writeCondition(exchange)
    const document = await readXml(request, 'CompleteMultipartUpload', XML_BYTES_MAX, { checksumElsewhere: true })
    await tree.requireBucket(bucket, signal)
    const before = uploads.completed(query.get('uploadId') ?? '', bucket, key)
    if (before !== undefined) {
      answerCompleted(exchange, before as ByteFacts)
      return
    }
    const upload = requireUpload(request)
    // Who asks again while it is done waits for the same result.
    const work = (upload.completion as Promise<ByteFacts> | undefined) ?? begin(request, upload, document, condition)
    await answerSlowly(exchange, work, (facts) => ['CompleteMultipartUploadResult', completedNodes(exchange, facts)])
  },
}

function begin(
  request: Request,
  upload: Upload,
  document: XmlElement,
  condition: ReturnType<typeof writeCondition>,
): Promise<ByteFacts> {
  const work = complete(request, upload, document, condition).finally(() => {
    upload.completion = undefined
  })
  upload.completion = work
  return work
}

/** Goes on even if the client goes away: it will ask again, and is then told the result. */
async function complete(
  { exchange, tree, uploads }: Request,
  upload: Upload,
  document: XmlElement,
  condition: ReturnType<typeof writeCondition>,
): Promise<ByteFacts> {
  const { bucket, key } = exchange
  const { signal } = new AbortController()
  const parts = chosenParts(upload, document)
  const size = parts.reduce((sum, part) => sum + part.size, 0)
  const claimedSize = exchange.header('x-amz-mp-object-size')
  if (claimedSize !== undefined && Number(claimedSize) !== size) {
    throw new S3Error('InvalidRequest', `The parts have ${size} bytes, not the ${claimedSize} of x-amz-mp-object-size`)
  }
  const facts: ByteFacts = {
    etag: multipartEtag(parts.map((part) => part.etag)),
    ...(await objectChecksum(exchange, upload, parts)),
    parts: uniformParts(parts),
  }
  const modified = uniqueNow()
  const xattrs = attributeOf(upload.plan.description, facts, size, modified)
  const path = tree.pathOf(bucket, key)
  const entry = await upload.withSegments(parts, (segments) =>
    underCondition(tree, bucket, key, condition, signal, (guard) =>
      tree.store.put(path, { kind: 'file', segments }, { guard, attributes: { mtime: modified, xattrs }, signal }),
    ),
  )
  const { etag, checksums, checksumType } = objectOf(key, entry)
  const result: ByteFacts = { etag, checksums, checksumType, parts: facts.parts }
  await uploads.finish(upload, result)
  return result
}

/** The parts that the document names, which must be there as it says. */
function chosenParts(upload: Upload, document: XmlElement): Part[] {
  const elements = childrenOf(document, 'Part')
  if (elements.length === 0 || elements.length > PARTS_MAX) throw new S3Error('MalformedXML')
  const parts: Part[] = []
  let before = 0
  for (const element of elements) {
    const number = Number(textOf(element, 'PartNumber')?.trim())
    if (!Number.isInteger(number)) throw new S3Error('MalformedXML')
    if (number <= before) throw new S3Error('InvalidPartOrder')
    before = number
    const part = upload.parts.get(number)
    const etag = textOf(element, 'ETag')
    if (part === undefined || (etag !== undefined && unquoteEtag(etag) !== part.etag)) {
      throw new S3Error('InvalidPart', undefined, { details: [['PartNumber', String(number)]] })
    }
    checkPartChecksum(element, part)
    parts.push(part)
  }
  const small = parts.slice(0, -1).find((part) => part.size < PART_BYTES_MIN)
  if (small !== undefined) {
    throw new S3Error('EntityTooSmall', undefined, {
      details: [
        ['ProposedSize', String(small.size)],
        ['MinSizeAllowed', String(PART_BYTES_MIN)],
        ['PartNumber', String(small.number)],
      ],
    })
  }
  return parts
}

function checkPartChecksum(element: XmlElement, part: Part): void {
  for (const algorithm of CHECKSUM_ALGORITHMS) {
    const claimed = textOf(element, `Checksum${algorithm}`)?.trim()
    if (claimed === undefined) continue
    if (part.checksum?.algorithm !== algorithm || part.checksum.value !== claimed) {
      throw new S3Error('InvalidPart', undefined, { details: [['PartNumber', String(part.number)]] })
    }
  }
}

/** The checksum of the whole, held to the one that the request's head names. */
async function objectChecksum(
  exchange: Exchange,
  upload: Upload,
  parts: readonly Part[],
): Promise<Pick<ByteFacts, 'checksums' | 'checksumType'>> {
  const plan = upload.plan.checksum
  const type: ChecksumType = plan?.type ?? 'FULL_OBJECT'
  const value = plan === undefined ? undefined : await checksumOfParts(plan.algorithm, type, parts)
  for (const algorithm of CHECKSUM_ALGORITHMS) {
    const claimed = exchange.header(checksumHeader(algorithm))
    if (claimed === undefined) continue
    if (algorithm !== plan?.algorithm) {
      throw new S3Error('InvalidRequest', `The upload was not created with the checksum algorithm ${algorithm}`)
    }
    if (claimed !== value) throw new S3Error('BadDigest', `The ${algorithm} you specified did not match what we got`)
  }
  const checksums = plan === undefined || value === undefined ? {} : { [plan.algorithm]: value }
  return { checksums, checksumType: type }
}

async function checksumOfParts(
  algorithm: ChecksumAlgorithm,
  type: ChecksumType,
  parts: readonly Part[],
): Promise<string | undefined> {
  const values = parts.map((part) => ({ checksum: part.checksum?.value ?? '', size: part.size }))
  if (values.some(({ checksum }) => checksum === '')) return undefined
  if (type === 'COMPOSITE')
    return compositeChecksum(
      algorithm,
      values.map(({ checksum }) => checksum),
    )
  return joinedChecksum(algorithm, values)
}

/** So that one part can be asked for later: only where their sizes need no list. */
function uniformParts(parts: readonly Part[]): ByteFacts['parts'] {
  const bytes = parts[0]?.size ?? 0
  const uniform = parts.every((part, index) => part.size === bytes || (index === parts.length - 1 && part.size < bytes))
  return uniform && bytes > 0 ? { count: parts.length, bytes } : undefined
}

function answerCompleted(exchange: Exchange, facts: ByteFacts): void {
  exchange.answerXml('CompleteMultipartUploadResult', completedNodes(exchange, facts))
}

function completedNodes(exchange: Exchange, facts: ByteFacts): XmlNode[] {
  const { bucket, key } = exchange
  const nodes: XmlNode[] = [
    ['Location', `http://${exchange.header('host') ?? ''}/${bucket}/${encodePath(key)}`],
    ['Bucket', bucket],
    ['Key', key],
    ['ETag', `"${facts.etag}"`],
  ]
  for (const algorithm of CHECKSUM_ALGORITHMS) {
    const value: Checksum['value'] | undefined = facts.checksums[algorithm]
    if (value !== undefined) nodes.push([`Checksum${algorithm}`, value], ['ChecksumType', facts.checksumType])
  }
  return nodes
}
