/** Fanotify: so far only which classes of listeners this process may open, as `eider doctor` tells it. */
import { closeSync } from 'node:fs'
import { bind, errno, once } from './bind.ts'
import { errnoName } from './libc.ts'

const FAN_CLOEXEC = 0x1
const FAN_NONBLOCK = 0x2
/** Told of events only, with the names of entries in directories (Linux 5.17); the weakest right it needs is CAP_SYS_ADMIN. */
const FAN_CLASS_NOTIF = 0x0
const FAN_REPORT_DFID_NAME = 0xc00
/** Asked before content is read (Linux 6.14 for the events that fill files). */
const FAN_CLASS_PRE_CONTENT = 0x8
const O_RDWR = 0o2
const O_LARGEFILE = 0o100000
const O_CLOEXEC = 0o2000000

const fanotifyInit = once(() =>
  bind<[number, number]>('int fanotify_init(unsigned int flags, unsigned int event_flags)'),
)

/** Whether such a listener may be opened: 'yes', or the name of the errno. It is closed at once, and listens to nothing. */
export function probeFanotify(kind: 'notify' | 'pre-content'): string {
  const flags = kind === 'notify' ? FAN_CLASS_NOTIF | FAN_REPORT_DFID_NAME : FAN_CLASS_PRE_CONTENT
  const fd = fanotifyInit()(flags | FAN_CLOEXEC | FAN_NONBLOCK, O_RDWR | O_LARGEFILE | O_CLOEXEC)
  if (fd === -1) return errnoName(errno())
  closeSync(fd)
  return 'yes'
}
