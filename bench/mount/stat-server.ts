/**
 * The other side of stat-server.c: Eider's own file system over a store in memory, in which all is known for an hour, but of
 * which the kernel keeps no attributes, so that each stat asks: stat-server.ts DIRECTORY STAGING.
 */
import type { FileSystem } from '#fuse/file-system.ts'
import { SESSION_DEFAULTS, startSession } from '#fuse/session.ts'
import { StagingArea } from '#mount/staging.ts'
import { StoreFileSystem } from '#mount/store-file-system.ts'
import { mountFuse } from '#os/fuse-mount.ts'
import { openMemoryStore } from '#store/memory-store.ts'
import { ABSENT } from '#store/store.ts'

const HOUR_MS = 3_600_000
const [directory = '', staging = ''] = process.argv.slice(2)
const store = openMemoryStore()
await store.put('file', Buffer.from('12345'), { guard: ABSENT })
const inner = new StoreFileSystem({
  store,
  staging: await StagingArea.open(staging),
  validityMs: HOUR_MS,
  readOnly: true,
  owner: { uid: 0, gid: 0 },
  signal: new AbortController().signal,
})
const getattr: FileSystem['getattr'] = (node, handle, caller) => {
  const answer = inner.getattr(node, handle, caller)
  if (answer instanceof Promise) return answer.then((found) => ({ ...found, attributesValidMs: 0 }))
  return { attributes: answer.attributes, attributesValidMs: 0 }
}
const lookup: FileSystem['lookup'] = async (parent, name, caller) => {
  const answer = await inner.lookup(parent, name, caller)
  return 'attributes' in answer ? { ...answer, attributesValidMs: 0 } : answer
}
const fileSystem = new Proxy<FileSystem>(inner, {
  get: (target, key: keyof FileSystem) => {
    if (key === 'getattr') return getattr
    if (key === 'lookup') return lookup
    const found: unknown = Reflect.get(target, key)
    return typeof found === 'function' ? (found.bind(target) as unknown) : found
  },
})
const { fd } = await mountFuse({
  ...{ directory, source: 'stat-server', subtype: 'eider-bench', readOnly: true, allowOther: true },
  ...{ defaultPermissions: true, maxReadBytes: SESSION_DEFAULTS.maxWriteBytes },
})
const session = startSession(fileSystem, fd)
await session.ended
process.exit(0)
