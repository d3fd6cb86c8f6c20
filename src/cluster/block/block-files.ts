/**
 * The file system that a disk lies on, as narrow as a disk needs it, so that a simulated one can take its place: one that
 * loses what was not synced, tears writes, rots, fills and slows (`memory-block-files.ts`). The real one is
 * `linux-block-files.ts`.
 *
 * Paths are relative to the directory of the disk: a name, or a directory's name, `/` and a name; the disk's own directory is
 * the empty path. A failure is an Error whose `code` is the name of an errno, as those of Node are; `faultOf` says whose
 * fault that is. Every call settles within a bound of its own, also on a disk that hangs (ETIMEDOUT).
 *
 * What a crash keeps: of a file, what was there at its last `sync`; of a directory, the names that it had at its last
 * `syncDirectory`. All else may be kept, in part, or not; a page of 4 KiB is kept or lost as a whole.
 */
import { OperationError } from '#base/errors.ts'

/** A new file, open to be written from its start to its end. */
export interface NewFile {
  /** Writes the parts one after another to the end of the file. They must stay as they are until that is done. */
  append(parts: readonly Uint8Array[]): Promise<void>
  /** Makes what was appended durable, but not the file's name. */
  sync(): Promise<void>
  /** After `sync`: reads as a file does that was opened uncached. */
  readBack(offset: number, into: Uint8Array): Promise<number>
  close(): Promise<void>
}

/** An existing file, open to be read. */
export interface StoredFile {
  /** How long it was when it was opened. */
  readonly bytes: number
  /** Fills `into` from `offset` on; gives how many bytes there were, fewer only at the end of the file. */
  read(offset: number, into: Uint8Array): Promise<number>
  close(): Promise<void>
}

export interface Room {
  /** Of the file system, whoever uses it. */
  readonly totalBytes: number
  /** Of these, what this program may still take. */
  readonly freeBytes: number
}

export interface StoredName {
  readonly name: string
  readonly bytes: number
}

export interface BlockFiles {
  /** One that is there stays as it is. */
  makeDirectory(path: string): Promise<void>
  /** A new file that only this user may read. EEXIST where the name is taken. */
  create(path: string): Promise<NewFile>
  /**
   * Undefined where there is no such file. Uncached: each read comes from the device as far as can be had; it begins at a
   * multiple of 4 KiB, and goes to all of what `allocate` gave.
   */
  open(path: string, how: 'cached' | 'uncached'): Promise<StoredFile | undefined>
  /** Memory that uncached reads can go to; `bytes` is a multiple of 4 KiB. */
  allocate(bytes: number): Uint8Array
  /** In one step; false, with nothing changed, where `to` is taken. */
  rename(from: string, to: string): Promise<boolean>
  /** Makes the names in a directory durable. */
  syncDirectory(path: string): Promise<void>
  /** How long the file was that was removed; undefined where there was none. */
  remove(path: string): Promise<number | undefined>
  /** What lies in a directory, in no order. */
  list(path: string): Promise<readonly StoredName[]>
  room(): Promise<Room>
  /** Lets go of the disk; nothing is under way. */
  close(): Promise<void>
}

/**
 * Whose fault a failed call is. `full`: no room. `io`: the device or only a part of it, which remains to be found out. `device`:
 * there is nothing left to ask. `machine`: something else here, such as descriptors that ran out.
 */
export type Fault = 'full' | 'io' | 'device' | 'machine'

const FAULTS: ReadonlyMap<string, Fault> = new Map([
  ...['ENOSPC', 'EDQUOT'].map((code) => [code, 'full'] as const),
  // EUCLEAN is how ext4 and XFS say that their own structures are damaged, ENODATA and EILSEQ how some devices say "bad sector".
  ...['EIO', 'EUCLEAN', 'EBADMSG', 'ENODATA', 'EILSEQ', 'EREMOTEIO'].map((code) => [code, 'io'] as const),
  // EROFS: file systems go read-only after errors of their device.
  ...['EROFS', 'ENXIO', 'ENODEV', 'ESHUTDOWN', 'ENOTCONN', 'ESTALE', 'ETIMEDOUT'].map(
    (code) => [code, 'device'] as const,
  ),
])

/** The name of the errno that a call of the system failed with; undefined of any other error. */
export function errnoOfCall(error: unknown): string | undefined {
  // Operating errors have codes and errnos, too, but what they mean is known already.
  if (!(error instanceof Error) || error instanceof OperationError) return undefined
  if (!('code' in error) || !('errno' in error)) return undefined
  return typeof error.code === 'string' ? error.code : undefined
}

/** Undefined where the error is not of a call to the disk. */
export function faultOf(error: unknown): Fault | undefined {
  const code = errnoOfCall(error)
  return code === undefined ? undefined : (FAULTS.get(code) ?? 'machine')
}
