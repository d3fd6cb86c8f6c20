/**
 * How files and directories move from one directory to another, and how history lets go of a file that lies on another shard.
 *
 *   move a file:       lockEdge --> createEdge --> leave
 *   move a directory:  lockEdge --> createEdge --> setOwner --> leave
 *                                       '--refused--> stay
 *   forget a file:     removeOwnedEdge --> makeTransient
 *
 * `leave` and `stay` end the lock, both by the time at which the old edge was made: what stays is as it was.
 */
import { OperationError } from '#base/errors.ts'
import { inodeShard, shownInode, type InodeId } from '#cluster/inode-id.ts'
import { checkName } from '#cluster/shard/names.ts'
import { shardMessages } from '#cluster/shard/shard-messages.ts'
import { NOTHING } from '#cluster/wire/forms.ts'

import { checkIsDirectory, checkIsFile, checkNotRoot, checkOther } from './checks.ts'
import { coordinatorMessages } from './coordinator-messages.ts'
import { course, END, stepsOf, type CourseStep, type Next, type RequestOf } from './course.ts'
import { checkDirectory, checkLoop, setParent } from './parents.ts'
import { MOVING_DIRECTORIES } from './queues.ts'

type Move = RequestOf<typeof coordinatorMessages.moveFile>
const moving = stepsOf<Move>()
const forgetting = stepsOf<RequestOf<typeof coordinatorMessages.hardUnlinkFile>>()

const lockEdge = moving({
  message: shardMessages.lockEdge,
  about: ({ from }) => from,
  request: ({ inode, from, fromName, created }) => ({ directory: from, name: fromName, target: inode, created }),
  answered: () => 'createEdge',
  refused: END,
})

/**
 * The lock of another transaction cannot stand in its way: who locks a name is in the queue of that directory until the lock is gone,
 * and so is this one; its own lock lies in another directory.
 */
function createEdge(guardOf: (move: Move) => Move['guard'], next: Next): CourseStep {
  return moving({
    message: shardMessages.createEdge,
    about: ({ to }) => to,
    request: (move) => ({ directory: move.to, name: move.toName, target: move.inode, guard: guardOf(move) }),
    answered(variables, { created, replaced }) {
      variables.created = created
      variables.replaced = replaced
      return next
    },
    refused: 'stay',
  })
}

function unlockEdge(hasLeft: boolean): CourseStep {
  return moving({
    message: shardMessages.unlockEdge,
    about: ({ from }) => from,
    request: ({ inode, from, fromName, created }) => ({
      directory: from,
      name: fromName,
      target: inode,
      created,
      hasLeft,
    }),
    answered: () => END,
    refused: END,
    isSure: true,
  })
}

const moveFile = course(coordinatorMessages.moveFile, {
  check(move) {
    checkMove(move)
    checkIsFile(move.inode)
  },
  queues: ({ from, to }) => [from, to],
  begin({ from, to }, _, state) {
    checkDirectory(state, from)
    checkDirectory(state, to)
    return 'lockEdge'
  },
  steps: {
    lockEdge,
    createEdge: createEdge(({ guard }) => guard, 'leave'),
    leave: unlockEdge(true),
    stay: unlockEdge(false),
  },
  end: (_, { created, replaced }) => ({ created, replaced }),
})

const moveDirectory = course(coordinatorMessages.moveDirectory, {
  check(move) {
    checkIsDirectory(move.inode)
    checkNotRoot(move.inode, 'move')
    checkMove(move)
  },
  queues: ({ from, to }) => [from, to, MOVING_DIRECTORIES],
  begin({ inode, from, to }, _, state) {
    checkDirectory(state, from)
    checkDirectory(state, inode)
    checkLoop(state, inode, to)
    return 'lockEdge'
  },
  steps: {
    lockEdge,
    createEdge: createEdge(() => NOTHING, 'setOwner'),
    setOwner: moving({
      message: shardMessages.setOwner,
      about: ({ inode }) => inode,
      request: ({ inode, to }) => ({ directory: inode, owner: to }),
      answered: () => 'leave',
      refused: 'leave',
      isSure: true,
    }),
    leave: unlockEdge(true),
    stay: unlockEdge(false),
  },
  end({ inode, to }, { created }, batch) {
    setParent(batch, inode, to)
    return { created }
  },
})

const hardUnlinkFile = course(coordinatorMessages.hardUnlinkFile, {
  check({ directory, name, file }) {
    checkIsDirectory(directory)
    checkIsFile(file)
    checkName(name)
    if (inodeShard(directory) !== inodeShard(file)) return
    const detail = `it lies on the shard of directory ${shownInode(directory)}`
    throw new OperationError('INPUT_INVALID', `Cannot forget file ${shownInode(file)}: ${detail}`, {
      hint: 'Ask the shard itself, by hardUnlink.',
    })
  },
  queues: ({ directory }) => [directory],
  begin: () => 'removeOwnedEdge',
  steps: {
    removeOwnedEdge: forgetting({
      message: shardMessages.removeOwnedEdge,
      about: ({ directory }) => directory,
      request: ({ directory, name, created, file }) => ({ directory, name, created, file }),
      answered: () => 'makeTransient',
      refused: END,
    }),
    makeTransient: forgetting({
      message: shardMessages.makeTransient,
      about: ({ file }) => file,
      request: ({ file }) => ({ file }),
      answered: () => END,
      refused: END,
      forgiven: ['INODE_NOT_FOUND'],
      isSure: true,
    }),
  },
  end: () => ({}),
})

export const moveCourses = [moveFile, moveDirectory, hardUnlinkFile]

function checkMove({
  from,
  fromName,
  to,
  toName,
}: {
  from: InodeId
  fromName: string
  to: InodeId
  toName: string
}): void {
  checkIsDirectory(from)
  checkIsDirectory(to)
  checkName(fromName)
  checkName(toName)
  checkOther(from, to, 'the move is within it', 'Ask the shard of the directory itself, by rename.')
}
