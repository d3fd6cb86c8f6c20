import assert from 'node:assert/strict'
import {
  appendFileSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, test } from 'node:test'

import { isOperationError } from '#base/errors.ts'

import { Filter, type FilterRules } from './filters.ts'
import { LocalSource, type LinkPolicy } from './local-source.ts'
import { Prefixes } from './prefixes.ts'
import { tick } from './parts-double.ts'
import type { TreeEntry } from './tree.ts'

interface Made {
  readonly base: string
  readonly directory: string
  readonly source: LocalSource
}

async function withSource(
  options: { readonly links?: LinkPolicy; readonly filter?: FilterRules; readonly targetPrefix?: string },
  use: (made: Made) => Promise<void>,
): Promise<void> {
  const base = mkdtempSync(join(tmpdir(), 'eider-local-source-'))
  const directory = join(base, 'tree')
  mkdirSync(directory)
  const prefixes = new Prefixes({
    paths: [{ path: directory, isDirectory: true }],
    sourcePrefix: `${directory}/`,
    targetPrefix: options.targetPrefix,
  })
  const source = new LocalSource({ prefixes, filter: new Filter(options.filter), links: options.links ?? 'skip' })
  try {
    await use({ base, directory, source })
  } finally {
    await source.close()
    rmSync(base, { recursive: true, force: true })
  }
}

async function entryOf(source: LocalSource, path: string): Promise<TreeEntry> {
  const looked = await source.look(path)
  assert.ok(looked.is === 'entry', looked.is)
  return looked.entry
}

describe('local paths as what is synced', () => {
  test('[S131] a root that was replaced proves nothing: every look and listing says so', () =>
    withSource({}, async ({ base, directory, source }) => {
      writeFileSync(join(directory, 'a'), 'a')
      assert.equal((await source.look('a')).is, 'entry')
      assert.equal((await source.look('b')).is, 'absent')
      renameSync(directory, join(base, 'elsewhere'))
      const changed = (error: unknown): boolean => isOperationError(error, 'ROOT_CHANGED')
      await assert.rejects(source.look('a'), changed)
      mkdirSync(directory)
      await assert.rejects(source.look('a'), changed)
      assert.throws(() => source.list('', {}), changed)
    }))

  test('[trap 16] nothing is looked at or opened through a symlink on the way down', () =>
    withSource({}, async ({ base, directory, source }) => {
      mkdirSync(join(base, 'outside'))
      writeFileSync(join(base, 'outside/a'), 'secret')
      mkdirSync(join(directory, 'd'))
      writeFileSync(join(directory, 'd/a'), 'a')
      const entry = await entryOf(source, 'd/a')
      renameSync(join(directory, 'd'), join(directory, 'e'))
      symlinkSync(join(base, 'outside'), join(directory, 'd'))
      assert.equal((await source.look('d/a')).is, 'left-out')
      await assert.rejects(source.open(entry), (error) => isOperationError(error, 'STORE_NOT_FOUND'))
    }))

  test('[trap 9] a file that changes between its opening and its last byte is refused', () =>
    withSource({}, async ({ directory, source }) => {
      const file = join(directory, 'a')
      writeFileSync(file, Buffer.alloc(600_000, 1))
      await tick()
      const entry = await entryOf(source, 'a')
      const stale = (error: unknown): boolean => isOperationError(error, 'FILE_STALE')
      for (const change of [() => appendFileSync(file, 'x'), () => writeFileSync(file, Buffer.alloc(600_001, 2))]) {
        const open = await source.open(entry)
        try {
          change()
          await assert.rejects(open.whole(1 << 20), stale)
          await assert.rejects(async () => {
            for await (const chunk of open.bytes.stream()) assert.ok(chunk.length > 0)
          }, stale)
        } finally {
          open.close()
        }
        await tick()
      }
      const whole = await source.open(await entryOf(source, 'a'))
      assert.equal((await whole.whole(1 << 20))?.length, 600_001)
      assert.equal(await whole.whole(600_000), undefined)
      whole.close()
    }))

  test('what the filter leaves out is neither listed nor looked at, and takes no part', () =>
    withSource({ filter: { globs: [{ kind: 'exclude', glob: 'tmp/' }] }, targetPrefix: 'p' }, async (made) => {
      const { directory, source } = made
      mkdirSync(join(directory, 'tmp'))
      for (const path of ['tmp/a', 'b']) writeFileSync(join(directory, path), path)
      const paths: string[] = []
      for await (const page of source.list('p', {})) paths.push(...page.map(({ path }) => path))
      assert.deepEqual(paths, ['p/b'])
      assert.equal((await source.look('p/tmp/a')).is, 'left-out')
      assert.ok(!source.admits('p/tmp/a', false) && source.admits('p/b', false) && !source.admits('elsewhere', false))
    }))

  test('links are followed to files alone, where that is asked for', () =>
    withSource({ links: 'follow' }, async ({ base, directory, source }) => {
      writeFileSync(join(base, 'out'), 'outside')
      symlinkSync(join(base, 'out'), join(directory, 'file'))
      symlinkSync(base, join(directory, 'directory'))
      symlinkSync('nowhere', join(directory, 'broken'))
      assert.equal((await entryOf(source, 'file')).size, 7)
      for (const path of ['directory', 'broken']) assert.equal((await source.look(path)).is, 'skipped')
    }))

  test('[S135] the other names of a file with several are known once they were seen', () =>
    withSource({}, async ({ directory, source }) => {
      writeFileSync(join(directory, 'a'), 'a')
      linkSync(join(directory, 'a'), join(directory, 'b'))
      linkSync(join(directory, 'a'), join(directory, 'c'))
      for await (const page of source.list('', {})) assert.equal(page.length, 3)
      const entry = await entryOf(source, 'a')
      assert.deepEqual([...source.otherNames(entry)].toSorted(), ['b', 'c'])
      unlinkSync(join(directory, 'b'))
      assert.equal((await source.look('b')).is, 'absent')
    }))
})
