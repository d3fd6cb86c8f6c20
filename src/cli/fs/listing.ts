/** `ls`, also of times past, and `ls_dead_*`: what names in a directory led to once. */
import type { Listed } from '#cluster/client/cluster-client.ts'
import { type InodeType, inodeType, shownInode } from '#cluster/inode-id.ts'
import { type Edge, NO_INODE, type Status } from '#cluster/wire/forms.ts'

import { checkDirectory, placeOf } from './place.ts'
import { type FsSession, pastTime } from './session.ts'
import { asEntry, entryJson, statusJson, statusOf, targetText } from './status.ts'
import { parseTime, shownMinute } from './time.ts'
import { AT_ONCE, mapAhead } from './walk.ts'

const TYPE_LETTERS: Readonly<Record<InodeType, string>> = { directory: 'd', file: '-', symlink: 'l' }

/** `ls PATH` */
export async function list(
  session: FsSession,
  path: string,
  { long, asOf }: { readonly long: boolean; readonly asOf: string | undefined },
): Promise<void> {
  const { client, out, isJson, signal } = session
  const time = pastTime(session, asOf)
  const place = await placeOf(client, path, time)
  const isDirectory = inodeType(place.inode) === 'directory'
  const pages = isDirectory
    ? client.list(place.inode, { withStatus: long, asOf: time, signal })
    : single(asEntry(place))
  if (!long) {
    for await (const page of pages) {
      for (const entry of page) await (isJson ? out.json(entryJson(entry)) : out.line(entry.name))
    }
    return
  }
  for await (const { entry, status, target } of mapAhead(entriesOf(pages), AT_ONCE, (each) =>
    described(session, each),
  )) {
    if (!isJson) await out.line(longLine(entry, status, target))
    else
      await out.json({
        ...entryJson(entry),
        ...(status && statusJson(status)),
        ...(target !== undefined && { target }),
      })
  }
}

/** What was asked of an edge of the past: the newest one made at a time or before, or the oldest one made then or later. */
export type Side = 'le' | 'ge'

/** `ls_dead_le` and its kin: of each name with a past, the edge in question; with `all` also where that leads to nothing. */
export async function listDead(
  session: FsSession,
  path: string,
  { side, all, time }: { readonly side: Side; readonly all: boolean; readonly time: string | undefined },
): Promise<void> {
  const { client, out, isJson } = session
  const { inode } = await placeOf(client, path)
  checkDirectory(path, inode)
  const at = time === undefined ? 0 : parseTime(time)
  const show = async (edge: Edge | undefined): Promise<void> => {
    if (edge === undefined) return
    const isDeleted = edge.inode === NO_INODE
    if (isDeleted && !all) return
    if (isJson) await out.json(edgeJson(edge))
    else await out.line(isDeleted ? `${edge.name} [deleted]` : edge.name)
  }
  let found: Edge | undefined
  let name: string | undefined
  for await (const edge of client.history(inode)) {
    if (edge.name !== name) {
      await show(found)
      found = undefined
      name = edge.name
    }
    if (!isPast(edge)) continue
    if (side === 'le' ? edge.created <= at : found === undefined && edge.created >= at) found = edge
  }
  await show(found)
}

/** Whether the name leads there no more. */
export function isPast({ state }: Edge): boolean {
  return state !== 'current' && state !== 'locked'
}

export function edgeJson({ name, inode, created, state }: Edge): Record<string, unknown> {
  const isDeleted = inode === NO_INODE
  return {
    name,
    inode: isDeleted ? null : shownInode(inode),
    ...(!isDeleted && { type: inodeType(inode) }),
    created,
    state,
  }
}

async function* single(entry: Listed): AsyncGenerator<readonly Listed[]> {
  yield [entry]
}

async function* entriesOf(pages: AsyncIterable<readonly Listed[]>): AsyncGenerator<Listed> {
  for await (const page of pages) yield* page
}

interface Described {
  readonly entry: Listed
  readonly status: Status | undefined
  readonly target: string | undefined
}

async function described(session: FsSession, entry: Listed): Promise<Described> {
  const status = await statusOf(session.client, entry)
  const isLink = status !== undefined && inodeType(entry.inode) === 'symlink'
  return { entry, status, target: isLink ? await targetText(session, entry.inode) : undefined }
}

function longLine({ name, inode }: Listed, status: Status | undefined, target: string | undefined): string {
  const type = TYPE_LETTERS[inodeType(inode)]
  if (status === undefined) return `${type}?????????  ${name}`
  const { mode, uid, gid, size, mtime } = status
  const numbers = `${String(uid).padStart(5)} ${String(gid).padStart(5)} ${String(size).padStart(12)}`
  return `${type}${permissions(mode)} ${numbers} ${shownMinute(mtime)} ${name}${target === undefined ? '' : ` -> ${target}`}`
}

/** `rwxr-xr-x` */
function permissions(mode: number): string {
  const letters = Array.from('rwxrwxrwx', (letter, index) => ((mode >> (8 - index)) & 1 ? letter : '-'))
  const special = [
    [0o4000, 2, 's'],
    [0o2000, 5, 's'],
    [0o1000, 8, 't'],
  ] as const
  for (const [bit, at, letter] of special) {
    if ((mode & bit) !== 0) letters[at] = letters[at] === 'x' ? letter : letter.toUpperCase()
  }
  return letters.join('')
}
