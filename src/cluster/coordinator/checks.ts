/** What a request to the coordinator must hold whatever there is. */
import { OperationError } from '#base/errors.ts'
import { inodeType, ROOT_INODE, shownInode, type InodeId } from '#cluster/inode-id.ts'

/** @throws DIRECTORY_EXPECTED */
export function checkIsDirectory(inode: InodeId): void {
  if (inodeType(inode) === 'directory') return
  throw new OperationError('DIRECTORY_EXPECTED', `Cannot use inode ${shownInode(inode)}: it is a ${inodeType(inode)}`)
}

/** @throws FILE_EXPECTED */
export function checkIsFile(inode: InodeId): void {
  if (inodeType(inode) !== 'directory') return
  throw new OperationError('FILE_EXPECTED', `Cannot use inode ${shownInode(inode)}: it is a directory`)
}

/** @throws ROOT_REFUSED */
export function checkNotRoot(inode: InodeId, action: 'move' | 'remove'): void {
  if (inode === ROOT_INODE) throw new OperationError('ROOT_REFUSED', `Cannot ${action} the root`)
}

/** @throws INPUT_INVALID */
export function checkOther(a: InodeId, b: InodeId, detail: string, hint?: string): void {
  if (a !== b) return
  const words = `Cannot do that with directory ${shownInode(a)} alone: ${detail}`
  throw new OperationError('INPUT_INVALID', words, hint === undefined ? {} : { hint })
}
