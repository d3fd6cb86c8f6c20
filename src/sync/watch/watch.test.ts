import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import {
  appendFileSync,
  chmodSync,
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  renameSync,
  rmdirSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { test, type TestContext } from 'node:test'
import { setTimeout } from 'node:timers/promises'

import { isOperationError } from '#base/errors.ts'
import { setLogLevel } from '#base/log.ts'
import { exchangeAt } from '#os/at.ts'
import { SystemCallError } from '#os/libc.ts'

import { FanotifyWatcher } from './fanotify-watcher.ts'
import { InotifyWatcher } from './inotify-watcher.ts'
import { openWatcher } from './open-watcher.ts'
import { PollingWatcher } from './polling-watcher.ts'
import { Reader } from './reader-double.ts'
import type { Change, Watcher, WatchOptions } from './watcher.ts'

setLogLevel('silent')

const KINDS = {
  inotify: (path: string, options: Partial<WatchOptions>) => new InotifyWatcher(path, options),
  fanotify: (path: string, options: Partial<WatchOptions>) => new FanotifyWatcher(path, options),
  polling: (path: string, options: Partial<WatchOptions>) => new PollingWatcher(path, 'for a test', options),
}
type Kind = keyof typeof KINDS
/** Those that the kernel tells. */
const TOLD: readonly Kind[] = ['inotify', 'fanotify']
const ALL: readonly Kind[] = [...TOLD, 'polling']

interface World {
  /** The tree; `base` has room beside it. */
  readonly tree: string
  readonly base: string
  readonly watcher: Watcher
  read(): Promise<Reader>
}

/** One test for each of the kinds; fanotify is left out, telling why, where it is not to be had. */
function each(kinds: readonly Kind[], name: string, body: (world: World, context: TestContext) => Promise<void>): void {
  for (const kind of kinds) {
    test(`${name} (${kind})`, { timeout: 60_000 }, async (context) => {
      const base = mkdtempSync(join(tmpdir(), 'eider-watch-'))
      const tree = join(base, 'tree')
      mkdirSync(join(tree, 'a', 'b', 'c'), { recursive: true })
      writeFileSync(join(tree, 'a', 'b', 'f'), 'first')
      let watcher: Watcher | undefined
      try {
        watcher = KINDS[kind](tree, { pollEveryMs: 20, checkEveryMs: 20, openEveryMs: 100 })
        const opened = watcher
        await body({ tree, base, watcher: opened, read: () => Reader.of(opened, tree) }, context)
      } catch (error) {
        if (kind !== 'fanotify' || !(error instanceof SystemCallError) || watcher !== undefined) throw error
        context.skip(`fanotify is not to be had here: ${error.message}`)
      } finally {
        await watcher?.close()
        rmSync(base, { recursive: true, force: true })
      }
    })
  }
}

const about = (kind: Change['kind'], path: string) => (change: Change) =>
  change.kind === kind && 'path' in change && change.path === path

/** Something that is told after all that happened before it. */
async function sentinel({ tree }: World, reader: Reader): Promise<void> {
  const name = `sentinel-${reader.told.length}`
  writeFileSync(join(tree, name), '')
  await reader.until((change) => change.kind === 'written' && change.path === name && !change.isOpen)
}

each(ALL, 'what is made, written, changed and removed is told', async (world) => {
  const { tree } = world
  const reader = await world.read()
  writeFileSync(join(tree, 'a', 'new'), 'x')
  await reader.settled()
  appendFileSync(join(tree, 'a', 'new'), 'y')
  await reader.settled()
  chmodSync(join(tree, 'a', 'new'), 0o600)
  chmodSync(join(tree, 'a', 'b'), 0o700)
  symlinkSync('new', join(tree, 'a', 'link'))
  await reader.settled()
  unlinkSync(join(tree, 'a', 'new'))
  rmSync(join(tree, 'a', 'b'), { recursive: true })
  await reader.settled()
  assert.equal(reader.mirror.entries.has('a/b/f'), false)
})

each(TOLD, '[S135] two directories that are exchanged are both watched afterwards', async (world) => {
  const { tree } = world
  mkdirSync(join(tree, 'x', 'deep'), { recursive: true })
  const reader = await world.read()
  const fd = openSync(tree, 'r')
  try {
    exchangeAt(fd, 'a', fd, 'x')
  } finally {
    closeSync(fd)
  }
  // What is written before it is watched anew is told as part of a subtree.
  await sentinel(world, reader)
  await reader.settled()
  for (const name of ['a/deep/new', 'x/b/c/new', 'x/new', 'a/new']) {
    const from = reader.told.length
    writeFileSync(join(tree, name), 'x')
    await reader.until(about('written', name), from)
  }
  mkdirSync(join(tree, 'x', 'late'))
  writeFileSync(join(tree, 'x', 'late', 'f'), 'x')
  await sentinel(world, reader)
  await reader.settled()
})

each(TOLD, '[trap 1] an overflow of the queue is told, and what comes after it is whole', async (world) => {
  const { tree } = world
  const reader = await world.read()
  // More events than the queue holds, before anybody can read one.
  const max = Number(readFileSync('/proc/sys/fs/inotify/max_queued_events', 'latin1'))
  assert.ok(max <= 65_536, 'the queue can be filled')
  for (let index = 0; index < max + 100; index++) writeFileSync(join(tree, 'a', `f${index}`), '')
  mkdirSync(join(tree, 'late', 'below'), { recursive: true })
  renameSync(join(tree, 'a', 'b'), join(tree, 'late', 'moved'))
  await reader.until(({ kind }) => kind === 'lost')
  await reader.settled()
  assert.equal(world.watcher.counts.overflows, 1)
  const from = reader.told.length
  writeFileSync(join(tree, 'late', 'below', 'g'), 'x')
  writeFileSync(join(tree, 'late', 'moved', 'f'), 'x')
  await reader.until(about('written', 'late/below/g'), from)
  await reader.until(about('written', 'late/moved/f'), from)
})

each(TOLD, '[trap 2] nothing of a tree that is copied in is missed', async (world) => {
  const { tree, base } = world
  for (let index = 0; index < 100; index++) {
    mkdirSync(join(base, 'from', `${index % 10}`, `${index}`), { recursive: true })
    for (const name of ['x', 'y', 'z']) writeFileSync(join(base, 'from', `${index % 10}`, `${index}`, name), name)
  }
  const reader = await world.read()
  const copying = spawn('cp', ['-r', join(base, 'from'), join(tree, 'copy')], { stdio: 'inherit' })
  await once(copying, 'exit')
  await sentinel(world, reader)
  assert.deepEqual(reader.mirror.differences(), [])
  assert.equal([...reader.mirror.entries.keys()].filter((path) => path.startsWith('copy/')).length, 410)
})

each(ALL, '[trap 3] a tree that is moved in is scanned, and then watched', async (world) => {
  const { tree, base } = world
  mkdirSync(join(base, 'in', 'deep'), { recursive: true })
  writeFileSync(join(base, 'in', 'deep', 'f'), 'x')
  const reader = await world.read()
  renameSync(join(base, 'in'), join(tree, 'in'))
  await reader.until(about('subtree', 'in'))
  await reader.settled()
  const from = reader.told.length
  writeFileSync(join(tree, 'in', 'deep', 'f'), 'later')
  await reader.until(about('written', 'in/deep/f'), from)
})

each(TOLD, '[trap 3] a tree that is moved out is gone, and tells nothing more under its old name', async (world) => {
  const { tree, base } = world
  const reader = await world.read()
  renameSync(join(tree, 'a'), join(base, 'out'))
  await reader.until(about('gone', 'a'))
  const from = reader.told.length
  writeFileSync(join(base, 'out', 'b', 'ghost'), 'x')
  mkdirSync(join(base, 'out', 'b', 'dir'))
  await sentinel(world, reader)
  assert.deepEqual(
    reader.told.slice(from).filter((change) => JSON.stringify(change).includes('"a')),
    [],
  )
  // And back in, under another name.
  renameSync(join(base, 'out'), join(tree, 'back'))
  await reader.until(about('subtree', 'back'))
  await reader.settled()
  const back = reader.told.length
  writeFileSync(join(tree, 'back', 'b', 'dir', 'f'), 'x')
  await reader.until(about('written', 'back/b/dir/f'), back)
})

each(TOLD, '[trap 4] a rename is one change, though its halves come in two reads', async (world) => {
  const { tree } = world
  writeFileSync(join(tree, 'p'), '')
  writeFileSync(join(tree, 'q'), '')
  const reader = await world.read()
  // Events of such names take 32 bytes each of a read of 65,536: the first half is the last of it.
  for (let index = 0; index < 2047; index++) chmodSync(join(tree, index % 2 === 0 ? 'p' : 'q'), 0o600 + (index % 8))
  renameSync(join(tree, 'p'), join(tree, 'r'))
  await sentinel(world, reader)
  assert.deepEqual(
    reader.told.filter(({ kind }) => kind === 'moved' || kind === 'gone'),
    [{ kind: 'moved', from: 'p', to: 'r', isDirectory: false }],
  )
  assert.deepEqual(reader.mirror.differences(), [])
})

each(
  TOLD,
  '[trap 5] after a rename of a directory, what happens deep below it is told by its new path',
  async (world) => {
    const { tree } = world
    const reader = await world.read()
    renameSync(join(tree, 'a'), join(tree, 'z'))
    await reader.until((change) => change.kind === 'moved' && change.from === 'a' && change.to === 'z')
    assert.equal(reader.mirror.scans, 1, 'a rename needs no scan but the first')
    const from = reader.told.length
    writeFileSync(join(tree, 'z', 'b', 'c', 'g'), 'x')
    await reader.until(about('written', 'z/b/c/g'), from)
    // Exchanged at once: each event comes when both names have another directory already.
    mkdirSync(join(tree, 'y'))
    renameSync(join(tree, 'z'), join(tree, 't'))
    renameSync(join(tree, 'y'), join(tree, 'z'))
    renameSync(join(tree, 't'), join(tree, 'y'))
    await sentinel(world, reader)
    writeFileSync(join(tree, 'y', 'b', 'c', 'g'), 'xy')
    writeFileSync(join(tree, 'z', 'h'), 'xy')
    await sentinel(world, reader)
    assert.deepEqual(reader.mirror.differences(), [])
  },
)

each(TOLD, '[trap 6] an atomic save is a move over the old file, and leaves nothing else', async (world) => {
  const { tree } = world
  const reader = await world.read()
  writeFileSync(join(tree, 'a', 'b', 'f~'), 'saved')
  renameSync(join(tree, 'a', 'b', 'f~'), join(tree, 'a', 'b', 'f'))
  await reader.until((change) => change.kind === 'moved' && change.from === 'a/b/f~' && change.to === 'a/b/f')
  assert.deepEqual(reader.mirror.differences(), [])
  assert.deepEqual([...reader.mirror.entries.keys()].sort(), ['', 'a', 'a/b', 'a/b/c', 'a/b/f'])
})

each(TOLD, '[trap 7] the empty moment of a file that is truncated and written is told as open', async (world) => {
  const { tree } = world
  const reader = await world.read()
  const fd = openSync(join(tree, 'a', 'b', 'f'), 'w')
  await reader.until(about('written', 'a/b/f'))
  writeSync(fd, 'the whole')
  assert.ok(
    reader.told.every((change) => change.kind !== 'written' || change.isOpen),
    'nobody is told that it is complete',
  )
  closeSync(fd)
  await reader.until((change) => change.kind === 'written' && change.path === 'a/b/f' && !change.isOpen)
  assert.deepEqual(reader.mirror.differences(), [])
})

each(TOLD, '[trap 8] a writer that does not close is told now and then, its last write too', async (world) => {
  const { tree } = world
  const reader = await world.read()
  const fd = openSync(join(tree, 'log'), 'w')
  const tellings = (): number => reader.told.filter(about('written', 'log')).length
  const began = Date.now()
  let writes = 0
  while (tellings() < 3) {
    writeSync(fd, `line ${writes++}\n`)
    await setTimeout(1)
  }
  const intervals = (Date.now() - began) / 100
  assert.ok(tellings() <= intervals + 2, `${tellings()} tellings of ${writes} writes`)
  writeSync(fd, 'the last')
  await reader.settled()
  assert.ok(reader.told.every((change) => change.kind !== 'written' || change.path !== 'log' || change.isOpen))
  closeSync(fd)
  // Loggers that open anew for each line close each time.
  await reader.until((change) => change.kind === 'written' && change.path === 'log' && !change.isOpen)
  const from = reader.told.length
  appendFileSync(join(tree, 'log'), 'once more')
  await reader.until((change) => change.kind === 'written' && change.path === 'log' && !change.isOpen, from)
})

each(
  TOLD,
  '[trap 18] what is mounted below the root, and unmounted, is found, and watched meanwhile',
  async (world, context) => {
    const { tree } = world
    const place = join(tree, 'a', 'b')
    const reader = await world.read()
    const mounted = spawnSync('mount', ['-t', 'tmpfs', 'none', place], { encoding: 'utf8' })
    if (mounted.status !== 0) return context.skip(`mount: ${mounted.stderr}`)
    try {
      await reader.until(about('subtree', 'a/b'))
      await reader.settled()
      const from = reader.told.length
      writeFileSync(join(place, 'g'), 'in it')
      await reader.until(about('written', 'a/b/g'), from)
      mkdirSync(join(place, 'dir'))
      await sentinel(world, reader)
      writeFileSync(join(place, 'dir', 'h'), 'in it')
      await reader.settled()
      assert.deepEqual(world.watcher.degraded, [])
    } finally {
      assert.equal(spawnSync('umount', [place]).status, 0, 'nothing keeps it from being unmounted')
    }
    await reader.settled()
    const from = reader.told.length
    writeFileSync(join(place, 'f'), 'under it')
    await reader.until(about('written', 'a/b/f'), from)
  },
)

/** Watches the directory of its argv and prints what is told, a line a batch; first which subtrees are polled. */
const LIMITED = `
import { InotifyWatcher } from '${import.meta.resolve('./inotify-watcher.ts')}'
import { setLogLevel } from '${import.meta.resolve('#base/log.ts')}'
setLogLevel('silent')
const watcher = new InotifyWatcher(process.argv[1], { pollEveryMs: 20 })
await watcher.arm()
const print = (value) => process.stdout.write(JSON.stringify(value) + '\\n')
print(watcher.degraded)
process.stdin.resume().on('end', () => void watcher.close())
for await (const batch of watcher.changes()) print(batch)
`

test(
  '[trap 20] a subtree that has run out of watches is polled, and told to be',
  { timeout: 60_000 },
  async (context) => {
    const tree = mkdtempSync(join(tmpdir(), 'eider-watch-'))
    try {
      for (let index = 0; index < 30; index++) mkdirSync(join(tree, `d${index}`, 'below'), { recursive: true })
      const limited = 'echo 20 > /proc/sys/user/max_inotify_watches && exec "$@"'
      const command = ['-Ur', 'sh', '-c', limited, 'sh', process.execPath, '--input-type=module', '-e', LIMITED, tree]
      if (spawnSync('unshare', ['-Ur', 'sh', '-c', 'echo 20 > /proc/sys/user/max_inotify_watches']).status !== 0) {
        return context.skip('no user namespace, or none with limits of its own')
      }
      const child = spawn('unshare', command, { stdio: ['pipe', 'pipe', 'inherit'] })
      const exited = once(child, 'exit')
      const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
      const next = async (): Promise<unknown> => JSON.parse(String((await lines.next()).value))
      try {
        const polled = (await next()) as { path: string; why: string }[]
        assert.ok(polled.length > 0 && polled.every(({ why }) => why.includes('ENOSPC')), JSON.stringify(polled))
        const told = new Set<string>()
        for (let index = 0; index < 30; index++) writeFileSync(join(tree, `d${index}`, 'below', 'f'), 'x')
        while ([...told].filter((path) => path.endsWith('/below/f')).length < 30) {
          for (const change of (await next()) as Change[]) if (change.kind === 'written') told.add(change.path)
        }
      } finally {
        child.stdin.end()
        await exited
      }
    } finally {
      rmSync(tree, { recursive: true })
    }
  },
)

each(ALL, '[trap 26] what happens between arming and reading is told', async ({ tree, watcher }) => {
  await watcher.arm()
  writeFileSync(join(tree, 'a', 'b', 'f'), 'changed')
  mkdirSync(join(tree, 'new'))
  const told: Change[] = []
  for await (const batch of watcher.changes(AbortSignal.timeout(20_000))) {
    told.push(...batch)
    const paths = new Set(told.map((change) => 'path' in change && change.path))
    if (paths.has('a/b/f') && paths.has('new')) return
  }
  assert.fail(JSON.stringify(told))
})

each(ALL, 'a name that is not UTF-8 is told as skipped', async (world) => {
  const reader = await world.read()
  const bytes = (name: string): Buffer => Buffer.concat([Buffer.from(`${world.tree}/`), Buffer.from(name, 'latin1')])
  writeFileSync(bytes('caf\xe9'), 'x')
  await reader.until(
    (change) => change.kind === 'skipped' && change.path === 'caf\\xe9' && change.reason === 'not-utf8',
  )
  renameSync(bytes('caf\xe9'), join(world.tree, 'café'))
  await reader.until(about('written', 'café'))
  renameSync(join(world.tree, 'café'), bytes('caf\xe8'))
  await reader.until(about('gone', 'café'))
  await reader.until((change) => change.kind === 'skipped' && change.path === 'caf\\xe8')
})

each(ALL, 'a root that is renamed or removed is told, and nothing after it', async (world) => {
  const reader = await world.read()
  renameSync(world.tree, join(world.base, 'elsewhere'))
  await reader.until(({ kind }) => kind === 'root-gone')
  await reader.ended
  assert.equal(reader.told.at(-1)?.kind, 'root-gone')
})

each(ALL, 'a root in whose place another directory is mounted is told', async (world, context) => {
  const reader = await world.read()
  if (spawnSync('mount', ['-t', 'tmpfs', 'none', world.tree]).status !== 0) return context.skip('no right to mount')
  try {
    await reader.until(({ kind }) => kind === 'root-gone')
    await reader.ended
    assert.deepEqual(
      reader.told.map(({ kind }) => kind),
      ['root-gone'],
      'nothing is told to be gone',
    )
  } finally {
    spawnSync('umount', [world.tree])
  }
})

each(ALL, 'reading ends with the signal, and with the watcher', async ({ watcher }) => {
  await watcher.arm()
  const left = new AbortController()
  const reading = (async () => {
    for await (const batch of watcher.changes(left.signal)) assert.ok(batch.length > 0)
  })()
  left.abort()
  await reading
  const again = (async () => {
    for await (const batch of watcher.changes()) assert.ok(batch.length > 0)
  })()
  await watcher.close()
  await again
})

test('the best kind that there is here is chosen, and a missing directory is the caller’s mistake', async () => {
  const tree = mkdtempSync(join(tmpdir(), 'eider-watch-'))
  const watcher = openWatcher(tree)
  assert.notEqual(watcher.kind, 'polling')
  await watcher.close()
  rmdirSync(tree)
  assert.throws(
    () => openWatcher(tree),
    (error) => isOperationError(error, 'INPUT_INVALID'),
  )
})
