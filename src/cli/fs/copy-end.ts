/** What `cp` copies from and to: a tree, on this machine or in the cluster, named by paths that only the end itself takes apart. */
import type { OperationError } from '#base/errors.ts'
import type { Piece } from '#cluster/client/pieces.ts'

export type CopyKind = 'file' | 'directory' | 'symlink'

/** What there is at a path. Times are microseconds since 1970. */
export interface CopyNode {
  readonly kind: CopyKind
  readonly size: number
  readonly mode: number
  readonly uid: number
  readonly gid: number
  readonly mtime: number
  /** Less of it is stored than it has bytes. */
  readonly hasHoles?: boolean
}

export interface CopySource {
  /** As messages name it. */
  shown(path: string): string
  /** @throws NAME_NOT_FOUND, LOCAL_FAILED where there is nothing, or nothing that can be copied */
  node(path: string): Promise<CopyNode>
  /** The names in a directory; an error for one that nothing can be called elsewhere. @throws the same */
  names(path: string): AsyncIterable<string | OperationError>
  below(path: string, name: string): string
  /** A piece is used up when the next one is asked for. */
  read(path: string, node: CopyNode, signal: AbortSignal): AsyncIterable<Piece>
  linkTarget(path: string): Promise<string>
  xattrs(path: string): Promise<ReadonlyMap<string, Buffer>>
}

export interface CopyTarget {
  shown(path: string): string
  /** What is there; undefined where nothing is. */
  kindAt(path: string): Promise<CopyKind | undefined>
  below(path: string, name: string): string
  /** One that is there, or is now. */
  makeDirectory(path: string, node: CopyNode): Promise<void>
  /** Makes or replaces a file as a whole. Gives how many bytes it has. */
  writeFile(path: string, node: CopyNode, pieces: AsyncIterable<Piece>, more: CopyExtras): Promise<number>
  makeSymlink(path: string, node: CopyNode, target: string, more: CopyExtras): Promise<void>
  /** Gives a directory its attributes, once all in it is there. */
  finishDirectory(path: string, node: CopyNode, more: CopyExtras): Promise<void>
}

export interface CopyExtras {
  /** Owner and extended attributes are kept, too. */
  readonly keepsOwner: boolean
  readonly xattrs: ReadonlyMap<string, Buffer>
  readonly signal: AbortSignal
}

export const NO_XATTRS: ReadonlyMap<string, Buffer> = new Map()
