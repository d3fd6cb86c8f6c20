/** What file systems do to a sync: coarse times, mounts within the tree, a disk that rots, one that is full. Through the whole program. */
import assert from 'node:assert/strict'
import { existsSync, mkdirSync, readFileSync, statSync, unlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, test } from 'node:test'

import { treeDifferences } from './sync/compare.ts'
import { makeImage, mountImage, mountMemory, noImages, noMounts, unmount, unmountWhole } from './sync/mounts.ts'
import { following, runSync, settled, startSync, until } from './sync/sync-process.ts'
import { content, fill, names, withPlaces } from './sync/tree.ts'

/** Early enough in a second for all that has to happen in it. */
const EARLY_MS = 200

describe('file systems of a test', { skip: noImages() }, () => {
  test('[S130] [S135] a second write within the second that the file system stamps both by is sent', () =>
    withPlaces(async ({ base, source, target, words }) => {
      // Inodes of 128 bytes have no room for less than seconds.
      makeImage(join(base, 'image'), '-I', '128')
      mountImage(join(base, 'image'), source)
      const file = join(source, 'f')
      const sent = join(target, 'f')
      await following(words, async () => {
        for (let round = 0; ; round++) {
          assert.ok(round < 30, 'a file was never sent within the second it was written in')
          const [first, second] = [`${round} first`, `${round} other`]
          await until('a second to begin', () => Date.now() % 1000 < EARLY_MS)
          writeFileSync(file, first)
          await until('the first version', () => content(sent) === first)
          const before = statSync(file, { bigint: true })
          writeFileSync(file, second)
          const after = statSync(file, { bigint: true })
          assert.equal(after.mtimeNs % 1_000_000_000n, 0n)
          if (after.ctimeNs !== before.ctimeNs) continue
          assert.equal(after.size, before.size)
          await until('the second version', () => content(sent) === second)
          return
        }
      })
    }))

  test('[S130] --checksum finds bytes that have rotted in the target, and mends them', () =>
    withPlaces(async ({ base, source, target, words }) => {
      const image = join(base, 'image')
      makeImage(image)
      mountImage(image, target)
      const [good, bad] = ['what was sent: good', 'what was sent: bad!']
      fill(source, { f: good, other: 'other' })
      assert.equal((await runSync([...words, '--once'])).code, 0)
      const before = statSync(join(target, 'f'), { bigint: true })
      await unmountWhole(target)
      const disk = readFileSync(image)
      const at = disk.indexOf(good)
      assert.ok(at > 0 && disk.indexOf(good, at + 1) === -1)
      disk.write(bad, at)
      writeFileSync(image, disk)
      mountImage(image, target)
      const after = statSync(join(target, 'f'), { bigint: true })
      assert.deepEqual([after.size, after.mtimeNs, after.ctimeNs], [before.size, before.mtimeNs, before.ctimeNs])
      assert.equal(content(join(target, 'f')), bad)
      const end = await runSync([...words, '--once', '--checksum'])
      assert.equal(end.code, 0, end.stderr)
      assert.equal(content(join(target, 'f')), good)
      assert.equal(end.done?.sent, 1)
    }))
})

describe('mounts', { skip: noMounts }, () => {
  test('[S131] --one-file-system: what is mounted in the tree while it is followed is neither sent nor takes anything away', () =>
    withPlaces(async ({ base, source, target, words }) => {
      fill(source, { 'm/own': 'own', 'n/own': 'own' })
      const other = join(base, 'other')
      mkdirSync(other)
      const control = startSync([source, '--to', other, '--state', join(base, 'state-of-the-other')])
      try {
        await control.watching()
        await following([...words, '--one-file-system'], async () => {
          // Mounts are looked for now and then. Once a sync that enters them has found two, one after the other, each has looked.
          for (const name of ['m', 'n']) {
            mountMemory(join(source, name))
            fill(source, { [`${name}/mounted`]: 'mounted', [`${name}/d/mounted`]: 'mounted' })
            await until(`${name} to be found`, () => existsSync(join(other, name, 'd/mounted')))
          }
          // Each is listened to by now.
          for (const name of ['m', 'n']) fill(source, { [`${name}/late`]: 'late' })
          await until('what came late', () => ['m', 'n'].every((name) => existsSync(join(other, name, 'late'))))
          fill(source, { marker: 'marker' })
          await until('the marker', () => existsSync(join(target, 'marker')))
          for (const name of ['m', 'n']) assert.deepEqual(names(join(target, name)), ['own'])

          for (const name of ['n', 'm']) {
            unmount(join(source, name))
            fill(source, { [`${name}/after`]: 'after' })
            await until('it to be found', () => existsSync(join(other, name, 'after')))
          }
          await settled(() => treeDifferences(source, target))
        })
      } finally {
        await control.stop('SIGKILL')
      }
    }))

  test('[S131] directories, empty ones too, of a disk within the tree stay when it is unmounted', () =>
    withPlaces(async ({ source, target, words }) => {
      const disk = join(source, 'disk')
      mkdirSync(disk)
      for (let index = 0; index < 20; index++) fill(source, { [index]: String(index) })
      mountMemory(disk)
      fill(disk, { 'd/e/1': '1', 'd/2': '2', f: 'f' })
      mkdirSync(join(disk, 'empty'))
      await following(words, async () => {
        await settled(() => treeDifferences(source, target))
        unmount(disk)
        fill(source, { marker: 'marker' })
        unlinkSync(join(source, '1'))
        await until('what came after', () => existsSync(join(target, 'marker')) && !existsSync(join(target, '1')))
      })
      const end = await runSync([...words, '--once'])
      assert.deepEqual([end.code, end.done?.removed], [0, 0])
      assert.deepEqual(names(join(target, 'disk')), ['d', 'empty', 'f'])
      assert.equal(content(join(target, 'disk/d/e/1')), '1')
      assert.ok(((await runSync([...words, '--once', '--yes-delete'])).done?.removed ?? 0) >= 5)
      assert.deepEqual(names(join(target, 'disk')), [])
    }))

  test('[S131] [S139] a plan deletes nothing of a disk within the tree that is not mounted, nor is one carried out then', () =>
    withPlaces(async ({ base, source, target, words }) => {
      const disk = join(source, 'disk')
      const plan = join(base, 'plan')
      const planned = async (): Promise<void> => {
        const { events } = await runSync([...words, '--dry-run'])
        writeFileSync(plan, events.map((line) => `${JSON.stringify(line)}\n`).join(''))
      }
      mkdirSync(disk)
      for (let index = 0; index < 9; index++) fill(source, { [index]: String(index) })
      mountMemory(disk)
      fill(disk, { one: '1', two: '2' })
      assert.equal((await runSync([...words, '--once'])).code, 0)
      unmount(disk)
      fill(source, { more: 'more' })
      await planned()
      assert.equal((await runSync(['apply', plan])).code, 0)
      assert.deepEqual(names(join(target, 'disk')), ['one', 'two'])
      assert.equal(content(join(target, 'more')), 'more')

      mountMemory(disk)
      fill(disk, { two: '2' })
      await planned()
      unmount(disk)
      const late = await runSync(['apply', plan])
      assert.equal(late.code, 1)
      assert.match(late.stderr, /is not mounted|is another/)
      assert.deepEqual(names(join(target, 'disk')), ['one', 'two'])
    }))

  test('[S141] what is kept as not all could be sent is told, and bytes count that were sent', () =>
    withPlaces(async ({ source, target, words }) => {
      mountMemory(target, '1m')
      fill(source, { a: Buffer.alloc(700_000, 1), c: 'c' })
      fill(target, { extra: 'extra' })
      fill(source, { b: Buffer.alloc(900_000, 2) })
      const end = await runSync([...words, '--once'])
      assert.equal(end.code, 3)
      assert.equal(end.done?.sent, 2)
      assert.ok([700_001, 900_001].includes(end.done?.sentBytes ?? 0), String(end.done?.sentBytes))
      assert.equal(end.done?.keptBack, 1)
      assert.ok(existsSync(join(target, 'extra')))
    }))

  test('[S141] what found no room before is sent once, where room was made since', () =>
    withPlaces(async ({ source, target, words }) => {
      mountMemory(target, '3m')
      for (let index = 1; index <= 6; index++) fill(source, { [index]: Buffer.alloc(900_000, index) })
      const full = await runSync([...words, '--once', '--threads', '1'])
      assert.equal(full.code, 3)
      assert.equal(full.done?.sent, 3)
      for (let index = 1; index <= 4; index++) unlinkSync(join(source, String(index)))
      const end = await runSync([...words, '--once', '--yes-delete', '--delete', 'during'])
      assert.equal(end.code, 0, `${JSON.stringify(end.events.slice(-3))}\n${end.stderr}`)
      assert.equal(end.done?.sent, 2)
      assert.deepEqual(treeDifferences(source, target), [])
    }))
})
