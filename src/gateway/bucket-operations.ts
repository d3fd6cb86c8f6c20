/**
 * Buckets: listing, making, looking at and removing the directories in the root of the store, and the settings of a
 * bucket that S3 clients ask for. A setting that can be had is answered as S3 answers for a bucket that nobody
 * configured; one that would have to be kept is refused, since nothing here would act on it.
 */
import { isOperationError } from '#base/errors.ts'
import { ABSENT } from '#store/store.ts'
import { childOf, childrenOf, textOf, writeXml, type XmlNode } from '#store/s3/xml.ts'

import { isNothingThere, S3Error, type S3ErrorCode } from './errors.ts'
import { isoDate, ownerNodes } from './list-objects.ts'
import { isBucketName } from './object-tree.ts'
import { parseBody, readXml, refuseAcl, refuseUnsupported, type Operation, type Request } from './operation.ts'

/** What a client is told where no region is configured. */
const REGION_DEFAULT = 'us-east-1'
const SETTINGS_XML_BYTES_MAX = 64 * 1024

export const listBuckets: Operation = {
  name: 'ListBuckets',
  takesBody: false,
  async run({ exchange, tree, owner }) {
    const { signal } = exchange
    const buckets: XmlNode[] = []
    for await (const page of tree.store.list('', { signal })) {
      for (const entry of page) {
        if (entry.kind !== 'directory' || !isBucketName(entry.path)) continue
        buckets.push([
          'Bucket',
          [
            ['Name', entry.path],
            ['CreationDate', isoDate(entry.attributes?.mtime ?? entry.modified)],
          ],
        ])
      }
    }
    exchange.answerXml('ListAllMyBucketsResult', [
      ['Owner', ownerNodes(owner)],
      ['Buckets', buckets],
    ])
  },
}

export const createBucket: Operation = {
  name: 'CreateBucket',
  takesBody: true,
  async run(request) {
    const { exchange, tree, region } = request
    const { bucket, signal } = exchange
    refuseUnsupported(exchange)
    if (exchange.header('x-amz-bucket-object-lock-enabled')?.toLowerCase() === 'true')
      throw new S3Error('NotImplemented')
    if (!isBucketName(bucket)) throw new S3Error('InvalidBucketName', undefined, { details: [['BucketName', bucket]] })
    await checkLocation(request, region)
    try {
      await tree.store.makeDirectory(bucket, { guard: ABSENT, signal })
    } catch (error) {
      if (isOperationError(error, 'STORE_CONFLICT')) throw new S3Error('BucketAlreadyOwnedByYou')
      throw error
    }
    exchange.answer(200, ['Location', `/${bucket}`])
  },
}

async function checkLocation(request: Request, region: string | undefined): Promise<void> {
  const { headers } = request.exchange
  const empty = (headers['content-length'] ?? '0') === '0' && headers['transfer-encoding'] === undefined
  if (empty) return
  const document = await readXml(request, 'CreateBucketConfiguration', SETTINGS_XML_BYTES_MAX)
  const location = textOf(document, 'LocationConstraint')
  if (location !== undefined && location !== '' && region !== undefined && location !== region) {
    throw new S3Error('InvalidLocationConstraint')
  }
}

export const headBucket: Operation = {
  name: 'HeadBucket',
  takesBody: false,
  async run({ exchange, tree, region }) {
    await tree.requireBucket(exchange.bucket, exchange.signal)
    exchange.answer(200, ['x-amz-bucket-region', region ?? REGION_DEFAULT, 'Content-Type', 'application/xml'])
  },
}

export const deleteBucket: Operation = {
  name: 'DeleteBucket',
  takesBody: false,
  async run({ exchange, tree }) {
    const { bucket, signal } = exchange
    tree.forgetBucket(bucket)
    await tree.requireBucket(bucket, signal)
    try {
      await tree.store.removeDirectory(bucket, { signal })
    } catch (error) {
      if (isOperationError(error, 'STORE_NOT_EMPTY')) throw new S3Error('BucketNotEmpty')
      if (isNothingThere(error)) throw new S3Error('NoSuchBucket')
      throw error
    } finally {
      tree.forgetBucket(bucket)
    }
    exchange.answer(204)
  },
}

/** The one element of S3 whose kind is told by an attribute. */
const GRANTEE = '<Grantee xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="CanonicalUser">'

/** What a setting's GET answers: a document, or the error for what was never configured. */
type Setting =
  | { readonly root: string; readonly content: (request: Request) => readonly XmlNode[] }
  | { readonly error: S3ErrorCode }

const nothing = (): readonly XmlNode[] => []

/** By the name of the query parameter. What is not here is not implemented. */
const BUCKET_SETTINGS: Readonly<Record<string, Setting>> = {
  versioning: { root: 'VersioningConfiguration', content: nothing },
  logging: { root: 'BucketLoggingStatus', content: nothing },
  notification: { root: 'NotificationConfiguration', content: nothing },
  accelerate: { root: 'AccelerateConfiguration', content: nothing },
  requestPayment: { root: 'RequestPaymentConfiguration', content: () => [['Payer', 'BucketOwner']] },
  acl: { root: 'AccessControlPolicy', content: aclNodes },
  ownershipControls: {
    root: 'OwnershipControls',
    content: () => [['Rule', [['ObjectOwnership', 'BucketOwnerEnforced']]]],
  },
  policy: { error: 'NoSuchBucketPolicy' },
  policyStatus: { error: 'NoSuchBucketPolicy' },
  tagging: { error: 'NoSuchTagSet' },
  lifecycle: { error: 'NoSuchLifecycleConfiguration' },
  cors: { error: 'NoSuchCORSConfiguration' },
  website: { error: 'NoSuchWebsiteConfiguration' },
  encryption: { error: 'ServerSideEncryptionConfigurationNotFoundError' },
  replication: { error: 'ReplicationConfigurationNotFoundError' },
  'object-lock': { error: 'ObjectLockConfigurationNotFoundError' },
  publicAccessBlock: { error: 'NoSuchPublicAccessBlockConfiguration' },
}

/** The settings that nothing has to be done for to take away. */
const REMOVABLE = new Set([
  'policy',
  'tagging',
  'lifecycle',
  'cors',
  'website',
  'encryption',
  'replication',
  'publicAccessBlock',
])

export const getBucketLocation: Operation = {
  name: 'GetBucketLocation',
  takesBody: false,
  async run({ exchange, tree, region }) {
    await tree.requireBucket(exchange.bucket, exchange.signal)
    // The first region of all is told by its absence, the text standing in the root itself.
    const text = region === undefined || region === REGION_DEFAULT ? '' : region
    const document = writeXml('LocationConstraint', []).replace('></', `>${text}</`)
    exchange.answer(200, ['Content-Type', 'application/xml'], document)
  },
}

/** GET of a bucket's setting. */
export function getBucketSetting(name: string): Operation {
  return {
    name: 'GetBucketSetting',
    takesBody: false,
    async run(request) {
      const { exchange, tree } = request
      await tree.requireBucket(exchange.bucket, exchange.signal)
      answerSetting(request, BUCKET_SETTINGS[name])
    },
  }
}

/** PUT of a bucket's setting: an ACL that is in force anyway is taken, the rest is refused. */
export function putBucketSetting(name: string): Operation {
  return {
    name: 'PutBucketSetting',
    takesBody: true,
    async run(request) {
      const { exchange, tree } = request
      const body = await request.openBody().bytes(SETTINGS_XML_BYTES_MAX)
      await tree.requireBucket(exchange.bucket, exchange.signal)
      if (name !== 'acl') throw new S3Error('NotImplemented', `This gateway keeps no ${name} of buckets`)
      putAcl(request, body)
    },
  }
}

/** DELETE of a bucket's setting: none was ever set. */
export function deleteBucketSetting(name: string): Operation {
  return {
    name: 'DeleteBucketSetting',
    takesBody: false,
    async run({ exchange, tree }) {
      await tree.requireBucket(exchange.bucket, exchange.signal)
      if (!REMOVABLE.has(name)) throw new S3Error('MethodNotAllowed')
      exchange.answer(204)
    },
  }
}

/** By the name of the query parameter; what is not here is not implemented. */
const OBJECT_SETTINGS: Readonly<Record<string, Setting>> = {
  acl: { root: 'AccessControlPolicy', content: aclNodes },
  tagging: { root: 'Tagging', content: () => [['TagSet', []]] },
}

/** GET of an object's setting. */
export function getObjectSetting(name: string): Operation {
  return {
    name: 'GetObjectSetting',
    takesBody: false,
    async run(request) {
      const { exchange, tree } = request
      await tree.require(exchange.bucket, exchange.key, exchange.signal)
      answerSetting(request, OBJECT_SETTINGS[name])
    },
  }
}

/** PUT of an object's setting. */
export function putObjectSetting(name: string): Operation {
  return {
    name: 'PutObjectSetting',
    takesBody: true,
    async run(request) {
      const { exchange, tree } = request
      const body = await request.openBody().bytes(SETTINGS_XML_BYTES_MAX)
      await tree.require(exchange.bucket, exchange.key, exchange.signal)
      if (name !== 'acl') throw new S3Error('NotImplemented', `This gateway keeps no ${name} of objects`)
      putAcl(request, body)
    },
  }
}

function answerSetting({ exchange, ...rest }: Request, setting: Setting | undefined): void {
  if (setting === undefined) throw new S3Error('NotImplemented')
  if ('error' in setting) throw new S3Error(setting.error, undefined, { details: [['BucketName', exchange.bucket]] })
  const document = writeXml(setting.root, setting.content({ exchange, ...rest }))
  exchange.answer(200, ['Content-Type', 'application/xml'], document.replace('<Grantee>', GRANTEE))
}

/** Takes an ACL that says what is in force anyway: canned in a header, or as the document that a GET gave. */
function putAcl({ exchange, owner }: Request, body: Buffer): void {
  refuseAcl(exchange)
  if (exchange.header('x-amz-acl') === undefined) {
    const list = childOf(parseBody(body, 'AccessControlPolicy'), 'AccessControlList')
    const grants = list === undefined ? [] : childrenOf(list, 'Grant')
    const inForce = grants.every((grant) => {
      const grantee = childOf(grant, 'Grantee')
      return (
        textOf(grant, 'Permission') === 'FULL_CONTROL' && grantee !== undefined && textOf(grantee, 'ID') === owner.id
      )
    })
    if (grants.length === 0 || !inForce) throw new S3Error('AccessControlListNotSupported')
  }
  exchange.answer(200)
}

function aclNodes({ owner }: Request): readonly XmlNode[] {
  const grantee: XmlNode = ['Grantee', ownerNodes(owner)]
  return [
    ['Owner', ownerNodes(owner)],
    ['AccessControlList', [['Grant', [grantee, ['Permission', 'FULL_CONTROL']]]]],
  ]
}
