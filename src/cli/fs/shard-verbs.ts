/** The verbs about shards, disks and transient files, as they are called. */
import type { Argument, Command } from '#cli/command.ts'
import { verb } from './options.ts'
import { PATH } from './tree-verbs.ts'

const INODE: Argument = { name: 'INODE', help: 'of a transient file, as visit_eden shows it' }
const START: Argument = {
  name: 'START',
  help: 'a shard, or an inode: those of its shard from it on; all shards where it is left out',
  optional: true,
}

export const SHARD_VERBS: readonly Command[] = [
  verb({
    name: 'create_eden_file',
    summary: 'a transient file: one that has no name yet',
    description:
      'Makes a transient file on the shard of a directory, and prints its inode and cookie. It is given up after an hour.',
    arguments: [{ ...PATH, help: 'a directory of the cluster' }],
    run: async (session, [path = '']) => (await import('./making-files.ts')).createTransient(session, path),
  }),
  verb({
    name: 'expunge_span',
    summary: 'removes the last span of a transient file',
    description:
      'Erases the blocks of the last span of a transient file, and removes the span. Blocks have to be an hour old.',
    arguments: [INODE],
    run: async (session, [inode = '']) => (await import('./shards.ts')).expungeSpan(session, inode),
  }),
  verb({
    name: 'expunge_file',
    summary: 'removes a transient file with all its spans',
    description: 'Erases all blocks of a transient file, and removes it. Blocks have to be an hour old.',
    arguments: [INODE],
    run: async (session, [inode = '']) => (await import('./shards.ts')).expungeFile(session, inode),
  }),
  verb({
    name: 'visit_inodes',
    summary: 'every directory and file that shards have',
    description: 'Lists directories, files and symlinks, those of the history among them, one inode a line.',
    arguments: [START],
    run: async (session, [start]) => (await import('./shards.ts')).visitInodes(session, start),
  }),
  verb({
    name: 'visit_eden',
    summary: 'every transient file that shards have',
    description: 'Lists transient files: each inode, and until when it may be written.',
    arguments: [START],
    run: async (session, [start]) => (await import('./shards.ts')).visitTransient(session, start),
  }),
  verb({
    name: 'reverse_block_query',
    summary: 'whose blocks lie on a disk',
    description: 'Lists the blocks that the shards have on a disk: each block, its file, and the offset of its span.',
    arguments: [{ name: 'DISK', help: 'its number, as the page of the registry and "locations" show it' }],
    run: async (session, [disk = '']) => (await import('./shards.ts')).blocksOfDisk(session, disk),
  }),
]
