/** Oddities of real trees that a sync once took for something else, each through the whole program. */
import assert from 'node:assert/strict'
import {
  closeSync,
  existsSync,
  lstatSync,
  lutimesSync,
  mkdirSync,
  openSync,
  renameSync,
  symlinkSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'

import { exchangeAt } from '#os/at.ts'

import { treeDifferences } from './sync/compare.ts'
import { mountMemory, noMounts, unmount } from './sync/mounts.ts'
import { endOf, following, runSync, settled, startSync, until, type SyncEnd } from './sync/sync-process.ts'
import { content, fill, names, withPlaces } from './sync/tree.ts'
import { AS_NOBODY, giveToNobody, isRoot } from './sync/users.ts'

async function once(words: readonly string[], ...more: readonly string[]): Promise<SyncEnd> {
  const end = await runSync([...words, ...more, '--once'])
  assert.equal(end.code, 0, end.stderr)
  return end
}

const OLD = new Date('2001-09-09T01:46:40Z')
describe('oddities of trees that are synced', () => {
  test('[S130] a directory gives way to one whose files have the same names, sizes and times', () =>
    withPlaces(async ({ base, source, target, words }) => {
      for (const [directory, text] of [
        [join(source, 'now'), '1.2.3'],
        [join(base, 'next'), '1.2.4'],
      ] as const) {
        mkdirSync(directory)
        writeFileSync(join(directory, 'version'), text)
        utimesSync(join(directory, 'version'), OLD, OLD)
      }
      // Long enough before the comparison to be taken for unchanged since.
      await delay(4500)
      await once(words)
      renameSync(join(source, 'now'), join(base, 'before'))
      renameSync(join(base, 'next'), join(source, 'now'))
      await once(words)
      assert.equal(content(join(target, 'now/version')), '1.2.4')
    }))

  test('[S130] what a run with other filters has left out is compared by the next one', () =>
    withPlaces(async ({ source, target, words }) => {
      for (const name of ['f', 'g']) writeFileSync(join(source, name), '111')
      utimesSync(join(source, 'f'), OLD, OLD)
      await once(words)
      writeFileSync(join(source, 'f'), '222')
      utimesSync(join(source, 'f'), OLD, OLD)
      await delay(4500)
      await once(words, '--exclude', 'f')
      await once(words)
      assert.equal(content(join(target, 'f')), '222')
    }))

  test('[S131] a directory that became a symlink leaves what the target has of it, at the start and while it is followed', () =>
    withPlaces(async ({ base, source, target, words }) => {
      for (const name of ['here', 'there']) {
        mkdirSync(join(source, name))
        writeFileSync(join(source, name, 'f'), name)
      }
      await once(words)
      const moveOut = (name: string): void => {
        renameSync(join(source, name), join(base, name))
        symlinkSync(join(base, name), join(source, name))
      }
      moveOut('here')
      await once(words)
      assert.equal(content(join(target, 'here/f')), 'here')
      await following(words, async () => {
        moveOut('there')
        writeFileSync(join(source, 'after'), '')
        await until('what came after is there', () => existsSync(join(target, 'after')))
      })
      assert.equal(content(join(target, 'here/f')), 'here')
    }))

  test('[S131] what was on a disk within the tree that is not mounted now stays', { skip: noMounts }, () =>
    withPlaces(async ({ source, target, words }) => {
      const disk = join(source, 'disk')
      mkdirSync(disk)
      writeFileSync(join(source, 'f'), 'f')
      mountMemory(disk)
      writeFileSync(join(disk, 'on it'), 'x')
      await once(words)
      unmount(disk)
      await once(words)
      assert.equal(content(join(target, 'disk/on it')), 'x')
      await following(words, async () => {
        mountMemory(disk)
        writeFileSync(join(disk, 'later'), 'y')
        await until('it is sent', () => content(join(target, 'disk/later')) === 'y')
        unmount(disk)
        // Told after the unmount was: the sync looks at what is mounted every two seconds.
        await delay(3000)
        writeFileSync(join(source, 'after'), '')
        await until('what came after is there', () => existsSync(join(target, 'after')))
      })
      assert.equal(content(join(target, 'disk/later')), 'y')
    }),
  )

  test('[S142] what a rename replaces is kept, too', () =>
    withPlaces(async ({ source, target, words }) => {
      writeFileSync(join(source, 'a'), 'new')
      writeFileSync(join(source, 'b'), 'old')
      await following([...words, '--backup-dir', 'kept'], async () => {
        renameSync(join(source, 'a'), join(source, 'b'))
        await until('it is there', () => content(join(target, 'b')) === 'new' && !existsSync(join(target, 'a')))
      })
      assert.equal(content(join(target, 'kept/b')), 'old')
    }))

  test('[S140] a symlink that is made anew has its new times in the target', () =>
    withPlaces(async ({ source, target, words }) => {
      symlinkSync('nowhere', join(source, 'link'))
      lutimesSync(join(source, 'link'), OLD, OLD)
      await once(words, '--metadata')
      unlinkSync(join(source, 'link'))
      symlinkSync('nowhere', join(source, 'link'))
      await once(words, '--metadata')
      const [there, here] = [target, source].map((root) => lstatSync(join(root, 'link'), { bigint: true }).mtimeNs)
      assert.equal(there, here)
    }))

  test('[S136] with --delete never a rename leaves the old name', () =>
    withPlaces(async ({ source, target, words }) => {
      writeFileSync(join(source, 'a'), 'a')
      await following([...words, '--delete', 'never'], async () => {
        renameSync(join(source, 'a'), join(source, 'b'))
        await until('the new name is there', () => content(join(target, 'b')) === 'a')
      })
      assert.deepEqual(names(target), ['a', 'b'])
    }))

  test('[S131] the target of one sync stays the source of another, attributes and all', () =>
    withPlaces(async ({ base, source, target, words }) => {
      const onward = [target, '--to', join(base, 'third'), '--state', join(base, 'state-2')]
      writeFileSync(join(source, 'a'), 'a')
      for (const name of ['a', 'b']) {
        writeFileSync(join(source, name), name)
        await once(words, '--metadata')
        await once(onward, '--metadata')
      }
      assert.deepEqual(names(join(base, 'third')), ['a', 'b'])
    }))

  test('[S135] [S136] paths longer than a key of the state are moved and removed', () =>
    withPlaces(async ({ source, target, words }) => {
      const here = process.cwd()
      process.chdir(source)
      for (let depth = 0; depth < 9; depth++) {
        mkdirSync('d'.repeat(220))
        process.chdir('d'.repeat(220))
      }
      for (const name of ['leaf', 'other']) writeFileSync(name, name)
      process.chdir(here)
      const deep = Array.from({ length: 9 }, () => 'd'.repeat(220))
      const moved = ['short', ...deep.slice(1)].join('/')
      await following([...words, '--yes-delete'], async () => {
        renameSync(join(source, deep[0] ?? ''), join(source, 'short'))
        await until('it has moved', () => existsSync(join(target, moved, 'leaf')) && names(target).length === 1)
        unlinkSync(join(source, moved, 'leaf'))
        await until('it is gone', () => !existsSync(join(target, moved, 'leaf')))
        assert.ok(existsSync(join(target, moved, 'other')))
      })
    }))

  test('[S131] a root that is a symlink and is pointed elsewhere ends the sync', () =>
    withPlaces(async ({ base, target, words }) => {
      for (const name of ['one', 'two']) {
        mkdirSync(join(base, name))
        writeFileSync(join(base, name, 'f'), name)
      }
      const link = join(base, 'current')
      symlinkSync('one', link)
      const run = startSync([link, ...words.slice(1)])
      try {
        await run.watching()
        unlinkSync(link)
        symlinkSync('two', link)
        const end = await endOf(run)
        assert.equal(end.code, 1)
        assert.match(end.stderr, /another directory is there than at the start/)
        assert.equal(content(join(target, 'f')), 'one')
      } finally {
        await run.stop('SIGKILL')
      }
    }))

  test('a directory .eider at the top of the source is a store of its own, and left out; one below is sent', () =>
    withPlaces(async ({ source, target, words }) => {
      fill(source, { f: 'f', '.eider/own': 'own', 'd/.eider/data': 'data' })
      await once(words)
      assert.deepEqual([names(target), content(join(target, 'd/.eider/data'))], [['d', 'f'], 'data'])
      await following(words, async () => {
        fill(source, { '.eider/late': 'late', 'd/.eider/late': 'late' })
        await until('what came late below', () => existsSync(join(target, 'd/.eider/late')))
        fill(source, { last: 'last' })
        await until('what came last', () => existsSync(join(target, 'last')))
      })
      for (const name of ['own', 'late']) assert.equal(content(join(target, '.eider', name)), undefined)
    }))

  for (const [who, through] of [
    ['root', []],
    ['nobody', AS_NOBODY],
  ] as const) {
    test(
      `[S135] two directories that are exchanged while ${who} follows them are both followed`,
      { skip: !isRoot && 'takes another user' },
      () =>
        withPlaces(async ({ base, source, target, words }) => {
          fill(source, { 'a/f': 'a', 'b/in/f': 'b' })
          giveToNobody(base)
          await following(
            words,
            async () => {
              const fd = openSync(source, 'r')
              exchangeAt(fd, 'a', fd, 'b')
              closeSync(fd)
              await settled(() => treeDifferences(source, target))
              fill(source, { 'a/in/late': 'late', 'a/new': 'new', 'b/new': 'new', 'b/made/new': 'new' })
              await settled(() => treeDifferences(source, target))
            },
            { through },
          )
        }),
    )
  }

  test('its own state is not sent, and refused where it would be deleted', () =>
    withPlaces(async ({ source, target }) => {
      writeFileSync(join(source, 'f'), 'f')
      await once([source, '--to', target, '--state', join(source, 'state')])
      assert.deepEqual(names(target), ['f'])
      const end = await runSync([source, '--to', target, '--state', join(target, 'state'), '--once'])
      assert.equal(end.code, 2)
      assert.match(end.stderr, /lies in the target, where a sync would delete it/)
    }))
})
