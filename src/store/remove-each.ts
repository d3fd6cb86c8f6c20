/** `removeAll` for stores that have no cheaper way: one removal after another, each under its version. */
import { isOperationError, type OperationError } from '#base/errors.ts'

import { ifVersion, type CallOptions, type Removal, type Store } from './store.ts'

/** Removes the entries in the order given, which has directories after what lies in them. */
export async function removeEach(
  store: Pick<Store, 'remove' | 'removeDirectory'>,
  removals: readonly Removal[],
  options: CallOptions = {},
): Promise<readonly (OperationError | undefined)[]> {
  const outcomes: (OperationError | undefined)[] = []
  for (const { path, kind, version } of removals) {
    try {
      if (kind === 'directory') await store.removeDirectory(path, options)
      else await store.remove(path, { ...options, guard: ifVersion(version) })
      outcomes.push(undefined)
    } catch (error) {
      if (!isOperationError(error)) throw error
      outcomes.push(error)
    }
  }
  return outcomes
}
