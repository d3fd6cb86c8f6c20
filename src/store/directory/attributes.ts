/**
 * Attributes of a directory store, set and read on one inode by a descriptor of it.
 *
 * Modes and times are the inode's own. Owners are too where this process may give files away; elsewhere they are
 * kept in one extended attribute of Eider's and given back from it. Extended attributes are the file system's own, in
 * the namespace `user.` only: others (`trusted.`, `security.`, `system.`) mean something to the kernel of the machine
 * that holds the directory and need privileges there, so they are refused and never shown. Linux has `user.` attributes
 * on files and directories only; giving some to anything else is refused.
 */
import { OperationError } from '#base/errors.ts'
import { changeMode, changeOwner, changeTimes, inodePath } from '#os/inode.ts'
import { statusOf, type Status } from '#os/status.ts'
import { xattrGet, xattrNames, xattrRemove, xattrSet } from '#os/xattr.ts'
import type { Attributes, Kind } from '#store/store.ts'

import { hasXattrs, kindOf, NOTHING_KEPT, type KeptAttributes } from './entry.ts'
import { errnoNameOf } from './failure.ts'

/** "UID:GID" of a file whose owner the process could not set. */
const OWNER_XATTR = 'user.eider.owner'
/** The number after it means "none" to chown(2). */
const ID_MAX = 0xffff_fffe

/** Reads what is kept beside the inode; `names` are those of its extended attributes, `path` the way to read them. */
export function keptAttributes(path: string, names: readonly string[], link = false): KeptAttributes {
  const shown = names.filter((name) => name.startsWith('user.'))
  if (shown.length === 0) return NOTHING_KEPT
  const xattrs = new Map<string, Uint8Array>()
  let owner: { uid: number; gid: number } | undefined
  for (const name of shown) {
    const value = xattrGet(path, name, link)
    // Undefined: removed since the names were listed.
    if (value === undefined) continue
    if (name === OWNER_XATTR) owner = decodeOwner(value)
    else xattrs.set(name, value)
  }
  return { ...owner, ...(xattrs.size === 0 ? {} : { xattrs }) }
}

/** As `keptAttributes`, of the inode behind a descriptor of any kind. */
export function keptAttributesOf(fd: number, status: Status): KeptAttributes {
  if (!hasXattrs(kindOf(status))) return NOTHING_KEPT
  const path = inodePath(fd)
  return keptAttributes(path, xattrNames(path))
}

/**
 * Sets the attributes that are given; `fresh` for an inode that has none yet. What is most likely to be refused is done
 * first, and extended attributes are put back where setting them fails half-way.
 */
export function applyAttributes(fd: number, attributes: Attributes, action: string, fresh: boolean): void {
  const { mode, uid, gid, atime, mtime, xattrs } = attributes
  const kind = kindOf(statusOf(fd))
  if (xattrs !== undefined && (!fresh || xattrs.size > 0)) setXattrs(fd, xattrs, kind, action, fresh)
  if (uid !== undefined || gid !== undefined) setOwner(fd, uid, gid, hasXattrs(kind), fresh)
  // After the owner, since changing that clears setuid and setgid. A symlink has no mode.
  if (mode !== undefined && kind !== 'symlink') changeMode(fd, mode & 0o7777)
  if (atime !== undefined || mtime !== undefined) changeTimes(fd, atime, mtime)
}

/** @throws OperationError `STORE_UNSUPPORTED` for an extended attribute of a name that is not kept. */
export function checkXattrNames(xattrs: ReadonlyMap<string, Uint8Array>, kind: Kind | undefined, action: string): void {
  const none = !hasXattrs(kind)
  for (const name of xattrs.keys()) {
    if (none || !name.startsWith('user.') || name === OWNER_XATTR) {
      throw new OperationError(
        'STORE_UNSUPPORTED',
        `Cannot ${action}: ${none ? `a ${kind}` : 'a directory store'} cannot hold the extended attribute "${name}"`,
      )
    }
  }
}

function setXattrs(
  fd: number,
  xattrs: ReadonlyMap<string, Uint8Array>,
  kind: Kind | undefined,
  action: string,
  fresh: boolean,
): void {
  checkXattrNames(xattrs, kind, action)
  if (!hasXattrs(kind)) return
  const path = inodePath(fd)
  const before = new Map<string, Uint8Array>(fresh ? [] : keptAttributes(path, xattrNames(path)).xattrs)
  try {
    replaceXattrs(path, before, xattrs)
  } catch (error) {
    if (!fresh) replaceXattrs(path, xattrs, before)
    throw xattrFailure(error, action)
  }
}

function replaceXattrs(
  path: string,
  before: ReadonlyMap<string, Uint8Array>,
  after: ReadonlyMap<string, Uint8Array>,
): void {
  // Removals first: a file system holds a bounded sum of them (4 KiB on ext4).
  for (const name of before.keys()) if (!after.has(name)) xattrRemove(path, name)
  for (const [name, value] of after) {
    const old = before.get(name)
    if (old === undefined || Buffer.compare(old, value) !== 0) xattrSet(path, name, value)
  }
}

function xattrFailure(error: unknown, action: string): unknown {
  const name = errnoNameOf(error)
  if (name === 'ENOSPC' || name === 'E2BIG' || name === 'ERANGE') {
    return new OperationError(
      'STORE_ATTRIBUTES_TOO_LARGE',
      `Cannot ${action}: the file system has no room for its extended attributes`,
      { cause: error },
    )
  }
  return error
}

function setOwner(fd: number, uid: number | undefined, gid: number | undefined, keeps: boolean, fresh: boolean): void {
  const path = inodePath(fd)
  try {
    changeOwner(fd, uid, gid)
    if (!fresh && keeps) keepOtherHalf(fd, path, uid, gid)
  } catch (error) {
    // What has no extended attributes has nowhere to keep it.
    if (errnoNameOf(error) !== 'EPERM' || !keeps) throw error
    const status = statusOf(fd)
    const kept = fresh ? NOTHING_KEPT : keptAttributes(path, xattrNames(path))
    xattrSet(path, OWNER_XATTR, Buffer.from(`${uid ?? kept.uid ?? status.uid}:${gid ?? kept.gid ?? status.gid}`))
  }
}

/** After a change of the inode's own owner: what was kept beside it no longer holds for the half that changed. */
function keepOtherHalf(fd: number, path: string, uid: number | undefined, gid: number | undefined): void {
  const value = xattrGet(path, OWNER_XATTR)
  if (value === undefined) return
  const kept = decodeOwner(value)
  const status = statusOf(fd)
  const owner = { uid: uid ?? kept?.uid ?? status.uid, gid: gid ?? kept?.gid ?? status.gid }
  if (owner.uid === status.uid && owner.gid === status.gid) xattrRemove(path, OWNER_XATTR)
  else xattrSet(path, OWNER_XATTR, Buffer.from(`${owner.uid}:${owner.gid}`))
}

function decodeOwner(value: Buffer): { uid: number; gid: number } | undefined {
  const match = /^(\d{1,10}):(\d{1,10})$/.exec(value.toString('latin1'))
  if (match === null) return undefined
  const [uid, gid] = [Number(match[1]), Number(match[2])]
  // Somebody else has written it: the kernel would refuse the file, and so would chown.
  return uid > ID_MAX || gid > ID_MAX ? undefined : { uid, gid }
}
