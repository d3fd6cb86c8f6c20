/** Traps of syncs that follow events, through the whole program: each test has the number of its trap. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  appendFileSync,
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  unlinkSync,
  writeFileSync,
  writeSync,
  statSync,
} from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { describe, test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'

import { ListMultipartUploadsCommand, S3Client } from '@aws-sdk/client-s3'

import { openDirectoryStore } from '#store/directory-store.ts'
import type { Store } from '#store/store.ts'
import { SyncState } from '#sync/state.ts'
import { makeBucket } from '#test/servers/bucket.ts'
import { errorDocument, startFaultProxy } from '#test/servers/fault-proxy.ts'
import { freePorts } from '#test/servers/free-port.ts'
import { startTestGateway, type TestGateway } from '#test/servers/gateway.ts'

import { objectDifferences, objectsOf, rsyncDifferences, treeDifferences } from './sync/compare.ts'
import { EventCounter } from './sync/event-counter.ts'
import { following, runSync, settled, startSync, until, type SyncRun } from './sync/sync-process.ts'
import { bucketEnds, fill, fillMany, withPlaces, type Places } from './sync/tree.ts'
import { AS_NOBODY, giveToNobody, isRoot } from './sync/users.ts'

const EVENTS = 40_000
const MAPPING_WRITER = fileURLToPath(new URL('./sync/mapping-writer.py', import.meta.url))
const VERSIONS = fileURLToPath(import.meta.resolve('#test/sync/versions-process.ts'))

async function withBucket(use: (gateway: TestGateway) => Promise<void>, store?: Store): Promise<void> {
  const gateway = await startTestGateway(store === undefined ? {} : { store })
  try {
    await makeBucket(gateway, 'traps')
    await use(gateway)
  } finally {
    await gateway.stop()
  }
}

function equal({ source, target }: Places): () => string[] {
  return () => treeDifferences(source, target)
}

/** Changes `d0` to `d9` and `new` until the kernel has told of so much; gives how much that is. */
function makeEvents(source: string, countMin: number): number {
  const names = ['.', 'new', ...Array.from({ length: 10 }, (_, index) => `d${index}`)]
  const events = new EventCounter(names.map((name) => join(source, name)))
  try {
    // Changes of one file are too far from one another to be told as one.
    for (let index = 0; events.count < countMin; index++) {
      appendFileSync(join(source, `d${index % 10}`, `f${index % 1000}`), 'x')
      writeFileSync(join(source, 'new', String(index)), 'short')
      if (index % 2 === 0 && index >= 500) unlinkSync(join(source, 'new', String(index - 500)))
    }
    renameSync(join(source, 'd3'), join(source, 'moved'))
    rmSync(join(source, 'd4'), { recursive: true })
    return events.count
  } finally {
    events.close()
  }
}

/** Resolves when what comes last has been done. */
async function arrives({ source, target }: Places, marker: string): Promise<void> {
  writeFileSync(join(source, marker), marker)
  await until(`${marker} in the target`, () => existsSync(join(target, marker)))
}

describe('traps of a sync', () => {
  for (const how of ['in-place', 'saved']) {
    for (const bytes of [300_000, 3_000_000]) {
      test(`[trap 9] [S133] a file of ${bytes} bytes that is written ${how} again and again shows no mixture`, () =>
        withPlaces(async (places) => {
          const { source, target, words } = places
          const file = join(source, 'hot')
          writeFileSync(file, Buffer.alloc(bytes, 0))
          await following(words, async () => {
            const child = spawn(process.execPath, [VERSIONS, file, String(bytes), '2500', how], { stdio: 'pipe' })
            let isOver = false
            const over = once(child, 'close').then(() => (isOver = true))
            const seen = new Set<number>()
            while (!isOver) {
              const shown = readFileSync(join(target, 'hot'))
              const [first = -1] = shown
              assert.equal(shown.length, bytes)
              assert.ok(shown.equals(Buffer.alloc(bytes, first)), 'all bytes are of one version')
              seen.add(first)
              await delay(1)
            }
            await over
            await settled(equal(places))
            assert.ok(seen.size > 1, 'versions were sent while the file was written')
          })
        }))
    }
  }

  test('[trap 9] [S133] of a file that is changed while it is sent in parts, no part stays in the bucket', () =>
    withPlaces(async ({ source, state }) =>
      withBucket(async (gateway) => {
        const file = join(source, 'large')
        writeFileSync(file, Buffer.alloc(17 << 20, 1))
        const proxy = await startFaultProxy(gateway.endpoint)
        const { env, flags } = bucketEnds(gateway, proxy.endpoint)
        let changes = 0
        proxy.fault(({ method, url }) => method === 'PUT' && /partNumber=2\b/.test(url) && changes === 0, {
          kind: 'wait',
          until: async () => {
            changes++
            writeFileSync(file, Buffer.alloc(17 << 20, 2))
          },
        })
        try {
          const words = [source, '--to', 's3://traps', '--state', state, '--part-bytes', '5MiB', ...flags]
          const end = await runSync([...words, '--once'], { env })
          assert.equal(end.code, 0, JSON.stringify(end.events.slice(-2)))
          assert.equal(changes, 1, 'it was changed between two parts')
          assert.deepEqual(await objectDifferences(source, gateway, 'traps'), [])
          assert.deepEqual(await uploadsOf(gateway), [])
        } finally {
          await proxy.close()
        }
      }),
    ))

  test('[trap 24] [S137] what was sent of a file when the sync was killed is given up by the next one', () =>
    withPlaces(async ({ source, state }) =>
      withBucket(async (gateway) => {
        writeFileSync(join(source, 'large'), Buffer.alloc(17 << 20, 1))
        const proxy = await startFaultProxy(gateway.endpoint)
        const { env, flags } = bucketEnds(gateway, proxy.endpoint)
        let hangs = false
        proxy.fault(({ method, url }) => method === 'PUT' && /partNumber=3\b/.test(url) && (hangs = true), {
          kind: 'hang',
        })
        try {
          const words = [source, '--to', 's3://traps', '--state', state, '--part-bytes', '5MiB', ...flags, '--once']
          const run = startSync(words, { env })
          await until('a part under way', () => hangs)
          await run.stop('SIGKILL')
          assert.equal((await uploadsOf(gateway)).length, 1)
          unlinkSync(join(source, 'large'))
          writeFileSync(join(source, 'other'), 'other')
          proxy.clear()
          assert.equal((await runSync([...words, '--yes-delete'], { env })).code, 0)
          assert.deepEqual(await uploadsOf(gateway), [])
          assert.deepEqual(await objectDifferences(source, gateway, 'traps'), [])
        } finally {
          await proxy.close()
        }
      }),
    ))

  test('[trap 12] [S134] one operation at a time for a path, and the last intent wins', () =>
    withPlaces(async ({ source, state, base }) => {
      const { store, mostAtOnce } = await counted(join(base, 'bucket'))
      await withBucket(async (gateway) => {
        const { env, flags } = bucketEnds(gateway, gateway.endpoint)
        const words = [source, '--to', 's3://traps/x', '--state', state, '--yes-delete', ...flags]
        const names = Array.from({ length: 20 }, (_, index) => `flip${index}`)
        fill(source, { kept: 'kept' })
        await following(
          words,
          async () => {
            for (let round = 0; round < 60; round++) {
              for (const name of names) {
                if (existsSync(join(source, name))) unlinkSync(join(source, name))
                else writeFileSync(join(source, name), `round ${round}`)
              }
              await delay(5)
            }
            for (const [index, name] of names.entries()) {
              if (index % 2 === 0) writeFileSync(join(source, name), 'last')
              else rmSync(join(source, name), { force: true })
            }
            await settled(() => objectDifferences(source, gateway, 'traps', 'x/'))
          },
          { env },
        )
        assert.deepEqual(await objectDifferences(source, gateway, 'traps', 'x/'), [])
        assert.equal(mostAtOnce(), 1)
      }, store)
    }))

  test('[trap 19] [S135] what no event tells of is found by the comparison at intervals', () =>
    withPlaces(async (places) => {
      const { source, words } = places
      fill(source, { mapped: 'x'.repeat(4096), other: 'other' })
      await following([...words, '--interval', '1s'], async (run) => {
        await settled(equal(places))
        // Written through a mapping whose descriptor stays open: no event comes of it.
        const program = [
          'import mmap, os, sys',
          'fd = os.open(sys.argv[1], os.O_RDWR)',
          'shared = mmap.mmap(fd, 4096)',
          'print("mapped", flush=True)',
          'sys.stdin.readline()',
          'shared[0:5] = b"wrote"',
          'print("written", flush=True)',
          'sys.stdin.readline()',
        ].join('\n')
        const child = spawn('python3', ['-c', program, join(source, 'mapped')], { stdio: ['pipe', 'pipe', 'inherit'] })
        try {
          await once(child.stdout, 'data')
          child.stdin.write('\n')
          await once(child.stdout, 'data')
          await settled(equal(places))
          await run.event('that a third file was sent', ({ sent = 0 }) => sent >= 3)
        } finally {
          child.kill('SIGKILL')
          await once(child, 'close')
        }
      })
    }))

  test('[trap 21] [S135] a chain of syncs, each following what the one before writes, comes to rest', () =>
    withPlaces(async (places) => {
      const { source, target, state, words, base } = places
      const third = join(base, 'third')
      mkdirSync(third)
      fill(source, { a: 'a', 'd/b': 'b' })
      const last = { ...places, source: target, target: third }
      await following(words, async () => {
        const second = startSync([target, '--to', third, '--state', `${state}2`])
        try {
          await second.watching()
          fillMany(source, 50)
          renameSync(join(source, 'd'), join(source, 'e'))
          unlinkSync(join(source, 'a'))
          await settled(() => [...equal(places)(), ...equal(last)()])
          await arrives(places, 'marker')
          await arrives(last, 'marker-of-the-second')
          const end = await second.stop()
          assert.equal(end.code, 0)
          // Each file once: what the first sync writes by steps of its own is told of once.
          assert.ok((end.done?.sent ?? 0) <= 56, `the second sent ${end.done?.sent} files`)
          assert.ok(end.events.every(({ path = '' }) => !path.includes('.eider')))
          assert.deepEqual(treeDifferences(target, third), [])
          assert.deepEqual(readdirSync(join(third, '.eider', 'tmp')), [])
          unlinkSync(join(target, 'marker-of-the-second'))
        } finally {
          await second.stop('SIGKILL')
        }
      })
    }))

  test('[trap 25] [S141] an answer that is lost does not bring back what was removed meanwhile', () =>
    withPlaces(async ({ source, state }) =>
      withBucket(async (gateway) => {
        const proxy = await startFaultProxy(gateway.endpoint)
        const { env, flags } = bucketEnds(gateway, proxy.endpoint)
        fill(source, { kept: 'kept', more: 'more' })
        const words = [source, '--to', 's3://traps', '--state', state, '--yes-delete', ...flags]
        try {
          await following(
            words,
            async () => {
              let puts = 0
              proxy.fault(({ method, url }) => method === 'PUT' && url.includes('short-lived') && ++puts > 0, {
                kind: 'wait',
                until: async () => unlinkSync(join(source, 'short-lived')),
              })
              writeFileSync(join(source, 'short-lived'), 'here')
              await until('the put', () => puts > 0)
              await settled(() => objectDifferences(source, gateway, 'traps'))

              const isPut = ({ method, url }: { method: string; url: string }): boolean =>
                method === 'PUT' && url.includes('lost')
              proxy.fault(isPut, { kind: 'lose' }, Number.POSITIVE_INFINITY)
              writeFileSync(join(source, 'lost'), 'here')
              await until('the object', async () => (await objectsOf(gateway, 'traps')).has('lost'))
              unlinkSync(join(source, 'lost'))
              proxy.clear()
              await settled(() => objectDifferences(source, gateway, 'traps'))
            },
            { env },
          )
          assert.deepEqual([...(await objectsOf(gateway, 'traps')).keys()].toSorted(), ['kept', 'more'])
        } finally {
          await proxy.close()
        }
      }),
    ))

  test('[trap 25] [S141] servers that say 503 are asked again until all is there', () =>
    withPlaces(async ({ source, state }) =>
      withBucket(async (gateway) => {
        const proxy = await startFaultProxy(gateway.endpoint)
        const { env, flags } = bucketEnds(gateway, proxy.endpoint)
        fillMany(source, 40)
        const first = new Set<string>()
        // The first put of each.
        proxy.fault(
          ({ method, url }) => method === 'PUT' && url.includes('/f') && !first.has(url) && Boolean(first.add(url)),
          { kind: 'answer', status: 503, body: errorDocument('SlowDown') },
          Number.POSITIVE_INFINITY,
        )
        try {
          const end = await runSync([source, '--to', 's3://traps', '--state', state, '--once', ...flags], { env })
          assert.equal(end.code, 0)
          assert.equal(first.size, 40)
          assert.deepEqual(await objectDifferences(source, gateway, 'traps'), [])
        } finally {
          await proxy.close()
        }
      }),
    ))

  test('[trap 27] [S137] what was asked for is kept over SIGKILL, and doing it twice does no harm', () =>
    withPlaces(async ({ source, state, base }) =>
      withBucket(async (gateway) => {
        const proxy = await startFaultProxy(gateway.endpoint)
        const { env, flags } = bucketEnds(gateway, proxy.endpoint)
        fill(source, { first: 'first', 'd/asked ü': 'asked' })
        const [port = 0] = await freePorts(1)
        const words = [source, '--to', 's3://traps', '--state', state, ...flags]
        try {
          assert.equal((await runSync([...words, '--once'], { env })).code, 0)
          const run = startSync([...words, '--port', String(port)], { env })
          await run.watching()
          // From now on the server answers nothing.
          proxy.fault(() => true, { kind: 'hang' }, Number.POSITIVE_INFINITY)
          writeFileSync(join(source, 'd/asked ü'), 'asked again')
          const path = encodeURI(join(source, 'd/asked ü'))
          const answer = await fetch(`http://127.0.0.1:${port}${path}`, { method: 'POST' })
          assert.equal(answer.status, 201)
          const outside = await fetch(`http://127.0.0.1:${port}${base}/elsewhere`, { method: 'POST' })
          assert.equal(outside.status, 404)
          await run.stop('SIGKILL')

          const kept = await SyncState.open(state)
          assert.deepEqual(
            kept.intents().map((intent) => intent.path),
            ['d/asked ü'],
          )
          await kept.close()
          proxy.clear()
          for (let again = 0; again < 2; again++) {
            const end = await runSync([...words, '--once'], { env })
            assert.equal(end.code, 0)
            assert.deepEqual(await objectDifferences(source, gateway, 'traps'), [])
            assert.equal(end.done?.sent, again === 0 ? 1 : 0)
          }
          const done = await SyncState.open(state)
          assert.deepEqual(done.intents(), [])
          await done.close()
        } finally {
          await proxy.close()
        }
      }),
    ))

  for (const [kind, through] of [
    ['fanotify', []],
    ['inotify', isRoot ? AS_NOBODY : []],
  ] as const) {
    const skip = kind === 'fanotify' && !isRoot && 'fanotify takes root'
    test(
      `[trap 1] [S135] 40,000 events while it stands still overflow the queue of ${kind}, and nothing is lost`,
      { skip },
      (context) =>
        withPlaces(async (places) => {
          const { base, source, target, words } = places
          fillMany(source, 1000)
          fill(source, { 'new/first': 'first' })
          if (through.length > 0) giveToNobody(base)
          const work = async ({ child }: SyncRun): Promise<void> => {
            child.kill('SIGSTOP')
            const count = makeEvents(source, EVENTS)
            assert.ok(count >= EVENTS, `${count} events`)
            child.kill('SIGCONT')
            const from = performance.now()
            // To read both trees takes the sync's time away.
            const [here, there] = [join(source, 'new'), join(target, 'new')]
            await until('the new ones', () => readdirSync(here).length === readdirSync(there).length)
            await settled(equal(places))
            context.diagnostic(`${count} events, equal after ${Math.round(performance.now() - from)} ms`)
          }
          const { events } = await following([...words, '--yes-delete'], work, { through })
          const { watcher } = events.findLast(({ event }) => event === 'done') ?? {}
          assert.equal(watcher?.kind, kind)
          assert.ok(watcher.overflows > 0, 'the queue overflowed')
          assert.deepEqual(equal(places)(), [], 'nothing was undone after it was equal')
        }),
    )
  }

  test('[trap 6] [S133] atomic saves leave the file and nothing of its making', () =>
    withPlaces(async (places) => {
      const { source, target, words } = places
      fill(source, { 'd/doc': 'first' })
      await following(words, async () => {
        for (let version = 0; version < 50; version++) {
          writeFileSync(join(source, 'd/doc.swp'), `version ${version}`)
          renameSync(join(source, 'd/doc.swp'), join(source, 'd/doc'))
          await delay(5)
        }
        await settled(equal(places))
        assert.deepEqual(readdirSync(join(target, 'd')), ['doc'])
      })
    }))

  test('[trap 5] [S136] a write just after the move of its directory arrives under the new name, and the files are not sent again', () =>
    withPlaces(async (places) => {
      const { source, words } = places
      fillMany(source, 500)
      const run = await following([...words, '--metadata'], async () => {
        for (let round = 0; round < 5; round++) {
          const [from, to] = round % 2 === 0 ? ['d7', 'moved'] : ['moved', 'd7']
          renameSync(join(source, from), join(source, to))
          appendFileSync(join(source, to, 'f7'), `round ${round}`)
          await settled(() => treeDifferences(source, places.target, { metadata: true }))
        }
        assert.deepEqual(rsyncDifferences(source, places.target), [])
      })
      const { sent = 0, renamed = 0 } = run.events.findLast(({ event }) => event === 'done') ?? {}
      assert.ok(renamed >= 5, `${renamed} renames were done as such`)
      assert.ok(sent >= 505 && sent < 550, `${sent} files were sent, of 500 and 5 changes`)
    }))

  test('[trap 8] [S135] what a writer that never closes has written arrives, again and again', () =>
    withPlaces(async (places) => {
      const { source, target, words } = places
      fill(source, { other: 'other' })
      await following(words, async () => {
        const fd = openSync(join(source, 'log'), 'a')
        try {
          let written = ''
          for (let line = 0; line < 2; line++) {
            written += `line ${line}\n`
            writeSync(fd, `line ${line}\n`)
            await until(`line ${line}`, () => {
              const there = existsSync(join(target, 'log')) ? readFileSync(join(target, 'log'), 'utf8') : ''
              return there === written
            })
          }
        } finally {
          closeSync(fd)
        }
        await settled(equal(places))
      })
    }))

  for (const size of [8192, 3 << 20]) {
    test(`[trap 8] [S130] what is written through a mapping of ${size} bytes is found, though the times stay`, () =>
      withPlaces(async ({ source, target, words }) => {
        const file = join(source, 'mapped')
        const sent = (): string => readFileSync(join(target, 'mapped'), 'latin1').slice(0, 4)
        const run = async (): Promise<void> => assert.equal((await runSync([...words, '--once'])).code, 0)
        fill(source, { mapped: Buffer.alloc(size, 'x'), other: 'other' })
        await run()
        const writer = spawn('python3', [MAPPING_WRITER, file], { stdio: ['pipe', 'pipe', 'inherit'] })
        const lines = createInterface({ input: writer.stdout })[Symbol.asyncIterator]()
        try {
          assert.equal((await lines.next()).value, 'mapped')
          const write = async (text: string): Promise<void> => {
            writer.stdin.write(`${text}\n`)
            assert.equal((await lines.next()).value, 'written')
          }
          await write('AAAA')
          await run()
          assert.equal(sent(), 'AAAA')
          await run()
          const before = statSync(file, { bigint: true })
          await write('BBBB')
          const after = statSync(file, { bigint: true })
          // The kernel stamps a page that is dirty already no more; where it was written out meanwhile, the test shows less.
          if (after.ctimeNs === before.ctimeNs) assert.equal(after.mtimeNs, before.mtimeNs)
        } finally {
          writer.stdin.end()
          await once(writer, 'exit')
        }
        await run()
        assert.equal(sent(), 'BBBB')
      }))
  }

  test('[trap 26] [S135] what changes while the trees are compared for the first time is not lost', () =>
    withPlaces(async (places) => {
      const { source, words } = places
      fillMany(source, 3000)
      const run = startSync([...words, '--yes-delete'])
      try {
        await run.event('that it compares', ({ phase }) => phase === 'comparing')
        for (let index = 0; index < 3000; index += 3) {
          const path = join(source, `d${index % 10}`, `f${index}`)
          if (index % 2 === 0) unlinkSync(path)
          else appendFileSync(path, 'more')
        }
        renameSync(join(source, 'd2'), join(source, 'moved'))
        await settled(equal(places))
        assert.equal((await run.stop()).code, 0)
        assert.deepEqual(equal(places)(), [])
      } finally {
        await run.stop('SIGKILL')
      }
    }))

  test('[trap 3] [S135] a tree that is moved out is removed, one that is moved in is sent', () =>
    withPlaces(async (places) => {
      const { source, target, base, words } = places
      fillMany(source, 200)
      await following(words, async () => {
        renameSync(join(source, 'd1'), join(base, 'out'))
        await until('d1 to go', () => !existsSync(join(target, 'd1')))
        appendFileSync(join(base, 'out', 'f1'), 'not to be seen')
        renameSync(join(base, 'out'), join(source, 'in'))
        await settled(equal(places))
        rmSync(join(source, 'in'), { recursive: true })
        await until('in to go', () => !existsSync(join(target, 'in')))
        await settled(equal(places))
      })
    }))
})

/** A store whose writes are counted by path: how many were under way at once. */
async function counted(root: string): Promise<{ readonly store: Store; readonly mostAtOnce: () => number }> {
  mkdirSync(root)
  const inner = await openDirectoryStore(root)
  const now = new Map<string, number>()
  let most = 0
  const during = async <T>(path: string, work: () => Promise<T>): Promise<T> => {
    const count = (now.get(path) ?? 0) + 1
    now.set(path, count)
    most = Math.max(most, path.includes('flip') ? count : 0)
    try {
      // So that those that meet do so for sure.
      await delay(2)
      return await work()
    } finally {
      now.set(path, (now.get(path) ?? 1) - 1)
    }
  }
  const store = new Proxy(inner, {
    get(target, name) {
      if (name === 'put') return (...args: Parameters<Store['put']>) => during(args[0], () => target.put(...args))
      if (name === 'remove')
        return (...args: Parameters<Store['remove']>) => during(args[0], () => target.remove(...args))
      const value: unknown = Reflect.get(target, name, target)
      return typeof value === 'function' ? (value.bind(target) as unknown) : value
    },
  })
  return { store, mostAtOnce: () => most }
}

async function uploadsOf({ endpoint, region, accessKey, secretKey }: TestGateway): Promise<string[]> {
  const credentials = { accessKeyId: accessKey, secretAccessKey: secretKey }
  const client = new S3Client({ endpoint, region, forcePathStyle: true, credentials })
  try {
    const { Uploads: uploads = [] } = await client.send(new ListMultipartUploadsCommand({ Bucket: 'traps' }))
    return uploads.map(({ Key: key = '' }) => key)
  } finally {
    client.destroy()
  }
}
