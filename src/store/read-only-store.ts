/**
 * A store that may only be looked at: every change is `STORE_READ_ONLY` before it reaches the store within.
 */
import { OperationError } from '#base/errors.ts'

import type { Store } from './store.ts'

/** The store with its changes refused; closing it closes the store. */
export function readOnlyStore(inner: Store): Store {
  const { listTree } = inner
  const refuse =
    (action: string) =>
    async (path: string): Promise<never> => {
      throw new OperationError('STORE_READ_ONLY', `Cannot ${action} "${path}": the store is opened for reading only`)
    }
  return {
    url: inner.url,
    capabilities: inner.capabilities,
    stat: (path, options) => inner.stat(path, options),
    list: (path, options) => inner.list(path, options),
    read: (path, options) => inner.read(path, options),
    readLink: (path, options) => inner.readLink(path, options),
    put: refuse('put'),
    symlink: refuse('make the symlink'),
    makeSpecial: refuse('make'),
    exchange: refuse('exchange'),
    removeAll: (removals) => refuse('remove')(removals[0]?.path ?? ''),
    makeDirectory: refuse('make the directory'),
    setAttributes: refuse('set attributes of'),
    copy: refuse('copy'),
    rename: refuse('rename'),
    remove: refuse('remove'),
    removeDirectory: refuse('remove the directory'),
    space: (options) => inner.space(options),
    close: () => inner.close(),
    ...(listTree === undefined ? {} : { listTree: (path, options) => listTree.call(inner, path, options) }),
  }
}
