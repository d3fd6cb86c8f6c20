/** What the kernel says of an inode as an entry of a tree; its attributes are those that a target keeps of it. */
import { S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, type Status } from '#os/status.ts'

import type { TreeEntry } from './tree.ts'

/** Undefined for a fifo, socket or device. */
export function localEntry(path: string, status: Status): TreeEntry | undefined {
  const kind = kindOf(status)
  if (kind === undefined) return undefined
  const { mode, uid, gid, mtime, ctime, device, inode, links } = status
  return {
    path,
    kind,
    size: kind === 'directory' ? 0 : status.size,
    mtime,
    identity: links > 1 && kind === 'file' ? { device, inode, ctime, links } : { device, inode, ctime },
    attributes: { mode: mode & 0o7777, uid, gid, mtime },
  }
}

function kindOf(status: Status): 'file' | 'directory' | 'symlink' | undefined {
  const type = status.mode & S_IFMT
  if (type === S_IFREG) return 'file'
  if (type === S_IFDIR) return 'directory'
  return type === S_IFLNK ? 'symlink' : undefined
}
