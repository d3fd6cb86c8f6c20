/**
 * Copies within the bucket: one request for what is small, ranges in parallel for what is large, under the guards of both
 * ends. An object copied onto itself is how its attributes change.
 */
import type { Attributes, Guard, Kind } from '#store/store.ts'
import type { S3Context } from './context.ts'
import { fileEntry, keptHeaders, replacedHeaders } from './entries.ts'
import { S3Error } from './errors.ts'
import { conflict, guardedWrite } from './guards.ts'
import { uploadParts, type PartSource, type PartToSend } from './multipart.ts'
import { copyObject, headObject, type ObjectHead, type Written } from './objects.ts'
import { canonicalQuery } from './sigv4.ts'
import type { Header } from './signer.ts'
import { finishUpload } from './upload.ts'
import { encodeQueryPart } from './sigv4.ts'
import { childOf, childrenOf, textOf } from './xml.ts'
import { readXml } from './objects.ts'

export interface CopyRequest {
  /** For messages. */
  readonly path: string
  readonly kind: Kind
  readonly from: string
  /** What is copied: this version or none. */
  readonly head: ObjectHead
  readonly to: string
  readonly guard: Guard
  /** Replace the source's where given. */
  readonly attributes?: Attributes | undefined
  readonly signal: AbortSignal | undefined
}

/** Copies one object. One request, one more where the guard has to be looked at; large ones 2 and one for each part. */
export async function copyGuarded(context: S3Context, request: CopyRequest): Promise<Written> {
  const { head, attributes, kind, path } = request
  const replaced = attributes === undefined ? undefined : replacedHeaders(context, path, kind, head, attributes)
  try {
    if (head.size > context.limits.copyBytesMax) return await copyParts(context, request, replaced)
    return await copyWhole(context, request, replaced)
  } catch (error) {
    // The source is another by now, or gone: its condition fails in the same words as the guard of the target.
    if (!(error instanceof S3Error)) throw error
    if (error.code === 'STORE_CONFLICT' || error.s3Code === 'NoSuchKey') throw conflict('copy', path, error)
    throw error
  }
}

async function copyWhole(
  context: S3Context,
  request: CopyRequest,
  replaced: readonly Header[] | undefined,
): Promise<Written> {
  const { client } = context
  const { path, from, head, to, guard, signal } = request
  const headers: Header[] =
    replaced === undefined ? keptHeaders(context, head) : [['x-amz-metadata-directive', 'REPLACE'], ...replaced]
  return guardedWrite(context, {
    ...{ action: 'copy to', path, write: 'copy', key: to, guard, signal },
    send: (conditions, before) =>
      copyObject(client, from, head.version, to, [...headers, ...conditions], head.size, signal, before),
    look: () => headObject(client, to, signal),
    take: (found) => (isCopy(found, head, replaced) ? found : undefined),
  })
}

/** Whether an object is the copy that was asked for: by version and attributes. */
function isCopy(found: ObjectHead, source: ObjectHead, replaced: readonly Header[] | undefined): boolean {
  if (found.version !== source.version || found.size !== source.size) return false
  const expected = (name: string): string | undefined =>
    replaced === undefined ? source.header(name) : replaced.find(([sent]) => sent === name)?.[1]
  return ['x-amz-meta-attr', 'x-amz-meta-xattr'].every((name) => found.header(name) === expected(name))
}

async function copyParts(
  context: S3Context,
  request: CopyRequest,
  replaced: readonly Header[] | undefined,
): Promise<Written> {
  const { client, limits } = context
  const { path, from, head, to, guard, signal, kind } = request
  const kept = fileEntry(context, path, head).attributes ?? {}
  const headers = [...(replaced ?? replacedHeaders(context, path, kind, head, kept))]
  headers.push(...(await tagHeaders(context, from, head, signal)))
  const source: PartSource = {
    next: (number): Promise<PartToSend | undefined> => {
      const start = (number - 1) * limits.copyPartBytes
      const bytes = Math.min(limits.copyPartBytes, head.size - start)
      return Promise.resolve(bytes <= 0 ? undefined : { copy: from, version: head.version, start, bytes })
    },
  }
  const upload = await uploadParts(client, to, headers, source, signal, context.notes)
  return finishUpload(context, path, to, upload, guard, signal)
}

/** The tags of an object, for one that takes its place. No request where it has none, else one. */
export async function tagHeaders(
  context: S3Context,
  key: string,
  head: ObjectHead,
  signal: AbortSignal | undefined,
): Promise<Header[]> {
  if (Number(head.header('x-amz-tagging-count') ?? 0) === 0) return []
  return [['x-amz-tagging', await taggingOf(context, key, signal)]]
}

/** The tags of an object as a header wants them; a copy in parts would lose them. */
function taggingOf(context: S3Context, key: string, signal: AbortSignal | undefined): Promise<string> {
  const request = {
    operation: 'GetObjectTagging',
    method: 'GET',
    key,
    query: canonicalQuery([['tagging', '']]),
  } as const
  return context.client.send({ ...request, signal }, (answer) => {
    const set = childOf(readXml(context.client.action(request), answer, 'Tagging'), 'TagSet')
    const tags = set === undefined ? [] : childrenOf(set, 'Tag')
    return tags
      .map((tag) => `${encodeQueryPart(textOf(tag, 'Key') ?? '')}=${encodeQueryPart(textOf(tag, 'Value') ?? '')}`)
      .join('&')
  })
}
