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
import { encodingOf, isoDate, itemsMaxOf, ownerNodes } from './list-objects.ts'
import { describeObject, type ByteFacts } from './object-metadata.ts'
import { objectOf } from './object-tree.ts'
import { readXml, refuseUnsupported, XML_BYTES_MAX, type Operation, type Request } from './operation.ts'
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
    const upload = uploadOf(request)
    const number = partNumberOf(exchange)
    const body = request.openBody()
    const planned = upload.plan.checksum?.algorithm
    if (planned !== undefined && body.checksumAlgorithm !== planned) {
      const actual = body.checksumAlgorithm ?? 'null'
      throw new S3Error('InvalidRequest', `Checksum Type mismatch occurred, expected ${planned}, actual ${actual}`)
    }
    const withMd5 = body.size <= MD5_BYTES_MAX
    const part = await upload.writePart(number, body.size, body.stream(withMd5), () => ({
      etag: body.md5 ?? randomEtag(),
      checksum: body.checksum,
    }))
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
    const upload = uploadOf(request)
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
    return await upload.writePart(number, length, hashed(), () => {
      digested = true
      const value = hasher?.digest().toString('base64')
      const checksum = algorithm === undefined || value === undefined ? undefined : { algorithm, value }
      return { etag: md5?.digest('hex') ?? randomEtag(), checksum }
    })
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

function uploadOf({ exchange, uploads }: Request): Upload {
  return uploads.require(exchange.query.get('uploadId') ?? '', exchange.bucket, exchange.key)
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
    const upload = uploadOf(request)
    if (upload.completion !== undefined) throw new S3Error('OperationAborted', 'The upload is being completed')
    await request.uploads.finish(upload)
    request.exchange.answer(204)
  },
}

export const listParts: Operation = {
  name: 'ListParts',
  takesBody: false,
  async run(request) {
    const { exchange, owner } = request
    const { query, bucket, key } = exchange
    const upload = uploadOf(request)
    const partsMax = itemsMaxOf(query.get('max-parts'), 'max-parts')
    const marker = itemsMarker(query.get('part-number-marker'))
    const later = [...upload.parts.values()].filter((part) => part.number > marker).sort((a, b) => a.number - b.number)
    const shown = later.slice(0, partsMax)
    const { checksum } = upload.plan
    exchange.answerXml('ListPartsResult', [
      ['Bucket', bucket],
      ['Key', key],
      ['UploadId', upload.id],
      ['Initiator', ownerNodes(owner)],
      ['Owner', ownerNodes(owner)],
      ['StorageClass', 'STANDARD'],
      ['PartNumberMarker', marker],
      ['NextPartNumberMarker', shown.at(-1)?.number ?? 0],
      ['MaxParts', partsMax],
      ['IsTruncated', later.length > shown.length && partsMax > 0],
      ['ChecksumAlgorithm', checksum?.algorithm],
      ['ChecksumType', checksum?.type],
      ...shown.map((part): XmlNode => ['Part', partNodes(part)]),
    ])
  },
}

function itemsMarker(text: string | undefined): number {
  if (text === undefined || text === '') return 0
  if (!/^\d{1,10}$/.test(text)) throw new S3Error('InvalidArgument', 'part-number-marker must be an integer')
  return Number(text)
}

function partNodes(part: Part): XmlNode[] {
  const nodes: XmlNode[] = [
    ['PartNumber', part.number],
    ['LastModified', isoDate(timestampFromMs(part.modifiedMs))],
    ['ETag', `"${part.etag}"`],
    ['Size', part.size],
  ]
  if (part.checksum !== undefined) nodes.push([`Checksum${part.checksum.algorithm}`, part.checksum.value])
  return nodes
}

export const listMultipartUploads: Operation = {
  name: 'ListMultipartUploads',
  takesBody: false,
  async run({ exchange, tree, uploads, owner }) {
    const { query, bucket, signal } = exchange
    await tree.requireBucket(bucket, signal)
    const prefix = query.get('prefix') ?? ''
    const delimiter = query.get('delimiter') ?? ''
    const keyMarker = query.get('key-marker') ?? ''
    const idMarker = query.get('upload-id-marker') ?? ''
    const uploadsMax = itemsMaxOf(query.get('max-uploads'), 'max-uploads')
    const encoding = encodingOf(query)
    const encode = (text: string): string => (encoding === undefined ? text : encodePath(text))
    const candidates = afterMarkers(uploads.ofBucket(bucket), keyMarker, idMarker)
    const page = groupUploads(candidates, prefix, delimiter, keyMarker, uploadsMax)
    exchange.answerXml('ListMultipartUploadsResult', [
      ['Bucket', bucket],
      ['KeyMarker', encode(keyMarker)],
      ['UploadIdMarker', idMarker],
      ['NextKeyMarker', page.truncated ? encode(page.lastKey) : undefined],
      ['NextUploadIdMarker', page.truncated ? page.lastId : undefined],
      ['Prefix', encode(prefix)],
      ['Delimiter', delimiter === '' ? undefined : encode(delimiter)],
      ['EncodingType', encoding],
      ['MaxUploads', uploadsMax],
      ['IsTruncated', page.truncated],
      ...page.uploads.map((upload): XmlNode => ['Upload', uploadNodes(upload, encode, ownerNodes(owner))]),
      ...page.prefixes.map((common): XmlNode => ['CommonPrefixes', [['Prefix', encode(common)]]]),
    ])
  },
}

function uploadNodes({ id, plan }: Upload, encode: (text: string) => string, owner: XmlNode[]): XmlNode[] {
  return [
    ['Key', encode(plan.key)],
    ['UploadId', id],
    ['Initiator', owner],
    ['Owner', owner],
    ['StorageClass', 'STANDARD'],
    ['Initiated', isoDate(timestampFromMs(plan.createdMs))],
    ['ChecksumAlgorithm', plan.checksum?.algorithm],
    ['ChecksumType', plan.checksum?.type],
  ]
}

/** Those after the marker's key, and of that key those after the marker's upload. */
function afterMarkers(uploads: readonly Upload[], keyMarker: string, idMarker: string): readonly Upload[] {
  if (keyMarker === '') return uploads
  const marker = Buffer.from(keyMarker)
  const index = uploads.findIndex((upload) => upload.plan.key === keyMarker && upload.id === idMarker)
  return uploads.filter((upload, at) => {
    const order = Buffer.compare(Buffer.from(upload.plan.key), marker)
    return order > 0 || (order === 0 && index !== -1 && at > index)
  })
}

interface UploadsPage {
  readonly uploads: Upload[]
  readonly prefixes: string[]
  truncated: boolean
  lastKey: string
  lastId: string
}

function groupUploads(
  candidates: readonly Upload[],
  prefix: string,
  delimiter: string,
  keyMarker: string,
  itemsMax: number,
): UploadsPage {
  const page: UploadsPage = { uploads: [], prefixes: [], truncated: false, lastKey: '', lastId: '' }
  for (const upload of candidates) {
    const { key } = upload.plan
    if (!key.startsWith(prefix)) continue
    const at = delimiter === '' ? -1 : key.indexOf(delimiter, prefix.length)
    const common = at === -1 ? undefined : key.slice(0, at + delimiter.length)
    if (common !== undefined && (common === page.prefixes.at(-1) || common === keyMarker)) continue
    if (page.uploads.length + page.prefixes.length >= itemsMax) {
      page.truncated = itemsMax > 0
      break
    }
    if (common === undefined) page.uploads.push(upload)
    else page.prefixes.push(common)
    page.lastKey = common ?? key
    page.lastId = common === undefined ? upload.id : ''
  }
  return page
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
    const upload = uploadOf(request)
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
