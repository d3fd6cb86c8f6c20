/** What a shard process does by itself, as entries of its journal. No frame that comes in is taken for one: they stand in no table of what is answered. */
import { fixedBytes, list, struct, text, u8 } from '#cluster/wire/codec.ts'
import { diskId, diskKey } from '#cluster/wire/forms.ts'
import { message } from '#cluster/wire/message.ts'

const nothing = struct({})

export const ownMessages = {
  begin: message('begin', {
    kind: 0xf0,
    does: 'write',
    request: struct({ first: u8, last: u8, secret: fixedBytes(32) }),
    reply: nothing,
    meaning: 'The first start: which shards these are; with shard 0 comes the root.',
  }),
  learnDisks: message('learnDisks', {
    kind: 0xf1,
    does: 'write',
    request: struct({
      disks: list(struct({ disk: diskId, key: diskKey, class: u8, domain: text(255) }), 1024),
    }),
    reply: nothing,
    meaning: 'What the registry says of disks, as far as what is done depends on that.',
  }),
  forget: message('forget', {
    kind: 0xf2,
    does: 'write',
    request: struct({ from: text(64) }),
    reply: struct({ next: text(64) }),
    meaning: 'Forgets the answers to clients that have not been heard of.',
  }),
}
