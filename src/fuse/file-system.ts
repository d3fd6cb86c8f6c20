/**
 * What a FUSE session asks of a file system. The session decodes kernel requests, calls these methods and encodes what
 * they return; a throw becomes the errno of its `OperationError` (`errnoOf`). A method may answer at once or by a
 * promise: an immediate answer costs no promise and no turn of the event loop. A method that is absent is ENOSYS.
 */
import type { Timestamp } from '#base/time.ts'

/** A kernel's name for an inode: ours to choose, never 0; 1 is the root. */
export type NodeId = number
export const ROOT_NODE: NodeId = 1
/** Ours to choose at open; given back in each call on that open file or directory. */
export type Handle = number

export type MaybePromise<T> = T | Promise<T>

/** Who asks. `signal` fires when the kernel sends INTERRUPT for the request. */
export interface Caller {
  readonly uid: number
  readonly gid: number
  readonly pid: number
  readonly signal: AbortSignal
}

/** `struct stat`, as the kernel wants it. */
export interface NodeAttributes {
  readonly node: NodeId
  readonly size: number
  /** With the type bits (S_IFREG and others). */
  readonly mode: number
  readonly nlink: number
  readonly uid: number
  readonly gid: number
  readonly rdev: number
  readonly blksize: number
  /** In units of 512 bytes. */
  readonly blocks: number
  readonly atime: Timestamp
  readonly mtime: Timestamp
  readonly ctime: Timestamp
}

export interface AttributesAnswer {
  readonly attributes: NodeAttributes
  /** How long the kernel may answer from its own copy. */
  readonly attributesValidMs: number
}

/** The answer to a lookup; `attributes.node` gets one more reference, which `forget` gives back. */
export interface EntryAnswer extends AttributesAnswer {
  readonly generation: number
  readonly entryValidMs: number
}

/** "There is no such name", with how long the kernel may remember it (0: not at all). */
export interface NegativeAnswer {
  readonly negativeValidMs: number
}

export interface OpenAnswer {
  readonly handle: Handle
  /** FOPEN_* bits; see protocol.ts. */
  readonly openFlags: number
  /**
   * With FOPEN_PASSTHROUGH: the backing file. The kernel has one way for all opens of a node at a time: while one of them
   * is not released, every other must have the same backing file, or none like it.
   */
  readonly backing?: BackingId
}

/** Names a backing file to the kernel. */
export type BackingId = number

/** Files that the kernel reads and writes itself, in place of asking for it. */
export interface BackingFiles {
  /** Registers a regular file, which may be closed afterwards; undefined where the kernel refuses. */
  open(fd: number): BackingId | undefined
  /** Gives an id back; what was opened with it stays open. */
  close(id: BackingId): void
}

/** What SETATTR changes; times are a point or the server's now. */
export interface AttributeRequest {
  readonly handle?: Handle
  readonly mode?: number
  readonly uid?: number
  readonly gid?: number
  readonly size?: number
  readonly atime?: Timestamp | 'now'
  readonly mtime?: Timestamp | 'now'
  readonly ctime?: Timestamp
}

/**
 * One entry of a directory. `offset` is the position *after* it, which the kernel sends back to go on from here;
 * with `entry` the kernel gets its attributes too (READDIRPLUS) and one reference on its node.
 */
export interface DirectoryItem {
  readonly name: string
  readonly node: NodeId
  readonly mode: number
  readonly offset: number
  readonly entry?: EntryAnswer
}

/** Takes items until it returns false (its buffer is full: that item was not taken and must come again). */
export type DirectorySink = (item: DirectoryItem) => boolean

export interface StatfsAnswer {
  readonly blockBytes: number
  readonly blocks: number
  readonly blocksFree: number
  readonly blocksAvailable: number
  readonly files: number
  readonly filesFree: number
  readonly nameBytesMax: number
}

export interface FileSystem {
  lookup(parent: NodeId, name: string, caller: Caller): MaybePromise<EntryAnswer | NegativeAnswer>
  forget(node: NodeId, count: number): void
  getattr(node: NodeId, handle: Handle | undefined, caller: Caller): MaybePromise<AttributesAnswer>
  setattr(node: NodeId, request: AttributeRequest, caller: Caller): MaybePromise<AttributesAnswer>
  readlink(node: NodeId, caller: Caller): MaybePromise<string>
  symlink(parent: NodeId, name: string, target: string, caller: Caller): MaybePromise<EntryAnswer>
  mknod?(
    parent: NodeId,
    name: string,
    mode: number,
    rdev: number,
    umask: number,
    caller: Caller,
  ): MaybePromise<EntryAnswer>
  mkdir(parent: NodeId, name: string, mode: number, umask: number, caller: Caller): MaybePromise<EntryAnswer>
  unlink(parent: NodeId, name: string, caller: Caller): MaybePromise<void>
  rmdir(parent: NodeId, name: string, caller: Caller): MaybePromise<void>
  /** `flags`: RENAME_NOREPLACE (1), RENAME_EXCHANGE (2). */
  rename(
    parent: NodeId,
    name: string,
    newParent: NodeId,
    newName: string,
    flags: number,
    caller: Caller,
  ): MaybePromise<void>
  link?(node: NodeId, newParent: NodeId, newName: string, caller: Caller): MaybePromise<EntryAnswer>
  open(node: NodeId, flags: number, caller: Caller): MaybePromise<OpenAnswer>
  create(
    parent: NodeId,
    name: string,
    mode: number,
    umask: number,
    flags: number,
    caller: Caller,
  ): MaybePromise<EntryAnswer & OpenAnswer>
  /**
   * At most `size` bytes from `offset`; fewer only at the end of the file. Several buffers are sent as one. What is given at
   * once is sent before the next call.
   */
  read(
    node: NodeId,
    handle: Handle,
    offset: number,
    size: number,
    caller: Caller,
  ): MaybePromise<Uint8Array | readonly Uint8Array[]>
  /**
   * `data` belongs to the session: it is valid until the answer, and must be copied to be kept longer. What `appends` goes to the
   * end, of which the kernel's idea may be older.
   */
  write(
    node: NodeId,
    handle: Handle,
    offset: number,
    data: Uint8Array,
    caller: Caller,
    appends: boolean,
  ): MaybePromise<number>
  /** At each close of a descriptor. What it throws is what close(2) returns. */
  flush(node: NodeId, handle: Handle, caller: Caller): MaybePromise<void>
  fsync(node: NodeId, handle: Handle, dataOnly: boolean, caller: Caller): MaybePromise<void>
  /** After the last close; the kernel does not wait for it. */
  release(node: NodeId, handle: Handle): MaybePromise<void>
  opendir(node: NodeId, caller: Caller): MaybePromise<OpenAnswer>
  /** Gives items after `offset` (0: from the start) to `sink` until it refuses one; with `plus`, with entries. */
  readdir(
    node: NodeId,
    handle: Handle,
    offset: number,
    plus: boolean,
    sink: DirectorySink,
    caller: Caller,
  ): MaybePromise<void>
  releasedir(node: NodeId, handle: Handle): MaybePromise<void>
  fsyncdir(node: NodeId, handle: Handle, caller: Caller): MaybePromise<void>
  statfs(caller: Caller): MaybePromise<StatfsAnswer>
  getxattr(node: NodeId, name: string, caller: Caller): MaybePromise<Uint8Array>
  listxattr(node: NodeId, caller: Caller): MaybePromise<readonly string[]>
  /** `flags`: XATTR_CREATE (1), XATTR_REPLACE (2). */
  setxattr(node: NodeId, name: string, value: Uint8Array, flags: number, caller: Caller): MaybePromise<void>
  removexattr(node: NodeId, name: string, caller: Caller): MaybePromise<void>
  fallocate?(
    node: NodeId,
    handle: Handle,
    offset: number,
    length: number,
    mode: number,
    caller: Caller,
  ): MaybePromise<void>
  /** Copies up to `length` bytes to another open file, or another place of the same; gives how many. */
  copyFileRange?(
    node: NodeId,
    handle: Handle,
    offset: number,
    outNode: NodeId,
    outHandle: Handle,
    outOffset: number,
    length: number,
    caller: Caller,
  ): MaybePromise<number>
  lseek?(node: NodeId, handle: Handle, offset: number, whence: number, caller: Caller): MaybePromise<number>
}

/** Tells the kernel to forget what it holds. Each resolves to whether the kernel held it. */
export interface KernelNotifier {
  /** Attributes, and cached bytes from `offset` for `length` (0: to the end); offset -1: attributes only. */
  invalidateNode(node: NodeId, offset: number, length: number): Promise<boolean>
  invalidateEntry(parent: NodeId, name: string): Promise<boolean>
  /** As `invalidateEntry`, and tells watchers of the directory that the child was removed. */
  deleteEntry(parent: NodeId, child: NodeId, name: string): Promise<boolean>
}
