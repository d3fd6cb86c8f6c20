/**
 * What an operation of the gateway is: a name for logs and metrics, and a function that answers an authenticated
 * request with the things that all operations share.
 */
import { parseXml, type XmlElement } from '#store/s3/xml.ts'

import type { Body, BodyOptions } from './body.ts'
import { S3Error } from './errors.ts'
import type { Exchange } from './exchange.ts'
import type { ObjectTree } from './object-tree.ts'
import type { Upload, UploadStaging } from './upload-staging.ts'

/** What operations work with. */
export interface Service {
  readonly tree: ObjectTree
  readonly uploads: UploadStaging
  /** Undefined: nowhere in particular, which clients are told is us-east-1. */
  readonly region: string | undefined
  /** The one owner of everything, as documents name it. */
  readonly owner: { readonly id: string; readonly name: string }
}

export interface Request extends Service {
  readonly exchange: Exchange
  /** Opens the body. @throws S3Error where the head contradicts itself. */
  openBody(options?: BodyOptions): Body
}

export interface Operation {
  readonly name: string
  /** Whether it reads a body; where one comes with any other operation it must be small, and is checked and dropped. */
  readonly takesBody: boolean
  run(request: Request): Promise<void>
}

/** Longest XML that a client may send: 10,000 parts of an upload with their checksums fit twice. */
export const XML_BYTES_MAX = 4 << 20

/** Headers that ask for what is not done here. Refused, since a client that asked must not believe that it was. */
const REFUSED_HEADERS = [
  'x-amz-server-side-encryption',
  'x-amz-server-side-encryption-aws-kms-key-id',
  'x-amz-server-side-encryption-context',
  'x-amz-server-side-encryption-customer-algorithm',
  'x-amz-copy-source-server-side-encryption-customer-algorithm',
  'x-amz-tagging',
  'x-amz-website-redirect-location',
  'x-amz-object-lock-mode',
  'x-amz-object-lock-retain-until-date',
  'x-amz-object-lock-legal-hold',
  'x-amz-write-offset-bytes',
  'x-amz-grant-full-control',
  'x-amz-grant-read',
  'x-amz-grant-read-acp',
  'x-amz-grant-write-acp',
]

/** @throws S3Error where a write asks for what the gateway does not do. */
export function refuseUnsupported(exchange: Exchange): void {
  for (const name of REFUSED_HEADERS) {
    if (exchange.headers[name] !== undefined) {
      throw new S3Error('NotImplemented', `This gateway does not do what the header ${name} asks for`)
    }
  }
  const storageClass = exchange.header('x-amz-storage-class')
  if (storageClass !== undefined && storageClass !== 'STANDARD') throw new S3Error('InvalidStorageClass')
  refuseAcl(exchange)
}

/** @throws S3Error where a canned ACL is not what is in force anyway: the owner has all rights, nobody else has any. */
export function refuseAcl(exchange: Exchange): void {
  const acl = exchange.header('x-amz-acl')
  if (acl === undefined || acl === 'private' || acl === 'bucket-owner-full-control' || acl === 'bucket-owner-read')
    return
  throw new S3Error('AccessControlListNotSupported')
}

/** The root of the document that is the body. @throws S3Error `MalformedXML`, or `MaxMessageLengthExceeded`. */
export async function readXml(
  request: Request,
  root: string,
  bytesMax: number,
  options?: BodyOptions,
): Promise<XmlElement> {
  return parseBody(await request.openBody(options).bytes(bytesMax), root)
}

/** The root of the document that a body is. @throws S3Error `MalformedXML`. */
export function parseBody(bytes: Buffer, root: string): XmlElement {
  if (bytes.length === 0) throw new S3Error('MissingRequestBodyError')
  let document: XmlElement
  try {
    document = parseXml(bytes.toString())
  } catch (error) {
    throw new S3Error('MalformedXML', undefined, { cause: error })
  }
  if (document.name !== root) throw new S3Error('MalformedXML')
  return document
}

/** The upload that a request names. @throws S3Error `NoSuchUpload`. */
export function requireUpload({ exchange, uploads }: Request): Upload {
  return uploads.require(exchange.query.get('uploadId') ?? '', exchange.bucket, exchange.key)
}
