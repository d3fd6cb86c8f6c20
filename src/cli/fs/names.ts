/** Verbs that make, move and remove names: mkdir, rmdir, rm, mv, ln. */
import { posix } from 'node:path'

import { type ErrorCode, isOperationError, OperationError } from '#base/errors.ts'
import { namesOf, type Place } from '#cluster/client/cluster-client.ts'
import { type InodeId, inodeType, ROOT_INODE, shownInode } from '#cluster/inode-id.ts'
import { ANYTHING, EMPTY_POLICY, INLINE_BYTES_MAX, NOTHING } from '#cluster/wire/forms.ts'
import { inParallel } from '#store/parallel.ts'

import type { ExitCode } from '#cli/command.ts'
import { checkFile, clusterPath, targetOf } from './place.ts'
import { exitOf, type FsSession, forEach, ownAttributes, tellFailure } from './session.ts'
import { AT_ONCE, mapAhead, walk } from './walk.ts'

const TAKEN = 'something of that name is there already'

/** `mkdir PATH...` */
export function makeDirectories(
  session: FsSession,
  paths: readonly string[],
  { parents }: { readonly parents: boolean },
): Promise<ExitCode> {
  return forEach(paths, async (text) => {
    const path = clusterPath(text)
    const inode = parents ? await ensurePath(session, path) : await makeOne(session, path)
    await tell(session, path, inode)
  })
}

async function makeOne({ client }: FsSession, path: string): Promise<InodeId> {
  try {
    return (await client.makeDirectory(await client.slot(path), ownAttributes(0o777))).inode
  } catch (error) {
    if (!isOperationError(error, 'NAME_TAKEN', 'NAME_NOT_FOUND')) throw error
    const why = error.code === 'NAME_TAKEN' ? TAKEN : 'its parent is missing'
    const hint = 'With --parents a directory that is there is fine, and those on the way are made.'
    throw new OperationError(error.code, `Cannot make directory "${path}": ${why}`, { cause: error, hint })
  }
}

async function ensurePath({ client }: FsSession, path: string): Promise<InodeId> {
  let directory = ROOT_INODE
  for (const name of namesOf(path)) {
    directory = await client.ensureDirectory({ directory, name }, ownAttributes(0o777))
  }
  return directory
}

async function tell({ out, isJson }: FsSession, path: string, inode: InodeId): Promise<void> {
  await (isJson ? out.json({ path, inode: shownInode(inode) }) : out.line(shownInode(inode)))
}

/** `rmdir PATH...` */
export function removeDirectories({ client, out, isJson }: FsSession, paths: readonly string[]): Promise<ExitCode> {
  return forEach(paths, async (text) => {
    const path = clusterPath(text)
    const place = await client.find(path)
    if (inodeType(place.inode) !== 'directory') {
      const detail = `${shownInode(place.inode)} is a ${inodeType(place.inode)}`
      throw new OperationError('DIRECTORY_EXPECTED', `Cannot remove directory "${path}": ${detail}`)
    }
    const removed = await named(`remove directory "${path}"`, () => client.remove(place))
    if (isJson) await out.json({ path, inode: shownInode(place.inode), removed })
  })
}

/** `rm PATH...` */
export function remove(
  session: FsSession,
  paths: readonly string[],
  { recursive }: { readonly recursive: boolean },
): Promise<ExitCode> {
  const { client, out, isJson } = session
  let partly: ExitCode = 0
  return forEach(paths, async (text) => {
    const path = clusterPath(text)
    const place = await client.find(path)
    if (recursive && inodeType(place.inode) === 'directory') {
      const exit = await removeTree(session, path, place)
      if (exit !== 0) partly = exit
      return
    }
    checkFile(path, place.inode)
    const removed = await named(`remove "${path}"`, () => client.remove(place))
    if (isJson) await out.json({ path, inode: shownInode(place.inode), removed })
  }).then((exit) => (exit === 0 ? partly : exit))
}

/** Files first, many at a time; then the directories, the deepest first. What fails is told, and the rest goes on. */
async function removeTree(session: FsSession, path: string, top: Place): Promise<ExitCode> {
  const { client, out, isJson, signal } = session
  if (top.inode === ROOT_INODE) {
    throw new OperationError('ROOT_REFUSED', 'Cannot remove the root: nothing was removed')
  }
  const levels: { readonly path: string; readonly place: Place }[][] = [[{ path, place: top }]]
  const parents: InodeId[] = [top.inode]
  let [done, failed] = [0, 0]
  const removeOne = async (each: { readonly path: string; readonly place: Place }): Promise<void> => {
    try {
      const removed = await named(`remove "${each.path}"`, () => client.remove(each.place))
      if (isJson) await out.json({ path: each.path, inode: shownInode(each.place.inode), removed })
      done++
    } catch (error) {
      // Somebody else has removed it.
      if (isOperationError(error, 'NAME_NOT_FOUND', 'DIRECTORY_REMOVED', 'INODE_NOT_FOUND')) return
      if (!isOperationError(error) || error.code === 'ABORTED') throw error
      failed++
      tellFailure(error)
    }
  }
  const files = async function* (): AsyncGenerator<{ path: string; place: Place }> {
    for await (const { path: at, entry, depth } of walk(client, path, top.inode, { signal })) {
      const place = { ...entry, parent: parents[depth - 1] ?? top.inode }
      if (inodeType(entry.inode) !== 'directory') {
        yield { path: at, place }
        continue
      }
      parents[depth] = entry.inode
      ;(levels[depth] ??= []).push({ path: at, place })
    }
  }
  await named(`remove "${path}"`, async () => {
    for await (const _ of mapAhead(files(), AT_ONCE, removeOne));
  })
  for (const level of levels.toReversed()) await inParallel(level, AT_ONCE, removeOne)
  return failed === 0 ? 0 : exitOf(failed, failed + done)
}

/** `mv SOURCE... TARGET` */
export async function move(session: FsSession, args: readonly string[]): Promise<ExitCode> {
  const { client, out, isJson } = session
  const [target = '', ...sources] = args.toReversed()
  const to = clusterPath(target)
  if (sources.length > 1) {
    const { inode } = await client.find(to)
    if (inodeType(inode) !== 'directory') {
      throw new OperationError(
        'DIRECTORY_EXPECTED',
        `Cannot move ${sources.length} things to "${to}": it is no directory`,
      )
    }
  }
  return forEach(sources.toReversed(), async (text) => {
    const from = clusterPath(text)
    const place = await client.find(from)
    const { slot, path } = await targetOf(client, to, place.name)
    const { created } = await named(`move "${from}" to "${to}"`, () => client.move(place, slot))
    if (isJson) await out.json({ from, to: path, inode: shownInode(place.inode), created })
  })
}

/** `ln -s TARGET PATH` */
export async function link(
  session: FsSession,
  [target = '', text = '']: readonly string[],
  { symbolic, force }: { readonly symbolic: boolean; readonly force: boolean },
): Promise<void> {
  if (!symbolic) {
    throw new OperationError('USAGE', 'Cannot make a hard link: the cluster has symlinks only; use ln -s')
  }
  const { client, files, signal } = session
  const { slot, path } = await targetOf(client, clusterPath(text), posix.basename(target))
  const file = {
    ...slot,
    type: 'symlink' as const,
    attributes: { ...ownAttributes(0o777), mode: 0o777 },
    guard: force ? ANYTHING : NOTHING,
    // One that is too long comes to the shard whole, which refuses it.
    policy: { ...EMPTY_POLICY, inlineBytesMax: INLINE_BYTES_MAX },
  }
  const bytes = async function* (): AsyncGenerator<Uint8Array> {
    yield Buffer.from(target)
  }
  const action = `make symlink "${path}"`
  const written = await named(action, () => files.write(file, bytes(), signal)).catch((error: unknown) => {
    if (!isOperationError(error, 'NAME_TAKEN')) throw error
    const hint = 'With --force (-f) it takes the place of a file or symlink.'
    throw new OperationError('NAME_TAKEN', `Cannot ${action}: ${TAKEN}`, { cause: error, hint })
  })
  await tell(session, path, written.inode)
}

/** What this machine refuses is told with its path anyway. */
const TOLD_AS_IT_IS: readonly ErrorCode[] = [
  'ABORTED',
  'USAGE',
  'LOCAL_FAILED',
  'STAGING_NO_SPACE',
  'OPERATION_NOT_PERMITTED',
]

/** Says of what path a failure is, where it speaks of inodes and names. */
export async function named<T>(action: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    if (!isOperationError(error) || TOLD_AS_IT_IS.includes(error.code)) throw error
    throw new OperationError(error.code, `Cannot ${action}: ${error.message}`, { cause: error, hint: error.hint })
  }
}
