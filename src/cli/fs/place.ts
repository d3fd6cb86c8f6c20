/** What is named on the command line of `eider fs`: paths of the cluster, and inodes. */
import { OperationError } from '#base/errors.ts'
import { type ClusterClient, namesOf, type Place, type Slot } from '#cluster/client/cluster-client.ts'
import { type InodeId, inodeType, parsedInode, shownInode } from '#cluster/inode-id.ts'
import { NO_INODE } from '#cluster/wire/forms.ts'

/** The path without the colon that `cp` tells it from a local one by. @throws USAGE */
export function clusterPath(text: string): string {
  const path = text.startsWith(':') ? text.slice(1) : text
  namesOf(path)
  return path
}

/** What a path leads to, or, of an inode, that with no name. @throws NAME_NOT_FOUND, DIRECTORY_EXPECTED, INPUT_INVALID */
export async function placeOf(client: ClusterClient, text: string, asOf?: number): Promise<Place> {
  if (/^0x/i.test(text)) return { inode: parsedInode(text), created: 0, parent: NO_INODE, name: '' }
  return client.find(clusterPath(text), asOf)
}

/** @throws DIRECTORY_EXPECTED */
export function checkDirectory(text: string, inode: InodeId): void {
  if (inodeType(inode) === 'directory') return
  const detail = `${shownInode(inode)} is a ${inodeType(inode)}`
  throw new OperationError('DIRECTORY_EXPECTED', `Cannot use "${text}" as a directory: ${detail}`)
}

/** @throws FILE_EXPECTED */
export function checkFile(text: string, inode: InodeId): void {
  if (inodeType(inode) !== 'directory') return
  throw new OperationError('FILE_EXPECTED', `Cannot use "${text}" as a file: ${shownInode(inode)} is a directory`)
}

/** Where something goes, and the path that leads there. */
export interface Target {
  readonly slot: Slot
  readonly path: string
}

/** Where something that is called `name` goes that is put at `path`: into it where that is a directory, else in its place. */
export async function targetOf(client: ClusterClient, path: string, name: string): Promise<Target> {
  const slot = namesOf(path).length === 0 ? undefined : await client.slot(path)
  const there = slot === undefined ? await client.find('/') : await client.lookup(slot.directory, slot.name)
  if (there !== undefined && inodeType(there.inode) === 'directory') {
    return { slot: { directory: there.inode, name }, path: below(path, name) }
  }
  if (slot === undefined || path.endsWith('/')) {
    throw new OperationError('DIRECTORY_EXPECTED', `Cannot put "${name}" into "${path}": it is not a directory`)
  }
  return { slot, path }
}

/** `/a/b` with `c` below it. */
export function below(path: string, name: string): string {
  return path.endsWith('/') ? `${path}${name}` : `${path}/${name}`
}
