/** Buckets on test servers, made by our own client, and the options that open them. */
import { S3Client } from '#store/s3/client.ts'
import { parseS3Url, type S3Options } from '#store/s3/endpoint.ts'

export interface ServerKeys {
  readonly endpoint: string
  readonly region: string
  readonly accessKey: string
  readonly secretKey: string
}

/** The options that open a bucket of a test server. */
export function s3OptionsOf(server: ServerKeys, more: S3Options = {}): S3Options {
  const { endpoint, region, accessKey, secretKey } = server
  return { endpoint, region, credentials: { accessKeyId: accessKey, secretAccessKey: secretKey }, ...more }
}

/** A client of a bucket of a test server, to look behind the store's back; to be closed. */
export function clientOf(server: ServerKeys, bucket: string): S3Client {
  return new S3Client(parseS3Url(`s3://${bucket}`, s3OptionsOf(server)), server.region)
}

let bucketsMade = 0

/** Makes a bucket with a name of its own, and gives that. */
export async function newBucket(server: ServerKeys): Promise<string> {
  const bucket = `bucket-${bucketsMade++}`
  await makeBucket(server, bucket)
  return bucket
}

/** Makes a bucket. */
export async function makeBucket(server: ServerKeys, bucket: string): Promise<void> {
  const client = clientOf(server, bucket)
  try {
    await client.send({ operation: 'CreateBucket', method: 'PUT', body: new Uint8Array(0) }, () => undefined)
  } finally {
    await client.close()
  }
}
