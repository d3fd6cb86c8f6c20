/** What every operation of one opened store works with. */
import type { Timestamp } from '#base/time.ts'
import type { S3Client } from './client.ts'
import type { S3Options } from './endpoint.ts'
import type { Honoured } from './guards.ts'
import type { Keys } from './keys.ts'
import type { PartBuffers } from './part-buffers.ts'
import type { UploadNotes } from './upload-notes.ts'

/** Sizes at which operations change their way. */
export interface Limits {
  /** Of a part of a download. */
  readonly partBytes: number
  /** Of a part of an upload, which S3 wants to be 5 MiB at least. */
  readonly putPartBytes: number
  /** Larger bodies go up in parts. */
  readonly putBytesMax: number
  /** Larger objects are copied in parts, several at a time. */
  readonly copyBytesMax: number
  readonly copyPartBytes: number
  /** Of the keys that a rename has copied, so many are remembered; more are found again by listing. */
  readonly movedKeysMax: number
}

const MIB = 2 ** 20

export function limitsOf(options: S3Options): Limits {
  const partBytes = options.partBytes ?? 8 * MIB
  // S3 copies up to 5 GiB in one request, at some 100 MB a second; parts of an object go at a multiple of that.
  const putPartBytes = Math.max(5 * MIB, partBytes)
  return {
    ...{ partBytes, putPartBytes, putBytesMax: 2 * putPartBytes, copyBytesMax: 1024 * MIB, copyPartBytes: 256 * MIB },
    // Some 6 MB.
    movedKeysMax: 20_000,
  }
}

export interface S3Context {
  readonly client: S3Client
  readonly keys: Keys
  readonly options: S3Options
  readonly honoured: Honoured
  readonly limits: Limits
  readonly partBuffers: PartBuffers
  /** Whether attributes are kept. */
  readonly metadata: boolean
  /** Whether listings tell all that there is to know: no symlinks, no attributes. */
  readonly trustListing?: boolean
  /** Told of the intent of a rename that is left to be finished later, or where it was not begun under it, to be removed. */
  readonly onIntentLeft?: (key: string, isBegun: boolean) => void
  /** Where uploads in parts are noted while they are open. */
  readonly notes?: UploadNotes
  /** When the store was opened: the time of directories that exist only by what lies under them. */
  readonly opened: Timestamp
}
