/**
 * How directories are made and removed.
 *
 *   make:    createDirectory --> createEdge --> end
 *                                   '--refused--> removeOwner: a directory of history with none, which the collector removes
 *   remove:  lockEdge --> stat, of the directory and those above it, until all of its policy is known --> removeOwner --> leave
 *                                                                                     not empty or removed --> stay
 *   forget:  removeDirectory
 *
 * A removed directory has all of its policy itself, since it lies nowhere from then on.
 */
import { ROOT_INODE, type InodeId } from '#cluster/inode-id.ts'
import { checkName } from '#cluster/shard/names.ts'
import { shardMessages } from '#cluster/shard/shard-messages.ts'
import { EMPTY_POLICY, NO_INODE, NOTHING, type Policy } from '#cluster/wire/forms.ts'

import { checkIsDirectory, checkNotRoot, checkOther } from './checks.ts'
import { coordinatorMessages } from './coordinator-messages.ts'
import { course, END, stepsOf, type RequestOf } from './course.ts'
import { checkDirectory, dropParent, setParent } from './parents.ts'

const making = stepsOf<RequestOf<typeof coordinatorMessages.makeDirectory>>()
const removing = stepsOf<RequestOf<typeof coordinatorMessages.removeDirectory>>()
const forgetting = stepsOf<RequestOf<typeof coordinatorMessages.hardUnlinkDirectory>>()

const makeDirectory = course(coordinatorMessages.makeDirectory, {
  check({ owner, name }) {
    checkIsDirectory(owner)
    checkName(name)
  },
  queues: ({ owner }) => [owner],
  begin({ owner }, variables, state, newDirectory) {
    checkDirectory(state, owner)
    variables.inode = newDirectory()
    return 'createDirectory'
  },
  steps: {
    createDirectory: making({
      message: shardMessages.createDirectory,
      about: (_, { inode }) => inode,
      request: ({ owner, attributes }, { inode }) => ({ directory: inode, owner, attributes }),
      answered: () => 'createEdge',
      refused: END,
    }),
    createEdge: making({
      message: shardMessages.createEdge,
      about: ({ owner }) => owner,
      request: ({ owner, name }, { inode }) => ({ directory: owner, name, target: inode, guard: NOTHING }),
      answered(variables, { created }) {
        variables.created = created
        return END
      },
      refused: 'removeOwner',
    }),
    removeOwner: making({
      message: shardMessages.removeOwner,
      about: (_, { inode }) => inode,
      request: (_, { inode }) => ({ directory: inode, policy: undefined }),
      answered: () => END,
      refused: END,
      isSure: true,
    }),
  },
  end({ owner }, { inode, created }, batch) {
    setParent(batch, inode, owner)
    return { inode, created }
  },
})

const removeDirectory = course(coordinatorMessages.removeDirectory, {
  check({ owner, name, directory }) {
    checkIsDirectory(owner)
    checkIsDirectory(directory)
    checkName(name)
    checkNotRoot(directory, 'remove')
    checkOther(owner, directory, 'a directory does not lie in itself')
  },
  queues: ({ owner, directory }) => [owner, directory],
  begin({ owner, directory }, variables, state) {
    checkDirectory(state, owner)
    checkDirectory(state, directory)
    variables.inode = directory
    variables.policy = EMPTY_POLICY
    return 'lockEdge'
  },
  steps: {
    lockEdge: removing({
      message: shardMessages.lockEdge,
      about: ({ owner }) => owner,
      request: ({ owner, name, directory, created }) => ({ directory: owner, name, target: directory, created }),
      answered: () => 'stat',
      refused: END,
    }),
    stat: removing({
      message: shardMessages.stat,
      about: (_, { inode }) => inode,
      request: (_, { inode }) => ({ inode }),
      answered(variables, { owner, policy }) {
        const resolved = inherited(variables.policy ?? EMPTY_POLICY, policy ?? EMPTY_POLICY)
        variables.policy = resolved
        if (variables.inode === ROOT_INODE || owner === NO_INODE || isWhole(resolved)) return 'removeOwner'
        variables.inode = owner
        return 'stat'
      },
      // One above was moved and removed meanwhile: what it would have said is not known any more.
      refused: 'removeOwner',
      forgiven: ['INODE_NOT_FOUND'],
    }),
    removeOwner: removing({
      message: shardMessages.removeOwner,
      about: ({ directory }) => directory,
      request: ({ directory }, { policy }) => ({ directory, policy }),
      answered: () => 'leave',
      refused: 'stay',
    }),
    leave: removing({
      message: shardMessages.unlockEdge,
      about: ({ owner }) => owner,
      request: (asked) => unlock(asked, true),
      answered(variables, { removed }) {
        variables.removed = removed
        return END
      },
      refused: END,
      isSure: true,
    }),
    stay: removing({
      message: shardMessages.unlockEdge,
      about: ({ owner }) => owner,
      request: (asked) => unlock(asked, false),
      answered: () => END,
      refused: END,
      isSure: true,
    }),
  },
  end({ directory }, { removed }, batch) {
    dropParent(batch, directory)
    return { removed }
  },
})

const hardUnlinkDirectory = course(coordinatorMessages.hardUnlinkDirectory, {
  check({ directory }) {
    checkIsDirectory(directory)
    checkNotRoot(directory, 'remove')
  },
  queues: ({ directory }) => [directory],
  begin: () => 'removeDirectory',
  steps: {
    removeDirectory: forgetting({
      message: shardMessages.removeDirectory,
      about: ({ directory }) => directory,
      request: ({ directory }) => ({ directory }),
      answered: () => END,
      refused: END,
    }),
  },
  end: () => ({}),
})

export const directoryCourses = [makeDirectory, removeDirectory, hardUnlinkDirectory]

function unlock(
  { owner, name, directory, created }: RequestOf<typeof coordinatorMessages.removeDirectory>,
  hasLeft: boolean,
): { directory: InodeId; name: string; target: InodeId; created: number; hasLeft: boolean } {
  return { directory: owner, name, target: directory, created, hasLeft }
}

/** What a directory says itself, and where it says nothing, what the one above it says. */
function inherited(own: Policy, above: Policy): Policy {
  return {
    history: own.history ?? above.history,
    spans: own.spans ?? above.spans,
    classes: own.classes ?? above.classes,
    stripeBytes: own.stripeBytes ?? above.stripeBytes,
    inlineBytesMax: own.inlineBytesMax ?? above.inlineBytesMax,
  }
}

function isWhole(policy: Policy): boolean {
  return Object.values(policy).every((each) => each !== undefined)
}
