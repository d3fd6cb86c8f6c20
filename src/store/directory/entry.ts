/**
 * What a file of a directory store is to the port: its kind, its version and its attributes.
 *
 * The version of a file or symlink is made of its inode, its size, and its times of change (`ctime`) and modification.
 * A put always makes a new inode, and every change of an inode by anybody sets `ctime` to the kernel's clock, which
 * nobody can set otherwise. What that cannot see: (1) a change in place by another program within the same tick of that
 * clock in which the version was looked at (4 ms at 250 Hz; since Linux 6.13 a time that was looked at is never given
 * twice); (2) on kernels before that, a file replaced twice within one tick whose inode number is taken up again, with
 * the same size and the same modification time. The store gives every file that is put without a time one of its own
 * to the nanosecond, so that (2) needs three puts with one given time in a tick. The version of a directory is its
 * inode and time of birth: it names the directory, and entries that come and go do not change it.
 */
import type { Timestamp } from '#base/time.ts'
import { S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, S_IFSOCK, type Status } from '#os/status.ts'
import type { Attributes, Entry, Kind, Version } from '#store/store.ts'

/** Undefined for devices, which the store hides. */
export function kindOf(status: Status): Kind | undefined {
  switch (status.mode & S_IFMT) {
    case S_IFREG:
      return 'file'
    case S_IFDIR:
      return 'directory'
    case S_IFLNK:
      return 'symlink'
    case S_IFIFO:
      return 'fifo'
    case S_IFSOCK:
      return 'socket'
    default:
      return undefined
  }
}

export function versionOf(status: Status): Version {
  if ((status.mode & S_IFMT) === S_IFDIR) {
    return `d-${status.id}${status.birth === undefined ? '' : `-${time(status.birth)}`}` as Version
  }
  return `${status.id}-${time(status.ctime)}-${time(status.mtime)}-${status.size.toString(36)}` as Version
}

function time({ seconds, nanoseconds }: Timestamp): string {
  return `${seconds.toString(36)}.${nanoseconds.toString(36)}`
}

/** Whether the bytes behind both are the same as far as the kernel tells: replacing a file does not change its inode's. */
export function sameBytes(a: Status, b: Status): boolean {
  return a.size === b.size && a.mtime.nanoseconds === b.mtime.nanoseconds && a.mtime.seconds === b.mtime.seconds
}

/** Whether Linux lets an inode of that kind have attributes of the namespace `user.`. */
export function hasXattrs(kind: Kind | undefined): boolean {
  return kind === 'file' || kind === 'directory'
}

/** What the inode does not hold by itself. */
export interface KeptAttributes {
  readonly uid?: number
  readonly gid?: number
  readonly xattrs?: ReadonlyMap<string, Uint8Array>
}
export const NOTHING_KEPT: KeptAttributes = {}

export function entryOf(path: string, kind: Kind, status: Status, kept: KeptAttributes): Entry {
  const attributes: Attributes = {
    mode: status.mode & 0o7777,
    uid: kept.uid ?? status.uid,
    gid: kept.gid ?? status.gid,
    atime: status.atime,
    mtime: status.mtime,
    ctime: status.ctime,
    ...(kept.xattrs === undefined ? {} : { xattrs: kept.xattrs }),
  }
  const size = kind === 'directory' ? 0 : status.size
  return { path, kind, size, version: versionOf(status), modified: status.ctime, attributes }
}
