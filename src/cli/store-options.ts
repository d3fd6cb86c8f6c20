/** Options of every command that opens a store: those of S3, which also stand for what an `s3://` URL may say itself. */
import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { OperationError } from '#base/errors.ts'
import type { S3Options } from '#store/s3/endpoint.ts'
import { boolean, bytes, choice, defined, duration, integer, type OptionValues, string } from './options.ts'

const group = 'S3'

export const STORE_OPTIONS = {
  endpoint: string({ help: 'An S3 server other than Amazon, as in http://127.0.0.1:9000', group, placeholder: 'URL' }),
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

/** The URL that a STORE argument means: a path is a directory, relative to where the command was typed. */
export function storeUrl(argument: string): string {
  if (/^[a-z][a-z0-9+.-]*:/i.test(argument)) return argument
  if (!argument.includes('/') && !existsSync(argument)) {
    const message = `Cannot open "${argument}": there is no such directory; a bucket is written s3://${argument}`
    throw new OperationError('USAGE', message)
  }
  return pathToFileURL(resolve(argument)).href
}

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
