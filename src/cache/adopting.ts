/** What it takes to adopt a local file: its checksums, and a copy of it where it lies on another file system. */
import { read, write } from 'node:fs'
import { setImmediate } from 'node:timers/promises'
import { promisify } from 'node:util'

import { copyRange, readCached } from '#os/file-range.ts'
import { SystemCallError } from '#os/libc.ts'

import { BLOCK_BYTES, blockCount, checksumOf } from './blocks.ts'
import type { DataFile, DataFiles } from './data-files.ts'

/** Between two turns of the event loop: 0.3 ms of checksums. */
const SLICE_BYTES = 1 << 20
const COPY_BYTES = 64 << 20
/** How file systems say that they copy nothing between these two files. */
const NO_COPY: ReadonlySet<string> = new Set(['EXDEV', 'EINVAL', 'ENOSYS', 'EOPNOTSUPP'])
/**
 * It lies on another file system, which may know no links; has too many; is somebody else's; or has lost its last name,
 * as one has that was taken from here to be written to.
 */
const NO_LINK: ReadonlySet<string> = new Set(['EXDEV', 'EOPNOTSUPP', 'EMLINK', 'EPERM', 'ENOENT'])
const readAsync = promisify(read)
const writeAsync = promisify(write)

/** The open file as a data file, or undefined where it cannot get a name here and has to be copied. */
export function linkInto(files: DataFiles, fd: number): DataFile | undefined {
  try {
    return files.link(fd)
  } catch (error) {
    if (error instanceof SystemCallError && NO_LINK.has(error.code)) return undefined
    throw error
  }
}

/** The checksums of the blocks of an open file, which nobody may write to meanwhile. */
export async function checksumsOfFile(fd: number, size: number): Promise<Uint32Array> {
  const sums = new Uint32Array(blockCount(size))
  const buffer = Buffer.allocUnsafe(Math.min(SLICE_BYTES, size))
  for (let offset = 0; offset < size; offset += SLICE_BYTES) {
    if (offset > 0) await setImmediate()
    const slice = await readFully(fd, buffer.subarray(0, Math.min(SLICE_BYTES, size - offset)), offset)
    for (let at = 0; at < slice.length; at += BLOCK_BYTES) {
      sums[(offset + at) / BLOCK_BYTES] = checksumOf(slice.subarray(at, at + BLOCK_BYTES))
    }
  }
  return sums
}

/** A new data file with the bytes of an open file. */
export async function copyInto(files: DataFiles, fd: number, size: number): Promise<DataFile> {
  const data = files.create(size)
  try {
    let done = 0
    let inKernel = true
    const buffer = Buffer.allocUnsafe(Math.min(SLICE_BYTES, size))
    while (done < size) {
      if (inKernel) {
        try {
          const count = await copyRange(fd, done, data.fd, done, Math.min(COPY_BYTES, size - done))
          if (count === 0) throw new Error(`the file ends at ${done} bytes`)
          done += count
          continue
        } catch (error) {
          if (!(error instanceof SystemCallError && NO_COPY.has(error.code))) throw error
          inKernel = false
        }
      }
      const slice = await readFully(fd, buffer.subarray(0, Math.min(SLICE_BYTES, size - done)), done)
      for (let at = 0; at < slice.length;) {
        at += (await writeAsync(data.fd, slice, at, slice.length - at, done + at)).bytesWritten
      }
      done += slice.length
    }
    return data
  } catch (error) {
    data.done()
    files.remove(data.id)
    throw error
  }
}

async function readFully(fd: number, buffer: Buffer, offset: number): Promise<Buffer> {
  // What was just written is in memory: a turn through the thread pool costs more than to read it.
  let done = readCached(fd, buffer, offset)
  while (done < buffer.length) {
    const { bytesRead } = await readAsync(fd, buffer, done, buffer.length - done, offset + done)
    if (bytesRead === 0) throw new Error(`the file ends at ${offset + done} bytes`)
    done += bytesRead
  }
  return buffer
}
