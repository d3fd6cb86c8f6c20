import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'

import fc from 'fast-check'

import { timestamp } from '#base/time.ts'
import { compareUtf8, isWithin } from '#store/path.ts'
import { sortKey } from '#store/store.ts'

import type { Actor, ActorListOptions, Listed } from './actor.ts'
import { actorListing, entriesUnder } from './actor-listing.ts'
import type { Listing, Skipped, TreeEntry } from './tree.ts'

let scratch = ''
before(async () => {
  scratch = await mkdtemp(join(tmpdir(), 'eider-actor-listing-'))
})
after(() => rm(scratch, { recursive: true, force: true }))

type Given = Listed | readonly Listed[]

function actorOf(list: (options: ActorListOptions) => AsyncIterable<Given>, alreadySorted = false): Actor {
  return { url: 'test:', alreadySorted, list, upload: async () => {}, delete: async () => {} }
}

async function* given(...entries: readonly Given[]): AsyncGenerator<Given, void, undefined> {
  yield* entries
}

async function pagesOf(listing: Listing): Promise<(readonly TreeEntry[])[]> {
  const pages: (readonly TreeEntry[])[] = []
  for await (const page of listing) pages.push(page)
  return pages
}

async function pathsOf(listing: Listing): Promise<string[]> {
  return (await pagesOf(listing)).flat().map(({ path }) => path)
}

describe('a listing of an actor', () => {
  test('what it leaves out is a file without a time, and what it tells is kept', async () => {
    const mtime = timestamp(7, 8)
    const entries: Listed[] = [
      { path: 'a', size: 1 },
      { path: 'b', size: 0, kind: 'directory', mtime },
    ]
    const [page] = await pagesOf(
      actorListing(
        actorOf(() => given(...entries), true),
        '',
        { scratch },
      ),
    )
    assert.deepEqual(page, [
      { path: 'a', size: 1, kind: 'file', mtime: undefined },
      { path: 'b', size: 0, kind: 'directory', mtime },
    ])
  })

  test('single entries and pages in any order come out sorted, once each, whole', async () => {
    const name = fc.stringMatching(/^[a-c\u{1f600}\uffee!-]{1,3}$/u)
    const path = fc.array(name, { minLength: 1, maxLength: 3 }).map((names) => names.join('/'))
    const listed = fc.record({ path, size: fc.nat(), kind: fc.constantFrom('file' as const, 'directory' as const) })
    const entries = fc.uniqueArray(listed, { selector: sortKey, maxLength: 40 })
    const cuts = fc.array(fc.nat({ max: 5 }), { maxLength: 20 })
    await fc.assert(
      fc.asyncProperty(entries, cuts, fc.option(name), async (all, sizes, under) => {
        const parts: Given[] = []
        let at = 0
        for (const size of sizes) {
          // A page of none is no end.
          parts.push(size === 1 && at < all.length ? (all[at] as Listed) : all.slice(at, at + size))
          at += size
        }
        parts.push(all.slice(at))
        const directory = under ?? ''
        const expected = all
          .filter((entry) => isWithin(entry.path, directory) && sortKey(entry) !== `${directory}/`)
          .toSorted((a, b) => compareUtf8(sortKey(a), sortKey(b)))
          .map((entry) => ({ ...entry, mtime: undefined }))
        const actor = actorOf(() => given(...parts))
        assert.deepEqual((await pagesOf(actorListing(actor, directory, { scratch }))).flat(), expected)
        assert.deepEqual(await entriesUnder(actor, directory, {}), expected)
      }),
      { seed: 20_261_121, numRuns: 150 },
    )
  })

  test('first entries of a sorted one come before its next are known, single ones too', async () => {
    let release: (() => void) | undefined
    const more = new Promise<void>((resolve) => {
      release = resolve
    })
    async function* list(): AsyncGenerator<Given, void, undefined> {
      yield { path: 'a', size: 1 }
      yield { path: 'b', size: 1 }
      await more
      yield { path: 'c', size: 1 }
    }
    const iterator = actorListing(actorOf(list, true), '', { scratch })[Symbol.asyncIterator]()
    const first = await iterator.next()
    assert.deepEqual(
      (first.value as readonly TreeEntry[]).map(({ path }) => path),
      ['a', 'b'],
    )
    release?.()
    const second = await iterator.next()
    assert.deepEqual(
      (second.value as readonly TreeEntry[]).map(({ path }) => path),
      ['c'],
    )
    assert.equal((await iterator.next()).done, true)
  })

  test('single entries that come at once are gathered into pages', async () => {
    const entries = Array.from({ length: 2500 }, (_, index) => ({
      path: `f${String(index).padStart(5, '0')}`,
      size: 1,
    }))
    const pages = await pagesOf(
      actorListing(
        actorOf(() => given(...entries), true),
        '',
        { scratch },
      ),
    )
    assert.deepEqual(
      pages.map(({ length }) => length),
      [1000, 1000, 500],
    )
  })

  test('a listing may say itself that it is sorted, as those of autosync do', async () => {
    const list = (): AsyncIterable<Given> =>
      Object.assign(given({ path: 'b', size: 1 }, { path: 'a', size: 1 }), { alreadySorted: true })
    // In the order given, which whoever merges it then refuses.
    assert.deepEqual(await pathsOf(actorListing(actorOf(list), '', { scratch })), ['b', 'a'])
  })

  test('a "/" in front is taken off', async () => {
    const actor = actorOf(() => given({ path: '/b', size: 1 }, { path: '/a/c', size: 1 }))
    assert.deepEqual(await pathsOf(actorListing(actor, '', { scratch })), ['a/c', 'b'])
  })

  test('names that no path can be are told and passed over, also those that the actor tells', async () => {
    const skipped: Skipped[] = []
    const long = 'x'.repeat(300)
    const paths = ['ok', 'a//b', '..', 'x/./y', 'end/', '', '/', 'nul\0', 'half\ud800', long]
    const actor = actorOf(({ onSkipped }) => {
      onSkipped?.({ path: 'own', reason: 'special', detail: 'told by the actor' })
      return given(paths.map((path) => ({ path, size: 1 })))
    })
    const onSkipped = (one: Skipped): number => skipped.push(one)
    assert.deepEqual(await pathsOf(actorListing(actor, '', { scratch, onSkipped })), ['ok'])
    assert.deepEqual(
      skipped.map(({ path, reason }) => [path, reason]),
      [
        ['own', 'special'],
        ...['a//b', '..', 'x/./y', 'end/', '', '/', 'nul\0', 'half\ufffd'].map((path) => [path, 'invalid-name']),
        [long, 'too-long'],
      ],
    )
  })

  for (const [what, entry, words] of [
    ['nothing', undefined, /there is no entry in undefined/],
    ['a text', 'a', /there is no entry in "a"/],
    ['no path', { size: 1 }, /the path is no text in \{"size":1\}/],
    ['no size', { path: 'a' }, /the size is no number of bytes/],
    ['half a byte', { path: 'a', size: 0.5 }, /the size is no number of bytes/],
    ['an unknown kind', { path: 'a', size: 1, kind: 'folder' }, /the kind is none/],
    ['a Date', { path: 'a', size: 1, mtime: new Date(0) }, /the mtime is not/],
    ['a number of milliseconds', { path: 'a', size: 1, mtime: 5 }, /the mtime is not/],
    ['a version that is no text', { path: 'a', size: 1, version: 1 }, /the version is no text/],
  ] as const) {
    test(`an entry of ${what} ends it, and ends the actor's`, async () => {
      let ended = false
      async function* list(): AsyncGenerator<Given, void, undefined> {
        try {
          yield { path: '0', size: 1 }
          yield entry as unknown as Listed
          yield { path: 'z', size: 1 }
        } finally {
          ended = true
        }
      }
      await assert.rejects(pagesOf(actorListing(actorOf(list, true), '', { scratch })), {
        code: 'STORE_PROTOCOL',
        message: words,
      })
      assert.equal(ended, true)
    })
  }

  test('a path that is there twice is named', async () => {
    const twice = actorOf(() => given({ path: 'a', size: 1 }, { path: 'b', size: 1 }, { path: '/a', size: 2 }))
    await assert.rejects(pagesOf(actorListing(twice, '', { scratch })), {
      code: 'STORE_PROTOCOL',
      message: /it lists "a" twice/,
    })
    const both = actorOf(() => given({ path: 'a', size: 0, kind: 'directory' }, { path: 'a', size: 1 }))
    assert.deepEqual(await pathsOf(actorListing(both, '', { scratch })), ['a', 'a'])
  })

  test('what is no listing is told as that', () => {
    const actor = actorOf((() => [{ path: 'a', size: 1 }]) as unknown as Actor['list'])
    assert.throws(() => actorListing(actor, '', { scratch }), {
      code: 'STORE_PROTOCOL',
      message: /nothing that can be iterated/,
    })
  })

  test('what the actor throws comes through, after what came before', async () => {
    async function* list(): AsyncGenerator<Given, void, undefined> {
      yield [{ path: 'a', size: 1 }]
      throw new RangeError('broken off')
    }
    const seen: string[] = []
    await assert.rejects(async () => {
      for await (const page of actorListing(actorOf(list, true), '', { scratch }))
        seen.push(...page.map(({ path }) => path))
    }, RangeError)
    assert.deepEqual(seen, ['a'])
  })

  test('an actor that does not end is given up with the sync', async () => {
    const controller = new AbortController()
    async function* list(): AsyncGenerator<Given, void, undefined> {
      yield [{ path: 'a', size: 1 }]
      controller.abort()
      await new Promise(() => {})
    }
    const { signal } = controller
    await assert.rejects(pagesOf(actorListing(actorOf(list, true), '', { scratch, signal })), { code: 'ABORTED' })
  })

  test('who reads no further ends the listing of the actor', async () => {
    let ended = false
    async function* list(): AsyncGenerator<Given, void, undefined> {
      try {
        for (let index = 0; ; index++) yield [{ path: `f${index}`, size: 1 }]
      } finally {
        ended = true
      }
    }
    for await (const page of actorListing(actorOf(list, true), '', { scratch })) if (page.length > 0) break
    assert.equal(ended, true)
  })
})
