/** What an inode is, in lines `name=value` and as JSON; `stat`, `resolve`. */
import { isOperationError } from '#base/errors.ts'
import type { ClusterClient, Listed, Place } from '#cluster/client/cluster-client.ts'
import { gathered } from '#cluster/client/span-reader.ts'
import { type InodeId, inodeType, shownInode } from '#cluster/inode-id.ts'
import { shardMessages } from '#cluster/shard/shard-messages.ts'
import { NO_INODE, type Status } from '#cluster/wire/forms.ts'

import type { ExitCode } from '#cli/command.ts'
import { placeOf } from './place.ts'
import { policyText } from './policy-text.ts'
import { type FsSession, forEach, pastTime } from './session.ts'

/** `stat PATH...` */
export function stat(session: FsSession, paths: readonly string[], asOf: string | undefined): Promise<ExitCode> {
  const { client, out, isJson } = session
  const time = pastTime(session, asOf)
  return forEach(paths, async (path) => {
    const place = await placeOf(client, path, time)
    const status = await client.stat(place.inode)
    const target = status.type === 'symlink' ? await targetText(session, place.inode) : undefined
    if (isJson) {
      await out.json({ path, ...statusJson(status), ...(target !== undefined && { target }) })
      return
    }
    for (const line of statusLines(status, target)) await out.line(line)
    if (paths.length > 1 && path !== paths.at(-1)) await out.line('')
  })
}

/** `resolve PATH` */
export async function resolve({ client, out, isJson }: FsSession, path: string): Promise<void> {
  const { inode, created } = await placeOf(client, path)
  await (isJson ? out.json({ path, inode: shownInode(inode), created }) : out.line(shownInode(inode)))
}

/** What a symlink leads to. */
export async function targetText(
  { files, signal }: Pick<FsSession, 'files' | 'signal'>,
  link: InodeId,
): Promise<string> {
  return (await gathered(files.read(link, 0, Number.MAX_SAFE_INTEGER, signal))).toString()
}

/** The status of an entry, asked for where the listing did not have it; undefined where the inode has gone meanwhile. */
export async function statusOf(
  client: ClusterClient,
  entry: Pick<Listed, 'inode' | 'status'>,
): Promise<Status | undefined> {
  if (entry.status !== undefined) return entry.status
  try {
    return await client.stat(entry.inode)
  } catch (error) {
    if (isOperationError(error, 'INODE_NOT_FOUND')) return undefined
    throw error
  }
}

/** All attributes of an inode, by name. */
export async function xattrsOf({ client }: FsSession, inode: InodeId): Promise<ReadonlyMap<string, Buffer>> {
  const { xattrs } = await client.ask(inode, shardMessages.xattrs, { inode })
  return new Map(xattrs.map(({ name, value }) => [name, value]))
}

export function shownMode(mode: number): string {
  return mode.toString(8).padStart(4, '0')
}

function statusLines(status: Status, target: string | undefined): string[] {
  const { inode, type, mtime, size, owner, mode, uid, gid, atime, ctime, policy, transient } = status
  const isDirectory = type === 'directory'
  const facts: [string, string | number][] = [
    ['inode', shownInode(inode)],
    ['type', type.toUpperCase()],
    ['mtime', mtime],
    isDirectory ? ['parent', owner === NO_INODE ? 'none' : shownInode(owner)] : ['size', size],
    ['mode', shownMode(mode)],
    ['uid', uid],
    ['gid', gid],
    ['atime', atime],
    ['ctime', ctime],
  ]
  if (target !== undefined) facts.push(['target', target])
  if (isDirectory) facts.push(['policy', policy === undefined ? 'inherited' : policyText(policy).join(' ')])
  if (transient !== undefined) facts.push(['deadline', transient.deadline], ['note', transient.note])
  return facts.map(([name, value]) => `${name}=${value}`)
}

/** As every verb has it in its JSON. */
export function statusJson(status: Status): Record<string, unknown> {
  const { inode, type, mode, uid, gid, size, mtime, atime, ctime, owner, policy, transient } = status
  return {
    inode: shownInode(inode),
    type,
    mode: shownMode(mode),
    uid,
    gid,
    ...(type === 'directory' ? { parent: owner === NO_INODE ? null : shownInode(owner) } : { size }),
    mtime,
    atime,
    ctime,
    ...(policy !== undefined && { policy }),
    ...(transient !== undefined && { transient }),
  }
}

/** What is known of an entry without asking. */
export function entryJson({
  name,
  inode,
  created,
}: Pick<Listed, 'name' | 'inode' | 'created'>): Record<string, unknown> {
  return { name, inode: shownInode(inode), type: inodeType(inode), created }
}

/** The root, or what lies in a directory, as an entry of a listing. */
export function asEntry({ inode, created, name }: Place): Listed {
  return { name: name === '' ? '/' : name, inode, created, status: undefined }
}
