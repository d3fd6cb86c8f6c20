/** The coordinator is killed at every write of every transaction, and after every step that a shard has done; answers of shards are lost, doubled and late. */
import assert from 'node:assert/strict'
import { suite, test } from 'node:test'

import fc from 'fast-check'

import type { ErrorCode } from '#base/errors.ts'
import { ROOT_INODE, type InodeId } from '#cluster/inode-id.ts'
import { decode } from '#cluster/wire/codec.ts'
import type { RequestId } from '#cluster/wire/envelope.ts'
import { ANYTHING, NOTHING } from '#cluster/wire/forms.ts'

import { ATTRIBUTES, type Request } from './coordinator-fixture.ts'
import { coordinatorMessages } from './coordinator-messages.ts'
import { FATES, Scene, until, type Fate, type Kill } from './killed-fixture.ts'

const { makeDirectory, removeDirectory, moveFile, moveDirectory, hardUnlinkDirectory, hardUnlinkFile } =
  coordinatorMessages

interface Scenario {
  readonly what: string
  readonly request: (scene: Scene) => Request
  readonly refusal?: ErrorCode
  readonly tree: readonly string[]
}

const TREE = ['/a', '/a/deep', '/a/deep/leaf', '/a/file', '/b', '/b/taken']

const SCENARIOS: readonly Scenario[] = [
  {
    what: 'a directory is made',
    request: ({ b: owner }) => ({ message: makeDirectory, request: { owner, name: 'new', attributes: ATTRIBUTES } }),
    tree: ['/a', '/a/deep', '/a/deep/leaf', '/a/file', '/b', '/b/new', '/b/taken'],
  },
  {
    what: 'a directory is not made over a file',
    request: ({ b: owner }) => ({ message: makeDirectory, request: { owner, name: 'taken', attributes: ATTRIBUTES } }),
    refusal: 'NAME_TAKEN',
    tree: TREE,
  },
  {
    what: 'a file moves',
    request: (scene) => ({ message: moveFile, request: scene.move('file', 'moved') }),
    tree: ['/a', '/a/deep', '/a/deep/leaf', '/b', '/b/moved', '/b/taken'],
  },
  {
    what: 'a file takes the place of another one',
    request: (scene) => ({ message: moveFile, request: scene.move('file', 'taken') }),
    tree: ['/a', '/a/deep', '/a/deep/leaf', '/b', '/b/taken'],
  },
  {
    what: 'a file does not move to a name that is taken',
    request: (scene) => ({ message: moveFile, request: scene.move('file', 'taken', NOTHING) }),
    refusal: 'NAME_TAKEN',
    tree: TREE,
  },
  {
    what: 'a directory moves',
    request: (scene) => ({ message: moveDirectory, request: scene.move('deep', 'deep') }),
    tree: ['/a', '/a/file', '/b', '/b/deep', '/b/deep/leaf', '/b/taken'],
  },
  {
    what: 'a directory does not move to a name that is taken',
    request: (scene) => ({ message: moveDirectory, request: scene.move('deep', 'taken') }),
    refusal: 'NAME_TAKEN',
    tree: TREE,
  },
  {
    what: 'a directory does not move under itself',
    request: (scene) => ({ message: moveDirectory, request: scene.move('deep', 'deep', ANYTHING, scene.leaf) }),
    refusal: 'DIRECTORY_LOOP',
    tree: TREE,
  },
  {
    what: 'a directory is removed',
    request: (scene) => ({ message: removeDirectory, request: scene.removal(scene.deep, 'leaf', scene.leaf) }),
    tree: ['/a', '/a/deep', '/a/file', '/b', '/b/taken'],
  },
  {
    what: 'a directory that is not empty is not removed',
    request: (scene) => ({ message: removeDirectory, request: scene.removal(scene.a, 'deep', scene.deep) }),
    refusal: 'DIRECTORY_NOT_EMPTY',
    tree: TREE,
  },
  {
    what: 'a directory is forgotten',
    request: ({ dead: directory }) => ({ message: hardUnlinkDirectory, request: { directory } }),
    tree: TREE,
  },
  {
    what: 'a directory in use is not forgotten',
    request: ({ deep: directory }) => ({ message: hardUnlinkDirectory, request: { directory } }),
    refusal: 'DIRECTORY_NOT_EMPTY',
    tree: TREE,
  },
  {
    what: 'a file is forgotten',
    request({ a: directory, world }) {
      const { inode: file, created } = world.makeOwned(directory, 'gone')
      return { message: hardUnlinkFile, request: { directory, name: 'gone', created, file } }
    },
    tree: TREE,
  },
]

/** @return how many writes and steps it took */
async function play({ request, refusal, tree }: Scenario, fate: Fate, kill?: Kill): Promise<Scene> {
  const scene = new Scene(fate)
  await scene.setUp()
  const asked = request(scene)
  scene.count(kill)
  const id = scene.newId()
  scene.send(asked, id)
  await until(() => scene.hasReply(id) || scene.isKilled)
  if (scene.isKilled) {
    assert.ok(!scene.hasReply(id), 'nobody is answered before it is durable')
    await scene.restart(kill?.isKept === true)
    // The client asks again, as it has no answer.
    scene.send(asked, id)
    await until(() => scene.hasReply(id))
  }
  const reply = scene.reply(id)
  assert.equal(typeof reply === 'string' ? reply : undefined, refusal)
  await until(() => scene.open.length === 0)
  assert.deepEqual(scene.world.tree(), tree)
  for (const [inode, count] of scene.world.owners()) assert.equal(count, 1, `inode ${inode} has one owner`)
  // And once more: it is done already.
  const { steps } = scene
  scene.send(asked, id)
  await until(() => scene.hasReply(id))
  assert.deepEqual(scene.reply(id), reply)
  assert.equal(scene.steps, steps)
  return scene
}

suite('a coordinator that is killed', () => {
  for (const scenario of SCENARIOS) {
    for (const fate of FATES) {
      test(`${scenario.what}; steps are ${fate}`, async () => {
        const { writes, steps } = await play(scenario, fate)
        assert.ok(writes >= 1)
        const kills: Kill[] = []
        for (let number = 1; number <= writes; number++) {
          kills.push({ at: 'write', number, isKept: false }, { at: 'write', number, isKept: true })
        }
        for (let number = 1; number <= steps; number++) kills.push({ at: 'step', number, isKept: false })
        for (const kill of kills) {
          // oxlint-disable-next-line no-await-in-loop -- one world after the other
          const scene = await play(scenario, fate, kill)
          assert.ok(scene.kill === undefined, `it was killed at ${kill.at} ${kill.number}`)
        }
      })
    }
  }
})

const asked = fc.record({ kind: fc.nat(4), from: fc.nat(4), to: fc.nat(4), name: fc.constantFrom('x', 'y', 'z') })
type Asked = typeof asked extends fc.Arbitrary<infer T> ? T : never

function requestOf(scene: Scene, { kind, from, to, name }: Asked): Request {
  const places = [ROOT_INODE, scene.a, scene.b, scene.deep, scene.leaf]
  const owner = places[from] ?? ROOT_INODE
  // What has the name in the first directory that has it: as a client sees it at the time.
  const at = places.find((each) => scene.world.tree(each).includes(`/${name}`)) ?? scene.a
  const known = scene.world.tree(at).includes(`/${name}`)
    ? scene.world.edge(at, name)
    : { inode: scene.leaf, created: 1 }
  const { inode, created } = known
  const move = { inode, from: at, fromName: name, created, to: places[to] ?? ROOT_INODE, toName: name, guard: NOTHING }
  if (kind === 0) return { message: moveDirectory, request: move }
  if (kind === 1) return { message: removeDirectory, request: { owner: at, name, directory: inode, created } }
  return { message: makeDirectory, request: { owner, name, attributes: ATTRIBUTES } }
}

suite('a coordinator that is killed with much under way', () => {
  const kill = fc.record({ number: fc.integer({ min: 1, max: 12 }), isKept: fc.boolean(), isStep: fc.boolean() })
  const rounds = fc.array(fc.record({ requests: fc.array(asked, { maxLength: 12 }), kill }), {
    maxLength: 6,
    size: 'max',
  })

  test('does all of it in the end, once', async () => {
    await fc.assert(
      fc.asyncProperty(rounds, fc.constantFrom(...FATES), async (given, fate) => {
        const scene = new Scene(fate)
        await scene.setUp()
        const sent: { request: Request; id: RequestId }[] = []
        const made = new Set<InodeId>()
        for (const { requests, kill: each } of given) {
          scene.count({ at: each.isStep ? 'step' : 'write', number: each.number, isKept: each.isKept })
          for (const item of requests) {
            const one = { request: requestOf(scene, item), id: scene.newId() }
            sent.push(one)
            scene.send(one.request, one.id)
          }
          const isDone = (): boolean => sent.every(({ id }) => scene.hasReply(id))
          await until(() => scene.isKilled || isDone())
          if (!scene.isKilled) continue
          await scene.restart(each.isKept)
          for (const { request, id } of sent) if (!scene.hasReply(id)) scene.send(request, id)
        }
        await until(() => sent.every(({ id }) => scene.hasReply(id)) && scene.open.length === 0)
        for (const { request, id } of sent) {
          const reply = scene.reply(id)
          if (typeof reply === 'string') continue
          if (request.message === makeDirectory) made.add(decode(makeDirectory.reply, reply).inode)
          if (request.message === removeDirectory) made.delete((request.request as { directory: InodeId }).directory)
        }
        for (const line of scene.world.tree()) assert.ok(!line.includes(' '), `all is as it should be: ${line}`)
        const owners = scene.world.owners()
        for (const [inode, count] of owners) assert.equal(count, 1, `inode ${inode} has one owner`)
        for (const inode of made) assert.ok(owners.has(inode), 'what was acknowledged is there')
      }),
      { seed: 20_261_121, numRuns: 60 },
    )
  })
})
