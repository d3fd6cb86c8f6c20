/**
 * Notes of the uploads in parts that this process has begun, kept in the bucket while they are open, so that whoever opens the
 * store after a crash can abort them (`upload-recovery.ts`): S3 shows of an open upload neither who began it nor what it is of.
 * One object for all uploads of one opened store, `PREFIX/.eider/uploads/ID.json`, which is a lease: written anew every 20
 * seconds while an upload is open, and removed when none is.
 *
 * An upload is announced by its key before it is begun, and noted by its id before its first part is sent. Writes of the object
 * follow one another, and one write is for all that has been noted by then.
 */
import { randomBytes } from 'node:crypto'
import * as v from 'valibot'

import { isOperationError } from '#base/errors.ts'
import { logger } from '#base/log.ts'
import { untilAborted } from '#store/abort.ts'
import type { S3Client } from './client.ts'
import type { Keys } from './keys.ts'
import { deleteObject, putObject } from './objects.ts'
import { thisOwner } from './owner.ts'

const RENEW_MS = 20_000
/** How long one write may take, retries included; one that fails is made again by the next. */
const WRITE_MS = 60_000
const REMOVE_MS = 10_000

const log = logger('store/s3')

export const notesDocument = v.object({
  format: v.literal(1),
  who: v.string(),
  owner: v.string(),
  uploads: v.array(v.object({ key: v.string(), id: v.optional(v.string()) })),
})
export type NotesDocument = v.InferOutput<typeof notesDocument>

/** What all keys of such objects start with. */
export function notesPrefix(keys: Keys): string {
  return `${keys.own}uploads/`
}

/** The note of one upload. */
export interface UploadNote {
  /** Resolves when the upload is noted by its id. */
  identify(id: string, signal: AbortSignal | undefined): Promise<void>
  /** The upload is no more. */
  end(): void
}

interface Noted {
  readonly key: string
  id: string | undefined
}

export class UploadNotes {
  readonly key: string
  readonly #client: S3Client
  readonly #uploads = new Set<Noted>()
  /** The write that is under way, and the one after it. */
  #writing: Promise<void> = Promise.resolve()
  #next: Promise<void> | undefined
  #timer: NodeJS.Timeout | undefined
  #written = false
  /** Whether the endpoint lets us write there. */
  #allowed = true

  constructor(client: S3Client, keys: Keys) {
    this.#client = client
    this.key = `${notesPrefix(keys)}${randomBytes(12).toString('hex')}.json`
  }

  /** Notes that an upload to a key is about to begin. One request, shared by those that come at once. */
  async announce(key: string, signal: AbortSignal | undefined): Promise<UploadNote> {
    const noted: Noted = { key, id: undefined }
    this.#uploads.add(noted)
    this.#timer ??= setInterval(() => this.#renew(), RENEW_MS)
    this.#timer.unref()
    try {
      await this.#write(signal)
    } catch (error) {
      this.#uploads.delete(noted)
      throw error
    }
    return {
      identify: async (id, until) => {
        noted.id = id
        await this.#write(until)
      },
      end: () => void this.#uploads.delete(noted),
    }
  }

  /** Removes the object; where an upload is left open it stays, for the next opening of the store. */
  async close(): Promise<void> {
    clearInterval(this.#timer)
    await (this.#next ?? this.#writing).catch(() => undefined)
    if (this.#uploads.size === 0) await this.#remove()
  }

  /** Resolves when what is noted now has been written. */
  #write(signal: AbortSignal | undefined): Promise<void> {
    if (this.#next === undefined) {
      const before = this.#writing
      this.#next = (async (): Promise<void> => {
        await before.catch(() => undefined)
        this.#writing = this.#next ?? before
        this.#next = undefined
        await this.#put()
      })()
      // Whoever waits for it is told; one that nobody waits for any more is made again by the next.
      this.#next.catch(() => undefined)
    }
    return untilAborted('note an upload', this.#next, signal)
  }

  async #put(): Promise<void> {
    if (!this.#allowed) return
    const document: NotesDocument = { format: 1, ...thisOwner(), uploads: [...this.#uploads] }
    const body = Buffer.from(JSON.stringify(document))
    try {
      const headers = [['content-type', 'application/json']] as const
      await putObject(this.#client, this.key, body, headers, AbortSignal.timeout(WRITE_MS))
      this.#written = true
    } catch (error) {
      if (!isOperationError(error, 'STORE_DENIED')) throw error
      this.#allowed = false
      log.warn(
        { err: error, key: this.key },
        'cannot note uploads here; those of a process that is killed stay until a lifecycle rule removes them',
      )
    }
  }

  #renew(): void {
    if (this.#uploads.size > 0) {
      this.#write(undefined).catch((error: unknown) => log.debug({ err: error }, 'cannot renew the notes of uploads'))
      return
    }
    clearInterval(this.#timer)
    this.#timer = undefined
    this.#writing = this.#writing.catch(() => undefined).then(() => this.#removeUnused())
  }

  async #removeUnused(): Promise<void> {
    if (this.#uploads.size === 0) await this.#remove()
  }

  async #remove(): Promise<void> {
    if (!this.#written) return
    this.#written = false
    try {
      await deleteObject(this.#client, this.key, [], AbortSignal.timeout(REMOVE_MS))
    } catch (error) {
      log.debug({ err: error, key: this.key }, 'cannot remove the notes of uploads; the next opening of the store does')
    }
  }
}
