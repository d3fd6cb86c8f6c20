/** The external sort against `Array.sort` of buffers, and that it leaves nothing on the disk. */
import assert from 'node:assert/strict'
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, test } from 'node:test'

import fc from 'fast-check'

import { isOperationError } from '#base/errors.ts'
import { sortKey, type Version } from '#store/store.ts'

import { sortListing, type SortOptions } from './external-sort.ts'
import type { TreeEntry } from './tree.ts'

let directory = ''
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'eider-sort-'))
})
afterEach(() => rmSync(directory, { recursive: true, force: true }))

function fileOf(path: string, size = 0): TreeEntry {
  return { path, kind: 'file', size, mtime: undefined }
}

async function* listed(entries: readonly TreeEntry[], pageEntries = 3): AsyncGenerator<readonly TreeEntry[]> {
  for (let at = 0; at < entries.length; at += pageEntries) yield entries.slice(at, at + pageEntries)
}

async function sorted(
  entries: readonly TreeEntry[],
  options: Omit<SortOptions, 'directory'> = {},
): Promise<TreeEntry[]> {
  const out: TreeEntry[] = []
  for await (const page of sortListing(listed(entries), { directory, ...options })) out.push(...page)
  return out
}

function openFiles(): number {
  return readdirSync('/proc/self/fd').length
}

function expected(entries: readonly TreeEntry[]): TreeEntry[] {
  return [...entries].sort((a, b) => Buffer.compare(Buffer.from(sortKey(a)), Buffer.from(sortKey(b))))
}

describe('external sort', () => {
  test('[trap 14] sorts by UTF-8 bytes what Array.sort does, stably, whatever its runs', async () => {
    const path = fc.string({ unit: fc.constantFrom('a', '/', '-', '0', '\uffee', '\u{10348}', '\ud7ff'), maxLength: 3 })
    const entry = fc
      .record({ path, kind: fc.constantFrom('file' as const, 'directory' as const), size: fc.nat() })
      .map((one): TreeEntry => ({ ...one, mtime: undefined }))
    const runEntries = fc.integer({ min: 1, max: 9 })
    const fanIn = fc.integer({ min: 2, max: 4 })
    await fc.assert(
      fc.asyncProperty(fc.array(entry, { maxLength: 80 }), runEntries, fanIn, async (entries, run, fan) => {
        const out = await sorted(entries, { runEntries: run, fanIn: fan })
        assert.deepEqual(out, expected(entries))
      }),
      { seed: 43, numRuns: 100 },
    )
  })

  test('all that an entry tells comes back from the disk', async () => {
    const at = { seconds: -5, nanoseconds: 999_999_999 }
    const full: TreeEntry = {
      path: 'z',
      kind: 'symlink',
      size: 2 ** 52,
      mtime: at,
      identity: { device: 1, inode: 2 ** 53, ctime: at },
      version: 'v' as Version,
      attributes: { mode: 0o7777, uid: 1, gid: 2, atime: at, xattrs: new Map([['user.x', new Uint8Array([0, 255])]]) },
    }
    const out = await sorted([full, fileOf('y'), fileOf('x')], { runEntries: 1 })
    assert.deepEqual(
      out.map(({ path }) => path),
      ['x', 'y', 'z'],
    )
    const { attributes, ...rest } = out[2] ?? full
    assert.deepEqual(rest, {
      path: 'z',
      kind: 'symlink',
      size: 2 ** 52,
      mtime: at,
      identity: full.identity,
      version: 'v',
    })
    assert.deepEqual([...(attributes?.xattrs?.get('user.x') ?? [])], [0, 255])
    assert.equal(attributes?.mode, 0o7777)
  })

  test('no name is ever left in its directory, and no open file after its end, good or bad', async () => {
    const entries = Array.from({ length: 500 }, (_, index) => fileOf(`${(index * 7919) % 500}`))
    const before = openFiles()
    let pages = 0
    let most = 0
    for await (const page of sortListing(listed(entries), { directory, runEntries: 2, fanIn: 4 })) {
      pages += page.length
      most = Math.max(most, openFiles() - before)
      assert.deepEqual(readdirSync(directory), [])
    }
    assert.equal(pages, 500)
    // 250 runs, four of a level at most.
    assert.ok(most > 0 && most <= 16, `${most} were open`)
    assert.equal(openFiles(), before)
    for await (const page of sortListing(listed(entries), { directory, runEntries: 2 })) {
      assert.ok(page.length > 0)
      break
    }
    assert.equal(openFiles(), before)
    async function* broken(): AsyncGenerator<readonly TreeEntry[]> {
      yield entries
      throw new Error('the actor failed')
    }
    await assert.rejects(async () => {
      for await (const page of sortListing(broken(), { directory, runEntries: 2 })) assert.fail(`gave ${page.length}`)
    }, /the actor failed/)
    assert.equal(openFiles(), before)
    assert.deepEqual(readdirSync(directory), [])
  })

  test('what fits into one run touches no disk', async () => {
    const out: TreeEntry[] = []
    const options = { directory: join(directory, 'never-made') }
    for await (const page of sortListing(listed([fileOf('b'), fileOf('a')]), options)) out.push(...page)
    assert.deepEqual(
      out.map(({ path }) => path),
      ['a', 'b'],
    )
    assert.deepEqual(readdirSync(directory), [])
  })

  test('a disk that cannot be written is LOCAL_FAILED, a signal ABORTED', async () => {
    const options = { directory: join(directory, 'file'), runEntries: 1 }
    writeFileSync(options.directory, '')
    const sort = async (more: Partial<SortOptions>): Promise<void> => {
      for await (const page of sortListing(listed([fileOf('b'), fileOf('a')]), { ...options, ...more })) assert.ok(page)
    }
    await assert.rejects(sort({}), (error: unknown) => isOperationError(error, 'LOCAL_FAILED'))
    await assert.rejects(sort({ signal: AbortSignal.abort() }), (error: unknown) => isOperationError(error, 'ABORTED'))
  })
})
