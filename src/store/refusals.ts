/**
 * What stores refuse that hold their tree in memory, in the same words: guards that do not hold, moves that cannot be, and
 * entries of another kind than the call is for.
 */
import { OperationError } from '#base/errors.ts'

import { isWithin } from './path.ts'
import type { Attributes, Entry, Guard, Kind, SpecialKind } from './store.ts'

/** Throws `STORE_CONFLICT` unless the guard holds for what was found. */
export function checkGuard(action: string, path: string, found: Entry | undefined, guard: Guard): void {
  if (guard.kind === 'absent' && found !== undefined) throw conflict(action, path)
  if (guard.kind === 'version' && found?.version !== guard.version) throw conflict(action, path)
}

/** Throws `INPUT_INVALID` for a rename of the root, or of a directory into itself. */
export function checkRenamePaths(from: string, to: string, kind: Kind): void {
  if (from === '' || to === '') throw new OperationError('INPUT_INVALID', `Cannot rename "${from}": it is the root`)
  if (kind === 'directory' && from !== to && isWithin(to, from)) {
    throw new OperationError('INPUT_INVALID', `Cannot rename "${from}": "${to}" lies in it`)
  }
}

/** Throws `INPUT_INVALID` for an exchange of the root, or of two entries of which one lies in the other. */
export function checkExchangePaths(path: string, other: string): void {
  if (path === '' || other === '')
    throw new OperationError('INPUT_INVALID', `Cannot exchange "${path}": the root stays`)
  if (path !== other && (isWithin(path, other) || isWithin(other, path))) {
    throw new OperationError('INPUT_INVALID', `Cannot exchange "${path}" and "${other}": one lies in the other`)
  }
}

/** Throws unless what was found is a directory, and not the root. */
export function checkRemovableDirectory(path: string, found: Entry): void {
  const action = 'remove the directory'
  if (found.kind !== 'directory') {
    throw new OperationError('STORE_NOT_DIRECTORY', `Cannot ${action} "${path}": it is not a directory`)
  }
  if (path === '') throw new OperationError('INPUT_INVALID', `Cannot ${action} "": it is the root`)
}

/** Throws where what was found has no bytes of its own that could be read or copied. */
export function checkReadable(action: string, path: string, kind: Kind): void {
  if (kind === 'directory') throw isDirectory(action, path)
  if (kind === 'fifo' || kind === 'socket') throw noBytes(action, path, kind)
}

export function notFound(action: string, path: string): OperationError {
  return new OperationError('STORE_NOT_FOUND', `Cannot ${action} "${path}": nothing is there`)
}

export function notDirectory(action: string, path: string, parent: string): OperationError {
  return new OperationError('STORE_NOT_DIRECTORY', `Cannot ${action} "${path}": "${parent}" is not a directory`)
}

export function conflict(action: string, path: string): OperationError {
  return new OperationError('STORE_CONFLICT', `Cannot ${action} "${path}": the stored version is another`)
}

export function isDirectory(action: string, path: string): OperationError {
  return new OperationError('STORE_IS_DIRECTORY', `Cannot ${action} "${path}": it is a directory`)
}

export function notEmpty(action: string, path: string): OperationError {
  return new OperationError('STORE_NOT_EMPTY', `Cannot ${action} "${path}": it has entries`)
}

/** The error of a stored segment that its version does not have. */
export function pastEnd(path: string, from: string): OperationError {
  return new OperationError('INPUT_INVALID', `Cannot put "${path}": a segment of "${from}" reaches past its end`)
}

/** A copy that later changes of the caller's map and buffers do not reach. */
export function copyAttributes(attributes: Attributes): Attributes {
  if (attributes.xattrs === undefined) return { ...attributes }
  const xattrs = new Map([...attributes.xattrs].map(([name, value]) => [name, Buffer.from(value)]))
  return { ...attributes, xattrs }
}

function noBytes(action: string, path: string, kind: SpecialKind): OperationError {
  return new OperationError('INPUT_INVALID', `Cannot ${action} "${path}": a ${kind} has no bytes`)
}
