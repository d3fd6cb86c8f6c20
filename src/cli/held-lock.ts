/** A lock file that one process holds for as long as it lives, and that names it: what two must not do at a time. */
import { closeSync, ftruncateSync, openSync, readFileSync, writeSync } from 'node:fs'
import { dirname } from 'node:path'
import { OperationError } from '#base/errors.ts'
import { makeDirectories, whyNotMade } from '#os/make-directories.ts'
import { tryLock } from '#os/flock.ts'

/**
 * Takes the lock until the process ends, or until what it returns is called.
 * @throws OperationError `LOCAL_FAILED`: "Cannot ACTION: BUSY (process 12)" with that hint, or what kept the file from being made.
 */
export function holdLock(file: string, action: string, busy: string, hint: string): () => void {
  let fd: number
  try {
    makeDirectories(dirname(file))
    // Node opens with O_CLOEXEC: a child does not inherit the lock and hold it on.
    fd = openSync(file, 'a', 0o600)
  } catch (error) {
    throw new OperationError('LOCAL_FAILED', `Cannot ${action}: ${whyNotMade(dirname(file), error)}`, { cause: error })
  }
  if (tryLock(fd)) {
    ftruncateSync(fd)
    writeSync(fd, String(process.pid))
    return () => closeSync(fd)
  }
  closeSync(fd)
  throw new OperationError('LOCAL_FAILED', `Cannot ${action}: ${busy} (process ${readFileSync(file, 'utf8')})`, {
    hint,
  })
}
