/**
 * A sync does not wipe its target: what is not found in the source is only deleted where the source was found to be whole and the same,
 * and as much as is likely to be meant. Through the whole program, to directories.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import {
  chmodSync,
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { describe, test } from 'node:test'

import { treeDifferences } from './sync/compare.ts'
import { mountMemory, noMounts, unmount } from './sync/mounts.ts'
import { endOf, runSync, settled, startSync, until, type SyncEnd } from './sync/sync-process.ts'
import { fill, fillMany, names, withPlaces, type Places } from './sync/tree.ts'
import { AS_NOBODY, giveToNobody, isRoot } from './sync/users.ts'

function once({ words }: Pick<Places, 'words'>, ...more: string[]): Promise<SyncEnd> {
  return runSync([...words, '--once', ...more])
}

function filesOf(root: string): string[] {
  return readdirSync(root, { recursive: true, encoding: 'utf8' })
    .filter((path) => !path.startsWith('.eider'))
    .toSorted()
}

/** A target that was made equal to a source of so many files in ten directories. */
async function withEqual(count: number, use: (places: Places) => Promise<void>): Promise<void> {
  await withPlaces(async (places) => {
    fillMany(places.source, count)
    assert.equal((await once(places)).code, 0)
    await use(places)
  })
}

/** It ends with 1 and a question, and nothing in the target is another than before. */
async function refuses(places: Places, pattern: RegExp, ...more: string[]): Promise<void> {
  const before = filesOf(places.target)
  const end = await once(places, ...more)
  assert.equal(end.code, 1, end.stderr)
  assert.match(end.stderr, pattern)
  assert.match(end.stderr, /hint: .*--yes-delete/)
  assert.equal(end.events.at(-1)?.event, 'error')
  assert.match(end.events.at(-1)?.code ?? '', /^(?:DELETES_REFUSED|ROOT_CHANGED)$/)
  assert.deepEqual(filesOf(places.target), before)
}

describe('[trap 13] [S131] [S132] what a sync does not delete', () => {
  test('an emptied source does not empty the target, until it is said that it is meant', () =>
    withEqual(40, async (places) => {
      for (const name of readdirSync(places.source)) rmSync(join(places.source, name), { recursive: true })
      await refuses(places, /Cannot delete 50 entries of the target: the source is empty, and it has 50/)
      const end = await once(places, '--yes-delete')
      assert.equal(end.code, 0)
      assert.deepEqual(filesOf(places.target), [])
    }))

  test('a single file that is the last one goes while it is followed; a run that finds the source empty asks', () =>
    withPlaces(async (places) => {
      fill(places.source, { only: 'only' })
      assert.equal((await once(places)).code, 0)
      unlinkSync(join(places.source, 'only'))
      await refuses(places, /the source is empty/)
      fill(places.source, { only: 'only again' })
      const run = startSync(places.words)
      try {
        await run.watching()
        unlinkSync(join(places.source, 'only'))
        await until('it to go', () => filesOf(places.target).length === 0)
        assert.equal((await run.stop()).code, 0)
      } finally {
        await run.stop('SIGKILL')
      }
    }))

  test('a source that is emptied while it is followed stops the sync', () =>
    withEqual(40, async (places) => {
      const run = startSync(places.words)
      try {
        await run.watching()
        rmSync(places.source, { recursive: true })
        mkdirSync(places.source)
        const { code, stderr } = await endOf(run)
        assert.equal(code, 1)
        assert.match(stderr, /Cannot (?:sync|delete)/)
        assert.match(stderr, /hint: /)
        const files = filesOf(places.target).filter((path) => path.includes('/'))
        assert.ok(files.length >= 20, `${files.length} of 40 files are left`)
      } finally {
        await run.stop('SIGKILL')
      }
    }))

  test('another directory under the same name, as where a disk is not mounted, is not taken for the source', () =>
    withEqual(40, async (places) => {
      renameSync(places.source, `${places.source}-elsewhere`)
      mkdirSync(places.source)
      fillMany(places.source, 39)
      await refuses(places, /it is not the directory that was synced before; is its disk mounted\?/)
      assert.equal((await once(places, '--yes-delete')).code, 0)
      assert.deepEqual(treeDifferences(places.source, places.target), [])
      // From now on that one is the source.
      assert.equal((await once(places)).code, 0)
    }))

  test('a disk that is unmounted while it is followed stops the sync, and the target stays', { skip: noMounts }, () =>
    withPlaces(async (places) => {
      const { source, target, words } = places
      mountMemory(source)
      fillMany(source, 30)
      const run = startSync(words)
      try {
        await run.watching()
        unmount(source)
        const { code, stderr } = await endOf(run)
        assert.equal(code, 1)
        assert.match(stderr, /Cannot sync ".*": .*(?:unmounted|another directory)/)
      } finally {
        await run.stop('SIGKILL')
      }
      assert.equal(filesOf(target).filter((path) => path.includes('/')).length, 30)
      // The mount point itself, empty.
      await refuses(places, /is its disk mounted\?/)
    }),
  )

  test('more than --delete-percent of the target', () =>
    withEqual(100, async (places) => {
      for (const name of ['d0', 'd1', 'd2', 'd3', 'd4', 'd5']) rmSync(join(places.source, name), { recursive: true })
      await refuses(places, /Cannot delete 66 entries of the target: it has 110, and --delete-percent is 50/)
      assert.equal((await once(places, '--delete-percent', '70')).code, 0)
      assert.deepEqual(treeDifferences(places.source, places.target), [])
    }))

  test('more than --delete-max', () =>
    withEqual(100, async (places) => {
      for (const name of ['f0', 'f10', 'f20']) unlinkSync(join(places.source, 'd0', name))
      await refuses(places, /Cannot delete 3 entries of the target: --delete-max is 2/, '--delete-max', '2')
      assert.equal((await once(places, '--delete-max', '3')).code, 0)
      assert.deepEqual(treeDifferences(places.source, places.target), [])
    }))

  test('anything, with --delete never; it is deleted by the first run without', () =>
    withEqual(40, async (places) => {
      unlinkSync(join(places.source, 'd0/f0'))
      rmSync(join(places.source, 'd1'), { recursive: true })
      const end = await once(places, '--delete', 'never')
      assert.equal(end.code, 0)
      assert.equal(end.done?.removed, 0)
      assert.equal(filesOf(places.target).length, 50)
      assert.equal((await once(places)).code, 0)
      assert.deepEqual(treeDifferences(places.source, places.target), [])
      assert.ok(!existsSync(join(places.target, 'd1')))
    }))

  test('what is below a directory that cannot be read', { skip: !isRoot && 'takes another user' }, () =>
    withEqual(40, async (places) => {
      const { base, source, target, state } = places
      giveToNobody(base)
      chmodSync(join(source, 'd3'), 0o000)
      chownSync(join(source, 'd3'), 0, 0)
      rmSync(join(source, 'd4'), { recursive: true })
      writeFileSync(join(source, 'd5', 'f5'), 'changed')
      const words = [source, '--to', target, '--state', state, '--once']
      const end = await runSync(words, { through: AS_NOBODY })
      assert.equal(end.code, 3, end.stderr)
      const told = end.events.filter(({ event }) => event === 'skipped')
      assert.deepEqual(
        told.map(({ path, reason }) => [path, reason]),
        [['d3', 'unreadable']],
      )
      // All else is done, what is gone included.
      assert.equal(readdirSync(join(target, 'd3')).length, 4)
      assert.ok(!existsSync(join(target, 'd4')))
      assert.equal(readFileSync(join(target, 'd5', 'f5'), 'utf8'), 'changed')
    }),
  )

  test('what a changed filter leaves out', () =>
    withEqual(40, async (places) => {
      const end = await once(places, '--exclude', 'd1/', '--exclude', 'f2*')
      assert.equal(end.code, 0)
      assert.equal(end.done?.removed, 0)
      assert.equal(filesOf(places.target).length, 50)
      // Nor where the source has none of it any more.
      rmSync(join(places.source, 'd1'), { recursive: true })
      assert.equal((await once(places, '--exclude', 'd1/')).code, 0)
      assert.equal(readdirSync(join(places.target, 'd1')).length, 4)
      assert.equal((await once(places)).code, 0)
      assert.ok(!existsSync(join(places.target, 'd1')))
    }))

  test('what is left out in a directory that goes', () =>
    withEqual(40, async (places) => {
      writeFileSync(join(places.target, 'd1', 'notes.local'), 'of the target')
      const run = startSync([...places.words, '--exclude', '*.local'])
      try {
        await run.watching()
        rmSync(join(places.source, 'd1'), { recursive: true })
        await until('d1 to be cleared', () => readdirSync(join(places.target, 'd1')).length === 1)
        const end = await run.stop()
        assert.equal(end.code, 0, JSON.stringify(end.events.slice(-3)))
        assert.deepEqual(readdirSync(join(places.target, 'd1')), ['notes.local'])
      } finally {
        await run.stop('SIGKILL')
      }
    }))

  test('anything, where not all could be sent', { skip: !isRoot && 'takes another user' }, () =>
    withEqual(40, async ({ base, source, target, state }) => {
      giveToNobody(base)
      writeFileSync(join(source, 'd1', 'f1'), 'not to be read', { mode: 0o600 })
      chownSync(join(source, 'd1', 'f1'), 0, 0)
      chmodSync(join(source, 'd1', 'f1'), 0o600)
      unlinkSync(join(source, 'd2', 'f2'))
      const end = await runSync([source, '--to', target, '--state', state, '--once'], { through: AS_NOBODY })
      assert.equal(end.code, 3)
      const failed = end.events.filter(({ event }) => event === 'failed')
      assert.deepEqual(
        failed.map(({ path }) => path),
        ['d1/f1'],
      )
      assert.match(failed[0]?.message ?? '', /EACCES/)
      assert.ok(existsSync(join(target, 'd2', 'f2')), 'it is kept until all is sent')
    }),
  )
})

describe('[S132] what a directory that gives way takes with it', () => {
  for (const what of ['file', 'symlink'] as const) {
    test(`counts as any other deletion: it gives way to a ${what}`, () =>
      withPlaces(async (places) => {
        const { base, source, target } = places
        fillMany(source, 5)
        for (let index = 0; index < 60; index++) fill(source, { [`data/${index}`]: String(index) })
        assert.equal((await once(places)).code, 0)
        renameSync(join(source, 'data'), join(base, 'data'))
        if (what === 'file') fill(source, { data: 'a file' })
        else symlinkSync(join(base, 'data'), join(source, 'data'))
        const more = what === 'file' ? [] : ['--metadata']
        await refuses(places, /Cannot delete 61 entries of the target: it has 71, and --delete-percent is 50/, ...more)
        const end = await once(places, '--delete-percent', '90', ...more)
        assert.equal(end.code, 0, end.stderr)
        assert.equal(end.done?.removed, 61)
        assert.deepEqual(
          names(target).filter((name) => name === 'data'),
          ['data'],
        )
        assert.ok(!lstatSync(join(target, 'data')).isDirectory())
      }))
  }

  test('one of several roots that is empty is asked about, however little it is of the target', () =>
    withPlaces(async (places) => {
      const { base, target, state } = places
      const words = [join(base, 'a'), join(base, 'b'), '--to', target, '--state', state]
      for (let index = 0; index < 20; index++) fill(base, { [`b/${index}`]: 'b' })
      fill(base, { 'a/1': '1', 'a/2': '2' })
      assert.equal((await once({ words })).code, 0)
      for (const name of names(join(base, 'a'))) unlinkSync(join(base, 'a', name))
      await refuses({ ...places, words }, /"[^"]*\/a" is empty, and it has what was there/)
      const plan = await once({ words }, '--dry-run')
      assert.match(String(plan.events.at(-1)?.deletesRefused), /"[^"]*\/a" is empty/)
      assert.equal((await once({ words }, '--yes-delete')).done?.removed, 2)
    }))

  test('a directory that keeps something is neither removed nor told to be', () =>
    withPlaces(async (places) => {
      const { source, target } = places
      fill(source, { f: 'f' })
      fill(target, { 'od/q': 'q', 'od/sub/r': 'r', 'od/p.keep': 'p' })
      const ends = [await once(places, '--exclude', '*.keep'), await once(places, '--exclude', '*.keep')]
      assert.deepEqual(
        ends.map(({ code, done }) => [code, done?.removed]),
        [
          [0, 3],
          [0, 0],
        ],
      )
      assert.deepEqual(filesOf(target), ['f', 'od', 'od/p.keep'])
    }))

  test('a rename leaves behind what takes no part, and where backups lie', () =>
    withPlaces(async (places) => {
      const { source, target, words } = places
      fill(source, { 'a/1': '1', 'c/1': '1' })
      const run = startSync([...words, '--exclude', '*.keep', '--backup-dir', 'c/bak'])
      try {
        await run.watching()
        fill(target, { 'a/x.keep': 'precious', 'c/bak/old': 'old' })
        for (const name of ['a', 'c']) renameSync(join(source, name), join(source, `${name}2`))
        await until('the new names', () => ['a2/1', 'c2/1'].every((path) => existsSync(join(target, path))))
        await until('the old ones to go', () => ['a/1', 'c/1'].every((path) => !existsSync(join(target, path))))
        assert.equal((await run.stop()).code, 0)
      } finally {
        await run.stop('SIGKILL')
      }
      assert.ok(existsSync(join(target, 'a/x.keep')) && existsSync(join(target, 'c/bak/old')))
    }))
})

describe('[S131] what was equal at the start', () => {
  test('is removed with what it is in the source, though nothing was ever sent', () =>
    withPlaces(async (places) => {
      const { source, target, words } = places
      fillMany(source, 100)
      assert.equal(spawnSync('cp', ['-a', `${source}/.`, target]).status, 0)
      // Times of a file tell nothing before the clock that stamps it has ticked.
      const from = Date.now()
      await until('a tick', () => Date.now() > from + 30)
      const run = startSync(words)
      try {
        await run.watching()
        unlinkSync(join(source, 'd0', 'f0'))
        rmSync(join(source, 'd1'), { recursive: true })
        await settled(() => treeDifferences(source, target))
        await until('d1 to go', () => !existsSync(join(target, 'd1')))
        const end = await run.stop()
        assert.equal(end.code, 0)
        assert.equal(end.done?.sent, 0)
      } finally {
        await run.stop('SIGKILL')
      }
    }))
})
