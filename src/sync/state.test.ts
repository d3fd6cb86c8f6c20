import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, test } from 'node:test'

import fc from 'fast-check'

import { Slice } from '#store/directory/listing.ts'
import type { Version } from '#store/store.ts'

import { decodeKnown, encodeKnown, type Known } from './state-record.ts'
import { SyncState } from './state.ts'

const TIME = { seconds: 1_700_000_000, nanoseconds: 123_456_789 }

function known(size: number, kind: Known['kind'] = 'file'): Known {
  return { kind, size, mtime: TIME, lookedAt: TIME }
}

async function withState(use: (state: SyncState, directory: string) => Promise<void>): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'eider-sync-state-'))
  const state = await SyncState.open(directory)
  try {
    await use(state, directory)
  } finally {
    await state.close()
    rmSync(directory, { recursive: true })
  }
}

async function listed(state: SyncState, under: string): Promise<string[]> {
  const found: string[] = []
  for await (const page of state.listing(under, new Slice())) {
    for (const { path, kind } of page) found.push(kind === 'directory' ? `${path}/` : path)
  }
  return found
}

describe('the record of what was made equal', () => {
  const time = fc.record(
    {
      seconds: fc.integer({ min: -(2 ** 47), max: 2 ** 47 - 1 }),
      nanoseconds: fc.integer({ min: 0, max: 999_999_999 }),
    },
    { noNullPrototype: true },
  )
  const version = fc.string({ unit: 'binary', maxLength: 200 }).map((text) => text.toWellFormed() as Version)
  const identity = fc.record(
    { device: fc.maxSafeNat(), inode: fc.maxSafeNat(), ctime: time },
    { noNullPrototype: true },
  )
  const digest = fc.uint8Array({ minLength: 32, maxLength: 32 }).map((bytes) => Buffer.from(bytes).toString('hex'))
  const record = fc.record(
    {
      kind: fc.constantFrom('file' as const, 'directory' as const, 'symlink' as const),
      size: fc.maxSafeNat(),
      mtime: time,
      lookedAt: time,
      identity,
      sourceVersion: version,
      targetVersion: version,
      hash: digest.map((hex) => ({ algorithm: 'sha256', digest: hex })),
    },
    { requiredKeys: ['kind', 'size', 'mtime', 'lookedAt'], noNullPrototype: true },
  )

  test('comes back as it was', () => {
    fc.assert(
      fc.property(record, (one) => {
        const bytes = encodeKnown(one)
        assert.ok(bytes !== undefined)
        assert.deepEqual(decodeKnown(bytes), one)
      }),
      { seed: 4, numRuns: 500 },
    )
  })

  test('that was cut, or is of another format, is none', () => {
    fc.assert(
      fc.property(record, fc.nat(), (one, cut) => {
        const bytes = encodeKnown(one) ?? Buffer.alloc(1)
        assert.equal(decodeKnown(bytes.subarray(0, cut % bytes.length)), undefined)
        assert.equal(decodeKnown(Buffer.concat([Buffer.from([99]), bytes.subarray(1)])), undefined)
      }),
      { seed: 4, numRuns: 500 },
    )
  })

  test('of a time that no record holds is not written', () => {
    assert.equal(encodeKnown({ ...known(1), mtime: { seconds: 2 ** 50, nanoseconds: 0 } }), undefined)
  })
})

describe('the state of a sync', () => {
  test('is seen at once, and by the next process', () =>
    withState(async (state, directory) => {
      state.remember('a', known(1))
      state.remember('d/', known(0, 'directory'))
      state.remember('d/b', known(2))
      state.intend({ path: 'ü', since: 5 })
      assert.equal(state.known('a')?.size, 1)
      await state.flushed()
      state.forget('a')
      assert.equal(state.known('a'), undefined)
      await state.setFact('root', 'one')
      await state.flushed()
      // As after SIGKILL: nobody has closed it.
      const next = await SyncState.open(directory)
      assert.deepEqual(await listed(next, ''), ['d/', 'd/b'])
      assert.deepEqual(next.intents(), [{ path: 'ü', since: 5 }])
      assert.equal(next.fact('root'), 'one')
      await next.close()
    }))

  test('lists in the order of sort keys, and what is under a directory alone', () =>
    withState(async (state) => {
      for (const key of ['a0', 'a/b', 'a-b', 'a/', 'a/b/', '😀', 'ｆ']) {
        state.remember(key, known(1, key.endsWith('/') ? 'directory' : 'file'))
      }
      assert.deepEqual(await listed(state, ''), ['a-b', 'a/', 'a/b', 'a/b/', 'a0', 'ｆ', '😀'])
      assert.deepEqual(await listed(state, 'a'), ['a/', 'a/b', 'a/b/'])
    }))

  test('knows of what lies under a directory, written or not, and no more once it was forgotten', () =>
    withState(async (state) => {
      state.remember('d/a', known(1))
      assert.ok(state.holdsUnder('d'))
      assert.ok(!state.holdsUnder('d/a') && !state.holdsUnder('e'))
      await state.flushed()
      assert.ok(state.holdsUnder('d'))
      state.forget('d/a')
      assert.ok(!state.holdsUnder('d'))
    }))

  test('takes directories along with what is renamed', () =>
    withState(async (state) => {
      for (const key of ['d/', 'd/a', 'd/e/', 'd/e/b', 'd-b']) {
        state.remember(key, known(1, key.endsWith('/') ? 'directory' : 'file'))
      }
      await state.moveKnown('d', 'n/m', (_key, one) => one)
      assert.deepEqual(await listed(state, ''), ['d-b', 'n/m/', 'n/m/a', 'n/m/e/', 'n/m/e/b'])
    }))

  test('keeps paths that are longer than its keys, by their hashes', () =>
    withState(async (state) => {
      const [one, other] = [`${'x'.repeat(3000)}1`, `${'x'.repeat(3000)}2`]
      state.remember(one, known(1))
      state.remember(other, known(2))
      await state.flushed()
      assert.deepEqual([state.known(one)?.size, state.known(other)?.size], [1, 2])
    }))

  test('doubts a path until more is known of it', () =>
    withState(async (state) => {
      state.doubt('a')
      assert.ok(state.isDoubted('a'))
      state.remember('a', known(1))
      assert.ok(!state.isDoubted('a'))
    }))

  test('that is damaged is begun anew', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'eider-sync-state-'))
    try {
      writeFileSync(join(directory, 'state.lmdb'), Buffer.alloc(10_000, 'no database'))
      const state = await SyncState.open(directory)
      assert.deepEqual(await listed(state, ''), [])
      await state.close()
    } finally {
      rmSync(directory, { recursive: true })
    }
  })
})
