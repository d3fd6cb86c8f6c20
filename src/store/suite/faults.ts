/** Cases of the store suite: what a caller sees of a store behind a bad network, and what it finds afterwards. */
import assert from 'node:assert/strict'

import { openFaultyStore, OUTSIDER_BYTES } from '#store/faulty-store.ts'
import { ABSENT, ANY, ifVersion } from '#store/store.ts'

import { assertContent, assertGone, listAll, noise, rejectsWith, type SuiteCase } from './case.ts'

export const faultCases: readonly SuiteCase[] = [
  {
    name: 'faults: a put that times out after success is there whole, and its guard no longer holds',
    run: async ({ store, at }) => {
      const faulty = openFaultyStore(store)
      faulty.failNext('put', { kind: 'lost' })
      await rejectsWith(faulty.put(at('new'), noise(50_000, 120), { guard: ABSENT }), 'STORE_TIMEOUT')
      await assertContent(faulty, at('new'), noise(50_000, 120))
      await rejectsWith(faulty.put(at('new'), noise(50_000, 121), { guard: ABSENT }), 'STORE_CONFLICT')
      const { version } = await faulty.stat(at('new'))
      faulty.failNext('put', { kind: 'lost' })
      const guard = ifVersion(version)
      await rejectsWith(faulty.put(at('new'), noise(50_000, 122), { guard }), 'STORE_TIMEOUT')
      await rejectsWith(faulty.put(at('new'), noise(50_000, 123), { guard }), 'STORE_CONFLICT')
      await assertContent(store, at('new'), noise(50_000, 122))
    },
  },
  {
    name: 'faults: a removal and a rename that time out after success have happened once',
    run: async ({ store, at }) => {
      const faulty = openFaultyStore(store)
      await faulty.put(at('a'), noise(100, 124), { guard: ABSENT })
      faulty.failNext('rename', { kind: 'lost' })
      const free = { guard: ANY, targetGuard: ABSENT }
      await rejectsWith(faulty.rename(at('a'), at('b'), free), 'STORE_TIMEOUT')
      await rejectsWith(faulty.rename(at('a'), at('b'), free), 'STORE_NOT_FOUND', 'STORE_CONFLICT')
      await assertContent(store, at('b'), noise(100, 124))
      faulty.failNext('remove', { kind: 'lost' })
      await rejectsWith(faulty.remove(at('b'), { guard: ANY }), 'STORE_TIMEOUT')
      await rejectsWith(faulty.remove(at('b'), { guard: ANY }), 'STORE_NOT_FOUND')
      await assertGone(store, at('a'))
    },
  },
  {
    name: 'faults: what fails before its effect leaves everything, and can be tried again',
    run: async ({ store, at, directory }) => {
      const faulty = openFaultyStore(store)
      await faulty.put(at('kept'), noise(100, 125), { guard: ABSENT })
      for (const fault of [{ kind: 'error', code: 'STORE_UNAVAILABLE' }, { kind: 'throttled' }] as const) {
        const code = fault.kind === 'error' ? fault.code : 'STORE_THROTTLED'
        for (const operation of ['put', 'remove', 'stat', 'list'] as const) faulty.failNext(operation, fault)
        await rejectsWith(faulty.put(at('kept'), noise(100, 126), { guard: ANY }), code)
        await rejectsWith(faulty.remove(at('kept'), { guard: ANY }), code)
        await rejectsWith(faulty.stat(at('kept')), code)
        await rejectsWith(listAll(faulty, directory), code)
        await assertContent(faulty, at('kept'), noise(100, 125))
      }
      await faulty.put(at('kept'), noise(100, 126), { guard: ANY })
      await assertContent(store, at('kept'), noise(100, 126))
    },
  },
  {
    name: '[S3] faults: what somebody else wrote in between is never overwritten under a guard',
    run: async ({ store, at }) => {
      const faulty = openFaultyStore(store)
      const mine = await faulty.put(at('file'), noise(100, 127), { guard: ABSENT })
      faulty.failNext('put', { kind: 'conflict' })
      await rejectsWith(faulty.put(at('file'), noise(100, 128), { guard: ifVersion(mine.version) }), 'STORE_CONFLICT')
      await assertContent(store, at('file'), OUTSIDER_BYTES)
      faulty.failNext('put', { kind: 'conflict' })
      await rejectsWith(faulty.put(at('fresh'), noise(100, 129), { guard: ABSENT }), 'STORE_CONFLICT')
      await assertContent(store, at('fresh'), OUTSIDER_BYTES)
      const { version } = await faulty.stat(at('fresh'))
      faulty.failNext('remove', { kind: 'conflict' })
      await rejectsWith(faulty.remove(at('file'), { guard: ifVersion(mine.version) }), 'STORE_CONFLICT')
      faulty.failNext('rename', { kind: 'conflict' })
      const free = { guard: ifVersion(version), targetGuard: ABSENT }
      await rejectsWith(faulty.rename(at('fresh'), at('taken'), free), 'STORE_CONFLICT')
      await assertContent(store, at('taken'), OUTSIDER_BYTES)
      await assertContent(store, at('fresh'), OUTSIDER_BYTES)
    },
  },
  {
    name: '[S6] faults: a body or listing that breaks off is an error, never a short one',
    run: async ({ store, at, directory }) => {
      const faulty = openFaultyStore(store)
      const bytes = noise(300_000, 130)
      await faulty.put(at('file'), bytes, { guard: ABSENT })
      for (const after of [0, 1, 100_000, 299_999, 400_000]) {
        faulty.failNext('read', { kind: 'cut', after })
        const reading = await faulty.read(at('file'))
        let size = 0
        await rejectsWith(
          (async () => {
            for await (const chunk of reading.body) size += chunk.length
          })(),
          'STORE_UNAVAILABLE',
        )
        assert.ok(size < bytes.length)
      }
      faulty.failNext('read', { kind: 'cut', after: 5 })
      await rejectsWith((await faulty.read(at('file'))).bytes(), 'STORE_UNAVAILABLE')
      for (const after of [0, 1]) {
        faulty.failNext('list', { kind: 'cut', after })
        await rejectsWith(listAll(faulty, directory), 'STORE_UNAVAILABLE')
      }
      await assertContent(faulty, at('file'), bytes)
    },
  },
]
