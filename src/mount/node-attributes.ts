/**
 * What the kernel is told of a node: stored attributes, with a default for each that the store was never told. An object
 * that another tool wrote belongs to the one who mounted, is 0644 (a directory 0755), and has the times of its last change.
 */
import { compareTimestamps, timestampNow, type Timestamp } from '#base/time.ts'
import type { NodeAttributes } from '#fuse/file-system.ts'
import type { Attributes, Kind } from '#store/store.ts'

import type { Node } from './node.ts'

export const S_IFMT = 0o170000
export const S_IFREG = 0o100000
export const S_IFDIR = 0o040000
const S_IFLNK = 0o120000
export const S_IFIFO = 0o010000
export const S_IFSOCK = 0o140000
const S_ISUID = 0o4000
const S_ISGID = 0o2000
const S_IXGRP = 0o0010

/**
 * What programs take for the best size of a read: cp and stdio size their buffers by it. 128 KiB is the kernel's own
 * read-ahead unit: smaller makes more requests, larger makes every open file of a program cost that much memory.
 */
const BLOCK_BYTES = 128 * 1024

/** Whose is what the store tells no owner of. */
export interface Owner {
  readonly uid: number
  readonly gid: number
  /** Taken from the mode of what the store tells no mode of; 022 where absent. */
  readonly umask?: number
}

const TYPE_BITS: Record<Kind, number> = {
  file: S_IFREG,
  directory: S_IFDIR,
  symlink: S_IFLNK,
  fifo: S_IFIFO,
  socket: S_IFSOCK,
}
const MODES: Record<Kind, number> = { file: 0o644, directory: 0o755, symlink: 0o777, fifo: 0o644, socket: 0o644 }

export function typeBits(kind: Kind): number {
  return TYPE_BITS[kind]
}

/** Permission bits of a node. */
export function permissionsOf(node: Node): number {
  return (node.attributes?.mode ?? MODES[node.kind]) & 0o7777
}

function later(a: Timestamp, b: Timestamp | undefined): Timestamp {
  return b !== undefined && compareTimestamps(a, b) < 0 ? b : a
}

/** `struct stat` of a node. `isListed`: of a directory, that its children are all there is. */
export function statOf(node: Node, owner: Owner, isListed = false): NodeAttributes {
  const stored = node.attributes ?? {}
  const mtime = stored.mtime ?? node.modified
  const isDirectory = node.kind === 'directory'
  return {
    node: node.id,
    size: node.size,
    mode: TYPE_BITS[node.kind] | shownPermissions(node, owner),
    nlink: linksOf(node, isListed),
    uid: stored.uid ?? owner.uid,
    gid: stored.gid ?? owner.gid,
    rdev: 0,
    blksize: BLOCK_BYTES,
    blocks: Math.ceil(node.size / 512),
    atime: stored.atime ?? mtime,
    mtime: isDirectory ? later(mtime, node.entriesChanged) : mtime,
    ctime: isDirectory ? later(stored.ctime ?? mtime, node.entriesChanged) : (stored.ctime ?? mtime),
  }
}

/** 1 for a directory says "not counted", as some local disks do: its subdirectories are not known without listing it. */
function linksOf({ detached, directory }: Node, isListed: boolean): number {
  if (detached === 'removed') return 0
  return directory !== undefined && isListed ? 2 + directory.subdirectories : 1
}

function shownPermissions(node: Node, { umask }: Owner): number {
  if (umask === undefined || node.attributes?.mode !== undefined || node.kind === 'symlink') return permissionsOf(node)
  return (node.kind === 'directory' ? 0o777 : 0o666) & ~umask
}

/** What a new entry starts with: the caller's, under `mode`; a setgid directory gives its group on. */
export function newAttributes(parent: Node, kind: Kind, mode: number, caller: Owner, owner: Owner): Attributes {
  const now = timestampNow()
  let permissions = mode & 0o7777
  let { gid } = caller
  if ((permissionsOf(parent) & S_ISGID) !== 0) {
    gid = parent.attributes?.gid ?? owner.gid
    if (kind === 'directory') permissions |= S_ISGID
  }
  return { mode: permissions, uid: caller.uid, gid, atime: now, mtime: now, ctime: now }
}

/** The mode after a write or chown: setuid goes, and setgid where it is not the mark of mandatory locking. */
export function withoutPrivileges(mode: number): number {
  const kept = mode & ~S_ISUID
  return (kept & S_IXGRP) === 0 ? kept : kept & ~S_ISGID
}
