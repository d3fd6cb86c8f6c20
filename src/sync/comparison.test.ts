import assert from 'node:assert/strict'
import { chmodSync, mkdirSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, test } from 'node:test'

import { OperationError } from '#base/errors.ts'
import { ABSENT } from '#store/store.ts'

import { actorListing } from './actor-listing.ts'
import { compare } from './comparison.ts'
import { sync, tick, withParts, type Parts, type PartsOptions } from './parts-double.ts'
import type { SourceListing } from './source.ts'
import type { TreeEntry } from './tree.ts'

interface Told {
  readonly different: string[]
  readonly targetOnly: string[]
  readonly counts: { source: number; target: number; same: number }
}

/** Compares the tree with the store, and tells of what differs. */
async function compared(parts: Parts, { metadata = false }: PartsOptions = {}, source?: SourceListing): Promise<Told> {
  const told: Told = { different: [], targetOnly: [], counts: { source: 0, target: 0, same: 0 } }
  await compare(
    { source: source ?? parts.source.list('', {}), target: actorListing(parts.actor, '', { scratch: tmpdir() }) },
    {
      onDifferent: (path) => told.different.push(path),
      onTargetOnly: ({ path }) => told.targetOnly.push(path),
      onDirectory: () => undefined,
      onKept: () => undefined,
      room: async () => undefined,
    },
    told.counts,
    {
      ...{
        source: parts.source,
        decider: parts.decider,
        metadata,
        directories: true,
        backupDirectory: 'old',
        isRootAtRest: false,
      },
    },
  )
  return told
}

describe('the comparison of two trees', () => {
  test('[S144] tells of the first difference while both listings go on, and waits for room', () =>
    withParts({}, async (parts) => {
      const goesOn = Promise.withResolvers<void>()
      const told = Promise.withResolvers<string>()
      let pages = 0
      async function* listing(isSource: boolean): AsyncGenerator<readonly TreeEntry[]> {
        for (let page = 0; page < 1000; page++) {
          if (isSource) pages++
          // Neither goes past its third page before a difference was told.
          if (page === 2) await goesOn.promise
          const path = isSource ? `f${String(page).padStart(4, '0')}` : `g${String(page).padStart(4, '0')}`
          yield [{ path, kind: 'file', size: 1, mtime: undefined }]
        }
      }
      const source = { provesAbsence: () => true, [Symbol.asyncIterator]: () => listing(true) }
      let waiting = 0
      let waitingMax = 0
      const done = compare(
        { source, target: listing(false) },
        {
          onDifferent: (path) => {
            waiting++
            waitingMax = Math.max(waitingMax, waiting)
            told.resolve(path)
          },
          onTargetOnly: () => undefined,
          onDirectory: () => undefined,
          onKept: () => undefined,
          room: async () => void (waiting = 0),
        },
        { source: 0, target: 0, same: 0 },
        {
          ...{ source: parts.source, decider: parts.decider, metadata: false, directories: true },
          ...{ backupDirectory: undefined, isRootAtRest: false },
        },
      )
      assert.equal(await told.promise, 'f0000')
      assert.ok(pages <= 3, 'both are still being listed')
      goesOn.resolve()
      await done
      assert.equal(pages, 1000)
      assert.ok(waitingMax < 10, `what was told was waited for: ${waitingMax}`)
    }))

  test('tells what only one side has, what differs, and empty directories alone', () =>
    withParts({}, async (parts) => {
      const { directory, store } = parts
      mkdirSync(join(directory, 'empty'))
      mkdirSync(join(directory, 'full'))
      for (const path of ['full/a', 'new', 'same', 'size']) writeFileSync(join(directory, path), path)
      await tick()
      await sync(parts, 'same')
      await store.put('size', Buffer.from('another size'), { guard: ABSENT })
      await store.put('gone/deep', Buffer.from('gone'), { guard: ABSENT })
      await store.put('old/kept', Buffer.from('of --backup-dir'), { guard: ABSENT })
      const { different, targetOnly, counts } = await compared(parts)
      assert.deepEqual(different, ['empty', 'full/a', 'new', 'size'])
      assert.deepEqual(
        targetOnly.filter((path) => path !== 'gone'),
        ['gone/deep'],
      )
      assert.equal(counts.same, 1)
    }))

  test('remembers what it found equal, so that its removal is known as one', () =>
    withParts({}, async (parts) => {
      const file = join(parts.directory, 'a')
      writeFileSync(file, 'a')
      utimesSync(file, 1000, 1000)
      await parts.store.put('a', Buffer.from('a'), {
        guard: ABSENT,
        attributes: { mtime: { seconds: 1000, nanoseconds: 0 } },
      })
      await parts.store.put('b', Buffer.from('b'), { guard: ABSENT })
      await tick()
      assert.equal(statSync(file).mtimeMs, 1_000_000)
      assert.deepEqual((await compared(parts)).different, [])
      rmSync(file)
      assert.equal(await sync(parts, 'a'), 'deleted')
    }))

  test(
    '[S131] proves nothing absent of what the source could not list',
    { skip: process.getuid?.() === 0 && 'root may read all' },
    () =>
      withParts({}, async (parts) => {
        mkdirSync(join(parts.directory, 'shut'))
        await parts.store.put('shut/a', Buffer.from('a'), { guard: ABSENT })
        chmodSync(join(parts.directory, 'shut'), 0)
        assert.deepEqual((await compared(parts)).targetOnly, [])
        chmodSync(join(parts.directory, 'shut'), 0o700)
      }),
  )

  test('[S131] throws where the listing of the source breaks off, and tells nothing of what it had not come to', () =>
    withParts({}, async (parts) => {
      for (const path of ['a', 'b', 'c']) await parts.store.put(path, Buffer.from(path), { guard: ABSENT })
      const broken: SourceListing = {
        provesAbsence: () => true,
        async *[Symbol.asyncIterator]() {
          yield [{ path: 'b', kind: 'file', size: 1, mtime: undefined }] as const
          throw new OperationError('LOCAL_FAILED', 'Cannot list: made up')
        },
      }
      const told: string[] = []
      const target = actorListing(parts.actor, '', { scratch: tmpdir() })
      await assert.rejects(
        compare(
          { source: broken, target },
          {
            onDifferent: () => undefined,
            onTargetOnly: ({ path }) => told.push(path),
            onDirectory: () => undefined,
            onKept: () => undefined,
            room: async () => undefined,
          },
          { source: 0, target: 0, same: 0 },
          {
            source: parts.source,
            decider: parts.decider,
            metadata: false,
            directories: true,
            backupDirectory: undefined,
            isRootAtRest: false,
          },
        ),
        /made up/,
      )
      assert.ok(!told.includes('c'), 'it ended before c')
    }))
})
