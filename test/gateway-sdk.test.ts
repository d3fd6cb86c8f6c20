/**
 * The gateway under the AWS SDK for JavaScript: what S3 promises about conditions, checksums, parts and listings, as a
 * client that others wrote sees it, compared with the files in the directory underneath.
 */
import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { existsSync } from 'node:fs'
import { readFile, readdir, rm, writeFile } from 'node:fs/promises'
import { Agent } from 'node:http'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { after, before, describe, test } from 'node:test'

import {
  AbortMultipartUploadCommand,
  CompleteMultipartUploadCommand,
  CopyObjectCommand,
  CreateBucketCommand,
  CreateMultipartUploadCommand,
  DeleteBucketCommand,
  DeleteObjectCommand,
  DeleteObjectsCommand,
  GetBucketLocationCommand,
  GetObjectCommand,
  HeadBucketCommand,
  HeadObjectCommand,
  ListMultipartUploadsCommand,
  ListObjectsCommand,
  ListObjectsV2Command,
  ListPartsCommand,
  PutObjectCommand,
  S3Client,
  S3ServiceException,
  UploadPartCommand,
  UploadPartCopyCommand,
  type ChecksumAlgorithm,
} from '@aws-sdk/client-s3'

import { startTestGateway, type TestGateway } from '#test/servers/gateway.ts'

let gateway: TestGateway | undefined

function server(): TestGateway {
  assert.ok(gateway !== undefined, 'the gateway has started')
  return gateway
}

before(async () => {
  gateway = await startTestGateway()
})
after(async () => {
  await gateway?.stop()
})

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex')
}

async function assertSameFile(path: string, expected: Buffer): Promise<void> {
  assert.equal(sha256(await readFile(path)), sha256(expected), `${path} has the bytes that were put`)
}

/** The file that an object is in the directory under the gateway. */
function stored(bucket: string, key: string): string {
  return join(server().root, bucket, key)
}

describe('@aws-sdk/client-s3', () => {
  let s3: S3Client | undefined

  function client(): S3Client {
    const { endpoint, accessKey, secretKey } = server()
    s3 ??= new S3Client({
      endpoint,
      region: 'us-east-1',
      forcePathStyle: true,
      credentials: { accessKeyId: accessKey, secretAccessKey: secretKey },
    })
    return s3
  }
  after(() => s3?.destroy())

  async function bucket(name: string): Promise<string> {
    await client().send(new CreateBucketCommand({ Bucket: name }))
    return name
  }

  /** The code of the error that a call ends with. */
  async function codeOf(call: Promise<unknown>): Promise<string> {
    try {
      await call
    } catch (error) {
      if (error instanceof S3ServiceException) return `${error.name} ${error.$metadata.httpStatusCode}`
      throw error
    }
    return 'no error'
  }

  test('[S38] puts and gets under every checksum, in header and trailer', async () => {
    const Bucket = await bucket('sdk-checksums')
    const bytes = randomBytes(300_000)
    for (const algorithm of ['CRC32', 'CRC32C', 'CRC64NVME', 'SHA1', 'SHA256'] as ChecksumAlgorithm[]) {
      const Key = `object ${algorithm}`
      await client().send(new PutObjectCommand({ Bucket, Key, Body: bytes, ChecksumAlgorithm: algorithm }))
      const got = await client().send(new GetObjectCommand({ Bucket, Key, ChecksumMode: 'ENABLED' }))
      assert.equal(sha256((await got.Body?.transformToByteArray()) ?? Buffer.alloc(0)), sha256(bytes))
      assert.equal(got.ChecksumType, 'FULL_OBJECT')
    }
    const stream = Readable.from([bytes.subarray(0, 1000), bytes.subarray(1000)])
    await client().send(
      new PutObjectCommand({
        Bucket,
        Key: 'streamed',
        Body: stream,
        ContentLength: bytes.length,
        ChecksumAlgorithm: 'CRC32C',
      }),
    )
    await assertSameFile(stored(Bucket, 'streamed'), bytes)
    const wrong = new PutObjectCommand({
      Bucket,
      Key: 'wrong',
      Body: 'x',
      ChecksumSHA256: Buffer.alloc(32).toString('base64'),
    })
    assert.equal(await codeOf(client().send(wrong)), 'BadDigest 400')
    assert.equal(existsSync(stored(Bucket, 'wrong')), false)
    const md5 = new PutObjectCommand({
      Bucket,
      Key: 'wrong',
      Body: 'x',
      ContentMD5: Buffer.alloc(16).toString('base64'),
    })
    assert.equal(await codeOf(client().send(md5)), 'BadDigest 400')
    assert.equal(existsSync(stored(Bucket, 'wrong')), false)
  })

  test('[S37] writes, copies and deletes under conditions', async () => {
    const Bucket = await bucket('sdk-conditions')
    const put = (Key: string, Body: string, more: object = {}): Promise<{ ETag?: string | undefined }> =>
      client().send(new PutObjectCommand({ Bucket, Key, Body, ...more }))
    const first = await put('key', 'one', { IfNoneMatch: '*' })
    assert.equal(await codeOf(put('key', 'two', { IfNoneMatch: '*' })), 'PreconditionFailed 412')
    assert.equal(
      await codeOf(put('key', 'two', { IfMatch: '"00000000000000000000000000000000"' })),
      'PreconditionFailed 412',
    )
    assert.equal(await codeOf(put('gone', 'two', { IfMatch: '"00000000000000000000000000000000"' })), 'NoSuchKey 404')
    const second = await put('key', 'two', { IfMatch: first.ETag })
    assert.equal(await codeOf(put('key', 'three', { IfMatch: first.ETag })), 'PreconditionFailed 412')
    const get = (more: object): Promise<unknown> => client().send(new GetObjectCommand({ Bucket, Key: 'key', ...more }))
    assert.equal(await codeOf(get({ IfMatch: first.ETag })), 'PreconditionFailed 412')
    assert.match(await codeOf(get({ IfNoneMatch: second.ETag })), / 304$/)
    assert.match(await codeOf(get({ IfModifiedSince: new Date(Date.now() + 5000) })), / 304$/)
    assert.equal(await codeOf(get({ IfUnmodifiedSince: new Date(0) })), 'PreconditionFailed 412')
    const copy = (Key: string, more: object = {}): Promise<unknown> =>
      client().send(new CopyObjectCommand({ Bucket, Key, CopySource: `${Bucket}/key`, ...more }))
    assert.equal(await codeOf(copy('copy', { CopySourceIfMatch: first.ETag })), 'PreconditionFailed 412')
    await copy('copy', { CopySourceIfMatch: second.ETag, IfNoneMatch: '*' })
    assert.equal(await codeOf(copy('copy', { IfNoneMatch: '*' })), 'PreconditionFailed 412')
    assert.equal(await codeOf(copy('key')), 'InvalidRequest 400')
    const remove = (Key: string, IfMatch: string | undefined): Promise<unknown> =>
      client().send(new DeleteObjectCommand({ Bucket, Key, IfMatch }))
    assert.equal(await codeOf(remove('key', first.ETag)), 'PreconditionFailed 412')
    assert.equal(await codeOf(remove('gone', '*')), 'NoSuchKey 404')
    const answer = await client().send(
      new DeleteObjectsCommand({
        Bucket,
        Delete: { Objects: [{ Key: 'key', ETag: second.ETag }, { Key: 'copy', ETag: first.ETag }, { Key: 'never' }] },
      }),
    )
    assert.deepEqual(answer.Deleted?.map(({ Key }) => Key).toSorted(), ['key', 'never'])
    assert.deepEqual(
      answer.Errors?.map(({ Key, Code }) => [Key, Code]),
      [['copy', 'PreconditionFailed']],
    )
    assert.deepEqual(await readdir(stored(Bucket, '')), ['copy'])
  })

  test('uploads in parts under a checksum of each kind, lists, copies parts, aborts', async () => {
    const Bucket = await bucket('sdk-parts')
    const parts = [randomBytes(5 << 20), randomBytes(5 << 20), randomBytes(1234)]
    for (const [algorithm, type] of [
      ['CRC32', 'COMPOSITE'],
      ['CRC32C', 'FULL_OBJECT'],
      ['CRC64NVME', 'FULL_OBJECT'],
      ['SHA256', 'COMPOSITE'],
    ] as const) {
      const Key = `parts/${algorithm}`
      const { UploadId } = await client().send(
        new CreateMultipartUploadCommand({
          Bucket,
          Key,
          ChecksumAlgorithm: algorithm,
          ChecksumType: type,
          Metadata: { a: 'b' },
        }),
      )
      const done: object[] = []
      // The last part first, and the first one twice: order of arrival means nothing, and the last of a number counts.
      for (const [index, body] of [
        [2, parts[2]],
        [0, parts[1]],
        [0, parts[0]],
        [1, parts[1]],
      ] as const) {
        const sent = await client().send(
          new UploadPartCommand({
            Bucket,
            Key,
            UploadId,
            PartNumber: index + 1,
            Body: body ?? '',
            ChecksumAlgorithm: algorithm,
          }),
        )
        done[index] = { ...sent, PartNumber: index + 1 }
      }
      const listed = await client().send(new ListPartsCommand({ Bucket, Key, UploadId, MaxParts: 2 }))
      assert.deepEqual([listed.Parts?.length, listed.IsTruncated, listed.NextPartNumberMarker], [2, true, '2'])
      const complete = (Parts: object[], more: object = {}): Promise<{ ETag?: string | undefined }> =>
        client().send(
          new CompleteMultipartUploadCommand({ Bucket, Key, UploadId, MultipartUpload: { Parts }, ...more }),
        )
      assert.equal(await codeOf(complete([done[1] ?? {}, done[0] ?? {}])), 'InvalidPartOrder 400')
      assert.equal(await codeOf(complete([done[2] ?? {}, { ...done[2], PartNumber: 9 }])), 'InvalidPart 400')
      assert.equal(await codeOf(complete(done, { IfMatch: '*' })), 'NoSuchKey 404')
      const completed = await complete(done, { IfNoneMatch: '*', ChecksumType: type })
      assert.match(completed.ETag ?? '', /-3"$/)
      assert.equal((await complete(done)).ETag, completed.ETag, 'who did not hear the answer may ask again')
      await assertSameFile(stored(Bucket, Key), Buffer.concat(parts))
      const head = await client().send(new HeadObjectCommand({ Bucket, Key, ChecksumMode: 'ENABLED' }))
      assert.deepEqual([head.ChecksumType, head.Metadata, head.ETag], [type, { a: 'b' }, completed.ETag])
    }
    const Key = 'copied'
    const { UploadId } = await client().send(new CreateMultipartUploadCommand({ Bucket, Key }))
    const copied = await client().send(
      new UploadPartCopyCommand({
        Bucket,
        Key,
        UploadId,
        PartNumber: 1,
        CopySource: `${Bucket}/parts/CRC32`,
        CopySourceRange: 'bytes=100-6000099',
      }),
    )
    const tail = await client().send(new UploadPartCommand({ Bucket, Key, UploadId, PartNumber: 2, Body: 'tail' }))
    const both = [
      { PartNumber: 1, ETag: copied.CopyPartResult?.ETag },
      { PartNumber: 2, ETag: tail.ETag },
    ]
    await client().send(new CompleteMultipartUploadCommand({ Bucket, Key, UploadId, MultipartUpload: { Parts: both } }))
    await assertSameFile(
      stored(Bucket, Key),
      Buffer.concat([Buffer.concat(parts).subarray(100, 6_000_100), Buffer.from('tail')]),
    )
    const small = await client().send(new CreateMultipartUploadCommand({ Bucket, Key: 'small' }))
    const target = { Bucket, Key: 'small', UploadId: small.UploadId }
    const tags = await Promise.all(
      [1, 2].map((PartNumber) => client().send(new UploadPartCommand({ ...target, PartNumber, Body: 'x' }))),
    )
    const tooSmall = tags.map(({ ETag }, index) => ({ ETag, PartNumber: index + 1 }))
    assert.equal(
      await codeOf(
        client().send(new CompleteMultipartUploadCommand({ ...target, MultipartUpload: { Parts: tooSmall } })),
      ),
      'EntityTooSmall 400',
    )
    const uploads = await client().send(new ListMultipartUploadsCommand({ Bucket }))
    assert.deepEqual(
      uploads.Uploads?.map((upload) => upload.Key),
      ['small'],
    )
    await client().send(new AbortMultipartUploadCommand(target))
    assert.equal(await codeOf(client().send(new ListPartsCommand(target))), 'NoSuchUpload 404')
    assert.deepEqual(await readdir(server().staging), [], 'nothing is left of uploads that have ended')
  })

  test('lists with prefixes, delimiters and pages of any size, the same in both versions', async () => {
    const Bucket = await bucket('sdk-lists')
    const keys = ['a', 'a-b', 'a/b', 'a/c/d', 'a/c/e', 'a0', 'b/', 'c/x--y', 'c/x--z', 'c/x-y', 'ü', '😀']
    for (const Key of keys)
      await client().send(new PutObjectCommand({ Bucket, Key: Key === 'a' ? 'a_' : Key, Body: '', ContentLength: 0 }))
    const all = keys
      .map((key) => (key === 'a' ? 'a_' : key))
      .toSorted((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)))
    const expected = (prefix: string, delimiter: string): string[] => {
      const shown = all
        .filter((key) => key.startsWith(prefix))
        .map((key) => {
          const at = delimiter === '' ? -1 : key.indexOf(delimiter, prefix.length)
          return at === -1 ? key : `${key.slice(0, at + delimiter.length)}*`
        })
      return [...new Set(shown)]
    }
    for (const Prefix of ['', 'a', 'a/', 'a/c', 'a/c/', 'b/', 'c/x', 'nothing', 'a//', '../']) {
      for (const Delimiter of ['', '/', '--', 'c/']) {
        for (const MaxKeys of [1, 2, 1000]) {
          const listed: string[] = []
          let ContinuationToken: string | undefined
          do {
            const page = await client().send(
              new ListObjectsV2Command({ Bucket, Prefix, Delimiter, MaxKeys, ContinuationToken }),
            )
            const shown = [
              ...(page.Contents ?? []).map(({ Key }) => Key ?? ''),
              ...(page.CommonPrefixes ?? []).map((common) => `${common.Prefix}*`),
            ]
            assert.equal(page.KeyCount, shown.length)
            assert.ok(shown.length <= MaxKeys)
            listed.push(...shown.toSorted((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b))))
            ContinuationToken = page.NextContinuationToken
            assert.equal(page.IsTruncated, ContinuationToken !== undefined)
          } while (ContinuationToken !== undefined)
          assert.deepEqual(
            listed.toSorted(),
            expected(Prefix, Delimiter).toSorted(),
            JSON.stringify({ Prefix, Delimiter, MaxKeys }),
          )
          const first: string[] = []
          let Marker: string | undefined
          do {
            const page: {
              Contents?: { Key?: string | undefined }[] | undefined
              CommonPrefixes?: { Prefix?: string | undefined }[] | undefined
              IsTruncated?: boolean | undefined
              NextMarker?: string | undefined
            } = await client().send(new ListObjectsCommand({ Bucket, Prefix, Delimiter, MaxKeys, Marker }))
            const contents = (page.Contents ?? []).map(({ Key }) => Key ?? '')
            first.push(...contents, ...(page.CommonPrefixes ?? []).map((common) => `${common.Prefix}*`))
            Marker = page.IsTruncated === true ? (page.NextMarker ?? contents.at(-1)) : undefined
          } while (Marker !== undefined)
          assert.deepEqual(
            first.toSorted(),
            expected(Prefix, Delimiter).toSorted(),
            JSON.stringify({ Prefix, Delimiter, MaxKeys }),
          )
        }
      }
    }
    const later = await client().send(new ListObjectsV2Command({ Bucket, StartAfter: 'a/c/d', Delimiter: '/' }))
    assert.deepEqual(
      later.CommonPrefixes?.map((common) => common.Prefix),
      ['a/', 'b/', 'c/'],
    )
  })

  test('knows buckets by both styles, and directories as objects', async () => {
    const Bucket = await bucket('sdk-styles')
    const { port, accessKey, secretKey } = server()
    const virtual = new S3Client({
      endpoint: `http://localhost:${port}`,
      region: 'us-east-1',
      // Names below localhost are not known everywhere.
      requestHandler: {
        httpAgent: new Agent({ lookup: (_name, _options, done) => done(null, [{ address: '127.0.0.1', family: 4 }]) }),
      },
      credentials: { accessKeyId: accessKey, secretAccessKey: secretKey },
    })
    await virtual.send(new PutObjectCommand({ Bucket, Key: 'in/side', Body: 'x' }))
    virtual.destroy()
    assert.equal(await readFile(stored(Bucket, 'in/side'), 'utf8'), 'x')
    assert.equal((await client().send(new HeadBucketCommand({ Bucket }))).BucketRegion, 'us-east-1')
    await client().send(new GetBucketLocationCommand({ Bucket }))
    const head = (Key: string): Promise<unknown> => client().send(new HeadObjectCommand({ Bucket, Key }))
    assert.match(await codeOf(head('in/')), / 404$/)
    assert.match(await codeOf(head('in')), / 404$/)
    await client().send(
      new PutObjectCommand({ Bucket, Key: 'in/', Body: '', ContentLength: 0, Metadata: { mark: 'yes' } }),
    )
    await head('in/')
    await client().send(new DeleteObjectCommand({ Bucket, Key: 'in/side' }))
    await head('in/')
    await client().send(new DeleteObjectCommand({ Bucket, Key: 'in/' }))
    assert.deepEqual(await readdir(stored(Bucket, '')), [])
    assert.equal(await codeOf(client().send(new HeadBucketCommand({ Bucket: 'sdk-nowhere' }))), 'NotFound 404')
    assert.equal(
      await codeOf(client().send(new GetObjectCommand({ Bucket: 'sdk-nowhere', Key: 'k' }))),
      'NoSuchBucket 404',
    )
    assert.equal(
      await codeOf(client().send(new CreateBucketCommand({ Bucket: 'Upper_Case' }))),
      'InvalidBucketName 400',
    )
    await client().send(new DeleteBucketCommand({ Bucket }))
  })

  test('[S39] sees what other programs do in the directory: no tag is kept that does not tell of the bytes', async () => {
    const Bucket = await bucket('sdk-outside')
    const put = await client().send(
      new PutObjectCommand({ Bucket, Key: 'file', Body: 'put', ContentType: 'text/x-kept' }),
    )
    await writeFile(stored(Bucket, 'file'), 'changed')
    const changed = await client().send(new HeadObjectCommand({ Bucket, Key: 'file', ChecksumMode: 'ENABLED' }))
    assert.notEqual(changed.ETag, put.ETag)
    assert.match(changed.ETag ?? '', /-1"$/)
    assert.deepEqual([changed.ContentLength, changed.ContentType, changed.ChecksumCRC32], [7, 'text/x-kept', undefined])
    await writeFile(stored(Bucket, 'other'), 'from outside')
    const other = await client().send(new GetObjectCommand({ Bucket, Key: 'other' }))
    assert.equal(await other.Body?.transformToString(), 'from outside')
    const listed = await client().send(new ListObjectsV2Command({ Bucket }))
    assert.deepEqual(
      listed.Contents?.map(({ Key, ETag }) => [Key, ETag]),
      [
        ['file', changed.ETag],
        ['other', other.ETag],
      ],
    )
    await rm(stored(Bucket, 'other'))
    assert.equal(await codeOf(client().send(new GetObjectCommand({ Bucket, Key: 'other' }))), 'NoSuchKey 404')
  })
})
