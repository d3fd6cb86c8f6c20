/** The verbs about names, directories and attributes, as they are called. */
import type { Argument, Command } from '#cli/command.ts'
import { verb } from './options.ts'
import { boolean, bytes, choice, duration, string } from '#cli/options.ts'

const GROUP = 'Verb'
export const PATH: Argument = { name: 'PATH', help: 'of the cluster, absolute' }
export const PATHS: Argument = { ...PATH, many: true }
/** For verbs that look at what was. */
export const AS_OF = string({ help: 'As it was at that time', group: GROUP, placeholder: 'TIME' })

const recursive = boolean({ help: 'With all that lies in directories', group: GROUP, short: 'r' })

export const TREE_VERBS: readonly Command[] = [
  verb({
    name: 'ls',
    summary: 'the names in a directory',
    description: 'Lists a directory in order of bytes, one name a line; of a file, its name.',
    arguments: [PATH],
    options: {
      long: boolean({ help: 'With type, mode, owner, group, size and modification time', group: GROUP, short: 'l' }),
      asOf: AS_OF,
    },
    examples: [{ line: 'eider fs ls /a --as-of "10 minutes ago"', help: 'what was there then' }],
    run: async (session, [path = ''], values) => (await import('./listing.ts')).list(session, path, values),
  }),
  verb({
    name: 'stat',
    summary: 'what a file or directory is',
    description: 'Shows inode, type, times and all else of what a path leads to, a fact a line. Also takes inodes.',
    arguments: [PATHS],
    options: { asOf: AS_OF },
    run: async (session, paths, { asOf }) => (await import('./status.ts')).stat(session, paths, asOf),
  }),
  verb({
    name: 'resolve',
    summary: 'the inode that a path leads to',
    description: 'Prints the inode that a path leads to.',
    arguments: [PATH],
    run: async (session, [path = '']) => (await import('./status.ts')).resolve(session, path),
  }),
  verb({
    name: 'mkdir',
    summary: 'makes directories',
    description: 'Makes directories, and prints their inodes. Needs the coordinator.',
    arguments: [PATHS],
    options: {
      parents: boolean({ help: 'Also those on the way; one that is there is fine', group: GROUP, short: 'p' }),
    },
    run: async (session, paths, values) => (await import('./names.ts')).makeDirectories(session, paths, values),
  }),
  verb({
    name: 'rmdir',
    summary: 'removes empty directories',
    description: 'Removes directories that have nothing in them now. They stay in the history. Needs the coordinator.',
    arguments: [PATHS],
    run: async (session, paths) => (await import('./names.ts')).removeDirectories(session, paths),
  }),
  verb({
    name: 'rm',
    summary: 'removes files and symlinks',
    description:
      'Removes files and symlinks, which the history keeps for as long as the policy of their directory says.',
    arguments: [PATHS],
    options: { recursive },
    run: async (session, paths, values) => (await import('./names.ts')).remove(session, paths, values),
  }),
  verb({
    name: 'mv',
    summary: 'moves and renames',
    description:
      'Moves files and directories: into TARGET where that is a directory, else to that name. A file takes the place of a file; what was there becomes history.',
    arguments: [
      { name: 'SOURCE', help: 'a path of the cluster', many: true },
      { name: 'TARGET', help: 'a path of the cluster' },
    ],
    run: async (session, args) => (await import('./names.ts')).move(session, args),
  }),
  verb({
    name: 'ln',
    summary: 'makes symlinks',
    description: 'Makes a symlink. There are no hard links.',
    arguments: [{ name: 'TARGET', help: 'what it leads to, any text' }, PATH],
    options: {
      symbolic: boolean({ help: 'A symlink: has to be said', group: GROUP, short: 's' }),
      force: boolean({ help: 'Takes the place of a file or symlink', group: GROUP, short: 'f' }),
    },
    run: async (session, args, values) => (await import('./names.ts')).link(session, args, values),
  }),
  verb({
    name: 'find',
    summary: 'what lies in a tree',
    description: 'Lists what a path names and all that lies below it, one path a line, as far as it fits.',
    arguments: [PATH],
    options: {
      name: string({ help: 'Only names that fit', group: GROUP, placeholder: 'GLOB' }),
      type: choice(['f', 'd', 'l'], { help: 'Only files, directories or symlinks', group: GROUP }),
      minSize: bytes({ help: 'Only what has so many bytes or more', group: GROUP }),
      olderThan: duration({ help: 'Only what was last changed longer ago', group: GROUP }),
      asOf: AS_OF,
    },
    examples: [
      { line: "eider fs find / --name '*.log' --older-than 30d", help: 'logs that nobody has changed lately' },
    ],
    run: async (session, [path = ''], values) => (await import('./finding.ts')).find(session, path, values),
  }),
  verb({
    name: 'du',
    summary: 'how much room a tree takes',
    description: 'Adds up the bytes of files, for each directory of a tree. The history is not in it.',
    arguments: [PATH],
    options: {
      summary: boolean({ help: 'Only the whole', group: GROUP, short: 's' }),
      physical: boolean({ help: 'Bytes on disks, with all copies and parity', group: GROUP }),
    },
    run: async (session, [path = ''], values) => (await import('./finding.ts')).usage(session, path, values),
  }),
  verb({
    name: 'chmod',
    summary: 'changes modes',
    description: 'Changes the permissions of files and directories.',
    arguments: [{ name: 'MODE', help: 'octal, or such as u+x,go-w' }, PATHS],
    run: async (session, args) => (await import('./attributes.ts')).changeMode(session, args),
  }),
  verb({
    name: 'chown',
    summary: 'changes owners',
    description: 'Changes the owner, the group or both. The cluster keeps numbers; names are those of this machine.',
    arguments: [{ name: 'OWNER', help: 'USER, USER:GROUP or :GROUP' }, PATHS],
    run: async (session, args) => (await import('./attributes.ts')).changeOwner(session, args),
  }),
  verb({
    name: 'xattr',
    summary: 'extended attributes: get, set, list, remove',
    description: 'Shows and changes extended attributes. "get" prints the value as it is.',
    arguments: [
      { name: 'ACTION', help: 'list, get, set or remove' },
      PATH,
      { name: 'NAME', help: 'of the attribute', optional: true },
      { name: 'VALUE', help: 'what "set" sets', optional: true },
    ],
    run: async (session, args) => (await import('./attributes.ts')).attribute(session, args),
  }),
  verb({
    name: 'policy',
    summary: 'how what lies under a directory is stored and kept: get, set',
    description:
      'Shows what holds for what lies in a directory, and from which directory above it that comes; or sets what a directory says: history.age, history.versions, spans, classes, stripe, inline. Nothing after "=" takes it back.',
    arguments: [
      { name: 'ACTION', help: 'get or set' },
      PATH,
      { name: 'WORD=VALUE', help: 'what "set" sets', many: true, optional: true },
    ],
    examples: [
      {
        line: 'eider fs policy set /photos history.age=90d spans=64MiB:4+2',
        help: 'versions are kept 90 days; every file is stored as 4+2',
      },
    ],
    run: async (session, args) => (await import('./attributes.ts')).policy(session, args),
  }),
]
