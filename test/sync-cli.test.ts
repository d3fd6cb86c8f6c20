/** `eider sync` as its users type it: names, exit codes, what is left out and told, and what is refused. */
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
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
  renameSync,
} from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'

import { newBucket } from '#test/servers/bucket.ts'
import { startFaultProxy } from '#test/servers/fault-proxy.ts'
import { startTestGateway, type TestGateway } from '#test/servers/gateway.ts'

import { objectDifferences, objectsOf, treeDifferences } from './sync/compare.ts'
import { mountMemory, noMounts } from './sync/mounts.ts'
import { endOf, runSync, settled, startSync, until } from './sync/sync-process.ts'
import { bucketEnds, content, fill, fillMany, withPlaces } from './sync/tree.ts'
import { AS_NOBODY, giveToNobody, isRoot } from './sync/users.ts'

const HOME = {
  'adeprince/mystuff/1': '1',
  'adeprince/mystuff/a/2': '2',
  'adeprince/mystuff/a/b/3': '3',
  'adeprince/mystuff/c/4': '4',
}

let gateway: TestGateway

before(async () => {
  gateway = await startTestGateway()
})
after(() => gateway.stop())

function pathsOf(root: string): string[] {
  const { stdout } = spawnSync('find', [root, '!', '-type', 'd', '-printf', '%P\\0'], { encoding: 'utf8' })
  const paths = stdout.split('\0').filter((path) => path !== '' && !path.startsWith('.eider/'))
  return paths.toSorted()
}

describe("[S143] autosync's examples", () => {
  const HERE = '$PWD/home/adeprince'
  const cases = [
    {
      name: 'without a prefix, the absolute path is the name',
      flags: [],
      names: (pwd: string) =>
        ['1', 'a/2', 'a/b/3', 'c/4'].map((path) => `${pwd}/home/adeprince/mystuff/${path}`.slice(1)),
    },
    {
      name: 'a prefix above',
      flags: ['--source_prefix=$PWD/home/'],
      names: () => Object.keys(HOME),
    },
    {
      name: 'a prefix with the slash at its end',
      flags: [`--source_prefix=${HERE}/mystuff/`],
      names: () => ['1', 'a/2', 'a/b/3', 'c/4'],
    },
    {
      name: 'a prefix without it: the slash that is left makes no difference to a store',
      flags: [`--source_prefix=${HERE}/mystuff`],
      names: () => ['1', 'a/2', 'a/b/3', 'c/4'],
    },
    {
      name: 'both prefixes',
      flags: [`--source_prefix=${HERE}/mystuff/`, '--target-prefix=/foo/bar/'],
      names: () => ['1', 'a/2', 'a/b/3', 'c/4'].map((path) => `foo/bar/${path}`),
    },
    {
      name: 'both prefixes, by underscores, and a filter',
      flags: [`--source_prefix=${HERE}/mystuff/`, '--target_prefix=foo', '--source_filter=^.*/[12]$', '--threads=1'],
      names: () => ['foo/1', 'foo/a/2'],
    },
  ]
  for (const { name, flags, names } of cases) {
    for (const kind of ['bucket', 'directory']) {
      test(`${name}, to a ${kind}`, () =>
        withPlaces(async ({ base, target, state }) => {
          fill(join(base, 'home'), HOME)
          const words = flags.map((flag) => flag.replace('$PWD', base))
          const more = ['--once', '--state', state]
          const cwd = join(base, 'home/adeprince')
          const path =
            flags.length === 0 || name === 'a prefix above' ? join(base, 'home/adeprince/mystuff') : 'mystuff'
          if (kind === 'bucket') {
            const bucket = await newBucket(gateway)
            const { env, flags: s3 } = bucketEnds(gateway, gateway.endpoint)
            const end = await runSync([...words, `--target_container=${bucket}`, path, ...more, ...s3], { env, cwd })
            assert.equal(end.code, 0, end.stderr)
            // Directories that the filter leaves nothing in are objects of their own.
            const keys = [...(await objectsOf(gateway, bucket)).keys()].filter((key) => !key.endsWith('/'))
            assert.deepEqual(keys.toSorted(), names(base))
          } else {
            const args = [...words, '--actor=directory', `--target_container=${target}`, path, ...more]
            const end = await runSync(args, { cwd })
            assert.equal(end.code, 0, end.stderr)
            assert.deepEqual(pathsOf(target), names(base))
          }
        }))
    }
  }
})

describe('what is left out is told, and all else is sent', () => {
  test('[S138] names that are not UTF-8', () =>
    withPlaces(async ({ source, target, words }) => {
      fill(source, { 'a/good': 'good', 'z/good': 'good' })
      writeFileSync(Buffer.concat([Buffer.from(`${source}/a/b`), Buffer.from([0xff, 0xfe])]), 'bad name')
      mkdirSync(Buffer.concat([Buffer.from(`${source}/d`), Buffer.from([0x80])]))
      const end = await runSync([...words, '--once'])
      assert.equal(end.code, 3)
      const told = end.events.filter(({ event }) => event === 'skipped')
      assert.deepEqual(told.map(({ path, reason }) => `${reason} ${path}`).toSorted(), [
        'not-utf8 a/b\\xff\\xfe',
        'not-utf8 d\\x80',
      ])
      assert.deepEqual(pathsOf(target), ['a/good', 'z/good'])
    }))

  test('[S138] fifos and sockets, which are not opened', () =>
    withPlaces(async ({ source, target, words }) => {
      fill(source, { good: 'good' })
      assert.equal(spawnSync('mkfifo', [join(source, 'fifo')]).status, 0)
      const end = await runSync([...words, '--once'])
      assert.equal(end.code, 0)
      const told = end.events.filter(({ event }) => event === 'skipped')
      assert.deepEqual(
        told.map(({ path, reason }) => [path, reason]),
        [['fifo', 'special']],
      )
      assert.deepEqual(pathsOf(target), ['good'])
    }))

  test('[S141] files that may not be read, by their names', { skip: !isRoot && 'takes another user' }, () =>
    withPlaces(async ({ base, source, target, words }) => {
      fill(source, { good: 'good', secret: 'secret', 'd/good': 'good' })
      giveToNobody(base)
      chownSync(join(source, 'secret'), 0, 0)
      chmodSync(join(source, 'secret'), 0o600)
      const end = await runSync([...words, '--once'], { through: AS_NOBODY })
      assert.equal(end.code, 3, end.stderr)
      const failed = end.events.filter(({ event }) => event === 'failed')
      assert.deepEqual(
        failed.map(({ path, code }) => [path, code]),
        [['secret', 'LOCAL_FAILED']],
      )
      assert.match(failed[0]?.message ?? '', /Cannot read "secret": EACCES/)
      assert.deepEqual(pathsOf(target), ['d/good', 'good'])
    }),
  )

  test('[S141] what does not fit on the target', { skip: noMounts }, () =>
    withPlaces(async ({ source, target, words }) => {
      mountMemory(target, '2m')
      fill(source, { 'a/small': 'small', 'm/large': Buffer.alloc(8 << 20, 1), 'z/small': 'small' })
      const end = await runSync([...words, '--once'])
      assert.equal(end.code, 3, end.stderr)
      const failed = end.events.filter(({ event }) => event === 'failed')
      assert.deepEqual(
        failed.map(({ path }) => path),
        ['m/large'],
      )
      assert.match(failed[0]?.message ?? '', /ENOSPC|no (?:space|room)/i)
      assert.deepEqual(pathsOf(target), ['a/small', 'z/small'])
      truncateSync(join(source, 'm/large'), 1000)
      assert.equal((await runSync([...words, '--once'])).code, 0)
      assert.deepEqual(treeDifferences(source, target), [])
    }),
  )

  test('[S138] symlinks, unless they are asked for', () =>
    withPlaces(async ({ base, source, target, words }) => {
      fill(base, { 'outside/file': 'outside' })
      fill(source, { file: 'file' })
      symlinkSync('file', join(source, 'link'))
      symlinkSync(join(base, 'outside/file'), join(source, 'out'))
      symlinkSync(join(base, 'outside'), join(source, 'directory'))
      symlinkSync('nowhere', join(source, 'broken'))
      assert.equal((await runSync([...words, '--once'])).code, 0)
      assert.deepEqual(pathsOf(target), ['file'])

      const followed = await runSync([...words, '--once', '--links', 'follow'])
      assert.equal(followed.code, 0, JSON.stringify(followed.events))
      assert.deepEqual(pathsOf(target), ['file', 'link', 'out'])
      assert.ok(lstatSync(join(target, 'out')).isFile())
      assert.equal(readFileSync(join(target, 'out'), 'utf8'), 'outside')

      assert.equal((await runSync([...words, '--once', '--links', 'keep'])).code, 0)
      assert.deepEqual(pathsOf(target), ['broken', 'directory', 'file', 'link', 'out'])
      assert.ok(lstatSync(join(target, 'out')).isSymbolicLink())
    }))

  test('[S141] a file that vanishes while it is waited for is no failure', () =>
    withPlaces(async ({ source, state }) => {
      const bucket = await newBucket(gateway)
      const proxy = await startFaultProxy(gateway.endpoint)
      try {
        fillMany(source, 20)
        const { env, flags } = bucketEnds(gateway, proxy.endpoint)
        let isFirst = true
        proxy.fault(({ method, url }) => method === 'PUT' && url.includes('/f') && isFirst, {
          kind: 'wait',
          until: async () => {
            isFirst = false
            rmSync(join(source, 'd9'), { recursive: true })
          },
        })
        const words = [source, '--to', `s3://${bucket}`, '--state', state, '--once', '--threads', '1', ...flags]
        const end = await runSync(words, { env })
        assert.equal(end.code, 0, JSON.stringify(end.events.slice(-3)))
        assert.ok(!isFirst)
        assert.deepEqual(await objectDifferences(source, gateway, bucket), [])
      } finally {
        await proxy.close()
      }
    }))
})

describe('what is refused, with 2 and a sentence', () => {
  const refused = async (args: readonly string[], pattern: RegExp): Promise<void> => {
    const end = await runSync([...args, '--once'])
    assert.equal(end.code, 2, end.stderr)
    assert.match(end.stderr, pattern)
  }

  test('ends that lie in one another', () =>
    withPlaces(async ({ source, base, state }) => {
      mkdirSync(join(source, 'in'))
      await refused([source, '--to', join(source, 'in'), '--state', state], /lie in one another/)
      await refused([source, '--to', base, '--state', state], /lie in one another/)
      await refused([source, '--to', source, '--state', state], /lie in one another/)
      symlinkSync(join(source, 'in'), join(base, 'link'))
      await refused([source, '--to', join(base, 'link'), '--state', state], /lie in one another/)
      assert.deepEqual(pathsOf(source), [])
    }))

  test('a source that is not there, or no target', () =>
    withPlaces(async ({ source, target, base, state }) => {
      await refused([join(base, 'none'), '--to', target, '--state', state], /there is no ".*none"/)
      await refused([source, '--state', state], /no target is named/)
      await refused([source, '--to', target, '--target-container', 'x', '--state', state], /both name a target/)
      await refused([source, '--to', target, '--delete-percent', '101', '--state', state], /delete-percent/)
    }))

  test('two sources of one name', () =>
    withPlaces(async ({ base, target, state }) => {
      fill(base, { 'x/same/1': '1', 'y/same/2': '2' })
      const [one, other] = [join(base, 'x/same'), join(base, 'y/same')]
      await refused([one, other, '--to', target, '--state', state], /do not lie in one directory/)
    }))
})

describe('what cannot be, with 1 and a sentence', () => {
  test('a second sync with the state of one that runs', () =>
    withPlaces(async ({ source, words }) => {
      fill(source, { a: 'a' })
      const run = startSync(words)
      try {
        await run.watching()
        const end = await runSync([...words, '--once'])
        assert.equal(end.code, 1)
        assert.match(end.stderr, /another sync of these paths to that target is running/)
        assert.match(end.stderr, /hint: .*--state/)
        assert.equal((await run.stop()).code, 0)
      } finally {
        await run.stop('SIGKILL')
      }
      assert.equal((await runSync([...words, '--once'])).code, 0)
    }))

  test('a state that is no directory; a damaged one is begun anew', () =>
    withPlaces(async ({ source, target, state, words }) => {
      fill(source, { a: 'a' })
      writeFileSync(state, 'a file')
      const end = await runSync([...words, '--once'])
      assert.equal(end.code, 1)
      assert.match(end.stderr, /Cannot .*state/)
      unlinkSync(state)
      assert.equal((await runSync([...words, '--once'])).code, 0)
      writeFileSync(join(state, 'state.lmdb'), 'no database')
      fill(source, { b: 'b' })
      assert.equal((await runSync([...words, '--once'])).code, 0)
      assert.deepEqual(treeDifferences(source, target), [])
    }))

  test('a bucket that is not there, or keys that are refused', () =>
    withPlaces(async ({ source, state }) => {
      fill(source, { a: 'a' })
      const { env, flags } = bucketEnds(gateway, gateway.endpoint)
      const words = [source, '--to', 's3://none-of-these', '--state', state, '--once', ...flags]
      const none = await runSync(words, { env })
      assert.equal(none.code, 1)
      assert.match(none.stderr, /none-of-these/)
      const wrong = await runSync(words, { env: { ...env, AWS_SECRET_ACCESS_KEY: 'wrong' } })
      assert.equal(wrong.code, 1)
      assert.match(wrong.stderr, /^eider: Cannot/m)
    }))
})

describe('options', () => {
  test('[S142] --backup-dir keeps what is replaced and what is deleted', () =>
    withPlaces(async ({ source, target, words }) => {
      fill(source, { 'd/changed': 'one', 'd/gone': 'gone', same: 'same' })
      assert.equal((await runSync([...words, '--once'])).code, 0)
      fill(source, { 'd/changed': 'another' })
      unlinkSync(join(source, 'd/gone'))
      for (let again = 0; again < 2; again++) {
        const end = await runSync([...words, '--once', '--backup-dir', 'old'])
        assert.equal(end.code, 0, end.stderr)
        assert.deepEqual(pathsOf(target), ['d/changed', 'old/d/changed', 'old/d/gone', 'same'])
        assert.equal(readFileSync(join(target, 'old/d/changed'), 'utf8'), 'one')
        assert.equal(end.done?.sent, again === 0 ? 1 : 0)
      }
    }))

  test('[S142] what was kept of a file gives way to the directory that is there later', () =>
    withPlaces(async ({ source, target, words }) => {
      const backed = [...words, '--once', '--backup-dir', 'old']
      fill(source, { a: 'first' })
      assert.equal((await runSync([...words, '--once'])).code, 0)
      fill(source, { a: 'second' })
      assert.equal((await runSync(backed)).code, 0)
      // What is kept of the file is where the directory should be.
      unlinkSync(join(source, 'a'))
      fill(source, { 'a/x': 'third' })
      assert.equal((await runSync(backed)).code, 0)
      assert.deepEqual(pathsOf(target), ['a/x', 'old/a'])
      fill(source, { 'a/x': 'fourth' })
      assert.equal((await runSync(backed)).code, 0)
      assert.deepEqual(pathsOf(target), ['a/x', 'old/a/x', 'old/a~1'])
      assert.equal(content(join(target, 'old/a~1')), 'second')
    }))

  test('[S142] what somebody else has put into the target meanwhile is kept, too', () =>
    withPlaces(async ({ source, target, words }) => {
      fill(source, { known: 'first', from: 'from' })
      const run = startSync([...words, '--backup-dir', 'bak'])
      try {
        await run.watching()
        fill(target, { known: 'by another', unknown: 'by another', to: 'by another' })
        fill(source, { known: 'mine', unknown: 'mine' })
        renameSync(join(source, 'from'), join(source, 'to'))
        await settled(() => treeDifferences(source, target).filter((line) => !line.includes('bak')))
        for (const name of ['known', 'unknown', 'to']) {
          assert.equal(content(join(target, 'bak', name)), 'by another', name)
        }
        assert.equal((await run.stop()).code, 0)
      } finally {
        await run.stop('SIGKILL')
      }
    }))

  test('[S142] what was kept before gives way to what is kept now, under another name', () =>
    withPlaces(async ({ source, target, words }) => {
      const kept = async (): Promise<void> => {
        assert.equal((await runSync([...words, '--once', '--yes-delete', '--backup-dir', 'bak'])).code, 0)
      }
      fill(source, { a: 'file', other: 'o' })
      await kept()
      fill(source, { a: 'file, another' })
      await kept()
      unlinkSync(join(source, 'a'))
      fill(source, { 'a/q': 'q' })
      await kept()
      fill(source, { 'a/q': 'q, another' })
      await kept()
      rmSync(join(source, 'a'), { recursive: true })
      fill(source, { a: 'file again' })
      await kept()
      fill(source, { a: 'and again' })
      await kept()
      const bytes = readdirSync(join(target, 'bak'), { recursive: true, encoding: 'utf8', withFileTypes: true })
        .filter((entry) => entry.isFile())
        .map((entry) => readFileSync(join(entry.parentPath, entry.name), 'utf8'))
      // Of one path the last is kept.
      assert.deepEqual(bytes.toSorted(), ['file again', 'file, another', 'q, another'])
    }))

  test('a run that is stopped before the target is equal says so, and does not end with 0', () =>
    withPlaces(async ({ source, words }) => {
      for (let index = 0; index < 4; index++) fill(source, { [index]: Buffer.alloc(4 << 20, index) })
      const run = startSync([...words, '--once', '--bandwidth', '1MiB'])
      await run.event('that it sends', ({ inFlight }) => (inFlight ?? 0) > 0)
      const end = await run.stop()
      assert.equal(end.code, 3)
      assert.match(end.stderr, /stopped before the target was equal/)
    }))

  test('what is told last of a burst is that nothing is pending', () =>
    withPlaces(async ({ source, words }) => {
      const run = startSync(words)
      try {
        await run.watching()
        for (let index = 0; index < 50; index++) fill(source, { [index]: String(index) })
        await run.event('all of it', ({ sent, queued, inFlight }) => sent === 50 && queued === 0 && inFlight === 0)
        assert.equal((await run.stop()).code, 0)
      } finally {
        await run.stop('SIGKILL')
      }
    }))

  test('[S142] [S141] a deletion that --backup-dir makes impossible is told as failed', () =>
    withPlaces(async ({ source, target, words }) => {
      fill(source, { a: 'a', b: 'b', c: 'c' })
      assert.equal((await runSync([...words, '--once'])).code, 0)
      renameSync(join(source, 'b'), join(source, 'b.x'))
      const end = await runSync([...words, '--once', '--backup-dir', 'a'])
      assert.equal(end.code, 3)
      assert.equal(end.done?.removed, 0)
      assert.deepEqual(
        end.events.filter(({ event }) => event === 'failed').map(({ path }) => path),
        ['b'],
      )
      assert.deepEqual(pathsOf(target), ['a', 'b', 'b.x', 'c'])
    }))

  test('[S130] --checksum finds what size and time hide; without it nothing is sent', () =>
    withPlaces(async ({ source, target, words }) => {
      fill(source, { a: 'aaaa', b: 'bbbb' })
      assert.equal((await runSync([...words, '--once'])).code, 0)
      // Somebody else wrote the target, and set its time.
      const { atime, mtime } = statSync(join(target, 'a'))
      writeFileSync(join(target, 'a'), 'xxxx')
      utimesSync(join(target, 'a'), atime, mtime)
      const end = await runSync([...words, '--once', '--checksum'])
      assert.equal(end.code, 0)
      assert.equal(end.done?.sent, 1)
      assert.deepEqual(treeDifferences(source, target), [])
      assert.equal((await runSync([...words, '--once', '--checksum'])).done?.sent, 0)
    }))

  test('--verify finds an upload that the server has altered, and sends it again', () =>
    withPlaces(async ({ source, state }) => {
      const bucket = await newBucket(gateway)
      const proxy = await startFaultProxy(gateway.endpoint)
      try {
        fill(source, { a: 'a'.repeat(1000), b: 'b'.repeat(1000) })
        const { env, flags } = bucketEnds(gateway, proxy.endpoint)
        let reads = 0
        proxy.fault(({ method, url }) => method === 'GET' && /\/a(?:\?|$)/.test(url) && ++reads > 0, {
          kind: 'alter',
          alter: (upstream) => ({ ...upstream, body: Buffer.alloc(upstream.body.length, 'x') }),
        })
        const words = [source, '--to', `s3://${bucket}`, '--state', state, '--once', '--verify', ...flags]
        const end = await runSync(words, { env })
        assert.equal(reads, 1)
        assert.ok(end.code === 0 || end.events.some(({ event, path }) => event === 'failed' && path === 'a'))
        assert.deepEqual(await objectDifferences(source, gateway, bucket), [])
      } finally {
        await proxy.close()
      }
    }))

  test('--bandwidth bounds what is sent by all together', () =>
    withPlaces(async ({ source, target, words }) => {
      for (let index = 0; index < 8; index++) fill(source, { [`f${index}`]: Buffer.alloc(100_000, index) })
      const run = startSync([...words, '--once', '--bandwidth', '400KB'])
      const { done, code } = await endOf(run)
      assert.equal(code, 0)
      assert.deepEqual(treeDifferences(source, target), [])
      assert.equal(done?.sentBytes, 800_000)
      // Two seconds' worth, and a burst of a tenth of a second.
      const elapsedMs = (done as { elapsedMs?: number }).elapsedMs ?? 0
      assert.ok(elapsedMs > 1800, `${elapsedMs} ms`)
    }))

  test('a sync that is told to stop in the midst of its work ends, and the next one goes on', () =>
    withPlaces(async ({ source, target, words }) => {
      for (let index = 0; index < 40; index++) fill(source, { [`f${index}`]: Buffer.alloc(50_000, index) })
      const run = startSync([...words, '--once', '--bandwidth', '200KB', '--threads', '2'])
      await until('some files', () => pathsOf(target).length > 2)
      const end = await run.stop()
      assert.ok(end.code !== null, 'it ended by itself')
      const there = pathsOf(target)
      assert.ok(there.length < 40, 'it did not wait for all of it')
      for (const path of there) assert.equal(statSync(join(target, path)).size, 50_000)
      const next = await runSync([...words, '--once'])
      assert.equal(next.code, 0)
      assert.equal(next.done?.sent, 40 - there.length)
      assert.deepEqual(treeDifferences(source, target), [])
    }))

  test('a server that cannot be reached fails the run, and is not waited for longer than --io-timeout', () =>
    withPlaces(async ({ source, state }) => {
      fill(source, { a: 'a', b: 'b' })
      const bucket = await newBucket(gateway)
      const proxy = await startFaultProxy(gateway.endpoint)
      try {
        const { env, flags } = bucketEnds(gateway, proxy.endpoint)
        const words = [source, '--to', `s3://${bucket}`, '--state', state, '--once', '--io-timeout', '1s', ...flags]
        proxy.fault(({ method }) => method === 'PUT', { kind: 'refuse' }, Number.POSITIVE_INFINITY)
        const some = await runSync(words, { env })
        assert.equal(some.code, 3, some.stderr)
        assert.deepEqual(
          some.events
            .filter(({ event }) => event === 'failed')
            .map(({ path = '' }) => path)
            .toSorted(),
          ['a', 'b'],
        )
        proxy.fault(() => true, { kind: 'refuse' }, Number.POSITIVE_INFINITY)
        const none = await runSync(words, { env })
        assert.equal(none.code, 1)
        assert.match(none.stderr, /^eider: Cannot/m)
        proxy.clear()
        assert.equal((await runSync(words, { env })).code, 0)
        assert.deepEqual(await objectDifferences(source, gateway, bucket), [])
      } finally {
        await proxy.close()
      }
    }))

  test('several paths lie in the target by their names; a single file does, too, and is followed', () =>
    withPlaces(async ({ source, target, state }) => {
      fill(source, { 'one/1': '1', 'two/2': '2', 'file.txt': 'first', 'not-named': 'x' })
      const paths = ['one', 'two', 'file.txt'].map((name) => join(source, name))
      const run = startSync([...paths, '--to', target, '--state', state])
      try {
        await run.watching()
        assert.deepEqual(pathsOf(target), ['file.txt', 'one/1', 'two/2'])
        writeFileSync(join(source, 'file.txt'), 'second')
        fill(source, { 'two/3': '3' })
        unlinkSync(join(source, 'one/1'))
        await until('the second version', () => readFileSync(join(target, 'file.txt'), 'utf8') === 'second')
        await until('what is new', () => existsSync(join(target, 'two/3')) && !existsSync(join(target, 'one/1')))
        assert.equal((await run.stop()).code, 0)
        assert.deepEqual(pathsOf(target), ['file.txt', 'two/2', 'two/3'])
      } finally {
        await run.stop('SIGKILL')
      }
    }))

  test('a bucket to a directory, and to another bucket, followed by listing it', () =>
    withPlaces(async ({ source, target, state, base }) => {
      const [from, to] = [await newBucket(gateway), await newBucket(gateway)]
      const { env, flags } = bucketEnds(gateway, gateway.endpoint)
      fill(source, { 'a-b': '1', 'a/b': '2', a0: '3', 'ü/x y': '4', '😀': '5' })
      const first = [source, '--to', `s3://${from}/p`, '--state', `${state}1`, '--once', ...flags]
      assert.equal((await runSync(first, { env })).code, 0)
      const down = startSync([`s3://${from}/p`, '--to', target, '--state', state, '--interval', '1s', ...flags], {
        env,
      })
      try {
        await down.watching()
        assert.deepEqual(treeDifferences(source, target), [])
        fill(source, { 'a/b': 'changed', new: 'new' })
        unlinkSync(join(source, 'a0'))
        assert.equal((await runSync(first, { env })).code, 0)
        await settled(() => treeDifferences(source, target))
        assert.equal((await down.stop()).code, 0)
      } finally {
        await down.stop('SIGKILL')
      }
      const across = [`s3://${from}/p`, '--to', `s3://${to}/q`, '--state', join(base, 'state3'), '--once', ...flags]
      for (const sent of [5, 0]) {
        const end = await runSync(across, { env })
        assert.equal(end.code, 0, end.stderr)
        assert.equal(end.done?.sent, sent)
        assert.deepEqual(await objectDifferences(source, gateway, to, 'q/'), [])
      }
    }))
})
