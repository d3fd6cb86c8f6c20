/** Scans of real directories, against `find`. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import {
  closeSync,
  constants,
  cpSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterEach, beforeEach, describe, test } from 'node:test'
import { Worker } from 'node:worker_threads'

import fc from 'fast-check'

import { isOperationError, OperationError } from '#base/errors.ts'
import { makeNodeAt } from '#os/at.ts'
import { S_IFIFO, S_IFSOCK } from '#os/status.ts'
import { sortKey } from '#store/store.ts'

import { Scan, type ScanOptions } from './scan.ts'
import type { Skipped, TreeEntry } from './tree.ts'

const S_IFCHR = 0o020000
const isRoot = process.getuid?.() === 0

let base = ''
let root = ''
beforeEach(() => {
  base = mkdtempSync(join(tmpdir(), 'eider-scan-'))
  root = join(base, 'root')
  mkdirSync(root)
})
afterEach(() => rmSync(base, { recursive: true, force: true }))

function make(path: string, content = ''): void {
  mkdirSync(dirname(join(root, path)), { recursive: true })
  if (path.endsWith('/')) mkdirSync(join(root, path), { recursive: true })
  else writeFileSync(join(root, path), content)
}

async function scanned(
  options: ScanOptions = {},
): Promise<{ keys: string[]; entries: TreeEntry[]; skipped: Skipped[]; scan: Scan }> {
  const skipped: Skipped[] = []
  const scan = new Scan(root, { ...options, onSkipped: (one) => skipped.push(one) })
  const entries: TreeEntry[] = []
  for await (const page of scan) entries.push(...page)
  return { keys: entries.map(sortKey), entries, skipped, scan }
}

function told(skipped: readonly Skipped[]): string[] {
  return skipped.map(({ path, reason }) => `${reason} ${path}`).toSorted()
}

function openFiles(): number {
  return readdirSync('/proc/self/fd').length
}

/** What GNU find says of the tree, in order of the bytes of sort keys. */
function found(): string[] {
  const text = execFileSync('find', [root, '-mindepth', '1', '-printf', '%P\\t%y\\t%s\\t%T@\\t%C@\\t%i\\t%m\\t%U\\0'])
  const rows = text.toString().split('\0').slice(0, -1)
  const key = (row: string): Buffer => {
    const [path = '', type] = row.split('\t')
    return Buffer.from(type === 'd' ? `${path}/` : path)
  }
  return rows.sort((a, b) => Buffer.compare(key(a), key(b))).map((row) => row.replace(/\td\t\d+\t/, '\td\t0\t'))
}

function rowOf(entry: TreeEntry): string {
  const time = (at = { seconds: 0, nanoseconds: 0 }): string =>
    `${at.seconds}.${String(at.nanoseconds).padStart(9, '0')}0`
  const { attributes, identity } = entry
  return [
    entry.path,
    { file: 'f', directory: 'd', symlink: 'l', fifo: 'p', socket: 's' }[entry.kind],
    entry.size,
    time(entry.mtime),
    time(identity?.ctime),
    identity?.inode,
    attributes?.mode?.toString(8),
    attributes?.uid,
  ].join('\t')
}

describe('scan', () => {
  test('[trap 14] lists what find lists, in the order of the bytes of sort keys, whatever the size of pages', async () => {
    const name = fc.string({
      unit: fc.constantFrom('a', 'b', '-', '0', 'A', ' ', '.', 'é', '\uffee', '\u{10348}'),
      minLength: 1,
      maxLength: 3,
    })
    const path = fc.array(
      name.filter((part) => part !== '.' && part !== '..'),
      { minLength: 1, maxLength: 4 },
    )
    const kind = fc.constantFrom('file', 'file', 'directory', 'symlink')
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(path, kind), { maxLength: 40 }),
        fc.integer({ min: 1, max: 7 }),
        async (all, size) => {
          rmSync(root, { recursive: true })
          mkdirSync(root)
          for (const [parts, what] of all) {
            const full = join(root, ...parts)
            try {
              mkdirSync(dirname(full), { recursive: true })
              if (what === 'directory') mkdirSync(full)
              else if (what === 'symlink') symlinkSync('a', full)
              else writeFileSync(full, parts.join(''))
            } catch (error) {
              // A generated path can run into a file of an earlier one.
              assert.match(String(error), /EEXIST|ENOTDIR|EISDIR|ELOOP|ENOENT/)
            }
          }
          const { entries, skipped, scan } = await scanned({ pageEntries: size })
          assert.deepEqual(entries.map(rowOf), found())
          assert.deepEqual(skipped, [])
          assert.equal(scan.isComplete, true)
        },
      ),
      { seed: 41, numRuns: 40 },
    )
  })

  test('[trap 14] "a-b" comes before "a/b" and that before "a0", and code points past U+FFFF after U+FFEE', async () => {
    for (const path of ['a/b', 'a-b', 'a0', 'a/-', '\uffee', '\u{10348}', 'z']) make(path)
    const { keys } = await scanned()
    assert.deepEqual(keys, ['a-b', 'a/', 'a/-', 'a/b', 'a0', 'z', '\uffee', '\u{10348}'])
  })

  test('[trap 14] names that are not UTF-8 are told with their bytes shown, and nothing of them is listed', async () => {
    make('good')
    writeFileSync(Buffer.concat([Buffer.from(`${root}/`), Buffer.from([0x62, 0xff, 0xc3, 0xa9])]), '')
    mkdirSync(Buffer.concat([Buffer.from(`${root}/`), Buffer.from([0xc3])]))
    writeFileSync(Buffer.concat([Buffer.from(`${root}/`), Buffer.from([0xc3]), Buffer.from('/in')]), '')
    const { keys, skipped, scan } = await scanned()
    assert.deepEqual(keys, ['good'])
    assert.deepEqual(told(skipped), ['not-utf8 \\xc3', 'not-utf8 b\\xffé'])
    assert.equal(scan.skipped.get('not-utf8'), 2)
    assert.equal(scan.isComplete, true)
  })

  test('[trap 15] names are listed as they are: both normal forms, cases side by side, spaces at the end, newlines', async () => {
    const names = [
      '\u00e9',
      'e\u0301',
      'Name',
      'name',
      'space ',
      ' ',
      'new\nline',
      '...',
      '-',
      '\\',
      '\u{1f986}',
      'COM1:',
    ]
    for (const name of names) make(name)
    const { keys } = await scanned()
    assert.deepEqual(
      keys,
      names.toSorted((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b))),
    )
  })

  test('[trap 15] paths longer than the target holds are told, directories with all below them', async () => {
    const [part, end] = ['é'.repeat(100), 'x'.repeat(24)]
    make(`${part}/${part}/${end}`)
    make(`${part}/${part}/${end}y`)
    make(`${part}/${part}/${end}y/`.replace('y/', 'z/below'))
    const { keys, skipped, scan } = await scanned({ pathBytesMax: 200 + 1 + 200 + 1 + 24 })
    assert.deepEqual(keys, [`${part}/`, `${part}/${part}/`, `${part}/${part}/${end}`])
    assert.deepEqual(told(skipped), [`too-long ${part}/${part}/${end}y`, `too-long ${part}/${part}/${end}z`])
    assert.equal(scan.provesAbsence(`${part}/${part}/${end}z/below`), false)
  })

  test('[trap 16] symlinks are listed as symlinks and not followed, whether to files, directories, the root or nothing', async () => {
    make('target/file', 'content')
    mkdirSync(join(base, 'outside'))
    writeFileSync(join(base, 'outside/secret'), '')
    symlinkSync('target/file', join(root, 'to-file'))
    symlinkSync('target', join(root, 'to-directory'))
    symlinkSync('..', join(root, 'to-above'))
    symlinkSync(join(base, 'outside'), join(root, 'to-outside'))
    symlinkSync('none', join(root, 'to-nothing'))
    const { entries } = await scanned()
    assert.deepEqual(
      entries.map(({ path, kind, size }) => [path, kind, size]),
      [
        ['target', 'directory', 0],
        ['target/file', 'file', 7],
        ['to-above', 'symlink', 2],
        ['to-directory', 'symlink', 6],
        ['to-file', 'symlink', 11],
        ['to-nothing', 'symlink', 4],
        ['to-outside', 'symlink', join(base, 'outside').length],
      ],
    )
  })

  for (const depth of [2, 100]) {
    test(`[trap 16] a directory that is replaced by a symlink during a scan ${depth} deep leads nowhere else`, async () => {
      const path = Array.from({ length: depth }, () => 'd').join('/')
      for (const file of ['d/x', `${path}/y`, 'd/z']) make(file)
      cpSync(root, join(base, 'outside'), { recursive: true })
      let at = join(base, 'outside')
      for (let level = 0; level < depth; level++) writeFileSync(join((at = join(at, 'd')), 'secret'), '')
      const keys: string[] = []
      const skipped: Skipped[] = []
      const scan = new Scan(root, { pageEntries: 1, onSkipped: (one) => skipped.push(one) })
      for await (const page of scan) {
        keys.push(...page.map(sortKey))
        if (page[0]?.path === `${path}/y`) {
          renameSync(join(root, 'd'), join(base, 'away'))
          symlinkSync(join(base, 'outside/d'), join(root, 'd'))
        }
      }
      assert.equal(keys.includes(`${path}/y`), true)
      assert.deepEqual(
        keys.filter((key) => key.includes('secret')),
        [],
      )
      // From so deep, the way back leads through the path again, and that is told to have gone.
      if (depth > 64) assert.deepEqual(skipped.at(-1)?.reason, 'vanished')
      else assert.deepEqual(keys.slice(-2), ['d/x', 'd/z'])
    })
  }

  test('[trap 16] nor does one that is replaced again and again, at whatever moment', async () => {
    make('d/inside')
    mkdirSync(join(base, 'outside'))
    writeFileSync(join(base, 'outside/secret'), '')
    symlinkSync(join(base, 'outside'), join(base, 'link'))
    const stop = new Int32Array(new SharedArrayBuffer(4))
    const flip = `
      const { workerData: { stop, link, away, d } } = require('node:worker_threads')
      const { renameSync } = require('node:fs')
      while (Atomics.load(stop, 0) === 0) {
        renameSync(d, away)
        renameSync(link, d)
        renameSync(d, link)
        renameSync(away, d)
      }`
    const [link, away, d] = [join(base, 'link'), join(base, 'away'), join(root, 'd')]
    const worker = new Worker(flip, { eval: true, workerData: { stop, link, away, d } })
    const ended = once(worker, 'exit')
    const seen = { directory: 0, symlink: 0, secret: 0 }
    try {
      for (let count = 0; count < 20_000 && (seen.directory < 5000 || seen.symlink < 500); count++) {
        const { entries } = await scanned()
        for (const { path, kind } of entries) {
          if (path.endsWith('secret')) seen.secret++
          else if (path === 'd' && kind === 'directory') seen.directory++
          else if (path === 'd' && kind === 'symlink') seen.symlink++
        }
      }
    } finally {
      Atomics.store(stop, 0, 1)
      await ended
    }
    assert.equal(seen.secret, 0)
    assert.ok(seen.directory > 0 && seen.symlink > 0, `it was seen ${seen.directory} and ${seen.symlink} times`)
  })

  test('[trap 17] fifos, sockets and devices are told and not opened; their absence proves nothing', async () => {
    make('a')
    const fd = openSync(root, constants.O_RDONLY)
    makeNodeAt(fd, 'fifo', S_IFIFO | 0o666)
    makeNodeAt(fd, 'socket', S_IFSOCK | 0o666)
    // Overlay file systems call this a whiteout: a device that anybody may make.
    makeNodeAt(fd, 'whiteout', S_IFCHR)
    closeSync(fd)
    const { keys, skipped, scan } = await scanned()
    assert.deepEqual(keys, ['a'])
    assert.deepEqual(skipped.map(({ path, detail }) => `${detail}: ${path}`).toSorted(), [
      'a device: whiteout',
      'a fifo: fifo',
      'a socket: socket',
    ])
    assert.equal(scan.skipped.get('special'), 3)
    assert.equal(scan.provesAbsence('fifo'), false)
    assert.equal(scan.provesAbsence('fifo2'), true)
    assert.equal(scan.isComplete, true)
  })

  test('unreadable directories are told, the scan is incomplete, and only what lies below them is in doubt', async (t) => {
    if (!isRoot) return t.skip('takes root, who can give its rights up for a while')
    for (const path of ['open/x', 'closed/x', 'unsearchable/x', 'unsearchable/y', 'z']) make(path)
    execFileSync('chmod', ['755', base, root])
    execFileSync('chmod', ['0', join(root, 'closed')])
    execFileSync('chmod', ['744', join(root, 'unsearchable')])
    process.seteuid?.(65534)
    try {
      const { keys, skipped, scan } = await scanned()
      assert.deepEqual(keys, ['closed/', 'open/', 'open/x', 'unsearchable/', 'z'])
      assert.deepEqual(
        skipped.map(({ path, reason }) => [path, reason]),
        [
          ['closed', 'unreadable'],
          ['unsearchable', 'unreadable'],
        ],
      )
      assert.equal(scan.isComplete, false)
      assert.equal(scan.provesAbsence('closed/x/y'), false)
      assert.equal(scan.provesAbsence('unsearchable/x'), false)
      assert.equal(scan.provesAbsence('open/y'), true)
      assert.equal(scan.provesAbsence('closed2'), true)
    } finally {
      process.seteuid?.(0)
    }
  })

  test('a root that cannot be read is an error, never an empty tree', async () => {
    rmSync(root, { recursive: true })
    const isFailure = (error: unknown): boolean =>
      isOperationError(error, 'LOCAL_FAILED') && /ENOENT/.test(error.message)
    await assert.rejects(scanned(), isFailure)
    writeFileSync(root, '')
    await assert.rejects(scanned(), (error: unknown) => isOperationError(error, 'LOCAL_FAILED'))
  })

  test('a root that is removed while its names are read is an error, a directory below it is told', async () => {
    const removing = (directory: string): { admits: () => boolean } => ({
      admits: () => {
        rmSync(directory, { recursive: true })
        return true
      },
    })
    make('file')
    await assert.rejects(scanned({ filter: removing(root) }), (error: unknown) =>
      isOperationError(error, 'LOCAL_FAILED'),
    )
    make('dir/file')
    const below = removing(join(root, 'dir'))
    const filter = { admits: (path: string): boolean => path === 'dir' || below.admits() }
    const { keys, skipped, scan } = await scanned({ filter })
    assert.deepEqual(keys, ['dir/'])
    assert.ok(told(skipped).includes('vanished dir'))
    assert.equal(scan.provesAbsence('dir/other'), false)
  })

  test('what vanishes between its name and the look at it is told, and is no error', async () => {
    for (const path of ['a', 'b', 'c/d', 'e/f']) make(path)
    const gone = new Set(['b', 'c'])
    const filter = {
      admits: (path: string): boolean => {
        if (gone.has(path)) rmSync(join(root, path), { recursive: true })
        return true
      },
    }
    const { keys, skipped, scan } = await scanned({ filter })
    assert.deepEqual(keys, ['a', 'e/', 'e/f'])
    assert.deepEqual(told(skipped), ['vanished b', 'vanished c'])
    assert.equal(scan.isComplete, true)
    assert.equal(scan.provesAbsence('c/d'), false)
  })

  test('a file that becomes a directory under way is told, not listed out of order', async () => {
    for (const path of ['a', 'a-b', 'b']) make(path)
    const filter = {
      admits: (path: string): boolean => {
        if (path === 'b') {
          unlinkSync(join(root, 'a'))
          mkdirSync(join(root, 'a'))
        }
        return true
      },
    }
    const { keys, skipped } = await scanned({ filter })
    assert.deepEqual(keys, ['a-b', 'b'])
    assert.deepEqual(
      skipped.map(({ path, reason }) => [path, reason]),
      [['a', 'vanished']],
    )
  })

  test('an excluded directory is not entered, and nothing below it is asked about', async () => {
    for (const path of ['a/b', 'c/d/e', 'f']) make(path)
    const asked: string[] = []
    const filter = {
      admits: (path: string, isDirectory: boolean): boolean => {
        asked.push(isDirectory ? `${path}/` : path)
        return path !== 'c'
      },
    }
    assert.deepEqual((await scanned({ filter })).keys, ['a/', 'a/b', 'f'])
    assert.deepEqual(asked.toSorted(), ['a/', 'a/b', 'c/', 'f'])
  })

  test('what a filter throws ends the scan and is never taken for an unreadable directory', async () => {
    make('d/file')
    const before = openFiles()
    for (const thrown of [
      new OperationError('INPUT_INVALID', 'no'),
      Object.assign(new Error('no'), { code: 'EACCES' }),
    ]) {
      const filter = {
        admits: (path: string): boolean => {
          if (path === 'd/file') throw thrown
          return true
        },
      }
      await assert.rejects(scanned({ filter }), (error: unknown) => error === thrown)
    }
    assert.equal(openFiles(), before)
  })

  test('a process that may open no more files cannot scan, rather than find directories unreadable', () => {
    for (let index = 0; index < 40; index++) make(`${'d/'.repeat(index + 1)}file`)
    const program = `
      import { Scan } from ${JSON.stringify(new URL('scan.ts', import.meta.url).href)}
      let count = 0
      try {
        for await (const page of new Scan(process.argv[1], { pageEntries: 1 })) count += page.length
        console.log('listed', count)
      } catch (error) {
        console.log(error.code, error.message)
      }`
    // Node raises a soft limit to the hard one, so it is the hard one that is set.
    const shell = 'ulimit -n 48; exec "$0" --input-type=module-typescript -e "$1" "$2"'
    const said = execFileSync('sh', ['-c', shell, process.execPath, program, root], {
      encoding: 'utf8',
      timeout: 60_000,
    })
    assert.match(said, /^LOCAL_FAILED Cannot scan .*EMFILE/)
  })

  test('a subtree alone is listed by the paths of the whole tree; one that is gone is told', async () => {
    for (const path of ['a/b/c', 'a/b/d/e', 'a/x', 'b']) make(path)
    symlinkSync('a', join(root, 'link'))
    assert.deepEqual((await scanned({ under: 'a/b' })).keys, ['a/b/c', 'a/b/d/', 'a/b/d/e'])
    for (const under of ['a/none', 'link/b', 'b']) {
      const { keys, skipped } = await scanned({ under })
      assert.deepEqual(keys, [])
      assert.deepEqual(
        skipped.map(({ path, reason }) => [path, reason]),
        [[under, 'vanished']],
      )
    }
  })

  test('another file system below the root is entered, unless only one is wanted: then absence there proves nothing', async (t) => {
    if (!isRoot) return t.skip('takes root, who can mount')
    make('inner/')
    const inner = join(root, 'inner')
    execFileSync('mount', ['-t', 'tmpfs', 'tmpfs', inner], { timeout: 10_000 })
    try {
      make('inner/file')
      assert.notEqual(statSync(inner).dev, statSync(root).dev)
      assert.deepEqual((await scanned()).keys, ['inner/', 'inner/file'])
      const { keys, skipped, scan } = await scanned({ oneFileSystem: true })
      assert.deepEqual(keys, ['inner/'])
      assert.deepEqual(
        skipped.map(({ reason }) => reason),
        ['other-file-system'],
      )
      assert.equal(scan.provesAbsence('inner/file'), false)
    } finally {
      execFileSync('umount', [inner], { timeout: 10_000 })
    }
  })

  test('a tree 200 deep takes at most 64 open directories and a few, and leaves none open, also when it is given up', async () => {
    make(`${Array.from({ length: 200 }, (_, level) => `d${level}`).join('/')}/file`)
    make('d0/zzz')
    const before = openFiles()
    let most = 0
    const keys: string[] = []
    for await (const page of new Scan(root, { pageEntries: 1 })) {
      most = Math.max(most, openFiles())
      keys.push(...page.map(sortKey))
    }
    assert.equal(keys.length, 202)
    assert.equal(keys.at(-1), 'd0/zzz')
    assert.ok(most - before <= 66, `${most - before} were open`)
    assert.equal(openFiles(), before)
    for await (const page of new Scan(root, { pageEntries: 100 })) {
      assert.ok(page.length > 0)
      break
    }
    assert.equal(openFiles(), before)
  })

  test('the event loop runs during a scan of many files, and a signal ends it', async () => {
    for (let index = 0; index < 6000; index++) make(`${index % 50}/${index}`)
    let turns = 0
    let isOver = false
    const turn = (): void => {
      turns++
      if (!isOver) setImmediate(turn)
    }
    setImmediate(turn)
    const { keys } = await scanned()
    isOver = true
    assert.equal(keys.length, 6050)
    assert.ok(turns > 1, `it ran ${turns} times`)
    const stop = new AbortController()
    const before = openFiles()
    await assert.rejects(
      async () => {
        for await (const page of new Scan(root, { signal: stop.signal, pageEntries: 10 })) {
          assert.ok(page.length > 0)
          stop.abort()
        }
      },
      (error: unknown) => isOperationError(error, 'ABORTED'),
    )
    assert.equal(openFiles(), before)
  })
})
