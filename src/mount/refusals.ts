/** What the store cannot hold, or the mount may not change, is refused before anything happens. */
import { OperationError } from '#base/errors.ts'
import { joinPath, OWN_NAME } from '#store/path.ts'

import type { MountState } from './mount-state.ts'
import type { Node } from './node.ts'

/**
 * Before anything is written that the store could not hold in the end.
 * @throws OperationError `STORE_NAME_TOO_LONG`, and `STORE_NAME_INVALID` for the name that stores keep for themselves.
 */
export function checkPlace(state: MountState, parent: Node, name: string): void {
  // At any depth: what is a directory here is the root of who mounts that part of the bucket.
  if (name === OWN_NAME) {
    throw new OperationError('STORE_NAME_INVALID', `Cannot use "${name}" as a name: stores keep it for themselves`)
  }
  const { pathBytesMax } = state.store.capabilities
  const path = joinPath(state.table.pathOf(parent), name)
  if (path.length * 3 <= pathBytesMax || Buffer.byteLength(path) <= pathBytesMax) return
  throw new OperationError(
    'STORE_NAME_TOO_LONG',
    `Cannot use "${name.slice(0, 40)}" there: the path has ${Buffer.byteLength(path)} bytes, the store holds ${pathBytesMax}`,
  )
}

/** @throws nothing: makes the error for a change under a read-only mount. */
export function readOnlyError(action: string, node: Node): OperationError {
  return new OperationError('STORE_READ_ONLY', `Cannot ${action} "${node.name}": the mount is read-only`)
}
