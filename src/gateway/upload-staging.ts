/**
 * Uploads in parts, on local disk until they are completed or given up. Each upload is a directory of its own:
 *
 *   upload.json   what was said when it was created (bucket, key, description, checksum)
 *   data          the bytes of its parts, each in a region of its own, in the order in which they began to come
 *   parts         one JSON line a part that has arrived: a journal, of which the last line of a number counts
 *
 * A part is in the journal only when its bytes are durable, so that what was acknowledged survives a crash; a torn last
 * line is a part that was not acknowledged. One file for all parts means one descriptor when they are put together,
 * and one copy inside the kernel where they follow one another. Regions of replaced and broken parts are used again.
 *
 * One process works with a staging directory at a time.
 */
import { randomBytes } from 'node:crypto'
import { mkdir, open, readdir, readFile, rename, rm, stat, type FileHandle } from 'node:fs/promises'
import { join } from 'node:path'

import { assert } from '#base/assert.ts'
import { OperationError } from '#base/errors.ts'
import { logger } from '#base/log.ts'
import { makeDirectories } from '#os/make-directories.ts'
import type { FileSegment } from '#store/store.ts'

import type { Checksum } from './body.ts'
import type { ChecksumAlgorithm, ChecksumType } from './checksum.ts'
import { S3Error } from './errors.ts'
import type { Description } from './object-metadata.ts'

export const PARTS_MAX = 10_000
/** Uploads that are under way at a time: each is held in memory with the list of its parts. */
const UPLOADS_MAX = 10_000
/** Bytes of a part in memory before they are written. */
const WRITE_BYTES = 1 << 20
/** Completed uploads whose result is remembered, for clients that did not hear it and ask again. */
const COMPLETED_MAX = 1000

const log = logger('gateway')

/** What was said of an upload when it was created. */
export interface UploadPlan {
  readonly bucket: string
  readonly key: string
  readonly createdMs: number
  readonly description: Description
  readonly checksum: { readonly algorithm: ChecksumAlgorithm; readonly type: ChecksumType } | undefined
}

/** A part that has arrived. */
export interface Part {
  readonly number: number
  readonly offset: number
  readonly size: number
  readonly etag: string
  readonly checksum: Checksum | undefined
  readonly modifiedMs: number
}

interface Region {
  readonly offset: number
  readonly size: number
}

/** An upload that is under way. */
export class Upload {
  readonly id: string
  readonly plan: UploadPlan
  readonly parts = new Map<number, Part>()
  /** While set, the parts are being put together and none may come. */
  completion: Promise<unknown> | undefined
  activeMs: number
  readonly #directory: string
  #end = 0
  #free: Region[] = []
  #gone = false

  constructor(id: string, directory: string, plan: UploadPlan, parts: readonly Part[], activeMs: number) {
    this.id = id
    this.plan = plan
    this.activeMs = activeMs
    this.#directory = directory
    for (const part of parts) this.parts.set(part.number, part)
    this.#free = gapsOf([...this.parts.values()])
    this.#end = Math.max(0, ...[...this.parts.values()].map((part) => part.offset + part.size))
  }

  /** Takes a part; `finish` is asked for its tag and checksum when the stream has ended. Durable when it resolves. */
  async writePart(
    number: number,
    size: number,
    stream: AsyncIterable<Uint8Array>,
    finish: () => Pick<Part, 'etag' | 'checksum'>,
    release: (chunk: Uint8Array) => void = () => {},
  ): Promise<Part> {
    this.#check()
    const region = this.#allocate(size)
    let isFree = true
    try {
      await this.#writeBytes(region, stream, release)
      const part = { number, ...region, ...finish(), modifiedMs: Date.now() }
      this.#check()
      // From here on a line of the journal may name the region, also where its sync fails: nothing else goes there.
      isFree = false
      await this.#append(part)
      const replaced = this.parts.get(number)
      this.parts.set(number, part)
      if (replaced !== undefined) this.#free.push(replaced)
      this.activeMs = Date.now()
      return part
    } catch (error) {
      if (isFree) this.#free.push(region)
      throw stagingFailure(error, this.#gone)
    }
  }

  /** Gives the bytes of these parts, in this order, to `use`, as segments of an open file. */
  async withSegments<T>(parts: readonly Part[], use: (segments: readonly FileSegment[]) => Promise<T>): Promise<T> {
    if (parts.every((part) => part.size === 0)) return use([])
    const file = await open(join(this.#directory, 'data'), 'r')
    try {
      return await use(segmentsOf(file.fd, parts))
    } finally {
      await file.close()
    }
  }

  /** Removes all that is on disk; parts still on their way end with `NoSuchUpload`. */
  async remove(): Promise<void> {
    this.#gone = true
    await rm(this.#directory, { recursive: true, force: true })
  }

  #check(): void {
    if (this.#gone) throw new S3Error('NoSuchUpload')
    if (this.completion !== undefined) throw new S3Error('OperationAborted', 'The upload is being completed')
  }

  #allocate(size: number): Region {
    const index = this.#free.findIndex((region) => region.size >= size)
    const found = this.#free[index]
    if (found === undefined) {
      const region = { offset: this.#end, size }
      this.#end += size
      return region
    }
    this.#free.splice(index, 1)
    if (found.size > size) this.#free.push({ offset: found.offset + size, size: found.size - size })
    return { offset: found.offset, size }
  }

  async #writeBytes(
    region: Region,
    stream: AsyncIterable<Uint8Array>,
    release: (chunk: Uint8Array) => void,
  ): Promise<void> {
    const file = await open(join(this.#directory, 'data'), 'r+')
    try {
      let waiting: Uint8Array[] = []
      let waitingBytes = 0
      let position = region.offset
      for await (const chunk of stream) {
        waiting.push(chunk)
        waitingBytes += chunk.length
        assert(position + waitingBytes <= region.offset + region.size, 'a part has no more bytes than it said')
        if (waitingBytes < WRITE_BYTES) continue
        await writeAll(file, waiting, waitingBytes, position)
        waiting.forEach(release)
        position += waitingBytes
        waiting = []
        waitingBytes = 0
      }
      if (waitingBytes > 0) await writeAll(file, waiting, waitingBytes, position)
      await file.datasync()
    } finally {
      await file.close()
    }
  }

  async #append(part: Part): Promise<void> {
    const file = await open(join(this.#directory, 'parts'), 'a')
    try {
      // Begins with a line end, so that a torn line before it spoils itself only.
      await file.appendFile(`\n${JSON.stringify(part)}`)
      await file.datasync()
    } finally {
      await file.close()
    }
  }
}

async function writeAll(
  file: FileHandle,
  chunks: readonly Uint8Array[],
  bytes: number,
  position: number,
): Promise<void> {
  const { bytesWritten } = await file.writev([...chunks], position)
  if (bytesWritten === bytes) return
  let done = bytesWritten
  const rest = Buffer.concat(chunks)
  while (done < bytes) done += (await file.write(rest, done, bytes - done, position + done)).bytesWritten
}

function segmentsOf(fd: number, parts: readonly Part[]): FileSegment[] {
  const segments: FileSegment[] = []
  for (const { offset, size } of parts) {
    const last = segments.at(-1)
    if (last !== undefined && last.offset + last.length === offset) {
      segments[segments.length - 1] = { fd, offset: last.offset, length: last.length + size }
    } else if (size > 0) {
      segments.push({ fd, offset, length: size })
    }
  }
  return segments
}

function gapsOf(parts: readonly Part[]): Region[] {
  const gaps: Region[] = []
  let end = 0
  for (const part of parts.toSorted((a, b) => a.offset - b.offset)) {
    if (part.offset > end) gaps.push({ offset: end, size: part.offset - end })
    end = part.offset + part.size
  }
  return gaps
}

function stagingFailure(error: unknown, gone: boolean): unknown {
  const code = error instanceof Error && 'code' in error ? error.code : undefined
  if (code === 'ENOENT' && gone) return new S3Error('NoSuchUpload', undefined, { cause: error })
  if (code === 'ENOSPC' || code === 'EDQUOT') {
    return new OperationError('STAGING_NO_SPACE', 'Cannot keep a part of an upload: the disk is full', { cause: error })
  }
  return error
}

/** All uploads under way. */
export class UploadStaging {
  readonly #directory: string
  readonly #uploads = new Map<string, Upload>()
  readonly #completed = new Map<string, unknown>()

  private constructor(directory: string) {
    this.#directory = directory
  }

  /** Opens the directory, made if need be, and finds the uploads that a former process left. */
  static async open(directory: string): Promise<UploadStaging> {
    makeDirectories(directory, 0o700)
    const staging = new UploadStaging(directory)
    for (const id of await readdir(directory)) {
      if (!isUploadId(id)) continue
      const upload = await staging.#load(id)
      if (upload !== undefined) staging.#uploads.set(id, upload)
    }
    return staging
  }

  /** @throws S3Error `SlowDown` where there are too many. */
  async create(plan: UploadPlan): Promise<Upload> {
    if (this.#uploads.size >= UPLOADS_MAX) throw new S3Error('SlowDown', 'Too many uploads are under way')
    const id = randomBytes(24).toString('base64url')
    const directory = join(this.#directory, id)
    const upload = new Upload(id, directory, plan, [], Date.now())
    try {
      await mkdir(directory, { mode: 0o700 })
      await writeDurably(join(directory, 'data'), '')
      // Its plan makes it an upload: a directory without one is swept away at the next start.
      await writeDurably(join(directory, 'upload.new'), JSON.stringify(plan))
      await rename(join(directory, 'upload.new'), join(directory, 'upload.json'))
      await syncDirectory(directory)
      await syncDirectory(this.#directory)
    } catch (error) {
      await upload.remove()
      throw stagingFailure(error, false)
    }
    this.#uploads.set(id, upload)
    return upload
  }

  /** The upload of that id under that key. @throws S3Error `NoSuchUpload`. */
  require(id: string, bucket: string, key: string): Upload {
    const upload = this.#uploads.get(id)
    if (upload === undefined || upload.plan.bucket !== bucket || upload.plan.key !== key)
      throw new S3Error('NoSuchUpload')
    return upload
  }

  /** The uploads of a bucket, by key and then by age. */
  ofBucket(bucket: string): Upload[] {
    const found = [...this.#uploads.values()].filter((upload) => upload.plan.bucket === bucket)
    return found.sort((a, b) => compareKeys(a, b))
  }

  /** Ends an upload; `result` is what those are told who ask to complete it once more. */
  async finish(upload: Upload, result?: unknown): Promise<void> {
    this.#uploads.delete(upload.id)
    if (result !== undefined) {
      this.#completed.set(completedName(upload.id, upload.plan.bucket, upload.plan.key), result)
      const [oldest] = this.#completed.keys()
      if (this.#completed.size > COMPLETED_MAX && oldest !== undefined) this.#completed.delete(oldest)
    }
    await upload.remove()
  }

  /** The result of an upload that was completed a while ago. */
  completed(id: string, bucket: string, key: string): unknown {
    return this.#completed.get(completedName(id, bucket, key))
  }

  /** Removes the uploads that nothing came to since `beforeMs`. */
  async removeIdle(beforeMs: number): Promise<void> {
    for (const upload of [...this.#uploads.values()]) {
      if (upload.activeMs >= beforeMs || upload.completion !== undefined) continue
      log.info({ bucket: upload.plan.bucket, key: upload.plan.key }, 'removing an upload that was never completed')
      await this.finish(upload)
    }
  }

  async #load(id: string): Promise<Upload | undefined> {
    const directory = join(this.#directory, id)
    try {
      const plan = JSON.parse(await readFile(join(directory, 'upload.json'), 'utf8')) as UploadPlan
      const status = await stat(join(directory, 'data'))
      const { parts, activeMs } = await readParts(join(directory, 'parts'), status.size)
      return new Upload(id, directory, plan, parts, Math.max(activeMs, plan.createdMs))
    } catch (error) {
      log.warn({ id, reason: String(error) }, 'removing what is left of an upload')
      await rm(directory, { recursive: true, force: true })
      return undefined
    }
  }
}

function completedName(id: string, bucket: string, key: string): string {
  return `${id}/${bucket}/${key}`
}

function compareKeys(a: Upload, b: Upload): number {
  const byKey = Buffer.compare(Buffer.from(a.plan.key), Buffer.from(b.plan.key))
  return byKey !== 0 ? byKey : a.plan.createdMs - b.plan.createdMs || (a.id < b.id ? -1 : 1)
}

function isUploadId(name: string): boolean {
  return /^[A-Za-z0-9_-]{32}$/.test(name)
}

async function readParts(path: string, dataBytes: number): Promise<{ parts: Part[]; activeMs: number }> {
  let text: string
  try {
    text = await readFile(path, 'utf8')
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return { parts: [], activeMs: 0 }
    throw error
  }
  const parts = new Map<number, Part>()
  let activeMs = 0
  for (const line of text.split('\n')) {
    const part = parsePart(line)
    if (part === undefined || part.offset + part.size > dataBytes) continue
    parts.set(part.number, part)
    activeMs = Math.max(activeMs, part.modifiedMs)
  }
  return { parts: [...parts.values()], activeMs }
}

/** Undefined for a torn line. */
function parsePart(line: string): Part | undefined {
  try {
    return line === '' ? undefined : (JSON.parse(line) as Part)
  } catch {
    return undefined
  }
}

async function writeDurably(path: string, text: string): Promise<void> {
  const file = await open(path, 'wx', 0o600)
  try {
    await file.writeFile(text)
    await file.datasync()
  } finally {
    await file.close()
  }
}

async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, 'r')
  try {
    await directory.sync()
  } finally {
    await directory.close()
  }
}
