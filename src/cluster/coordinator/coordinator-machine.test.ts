import assert from 'node:assert/strict'
import { suite, test } from 'node:test'

import type { ErrorCode } from '#base/errors.ts'
import { inodeShard, makeInodeId, ROOT_INODE, type InodeId } from '#cluster/inode-id.ts'
import { shardMessages } from '#cluster/shard/shard-messages.ts'
import { EMPTY_POLICY, NO_INODE, NOTHING } from '#cluster/wire/forms.ts'

import type { Request } from './coordinator-fixture.ts'
import { openTransactions } from './coordinator-machine.ts'
import { coordinatorMessages } from './coordinator-messages.ts'
import { courseOf, COURSES, refusal, refused, Scene } from './scene-fixture.ts'

const { makeDirectory, removeDirectory, moveFile, moveDirectory, hardUnlinkDirectory, hardUnlinkFile } =
  coordinatorMessages

interface Undone {
  readonly what: string
  /** The step that is refused, and by what. */
  readonly at: number
  readonly code: ErrorCode
  /** What is asked after that. */
  readonly after: readonly string[]
  /** Where it is done all the same. */
  readonly isDone?: boolean
  readonly surprises?: readonly string[]
}

const UNDONE: readonly Undone[] = [
  { what: 'makeDirectory', at: 0, code: 'INPUT_INVALID', after: [] },
  { what: 'makeDirectory', at: 1, code: 'NAME_TAKEN', after: ['removeOwner'] },
  { what: 'makeDirectory', at: 1, code: 'DIRECTORY_REMOVED', after: ['removeOwner'] },
  { what: 'moveFile', at: 0, code: 'EDGE_CHANGED', after: [] },
  { what: 'moveFile', at: 1, code: 'NAME_TAKEN', after: ['unlockEdge'] },
  { what: 'moveFile', at: 1, code: 'EDGE_CHANGED', after: ['unlockEdge'] },
  { what: 'moveDirectory', at: 0, code: 'NAME_NOT_FOUND', after: [] },
  { what: 'moveDirectory', at: 1, code: 'NAME_TAKEN', after: ['unlockEdge'] },
  { what: 'removeDirectory', at: 0, code: 'EDGE_CHANGED', after: [] },
  { what: 'removeDirectory', at: 4, code: 'DIRECTORY_NOT_EMPTY', after: ['unlockEdge'] },
  {
    what: 'removeDirectory',
    at: 2,
    code: 'INODE_NOT_FOUND',
    after: ['removeOwner', 'unlockEdge'],
    isDone: true,
  },
  { what: 'hardUnlinkDirectory', at: 0, code: 'DIRECTORY_NOT_EMPTY', after: [] },
  { what: 'hardUnlinkFile', at: 0, code: 'EDGE_CHANGED', after: [] },
  { what: 'hardUnlinkFile', at: 1, code: 'INODE_NOT_FOUND', after: [], isDone: true },
]

/** What no state of the shards leads to: it goes on to its end, says so, and is refused. */
const SURPRISES: readonly Undone[] = [
  { what: 'moveFile', at: 2, code: 'EDGE_CHANGED', after: [], surprises: ['leave EDGE_CHANGED'] },
  {
    what: 'moveDirectory',
    at: 2,
    code: 'DIRECTORY_REMOVED',
    after: ['unlockEdge'],
    surprises: ['setOwner DIRECTORY_REMOVED'],
  },
  { what: 'removeDirectory', at: 5, code: 'EDGE_CHANGED', after: [], surprises: ['leave EDGE_CHANGED'] },
  { what: 'hardUnlinkFile', at: 1, code: 'INPUT_INVALID', after: [], surprises: ['makeTransient INPUT_INVALID'] },
]

suite('the course of a transaction', () => {
  for (const { what, request, steps, tree } of COURSES) {
    test(`${what} is done step by step`, () => {
      const scene = new Scene()
      const asked = request(scene)
      const id = scene.submit(asked.message, asked.request)
      assert.deepEqual(scene.drain(), steps)
      scene.reply(asked.message, id)
      assert.deepEqual(scene.world.tree(), tree)
      scene.assertIdle()
    })
  }

  for (const { what, at, code, after, isDone = false } of UNDONE) {
    test(`${what}, refused at step ${at} by ${code}, ${isDone ? 'is done' : 'leaves all as it was'}`, () => {
      const scene = new Scene()
      const asked = courseOf(what).request(scene)
      const before = scene.world.tree()
      const id = scene.submit(asked.message, asked.request)
      for (let step = 0; step < at; step++) {
        const next = scene.take()
        scene.give(next, scene.world.answer(next))
      }
      scene.give(scene.take(), { refusal: refusal(code) })
      assert.deepEqual(scene.drain(), after)
      if (isDone) scene.reply(asked.message, id)
      else assert.throws(() => scene.reply(asked.message, id), refused(code))
      if (!isDone) assert.deepEqual(scene.world.tree(), before)
      assert.deepEqual(scene.surprises, [])
      scene.assertIdle()
    })
  }

  for (const { what, at, code, after, surprises } of SURPRISES) {
    test(`${what}, refused at step ${at} where that cannot be, ends and says so`, () => {
      const scene = new Scene()
      const asked = courseOf(what).request(scene)
      const id = scene.submit(asked.message, asked.request)
      for (let step = 0; step < at; step++) {
        const next = scene.take()
        scene.give(next, scene.world.answer(next))
      }
      scene.give(scene.take(), { refusal: refusal(code) })
      assert.deepEqual(scene.drain(), after)
      assert.throws(() => scene.reply(asked.message, id), refused(code))
      assert.deepEqual(scene.surprises, surprises)
      assert.equal(openTransactions(scene.state), 0)
    })
  }

  test('a directory is not made over a name that is there, and history keeps none of it', () => {
    const scene = new Scene()
    const id = scene.submit(makeDirectory, scene.makeRequest(scene.a, 'file'))
    const made = scene.steps[0]?.request as { directory: InodeId }
    assert.deepEqual(scene.drain(), ['createDirectory', 'createEdge', 'removeOwner'])
    assert.throws(() => scene.reply(makeDirectory, id), refused('NAME_TAKEN'))
    const status = scene.world.ask(made.directory, shardMessages.stat, { inode: made.directory })
    assert.equal(status.owner, NO_INODE)
    assert.throws(() => scene.make(made.directory, 'x'), refused('INODE_NOT_FOUND'))
    scene.assertIdle()
  })

  test('a file that moves takes the place of another one, which history owns from then on', () => {
    const scene = new Scene()
    const other = scene.world.makeFile(scene.b, 'other')
    const { replaced } = scene.run(moveFile, scene.moveFileRequest('other'))
    assert.equal(replaced, other.inode)
    assert.deepEqual(scene.world.past(scene.b), ['other owned'])
    assert.deepEqual(scene.world.past(scene.a).slice(0, 2), ['file left', 'file removed'])
    assert.equal(scene.world.edge(scene.b, 'other').inode, scene.file.inode)
    for (const [, count] of scene.world.owners()) assert.equal(count, 1)
    scene.assertIdle()
  })

  test('a move that fails leaves the name with the time of its making', () => {
    const scene = new Scene()
    scene.world.makeFile(scene.b, 'moved')
    const move = { ...scene.moveFileRequest(), guard: NOTHING }
    assert.throws(() => scene.run(moveFile, move), refused('NAME_TAKEN'))
    assert.equal(scene.created(scene.a, 'file'), scene.file.created)
    assert.deepEqual(scene.run(moveFile, { ...move, toName: 'free' }).replaced, NO_INODE)
    scene.assertIdle()
  })

  test('a directory with names in it is not removed, and can be used further', () => {
    const scene = new Scene()
    scene.make(scene.deep, 'inside')
    assert.throws(() => scene.run(removeDirectory, scene.removeRequest()), refused('DIRECTORY_NOT_EMPTY'))
    scene.make(scene.deep, 'more')
    assert.ok(scene.world.tree().includes('/a/deep/more'))
    scene.assertIdle()
  })

  test('a removed directory keeps all of its policy, own fields before those above', () => {
    const scene = new Scene()
    const set = (directory: InodeId, policy: object): void => {
      scene.world.ask(directory, shardMessages.setPolicy, { directory, policy: { ...EMPTY_POLICY, ...policy } })
    }
    set(scene.deep, { inlineBytesMax: 1 })
    set(scene.a, { inlineBytesMax: 2, stripeBytes: 8192 })
    set(ROOT_INODE, { stripeBytes: 4096, history: { ageUs: 5, versions: undefined } })
    scene.run(removeDirectory, scene.removeRequest())
    const { policy } = scene.world.ask(scene.deep, shardMessages.stat, { inode: scene.deep })
    const history = { ageUs: 5, versions: undefined }
    assert.deepEqual(policy, { ...EMPTY_POLICY, inlineBytesMax: 1, stripeBytes: 8192, history })
  })

  test('who has all of its policy itself is asked alone', () => {
    const scene = new Scene()
    const policy = {
      history: { ageUs: 1, versions: 1 },
      spans: [{ bytesMax: 4096, data: 1, parity: 0 }],
      classes: [{ bytesMin: 0, class: 2 }],
      stripeBytes: 4096,
      inlineBytesMax: 0,
    }
    scene.world.ask(scene.deep, shardMessages.setPolicy, { directory: scene.deep, policy })
    scene.submit(removeDirectory, scene.removeRequest())
    assert.deepEqual(scene.drain(), ['lockEdge', 'stat', 'removeOwner', 'unlockEdge'])
  })

  test('a directory moves neither into itself nor under itself, but back again', () => {
    const scene = new Scene()
    const deeper = scene.make(scene.deep, 'deeper')
    for (const to of [scene.deep, deeper]) {
      assert.throws(() => scene.run(moveDirectory, scene.moveDirectoryRequest(to)), refused('DIRECTORY_LOOP'))
    }
    const { created } = scene.run(moveDirectory, scene.moveDirectoryRequest())
    const back = { inode: scene.deep, from: scene.b, fromName: 'deep', created, to: scene.a, toName: 'deep' }
    scene.run(moveDirectory, { ...back, guard: NOTHING })
    assert.deepEqual(scene.world.tree(), ['/a', '/a/deep', '/a/deep/deeper', '/a/file', '/b'])
    assert.equal(scene.world.ask(scene.deep, shardMessages.stat, { inode: scene.deep }).owner, scene.a)
    scene.assertIdle()
  })

  test('two directories that are to move into each other do not: the later one is refused', () => {
    const scene = new Scene()
    const c = scene.make(scene.b, 'c')
    const first = scene.submit(moveDirectory, scene.moveDirectoryRequest(c))
    const second = scene.submit(moveDirectory, {
      inode: c,
      from: scene.b,
      fromName: 'c',
      created: scene.created(scene.b, 'c'),
      to: scene.deep,
      toName: 'c',
      guard: NOTHING,
    })
    scene.drain()
    scene.reply(moveDirectory, first)
    assert.throws(() => scene.reply(moveDirectory, second), refused('DIRECTORY_LOOP'))
    assert.deepEqual(scene.world.tree(), ['/a', '/a/file', '/b', '/b/c', '/b/c/deep'])
    scene.assertIdle()
  })

  test('directories that are made one after the other lie on one shard after the other', () => {
    const scene = new Scene()
    const made = Array.from({ length: 600 }, (_, index) => scene.make(ROOT_INODE, `d${index}`))
    assert.equal(new Set(made).size, 600)
    for (const [index, directory] of made.entries()) {
      const before = made[index - 1]
      if (before !== undefined) assert.equal(inodeShard(directory), (inodeShard(before) + 1) % 256)
    }
  })
})

const REFUSED_AT_ONCE: readonly { what: string; code: ErrorCode; request: (scene: Scene) => Request }[] = [
  {
    what: 'a name with a slash',
    code: 'STORE_NAME_INVALID',
    request: (scene) => ({ message: makeDirectory, request: scene.makeRequest(scene.a, 'x/y') }),
  },
  {
    what: 'a name that is too long',
    code: 'STORE_NAME_TOO_LONG',
    request: (scene) => ({ message: makeDirectory, request: scene.makeRequest(scene.a, 'x'.repeat(256)) }),
  },
  {
    what: 'a directory in a file',
    code: 'DIRECTORY_EXPECTED',
    request: (scene) => ({ message: makeDirectory, request: scene.makeRequest(scene.file.inode, 'x') }),
  },
  {
    what: 'a directory moved as a file',
    code: 'FILE_EXPECTED',
    request: (scene) => ({ message: moveFile, request: { ...scene.moveFileRequest(), inode: scene.deep } }),
  },
  {
    what: 'a file moved as a directory',
    code: 'DIRECTORY_EXPECTED',
    request: (scene) => ({
      message: moveDirectory,
      request: { ...scene.moveDirectoryRequest(), inode: scene.file.inode },
    }),
  },
  {
    what: 'a move within a directory',
    code: 'INPUT_INVALID',
    request: (scene) => ({ message: moveFile, request: { ...scene.moveFileRequest(), to: scene.a } }),
  },
  {
    what: 'the root being moved',
    code: 'ROOT_REFUSED',
    request: (scene) => ({ message: moveDirectory, request: { ...scene.moveDirectoryRequest(), inode: ROOT_INODE } }),
  },
  {
    what: 'the root being removed',
    code: 'ROOT_REFUSED',
    request: (scene) => ({ message: removeDirectory, request: { ...scene.removeRequest(), directory: ROOT_INODE } }),
  },
  {
    what: 'the root being forgotten',
    code: 'ROOT_REFUSED',
    request: () => ({ message: hardUnlinkDirectory, request: { directory: ROOT_INODE } }),
  },
  {
    what: 'a directory that lies in itself',
    code: 'INPUT_INVALID',
    request: (scene) => ({ message: removeDirectory, request: { ...scene.removeRequest(), owner: scene.deep } }),
  },
  {
    what: 'a file of the shard of the directory being forgotten',
    code: 'INPUT_INVALID',
    request: (scene) => ({
      message: hardUnlinkFile,
      request: { ...scene.forgetFileRequest(), file: makeInodeId('file', inodeShard(scene.a), 9) },
    }),
  },
  {
    what: 'a directory being forgotten as a file',
    code: 'FILE_EXPECTED',
    request: (scene) => ({ message: hardUnlinkFile, request: { ...scene.forgetFileRequest(), file: scene.b } }),
  },
]

suite('what is refused without asking a shard', () => {
  for (const { what, code, request } of REFUSED_AT_ONCE) {
    test(`${what}: ${code}`, () => {
      const scene = new Scene()
      const entries = scene.entries.length
      const asked = request(scene)
      assert.throws(() => scene.submit(asked.message, asked.request), refused(code))
      assert.equal(scene.entries.length, entries)
      assert.deepEqual(scene.steps, [])
    })
  }

  const unknown = makeInodeId('directory', 3, 77)
  const ABSENT: readonly { what: string; request: (scene: Scene) => Request }[] = [
    { what: 'made in', request: (scene) => ({ message: makeDirectory, request: scene.makeRequest(unknown, 'x') }) },
    {
      what: 'moved to',
      request: (scene) => ({ message: moveFile, request: { ...scene.moveFileRequest(), to: unknown } }),
    },
    {
      what: 'moved from',
      request: (scene) => ({ message: moveDirectory, request: { ...scene.moveDirectoryRequest(), from: unknown } }),
    },
    {
      what: 'moved',
      request: (scene) => ({ message: moveDirectory, request: { ...scene.moveDirectoryRequest(), inode: unknown } }),
    },
    {
      what: 'removed',
      request: (scene) => ({ message: removeDirectory, request: { ...scene.removeRequest(), directory: unknown } }),
    },
  ]
  for (const { what, request } of ABSENT) {
    test(`a directory that was never made being ${what}`, () => {
      const scene = new Scene()
      const asked = request(scene)
      const id = scene.submit(asked.message, asked.request)
      assert.deepEqual(scene.steps, [])
      assert.throws(() => scene.reply(asked.message, id), refused('INODE_NOT_FOUND'))
      scene.assertIdle()
    })
  }

  test('what concerns a directory that is removed meanwhile', () => {
    const scene = new Scene()
    const removal = scene.submit(removeDirectory, scene.removeRequest())
    const making = scene.submit(makeDirectory, scene.makeRequest(scene.deep, 'late'))
    assert.deepEqual(scene.drain(), courseOf('removeDirectory').steps)
    scene.reply(removeDirectory, removal)
    assert.throws(() => scene.reply(makeDirectory, making), refused('INODE_NOT_FOUND'))
    scene.assertIdle()
  })
})
