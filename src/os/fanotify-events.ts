/**
 * Fanotify as a listener to whole file systems (FAN_CLASS_NOTIF): every change of a name or of content, with the handles of the
 * directories that the names lie in. Takes CAP_SYS_ADMIN and Linux 5.17. The events and their codec; not what they mean
 * for a tree.
 */
import { bind, checked, once } from './bind.ts'
import { handleEnd, handleKeyAt, type HandleKey } from './file-handle.ts'

export const FAN_MODIFY = 0x2
export const FAN_ATTRIB = 0x4
export const FAN_CLOSE_WRITE = 0x8
export const FAN_CREATE = 0x100
export const FAN_DELETE = 0x200
export const FAN_DELETE_SELF = 0x400
export const FAN_MOVE_SELF = 0x800
export const FAN_Q_OVERFLOW = 0x4000
export const FAN_RENAME = 0x1000_0000
export const FAN_ONDIR = 0x4000_0000

const FAN_CLOEXEC = 0x1
const FAN_NONBLOCK = 0x2
/** Directory and name of an entry, and the handle of what it names. */
const FAN_REPORT_DFID_NAME_TARGET = 0x1e00
const FAN_MARK_ADD = 0x1
const FAN_MARK_FILESYSTEM = 0x100
const O_RDONLY_LARGEFILE = 0o100000

const INFO_FID = 1
const INFO_DFID_NAME = 2
const INFO_OLD_DFID_NAME = 10
const INFO_NEW_DFID_NAME = 12
const HEAD_BYTES = 24
const RECORD_HEAD_BYTES = 4

const calls = once(() => ({
  init: bind<[number, number]>('int fanotify_init(unsigned int flags, unsigned int event_flags)'),
  mark: bind<[number, number, number, number, string]>(
    'int fanotify_mark(int fd, unsigned int flags, uint64_t mask, int dir, const char *path)',
  ),
}))

/** A queue that does not block, of 16,384 events by default. @throws SystemCallError (EPERM, EINVAL before Linux 5.17, EMFILE) */
export function openFanotify(): number {
  const flags = FAN_CLOEXEC | FAN_NONBLOCK | FAN_REPORT_DFID_NAME_TARGET
  return checked('fanotify_init', calls().init(flags, O_RDONLY_LARGEFILE))
}

/** Listens to the file system that an open directory lies in. @throws SystemCallError (EOPNOTSUPP, ENODEV, EXDEV: no handles) */
export function markFileSystem(fd: number, directory: number, mask: number): void {
  markAs(fd, FAN_MARK_ADD | FAN_MARK_FILESYSTEM, directory, mask)
}

/** Listens to what becomes of one open directory itself. */
export function markDirectory(fd: number, directory: number, mask: number): void {
  markAs(fd, FAN_MARK_ADD, directory, mask)
}

function markAs(fd: number, flags: number, directory: number, mask: number): void {
  checked('fanotify_mark', calls().mark(fd, flags, mask, directory, '.'))
}

/** One event, in place: valid until the next is decoded. Events of one name are merged while unread: the mask is a set. */
export interface FanotifyEvent {
  mask: number
  /** Of what the event is about; undefined where it does not tell. */
  target: HandleKey | undefined
  /** The directory that has the name, or had it before a rename; undefined where it does not tell. */
  directory: HandleKey | undefined
  /** Where the name lies in the bytes that were read; "." for the directory itself. */
  nameStart: number
  nameEnd: number
  /** Of a rename: where to. */
  newDirectory: HandleKey | undefined
  newNameStart: number
  newNameEnd: number
}

export function emptyFanotifyEvent(): FanotifyEvent {
  return {
    mask: 0,
    target: undefined,
    directory: undefined,
    nameStart: 0,
    nameEnd: 0,
    newDirectory: undefined,
    newNameStart: 0,
    newNameEnd: 0,
  }
}

/** Decodes the event at `at` into `event`; where the next begins. */
export function decodeFanotify(bytes: Buffer, at: number, event: FanotifyEvent): number {
  const end = at + bytes.readUInt32LE(at)
  event.mask = bytes.readUInt32LE(at + 8)
  event.target = event.directory = event.newDirectory = undefined
  let length = 0
  for (let record = at + HEAD_BYTES; record < end; record += length) {
    const type = bytes[record]
    length = bytes.readUInt16LE(record + 2)
    const body = record + RECORD_HEAD_BYTES
    if (type === INFO_FID) event.target = handleKeyAt(bytes, body)
    if (type === INFO_DFID_NAME || type === INFO_OLD_DFID_NAME) {
      event.directory = handleKeyAt(bytes, body)
      event.nameStart = handleEnd(bytes, body)
      event.nameEnd = bytes.indexOf(0, event.nameStart)
    } else if (type === INFO_NEW_DFID_NAME) {
      event.newDirectory = handleKeyAt(bytes, body)
      event.newNameStart = handleEnd(bytes, body)
      event.newNameEnd = bytes.indexOf(0, event.newNameStart)
    }
  }
  return end
}
