/**
 * The set-user-id and set-group-id bits go when somebody without the privilege to keep them writes to, truncates or
 * chowns a file. The kernel leaves that to the server (HANDLE_KILLPRIV_V2) and says when; here it is done with
 * the ordinary methods of the file system, so that none of them must know.
 */
import type { AttributeRequest, AttributesAnswer, Caller, FileSystem, MaybePromise, NodeId } from './file-system.ts'

const S_IFMT = 0o170000
const S_IFREG = 0o100000
const S_ISUID = 0o4000
const S_ISGID = 0o2000
const S_IXGRP = 0o10

/** The mode without the bits that must go; a set-group-id bit without group execution means locking, and stays. */
export function modeWithoutPrivileges(mode: number): number {
  if ((mode & S_IFMT) !== S_IFREG) return mode
  const drop = S_ISUID | ((mode & S_IXGRP) === 0 ? 0 : S_ISGID)
  return mode & ~drop
}

/** Clears the bits where there are any, then goes on with `next`; costs one getattr. */
export function withoutPrivileges<T>(
  fileSystem: FileSystem,
  node: NodeId,
  caller: Caller,
  next: () => MaybePromise<T>,
): MaybePromise<T> {
  const cleared = (found: AttributesAnswer): MaybePromise<unknown> => {
    const { mode } = found.attributes
    const clean = modeWithoutPrivileges(mode)
    return clean === mode ? undefined : fileSystem.setattr(node, { mode: clean }, caller)
  }
  const found = fileSystem.getattr(node, undefined, caller)
  const clearing = found instanceof Promise ? found.then(cleared) : cleared(found)
  return clearing instanceof Promise ? clearing.then(next) : next()
}

/** SETATTR whose bits must go: the changes, with the mode that remains. */
export function setattrWithoutPrivileges(
  fileSystem: FileSystem,
  node: NodeId,
  changes: AttributeRequest,
  caller: Caller,
): MaybePromise<AttributesAnswer> {
  const change = (found: AttributesAnswer): MaybePromise<AttributesAnswer> => {
    const mode = changes.mode ?? found.attributes.mode
    const clean = modeWithoutPrivileges((mode & ~S_IFMT) | (found.attributes.mode & S_IFMT))
    return fileSystem.setattr(node, clean === found.attributes.mode ? changes : { ...changes, mode: clean }, caller)
  }
  const found = fileSystem.getattr(node, changes.handle, caller)
  return found instanceof Promise ? found.then(change) : change(found)
}
