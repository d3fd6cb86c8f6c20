/**
 * Aborting the uploads in parts that processes left open when they died, by the notes that they kept (`upload-notes.ts`): when
 * the store is opened, and once more when the notes that were there then would have run out. What fails here fails nobody's
 * call: it is told in the log, and tried again by the next opening.
 *
 * Only what is known to be ours is touched. An upload that is noted by its id is; its owner, should it be alive after all, sends
 * everything again. Of one that was announced and not yet noted by its id, because its owner died just then, the id is not known: it
 * is taken to be one of just that key, begun at about that time, which has no part after all that time, and which no living
 * process may have begun. Where an owner's notes are renewed, its uploads are left alone.
 */
import * as v from 'valibot'

import { isOperationError } from '#base/errors.ts'
import { logger } from '#base/log.ts'
import { timestampToMs } from '#base/time.ts'
import type { S3Client } from './client.ts'
import { download } from './download.ts'
import type { Keys } from './keys.ts'
import { listPages } from './listing.ts'
import { abortUpload } from './multipart.ts'
import { deleteObject } from './objects.ts'
import { hasParts, openUploads } from './open-uploads.ts'
import { hasOwnerEnded } from './owner.ts'
import { notesDocument, notesPrefix, type NotesDocument } from './upload-notes.ts'

/** After so long without being renewed, notes are nobody's. */
const LEASE_MS = 60_000
/** What a process that has died sent last has reached the endpoint after so long. */
const LATE_MS = 5000
/** Between what was announced last and the beginning of an upload, either way. */
const BEGUN_WITHIN_MS = 60_000
/** A process of ours has a few uploads open at a time; each takes a key's length and an id's. */
const DOCUMENT_BYTES_MAX = 8 * 2 ** 20

const log = logger('store/s3')

/** Notes that were found, of a process that may be alive or not. */
interface Found {
  readonly key: string
  readonly document: NotesDocument
  readonly modifiedMs: number
  /** Since then, by the endpoint's clock. */
  readonly ageMs: number
  readonly dead: boolean
}

export class UploadRecovery {
  readonly #client: S3Client
  readonly #keys: Keys
  /** The key of our own notes. */
  readonly #own: string
  readonly #ended = new AbortController()
  #timer: NodeJS.Timeout | undefined
  #looking: Promise<void> = Promise.resolve()

  constructor(client: S3Client, keys: Keys, own: string) {
    this.#client = client
    this.#keys = keys
    this.#own = own
  }

  /** Aborts what is nobody's any more. One request where there are no notes. */
  look(): Promise<void> {
    this.#looking = this.#tryLook(true)
    return this.#looking
  }

  /** Gives up what is under way, for another to do. */
  async close(): Promise<void> {
    this.#ended.abort()
    clearTimeout(this.#timer)
    await this.#looking
  }

  async #tryLook(first: boolean): Promise<void> {
    try {
      const { alive, late } = await this.#look()
      // Whoever dies later than that is found by whoever opens the store after it.
      const againMs = late ? LATE_MS : LEASE_MS
      if ((!late && !(alive && first)) || this.#ended.signal.aborted) return
      this.#timer = setTimeout(() => {
        this.#looking = this.#tryLook(first && !alive)
      }, againMs)
      this.#timer.unref()
    } catch (error) {
      if (!this.#ended.signal.aborted) log.warn({ err: error }, 'cannot look for uploads that were left open')
    }
  }

  /** Whether there are notes of somebody who may be alive, and of uploads that may only just be beginning. */
  async #look(): Promise<{ readonly alive: boolean; readonly late: boolean }> {
    const { signal } = this.#ended
    const found: Found[] = []
    const query = { prefix: notesPrefix(this.#keys), delimited: false, signal }
    for await (const { items } of listPages(this.#client, query)) {
      for (const item of items) {
        if (!('key' in item) || item.key === this.#own) continue
        const notes = await this.#read(item.key)
        if (notes !== undefined) found.push(notes)
      }
    }
    const alive = found.filter(({ dead }) => !dead)
    let late = false
    for (const notes of found) if (notes.dead && !(await this.#abortAll(notes, alive))) late = true
    return { alive: alive.length > 0, late }
  }

  async #read(key: string): Promise<Found | undefined> {
    const range = { version: undefined, offset: 0, length: DOCUMENT_BYTES_MAX, partBytes: DOCUMENT_BYTES_MAX }
    const begun = await download(this.#client, key, { ...range, signal: this.#ended.signal })
    if (begun === undefined) return undefined
    const { head } = begun
    let document: NotesDocument
    try {
      document = v.parse(notesDocument, JSON.parse((await begun.bytes()).toString()))
    } catch (error) {
      if (isOperationError(error)) throw error
      log.warn({ err: error, key }, 'cannot read the notes of uploads that were left open; they stay as they are')
      return undefined
    }
    const modifiedMs = timestampToMs(head.modified)
    const dateMs = Date.parse(head.header('date') ?? '')
    const nowMs = Number.isNaN(dateMs) ? Date.now() : dateMs
    const ageMs = nowMs - modifiedMs
    return { key, document, modifiedMs, ageMs, dead: ageMs >= LEASE_MS || hasOwnerEnded(document.owner) }
  }

  /** False where one of the uploads may be on its way yet, and has to be looked for again. */
  async #abortAll(notes: Found, alive: readonly Found[]): Promise<boolean> {
    const { uploads, who } = notes.document
    let late = false
    for (const { key, id } of uploads) {
      const ids = id === undefined ? await this.#begunBy(notes, key, alive) : [id]
      if (ids.length === 0 && notes.ageMs < LATE_MS) late = true
      for (const each of ids) await abortUpload(this.#client, key, { id: each })
    }
    if (late) return false
    await deleteObject(this.#client, notes.key, [], this.#ended.signal)
    if (uploads.length > 0) log.info({ who, uploads: uploads.length }, 'aborted the uploads that another has left open')
    return true
  }

  /** The uploads of a key that the owner of the notes has begun without noting their ids. */
  async #begunBy(notes: Found, key: string, alive: readonly Found[]): Promise<string[]> {
    const { signal } = this.#ended
    const others = alive.flatMap(({ document }) => document.uploads).filter((upload) => upload.key === key)
    // One of these may be the living process's own, which does not know its id yet either.
    if (others.some(({ id }) => id === undefined)) return []
    const ids: string[] = []
    for await (const upload of openUploads(this.#client, key, signal)) {
      if (upload.key !== key || others.some(({ id }) => id === upload.id)) continue
      if (Math.abs(upload.initiatedMs - notes.modifiedMs) > BEGUN_WITHIN_MS) continue
      if ((await hasParts(this.#client, upload, signal)) === false) ids.push(upload.id)
    }
    return ids
  }
}
