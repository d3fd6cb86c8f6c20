/**
 * The mount table of this process, from /proc/self/mountinfo: reading it touches no mounted file system, so it is safe
 * where the server of a mount is dead or hung. Not here: whether a mount answers (mount-point.ts).
 */
import { readFileSync, readlinkSync, realpathSync } from 'node:fs'
import { basename, dirname, join, resolve } from 'node:path'

/** As in the kernel's own walk of a path. */
const SYMLINKS_MAX = 40

/** One line of the mount table. */
export interface MountEntry {
  readonly id: number
  readonly parentId: number
  /** `major:minor` of the mounted file system, as in /sys/class/bdi. */
  readonly device: string
  readonly root: string
  readonly directory: string
  readonly options: string
  /** As in `fuse.eider`. */
  readonly type: string
  readonly source: string
  readonly superOptions: string
}

/** Every mount that this process sees, oldest first. */
export function mounts(): MountEntry[] {
  return parseMountInfo(readFileSync('/proc/self/mountinfo'))
}

/** The mounts on exactly that directory, the one on top last. The path is not followed into the last directory. */
export function mountsOf(directory: string): MountEntry[] {
  const path = mountPath(directory)
  return mounts().filter((entry) => entry.directory === path)
}

/**
 * The path of a mount point as the table has it: symbolic links resolved. The directory itself is only asked whether it is
 * a link, which the kernel answers without the file system that may be mounted on it, dead or hung.
 */
export function mountPath(directory: string): string {
  let path = resolve(directory)
  for (let links = 0; links < SYMLINKS_MAX && path !== '/'; links += 1) {
    try {
      path = join(realpathSync(dirname(path)), basename(path))
      path = resolve(dirname(path), readlinkSync(path))
    } catch {
      // EINVAL is the usual end: not a link. A path that does not exist is in no table whatever it is called.
      return path
    }
  }
  return path
}

/** The entries of a mountinfo file (proc_pid_mountinfo(5)); lines that are not well formed are left out. */
export function parseMountInfo(text: Uint8Array): MountEntry[] {
  const entries: MountEntry[] = []
  // Latin-1 keeps every byte, so that names are made UTF-8 once, after their escapes are decoded.
  for (const line of Buffer.from(text.buffer, text.byteOffset, text.byteLength).toString('latin1').split('\n')) {
    const fields = line.split(' ')
    const separator = fields.indexOf('-', 6)
    if (separator === -1) continue
    const [id, parentId, device, root, directory, options] = fields
    const [type, source, superOptions] = fields.slice(separator + 1)
    if (root === undefined || directory === undefined || type === undefined || source === undefined) continue
    entries.push({
      id: Number(id),
      parentId: Number(parentId),
      device: device ?? '',
      root: unescape(root),
      directory: unescape(directory),
      options: options ?? '',
      type: unescape(type),
      source: unescape(source),
      superOptions: superOptions ?? '',
    })
  }
  return entries
}

/** The kernel writes space, tab, newline and backslash as a backslash and three octal digits. */
function unescape(field: string): string {
  const bytes = field.replace(/\\([0-3][0-7]{2})/g, (_, octal: string) =>
    String.fromCharCode(Number.parseInt(octal, 8)),
  )
  return Buffer.from(bytes, 'latin1').toString('utf8')
}
