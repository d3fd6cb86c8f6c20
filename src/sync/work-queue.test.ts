import assert from 'node:assert/strict'
import { describe, test } from 'node:test'

import fc from 'fast-check'

import { isWithin } from '#store/path.ts'

import type { TreeEntry } from './tree.ts'
import { WorkQueue, type MoveWork, type PathWork, type Work } from './work-queue.ts'

const LISTED: TreeEntry = { path: 'a', kind: 'file', size: 1, mtime: undefined }

function pathOf(work: Work | undefined): PathWork {
  assert.ok(work?.kind === 'path')
  return work
}

function moveOf(work: Work | undefined): MoveWork {
  assert.ok(work?.kind === 'move')
  return work
}

const meet = (a: string, b: string): boolean => isWithin(a, b) || isWithin(b, a)

describe('the queue of a sync', () => {
  test('what is asked for while it is under way is done once more, and only then', () => {
    const queue = new WorkQueue()
    queue.add('a')
    assert.equal(pathOf(queue.next(0)).path, 'a')
    queue.add('a')
    queue.add('a')
    assert.equal(queue.next(0), undefined)
    queue.done('a')
    assert.equal(pathOf(queue.next(0)).path, 'a')
    queue.done('a')
    assert.ok(queue.isEmpty)
  })

  test('what failed waits for its time, and who asks anew does not; tries go on', () => {
    const queue = new WorkQueue()
    queue.add('a')
    queue.next(0)
    queue.done('a', 100)
    assert.equal(queue.nextAt, 100)
    assert.ok(queue.isResting)
    assert.equal(queue.next(99), undefined)
    assert.equal(pathOf(queue.next(100)).tries, 1)
    queue.done('a', 300)
    queue.add('a')
    assert.equal(pathOf(queue.next(101)).tries, 2)
    queue.done('a')
    queue.add('a')
    assert.equal(pathOf(queue.next(102)).tries, 0)
  })

  test('what waits to be tried again does so sooner once what made it fail is over; what waits for its writer does not', () => {
    const queue = new WorkQueue()
    queue.add('a')
    queue.next(0)
    queue.done('a', 30_000)
    queue.addLater('written', 20_000)
    queue.hasten(100, 50)
    assert.ok((queue.nextAt ?? 0) <= 150)
    assert.equal(pathOf(queue.next(150)).path, 'a')
    assert.equal(queue.next(19_999), undefined)
    assert.equal(pathOf(queue.next(20_000)).path, 'written')
  })

  test('what a listing told of the target is kept where the path is told again before anything is done', () => {
    const queue = new WorkQueue()
    queue.add('a', LISTED, 5)
    queue.add('a')
    assert.equal(pathOf(queue.next(0)).target, LISTED)
    queue.done('a')
    queue.add('a', null)
    queue.add('a')
    assert.equal(pathOf(queue.next(0)).target, null)
    queue.done('a', 1)
    // What failed may have changed it.
    assert.equal(pathOf(queue.next(1)).target, undefined)
  })

  test('bytes are those of what waits or is under way', () => {
    const queue = new WorkQueue()
    queue.add('a', null, 10)
    queue.add('b', null, 5)
    queue.add('a', null, 7)
    assert.equal(queue.bytes, 12)
    queue.next(0)
    assert.equal(queue.bytes, 12)
    queue.done('a')
    assert.equal(queue.bytes, 5)
    queue.next(0)
    queue.done('b', 9)
    assert.equal(queue.bytes, 5)
    queue.next(9)
    queue.done('b')
    assert.equal(queue.bytes, 0)
  })

  test('a directory and what lies in it are not under way together', () => {
    const queue = new WorkQueue()
    queue.add('d')
    queue.add('d/a')
    queue.add('d-b')
    assert.equal(pathOf(queue.next(0)).path, 'd')
    assert.equal(pathOf(queue.next(0)).path, 'd-b')
    assert.equal(queue.next(0), undefined)
    queue.done('d')
    assert.equal(pathOf(queue.next(0)).path, 'd/a')
    queue.add('d')
    assert.equal(queue.next(0), undefined)
    queue.done('d/a')
    assert.equal(pathOf(queue.next(0)).path, 'd')
  })

  test('a move waits for what is under way, and lets nothing begin at its names', () => {
    const queue = new WorkQueue()
    queue.add('d/a')
    queue.next(0)
    queue.move('d', 'e', true)
    queue.add('d/b')
    queue.add('e/c')
    queue.add('f')
    assert.equal(pathOf(queue.next(0)).path, 'f')
    assert.equal(queue.next(0), undefined)
    queue.done('d/a')
    const move = moveOf(queue.next(0))
    assert.equal(queue.next(0), undefined)
    queue.moved(move, true)
    const begun = [pathOf(queue.next(0)).path, pathOf(queue.next(0)).path]
    assert.deepEqual(begun.toSorted(), ['d/b', 'e/c'])
  })

  test('what waited for a file that was moved since waits under its new name', () => {
    const queue = new WorkQueue()
    queue.add('old')
    queue.move('old', 'new', false)
    queue.moved(moveOf(queue.next(0)), true)
    assert.equal(pathOf(queue.next(0)).path, 'new')
    assert.equal(queue.next(0), undefined)
  })

  test('what was asked for at the old name after the move was told stays there: something new has it', () => {
    const queue = new WorkQueue()
    queue.move('old', 'new', false)
    queue.add('old')
    const move = moveOf(queue.next(0))
    queue.add('old')
    queue.moved(move, true)
    assert.equal(pathOf(queue.next(0)).path, 'old')
  })

  test('moves that meet are done in the order in which they were told, others side by side', () => {
    const queue = new WorkQueue()
    queue.move('a', 'b', false)
    queue.move('b', 'c', false)
    queue.move('x', 'y', true)
    const first = moveOf(queue.next(0))
    const other = moveOf(queue.next(0))
    assert.deepEqual([first.from, other.from], ['a', 'x'])
    assert.equal(queue.next(0), undefined)
    queue.moved(first, false)
    assert.equal(moveOf(queue.next(0)).from, 'b')
  })

  test('ten thousand paths that wait for a move cost a look each, not one for each piece of work', () => {
    const queue = new WorkQueue()
    queue.add('d/first')
    queue.next(0)
    queue.move('d', 'e', true)
    for (let index = 0; index < 10_000; index++) queue.add(`d/${index}`)
    for (let index = 0; index < 10_000; index++) queue.add(`f/${index}`)
    const from = performance.now()
    for (let index = 0; index < 10_000; index++) queue.done(pathOf(queue.next(0)).path)
    // It was a hundred million looks.
    assert.ok(performance.now() - from < 5000)
    assert.equal(queue.next(0), undefined)
  })

  test('nothing is lost, nothing that meets is under way together, and all of it ends', () => {
    const names = fc.constantFrom('a', 'a/x', 'a/x/1', 'a/y', 'b', 'b/x', 'c', 'c/z')
    const steps = fc.array(
      fc.oneof(
        { weight: 4, arbitrary: fc.record({ do: fc.constant('add' as const), path: names }) },
        { weight: 1, arbitrary: fc.record({ do: fc.constant('later' as const), path: names }) },
        {
          weight: 2,
          arbitrary: fc.record({ do: fc.constant('move' as const), path: names, to: names, isDirectory: fc.boolean() }),
        },
        { weight: 4, arbitrary: fc.record({ do: fc.constant('next' as const) }) },
        { weight: 3, arbitrary: fc.record({ do: fc.constant('end' as const), which: fc.nat(), isDone: fc.boolean() }) },
      ),
      { maxLength: 60 },
    )
    fc.assert(
      fc.property(steps, (all) => {
        const queue = new WorkQueue()
        const running: Work[] = []
        /** Asked for, and not begun since. */
        const owed = new Set<string>()
        let now = 0
        const begin = (): boolean => {
          const work = queue.next(now)
          if (work === undefined) return false
          const at = work.kind === 'path' ? [work.path] : [work.from, work.to]
          for (const other of running) {
            const there = other.kind === 'path' ? [other.path] : [other.from, other.to]
            assert.ok(!at.some((path) => there.some((each) => meet(path, each))), `${at.join()} meets ${there.join()}`)
          }
          running.push(work)
          if (work.kind === 'path') owed.delete(work.path)
          return true
        }
        const end = (which: number, isDone: boolean): void => {
          const [work] = running.splice(which % running.length, 1)
          if (work === undefined) return
          if (work.kind === 'path') {
            queue.done(work.path, isDone ? undefined : now + 10)
            if (!isDone) owed.add(work.path)
            return
          }
          const dropped = queue.moved(work, isDone)
          for (const path of dropped) {
            assert.ok(isWithin(path, work.from))
            owed.delete(path)
            if (!work.isDirectory) owed.add(work.to)
          }
        }
        for (const step of all) {
          now++
          if (step.do === 'add') {
            queue.add(step.path)
            owed.add(step.path)
          } else if (step.do === 'later') {
            queue.addLater(step.path, now + 5)
            owed.add(step.path)
          } else if (step.do === 'move') {
            if (!meet(step.path, step.to)) queue.move(step.path, step.to, step.isDirectory)
          } else if (step.do === 'next') begin()
          else if (running.length > 0) end(step.which, step.isDone)
        }
        for (let left = 2000; !queue.isEmpty; left--) {
          assert.ok(left > 0, 'it ends')
          now += 20
          while (begin());
          assert.ok(running.length > 0, 'something can begin where something waits')
          while (running.length > 0) end(0, true)
        }
        assert.deepEqual([...owed], [])
        assert.equal(queue.bytes, 0)
      }),
      { seed: 4, numRuns: 2000 },
    )
  })
})
