/**
 * inotify(7): being told of changes in single directories, each watched by itself. The events and their codec; not what they
 * mean for a tree.
 */
import { bind, checked, errno, once } from './bind.ts'

export const IN_MODIFY = 0x2
export const IN_ATTRIB = 0x4
export const IN_CLOSE_WRITE = 0x8
export const IN_MOVED_FROM = 0x40
export const IN_MOVED_TO = 0x80
export const IN_CREATE = 0x100
export const IN_DELETE = 0x200
export const IN_DELETE_SELF = 0x400
export const IN_MOVE_SELF = 0x800
export const IN_UNMOUNT = 0x2000
export const IN_Q_OVERFLOW = 0x4000
export const IN_IGNORED = 0x8000
export const IN_ISDIR = 0x4000_0000
const IN_ONLYDIR = 0x0100_0000
/** Nothing of what was removed but is still open. */
const IN_EXCL_UNLINK = 0x0400_0000
const IN_NONBLOCK = 0o4000
const IN_CLOEXEC = 0o2000000

const calls = once(() => ({
  init: bind<[number]>('int inotify_init1(int flags)'),
  add: bind<[number, string, number]>('int inotify_add_watch(int fd, const char *path, unsigned int mask)'),
  remove: bind<[number, number]>('int inotify_rm_watch(int fd, int watch)'),
}))

/** A queue that does not block. @throws SystemCallError (EMFILE where the user has `max_user_instances` of them) */
export function openInotify(): number {
  return checked('inotify_init1', calls().init(IN_NONBLOCK | IN_CLOEXEC))
}

/**
 * Watches the directory that the descriptor has open, whatever its name is by now: the number of the watch, which is the same
 * again for the same directory, or the errno as a negative number (ENOSPC where the user has `max_user_watches`).
 */
export function watchDirectory(fd: number, directory: number, mask: number): number {
  const watch = calls().add(fd, `/proc/self/fd/${directory}`, mask | IN_ONLYDIR | IN_EXCL_UNLINK)
  return watch === -1 ? -errno() : watch
}

/** Ends a watch, unless it has ended by itself. Numbers are not used again. */
export function unwatch(fd: number, watch: number): void {
  calls().remove(fd, watch)
}

/** One event, in place: valid until the next is decoded. */
export interface InotifyEvent {
  watch: number
  mask: number
  cookie: number
  /** Where its name lies in the bytes that were read; equal where it has none. */
  nameStart: number
  nameEnd: number
}

/** Decodes the event at `at` into `event`; where the next begins. `struct inotify_event`: a name is padded with NULs. */
export function decodeInotify(bytes: Buffer, at: number, event: InotifyEvent): number {
  event.watch = bytes.readInt32LE(at)
  event.mask = bytes.readUInt32LE(at + 4)
  event.cookie = bytes.readUInt32LE(at + 8)
  const length = bytes.readUInt32LE(at + 12)
  const start = at + 16
  let end = start + length
  while (end > start && bytes[end - 1] === 0) end--
  event.nameStart = start
  event.nameEnd = end
  return start + length
}
