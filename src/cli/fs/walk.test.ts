/** Walks over trees that are made up as they are listed: their order, and that no depth is too much. */
import assert from 'node:assert/strict'
import { test } from 'node:test'

import { OperationError } from '#base/errors.ts'
import { type InodeId, inodeType, makeInodeId, ROOT_INODE } from '#cluster/inode-id.ts'
import type { Listed } from '#cluster/client/cluster-client.ts'

import { walk } from './walk.ts'

/** A tree by the pages of each directory, whose names are told by what is listed: `d` begins that of a directory. */
class Tree {
  /** Directories in the order in which they were listed. */
  readonly listed: string[] = []
  readonly #paths: string[] = ['']
  readonly #pagesOf: (path: string) => readonly (readonly string[])[]

  constructor(pagesOf: (path: string) => readonly (readonly string[])[]) {
    this.#pagesOf = pagesOf
  }

  async *list(directory: InodeId): AsyncGenerator<readonly Listed[], void, undefined> {
    const path = directory === ROOT_INODE ? '' : (this.#paths[directory - makeInodeId('directory', 0, 0)] ?? '')
    this.listed.push(path)
    for (const page of this.#pagesOf(path)) yield page.map((name) => this.#entry(path, name))
  }

  async paths(): Promise<string[]> {
    const found: string[] = []
    for await (const { path, entry, depth } of walk(this, '/', ROOT_INODE, {})) {
      assert.equal(depth, path.split('/').length - 1)
      found.push(inodeType(entry.inode) === 'directory' ? `${path}/` : path)
    }
    return found
  }

  #entry(path: string, name: string): Listed {
    const isDirectory = name.startsWith('d')
    const number = this.#paths.push(`${path}/${name}`) - 1
    const inode = makeInodeId(isDirectory ? 'directory' : 'file', 0, number)
    return { name, inode, created: 1, status: undefined }
  }
}

test('each directory comes before what lies in it, and all in the order of listings', async () => {
  const pages: Readonly<Record<string, string[][]>> = {
    '': [['a', 'd1', 'f'], ['d2'], ['z']],
    '/d1': [['d', 'x'], ['y']],
    '/d1/d': [[]],
    '/d2': [['d3'], []],
  }
  const tree = new Tree((path) => pages[path] ?? [])
  assert.deepEqual(await tree.paths(), ['/a', '/d1/', '/d1/d/', '/d1/x', '/d1/y', '/f', '/d2/', '/d2/d3/', '/z'])
})

test('of many directories some are listed ahead, and each once', async () => {
  const names = Array.from({ length: 100 }, (_, index) => `d${String(index).padStart(2, '0')}`)
  const tree = new Tree((path) => (path === '' ? [names] : [['x']]))
  assert.equal((await tree.paths()).length, 200)
  assert.deepEqual(tree.listed, ['', ...names.map((name) => `/${name}`)])
})

test('what is removed before it is its turn has nothing in it; of what was named itself, that is told', async () => {
  const gone = (path: string) => new OperationError('DIRECTORY_REMOVED', `Cannot list "${path}": it is removed`)
  const tree = new Tree((path) => {
    if (path === '/d2') throw gone(path)
    return path === '' ? [['d1', 'd2', 'd3']] : [['x']]
  })
  assert.deepEqual(await tree.paths(), ['/d1/', '/d1/x', '/d2/', '/d3/', '/d3/x'])
  const removed = new Tree((path) => {
    throw gone(path)
  })
  await assert.rejects(removed.paths(), { code: 'DIRECTORY_REMOVED' })
  const broken = new Tree((path) => {
    if (path === '/d') throw new OperationError('CLUSTER_UNREACHABLE', 'Cannot list "/d": nobody answers')
    return [['d']]
  })
  await assert.rejects(broken.paths(), { code: 'CLUSTER_UNREACHABLE' })
})

test('a tree may be as deep as it likes', async () => {
  let depth = 0
  const tree = new Tree(() => (++depth > 20_000 ? [['end']] : [['d']]))
  let last = 0
  for await (const walked of walk(tree, '/', ROOT_INODE, {})) last = walked.depth
  assert.equal(last, 20_001)
})
