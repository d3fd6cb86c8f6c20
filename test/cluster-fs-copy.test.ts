/** `eider fs cp` and `cat`: trees there and back, standard input of any length, and the bytes where blocks are damaged or disks are full. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import {
  chmodSync,
  closeSync,
  ftruncateSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  openSync,
  readFileSync,
  readSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { test } from 'node:test'

import { ClusterClient } from '#cluster/client/cluster-client.ts'
import { ClusterFiles } from '#cluster/client/cluster-files.ts'
import { ROOT_INODE } from '#cluster/inode-id.ts'
import { systemSurroundings } from '#cluster/system-surroundings.ts'
import { EMPTY_POLICY } from '#cluster/wire/forms.ts'

import { eider, type Outcome, startEider } from './eider-process.ts'
import { TestCluster } from './servers/cluster.ts'

const MIB = 2 ** 20

async function done(cluster: TestCluster, ...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await cluster.fs(...args)
  assert.equal(code, 0, `${args.join(' ')}: ${stderr}`)
  return stdout
}

/** Everything below a directory that a copy has to keep, as lines. */
function described(root: string): string[] {
  const paths = readdirSync(root, { recursive: true, encoding: 'utf8' }).toSorted()
  return ['', ...paths].map((path) => {
    const full = join(root, path)
    const { mode, mtimeNs, size } = lstatSync(full, { bigint: true })
    const stats = lstatSync(full)
    const what = stats.isSymbolicLink()
      ? `-> ${readlinkSync(full)}`
      : stats.isFile()
        ? `${size} ${createHash('sha256').update(readFileSync(full)).digest('hex')}`
        : 'directory'
    return `${path} ${mode.toString(8)} ${mtimeNs / 1000n} ${what}`
  })
}

/** A tree with what trees have: small and large files, empty ones, links, odd names, modes, times. */
function makeTree(root: string): void {
  mkdirSync(join(root, 'sub', 'deep'), { recursive: true })
  mkdirSync(join(root, 'empty directory'))
  writeFileSync(join(root, 'empty'), '')
  writeFileSync(join(root, 'small'), 'hello')
  writeFileSync(join(root, 'sub', 'large'), randomBytes(5 * MIB + 17))
  writeFileSync(join(root, 'sub', 'a\nb'), randomBytes(5000))
  for (let index = 0; index < 200; index++) writeFileSync(join(root, 'sub', 'deep', `file ${index}`), `${index}`)
  symlinkSync('../small', join(root, 'sub', 'link'))
  symlinkSync('/nowhere', join(root, 'dangling'))
  chmodSync(join(root, 'small'), 0o4711)
  chmodSync(join(root, 'sub', 'deep'), 0o500)
  utimesSync(join(root, 'small'), 1, 981_173_106.789)
  utimesSync(join(root, 'sub'), 1, 981_173_107)
}

/** Runs it with bytes on standard input, and tells how much memory it took at most. */
async function fed(
  cluster: TestCluster,
  bytes: number,
  ...args: string[]
): Promise<Outcome & { readonly peakBytes: number }> {
  const python = [
    'import resource, subprocess, sys',
    "feed = subprocess.Popen(['sh', '-c', 'seq 1000000000 | head -c \"$1\"', 'sh', sys.argv[1]], stdout=subprocess.PIPE)",
    'run = subprocess.run(sys.argv[2:], stdin=feed.stdout)',
    "print('peak', resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)",
    'sys.exit(run.returncode)',
  ].join('\n')
  const outcome = await eider(['fs', ...args], {
    env: { EIDER_REGISTRY: cluster.registry },
    through: ['python3', '-c', python, String(bytes)],
  })
  return { ...outcome, peakBytes: Number(/^peak (\d+)$/m.exec(outcome.stderr)?.[1]) * 1024 }
}

test('a tree goes into the cluster and comes back the same, and within it, too', async () => {
  await using cluster = await TestCluster.start()
  const tree = join(cluster.directory, 'tree')
  makeTree(tree)
  await done(cluster, 'cp', '-r', 'tree', ':/tree')
  await done(cluster, 'cp', '-r', ':/tree', ':/other')
  await done(cluster, 'cp', '-r', ':/other', 'back')
  assert.deepEqual(described(join(cluster.directory, 'back')), described(tree))
  // Into a directory that is there, and again over what is there, with one file changed.
  writeFileSync(join(tree, 'small'), 'changed')
  await done(cluster, 'mkdir', '/into')
  await done(cluster, 'cp', '-r', 'tree', ':/into')
  await done(cluster, 'cp', '-r', 'tree/.', ':/tree')
  assert.equal(await done(cluster, 'cat', '/into/tree/small', '/tree/small'), 'changedchanged')
  assert.equal(await done(cluster, 'ls', '/into'), 'tree\n')
  const refused = await cluster.fs('cp', '-r', ':/tree', ':/tree/sub')
  assert.equal(refused.code, 1)
  assert.match(refused.stderr, /which lies within it/)
})

test('what cannot be copied is told by name, and all else is copied', async () => {
  await using cluster = await TestCluster.start({ disks: 1 })
  const tree = join(cluster.directory, 'tree')
  mkdirSync(tree)
  execFileSync('mkfifo', [join(tree, 'fifo')])
  writeFileSync(Buffer.concat([Buffer.from(`${tree}/bad`), Buffer.from([0xff])]), 'x')
  writeFileSync(join(tree, 'good'), 'good')
  const { code, stdout, stderr } = await cluster.fs('cp', '-r', 'tree', ':/tree', '--json')
  assert.equal(code, 3)
  assert.deepEqual(JSON.parse(stdout), { files: 1, symlinks: 0, directories: 1, bytes: 4, failed: 2 })
  assert.match(stderr, /"[^"]*\/tree\/fifo": it is no file, directory or symlink/)
  assert.match(stderr, /"badÿ" of "[^"]*\/tree": its name is no UTF-8/)
  assert.equal(await done(cluster, 'ls', '/tree'), 'good\n')
  for (const [args, expected] of [
    [['cp', 'tree', ':/x'], /With --recursive/],
    [['cp', 'none', ':/x'], /ENOENT/],
    [['cp', ':/none', 'x'], /there is no "none"/],
    [['cp', 'a', 'b'], /Paths of the cluster have a colon/],
    [['cp', 'tree/good', ':/missing/x'], /there is no "missing"/],
    [['cp', '-', ':/tree'], /it is a directory/],
    [['cp', '-', ':/missing/'], /there is no such directory/],
    [['cp', 'tree/good', ':/missing/'], /there is no such directory/],
    [['cp', 'tree/good', 'tree/fifo', ':/tree/good'], /it is no directory/],
    [['cp', ':/tree/good', ''], /a path has at least one character/],
    [['cp', '-r', '', ':/x'], /a path has at least one character/],
  ] as const) {
    const outcome = await cluster.fs(...args)
    assert.notEqual(outcome.code, 0, args.join(' '))
    assert.match(outcome.stderr, expected)
  }
})

test('of several sources those that can be copied are, and no two to one name', async () => {
  await using cluster = await TestCluster.start({ disks: 1 })
  for (const name of ['a', 'b']) {
    mkdirSync(join(cluster.directory, name))
    writeFileSync(join(cluster.directory, name, 'same'), name)
  }
  await done(cluster, 'cp', '-r', 'a', ':/new/')
  assert.equal(await done(cluster, 'cat', '/new/same'), 'a', 'a directory may be told by its slash before it is there')
  const { code, stdout, stderr } = await cluster.fs('cp', '-r', 'none', 'a/same', 'b/same', 'b', ':/new', '--json')
  assert.equal(code, 3)
  assert.deepEqual(JSON.parse(stdout), { files: 2, symlinks: 0, directories: 1, bytes: 2, failed: 2 })
  assert.match(stderr, /Cannot read "[^"]*\/none": ENOENT/)
  assert.match(stderr, /Cannot copy b\/same: .* twice: another source of that name went there/)
  assert.equal(await done(cluster, 'cat', '/new/same', '/new/b/same'), 'ab')
})

test('holes stay holes, on their way in, within and out', async () => {
  await using cluster = await TestCluster.start()
  const tebibyte = 2 ** 40
  const path = join(cluster.directory, 'sparse')
  const content = randomBytes(3 * MIB)
  const fd = openSync(path, 'w')
  writeSync(fd, content, 0, content.length, tebibyte / 2)
  ftruncateSync(fd, tebibyte)
  closeSync(fd)
  await done(cluster, 'cp', 'sparse', ':/sparse')
  await done(cluster, 'cp', ':/sparse', ':/again')
  await done(cluster, 'cp', ':/again', 'back')
  const back = join(cluster.directory, 'back')
  const stats = statSync(back)
  assert.equal(stats.size, tebibyte)
  assert.ok(stats.blocks * 512 < 4 * MIB, 'nothing else is stored')
  const read = Buffer.alloc(content.length)
  const from = openSync(back, 'r')
  readSync(from, read, 0, read.length, tebibyte / 2)
  closeSync(from)
  assert.ok(read.equals(content))
  const [physical] = (await done(cluster, 'du', '--physical', '/again', '--json')).trimEnd().split('\n')
  const { bytes } = JSON.parse(physical ?? '') as { bytes: number }
  assert.ok(bytes < 8 * MIB, `${bytes} bytes on disks`)
})

test('a symlink that ends with a slash is the directory that it leads to, on both sides', async () => {
  await using cluster = await TestCluster.start({ disks: 1 })
  const path = (name: string): string => join(cluster.directory, name)
  mkdirSync(path('real'))
  writeFileSync(join(path('real'), 'file'), 'x')
  symlinkSync('real', path('link'))
  await done(cluster, 'cp', '-r', 'link', ':/as-link')
  await done(cluster, 'cp', '-r', 'link/', ':/as-directory')
  assert.equal(await done(cluster, 'cat', '/as-directory/file'), 'x')
  assert.match(await done(cluster, 'stat', '/as-link'), /^type=SYMLINK$/m)
  await done(cluster, 'cp', ':/as-directory/file', 'link')
  assert.ok(lstatSync(path('link')).isSymbolicLink(), 'what is copied goes into the directory, and not in its place')
  const refused = await cluster.fs('cp', 'real/file/', ':/file')
  assert.equal(refused.code, 1)
  assert.match(refused.stderr, /ENOTDIR/)
})

test('standard input of any length takes bounded memory, and comes back through a pipe', async () => {
  await using cluster = await TestCluster.start()
  const bytes = Number(process.env['EIDER_TEST_STDIN_BYTES'] ?? 320 * MIB)
  const written = await fed(cluster, bytes, 'cp', '-', ':/piped')
  assert.equal(written.code, 0, written.stderr)
  assert.ok(written.peakBytes < 256 * MIB, `${written.peakBytes} bytes at most`)
  assert.match(await done(cluster, 'stat', '/piped'), new RegExp(`^size=${bytes}$`, 'm'))
  const read = await eider(['fs', 'cat', '/piped'], {
    env: { EIDER_REGISTRY: cluster.registry },
    through: ['bash', '-c', 'cmp <("$@") <(seq 1000000000 | head -c "$0") && echo same', String(bytes)],
  })
  assert.deepEqual([read.stdout, read.stderr], ['same\n', ''])
})

test('a copy that is interrupted ends at once, and nothing has its name', async () => {
  await using cluster = await TestCluster.start({ disks: 1 })
  const copying = startEider(['fs', 'cp', '-', ':/endless'], {
    env: { EIDER_REGISTRY: cluster.registry },
    through: ['bash', '-c', 'exec "$@" < <(yes)', 'bash'],
  })
  while ((await done(cluster, 'visit_eden')) === '') assert.equal(copying.child.exitCode, null)
  copying.child.kill('SIGINT')
  assert.equal(await copying.ended, 1)
  assert.match(copying.stderr, /^eider: Cannot finish: SIGINT received\n {2}hint: .*no file is half written/m)
  assert.equal(await done(cluster, 'ls', '/'), '')
})

const DAMAGES: Readonly<Record<string, (path: string) => void>> = {
  deleted: (path) => unlinkSync(path),
  cut: (path) => truncateSync(path, Math.floor(statSync(path).size / 2)),
  flipped: (path) => {
    const content = readFileSync(path)
    content.writeUInt8(content.readUInt8(100) ^ 4, 100)
    writeFileSync(path, content)
  },
}

/** The files of the blocks of each span. */
async function blockFiles(cluster: TestCluster, path: string): Promise<string[][]> {
  const files = new Map(
    cluster.disks.flatMap((_, disk) => cluster.blockFiles(disk).map((file) => [basename(file), file])),
  )
  const lines = (await done(cluster, 'locations', path, '--json')).trimEnd().split('\n')
  return lines.map((line) => {
    const { blocks } = JSON.parse(line) as { blocks: { block: string }[] }
    return blocks.map(({ block }) => files.get(block) ?? '')
  })
}

for (const [disks, policy, parity] of [
  [6, 'spans=1MiB:4+2', 2],
  [3, 'spans=1MiB:1+2', 2],
] as const) {
  test(`with ${policy} cat is right while any ${parity} blocks of every span are damaged, and names the file beyond that`, async () => {
    await using cluster = await TestCluster.start({ disks })
    await done(cluster, 'policy', 'set', '/', policy)
    const content = randomBytes(2.5 * MIB)
    writeFileSync(join(cluster.directory, 'content'), content)
    for (const [name, damage] of Object.entries(DAMAGES)) {
      await done(cluster, 'cp', 'content', `:/${name}`)
      const spans = await blockFiles(cluster, `/${name}`)
      assert.equal(spans.length, 3)
      // Others of each span: data of the first, data and parity of the next.
      for (const [index, files] of spans.entries()) {
        for (let bad = 0; bad < parity; bad++) damage(files[(index + bad * 2) % files.length] ?? '')
      }
      await done(cluster, 'cp', `:/${name}`, 'read')
      assert.ok(readFileSync(join(cluster.directory, 'read')).equals(content), name)
    }
    const last = (await blockFiles(cluster, '/flipped'))[1] ?? []
    for (const file of last) if (file !== '') DAMAGES['cut']?.(file)
    const { code, stderr } = await cluster.fs('cat', '/flipped')
    assert.equal(code, 1)
    assert.match(stderr, /^eider: Cannot read "\/flipped": Cannot read the span at 1048576 of 0x\w+: /)
    const copied = await cluster.fs('cp', ':/flipped', 'beyond', '--json')
    assert.equal(copied.code, 1)
    const none = { files: 0, symlinks: 0, directories: 0, bytes: 0, failed: 1 }
    assert.deepEqual(JSON.parse(copied.stdout), none, 'what was read before it failed is no part of the result')
    assert.ok(!readdirSync(cluster.directory).some((name) => name.includes('beyond')), 'no part of it is left')
  })
}

test('spans that are less redundant than the policy says are written all the same, and said aloud', async () => {
  await using cluster = await TestCluster.start({ disks: 3 })
  await done(cluster, 'policy', 'set', '/', 'spans=1MiB:4+2')
  writeFileSync(join(cluster.directory, 'content'), randomBytes(2 * MIB))
  const { code, stderr } = await cluster.fs('cp', 'content', ':/content')
  assert.equal(code, 0)
  // Once, though there are two spans.
  assert.match(stderr, /^warning: too few failure domains take blocks: what is written is kept as 3 copies[^\n]*\n$/)
  const spans = (await done(cluster, 'locations', '/content')).split('\n').filter((line) => /^\d/.test(line))
  assert.deepEqual(
    spans.map((line) => line.replace(/^.* bytes, /, '')),
    ['mirrored 1+2, class 2', 'mirrored 1+2, class 2'],
  )
})

test('blocks of an unfinished file are too young to be erased, and that is said', async () => {
  await using cluster = await TestCluster.start({ disks: 1 })
  const client = await ClusterClient.connect({ surroundings: systemSurroundings(), registry: cluster.registry })
  const attributes = { mode: 0o644, uid: 0, gid: 0, mtime: undefined, atime: undefined }
  const policy = { ...EMPTY_POLICY, spans: [{ bytesMax: 65_536, data: 1, parity: 0 }] }
  const source = async function* (): AsyncGenerator<Uint8Array> {
    yield randomBytes(300_000)
    throw new Error('the source has failed')
  }
  const file = { directory: ROOT_INODE, name: 'never', attributes, policy }
  try {
    await assert.rejects(new ClusterFiles(client).write(file, source()), /the source has failed/)
  } finally {
    client.close()
  }
  const inode = (await done(cluster, 'visit_eden')).split(' ')[0] ?? ''
  for (const verb of ['expunge_span', 'expunge_file']) {
    const { code, stderr } = await cluster.fs(verb, inode)
    assert.equal(code, 1)
    assert.match(
      stderr,
      /^eider: Cannot erase block [0-9a-f]{14}: .*\n {2}hint: Blocks are erased once they are an hour old/,
    )
  }
  assert.equal((await done(cluster, 'visit_eden')).split(' ')[0], inode, 'nothing is forgotten that is still on a disk')
  assert.equal(await done(cluster, 'ls', '/'), '')
})

const skip = process.getuid?.() === 0 ? false : 'mounting small disks needs root'

/** Disks with so little room that they are full at once. */
class SmallDisks implements Disposable {
  readonly paths: readonly string[]
  readonly #root: string

  constructor(count: number, bytes: number) {
    this.#root = mkdtempSync(join(tmpdir(), 'eider-small-'))
    this.paths = Array.from({ length: count }, (_, index) => join(this.#root, `disk${index}`))
    for (const path of this.paths) {
      mkdirSync(path)
      execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${bytes}`, 'tmpfs', path])
    }
  }

  [Symbol.dispose](): void {
    for (const path of this.paths) execFileSync('umount', ['-l', path])
    rmSync(this.#root, { recursive: true, force: true })
  }
}

test('all disks full: no room is said, what did not fit is not there, and deletes still work', { skip }, async () => {
  using small = new SmallDisks(3, 12 * MIB)
  await using cluster = await TestCluster.start({ disks: small.paths })
  const content = randomBytes(3 * MIB)
  writeFileSync(join(cluster.directory, 'content'), content)
  const stored: string[] = []
  let refused: Outcome | undefined
  for (let index = 0; refused === undefined; index++) {
    assert.ok(index < 40, 'the disks are full at last')
    const outcome = await cluster.fs('cp', 'content', `:/file${index}`)
    if (outcome.code === 0) stored.push(`file${index}`)
    else refused = outcome
  }
  assert.ok(stored.length >= 2)
  assert.match(refused.stderr, /left beyond the reserve|takes blocks|can be written to/)
  assert.match(refused.stderr, /hint: .*(?:add disks|Add disks)/)
  assert.equal(await done(cluster, 'ls', '/'), `${stored.toSorted().join('\n')}\n`)
  await done(cluster, 'cp', `:/${stored[0]}`, 'read')
  assert.ok(readFileSync(join(cluster.directory, 'read')).equals(content))
  await done(cluster, 'rm', `/${stored[1]}`)
  await done(cluster, 'mkdir', '/directories-need-no-disk')
  assert.equal((await done(cluster, 'ls', '/')).split('\n').includes(stored[1] ?? ''), false)
})
