/** What a block service answers, for any of its disks. */
import { BLOCK_BYTES_MAX } from '#cluster/block/block-trailer.ts'
import { blob, choice, list, struct, text, u32, u53, type ValueOf } from '#cluster/wire/codec.ts'
import { blockId, diskId, seal } from '#cluster/wire/forms.ts'
import { message, MessageTable } from '#cluster/wire/message.ts'

import { FETCH_BYTES_MAX } from './block-file.ts'

const PAGES_MAX = 65_536
const diskAndBlock = { disk: diskId, block: blockId }

export const blockMessages = {
  write: message('write', {
    kind: 0x01,
    does: 'write',
    request: struct({ ...diskAndBlock, crc: u32, permit: seal, bytes: blob(BLOCK_BYTES_MAX) }),
    reply: struct({ receipt: seal }),
    meaning: 'Writes a whole block durably. The same again gives the same receipt.',
  }),
  fetch: message('fetch', {
    kind: 0x02,
    does: 'read',
    request: struct({ ...diskAndBlock, offset: u32, length: u32 }),
    reply: struct({
      /** `bad`: the pages listed are damaged, and there are no bytes. */
      outcome: choice('whole', 'bad'),
      bytes: blob(FETCH_BYTES_MAX),
      pages: list(u32, PAGES_MAX),
    }),
    meaning: 'A range of a block, all of it checked.',
  }),
  check: message('check', {
    kind: 0x03,
    does: 'read',
    request: struct(diskAndBlock),
    reply: struct({ outcome: choice('whole', 'bad'), size: u32, crc: u32, pages: list(u32, PAGES_MAX) }),
    meaning: 'Reads the whole block from the device, and compares it with its checksums.',
  }),
  erase: message('erase', {
    kind: 0x04,
    does: 'write',
    request: struct({ ...diskAndBlock, permit: seal }),
    reply: struct({ receipt: seal }),
    meaning: 'Erases a block; also one that is not there.',
  }),
  disks: message('disks', {
    kind: 0x05,
    does: 'read',
    request: struct({}),
    reply: struct({
      disks: list(
        struct({ disk: diskId, status: text(16), failure: text(1024), usedBytes: u53, freeBytes: u53 }),
        1024,
      ),
    }),
    meaning: 'The disks of the service, and how they are.',
  }),
}

export const BLOCK_MESSAGES = new MessageTable('Block service', blockMessages)

export type FetchReply = ValueOf<typeof blockMessages.fetch.reply>
