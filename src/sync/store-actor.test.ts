import assert from 'node:assert/strict'
import { describe, test } from 'node:test'

import { openFaultyStore } from '#store/faulty-store.ts'
import { openMemoryStore } from '#store/memory-store.ts'
import { readOnlyStore } from '#store/read-only-store.ts'
import { ABSENT } from '#store/store.ts'
import { withHidden } from '#store/suite/hidden-double.ts'

import { actorListing } from './actor-listing.ts'
import { StoreActor } from './store-actor.ts'

describe('a store as a target', () => {
  test('[S145] tells of what it hides, but for its own area', async () => {
    const inner = withHidden(openMemoryStore(), ['conf', 'a//b', '.eider/odd'])
    await inner.put('conf/x', Buffer.from('x'), { guard: ABSENT })
    const store = readOnlyStore(openFaultyStore(inner))
    const skipped: unknown[] = []
    const files: string[] = []
    const listing = actorListing(new StoreActor(store), '', { scratch: '', onSkipped: (each) => skipped.push(each) })
    for await (const page of listing) files.push(...page.map(({ path }) => path))
    assert.deepEqual(files, ['conf/x'])
    assert.deepEqual(
      skipped,
      ['conf', 'a//b'].map((path) => ({ path, reason: 'invalid-name', detail: 'hidden' })),
    )
  })
})
