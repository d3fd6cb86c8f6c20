/** What uploads in parts there are, and what parts each has: ListMultipartUploads and ListParts. */
import { timestampFromMs } from '#base/time.ts'
import { encodePath } from '#store/s3/sigv4.ts'
import type { XmlNode } from '#store/s3/xml.ts'

import { S3Error } from './errors.ts'
import { encodingOf, isoDate, itemsMaxOf, ownerNodes } from './list-objects.ts'
import { requireUpload, type Operation } from './operation.ts'
import type { Part, Upload } from './upload-staging.ts'

export const listParts: Operation = {
  name: 'ListParts',
  takesBody: false,
  async run(request) {
    const { exchange, owner } = request
    const { query, bucket, key } = exchange
    const upload = requireUpload(request)
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
