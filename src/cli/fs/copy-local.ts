/**
 * This machine as an end of `cp`. A file is written beside its place and renamed into it when it is whole. What is not a file, directory or
 * symlink, and names that are no UTF-8, are refused by name. Directories of the target that are symlinks are not entered below the
 * one that was named. Holes are neither read nor written.
 */
import { randomBytes } from 'node:crypto'
import { type BigIntStats, closeSync, constants, fstatSync, openSync } from 'node:fs'
import {
  chmod,
  type FileHandle,
  lchown,
  lstat,
  mkdir,
  open,
  opendir,
  readlink,
  realpath,
  rename,
  stat,
  symlink,
  unlink,
} from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'

import { OperationError } from '#base/errors.ts'
import { timestamp } from '#base/time.ts'
import { HOLE_BYTES_MIN, isHole, type Piece } from '#cluster/client/pieces.ts'
import { O_PATH } from '#os/at.ts'
import { nextData, nextHole } from '#os/file-range.ts'
import { changeTimes } from '#os/inode.ts'
import { SystemCallError } from '#os/libc.ts'
import { checkAborted } from '#store/abort.ts'
import { xattrGet, xattrNames, xattrSet } from '#os/xattr.ts'

import type { CopyExtras, CopyKind, CopyNode, CopySource, CopyTarget } from './copy-end.ts'

const CHUNK_BYTES = 1 << 20
/** Files of /proc and the like have more bytes than they say. */
const CHUNK_BYTES_MIN = 4096
/** What a mode has beside the type of its file. */
const MODE_BITS = 0o7777
/** What the blocks of a file are counted in. */
const SECTOR_BYTES = 512n
const UTF8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

export class LocalEnd implements CopySource, CopyTarget {
  readonly #onChanged: (path: string) => void

  /** `onChanged`: somebody has written to a file while it was read, so that what was read may be a bit of both. */
  constructor(onChanged: (path: string) => void = () => undefined) {
    this.#onChanged = onChanged
  }

  /** Where a path leads when symlinks are followed. @throws LOCAL_FAILED */
  static followed(path: string): Promise<string> {
    return local(`read "${path}"`, () => realpath(`${path}/`))
  }

  shown(path: string): string {
    return path
  }

  below(path: string, name: string): string {
    // Names come from others' clusters, too.
    if (name === '' || name === '.' || name === '..' || name.includes('/') || name.includes('\0')) {
      throw new OperationError(
        'STORE_NAME_INVALID',
        `Cannot write ${JSON.stringify(name)} into "${path}": it is no name`,
      )
    }
    return join(path, name)
  }

  async node(path: string): Promise<CopyNode> {
    const stats = await local(`read "${path}"`, () => lstat(path, { bigint: true }))
    const node = nodeOf(stats)
    if (node !== undefined) return node
    throw new OperationError('OPERATION_NOT_PERMITTED', `Cannot copy "${path}": it is no file, directory or symlink`, {
      hint: 'The cluster has nothing of that kind.',
    })
  }

  async kindAt(path: string): Promise<CopyKind | undefined> {
    try {
      // What is named on the command line may be a symlink to a directory.
      return (await stat(path)).isDirectory() ? 'directory' : 'file'
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
      throw localError(`write "${path}"`, error)
    }
  }

  async *names(path: string): AsyncGenerator<string | OperationError> {
    const directory = await local(`read "${path}"`, () => opendir(path, { encoding: 'buffer' as BufferEncoding }))
    for await (const entry of directory) {
      // Declared as text, and bytes since they are asked for so.
      const bytes = entry.name as unknown as Buffer
      yield nameOf(path, bytes)
    }
  }

  async *read(path: string, node: CopyNode, signal: AbortSignal): AsyncGenerator<Piece> {
    await using file = await local(`read "${path}"`, () => open(path, constants.O_RDONLY | constants.O_NOFOLLOW))
    if (node.hasHoles === true) yield* readHoley(path, file, signal)
    else yield* readBytes(path, file, node.size, signal)
    const now = nodeOf(fstatSync(file.fd, { bigint: true }))
    if (now?.size !== node.size || now.mtime !== node.mtime) this.#onChanged(path)
  }

  linkTarget(path: string): Promise<string> {
    return local(`read "${path}"`, () => readlink(path))
  }

  async xattrs(path: string): Promise<ReadonlyMap<string, Buffer>> {
    const found = new Map<string, Buffer>()
    for (const name of xattrNames(path, true)) {
      if (!name.startsWith('user.')) continue
      const value = xattrGet(path, name, true)
      if (value !== undefined) found.set(name, value)
    }
    return found
  }

  async makeDirectory(path: string, _node: CopyNode): Promise<void> {
    try {
      // Its own mode comes last: it may forbid to write into it.
      await mkdir(path, { mode: 0o700 })
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw localError(`make directory "${path}"`, error)
      const stats = await lstat(path)
      if (!stats.isDirectory()) {
        throw new OperationError('DIRECTORY_EXPECTED', `Cannot make directory "${path}": something else has its name`)
      }
    }
  }

  async writeFile(path: string, node: CopyNode, pieces: AsyncIterable<Piece>, more: CopyExtras): Promise<number> {
    const partial = besides(path)
    return local(`write "${path}"`, async () => {
      const file = await open(partial, 'wx', 0o600)
      try {
        let size = 0
        try {
          size = await writePieces(file, pieces)
        } finally {
          await file.close()
        }
        await this.#finish(partial, node, more)
        await rename(partial, path)
        return size
      } catch (error) {
        await unlink(partial).catch(() => undefined)
        throw error
      }
    })
  }

  async makeSymlink(path: string, node: CopyNode, target: string, { keepsOwner }: CopyExtras): Promise<void> {
    const partial = besides(path)
    await local(`make symlink "${path}"`, async () => {
      await symlink(target, partial)
      try {
        if (keepsOwner && process.getuid?.() === 0) await lchown(partial, node.uid, node.gid)
        setTime(partial, node.mtime)
        await rename(partial, path)
      } catch (error) {
        await unlink(partial).catch(() => undefined)
        throw error
      }
    })
  }

  async finishDirectory(path: string, node: CopyNode, more: CopyExtras): Promise<void> {
    await local(`write "${path}"`, () => this.#finish(path, node, more))
  }

  /** Whoever is not root cannot give away what is theirs. */
  async #finish(path: string, { mode, uid, gid, mtime }: CopyNode, { keepsOwner, xattrs }: CopyExtras): Promise<void> {
    for (const [name, value] of xattrs) xattrSet(path, name, value)
    if (keepsOwner && process.getuid?.() === 0) await lchown(path, uid, gid)
    await chmod(path, mode)
    setTime(path, mtime)
  }
}

/** A name in the same directory that nobody has, and that is not too long however many bytes its characters take. */
function besides(path: string): string {
  return join(dirname(path), `.${basename(path).slice(0, 40)}.${randomBytes(6).toString('hex')}`)
}

/** Undefined for what can be no part of a copy. */
function nodeOf(stats: BigIntStats): CopyNode | undefined {
  const kind = stats.isFile()
    ? 'file'
    : stats.isDirectory()
      ? 'directory'
      : stats.isSymbolicLink()
        ? 'symlink'
        : undefined
  if (kind === undefined) return undefined
  return {
    kind,
    size: Number(stats.size),
    mode: Number(stats.mode) & MODE_BITS,
    uid: Number(stats.uid),
    gid: Number(stats.gid),
    mtime: microseconds(stats.mtimeNs),
    hasHoles: stats.size >= HOLE_BYTES_MIN && stats.blocks * SECTOR_BYTES < stats.size,
  }
}

/** Rounded down, which division does not do before 1970; the last that the cluster can keep is in 2255. */
function microseconds(nanoseconds: bigint): number {
  const towardsZero = nanoseconds / 1000n
  const rounded = nanoseconds % 1000n < 0n ? towardsZero - 1n : towardsZero
  return Math.min(Number.MAX_SAFE_INTEGER, Number(rounded))
}

async function* readBytes(
  path: string,
  file: FileHandle,
  size: number,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  const buffer = Buffer.allocUnsafe(Math.min(CHUNK_BYTES, Math.max(CHUNK_BYTES_MIN, size + 1)))
  for (let at = 0; ;) {
    checkAborted(`read "${path}"`, signal)
    const { bytesRead } = await local(`read "${path}"`, () => file.read(buffer, 0, buffer.length, null))
    if (bytesRead === 0) return
    yield buffer.subarray(0, bytesRead)
    at += bytesRead
    // There was room for more, and there is none: another read to be told so would double the reads of small files.
    if (at === size && bytesRead < buffer.length) return
  }
}

/** Holes that are too small to be told of are read. */
async function* readHoley(path: string, file: FileHandle, signal: AbortSignal): AsyncGenerator<Piece> {
  const buffer = Buffer.allocUnsafe(CHUNK_BYTES)
  for (let at = 0; ;) {
    const from = at
    const data = await local(`read "${path}"`, async () => nextData(file.fd, from))
    // After the last of the data there is only a hole, if anything.
    const next = data ?? fstatSync(file.fd).size
    if (next - at >= HOLE_BYTES_MIN) {
      yield { zeros: next - at }
      at = next
    }
    const end = data === undefined ? next : await local(`read "${path}"`, async () => nextHole(file.fd, data))
    while (at < end) {
      checkAborted(`read "${path}"`, signal)
      const position = at
      const length = Math.min(buffer.length, end - position)
      const { bytesRead } = await local(`read "${path}"`, () => file.read(buffer, 0, length, position))
      // It was cut meanwhile.
      if (bytesRead === 0) return
      yield buffer.subarray(0, bytesRead)
      at += bytesRead
    }
    if (data === undefined) return
  }
}

/** Into a file with nothing in it; gives how many bytes it has then. */
async function writePieces(file: FileHandle, pieces: AsyncIterable<Piece>): Promise<number> {
  let size = 0
  let isHoleLast = false
  for await (const piece of pieces) {
    isHoleLast = isHole(piece)
    if (isHole(piece)) {
      size += piece.zeros
      continue
    }
    for (let at = 0; at < piece.length;) at += (await file.write(piece, at, piece.length - at, size + at)).bytesWritten
    size += piece.length
  }
  if (isHoleLast) await file.truncate(size)
  return size
}

/** To the microsecond, which Node's own call loses. */
function setTime(path: string, mtime: number): void {
  const seconds = Math.floor(mtime / 1e6)
  const time = timestamp(seconds, (mtime - seconds * 1e6) * 1000)
  const fd = openSync(path, O_PATH | constants.O_NOFOLLOW)
  try {
    changeTimes(fd, undefined, time)
  } finally {
    closeSync(fd)
  }
}

function nameOf(directory: string, bytes: Buffer): string | OperationError {
  try {
    return UTF8.decode(bytes)
  } catch (error) {
    const shown = JSON.stringify(bytes.toString('latin1'))
    return new OperationError('STORE_NAME_INVALID', `Cannot copy ${shown} of "${directory}": its name is no UTF-8`, {
      cause: error,
    })
  }
}

async function local<T>(action: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    throw localError(action, error)
  }
}

/** What this machine refused, in a sentence; all else as it is. */
function localError(action: string, error: unknown): unknown {
  const isOfSystem = error instanceof SystemCallError || (error as NodeJS.ErrnoException).syscall !== undefined
  if (!isOfSystem || !(error instanceof Error)) return error
  const code = (error as NodeJS.ErrnoException).code === 'ENOSPC' ? 'STAGING_NO_SPACE' : 'LOCAL_FAILED'
  const hint = code === 'STAGING_NO_SPACE' ? { hint: 'Free some room on the disk of this machine.' } : {}
  return new OperationError(code, `Cannot ${action}: ${error.message}`, { cause: error, ...hint })
}
