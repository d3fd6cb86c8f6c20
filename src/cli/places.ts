/** Where a command keeps what outlives it: state and logs, and what is true of this boot only. */
import { chmodSync, lstatSync } from 'node:fs'
import { homedir, tmpdir } from 'node:os'
import { join } from 'node:path'
import { OperationError } from '#base/errors.ts'
import { makeDirectories } from '#os/make-directories.ts'

/** Where records of syncs lie in a runtime directory. */
export const SYNCS_NAME = 'syncs'

const isRoot = (): boolean => process.getuid?.() === 0

/** For what outlives a restart of the machine, such as key pairs that were made here. */
export function stateDirectory(): string {
  return ensure(statePath())
}

/** Where `stateDirectory` is, or would be made. */
export function statePath(): string {
  const base = process.env['XDG_STATE_HOME']
  if (base !== undefined && base !== '') return join(base, 'eider')
  return isRoot() ? '/var/lib/eider' : join(homedir(), '.local', 'state', 'eider')
}

/** For the logs of what runs in the background. */
export function logDirectory(): string {
  if (isRoot() && (process.env['XDG_STATE_HOME'] ?? '') === '') return ensure('/var/log/eider')
  return stateDirectory()
}

/** For what is gone after a restart of the machine, such as the records of mounts. */
export function runtimeDirectory(): string {
  const base = process.env['XDG_RUNTIME_DIR']
  if (base !== undefined && base !== '' && !isRoot()) return ensure(join(base, 'eider'))
  return ensure(isRoot() ? '/run/eider' : join(tmpdir(), `eider-${process.getuid?.() ?? 0}`))
}

/** For the records of syncs that run. */
export function syncsDirectory(): string {
  return ensure(join(runtimeDirectory(), SYNCS_NAME))
}

/** Makes the directory, for its owner alone. @throws OperationError `LOCAL_FAILED`, also where it is another user's. */
function ensure(directory: string): string {
  try {
    makeDirectories(directory, 0o700)
    const found = lstatSync(directory)
    // In a place that all may write to, somebody else may have made it first, to read what is put there.
    if (!found.isDirectory() || found.uid !== process.getuid?.()) throw new Error('it belongs to another user')
    if ((found.mode & 0o022) !== 0) chmodSync(directory, 0o700)
    return directory
  } catch (error) {
    const detail = error instanceof Error ? error.message : String(error)
    throw new OperationError('LOCAL_FAILED', `Cannot keep state in '${directory}': ${detail}`, { cause: error })
  }
}
