/** Cases of the store suite: guards of puts and removals, and races for one path. */
import assert from 'node:assert/strict'

import { isOperationError } from '#base/errors.ts'
import { ABSENT, ANY, ifVersion, type Version } from '#store/store.ts'

import { assertContent, assertGone, noise, rejectsWith, type SuiteCase } from './case.ts'

/** How many of the calls won; every other one must have lost as `STORE_CONFLICT`. */
async function winnersOf(calls: readonly Promise<unknown>[]): Promise<number[]> {
  const results = await Promise.allSettled(calls)
  const winners: number[] = []
  results.forEach((result, index) => {
    if (result.status === 'fulfilled') winners.push(index)
    else if (!isOperationError(result.reason, 'STORE_CONFLICT')) throw result.reason
  })
  return winners
}

export const guardCases: readonly SuiteCase[] = [
  {
    name: '[S3] guards: a put with ABSENT creates once',
    run: async ({ store, at }) => {
      const first = await store.put(at('file'), noise(10, 40), { guard: ABSENT })
      await rejectsWith(store.put(at('file'), noise(10, 41), { guard: ABSENT }), 'STORE_CONFLICT')
      await assertContent(store, at('file'), noise(10, 40))
      assert.equal((await store.stat(at('file'))).version, first.version)
      await store.remove(at('file'), { guard: ANY })
      await store.put(at('file'), noise(10, 41), { guard: ABSENT })
      await assertContent(store, at('file'), noise(10, 41))
    },
  },
  {
    name: '[S3] guards: a put with a version replaces that version only',
    run: async ({ store, at }) => {
      const first = await store.put(at('file'), noise(10, 42), { guard: ABSENT })
      const second = await store.put(at('file'), noise(10, 43), { guard: ifVersion(first.version) })
      await rejectsWith(store.put(at('file'), noise(10, 44), { guard: ifVersion(first.version) }), 'STORE_CONFLICT')
      await assertContent(store, at('file'), noise(10, 43))
      await store.put(at('file'), noise(10, 45), { guard: ifVersion(second.version) })
      await store.put(at('file'), noise(10, 46), { guard: ANY })
      await assertContent(store, at('file'), noise(10, 46))
      await store.remove(at('file'), { guard: ANY })
      await rejectsWith(store.put(at('file'), noise(10, 47), { guard: ifVersion(second.version) }), 'STORE_CONFLICT')
      await assertGone(store, at('file'))
    },
  },
  {
    name: '[S3] guards: a removal with a version removes that version only',
    run: async ({ store, at }) => {
      const first = await store.put(at('file'), noise(10, 48), { guard: ABSENT })
      const second = await store.put(at('file'), noise(10, 49), { guard: ANY })
      await rejectsWith(store.remove(at('file'), { guard: ifVersion(first.version) }), 'STORE_CONFLICT')
      await assertContent(store, at('file'), noise(10, 49))
      await store.remove(at('file'), { guard: ifVersion(second.version) })
      await assertGone(store, at('file'))
      await rejectsWith(store.remove(at('file'), { guard: ANY }), 'STORE_NOT_FOUND')
      await rejectsWith(store.remove(at('file'), { guard: ifVersion(second.version) }), 'STORE_NOT_FOUND')
      await rejectsWith(store.remove(at('never'), { guard: ANY }), 'STORE_NOT_FOUND')
    },
  },
  {
    name: 'guards: a version of no file conflicts with every file',
    run: async ({ store, at }) => {
      await store.put(at('file'), noise(10, 50), { guard: ABSENT })
      const other = ifVersion('0123456789abcdef0123456789abcdef' as Version)
      await rejectsWith(store.put(at('file'), noise(10, 51), { guard: other }), 'STORE_CONFLICT')
      await rejectsWith(store.remove(at('file'), { guard: other }), 'STORE_CONFLICT')
      await rejectsWith(
        store.read(at('file'), { version: other.kind === 'version' ? other.version : ('' as Version) }),
        'STORE_CONFLICT',
      )
      await assertContent(store, at('file'), noise(10, 50))
    },
  },
  {
    name: '[S4] guards: of racing creates exactly one wins (where creates are atomic)',
    run: async ({ store, at, skip }) => {
      if (store.capabilities.guards.create !== 'atomic') return skip('creates are only checked')
      for (let round = 0; round < 5; round++) {
        const path = at(`race-${round}`)
        const calls = Array.from({ length: 8 }, (_, index) => store.put(path, noise(2000, index), { guard: ABSENT }))
        const winners = await winnersOf(calls)
        assert.equal(winners.length, 1)
        await assertContent(store, path, noise(2000, winners[0] ?? -1))
      }
    },
  },
  {
    name: 'guards: of racing replacements exactly one wins (where replacements are atomic)',
    run: async ({ store, at, skip }) => {
      if (store.capabilities.guards.replace !== 'atomic') return skip('replacements are only checked')
      for (let round = 0; round < 5; round++) {
        const path = at(`race-${round}`)
        const { version } = await store.put(path, noise(10, 52), { guard: ABSENT })
        const guard = ifVersion(version)
        const calls = Array.from({ length: 8 }, (_, index) => store.put(path, noise(2000, index), { guard }))
        const winners = await winnersOf(calls)
        assert.equal(winners.length, 1)
        await assertContent(store, path, noise(2000, winners[0] ?? -1))
      }
    },
  },
  {
    name: 'guards: a version never names two contents, however fast they follow each other',
    run: async ({ store, at }) => {
      // Three replacements within one tick of a coarse clock, of one size and one given mtime, may share an inode.
      const seen = new Map<Version, number>()
      const attributes = { mtime: { seconds: 1_000_000_000, nanoseconds: 0 } }
      for (let round = 0; round < 60; round++) {
        const { version } = await store.put(at('file'), noise(64, round), { guard: ANY, attributes })
        assert.equal(seen.get(version), undefined, `version of round ${round} is that of round ${seen.get(version)}`)
        seen.set(version, round)
      }
    },
  },
]
