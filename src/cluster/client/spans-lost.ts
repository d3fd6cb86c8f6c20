/** What is said where bytes of a file cannot be put together: of which span, and of each of its blocks why it is of no use. */
import { OperationError } from '#base/errors.ts'
import { type BlockId, blockName } from '#cluster/block/block-id.ts'
import type { DiskId } from '#cluster/block/permit.ts'
import { type InodeId, shownInode } from '#cluster/inode-id.ts'

/** A block that could not be used. */
export interface LostBlock {
  /** Which one of its span. */
  readonly index: number
  readonly disk: DiskId
  readonly domain: string | undefined
  readonly block: BlockId
  readonly why: OperationError
}

export class SpansLostError extends OperationError {
  readonly file: InodeId
  /** Of the span. */
  readonly offset: number
  readonly blocks: readonly LostBlock[]

  constructor(file: InodeId, offset: number, blocks: readonly LostBlock[], detail: string) {
    const each = blocks.map(({ index, disk, domain, block, why }) => {
      const place = `disk ${disk}${domain === undefined ? '' : ` of ${domain}`}`
      return `block ${index} (${blockName(block)} on ${place}): ${why.code}`
    })
    const message = `Cannot read the span at ${offset} of ${shownInode(file)}: ${[detail, ...each].join('; ')}`
    super('SPANS_LOST', message, { cause: blocks[0]?.why })
    this.file = file
    this.offset = offset
    this.blocks = blocks
  }

  /** Whether it may be possible in a while: processes start again, and disks have less to do. */
  get isTemporary(): boolean {
    return this.blocks.some(({ why }) => why.retry === 'backoff')
  }
}
