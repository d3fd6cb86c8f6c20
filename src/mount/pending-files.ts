/** How many files may wait for the store at once: each has a descriptor of the process that serves the mount. */
import { readFileSync } from 'node:fs'

const PENDING_FILES_MAX = 4096
/** A file that waits has a descriptor, and a second one while it is written again. */
const DESCRIPTORS_EACH = 2
/** For connections, the cache, and what is open and does not wait. */
const OTHER_DESCRIPTORS_MIN = 256

/** As many as leave half of the descriptors that this process may have for everything else, or enough of a higher limit. */
export function pendingFilesMax(): number {
  const limit = /^Max open files\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'latin1'))?.[1]
  if (limit === undefined) return PENDING_FILES_MAX
  const spare = Math.max(Number(limit) / 2, Number(limit) - OTHER_DESCRIPTORS_MIN)
  return Math.min(PENDING_FILES_MAX, Math.floor(spare / DESCRIPTORS_EACH))
}
