import assert from 'node:assert/strict'
import { test } from 'node:test'

import fc from 'fast-check'

import { isWithin } from '#store/path.ts'

import { Claims } from './claims.ts'

test('a path meets what is claimed at, above and below it, as often as it is claimed', () => {
  const paths = fc.constantFrom('a', 'a/b', 'a/b/c', 'a-b', 'a/bc', 'd', 'd/e')
  const steps = fc.array(fc.record({ path: paths, isAdded: fc.boolean() }), { maxLength: 40 })
  fc.assert(
    fc.property(steps, paths, (all, asked) => {
      const claims = new Claims()
      const held: string[] = []
      for (const { path, isAdded } of all) {
        if (isAdded) {
          claims.add(path)
          held.push(path)
        } else if (held.includes(path)) {
          claims.delete(path)
          held.splice(held.indexOf(path), 1)
        }
      }
      const expected = held.filter((path) => isWithin(path, asked) || isWithin(asked, path))
      const met = claims.meets(asked)
      if (met === undefined) assert.deepEqual(expected, [])
      else assert.ok(expected.includes(met), `${met} of ${expected.join()}`)
    }),
    { seed: 4, numRuns: 1000 },
  )
})
