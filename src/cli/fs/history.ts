/** Verbs about what was: history, undelete, resolve_dead_*. */
import { OperationError } from '#base/errors.ts'
import type { ClusterClient, Slot } from '#cluster/client/cluster-client.ts'
import { namesOf } from '#cluster/client/cluster-client.ts'
import { type InodeId, inodeType, ROOT_INODE, shownInode } from '#cluster/inode-id.ts'
import { type Edge, NO_INODE, NOTHING, type Status } from '#cluster/wire/forms.ts'

import { edgeJson, isPast, type Side } from './listing.ts'
import { named } from './names.ts'
import { clusterPath } from './place.ts'
import { type FsSession, pastTime } from './session.ts'
import { statusOf } from './status.ts'
import { parseTime, shownTime } from './time.ts'
import { mapAhead, AT_ONCE } from './walk.ts'

/** `resolve_dead_le` and `resolve_dead_ge`: which past edge of a name is the newest until a time, or the oldest from it on. */
export async function resolveDead(
  { client, out, isJson }: FsSession,
  text: string,
  { side, time }: { readonly side: Side; readonly time: string | undefined },
): Promise<void> {
  const { directory, name } = await pastSlot(client, clusterPath(text))
  const at = time === undefined ? 0 : parseTime(time)
  let edge = await client.edgeAt(directory, name, at, side === 'le')
  // What has the name now is no past: the newest of those before it is meant.
  if (edge !== undefined && !isPast(edge)) {
    edge = side === 'ge' ? undefined : await client.edgeAt(directory, name, edge.created - 1, true)
  }
  if (edge === undefined) {
    const when = side === 'le' ? `made at ${at} or before` : `made at ${at} or later`
    throw new OperationError('NAME_NOT_FOUND', `Cannot find a past version of "${text}" ${when}`)
  }
  if (isJson) return out.json(edgeJson(edge))
  await out.line(`inode=${edge.inode === NO_INODE ? 'none' : shownInode(edge.inode)}`)
  await out.line(`created=${edge.created}`)
  await out.line(`state=${edge.state}`)
}

interface Version {
  readonly edge: Edge
  /** When the next edge began. */
  readonly until: number | undefined
  readonly next: Edge | undefined
  readonly status: Status | undefined
}

/** `history PATH`: every version of a name, the oldest first. */
export async function history({ client, out, isJson }: FsSession, text: string): Promise<void> {
  const { directory, name } = await pastSlot(client, clusterPath(text))
  let count = 0
  for await (const version of mapAhead(versionsOf(client, directory, name), AT_ONCE, (each) =>
    described(client, each),
  )) {
    count++
    const { edge, until, status } = version
    const end = endOf(version)
    if (isJson)
      await out.json({
        ...edgeJson(edge),
        until: until ?? null,
        end,
        ...(status && { size: status.size, mtime: status.mtime }),
      })
    else await out.line(versionLine(version, end))
  }
  if (count === 0) throw new OperationError('NAME_NOT_FOUND', `Cannot find "${text}": it has no history either`)
}

function versionLine({ edge, until, status }: Version, end: string): string {
  const range = `${shownTime(edge.created)} - ${until === undefined ? 'now'.padEnd(27) : shownTime(until)}`
  const what = `${inodeType(edge.inode).padEnd(9)} ${String(status?.size ?? 0).padStart(12)}  ${shownInode(edge.inode)}`
  return `${range}  ${what}  ${end}${edge.state === 'owned' ? ', can be undeleted' : ''}`
}

/** What became of a version. */
function endOf({ edge, next, status }: Version): string {
  if (next === undefined) return 'current'
  if (next.inode !== NO_INODE) return `replaced by ${shownInode(next.inode)}`
  if (edge.state === 'owned') return 'removed'
  if (inodeType(edge.inode) === 'directory') return status?.owner === NO_INODE ? 'removed' : 'moved'
  // It was removed or replaced here, and somebody has brought it back.
  return 'moved or undeleted'
}

/** Each edge that leads to something, with the one after it. */
async function* versionsOf(
  client: ClusterClient,
  directory: InodeId,
  name: string,
): AsyncGenerator<Pick<Version, 'edge' | 'next'>> {
  let before: Edge | undefined
  for await (const edge of client.history(directory, name)) {
    if (before !== undefined && before.inode !== NO_INODE) yield { edge: before, next: edge }
    before = edge
  }
  if (before !== undefined && before.inode !== NO_INODE) yield { edge: before, next: undefined }
}

async function described(client: ClusterClient, { edge, next }: Pick<Version, 'edge' | 'next'>): Promise<Version> {
  const status = await statusOf(client, { inode: edge.inode, status: undefined })
  return { edge, next, until: next?.created, status }
}

/** `undelete PATH` */
export async function undelete(
  session: FsSession,
  text: string,
  { at, to }: { readonly at: string | undefined; readonly to: string | undefined },
): Promise<void> {
  const { client, out, isJson } = session
  const path = clusterPath(text)
  const { directory, name } = await client.slot(path)
  if (to?.includes('/') === true) {
    throw new OperationError(
      'USAGE',
      `Cannot use --to "${to}": a name in the same directory is expected; "fs mv" moves it on`,
    )
  }
  const edge =
    at === undefined
      ? await newestOwned(client, directory, name)
      : await client.edgeAt(directory, name, pastTime(session, at), true)
  if (edge === undefined || edge.inode === NO_INODE) {
    const when = at === undefined ? 'the history has no version of it' : `nothing had that name then`
    throw new OperationError('NAME_NOT_FOUND', `Cannot undelete "${path}": ${when}`, {
      hint: 'See "eider fs history" and "eider fs ls --as-of".',
    })
  }
  if (edge.state !== 'owned') throw notKept(path, edge)
  const found = await named(`undelete "${path}"`, () =>
    client.undelete({ directory, name, created: edge.created }, to ?? name, NOTHING),
  )
  if (isJson) await out.json({ path, name: to ?? name, inode: shownInode(found.inode), created: edge.created })
  else await out.line(shownInode(found.inode))
}

function notKept(path: string, edge: Edge): OperationError {
  const isDirectory = inodeType(edge.inode) === 'directory'
  const what =
    edge.state === 'left' ? (isDirectory ? 'it was a directory' : 'it lives elsewhere by now') : 'it is there'
  return new OperationError('EDGE_CHANGED', `Cannot undelete "${path}": ${what}`, {
    hint: `To copy what was there: eider fs cp -r --as-of ${edge.created} :${path} :/ANOTHER/PATH`,
  })
}

async function newestOwned(client: ClusterClient, directory: InodeId, name: string): Promise<Edge | undefined> {
  let newest: Edge | undefined
  let last: Edge | undefined
  for await (const edge of client.history(directory, name)) {
    if (edge.state === 'owned') newest = edge
    if (edge.inode !== NO_INODE) last = edge
  }
  return newest ?? last
}

/** Where a name is or was: in directories as they are, else as they were last. @throws NAME_NOT_FOUND */
async function pastSlot(client: ClusterClient, path: string): Promise<Slot> {
  const names = namesOf(path)
  const name = names.pop()
  if (name === undefined)
    throw new OperationError('ROOT_REFUSED', 'Cannot show the history of the root: it has no name')
  let directory = ROOT_INODE
  for (const each of names) {
    let edge = await client.edgeAt(directory, each, Number.MAX_SAFE_INTEGER, true)
    if (edge?.inode === NO_INODE) edge = await client.edgeAt(directory, each, edge.created - 1, true)
    if (edge === undefined)
      throw new OperationError('NAME_NOT_FOUND', `Cannot find "${path}": there never was "${each}"`)
    if (inodeType(edge.inode) !== 'directory') {
      throw new OperationError('DIRECTORY_EXPECTED', `Cannot find "${path}": "${each}" is not a directory`)
    }
    directory = edge.inode
  }
  return { directory, name }
}
