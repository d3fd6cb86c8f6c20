import assert from 'node:assert/strict'
import { suite, test } from 'node:test'

import { ROOT_INODE, type InodeId } from '#cluster/inode-id.ts'
import type { Answer } from '#cluster/journal/sessions.ts'
import { shardMessages } from '#cluster/shard/shard-messages.ts'
import { NOTHING } from '#cluster/wire/forms.ts'

import { ATTRIBUTES, CLIENT, contentOf, CoordinatorBench, openRecords } from './coordinator-fixture.ts'
import { outstandingSteps, TRANSACTIONS_MAX } from './coordinator-machine.ts'
import { coordinatorMessages } from './coordinator-messages.ts'
import { COURSES, refusal, refused, Scene } from './scene-fixture.ts'
import { SLOTS, type Step } from './turn.ts'

const { makeDirectory, removeDirectory, moveFile, moveDirectory } = coordinatorMessages

suite('queues', () => {
  test('what concerns one directory is done one after the other, in the order in which it came', () => {
    const scene = new Scene()
    const ids = ['x', 'y', 'z'].map((name) => scene.submit(makeDirectory, scene.makeRequest(scene.a, name)))
    const asked: string[] = []
    while (scene.steps.length > 0) {
      assert.equal(scene.steps.length, 1)
      const step = scene.take()
      if (step.message === shardMessages.createEdge) asked.push((step.request as { name: string }).name)
      scene.give(step, scene.world.answer(step))
    }
    assert.deepEqual(asked, ['x', 'y', 'z'])
    for (const id of ids) scene.reply(makeDirectory, id)
    scene.assertIdle()
  })

  test('what concerns others is done at the same time', () => {
    const scene = new Scene()
    for (const owner of [scene.a, scene.b, scene.deep, ROOT_INODE])
      scene.submit(makeDirectory, scene.makeRequest(owner, 'x'))
    assert.equal(scene.steps.length, 4)
    assert.equal(outstandingSteps(scene.state).length, 4)
    scene.drain()
    scene.assertIdle()
  })

  test('a move waits for both directories, and keeps both', () => {
    const scene = new Scene()
    scene.submit(makeDirectory, scene.makeRequest(scene.b, 'before'))
    scene.submit(moveFile, scene.moveFileRequest())
    scene.submit(makeDirectory, scene.makeRequest(scene.a, 'after'))
    const names = scene.drain()
    const [made, edge, ...rest] = names
    assert.deepEqual([made, edge], ['createDirectory', 'createEdge'])
    assert.deepEqual(rest, ['lockEdge', 'createEdge', 'unlockEdge', 'createDirectory', 'createEdge'])
    scene.assertIdle()
  })

  test('directories move one after the other', () => {
    const scene = new Scene()
    const others = ['p', 'q'].map((name) => scene.make(ROOT_INODE, name))
    const inner = scene.make(others[0] ?? ROOT_INODE, 'inner')
    scene.submit(moveDirectory, scene.moveDirectoryRequest())
    scene.submit(moveDirectory, {
      inode: inner,
      from: others[0] ?? ROOT_INODE,
      fromName: 'inner',
      created: scene.created(others[0] ?? ROOT_INODE, 'inner'),
      to: others[1] ?? ROOT_INODE,
      toName: 'inner',
      guard: NOTHING,
    })
    assert.equal(scene.steps.length, 1)
    scene.drain()
    assert.deepEqual(
      scene.world.tree().filter((path) => path.endsWith('inner') || path.endsWith('deep')),
      ['/b/deep', '/q/inner'],
    )
    scene.assertIdle()
  })

  test('so many are under way at a time, and the others in turn', () => {
    const bench = new CoordinatorBench()
    const owners: InodeId[] = []
    for (let index = 0; index < SLOTS + 3; index++) {
      owners.push(bench.run(makeDirectory, { owner: ROOT_INODE, name: `d${index}`, attributes: ATTRIBUTES }).inode)
    }
    const ids = owners.map((owner) => bench.submit(makeDirectory, { owner, name: 'x', attributes: ATTRIBUTES }))
    assert.equal(bench.steps.length, SLOTS)
    assert.equal(new Set(bench.steps.map(({ id }) => id.slot)).size, SLOTS)
    // As each one ends, one that waits begins, in the same slot and under its next number.
    let busiest = 0
    while (bench.steps.length > 0) {
      busiest = Math.max(busiest, bench.steps.length)
      const step = bench.take()
      bench.give(step, bench.world.answer(step))
    }
    assert.equal(busiest, SLOTS)
    for (const id of ids) bench.reply(makeDirectory, id)
    assert.deepEqual(openRecords(bench.state), [])
  })

  test('more than so many are not taken on, and what is there is done all the same', () => {
    const scene = new Scene()
    for (let index = 0; index < TRANSACTIONS_MAX; index++) {
      scene.submit(makeDirectory, scene.makeRequest(scene.a, `n${index}`), { client: 50 + index, slot: 0, sequence: 1 })
    }
    const last = { client: 1, slot: 0, sequence: 1 }
    assert.throws(() => scene.submit(makeDirectory, scene.makeRequest(scene.b, 'x'), last), refused('CLUSTER_BUSY'))
    scene.drain()
    scene.submit(makeDirectory, scene.makeRequest(scene.b, 'x'), last)
    scene.drain()
    assert.equal(scene.world.edge(scene.b, 'x').inode, scene.reply(makeDirectory, last).inode)
    assert.equal(scene.world.tree().length, TRANSACTIONS_MAX + 5)
    assert.deepEqual(openRecords(scene.state), [])
  })
})

suite('what comes again', () => {
  test('a request whose transaction is under way joins it; afterwards it has the same answer', () => {
    const scene = new Scene()
    const id = scene.submit(makeDirectory, scene.makeRequest(scene.b, 'x'))
    const entries = scene.entries.length
    scene.submit(makeDirectory, scene.makeRequest(scene.b, 'x'), id)
    assert.equal(scene.entries.length, entries)
    scene.drain()
    const { inode } = scene.reply(makeDirectory, id)
    scene.answers.clear()
    scene.submit(makeDirectory, scene.makeRequest(scene.b, 'x'), id)
    assert.deepEqual(scene.steps, [])
    assert.equal(scene.reply(makeDirectory, id).inode, inode)
  })

  test('a request that was refused is refused again, though it could be done by now', () => {
    const scene = new Scene()
    scene.make(scene.b, 'x')
    const id = scene.submit(makeDirectory, scene.makeRequest(scene.b, 'x'))
    scene.drain()
    assert.throws(() => scene.reply(makeDirectory, id), refused('NAME_TAKEN'))
    const { inode, created } = scene.world.edge(scene.b, 'x')
    scene.run(removeDirectory, { owner: scene.b, name: 'x', directory: inode, created })
    scene.submit(makeDirectory, scene.makeRequest(scene.b, 'x'), id)
    assert.deepEqual(scene.steps, [])
    assert.throws(() => scene.reply(makeDirectory, id), refused('NAME_TAKEN'))
  })

  test('a late copy of an older request of the slot is refused, while the newer one waits and afterwards', () => {
    const scene = new Scene()
    const older = { client: CLIENT, slot: 9000, sequence: 5 }
    const newer = { ...older, sequence: 6 }
    const request = scene.makeRequest(scene.b, 'older')
    scene.submit(makeDirectory, request, older)
    // The client has given it up, and asks for something else.
    scene.submit(makeDirectory, scene.makeRequest(scene.b, 'newer'), newer)
    assert.throws(() => scene.submit(makeDirectory, request, older), refused('REQUEST_STALE'))
    scene.drain()
    assert.throws(() => scene.submit(makeDirectory, request, older), refused('REQUEST_STALE'))
    scene.submit(makeDirectory, scene.makeRequest(scene.b, 'newer'), newer)
    assert.equal(scene.reply(makeDirectory, newer).inode, scene.world.edge(scene.b, 'newer').inode)
    scene.assertIdle()
  })

  test('a request that was given up and ends after its successor takes no place of its answer', () => {
    const scene = new Scene()
    const older = { client: CLIENT, slot: 9000, sequence: 5 }
    const newer = { ...older, sequence: 6 }
    scene.submit(makeDirectory, scene.makeRequest(scene.a, 'older'), older)
    const slow = scene.take()
    scene.submit(makeDirectory, scene.makeRequest(scene.b, 'newer'), newer)
    scene.drain()
    scene.give(slow, scene.world.answer(slow))
    scene.drain()
    scene.answers.clear()
    scene.submit(makeDirectory, scene.makeRequest(scene.b, 'newer'), newer)
    assert.equal(scene.reply(makeDirectory, newer).inode, scene.world.edge(scene.b, 'newer').inode)
    scene.assertIdle()
  })

  for (const { what, request } of COURSES) {
    test(`${what}: late and doubled answers to its steps change nothing`, () => {
      const scene = new Scene()
      const asked = request(scene)
      const id = scene.submit(asked.message, asked.request)
      const given: { step: Step; answer: Answer }[] = []
      while (scene.steps.length > 0) {
        const step = scene.take()
        const answer = scene.world.answer(step)
        scene.give(step, answer)
        given.push({ step, answer })
        const before = contentOf(scene.state)
        for (const old of given) {
          assert.deepEqual(scene.give(old.step, old.answer).steps, [])
          scene.give(old.step, { refusal: refusal('NAME_TAKEN') })
        }
        assert.deepEqual(contentOf(scene.state), before)
      }
      scene.reply(asked.message, id)
      scene.assertIdle()
    })
  }

  test('answers to clients are forgotten after an hour, some at a time', () => {
    const scene = new Scene()
    const id = scene.submit(makeDirectory, scene.makeRequest(scene.b, 'x'))
    scene.drain()
    const forget = { kind: 'forget', beforeUs: 6e14, from: Buffer.alloc(0), count: 2 } as const
    let { next } = scene.apply(forget)
    let turns = 1
    for (; next !== ''; turns++) next = scene.apply({ ...forget, from: Buffer.from(next, 'latin1') }).next
    assert.equal(turns, 2)
    assert.equal(contentOf(scene.state).filter(([key]) => key.startsWith('63')).length, 0)
    scene.submit(makeDirectory, scene.makeRequest(scene.b, 'x'), id)
    assert.equal(scene.steps.length, 1)
  })
})
