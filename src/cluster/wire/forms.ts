/** The forms of fields that more than one message or record has: ids, names, attributes, edges, spans, policies. */
import { type BlockId, isBlockId } from '#cluster/block/block-id.ts'
import { KEY_BYTES, PERMIT_BYTES, type DiskId } from '#cluster/block/permit.ts'
import { STRIPES_MAX } from '#cluster/erasure/layout.ts'
import { type InodeId, isInodeId } from '#cluster/inode-id.ts'

import {
  boolean,
  branded,
  blob,
  checked,
  choice,
  fixedBytes,
  list,
  optional,
  struct,
  text,
  u16,
  u32,
  u53,
  u8,
  type ByteReader,
  type ByteWriter,
  type Codec,
  type ValueOf,
} from './codec.ts'
import { malformed } from './codec.ts'

export const inode: Codec<InodeId> = branded(checked(u53, 'inode (u53)', isInodeId))
/** What a field holds that names no inode. */
export const NO_INODE = 0 as InodeId
export const inodeOrNone: Codec<InodeId> = branded(
  checked(u53, 'inode or 0 (u53)', (value) => value === 0 || isInodeId(value)),
)
export const blockId: Codec<BlockId> = branded(checked(u53, 'block id (u53)', isBlockId))
export const diskId: Codec<DiskId> = branded(u53, 'disk id (u53)')
export const diskKey = fixedBytes(KEY_BYTES)
export const seal = fixedBytes(PERMIT_BYTES)
/** Proves that a transient file is one's own. */
export const COOKIE_BYTES = 16
export const cookie = fixedBytes(COOKIE_BYTES)

/** Longer than names may be: the shard says what is wrong with one. */
export const name = text(4096)
export const inodeType = choice('directory', 'file', 'symlink')
/** Microseconds since 1970 by the clock of a shard; strictly increasing there. */
export const stampUs = u53

/** A whole number that may be negative. */
function whole(what: string, form: string): Codec<number> {
  return {
    write(to: ByteWriter, value: number) {
      const at = to.reserve(8)
      to.bytes.writeDoubleLE(value, at)
    },
    read(from: ByteReader) {
      const value = from.bytes.readDoubleLE(from.take(8))
      if (!Number.isSafeInteger(value)) throw malformed(what)
      return value
    },
    form,
  }
}
/** Microseconds since 1970 as people set them: may be before that. */
export const timeUs = whole('a time is no whole number of microseconds', 'time (f64, whole microseconds since 1970)')
/** By how much something is ahead; negative where it is behind. */
export const offMs = whole('a difference is no whole number of milliseconds', 'difference (f64, whole milliseconds)')

export const NOTE_BYTES_MAX = 255
export const XATTR_NAME_BYTES_MAX = 255
/** Of all extended attributes of an inode together, as ext4 has it for one block and XFS for one value. */
export const XATTRS_BYTES_MAX = 65_536
export const xattr = struct({ name: text(XATTR_NAME_BYTES_MAX), value: blob(XATTRS_BYTES_MAX) })
export const XATTRS_COUNT_MAX = 4096
export const xattrs = list(xattr, XATTRS_COUNT_MAX)

/** Of a new inode. Times that are not given are those of its making. */
export const newAttributes = struct({
  mode: u16,
  uid: u32,
  gid: u32,
  mtime: optional(timeUs),
  atime: optional(timeUs),
})

/** What is to be changed. */
export const attributeChanges = struct({
  mode: optional(u16),
  uid: optional(u32),
  gid: optional(u32),
  mtime: optional(timeUs),
  atime: optional(timeUs),
})

/** How many bytes a file may have in its inode's record rather than in blocks. */
export const INLINE_BYTES_MAX = 65_536
export const SPAN_BYTES_MAX = 1024 ** 3
const POLICY_STEPS_MAX = 32

/** How redundant spans of up to so many bytes are. */
const spanStep = struct({ bytesMax: u32, data: u8, parity: u8 })
/** The storage class of blocks of at least so many bytes. */
const classStep = struct({ bytesMin: u32, class: u8 })

/** What a directory says of what lies under it; what it does not say holds as its parent has it. */
export const policy = struct({
  /** How long a version that was replaced or removed is kept (microseconds), and how many of a name. */
  history: optional(struct({ ageUs: optional(u53), versions: optional(u32) })),
  /** In ascending order: the last has the largest spans. */
  spans: optional(list(spanStep, POLICY_STEPS_MAX)),
  classes: optional(list(classStep, POLICY_STEPS_MAX)),
  stripeBytes: optional(u32),
  inlineBytesMax: optional(u32),
})
export type Policy = ValueOf<typeof policy>
export const EMPTY_POLICY: Policy = {
  history: undefined,
  spans: undefined,
  classes: undefined,
  stripeBytes: undefined,
  inlineBytesMax: undefined,
}

/** What an inode is. Of what it has not, 0 and empty. */
export const status = struct({
  inode,
  type: inodeType,
  mode: u16,
  uid: u32,
  gid: u32,
  size: u53,
  mtime: timeUs,
  atime: timeUs,
  ctime: stampUs,
  /** Of a directory: where it lies; of one that was removed, 0. */
  owner: inodeOrNone,
  policy: optional(policy),
  /** Of a file that is not linked yet, or no more. */
  transient: optional(struct({ deadline: stampUs, note: text(NOTE_BYTES_MAX) })),
})
export type Status = ValueOf<typeof status>

/**
 * What a name led to from `created` on. `current`: it does. `locked`: it does, and the coordinator is moving it. `owned`: it did, and the file
 * is kept by this. `left`: it did, and what was there lives elsewhere. `removed`: nothing was there.
 */
const edgeState = choice('current', 'locked', 'owned', 'left', 'removed')
export const edge = struct({ name, inode: inodeOrNone, created: stampUs, state: edgeState })
export type Edge = ValueOf<typeof edge>

/** What must be at a name for it to be taken: anything, nothing, or just that inode. */
export const guard = struct({ how: choice('any', 'absent', 'is'), inode: inodeOrNone })
export type NameGuard = ValueOf<typeof guard>
export const ANYTHING: NameGuard = { how: 'any', inode: NO_INODE }
export const NOTHING: NameGuard = { how: 'absent', inode: NO_INODE }

/** One block of a span: where it is, and the CRC32C of its cell of each stripe. */
const spanBlock = struct({ disk: diskId, block: blockId, cells: list(u32, STRIPES_MAX) })
export const blocksBody = struct({
  class: u8,
  data: u8,
  parity: u8,
  stripes: u8,
  cellBytes: u32,
  blocks: list(spanBlock, 30),
})
/** Bytes of a file, from `offset` on. Without a body they are zeros. */
export const span = struct({
  offset: u53,
  size: u53,
  crc: u32,
  inline: optional(blob(INLINE_BYTES_MAX)),
  blocks: optional(blocksBody),
  /** Whether all its blocks are known to be written. */
  isCertified: boolean,
})
export type Span = ValueOf<typeof span>
export type BlocksBody = ValueOf<typeof blocksBody>

/** A block to be written or erased, and the permit for it. */
export const permitted = struct({ disk: diskId, block: blockId, permit: seal })
export type Permitted = ValueOf<typeof permitted>
