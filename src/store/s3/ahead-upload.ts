/**
 * Uploads whose parts are sent while their file is still being written (`Upload` of the port). The server hears of one with the
 * first part that is sent. At the end what was not sent, or was changed since, is sent, and the parts become the object under the
 * guard; a file that fits into one request is put by one, and the upload aborted.
 *
 * What an object is besides its bytes is fixed when an upload is begun. Attributes that are others at the end cost one more
 * request: the object is copied onto itself, in the version just made.
 *
 * Parts are read into memory one by one, each within the store's budget, so many at a time; none waits for memory while it
 * holds some. An upload that was lost, since another took this process for dead or since its completion met another write, is
 * sent again, once.
 */
import { setMaxListeners } from 'node:events'

import { assert } from '#base/assert.ts'
import { isOperationError } from '#base/errors.ts'
import { checkAborted, untilAborted } from '#store/abort.ts'
import { readAt, segmentError } from '#store/file-segments.ts'
import {
  ANY,
  ifVersion,
  type Attributes,
  type CallOptions,
  type Entry,
  type FileSegment,
  type PutOptions,
  type Upload,
} from '#store/store.ts'
import { readerOf } from './body.ts'
import type { S3Context } from './context.ts'
import { copyGuarded } from './copy.ts'
import { newHeaders, writtenEntry } from './entries.ts'
import {
  abortUpload,
  beginUpload,
  growingPartBytes,
  PARTS_AT_ONCE,
  PARTS_MAX,
  PARTS_OF_ONE_SIZE,
  sendPart,
  uploadOf,
  type Begun,
  type Part,
} from './multipart.ts'
import { headObject, type ObjectHead, type Written } from './objects.ts'
import type { Header } from './signer.ts'
import { completeGuarded, isLostUpload, putFrom, type PutRequest } from './upload.ts'

/** One upload as the server knows it; a new one takes its place when it is lost. */
interface Session {
  readonly begun: Promise<Begun>
  /** By index. */
  readonly parts: Map<number, Part>
}

export class AheadUpload implements Upload {
  readonly #context: S3Context
  readonly #path: string
  readonly #key: string
  readonly #attributes: Attributes
  readonly #headers: readonly Header[]
  readonly #left = new AbortController()
  /** Sends that are under way: the last of each part. */
  readonly #sending = new Map<number, Promise<void>>()
  #atOnce = 0
  readonly #waiting = new Set<() => void>()
  #session: Session | undefined
  /** The etag of an upload whose completion was asked for, and may have taken effect. */
  #asked: string | undefined
  #ended = false

  constructor(context: S3Context, path: string, attributes: Attributes) {
    this.#context = context
    this.#path = path
    this.#key = context.keys.file(path)
    this.#attributes = attributes
    this.#headers = newHeaders(context, path, 'file', undefined, attributes)
    setMaxListeners(0, this.#left.signal)
  }

  part(index: number): { readonly offset: number; readonly length: number } {
    return partAt(index, this.#context.limits.putPartBytes)
  }

  send(index: number, fd: number, options: CallOptions = {}): Promise<void> {
    const { offset, length } = this.part(index)
    return this.#send(index, { fd, offset, length }, options.signal)
  }

  async commit(source: FileSegment, changed: ReadonlySet<number>, options: PutOptions): Promise<Entry> {
    assert(!this.#ended, 'an upload ends once')
    const { guard, signal } = options
    const attributes = { ...this.#attributes, ...options.attributes }
    const { path } = this
    const request: PutRequest = { path, key: this.#key, kind: 'file', attributes, guard, signal }
    checkAborted(`put "${path}"`, signal)
    try {
      const entry = await this.#commit(request, source, changed)
      this.#ended = true
      return entry
    } catch (error) {
      if (isOperationError(error, 'STORE_CONFLICT')) await this.abort()
      throw error
    }
  }

  async abort(): Promise<void> {
    this.#ended = true
    this.#left.abort(new Error('the upload was given up'))
    // Their requests end at once; one that comes after the abort would leave its part behind.
    await Promise.allSettled(this.#sending.values())
    await this.#forget()
  }

  get path(): string {
    return this.#path
  }

  async #commit(request: PutRequest, source: FileSegment, changed: ReadonlySet<number>): Promise<Entry> {
    const { signal } = request
    await untilAborted(`put "${this.path}"`, Promise.allSettled(this.#sending.values()), signal)
    const count = partsIn(source.length, this.#context.limits.putPartBytes)
    if (this.#asked !== undefined) {
      const made = await this.#madeBefore(signal)
      if (made !== undefined && this.#unsent(source, count, changed).length === 0) return this.#place(request, made)
      // What is there is ours, and of other bytes.
      if (made !== undefined) return this.#putPlainly({ ...request, guard: ifVersion(made.version) }, source)
    }
    for (let redone = false; ; redone = true) {
      const isSmall = source.length <= this.#context.limits.putBytesMax || count > PARTS_MAX
      const isUnsent = (this.#session?.parts.size ?? 0) === 0
      if (isSmall || (isUnsent && !redone)) return this.#putPlainly(request, source)
      try {
        return await this.#complete(request, source, count, redone ? new Set() : changed)
      } catch (error) {
        if (!isLostUpload(error)) throw error
        await this.#forget()
        const found = await this.#madeBefore(signal)
        if (found !== undefined) return this.#putPlainly({ ...request, guard: ifVersion(found.version) }, source)
        if (redone) throw error
      }
    }
  }

  async #putPlainly(request: PutRequest, source: FileSegment): Promise<Entry> {
    const { signal } = request
    const reader = readerOf(this.path, { kind: 'file', segments: [source] }, signal)
    try {
      const entry = await putFrom(this.#context, request, reader)
      await this.#forget()
      return entry
    } finally {
      reader.close()
    }
  }

  async #complete(
    request: PutRequest,
    source: FileSegment,
    count: number,
    changed: ReadonlySet<number>,
  ): Promise<Entry> {
    const { path, key, guard, signal } = request
    await this.#sendRest(source, count, changed, signal)
    const session = this.#session
    assert(session !== undefined, 'parts were sent')
    const parts: Part[] = []
    for (let index = 0; index < count; index++) {
      const part = session.parts.get(index)
      assert(part !== undefined, 'every part was sent')
      parts.push(part)
    }
    const upload = uploadOf(await session.begun, parts)
    this.#asked = upload.versionExpected
    const written = await completeGuarded(this.#context, path, key, upload, guard, signal)
    return this.#place(request, { ...written, size: source.length })
  }

  /** The entry of an object that is there, once it has the attributes that it is to have. */
  async #place(request: PutRequest, made: Written & { readonly size: number }): Promise<Entry> {
    const { path, attributes } = request
    const { size } = made
    const placed = await this.#describe(request, size, made)
    this.#session = undefined
    return writtenEntry(this.#context, { path, kind: 'file', size, attributes }, placed)
  }

  /** The parts that the server does not have as they are. */
  #unsent(source: FileSegment, count: number, changed: ReadonlySet<number>): { index: number; segment: FileSegment }[] {
    const unsent: { index: number; segment: FileSegment }[] = []
    for (let index = 0; index < count; index++) {
      const { offset, length } = this.part(index)
      const bytes = Math.min(length, source.length - offset)
      if (this.#session?.parts.get(index)?.bytes === bytes && !changed.has(index)) continue
      unsent.push({ index, segment: { fd: source.fd, offset: source.offset + offset, length: bytes } })
    }
    return unsent
  }

  async #sendRest(
    source: FileSegment,
    count: number,
    changed: ReadonlySet<number>,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const sends = this.#unsent(source, count, changed).map(({ index, segment }) => this.#send(index, segment, signal))
    const failed = (await Promise.allSettled(sends)).find((each) => each.status === 'rejected')
    if (failed !== undefined) throw failed.reason
  }

  /** The attributes that came to be others since the upload was begun go over those of the object. */
  async #describe({ path, key, attributes, signal }: PutRequest, size: number, written: Written): Promise<Written> {
    const context = this.#context
    const headers = newHeaders(context, path, 'file', undefined, attributes)
    if (isSame(headers, this.#headers)) return written
    const { version } = written
    const head = headOfSent(this.#headers, size, written)
    const guard = context.honoured.copyReplace ? ifVersion(version) : ANY
    try {
      return await copyGuarded(context, { path, kind: 'file', from: key, head, to: key, guard, attributes, signal })
    } catch (error) {
      if (!isOperationError(error, 'STORE_CONFLICT')) throw error
      // It is another by now: by an attempt of ours whose answer was lost, or since somebody replaced what was put.
      const found = await headObject(context.client, key, signal)
      const wanted = newHeaders(context, path, 'file', size, attributes)
      const isOurs = found?.size === size && isSame(attributesIn(found.header), attributesIn(nameIn(wanted)))
      return found !== undefined && isOurs ? { version: found.version, modified: found.modified } : written
    }
  }

  /** What an earlier commit put without hearing of it, if it is there: it is what this one replaces. */
  async #madeBefore(signal: AbortSignal | undefined): Promise<(Written & { readonly size: number }) | undefined> {
    if (this.#asked === undefined) return undefined
    const head = await headObject(this.#context.client, this.#key, signal)
    if (head?.version !== this.#asked) return undefined
    return { version: head.version, modified: head.modified, size: head.size }
  }

  /** Aborts what the server knows of; a new upload is begun with the next part. Never rejects. */
  async #forget(): Promise<void> {
    const session = this.#session
    this.#session = undefined
    const begun = await session?.begun.catch(() => undefined)
    if (begun !== undefined) await abortUpload(this.#context.client, this.#key, begun)
  }

  /** One after another for one part, so that the later bytes count. */
  #send(index: number, segment: FileSegment, signal: AbortSignal | undefined): Promise<void> {
    assert(!this.#ended, 'nothing is sent of an upload that has ended')
    const before = this.#sending.get(index)
    const sending = (async (): Promise<void> => {
      await before?.catch(() => undefined)
      await this.#sendNow(index, segment, signal)
    })()
    this.#sending.set(index, sending)
    const ended = (): void => {
      if (this.#sending.get(index) === sending) this.#sending.delete(index)
    }
    sending.then(ended, ended)
    return sending
  }

  async #sendNow(index: number, segment: FileSegment, signal: AbortSignal | undefined): Promise<void> {
    const action = `put "${this.path}"`
    const both = signal === undefined ? this.#left.signal : AbortSignal.any([this.#left.signal, signal])
    checkAborted(action, both)
    await this.#turn(action, both)
    let session: Session | undefined
    try {
      session = this.#session ?? this.#begin()
      this.#session = session
      const begun = await untilAborted(action, session.begun, both)
      // Whatever comes of it, what the server has of this part is not known until its answer.
      session.parts.delete(index)
      const part = await this.#sendBytes(begun, index + 1, segment, both)
      session.parts.set(index, part)
    } catch (error) {
      if (isLostUpload(error) && this.#session === session) await this.#forget()
      throw error
    } finally {
      this.#endTurn()
    }
  }

  async #sendBytes(begun: Begun, number: number, segment: FileSegment, signal: AbortSignal): Promise<Part> {
    const { client, options, partBuffers } = this.#context
    const { fd, offset, length } = segment
    const share = await options.memory?.reserve(length, signal)
    const body = partBuffers.take(length)
    let isSent = false
    try {
      const count = await readAt(fd, body, offset)
      if (count < length) throw segmentError(this.path, segment, count)
      const part = await sendPart(client, this.#key, begun, number, { body }, signal)
      isSent = true
      return part
    } finally {
      if (isSent) partBuffers.give(body)
      else partBuffers.lose()
      share?.release()
    }
  }

  #begin(): Session {
    const { client, notes } = this.#context
    const begun = beginUpload(client, this.#key, this.#headers, this.#left.signal, notes)
    const session: Session = { begun, parts: new Map() }
    begun.catch(() => {
      // The next part that is sent tries anew.
      if (this.#session === session) this.#session = undefined
    })
    return session
  }

  /** Waits until fewer than so many parts are under way. */
  async #turn(action: string, signal: AbortSignal): Promise<void> {
    while (this.#atOnce >= PARTS_AT_ONCE) {
      let wake = (): void => undefined
      const woken = new Promise<void>((resolve) => {
        wake = resolve
        this.#waiting.add(resolve)
      })
      try {
        await untilAborted(action, woken, signal)
      } catch (error) {
        // Given up just when its turn had come: it is the next one's.
        if (!this.#waiting.delete(wake)) this.#wakeNext()
        throw error
      }
    }
    this.#atOnce++
  }

  #endTurn(): void {
    this.#atOnce--
    this.#wakeNext()
  }

  #wakeNext(): void {
    const [next] = this.#waiting
    if (next === undefined) return
    this.#waiting.delete(next)
    next()
  }
}

/** Where a part lies: sizes grow, so that the parts that there may be hold any file. */
function partAt(index: number, partBytes: number): { readonly offset: number; readonly length: number } {
  let offset = 0
  let first = 0
  // Parts of one size at a time.
  for (;;) {
    const length = growingPartBytes(first + 1, partBytes)
    const next = first + PARTS_OF_ONE_SIZE
    if (index < next) return { offset: offset + (index - first) * length, length }
    offset += PARTS_OF_ONE_SIZE * length
    first = next
  }
}

/** How many parts hold so many bytes. */
function partsIn(bytes: number, partBytes: number): number {
  let [few, many] = [0, PARTS_MAX + 1]
  while (few + 1 < many) {
    const count = Math.floor((few + many) / 2)
    if (partAt(count, partBytes).offset >= bytes) many = count
    else few = count
  }
  return many
}

function isSame(a: readonly Header[], b: readonly Header[]): boolean {
  return a.length === b.length && a.every(([name, value], index) => b[index]?.[0] === name && b[index]?.[1] === value)
}

/** The head of an object that was just made of these headers, as it would come back. */
function headOfSent(headers: readonly Header[], size: number, { version, modified }: Written): ObjectHead {
  const answer = { status: 200, headers: Object.fromEntries(headers), body: Buffer.alloc(0) }
  return { size, version, modified, header: nameIn(headers), answer }
}

function nameIn(headers: readonly Header[]): (name: string) => string | undefined {
  return (name) => headers.find(([each]) => each === name)?.[1]
}

function attributesIn(header: (name: string) => string | undefined): Header[] {
  return ['x-amz-meta-attr', 'x-amz-meta-xattr'].map((name) => [name, header(name) ?? ''])
}
