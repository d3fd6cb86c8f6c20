/**
 * Random steps on a tree for `tree-worker.py`: few names, so that steps meet; sizes around pages, and now and then as large
 * as what goes up in parts. Times that are set lie long ago, so that they are told from the clock's.
 */
import { constants } from 'node:fs'

import fc from 'fast-check'

/** One step; its other members are the arguments of the call. */
export interface TreeStep {
  readonly do: string
  readonly [argument: string]: string | number | boolean
}

const { O_RDONLY, O_WRONLY, O_RDWR, O_CREAT, O_EXCL, O_TRUNC, O_APPEND, O_NOFOLLOW } = constants
/** Open files at a time. */
const SLOTS = 4
const RENAME_NOREPLACE = 1
const RENAME_EXCHANGE = 2
const FALLOC_KEEP_SIZE = 1
const FALLOC_PUNCH_HOLE = 2
const FALLOC_ZERO_RANGE = 16
const XATTR_CREATE = 1
const XATTR_REPLACE = 2
const LARGE_BYTES = 24 << 20

const path = fc.constantFrom(
  'a',
  'b',
  'd',
  'e',
  'd/a',
  'd/b',
  'e/a',
  'd/e',
  'd/e/a',
  'ü b',
  'a/b',
  `d/${'n'.repeat(255)}`,
)
const rarePath = fc.oneof({ weight: 30, arbitrary: path }, { weight: 1, arbitrary: fc.constant('n'.repeat(256)) })
const slot = fc.nat(SLOTS - 1)
const seed = fc.nat(1_000_000)
const size = fc.oneof(
  { weight: 4, arbitrary: fc.integer({ min: 1, max: 200 }) },
  { weight: 3, arbitrary: fc.integer({ min: 3900, max: 4300 }) },
  { weight: 3, arbitrary: fc.integer({ min: 1, max: 150_000 }) },
)
const offset = fc.oneof(
  { weight: 40, arbitrary: fc.nat(300) },
  { weight: 30, arbitrary: fc.integer({ min: 4000, max: 8200 }) },
  { weight: 30, arbitrary: fc.nat(150_000) },
  { weight: 1, arbitrary: fc.integer({ min: LARGE_BYTES, max: LARGE_BYTES + 10_000 }) },
)
const anySize = fc.oneof({ weight: 1, arbitrary: fc.constant(0) }, { weight: 6, arbitrary: offset })
const mode = fc.constantFrom(0o600, 0o644, 0o755, 0o444, 0o2755, 0o1777, 0o4755)
const openFlags = fc
  .record({
    access: fc.constantFrom(O_RDONLY, O_WRONLY, O_RDWR, O_RDWR),
    more: fc.constantFrom(0, 0, O_CREAT, O_CREAT, O_CREAT | O_TRUNC, O_CREAT | O_EXCL, O_TRUNC, O_APPEND),
  })
  // To truncate what is opened for reading alone is unspecified.
  .map(({ access, more }) => O_NOFOLLOW | access | (access === O_RDONLY ? more & ~O_TRUNC : more))
const time = fc
  .integer({ min: 0, max: 900_000_000 })
  .map((seconds) => seconds * 1_000_000_000 + ((seconds * 7919) % 1_000) * 1_000)

type Arguments = Readonly<Record<string, fc.Arbitrary<string | number | boolean>>>

function step(name: string, weight: number, takes: Arguments): { weight: number; arbitrary: fc.Arbitrary<TreeStep> } {
  return { weight, arbitrary: fc.record({ do: fc.constant(name), ...takes }) }
}

/** Any step. */
export const treeStep: fc.Arbitrary<TreeStep> = fc.oneof(
  step('open', 14, { slot, path: rarePath, flags: openFlags }),
  step('close', 10, { slot }),
  step('pwrite', 12, { slot, offset, size, seed }),
  step('write', 6, { slot, size, seed }),
  step('read', 4, { slot, size }),
  step('pread', 8, { slot, offset, size }),
  step('seek', 2, { slot, offset: fc.nat(5000), whence: fc.constantFrom(0, 1, 2) }),
  step('mapped', 4, { slot, offset, size, seed, sync: fc.boolean() }),
  step('ftruncate', 5, { slot, size: anySize }),
  step('truncate', 4, { path, size: anySize }),
  step('fallocate', 5, {
    slot,
    offset,
    size,
    mode: fc.constantFrom(
      0,
      FALLOC_KEEP_SIZE,
      FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE,
      FALLOC_ZERO_RANGE,
      FALLOC_ZERO_RANGE | FALLOC_KEEP_SIZE,
    ),
  }),
  step('copyrange', 3, { slot, to: slot, offset, at: offset, size }),
  step('fsync', 5, { slot }),
  step('fstat', 5, { slot }),
  step('writefile', 10, { path, size: fc.oneof(fc.constant(0), size), seed }),
  step('readfile', 8, { path }),
  step('rename', 9, { from: path, to: path, flags: fc.constantFrom(0, 0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE) }),
  step('unlink', 5, { path }),
  step('mkdir', 5, { path: rarePath, mode: fc.constantFrom(0o755, 0o2775, 0o700) }),
  step('rmdir', 3, { path }),
  step('symlink', 3, { path: rarePath, target: fc.constantFrom('a', 'd/a', '../x', 'ü b') }),
  step('readlink', 2, { path }),
  step('mkfifo', 1, { path }),
  step('chmod', 4, { path, mode }),
  // Of one that changes neither the kernel tells a mount nothing that would have it take set-id bits off.
  step('chown', 3, { path, uid: fc.constantFrom(0, 1000), gid: fc.constantFrom(-1, 0, 1000) }),
  step('utimes', 4, { path, atime: time, mtime: time }),
  step('setxattr', 3, {
    path,
    name: fc.constantFrom('user.one', 'user.two'),
    size: fc.constantFrom(0, 5, 100),
    seed,
    flags: fc.constantFrom(0, 0, XATTR_CREATE, XATTR_REPLACE),
  }),
  step('removexattr', 2, { path, name: fc.constantFrom('user.one', 'user.two') }),
  step('listxattr', 2, { path }),
  step('readdir', 4, { path }),
  step('stat', 7, { path }),
)
