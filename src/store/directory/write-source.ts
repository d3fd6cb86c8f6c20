/**
 * The bytes of a put into a fresh file. Short bodies are written here and now, since a hop to the thread pool costs more
 * than writing 256 KiB to memory; others in large writes, one under way while the next is gathered. Segments of files
 * are copied inside the kernel and stay sparse where they are.
 */
import { ftruncate, write, writeSync, writev, writevSync } from 'node:fs'

import { copyRange, nextData, nextHole, writeBack } from '#os/file-range.ts'
import { statusOf } from '#os/status.ts'
import { checkAborted, untilAborted } from '#store/abort.ts'
import { readAt, segmentError } from '#store/file-segments.ts'
import { lengthError, streamError } from '#store/source.ts'
import type { FileSegment, Source } from '#store/store.ts'

import { errnoNameOf } from './failure.ts'

const HERE_BYTES_MAX = 256 << 10
const WRITE_BYTES = 512 << 10
/** Of memory to one write: a signal is looked at between them. */
const SLICE_BYTES = 8 << 20
/** Some 10 ms of a pool thread. */
const COPY_BYTES = 16 << 20
/** Written out to disk while the rest of a body is still coming, so that the fsync at its end is short. */
const WRITE_BACK_BYTES = 16 << 20
/** Smaller segments are not searched for holes. */
const SPARSE_BYTES_MIN = 1 << 20
/** IOV_MAX is 1,024. */
const VECTOR_MAX = 512
/** Errors that say: these two files cannot be copied inside the kernel. */
const NOT_IN_KERNEL = new Set(['EXDEV', 'EINVAL', 'ENOSYS', 'ENOTSUP', 'EPERM', 'ETXTBSY'])

/** A source whose bytes are all here. */
export type LocalSource =
  | Exclude<Source, { kind: 'file' }>
  | { readonly kind: 'file'; readonly segments: readonly FileSegment[]; readonly check?: () => void }

/** Writes all of the source to the empty file `fd`; gives its size. */
export async function writeSource(
  fd: number,
  path: string,
  source: LocalSource,
  signal: AbortSignal | undefined,
): Promise<number> {
  const progress = new Progress(fd)
  try {
    return await writeBody(fd, path, source, signal, progress)
  } finally {
    await progress.settled()
  }
}

async function writeBody(
  fd: number,
  path: string,
  source: LocalSource,
  signal: AbortSignal | undefined,
  progress: Progress,
): Promise<number> {
  if (source instanceof Uint8Array) {
    await writeBytes(fd, path, source, signal, progress)
    return source.length
  }
  if (source.kind === 'stream') return writeStream(fd, path, source, signal, progress)
  let position = 0
  for (const segment of source.segments) {
    await writeSegment(fd, position, path, segment, signal, progress)
    position += segment.length
  }
  // A hole at the end has no byte that would make the file so long.
  if (statusOf(fd).size < position) await truncated(fd, position)
  source.check?.()
  return position
}

/** How far a body is written: the disk is started on each further stretch of it, one at a time. */
class Progress {
  readonly #fd: number
  #started = 0
  #underWay: Promise<void> | undefined

  constructor(fd: number) {
    this.#fd = fd
  }

  reached(position: number): void {
    if (position - this.#started < WRITE_BACK_BYTES || this.#underWay !== undefined) return
    const offset = this.#started
    this.#started = position
    // Its failure is met again by the fsync.
    this.#underWay = writeBack(this.#fd, offset, position - offset)
      .catch(() => undefined)
      .finally(() => {
        this.#underWay = undefined
      })
  }

  /** The descriptor must not be closed under it. */
  async settled(): Promise<void> {
    await this.#underWay
  }
}

async function writeBytes(
  fd: number,
  path: string,
  bytes: Uint8Array,
  signal: AbortSignal | undefined,
  progress: Progress,
): Promise<void> {
  if (bytes.length <= HERE_BYTES_MAX) {
    for (let done = 0; done < bytes.length;) done += writeSync(fd, bytes, done, bytes.length - done, done)
    return
  }
  for (let start = 0; start < bytes.length; start += SLICE_BYTES) {
    checkAborted(`put "${path}"`, signal)
    await written(fd, bytes.subarray(start, start + SLICE_BYTES), start)
    progress.reached(Math.min(start + SLICE_BYTES, bytes.length))
  }
}

async function writeStream(
  fd: number,
  path: string,
  { stream, size, release }: Extract<Source, { kind: 'stream' }>,
  signal: AbortSignal | undefined,
  progress: Progress,
): Promise<number> {
  const iterator = stream[Symbol.asyncIterator]()
  const gathered = new Gathered(fd, progress, release)
  let total = 0
  let ended = false
  try {
    for (;;) {
      const next = await nextOf(iterator, path, signal)
      if (next === undefined) break
      total += next.length
      if (size !== undefined && total > size) throw lengthError(path, size, 'has more')
      if (next.length > 0) await gathered.add(next)
    }
    ended = true
    if (size !== undefined && total < size) throw lengthError(path, size, `ended after ${total}`)
    await gathered.finish()
    return total
  } finally {
    // Not awaited: a stream that hangs would keep the put from ending.
    if (!ended) iterator.return?.().catch(() => undefined)
    // The descriptor must not be closed under a write.
    await gathered.settled()
  }
}

async function nextOf(
  iterator: AsyncIterator<Uint8Array>,
  path: string,
  signal: AbortSignal | undefined,
): Promise<Uint8Array | undefined> {
  try {
    const next = await untilAborted(`put "${path}"`, iterator.next(), signal)
    return next.done === true ? undefined : next.value
  } catch (error) {
    throw streamError(path, error)
  }
}

/** Chunks on their way to a file: gathered to large writes, of which one is under way. */
class Gathered {
  readonly #fd: number
  readonly #progress: Progress
  readonly #release: ((chunk: Uint8Array) => void) | undefined
  #chunks: Uint8Array[] = []
  #bytes = 0
  #position = 0
  #writing: Promise<void> | undefined

  constructor(fd: number, progress: Progress, release: ((chunk: Uint8Array) => void) | undefined) {
    this.#fd = fd
    this.#progress = progress
    this.#release = release
  }

  async add(chunk: Uint8Array): Promise<void> {
    this.#chunks.push(chunk)
    this.#bytes += chunk.length
    if (this.#bytes >= WRITE_BYTES || this.#chunks.length >= VECTOR_MAX) await this.#flush()
  }

  async finish(): Promise<void> {
    if (this.#position === 0 && this.#bytes <= HERE_BYTES_MAX) {
      writeAllHere(this.#fd, this.#chunks)
      return
    }
    await this.#flush()
    await this.#writing
  }

  async settled(): Promise<void> {
    await this.#writing?.catch(() => undefined)
  }

  async #flush(): Promise<void> {
    await this.#writing
    this.#progress.reached(this.#position)
    this.#writing = this.#chunks.length === 0 ? undefined : this.#write(this.#chunks, this.#position)
    // Awaited by the next flush or by finish; until then its failure must not count as unhandled.
    this.#writing?.catch(() => undefined)
    this.#position += this.#bytes
    this.#chunks = []
    this.#bytes = 0
  }

  async #write(chunks: readonly Uint8Array[], position: number): Promise<void> {
    await writtenAll(this.#fd, chunks, position)
    if (this.#release !== undefined) for (const chunk of chunks) this.#release(chunk)
  }
}

function writeAllHere(fd: number, chunks: readonly Uint8Array[]): void {
  if (chunks.length === 0) return
  const size = chunks.reduce((sum, chunk) => sum + chunk.length, 0)
  const done = writevSync(fd, chunks, 0)
  if (done === size) return
  // Written in part, by a disk that is about to be full: the rest meets its error.
  const rest = Buffer.concat(chunks).subarray(done)
  for (let at = 0; at < rest.length;) at += writeSync(fd, rest, at, rest.length - at, done + at)
}

function writtenAll(fd: number, chunks: readonly Uint8Array[], position: number): Promise<void> {
  const size = chunks.reduce((sum, chunk) => sum + chunk.length, 0)
  return new Promise((resolve, reject) => {
    writev(fd, chunks, position, (error, count) => {
      if (error !== null) reject(error)
      else if (count === size) resolve()
      else written(fd, Buffer.concat(chunks).subarray(count), position + count).then(resolve, reject)
    })
  })
}

function written(fd: number, bytes: Uint8Array, position: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const step = (done: number): void => {
      write(fd, bytes, done, bytes.length - done, position + done, (error, count) => {
        if (error !== null) reject(error)
        else if (done + count === bytes.length) resolve()
        else step(done + count)
      })
    }
    step(0)
  })
}

async function writeSegment(
  fd: number,
  position: number,
  path: string,
  segment: FileSegment,
  signal: AbortSignal | undefined,
  progress: Progress,
): Promise<void> {
  const { size } = statusOf(segment.fd)
  if (size < segment.offset + segment.length) {
    throw segmentError(path, segment, Math.max(0, size - segment.offset))
  }
  const end = segment.offset + segment.length
  const toOffset = position - segment.offset
  for (let at = segment.offset; at < end;) {
    const [start, stop] = segment.length < SPARSE_BYTES_MIN ? [at, end] : nextExtent(segment.fd, at, end)
    if (start < stop) await copyExtent(fd, toOffset, path, segment, [start, stop], signal, progress)
    at = stop
  }
}

/** The next range with data from `at`, within `end`; empty at `end` where only a hole follows. */
function nextExtent(fd: number, at: number, end: number): readonly [number, number] {
  try {
    const start = nextData(fd, at)
    if (start === undefined || start >= end) return [end, end]
    return [start, Math.min(nextHole(fd, start), end)]
  } catch {
    // A file system that does not know its holes: all is data.
    return [at, end]
  }
}

async function copyExtent(
  fd: number,
  toOffset: number,
  path: string,
  segment: FileSegment,
  [start, stop]: readonly [number, number],
  signal: AbortSignal | undefined,
  progress: Progress,
): Promise<void> {
  let inKernel = true
  let at = start
  while (at < stop) {
    checkAborted(`put "${path}"`, signal)
    const bytes = Math.min(stop - at, COPY_BYTES)
    let count = 0
    if (inKernel) {
      try {
        count = await copyRange(segment.fd, at, fd, at + toOffset, bytes)
      } catch (error) {
        if (!NOT_IN_KERNEL.has(errnoNameOf(error) ?? '')) throw error
        inKernel = false
        continue
      }
    } else {
      const buffer = Buffer.allocUnsafeSlow(Math.min(bytes, 1 << 20))
      count = await readAt(segment.fd, buffer, at)
      await written(fd, buffer.subarray(0, count), at + toOffset)
    }
    // It was long enough at the start: somebody cut it meanwhile.
    if (count === 0) throw segmentError(path, segment, at - segment.offset)
    at += count
    progress.reached(at + toOffset)
  }
}

function truncated(fd: number, size: number): Promise<void> {
  return new Promise((resolve, reject) => {
    ftruncate(fd, size, (error) => (error === null ? resolve() : reject(error)))
  })
}
