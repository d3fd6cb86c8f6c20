/**
 * Ranges of open files: copying inside the kernel, finding holes, reading only what is in memory, and starting
 * write-back. Nothing here changes bytes of the caller but the buffer it is given.
 */
import { ERRNO } from '#base/errno.ts'

import { addressOf, bind, checked, errno, once, onThread } from './bind.ts'
import { SystemCallError } from './libc.ts'

const SEEK_DATA = 3
const SEEK_HOLE = 4
const RWF_NOWAIT = 8
const SYNC_FILE_RANGE_WRITE = 2

const calls = once(() => ({
  copy: bind<[number, Uint8Array, number, Uint8Array, number, number]>(
    'int64_t copy_file_range(int from, void *from_offset, int to, void *to_offset, size_t size, unsigned int flags)',
  ),
  seek: bind<[number, number, number]>('int64_t lseek64(int fd, int64_t offset, int whence)'),
  preadv2: bind<[number, Uint8Array, number, number, number]>(
    'int64_t preadv2(int fd, const void *vector, int count, int64_t offset, int flags)',
  ),
  syncRange: bind<[number, number, number, number]>(
    'int sync_file_range(int fd, int64_t offset, int64_t size, unsigned int flags)',
  ),
}))

/** Copies done on the calling thread at most: some 50 µs for bytes in memory. */
export const HERE_BYTES_MAX = 256 << 10

/**
 * Copies up to `size` bytes within the kernel, as shared extents where the file system can; gives how many, 0 at the end
 * of the source. Larger ones run on the thread pool. Throws EXDEV, EINVAL, ENOSYS or EOPNOTSUPP where the two files
 * need another way.
 */
export async function copyRange(
  from: number,
  fromOffset: number,
  to: number,
  toOffset: number,
  size: number,
): Promise<number> {
  if (size <= HERE_BYTES_MAX) return copyRangeHere(from, fromOffset, to, toOffset, size)
  const offsets = [offsetOf(fromOffset), offsetOf(toOffset)] as const
  const count = await onThread((done) => calls().copy.async(from, offsets[0], to, offsets[1], size, 0, done))
  // The errno of a failure is lost on the other thread: a page tried here meets the same failure, or goes on.
  return count === -1 ? copyRangeHere(from, fromOffset, to, toOffset, 4096) : count
}

/** As `copyRange`, on the calling thread whatever the size: for a caller whose files nobody may change meanwhile. */
export function copyRangeHere(from: number, fromOffset: number, to: number, toOffset: number, size: number): number {
  return checked('copy_file_range', calls().copy(from, offsetOf(fromOffset), to, offsetOf(toOffset), size, 0))
}

function offsetOf(value: number): Buffer {
  const offset = Buffer.alloc(8)
  offset.writeBigInt64LE(BigInt(value))
  return offset
}

/** Where the next data at or after `offset` begin; undefined where only a hole follows. */
export function nextData(fd: number, offset: number): number | undefined {
  const found = calls().seek(fd, offset, SEEK_DATA)
  if (found >= 0) return found
  const number = errno()
  if (number === ERRNO.ENXIO) return undefined
  throw new SystemCallError('lseek', number)
}

/** Where the next hole at or after `offset` begins; the end of the file is one. */
export function nextHole(fd: number, offset: number): number {
  return checked('lseek', calls().seek(fd, offset, SEEK_HOLE))
}

const vector = Buffer.alloc(16)

/** Reads at `offset` what is in memory already, without waiting for a disk; 0 where nothing is, or it cannot be known. */
export function readCached(fd: number, buffer: Buffer, offset: number): number {
  if (buffer.length === 0) return 0
  vector.writeBigUInt64LE(addressOf(buffer), 0)
  vector.writeUInt32LE(buffer.length, 8)
  const count = calls().preadv2(fd, vector, 1, offset, RWF_NOWAIT)
  return Math.max(count, 0)
}

/** Starts to write dirty pages out, so that the next fsync has less to wait for; failures are left to that fsync. */
export function startWriteBack(fd: number): void {
  calls().syncRange(fd, 0, 0, SYNC_FILE_RANGE_WRITE)
}

/** As `startWriteBack`, of one range and on the thread pool: the call waits where the disk's queue is full. */
export async function writeBack(fd: number, offset: number, size: number): Promise<void> {
  await onThread((done) => calls().syncRange.async(fd, offset, size, SYNC_FILE_RANGE_WRITE, done))
}
