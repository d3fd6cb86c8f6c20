/** Cases of the store suite: removal of many entries in one call. */
import assert from 'node:assert/strict'

import { ABSENT, ANY, type Entry, type Removal, type Store } from '#store/store.ts'

import { assertContent, assertGone, inParallel, keysOf, listAll, noise, rejectsWith, type SuiteCase } from './case.ts'

function removalOf({ path, kind, version }: Entry): Removal {
  return { path, kind, version }
}

/** Code of each outcome; "done" where the entry was removed. */
async function outcomesOf(store: Store, removals: readonly Removal[]): Promise<string[]> {
  const outcomes = await store.removeAll(removals)
  assert.equal(outcomes.length, removals.length, 'one outcome for each removal')
  return outcomes.map((outcome) => outcome?.code ?? 'done')
}

export const bulkRemovalCases: readonly SuiteCase[] = [
  {
    name: '[S3] removal in bulk: each entry has its own outcome, in the order asked for',
    run: async ({ store, at, directory }) => {
      const old = await store.put(at('replaced'), noise(10, 170), { guard: ABSENT })
      await store.put(at('replaced'), noise(10, 171), { guard: ANY })
      const gone = await store.put(at('gone'), noise(10, 172), { guard: ABSENT })
      await store.remove(at('gone'), { guard: ANY })
      const there = [
        await store.put(at('a'), noise(10, 173), { guard: ABSENT }),
        await store.put(at('b'), noise(10, 174), { guard: ABSENT }),
      ]
      await store.put(at('kept'), noise(10, 175), { guard: ABSENT })
      const [a, b] = there.map(removalOf)
      assert.ok(a !== undefined && b !== undefined)
      const outcomes = await outcomesOf(store, [a, removalOf(old), removalOf(gone), b])
      assert.deepEqual([outcomes[0], outcomes[1], outcomes[3]], ['done', 'STORE_CONFLICT', 'done'])
      // A store whose removals ask for what must hold answers the same to both.
      assert.ok(outcomes[2] === 'STORE_NOT_FOUND' || outcomes[2] === 'STORE_CONFLICT', outcomes[2])
      assert.deepEqual(keysOf(await listAll(store, directory), directory), ['kept', 'replaced'])
      await assertContent(store, at('replaced'), noise(10, 171))
    },
  },
  {
    name: 'removal in bulk: a whole tree, directories after what lies in them',
    run: async ({ store, at, directory }) => {
      for (const name of ['top/1', 'top/sub/2', 'top/sub/deep/3', 'other/4']) {
        await store.put(at(name), noise(10, 176), { guard: ABSENT })
      }
      await store.makeDirectory(at('top/empty'), { guard: ABSENT })
      await store.makeDirectory(at('top/sub'), { guard: ANY })
      const order = ['top/1', 'top/empty', 'top/sub/2', 'top/sub/deep/3', 'top/sub/deep', 'top/sub', 'top']
      const removals: Removal[] = []
      for (const name of order) removals.push(removalOf(await store.stat(at(name))))
      const outcomes = await outcomesOf(store, removals)
      for (const [index, outcome] of outcomes.entries()) {
        // One that came into being by itself has gone with its last entry.
        const byItself = removals[index]?.kind === 'directory' && outcome === 'STORE_NOT_FOUND'
        assert.ok(outcome === 'done' || byItself, `${order[index]}: ${outcome}`)
      }
      assert.deepEqual(keysOf(await listAll(store, directory), directory), ['other/'])
      await assertGone(store, at('top'))
    },
  },
  {
    name: 'removal in bulk: a directory with entries stays there with them',
    run: async ({ store, at }) => {
      await store.makeDirectory(at('dir'), { guard: ABSENT })
      const dir = await store.stat(at('dir'))
      await store.put(at('dir/came-meanwhile'), noise(10, 177), { guard: ABSENT })
      const [outcome] = await outcomesOf(store, [removalOf(dir)])
      assert.ok(outcome === 'STORE_NOT_EMPTY' || outcome === 'done', outcome)
      await assertContent(store, at('dir/came-meanwhile'), noise(10, 177))
      assert.equal((await store.stat(at('dir'))).kind, 'directory')
    },
  },
  {
    name: 'removal in bulk: symlinks, fifos and sockets',
    run: async ({ store, at, directory, skip }) => {
      const { attributes, specials } = store.capabilities
      if (!attributes) return skip('the store keeps no symlinks')
      const made = [await store.symlink(at('link'), 'nowhere', { guard: ABSENT })]
      if (specials) {
        made.push(await store.makeSpecial(at('fifo'), 'fifo', { guard: ABSENT }))
        made.push(await store.makeSpecial(at('socket'), 'socket', { guard: ABSENT }))
      }
      await store.put(at('last'), noise(1, 178), { guard: ABSENT })
      assert.deepEqual(
        await outcomesOf(store, made.map(removalOf)),
        made.map(() => 'done'),
      )
      assert.deepEqual(keysOf(await listAll(store, directory), directory), ['last'])
    },
  },
  {
    name: '[S3] removal in bulk: more entries than one request holds, some of which others have replaced',
    run: async ({ store, at, directory, options }) => {
      const count = 1_203
      const removals: Removal[] = Array.from({ length: count })
      await inParallel(count, options.parallel, async (index) => {
        const put = await store.put(at(`d${index % 5}/f${index}`), noise(5, index), { guard: ABSENT })
        removals[index] = removalOf(put)
      })
      const replaced = [3, 700, 1_201]
      for (const index of replaced) await store.put(at(`d${index % 5}/f${index}`), noise(6, index), { guard: ANY })
      const outcomes = await outcomesOf(store, removals)
      const failed = outcomes.flatMap((outcome, index) => (outcome === 'done' ? [] : [`${index} ${outcome}`]))
      assert.deepEqual(
        failed,
        replaced.map((index) => `${index} STORE_CONFLICT`),
      )
      const left = await listAll(store, directory, { recursive: true })
      const files = left.filter((entry) => entry.kind === 'file').map((entry) => entry.path)
      assert.deepEqual(files.toSorted(), replaced.map((index) => at(`d${index % 5}/f${index}`)).toSorted())
    },
  },
  {
    name: 'removal in bulk: of nothing does nothing, and an abort before removes nothing',
    run: async ({ store, at }) => {
      assert.deepEqual(await store.removeAll([]), [])
      const put = await store.put(at('file'), noise(10, 179), { guard: ABSENT })
      await rejectsWith(store.removeAll([removalOf(put)], { signal: AbortSignal.abort() }), 'ABORTED')
      await assertContent(store, at('file'), noise(10, 179))
    },
  },
]
