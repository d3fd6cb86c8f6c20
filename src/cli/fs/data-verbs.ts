/** The verbs about the bytes of files, as they are called. */
import type { Command } from '#cli/command.ts'
import { verb } from './options.ts'
import { AS_OF, PATH, PATHS } from './tree-verbs.ts'
import { boolean } from '#cli/options.ts'

const GROUP = 'Verb'

export const DATA_VERBS: readonly Command[] = [
  verb({
    name: 'cat',
    summary: 'the bytes of files',
    description:
      'Prints files as they are. As many blocks of each span may be missing as it has parity. Also takes inodes.',
    arguments: [PATHS],
    options: { asOf: AS_OF },
    run: async (session, paths, { asOf }) => (await import('./reading.ts')).concatenate(session, paths, asOf),
  }),
  verb({
    name: 'cp',
    summary: 'copies into the cluster, out of it, and within it',
    description:
      'Copies files and trees. A path of the cluster has a colon before it, as with scp; "-" is standard input or output; all else is of this machine. Modes and modification times are kept. A TARGET that is a directory is copied into; SOURCE/. means what lies in the directory.',
    arguments: [
      { name: 'SOURCE', help: ':/PATH of the cluster, a path of this machine, or -', many: true },
      { name: 'TARGET', help: ':/PATH of the cluster, a path of this machine, or -' },
    ],
    options: {
      recursive: boolean({ help: 'Directories with all that lies in them', group: GROUP, short: 'r' }),
      metadata: boolean({ help: 'Keeps owners and extended attributes, too', group: GROUP }),
      asOf: AS_OF,
    },
    examples: [
      { line: 'eider fs cp -r ./photos :/photos', help: 'a tree into the cluster' },
      { line: 'eider fs cp :/photos/one.jpg .', help: 'a file out of it' },
      { line: 'tar c . | eider fs cp - :/backup.tar', help: 'from standard input' },
      { line: 'eider fs cp -r --as-of 1h :/photos :/photos-before', help: 'a tree as it was an hour ago' },
    ],
    run: async (session, args, values) => (await import('./copy.ts')).copy(session, args, values),
  }),
  verb({
    name: 'locations',
    summary: 'where the bytes of a file lie',
    description:
      'Shows each span of a file, how redundant it is, and each of its blocks: on which disk, where, how that is.',
    arguments: [{ ...PATH, name: 'FILE' }],
    run: async (session, [path = '']) => (await import('./reading.ts')).locations(session, path),
  }),
  verb({
    name: 'create_test_file',
    summary: 'a small file in three spans',
    description:
      'Makes a file of 22 bytes in three spans: "hello," inline, " world" mirrored on up to three disks, and ten zeros. Prints its inode.',
    arguments: [PATH, { name: 'CLASS', help: 'the storage class of the blocks, 2 or more', optional: true }],
    run: async (session, [path = '', storageClass]) =>
      (await import('./making-files.ts')).createTestFile(session, path, storageClass),
  }),
]
