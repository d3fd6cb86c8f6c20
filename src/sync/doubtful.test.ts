import assert from 'node:assert/strict'
import { describe, test } from 'node:test'

import { Doubtful } from './doubtful.ts'

describe('paths that a listing proves nothing of', () => {
  test('are those that are doubted, all that lies under them and the directories above', () => {
    const doubtful = new Doubtful()
    for (const path of ['a/conf', 'b//x', 'c/../x', '/y']) doubtful.add(path)
    const notProven = ['a', 'a/conf', 'a/conf/old', 'b', 'c']
    const proven = ['a/con', 'a/conf2', 'a/other', 'b/x', 'b/other', 'c/x', 'x', 'y', 'd']
    assert.deepEqual(
      [...notProven, ...proven].filter((path) => doubtful.provesAbsence(path)),
      proven,
    )
  })

  test('are all of them once there are too many to be kept', () => {
    const doubtful = new Doubtful(10)
    for (let index = 0; index < 9; index++) doubtful.add(`n${index}`)
    assert.equal(doubtful.provesAbsence('other'), true)
    for (let index = 9; index < 12; index++) doubtful.add(`n${index}`)
    assert.equal(doubtful.provesAbsence('other'), false)
  })
})
