/** What the coordinator answers: all that concerns two directories. A request is answered once it is done or has failed as a whole. */
import { struct } from '#cluster/wire/codec.ts'
import { guard, inode, inodeOrNone, name, newAttributes, stampUs } from '#cluster/wire/forms.ts'
import { message, MessageTable } from '#cluster/wire/message.ts'

const nothing = struct({})
const move = {
  inode,
  from: inode,
  fromName: name,
  /** When the name in `from` came to lead to the inode. */
  created: stampUs,
  to: inode,
  toName: name,
  guard,
}

export const coordinatorMessages = {
  makeDirectory: message('makeDirectory', {
    kind: 0x01,
    does: 'write',
    request: struct({ owner: inode, name, attributes: newAttributes }),
    reply: struct({ inode, created: stampUs }),
    meaning: 'A new directory. NAME_TAKEN where anything has the name.',
  }),
  removeDirectory: message('removeDirectory', {
    kind: 0x02,
    does: 'write',
    request: struct({ owner: inode, name, directory: inode, created: stampUs }),
    reply: struct({ removed: stampUs }),
    meaning: 'An empty directory becomes history.',
  }),
  moveFile: message('moveFile', {
    kind: 0x03,
    does: 'write',
    request: struct(move),
    reply: struct({ created: stampUs, replaced: inodeOrNone }),
    meaning: 'A file or symlink moves to another directory.',
  }),
  moveDirectory: message('moveDirectory', {
    kind: 0x04,
    does: 'write',
    request: struct(move),
    reply: struct({ created: stampUs }),
    meaning: 'A directory moves to another one, which does not lie under it. It takes the place of nothing.',
  }),
  hardUnlinkDirectory: message('hardUnlinkDirectory', {
    kind: 0x05,
    does: 'write',
    request: struct({ directory: inode }),
    reply: nothing,
    meaning: 'Forgets a directory that is history and has none left itself.',
  }),
  hardUnlinkFile: message('hardUnlinkFile', {
    kind: 0x06,
    does: 'write',
    request: struct({ directory: inode, name, created: stampUs, file: inode }),
    reply: nothing,
    meaning: 'Forgets an edge of the history that owns a file of another shard, which is given up.',
  }),
}

export const COORDINATOR_MESSAGES = new MessageTable('Coordinator', coordinatorMessages)
