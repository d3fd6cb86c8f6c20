/**
 * Puts of which pieces are in the store already: an edit of a large object sends what was changed and has the rest copied within
 * the store (`part-plan.ts`); a small result is put together here and sent in one request; one object that is wanted as it is, is
 * copied.
 *
 * All stored pieces are of the versions that they name, or nothing is stored: every read and copy of one is under that condition.
 * Some servers ignore the condition of copies in parts, so a version is looked at before; it is looked at again before the
 * completion, unless the completion itself is under the guard of that very version.
 *
 * A put of pieces of the object that it replaces is an edit of it: its Content headers, its tags and the user metadata of others
 * stay.
 */
import { OperationError } from '#base/errors.ts'
import { readAt, segmentError } from '#store/file-segments.ts'
import { isStored, type Entry, type FileSegment, type Guard, type Segment, type StoredSegment } from '#store/store.ts'
import type { S3Context } from './context.ts'
import { copyGuarded, tagHeaders } from './copy.ts'
import { readInto } from './download.ts'
import { newHeaders, replacedHeaders, writtenEntry } from './entries.ts'
import { S3Error } from './errors.ts'
import { conflict } from './guards.ts'
import {
  abortUpload,
  PART_BYTES_MAX,
  PART_BYTES_MIN,
  PARTS_MAX,
  uploadParts,
  type PartBody,
  type PartSource,
  type PartToSend,
} from './multipart.ts'
import { headObject, type ObjectHead } from './objects.ts'
import { inParallel } from '#store/parallel.ts'
import { joinSegments, planParts, type PlannedPart } from './part-plan.ts'
import type { Header } from './signer.ts'
import { checkSize, finishUpload, isLostUpload, putWhole, type PutRequest } from './upload.ts'

/** Reads of one part that are under way at a time. */
const READS_AT_ONCE = 8
/** What lies between two stored pieces is read with them where it is shorter than this: a request costs more. */
const GAP_BYTES_MAX = 256 * 1024

/**
 * Puts segments, some of which may be stored. Requests: for up to two parts' size 1, and one for each stretch that is read; for one
 * whole object 2; else 3, one for each part, up to two notes, and one for each stretch that is read to fill parts up. One more
 * for each other object that pieces are of, and where the guard has to be looked at.
 */
export async function putSegments(
  context: S3Context,
  request: PutRequest,
  segments: readonly Segment[],
): Promise<Entry> {
  const joined = joinSegments(segments)
  const bytes = joined.reduce((sum, { length }) => sum + length, 0)
  checkSize(request.path, bytes)
  const [first] = joined
  if (first !== undefined && isStored(first) && joined.length === 1 && first.offset === 0) {
    const head = await headOfStored(context, request, first, bytes)
    if (head.size === bytes) return copyAlone(context, request, first, head)
  }
  if (bytes <= context.limits.putBytesMax) return putTogether(context, request, joined, bytes)
  return putInParts(context, request, joined, bytes)
}

/** The error of a put that names a version which is there no more. */
function gone(request: PutRequest, cause?: unknown): OperationError {
  return conflict('put', request.path, cause)
}

/** Looks at the version that a segment is of. @throws OperationError `STORE_CONFLICT`, `INPUT_INVALID` where it ends before `end`. */
async function headOfStored(
  context: S3Context,
  request: PutRequest,
  { path, version }: StoredSegment,
  end: number,
): Promise<ObjectHead> {
  const head = await headObject(context.client, context.keys.file(path), request.signal)
  if (head === undefined || head.version !== version) throw gone(request)
  if (head.size >= end) return head
  const detail = `a piece of "${path}" is to end at ${end}, and that has ${head.size} bytes`
  throw new OperationError('INPUT_INVALID', `Cannot put "${request.path}": ${detail}`)
}

async function copyAlone(
  context: S3Context,
  request: PutRequest,
  { path: from }: StoredSegment,
  head: ObjectHead,
): Promise<Entry> {
  const { path, key, kind, attributes, guard, signal } = request
  const { size } = head
  const fromKey = context.keys.file(from)
  const written = await copyGuarded(context, { path, kind, from: fromKey, head, to: key, guard, attributes, signal })
  return writtenEntry(context, { path, kind, size, attributes }, written)
}

async function putTogether(
  context: S3Context,
  request: PutRequest,
  segments: readonly Segment[],
  bytes: number,
): Promise<Entry> {
  const share = bytes === 0 ? undefined : await context.options.memory?.reserve(bytes, request.signal)
  try {
    const body = Buffer.allocUnsafeSlow(bytes)
    const before = await fill(context, request, segments, body, request.signal)
    if (before === undefined) return await putWhole(context, request, body)
    const { path, kind, attributes } = request
    const headers = replacedHeaders(context, path, kind, { ...before, size: bytes }, attributes)
    headers.push(...(await tagHeaders(context, request.key, before, request.signal)))
    return await putWhole(context, request, body, headers)
  } finally {
    share?.release()
  }
}

async function putInParts(
  context: S3Context,
  request: PutRequest,
  segments: readonly Segment[],
  bytes: number,
): Promise<Entry> {
  const { path, key, kind, attributes, guard, signal } = request
  const { client, limits } = context
  const sources = sourcesOf(segments)
  let before: ObjectHead | undefined
  await inParallel(sources, READS_AT_ONCE, async (source) => {
    const head = await headOfStored(context, request, source, source.end)
    if (source.path === path) before = head
  })
  const headers = await headersOf(context, request, before, bytes)
  const plan = planParts(segments, {
    bytesMin: PART_BYTES_MIN,
    sentBytes: limits.putPartBytes,
    copiedBytes: limits.copyPartBytes,
    bytesMax: PART_BYTES_MAX,
    countMax: PARTS_MAX,
  })
  for (let redone = false; ; redone = true) {
    try {
      const upload = await uploadParts(client, key, headers, sourceOf(context, request, plan), signal, context.notes)
      try {
        await inParallel(sources, READS_AT_ONCE, async (source) => {
          if (!isGuarded(request, guard, source)) await headOfStored(context, request, source, source.end)
        })
      } catch (error) {
        await abortUpload(client, key, upload)
        throw error
      }
      const written = await finishUpload(context, path, key, upload, guard, signal)
      return writtenEntry(context, { path, kind, size: bytes, attributes }, written)
    } catch (error) {
      if (isLostUpload(error) && !redone) continue
      throw isGone(error) ? gone(request, error) : error
    }
  }
}

/** What a new object has, or one that takes the place of another. */
async function headersOf(
  context: S3Context,
  request: PutRequest,
  before: ObjectHead | undefined,
  size: number,
): Promise<Header[]> {
  const { path, key, kind, attributes, signal } = request
  if (before === undefined) return newHeaders(context, path, kind, size, attributes)
  const headers = replacedHeaders(context, path, kind, { ...before, size }, attributes)
  return [...headers, ...(await tagHeaders(context, key, before, signal))]
}

/** Whether a copy or read failed since what it is of is there no more. */
function isGone(error: unknown): boolean {
  return error instanceof S3Error && (error.code === 'STORE_CONFLICT' || error.s3Code === 'NoSuchKey')
}

/** The guard decides at the completion on the version that was copied from. */
function isGuarded(request: PutRequest, guard: Guard, source: StoredSegment): boolean {
  return source.path === request.path && guard.kind === 'version' && guard.version === source.version
}

/** Each version that segments are of, once, and how far they need it. */
function sourcesOf(segments: readonly Segment[]): (StoredSegment & { readonly end: number })[] {
  const sources = new Map<string, StoredSegment & { readonly end: number }>()
  for (const segment of segments) {
    if (!isStored(segment)) continue
    const id = `${segment.version} ${segment.path}`
    const end = Math.max(segment.offset + segment.length, sources.get(id)?.end ?? 0)
    sources.set(id, { ...segment, end })
  }
  return [...sources.values()]
}

function sourceOf(context: S3Context, request: PutRequest, plan: readonly PlannedPart[]): PartSource {
  return {
    next: async (number): Promise<PartToSend | undefined> => {
      const part = plan[number - 1]
      if (part === undefined) return undefined
      if (part.kind === 'send') return { load: (signal) => load(context, request, part, signal) }
      const { path, version, offset, length } = part.from
      return { copy: context.keys.file(path), version, start: offset, bytes: length }
    },
  }
}

async function load(
  context: S3Context,
  request: PutRequest,
  { segments, bytes }: Extract<PlannedPart, { kind: 'send' }>,
  signal: AbortSignal,
): Promise<PartBody> {
  const share = await context.options.memory?.reserve(bytes, signal)
  try {
    const body = Buffer.allocUnsafeSlow(bytes)
    await fill(context, request, segments, body, signal)
    return { body, release: share === undefined ? undefined : () => share.release() }
  } catch (error) {
    share?.release()
    throw error
  }
}

/** A stretch of one stored version, and where it goes; what is from here goes over it. */
interface Span {
  readonly from: StoredSegment
  readonly at: number
  readonly length: number
}

/** Reads all segments into their places. Gives what was seen of the object at the path that is put, if it was read from. */
async function fill(
  context: S3Context,
  request: PutRequest,
  segments: readonly Segment[],
  target: Buffer,
  signal: AbortSignal | undefined,
): Promise<ObjectHead | undefined> {
  const spans: Span[] = []
  const locals: { readonly from: FileSegment; readonly at: number }[] = []
  let at = 0
  for (const segment of segments) {
    if (isStored(segment)) addSpan(spans, segment, at)
    else locals.push({ from: segment, at })
    at += segment.length
  }
  let before: ObjectHead | undefined
  await inParallel(spans, READS_AT_ONCE, async ({ from, at: start, length }) => {
    const key = context.keys.file(from.path)
    const piece = target.subarray(start, start + length)
    const head = await readInto(context.client, key, from.version, from.offset, piece, signal)
    if (head === undefined) throw gone(request)
    if (from.path === request.path) before = head
  })
  for (const { from, at: start } of locals) {
    const count = await readAt(from.fd, target.subarray(start, start + from.length), from.offset)
    if (count < from.length) throw segmentError(request.path, from, count)
  }
  return before
}

function addSpan(spans: Span[], from: StoredSegment, at: number): void {
  const last = spans.at(-1)
  if (last !== undefined && last.from.path === from.path && last.from.version === from.version) {
    const gap = at - last.at - last.length
    const isInLine = at - last.at === from.offset - last.from.offset
    if (isInLine && gap >= 0 && gap <= GAP_BYTES_MAX) {
      spans[spans.length - 1] = { ...last, length: at - last.at + from.length }
      return
    }
  }
  spans.push({ from, at, length: from.length })
}
