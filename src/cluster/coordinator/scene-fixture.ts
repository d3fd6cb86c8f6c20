/** A small tree, and of each request one that can be done in it. */
import assert from 'node:assert/strict'

import { OperationError, type ErrorCode } from '#base/errors.ts'
import { ROOT_INODE, type InodeId } from '#cluster/inode-id.ts'
import type { ValueOf } from '#cluster/wire/codec.ts'
import { ANYTHING } from '#cluster/wire/forms.ts'

import { ATTRIBUTES, contentOf, CoordinatorBench, openRecords, type Request } from './coordinator-fixture.ts'
import { openTransactions, outstandingSteps } from './coordinator-machine.ts'
import { coordinatorMessages } from './coordinator-messages.ts'

const { makeDirectory, removeDirectory, moveFile, moveDirectory, hardUnlinkDirectory, hardUnlinkFile } =
  coordinatorMessages

export function refusal(code: ErrorCode): OperationError {
  return new OperationError(code, `Cannot do this: ${code}`)
}

export function refused(code: ErrorCode): (error: unknown) => boolean {
  return (error) => error instanceof OperationError && error.code === code
}

/** `/a`, `/b`, `/a/deep`, the file `/a/file`, and the history of a file of another shard in `/a`. */
export class Scene extends CoordinatorBench {
  readonly a = this.make(ROOT_INODE, 'a')
  readonly b = this.make(ROOT_INODE, 'b')
  readonly deep = this.make(this.a, 'deep')
  readonly file = this.world.makeFile(this.a, 'file')
  readonly gone = this.world.makeOwned(this.a, 'gone')

  make(owner: InodeId, name: string): InodeId {
    return this.run(makeDirectory, { owner, name, attributes: ATTRIBUTES }).inode
  }

  created(directory: InodeId, name: string): number {
    return this.world.edge(directory, name).created
  }

  makeRequest(owner: InodeId, name: string): ValueOf<typeof makeDirectory.request> {
    return { owner, name, attributes: ATTRIBUTES }
  }

  moveFileRequest(toName = 'moved'): ValueOf<typeof moveFile.request> {
    const { inode, created } = this.file
    return { inode, from: this.a, fromName: 'file', created, to: this.b, toName, guard: ANYTHING }
  }

  moveDirectoryRequest(to = this.b): ValueOf<typeof moveDirectory.request> {
    const created = this.created(this.a, 'deep')
    return { inode: this.deep, from: this.a, fromName: 'deep', created, to, toName: 'deep', guard: ANYTHING }
  }

  removeRequest(): ValueOf<typeof removeDirectory.request> {
    return { owner: this.a, name: 'deep', directory: this.deep, created: this.created(this.a, 'deep') }
  }

  forgetFileRequest(): ValueOf<typeof hardUnlinkFile.request> {
    return { directory: this.a, name: 'gone', created: this.gone.created, file: this.gone.inode }
  }

  /** Removed, with nothing left in it. */
  removed(): InodeId {
    this.run(removeDirectory, this.removeRequest())
    return this.deep
  }

  assertIdle(): void {
    assert.deepEqual(openRecords(this.state), [])
    assert.equal(openTransactions(this.state), 0)
    assert.deepEqual(outstandingSteps(this.state), [])
    assert.deepEqual(
      this.world.tree().filter((line) => line.includes(' ')),
      [],
    )
    assert.deepEqual(contentOf(this.replayed()), contentOf(this.state))
  }
}

export interface Course {
  readonly what: string
  readonly request: (scene: Scene) => Request
  readonly steps: readonly string[]
  readonly tree: readonly string[]
}

const FIRST_TREE = ['/a', '/a/deep', '/a/file', '/b']

export const COURSES: readonly Course[] = [
  {
    what: 'makeDirectory',
    request: ({ b }) => ({
      message: makeDirectory,
      request: { owner: b, name: 'new', attributes: ATTRIBUTES },
    }),
    steps: ['createDirectory', 'createEdge'],
    tree: ['/a', '/a/deep', '/a/file', '/b', '/b/new'],
  },
  {
    what: 'moveFile',
    request: (scene) => ({ message: moveFile, request: scene.moveFileRequest() }),
    steps: ['lockEdge', 'createEdge', 'unlockEdge'],
    tree: ['/a', '/a/deep', '/b', '/b/moved'],
  },
  {
    what: 'moveDirectory',
    request: (scene) => ({ message: moveDirectory, request: scene.moveDirectoryRequest() }),
    steps: ['lockEdge', 'createEdge', 'setOwner', 'unlockEdge'],
    tree: ['/a', '/a/file', '/b', '/b/deep'],
  },
  {
    what: 'removeDirectory',
    request: (scene) => ({ message: removeDirectory, request: scene.removeRequest() }),
    steps: ['lockEdge', 'stat', 'stat', 'stat', 'removeOwner', 'unlockEdge'],
    tree: ['/a', '/a/file', '/b'],
  },
  {
    what: 'hardUnlinkDirectory',
    request: (scene) => ({ message: hardUnlinkDirectory, request: { directory: scene.removed() } }),
    steps: ['removeDirectory'],
    tree: ['/a', '/a/file', '/b'],
  },
  {
    what: 'hardUnlinkFile',
    request: (scene) => ({ message: hardUnlinkFile, request: scene.forgetFileRequest() }),
    steps: ['removeOwnedEdge', 'makeTransient'],
    tree: FIRST_TREE,
  },
]

export function courseOf(what: string): Course {
  const found = COURSES.find((course) => course.what === what)
  assert.ok(found)
  return found
}
