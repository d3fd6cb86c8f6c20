import assert from 'node:assert/strict'
import { describe, test } from 'node:test'

import { isOperationError } from '#base/errors.ts'
import { openMemoryStore } from '#store/memory-store.ts'
import { ABSENT, ANY } from '#store/store.ts'
import { withHidden } from '#store/suite/hidden-double.ts'

import { Filter } from './filters.ts'
import { StoreSource } from './store-source.ts'

const call = {}

describe('a store as what is synced', () => {
  test('is listed by the names that it has in the target, without its own area and what is left out', async () => {
    const store = openMemoryStore()
    for (const path of ['a', 'd/b', 'skip/c', '.eider/own']) {
      await store.put(path, Buffer.from(path), { guard: ABSENT })
    }
    const filter = new Filter({ globs: [{ kind: 'exclude', glob: 'skip/' }] })
    const source = new StoreSource({ store, filter, target: 'p' })
    const files: string[] = []
    for await (const page of source.list('p', {})) {
      files.push(...page.filter(({ kind }) => kind === 'file').map(({ path }) => path))
    }
    assert.deepEqual(files, ['p/a', 'p/d/b'])
    assert.equal((await source.look('p/skip/c', call)).is, 'left-out')
    assert.equal((await source.look('p/none', call)).is, 'absent')
    assert.equal((await source.look('p/a/below', call)).is, 'absent')
  })

  test('[S145] what the store hides is skipped, and proves no absence, unless the filter leaves it out', async () => {
    const hidden = ['conf', 'd//x', '/front', 'skip/..', '.eider/own']
    const store = withHidden(openMemoryStore(), hidden)
    for (const path of ['a', 'conf/x']) await store.put(path, Buffer.from(path), { guard: ABSENT })
    const filter = new Filter({ globs: [{ kind: 'exclude', glob: 'skip/' }] })
    const source = new StoreSource({ store, filter, target: 'p' })
    const skipped: string[] = []
    const listing = source.list('p', { onSkipped: ({ path, reason }) => skipped.push(`${path} ${reason}`) })
    const files: string[] = []
    for await (const page of listing) {
      files.push(...page.filter(({ kind }) => kind === 'file').map(({ path }) => path))
    }
    assert.deepEqual(files, ['p/a', 'p/conf/x'])
    assert.deepEqual(skipped, ['p/conf invalid-name', 'p/d//x invalid-name', 'p//front invalid-name'])
    const gone = ['p/conf', 'p/conf/old', 'p/d', 'p/b', 'p/d/x', 'p/conf2'].filter((path) =>
      listing.provesAbsence(path),
    )
    assert.deepEqual(gone, ['p/b', 'p/d/x', 'p/conf2'])
  })

  test('[S131] a directory that is there by what lies in it alone is not absent', async () => {
    const store = openMemoryStore()
    for (const path of ['a-', 'a/b/c', 'a0', 'e/f']) await store.put(path, Buffer.from(path), { guard: ABSENT })
    // Memory lists the directories, too; a bucket does not.
    const list = store.list.bind(store)
    store.list = async function* files(path, options) {
      for await (const page of list(path, { ...options, pageEntries: 2 })) {
        yield page.filter(({ kind }) => kind === 'file')
      }
    }
    const listing = new StoreSource({ store, filter: new Filter(), target: '' }).list('', {})
    const absent: string[] = []
    // One page is asked for ahead, and what the other side has is asked about up to the last entry of a page.
    const pages = listing[Symbol.asyncIterator]()
    let next = pages.next()
    for (let at = await next; at.done !== true; at = await next) {
      next = pages.next()
      await next
      for (const { path } of at.value) {
        const start = path.slice(0, 2)
        for (const each of ['a', 'a/b', 'a/bb', 'e']) {
          if (`${each}/`.startsWith(start) && listing.provesAbsence(each)) absent.push(each)
        }
      }
    }
    assert.deepEqual(absent, ['a/bb'])
  })

  test('[trap 9] reads the version that was looked at, or none', async () => {
    const store = openMemoryStore()
    await store.put('a', Buffer.from('first'), { guard: ABSENT })
    const source = new StoreSource({ store, filter: new Filter(), target: '' })
    const looked = await source.look('a', call)
    assert.ok(looked.is === 'entry')
    const open = await source.open(looked.entry, call)
    assert.equal(Buffer.from((await open.whole(100)) ?? []).toString(), 'first')
    open.close()
    await store.put('a', Buffer.from('second'), { guard: ANY })
    await assert.rejects(source.open(looked.entry, call), (error) => isOperationError(error))
  })
})
