import assert from 'node:assert/strict'
import { test } from 'node:test'

import { type InodeId, makeInodeId, ROOT_INODE } from '#cluster/inode-id.ts'
import type { DirectoryEdge, ShardView } from '#sim/shard-view.ts'

import { noLockLeft } from './no-lock-left.ts'
import { oneTree } from './one-tree.ts'

const [a, b, c] = [1, 2, 3].map((counter) => makeInodeId('directory', 5, counter)) as [InodeId, InodeId, InodeId]
const NONE = 0 as InodeId

function view(owners: readonly [InodeId, InodeId][], ...edges: readonly DirectoryEdge[]): ShardView {
  return { owners: new Map([[ROOT_INODE, NONE], ...owners]), files: [], edges }
}

function edge(directory: InodeId, inode: InodeId, state: DirectoryEdge['state'] = 'current'): DirectoryEdge {
  return { directory, inode, state, name: 'name', created: 1 }
}

test('directories hang together as one tree', () => {
  const good = [edge(ROOT_INODE, a), edge(a, b), edge(ROOT_INODE, b, 'left'), edge(c, NONE, 'removed')]
  oneTree(
    view(
      [
        [a, ROOT_INODE],
        [b, a],
        [c, NONE],
      ],
      ...good,
    ),
  )
  const broken: readonly [RegExp, ShardView][] = [
    [/no current edge leads to it/, view([[a, ROOT_INODE]])],
    [
      /and takes \d+ for its owner/,
      view(
        [
          [a, ROOT_INODE],
          [b, ROOT_INODE],
        ],
        edge(ROOT_INODE, a),
        edge(a, b),
      ),
    ],
    [
      /is "name" in .*, and in /,
      view(
        [
          [a, ROOT_INODE],
          [b, a],
        ],
        edge(ROOT_INODE, a),
        edge(a, b),
        edge(a, b, 'locked'),
      ),
    ],
    [
      /that directory is not there/,
      view(
        [
          [a, NONE],
          [b, a],
        ],
        edge(a, b),
      ),
    ],
    [
      /lies in itself/,
      view(
        [
          [a, b],
          [b, a],
        ],
        edge(a, b),
        edge(b, a),
      ),
    ],
  ]
  for (const [complaint, each] of broken) assert.throws(() => oneTree(each), complaint)
})

test('no edge may be locked once nothing is under way', () => {
  noLockLeft(view([], edge(ROOT_INODE, a), edge(ROOT_INODE, b, 'owned')))
  assert.throws(() => noLockLeft(view([], edge(ROOT_INODE, a, 'locked'))), /is locked, and nothing is under way/)
})
