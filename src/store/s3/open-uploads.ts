/** What an endpoint tells of uploads in parts that are open: which there are, and whether one has parts. */
import { timestampToMs } from '#base/time.ts'
import type { S3Client } from './client.ts'
import { httpDate, readXml } from './objects.ts'
import { canonicalQuery, decodePercent } from './sigv4.ts'
import { childrenOf, textOf } from './xml.ts'

export interface OpenUpload {
  readonly key: string
  readonly id: string
  /** By the endpoint's clock. */
  readonly initiatedMs: number
}

/** The open uploads of keys that begin with `prefix`. One request for 1,000. */
export async function* openUploads(
  client: S3Client,
  prefix: string,
  signal: AbortSignal | undefined,
): AsyncGenerator<OpenUpload> {
  const request = { operation: 'ListMultipartUploads', method: 'GET', signal } as const
  let markers: [string, string][] | undefined = []
  while (markers !== undefined) {
    const query = canonicalQuery([['uploads', ''], ['encoding-type', 'url'], ['prefix', prefix], ...markers])
    const page: { uploads: OpenUpload[]; next: [string, string][] | undefined } = await client.send(
      { ...request, query },
      (answer) => {
        const root = readXml(client.action(request), answer, 'ListMultipartUploadsResult')
        const isEncoded = textOf(root, 'EncodingType') === 'url'
        const decode = (text: string): string =>
          isEncoded ? decodePercent(text.replaceAll('+', ' ')).toString() : text
        const uploads = childrenOf(root, 'Upload').map((element) => ({
          key: decode(textOf(element, 'Key') ?? ''),
          id: textOf(element, 'UploadId') ?? '',
          initiatedMs: timestampToMs(httpDate(textOf(element, 'Initiated'))),
        }))
        const keyMarker = textOf(root, 'NextKeyMarker')
        if (textOf(root, 'IsTruncated') !== 'true' || keyMarker === undefined) return { uploads, next: undefined }
        const idMarker = textOf(root, 'NextUploadIdMarker') ?? ''
        return {
          uploads,
          next: [
            ['key-marker', decode(keyMarker)],
            ['upload-id-marker', idMarker],
          ],
        }
      },
    )
    yield* page.uploads
    markers = page.next
  }
}

/** Whether an upload has parts; undefined where there is none such. One request. */
export function hasParts(
  client: S3Client,
  { key, id }: Pick<OpenUpload, 'key' | 'id'>,
  signal: AbortSignal | undefined,
): Promise<boolean | undefined> {
  const query = canonicalQuery([
    ['max-parts', '1'],
    ['uploadId', id],
  ])
  const request = { operation: 'ListParts', method: 'GET', key, query, signal } as const
  return client.send({ ...request, accept: [404] }, (answer) => {
    if (answer.status === 404) return undefined
    return childrenOf(readXml(client.action(request), answer, 'ListPartsResult'), 'Part').length > 0
  })
}
