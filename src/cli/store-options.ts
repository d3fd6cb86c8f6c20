/** Options of every command that opens a store: those of S3, which also stand for what an `s3://` URL may say itself. */
import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { isOperationError, OperationError } from '#base/errors.ts'
import type { S3Options } from '#store/s3/endpoint.ts'
import { boolean, bytes, choice, defined, duration, httpUrl, integer, type OptionValues, string } from './options.ts'

const group = 'S3'

export const STORE_OPTIONS = {
  endpoint: httpUrl({
    help: 'An S3 server other than Amazon, as in http://127.0.0.1:9000',
    hint: 'Name the S3 server as in http://127.0.0.1:9000, its key pair by AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; without an endpoint, Amazon is meant.',
    group,
  }),
  region: string({ help: 'The region of the bucket; found out where not given', group, placeholder: 'NAME' }),
  profile: string({ help: 'The profile in ~/.aws to take credentials from', group, placeholder: 'NAME' }),
  style: choice(['path', 'virtual'], { help: 'Whether the bucket stands in the path or in the host name', group }),
  anonymous: boolean({ help: 'Sends requests unsigned, for public buckets', group }),
  requesterPays: boolean({ help: 'Agrees to pay for requests to buckets that ask for it', group }),
  bucketOwner: string({ help: 'The account that the bucket must belong to', group, placeholder: 'ACCOUNT' }),
  sse: choice(['AES256', 'aws:kms', 'aws:kms:dsse'], { help: 'Encryption by the server', group }),
  kmsKeyId: string({ help: 'The key for --sse=aws:kms', group, placeholder: 'KEY' }),
  storageClass: string({ help: 'The storage class of new objects', group, placeholder: 'CLASS' }),
  metadata: boolean({
    help: 'Keeps no mode, owner, times and extended attributes as user metadata of objects',
    group,
    default: true,
  }),
  trustListing: boolean({
    help: 'Takes objects for what listings say of them: no request for the attributes of each, and none are kept',
    group,
  }),
  ioTimeout: duration({
    help: 'How long an operation goes on trying while the endpoint cannot be reached or is in trouble, before it fails',
    group,
    default: 300_000,
    max: 24 * 3_600_000,
  }),
  connections: integer({ help: 'How many connections at a time', group, min: 1, max: 1024 }),
  partBytes: bytes({
    help: 'The size of a part of large uploads and downloads',
    group,
    min: 5 * 1024 ** 2,
    max: 5 * 1024 ** 3,
  }),
} as const

/**
 * The URL that a STORE argument means: a path is a directory, relative to where the command was typed.
 * @throws OperationError `USAGE` where it can name no store, whatever may be there.
 */
export async function storeUrl(argument: string): Promise<string> {
  const scheme = /^([a-z][a-z0-9+.-]*):/i.exec(argument)?.[1]?.toLowerCase()
  switch (scheme) {
    case undefined:
      if (argument.includes('/') || existsSync(argument)) return pathToFileURL(resolve(argument)).href
      throw usage(`Cannot open "${argument}": there is no such directory; a bucket is written s3://${argument}`)
    case 'memory':
      return argument
    case 'file':
      if (URL.parse(argument)?.host === '' && /^file:\/\/\//i.test(argument)) return argument
      throw usage(`Cannot open the store "${argument}": expected file:///DIRECTORY`)
    case 's3':
      await checkS3Url(argument)
      return argument
    default:
      throw usage(`Cannot open the store "${argument}": there is none of the kind "${scheme}:"`)
  }
}

async function checkS3Url(url: string): Promise<void> {
  const { endpointOf, parseS3Url } = await import('#store/s3/endpoint.ts')
  try {
    const { bucket, options } = parseS3Url(url)
    if (options.endpoint !== undefined) endpointOf(bucket, options.region ?? '', options)
  } catch (error) {
    throw isOperationError(error, 'INPUT_INVALID') ? usage(error.message, error) : error
  }
}

function usage(message: string, cause?: unknown): OperationError {
  return new OperationError('USAGE', message, { cause, hint: STORE_HINT })
}

const STORE_HINT =
  'A store is s3://BUCKET/PREFIX?OPTION=VALUE, file:///DIRECTORY, or the path of a directory (./a:b for one with a colon).'

/** What of the values `openStore` takes; defaults are left to the URL and the store. */
export function s3OptionsOf(values: OptionValues<typeof STORE_OPTIONS>): S3Options {
  const { endpoint, region, profile, style, bucketOwner, sse, kmsKeyId, storageClass, connections, partBytes } = values
  return {
    ...defined({ endpoint, region, profile, style, bucketOwner, sse, kmsKeyId, storageClass, connections, partBytes }),
    // A switch that is off may still be turned on by the URL.
    ...(values.anonymous ? { anonymous: true } : {}),
    ...(values.requesterPays ? { requesterPays: true } : {}),
    ...(values.metadata ? {} : { metadata: false }),
    ...(values.trustListing ? { trustListing: true } : {}),
    ioTimeoutMs: values.ioTimeout,
  }
}
