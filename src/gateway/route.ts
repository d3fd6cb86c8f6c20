/**
 * Which operation a request is, from its method, what it points at, and the parameters and headers that name one. A
 * parameter that names something that S3 has and the gateway does not is refused as such, rather than ignored and the
 * request taken for another.
 */
import {
  createBucket,
  deleteBucket,
  deleteBucketSetting,
  getBucketLocation,
  getBucketSetting,
  getObjectSetting,
  headBucket,
  listBuckets,
  putBucketSetting,
  putObjectSetting,
} from './bucket-operations.ts'
import { copyObject } from './copy-object.ts'
import { deleteObject, deleteObjects } from './delete-objects.ts'
import { S3Error } from './errors.ts'
import type { Exchange } from './exchange.ts'
import { getObject, headObject } from './get-object.ts'
import { listObjects, listObjectsV2 } from './list-objects.ts'
import { listMultipartUploads, listParts } from './list-uploads.ts'
import {
  abortMultipartUpload,
  completeMultipartUpload,
  createMultipartUpload,
  uploadPart,
  uploadPartCopy,
} from './multipart-operations.ts'
import type { Operation } from './operation.ts'
import { putObject } from './put-object.ts'

/** Parameters that make a request another operation, of those that are not handled by name below. */
const BUCKET_SETTINGS = [
  'versioning',
  'logging',
  'notification',
  'accelerate',
  'requestPayment',
  'acl',
  'ownershipControls',
  'policy',
  'policyStatus',
  'tagging',
  'lifecycle',
  'cors',
  'website',
  'encryption',
  'replication',
  'object-lock',
  'publicAccessBlock',
]
const NOT_IMPLEMENTED = [
  'versions',
  'analytics',
  'inventory',
  'metrics',
  'intelligent-tiering',
  'session',
  'metadataTable',
]
const OBJECT_SETTINGS = ['acl', 'tagging']
const OBJECT_NOT_IMPLEMENTED = [
  'attributes',
  'torrent',
  'restore',
  'select',
  'retention',
  'legal-hold',
  'renameObject',
  'append',
]

/** The operation that a request is. @throws S3Error `MethodNotAllowed`, `NotImplemented`. */
export function routeOf(exchange: Exchange): Operation {
  if (exchange.bucket === '') {
    if (exchange.method === 'GET') return listBuckets
    throw new S3Error('MethodNotAllowed')
  }
  return exchange.key === '' ? bucketRoute(exchange) : objectRoute(exchange)
}

function bucketRoute(exchange: Exchange): Operation {
  const { method, query } = exchange
  if (query.size > 0) refuse(query, NOT_IMPLEMENTED)
  const setting = settingOf(query, BUCKET_SETTINGS)
  switch (method) {
    case 'GET':
      if (setting !== undefined) return getBucketSetting(setting)
      if (query.has('location')) return getBucketLocation
      if (query.has('uploads')) return listMultipartUploads
      return query.get('list-type') === '2' ? listObjectsV2 : listObjects
    case 'HEAD':
      return headBucket
    case 'PUT':
      return setting === undefined ? createBucket : putBucketSetting(setting)
    case 'DELETE':
      return setting === undefined ? deleteBucket : deleteBucketSetting(setting)
    case 'POST':
      if (query.has('delete')) return deleteObjects
      throw new S3Error('NotImplemented', 'This gateway does not take forms')
    default:
      throw new S3Error('MethodNotAllowed')
  }
}

function objectRoute(exchange: Exchange): Operation {
  const { method, query } = exchange
  if (query.size > 0) refuse(query, OBJECT_NOT_IMPLEMENTED)
  const setting = settingOf(query, OBJECT_SETTINGS)
  const upload = query.has('uploadId')
  switch (method) {
    case 'GET':
      if (setting !== undefined) return getObjectSetting(setting)
      return upload ? listParts : getObject
    case 'HEAD':
      return headObject
    case 'PUT':
      if (setting !== undefined) return putObjectSetting(setting)
      if (upload) return exchange.headers['x-amz-copy-source'] === undefined ? uploadPart : uploadPartCopy
      return exchange.headers['x-amz-copy-source'] === undefined ? putObject : copyObject
    case 'DELETE':
      if (setting !== undefined) throw new S3Error('NotImplemented')
      return upload ? abortMultipartUpload : deleteObject
    case 'POST':
      if (query.has('uploads')) return createMultipartUpload
      if (upload) return completeMultipartUpload
      throw new S3Error('MethodNotAllowed')
    default:
      throw new S3Error('MethodNotAllowed')
  }
}

function refuse(query: ReadonlyMap<string, string>, names: readonly string[]): void {
  const found = settingOf(query, names)
  if (found !== undefined) throw new S3Error('NotImplemented', `This gateway does not do what ?${found} asks for`)
}

function settingOf(query: ReadonlyMap<string, string>, names: readonly string[]): string | undefined {
  return query.size === 0 ? undefined : names.find((name) => query.has(name))
}
