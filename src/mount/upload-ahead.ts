/**
 * Sending a new file while it is still being written, so that its close has little left to send. Begins once more was
 * written from the start than a put sends in one request, sends each part when all of its bytes are written, and forgets
 * nothing of what is written to a part after that: it is sent again at the end.
 *
 *     watched --more than 16 MiB from the start--> sending --commit: ok or conflict, abort--> ended
 *                                                  '--cannot begin----------------------> ended
 *
 * Writers never wait for it, and a send that fails is no error: `commit` sends what is not there yet. Where the file
 * changes its name before, what was sent is given up, since the store was told of a path.
 *
 * Invariant: a part that was written to since its send began is in `#changed`, or not sent.
 */
import { assert } from '#base/assert.ts'
import { logger } from '#base/log.ts'
import type { Attributes, Entry, PutOptions, Upload } from '#store/store.ts'

import { RangeSet } from './ranges.ts'
import type { StagedFile } from './staged-file.ts'

/** What is smaller goes in one request, at its close. */
const WRITTEN_BYTES_MIN = 16 * 1024 * 1024
/** Sends under way at once, of all files together: as many as the s3 store has of one upload. */
const SENDS_MAX = 8
/** Files that are sent ahead at once; each costs two requests that a put of the whole does not. */
const UPLOADS_MAX = 16
/** After so many failures one after another the store is left alone until the close. */
const FAILURES_MAX = 3

const log = logger('mount')

/** Begins an upload to the path that the file has now; with what attributes. */
export type BeginUpload = () => {
  readonly path: string
  readonly attributes: Attributes
  readonly begun: Promise<Upload>
}

/** What all files of a mount that are sent ahead share. */
export class UploadsAhead {
  /** In the order in which they came to have something to send. */
  readonly #waiting = new Set<UploadAhead>()
  #uploads = 0
  #sends = 0

  /** Whether one more may begin; it has then to be `ended`. */
  tryBegin(): boolean {
    if (this.#uploads >= UPLOADS_MAX) return false
    this.#uploads++
    return true
  }

  ended(upload: UploadAhead): void {
    this.#uploads--
    this.#waiting.delete(upload)
  }

  /** Has `upload` send its next parts as soon as its turn comes. */
  ready(upload: UploadAhead): void {
    this.#waiting.add(upload)
    for (const next of this.#waiting) {
      if (this.#sends >= SENDS_MAX) return
      this.#waiting.delete(next)
      const sent = next.sendNext()
      if (sent === undefined) continue
      this.#sends++
      // Behind the others, who want a turn as well.
      this.#waiting.add(next)
      void sent.then(() => {
        this.#sends--
        if (next.hasNext) this.ready(next)
        else this.#wake()
      })
    }
  }

  #wake(): void {
    const [next] = this.#waiting
    if (next !== undefined) this.ready(next)
  }
}

export class UploadAhead {
  readonly #shared: UploadsAhead
  readonly #staged: StagedFile
  readonly #begin: BeginUpload
  readonly #written = new RangeSet()
  /** From the start up to here all is written. */
  #frontier: number
  #state: 'watched' | 'beginning' | 'sending' | 'ended' = 'watched'
  #upload: Upload | undefined
  #path = ''
  #attributes: Attributes = {}
  /** Parts whose send has begun are those before this one. */
  #next = 0
  /** Where the last of them ends. */
  #sentEnd = 0
  readonly #changed = new Set<number>()
  readonly #sending = new Set<Promise<void>>()
  readonly #stop = new AbortController()
  #failures = 0
  #isCommitting = false

  /** `writtenEnd`: from the start up to there all was written before. */
  constructor(shared: UploadsAhead, staged: StagedFile, writtenEnd: number, begin: BeginUpload) {
    this.#frontier = writtenEnd
    this.#shared = shared
    this.#staged = staged
    this.#begin = begin
  }

  /** The attributes that the upload was begun with. */
  get attributes(): Attributes {
    return this.#attributes
  }

  get isSending(): boolean {
    return this.#state === 'sending'
  }

  /** Notes that bytes were written, and sends what is complete by them. */
  wrote(start: number, end: number): void {
    if (this.#state === 'ended') return
    if (start < this.#sentEnd) this.#changedIn(start, end)
    if (start <= this.#frontier && this.#written.isEmpty) this.#frontier = Math.max(this.#frontier, end)
    else this.#wroteApart(start, end)
    if (this.#state === 'sending') {
      if (this.hasNext) this.#shared.ready(this)
    } else if (this.#state === 'watched' && this.#frontier > WRITTEN_BYTES_MIN && this.#shared.tryBegin()) {
      this.#beginNow()
    }
  }

  /** Out of order: as the kernel sends what a program writes side by side. */
  #wroteApart(start: number, end: number): void {
    this.#written.add(start, end)
    const first = this.#written.first(0)
    if (first === undefined || first.start > this.#frontier) return
    this.#frontier = Math.max(this.#frontier, first.end)
    this.#written.delete(0, this.#frontier)
  }

  /** Notes that bytes changed by other means than a write. */
  changed(start: number, end: number): void {
    if (start < this.#sentEnd) this.#changedIn(start, end)
  }

  /** Notes that the file has another size, `before` until now. */
  resized(size: number, before: number): void {
    this.changed(Math.min(size, before), Infinity)
    this.#frontier = Math.min(this.#frontier, size)
    this.#written.delete(size, Infinity)
  }

  #changedIn(start: number, end: number): void {
    const upload = this.#upload
    assert(upload !== undefined, 'what was sent belongs to an upload')
    // The parts from the first, so that those of a file written from its start are found at once from the last.
    for (let index = this.#next - 1; index >= 0; index--) {
      const part = upload.part(index)
      if (part.offset + part.length <= start) return
      if (part.offset < end) this.#changed.add(index)
    }
  }

  #beginNow(): void {
    this.#state = 'beginning'
    const { path, attributes, begun } = this.#begin()
    this.#path = path
    this.#attributes = attributes
    this.#staged.hold()
    void begun.then(
      (upload) => {
        this.#upload = upload
        if (this.#state !== 'beginning') return this.#giveUp(upload)
        this.#state = 'sending'
        if (this.hasNext && !this.#isCommitting) this.#shared.ready(this)
        return undefined
      },
      (error: unknown) => {
        log.debug({ err: error, path }, `Cannot send "${path}" while it is written; it goes at its close`)
        if (this.#state === 'beginning') this.#end()
        this.#staged.close()
      },
    )
  }

  /** Whether a part waits for its send. */
  get hasNext(): boolean {
    if (this.#state !== 'sending' || this.#isCommitting || this.#failures >= FAILURES_MAX) return false
    const part = this.#upload?.part(this.#next)
    return part !== undefined && part.offset + part.length <= this.#frontier
  }

  /** Sends the next part; undefined where none is complete. Never rejects. */
  sendNext(): Promise<void> | undefined {
    const upload = this.#upload
    if (upload === undefined || !this.hasNext) return undefined
    const index = this.#next++
    const part = upload.part(index)
    this.#sentEnd = part.offset + part.length
    const sent = upload
      .send(index, this.#staged.fd, { signal: this.#stop.signal })
      .then(
        () => {
          this.#failures = 0
        },
        (error: unknown) => {
          this.#changed.add(index)
          this.#failures++
          log.debug({ err: error, path: this.#path, part: index }, 'a part could not be sent ahead')
        },
      )
      .finally(() => this.#sending.delete(sent))
    this.#sending.add(sent)
    return sent
  }

  /** Whether what was sent can become the file at `path`. Waits for what is under way, and sends no more. */
  async canCommit(path: string): Promise<boolean> {
    if (this.#path !== path) this.abort()
    this.#isCommitting = true
    await Promise.all(this.#sending)
    return this.isSending && this.#next > 0
  }

  /**
   * Puts the file in place, with all that was not sent yet or was changed since. After a failure it can be tried again,
   * unless the code is `STORE_CONFLICT`.
   */
  async commit(size: number, options: PutOptions): Promise<Entry> {
    const upload = this.#upload
    assert(upload !== undefined && this.isSending, 'an upload is committed that was begun')
    // From now on each part may have been sent, also where this fails.
    for (let part = upload.part(this.#next); part.offset < size; part = upload.part(this.#next)) {
      this.#next++
      this.#sentEnd = part.offset + part.length
    }
    return upload.commit({ fd: this.#staged.fd, offset: 0, length: size }, this.#changed, options)
  }

  /** After a commit that succeeded or was lost. */
  end(): void {
    if (this.#state === 'sending') this.#staged.close()
    this.#end()
  }

  #end(): void {
    if (this.#state !== 'watched' && this.#state !== 'ended') this.#shared.ended(this)
    this.#state = 'ended'
  }

  /** Gives up all that was sent. */
  abort(): void {
    const upload = this.#upload
    const wasSending = this.#state === 'sending'
    this.#end()
    this.#stop.abort()
    if (wasSending && upload !== undefined) void this.#giveUp(upload)
  }

  async #giveUp(upload: Upload): Promise<void> {
    await Promise.all(this.#sending)
    await upload.abort()
    this.#staged.close()
  }
}
