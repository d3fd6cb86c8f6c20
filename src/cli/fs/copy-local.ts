/**
 * This machine as an end of `cp`. A file is written beside its place and renamed into it when it is whole. What is not a file, directory or
 * symlink, and names that are no UTF-8, are refused by name. Directories of the target that are symlinks are not entered below the
 * one that was named.
 */
import { randomBytes } from 'node:crypto'
import { closeSync, constants, openSync } from 'node:fs'
import { chmod, lchown, lstat, mkdir, open, opendir, readlink, rename, symlink, unlink } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'

import { OperationError } from '#base/errors.ts'
import { timestamp } from '#base/time.ts'
import { O_PATH } from '#os/at.ts'
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
const UTF8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

export class LocalEnd implements CopySource, CopyTarget {
  /** Directories that this has made or found, whose attributes may forbid what is still to be done in them. */
  readonly #made = new Set<string>()

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
    const kind = stats.isFile()
      ? 'file'
      : stats.isDirectory()
        ? 'directory'
        : stats.isSymbolicLink()
          ? 'symlink'
          : undefined
    if (kind === undefined) {
      throw new OperationError(
        'OPERATION_NOT_PERMITTED',
        `Cannot copy "${path}": it is no file, directory or symlink`,
        {
          hint: 'The cluster has nothing of that kind.',
        },
      )
    }
    return {
      kind,
      size: Number(stats.size),
      mode: Number(stats.mode) & MODE_BITS,
      uid: Number(stats.uid),
      gid: Number(stats.gid),
      mtime: Number(stats.mtimeNs / 1000n),
    }
  }

  async kindAt(path: string): Promise<CopyKind | undefined> {
    try {
      // What is named on the command line may be a symlink to a directory.
      const stats = await lstat(path)
      if (stats.isDirectory()) return 'directory'
      return stats.isSymbolicLink() ? 'symlink' : 'file'
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

  async *read(path: string, { size }: CopyNode, signal: AbortSignal): AsyncGenerator<Uint8Array> {
    await using file = await local(`read "${path}"`, () => open(path, constants.O_RDONLY | constants.O_NOFOLLOW))
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
    this.#made.add(path)
  }

  async writeFile(path: string, node: CopyNode, bytes: AsyncIterable<Uint8Array>, more: CopyExtras): Promise<number> {
    const partial = join(dirname(path), `.${basename(path).slice(0, 100)}.${randomBytes(6).toString('hex')}`)
    return local(`write "${path}"`, async () => {
      const file = await open(partial, 'wx', 0o600)
      try {
        let size = 0
        try {
          for await (const chunk of bytes) {
            for (let at = 0; at < chunk.length;)
              at += (await file.write(chunk, at, chunk.length - at, size + at)).bytesWritten
            size += chunk.length
          }
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
    const partial = join(dirname(path), `.${basename(path).slice(0, 100)}.${randomBytes(6).toString('hex')}`)
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
