/** The verbs of `eider fs` about names, attributes and history, as a user sees them: what they print, their JSON, odd names, and what they say of failures. */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'

import { eider } from './eider-process.ts'
import { freePorts } from './servers/free-port.ts'
import { TestCluster } from './servers/cluster.ts'

const INODE = /^0x[0-9a-f]{16}$/
let cluster: TestCluster

before(async () => {
  cluster = await TestCluster.start({ disks: 1 })
})
after(() => cluster[Symbol.asyncDispose]())

async function done(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await cluster.fs(...args)
  assert.equal(code, 0, `${args.join(' ')}: ${stderr}`)
  return stdout
}

/** What a verb prints with `--json`, line by line. */
async function json(...args: string[]): Promise<Record<string, unknown>[]> {
  const text = await done(...args, '--json')
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Record<string, unknown>)
}

/** What a verb complains of, and its exit code. */
async function failed(code: number, ...args: string[]): Promise<string> {
  const outcome = await cluster.fs(...args)
  assert.equal(outcome.code, code, `${args.join(' ')}: ${outcome.stdout}${outcome.stderr}`)
  assert.match(outcome.stderr, /^eider: Cannot /m)
  return outcome.stderr
}

/** Makes a file of the cluster with these bytes. */
async function put(path: string, bytes: string | Buffer): Promise<void> {
  const local = join(cluster.directory, 'put')
  writeFileSync(local, bytes)
  await done('cp', local, `:${path}`)
}

test('names are kept as they are, whatever is in them, and listed in order of bytes', async () => {
  const names = ['-dash', ' space ', 'a\nb', '[deleted]', '*', 'ü', '\u{1f600}', 'x'.repeat(255)]
  await done('mkdir', '/names')
  await done('mkdir', '--', ...names.map((name) => `/names/${name}`))
  const listed = await json('ls', '/names')
  const inOrder = names.toSorted((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)))
  assert.deepEqual(
    listed.map(({ name }) => name),
    inOrder,
  )
  assert.deepEqual(
    (await json('find', '/names', '--name', '?')).map(({ path }) => path),
    ['/names/*', '/names/ü', '/names/\u{1f600}'],
  )
  assert.match(await failed(1, 'mkdir', `/names/${'x'.repeat(256)}`), /255 bytes/)
  assert.match(
    await failed(1, 'ls', `/${'x'.repeat(100_000)}/y`),
    /^eider: Cannot use "x{40}…" as a name: it has 100000 bytes\n/,
  )
  await done('rm', '-r', '/names')
  assert.equal(await done('find', '/', '--name', 'names'), '')
})

test('mkdir makes parents on demand, and otherwise says what is missing or there', async () => {
  assert.match(await failed(1, 'mkdir', '/p/q/r'), /its parent is missing\n {2}hint: With --parents/)
  const made = await done('mkdir', '-p', '/p/q/r')
  assert.equal(await done('mkdir', '-p', '/p/q/r'), made)
  assert.match(await failed(1, 'mkdir', '/p/q'), /something of that name is there already/)
  assert.match(await failed(3, 'mkdir', '/p/q', '/p/new'), /"\/p\/q"/)
  assert.equal(await done('ls', '/p'), 'new\nq\n')
  assert.match(await failed(1, 'rmdir', '/p'), /Cannot remove directory "\/p": /)
  assert.match(await failed(1, 'rmdir', '/'), /Cannot remove the root/)
})

test('mv moves into directories, replaces files, and refuses what would make a loop', async () => {
  await done('mkdir', '-p', '/mv/into', '/mv/tree/deep')
  await put('/mv/one', 'one')
  await put('/mv/two', 'two')
  await done('mv', '/mv/one', '/mv/two', '/mv/into')
  assert.equal(await done('ls', '/mv/into'), 'one\ntwo\n')
  await done('mv', '/mv/into/one', '/mv/into/two')
  assert.equal(await done('cat', '/mv/into/two'), 'one')
  assert.match(await failed(1, 'mv', '/mv/tree', '/mv/tree/deep'), /Cannot move "\/mv\/tree" to "\/mv\/tree\/deep": /)
  assert.match(await failed(1, 'mv', '/mv/into', '/mv/tree', '/mv/into/two'), /it is no directory/)
  assert.match(await failed(1, 'mv', '/mv/none', '/mv/tree'), /there is no "none"/)
})

test('stat and ls -l show attributes; chmod, chown and ln change and make what they say', async () => {
  await done('mkdir', '/attributes')
  await put('/attributes/file', 'x')
  await done('chmod', '0640', '/attributes/file')
  await done('chmod', 'u+x,g=u,o+t', '/attributes/file')
  await done('chown', '12:34', '/attributes/file')
  assert.match(await done('ln', '-s', '../else where', '/attributes/link'), /^0x/)
  const [file] = await json('stat', '/attributes/file')
  assert.deepEqual(
    [file?.['mode'], file?.['uid'], file?.['gid'], file?.['size'], file?.['type']],
    ['1770', 12, 34, 1, 'file'],
  )
  const lines = (await done('ls', '-l', '/attributes')).split('\n')
  assert.match(lines[0] ?? '', /^-rwxrwx--T +12 +34 +1 \d{4}-\d\d-\d\d \d\d:\d\d file$/)
  assert.match(lines[1] ?? '', /^lrwxrwxrwx .* link -> \.\.\/else where$/)
  assert.equal((await json('stat', '/attributes/link'))[0]?.['target'], '../else where')
  assert.match(
    await failed(1, 'ln', '-s', 'x', '/attributes/link'),
    /Cannot make symlink "\/attributes\/link": something of that name is there already\n {2}hint: With --force/,
  )
  assert.match(await failed(2, 'ln', 'x', '/attributes/hard'), /symlinks only/)
  assert.match(await failed(2, 'chmod', '999', '/attributes/file'), /as a mode/)
  assert.match(await failed(1, 'rm', '/attributes'), /is a directory/)
})

test('each verb that changes something says so in JSON, a line for each path', async () => {
  await done('mkdir', '-p', '/json/into')
  await put('/json/one', '1')
  await put('/json/two', '2')
  const inodeOf = async (path: string): Promise<string> => (await done('resolve', path)).trim()
  const [one, two, top] = [await inodeOf('/json/one'), await inodeOf('/json/two'), await inodeOf('/json')]
  assert.deepEqual(await json('chmod', 'u=rw,go=', '/json/one', '/json/two'), [
    { path: '/json/one', inode: one, mode: '0600' },
    { path: '/json/two', inode: two, mode: '0600' },
  ])
  assert.deepEqual(await json('chown', ':7', '/json/one'), [{ path: '/json/one', inode: one, gid: 7 }])
  const attribute = { path: '/json/one', inode: one, name: 'user.a' }
  assert.deepEqual(await json('xattr', 'set', '/json/one', 'user.a', 'b'), [{ ...attribute, value: 'b' }])
  assert.deepEqual(await json('xattr', 'remove', '/json/one', 'user.a'), [attribute])
  const policy = { history: { versions: 3 } }
  assert.deepEqual(await json('policy', 'set', '/json', 'history.versions=3'), [{ path: '/json', inode: top, policy }])
  // Where it is now, whether the target was a directory or a new name.
  const moved = [
    ...(await json('mv', '/json/one', '/json/two', '/json/into')),
    ...(await json('mv', '/json/into/one', '/json/x')),
  ]
  assert.deepEqual(
    moved.map(({ from, to, inode }) => [from, to, inode]),
    [
      ['/json/one', '/json/into/one', one],
      ['/json/two', '/json/into/two', two],
      ['/json/into/one', '/json/x', one],
    ],
  )
  assert.equal((await json('ln', '-s', '../y', '/json/into'))[0]?.['path'], '/json/into/y')
})

test('".." is refused in every path, with nothing done; "." is nothing in one', async () => {
  await done('mkdir', '/dots')
  await put('/dots/file', 'x')
  for (const args of [
    ['ls', '/dots/..'],
    ['mkdir', '/dots/../made'],
    ['mkdir', '-p', '/dots/../made'],
    ['rm', '-r', '/dots/../dots'],
    ['mv', '/dots/file', '/dots/../made'],
    ['cp', ':/dots/../dots/file', 'out'],
    ['cp', '-r', ':/dots', ':/dots/../made'],
    ['find', '/dots/..'],
    ['history', '/dots/../dots/file'],
    ['policy', 'get', '/dots/..'],
    ['create_test_file', '/dots/../made'],
  ]) {
    assert.match(await failed(2, ...args), /^eider: Cannot use "\/dots\/\.\.[^"]*": "\.\." is no name in a path/)
  }
  assert.equal(await done('ls', '/dots/.'), 'file\n')
  assert.equal(await done('cat', '/./dots/./file'), 'x')
  assert.equal(await done('find', '/', '--name', 'made'), '')
})

test('a time that is still to come is told to be, and one before there was anything shows nothing', async () => {
  await done('mkdir', '-p', '/times/a')
  const { code, stdout, stderr } = await cluster.fs('ls', '/times', '--as-of', '9007199254740991')
  assert.deepEqual([code, stdout], [0, 'a\n'])
  assert.match(stderr, /^warning: 2255-06-05T[^ ]* is still to come: /)
  assert.equal((await cluster.fs('ls', '/times', '--as-of', 'now')).stderr, '')
  for (const long of ['0', '1969-07-20']) {
    assert.match(await failed(1, 'ls', '/times', '--as-of', long), /as of 0: there is no "times"/)
  }
  assert.match(await failed(2, 'ls', '/times', '--as-of', '9007199254740992'), /as a time/)
})

test('extended attributes are set, shown, listed and removed', async () => {
  await put('/attributed', 'x')
  await done('xattr', 'set', '/attributed', 'user.colour', 'blue')
  await done('xattr', 'set', '/attributed', 'user.empty', '')
  assert.equal(await done('xattr', 'get', '/attributed', 'user.colour'), 'blue')
  assert.deepEqual(await json('xattr', 'list', '/attributed'), [
    { name: 'user.colour', value: 'blue' },
    { name: 'user.empty', value: '' },
  ])
  await done('xattr', 'remove', '/attributed', 'user.colour')
  assert.match(await failed(1, 'xattr', 'get', '/attributed', 'user.colour'), /has none of that name/)
  assert.match(await failed(2, 'xattr', 'get', '/attributed'), /get PATH NAME/)
})

test('a policy is inherited, shown with where it comes from, changed in parts and taken back', async () => {
  await done('mkdir', '-p', '/policy/under')
  await done('policy', 'set', '/policy', 'history.age=30d', 'spans=64KiB:1+1,2MiB:2+1', 'inline=0')
  await done('policy', 'set', '/policy/under', 'history.versions=3', 'stripe=8KiB')
  const shown = await done('policy', 'get', '/policy/under')
  assert.deepEqual(shown.trimEnd().split('\n'), [
    'history.age=30d  (from /policy)',
    'history.versions=3',
    'spans=64KiB:1+1,2MiB:2+1  (from /policy)',
    'classes  (default)',
    'stripe=8KiB',
    'inline=0B  (from /policy)',
  ])
  await done('policy', 'set', '/policy', 'history.age=', 'inline=')
  assert.deepEqual((await json('policy', 'get', '/policy'))[0], { name: 'history.age', value: null, from: null })
  assert.match(await failed(2, 'policy', 'set', '/policy', 'spans=64KiB'), /SIZE:DATA\+PARITY/)
  assert.match(await failed(2, 'policy', 'set', '/policy', 'colour=blue'), /One of history\.age=…/)
  assert.match(await failed(1, 'policy', 'set', '/policy', 'spans=2MiB:2+1,1MiB:2+1'), /sizes of spans ascend/)
})

test('history tells every version of a name, undelete brings one back, and nothing is lost by bringing it back', async () => {
  await done('mkdir', '/history')
  for (const content of ['first', 'second!']) await put('/history/file', content)
  await done('rm', '/history/file')
  const versions = await json('history', '/history/file')
  assert.deepEqual(
    versions.map(({ size, state, end }) => [size, state, String(end).replace(/0x\w+/, 'X')]),
    [
      [5, 'owned', 'replaced by X'],
      [7, 'owned', 'removed'],
    ],
  )
  const [first, second] = versions
  assert.equal(first?.['until'], second?.['created'])
  assert.equal(await done('cat', '/history/file', '--as-of', String(first?.['created'])), 'first')
  assert.match(await failed(1, 'cat', '/history/file'), /there is no "file"/)
  await done('undelete', '/history/file')
  assert.equal(await done('cat', '/history/file'), 'second!')
  assert.match(await failed(1, 'undelete', '/history/file'), /Cannot undelete "\/history\/file"/)
  await done('undelete', '/history/file', '--at', String(first?.['created']), '--to', 'older')
  assert.equal(await done('cat', '/history/older'), 'first')
  assert.match(await failed(1, 'undelete', '/history/never'), /has no version of it/)
  assert.match(await failed(1, 'history', '/history/never'), /no history either/)
  assert.match(await failed(2, 'ls', '/history', '--as-of', 'yesterday-ish'), /A time is microseconds/)
})

test('a removed tree is found in the history, and copied out of it', async () => {
  await done('mkdir', '-p', '/removed/deep')
  await put('/removed/deep/file', 'kept')
  const [file] = await json('history', '/removed/deep/file')
  const time = String(file?.['created'])
  await done('rm', '-r', '/removed')
  assert.match(
    await failed(1, 'undelete', '/removed'),
    /it was a directory\n {2}hint: To copy what was there: eider fs cp/,
  )
  assert.equal((await json('history', '/removed/deep/file'))[0]?.['end'], 'removed')
  assert.equal(await done('find', '/removed', '--as-of', time), '/removed\n/removed/deep\n/removed/deep/file\n')
  await done('cp', '-r', '--as-of', time, ':/removed', ':/restored')
  assert.equal(await done('cat', '/restored/deep/file'), 'kept')
})

test('several who remove the same tree are no failure of each other', async () => {
  await done('mkdir', '-p', '/race/a/b/c', '/race/d/e', '/race/f')
  for (const path of ['/race/one', '/race/a/b/two', '/race/d/three']) await put(path, 'x')
  const outcomes = await Promise.all([0, 1, 2].map(() => cluster.fs('rm', '-r', '/race')))
  for (const { code, stderr } of outcomes) {
    // One may come when all of it is gone, and only then.
    if (code !== 0) assert.match(stderr, /^eider: Cannot (?:find|remove) "\/race"[^\n]*\n[^\n]*\n$/)
  }
  assert.ok(outcomes.some(({ code }) => code === 0))
  assert.match(await failed(1, 'ls', '/race'), /there is no "race"/)
})

test('find and du look at the whole tree', async () => {
  await done('mkdir', '-p', '/sizes/a/b', '/sizes/empty')
  await put('/sizes/small', 'x'.repeat(100))
  await put('/sizes/a/b/large', randomBytes(300_000))
  await done('ln', '-s', 'small', '/sizes/link')
  assert.equal(await done('find', '/sizes', '--type', 'f', '--min-size', '1KB'), '/sizes/a/b/large\n')
  assert.equal(await done('find', '/sizes', '--type', 'd', '--name', '[ab]'), '/sizes/a\n/sizes/a/b\n')
  assert.equal(await done('find', '/sizes', '--type', 'f', '--older-than', '1h'), '')
  assert.equal(await done('find', '/sizes', '--type', 'l'), '/sizes/link\n')
  const sums = await json('du', '/sizes')
  assert.deepEqual(
    sums.map(({ path, bytes }) => [path, bytes]),
    [
      ['/sizes/a/b', 300_000],
      ['/sizes/a', 300_000],
      ['/sizes/empty', 0],
      ['/sizes', 300_105],
    ],
  )
  const [physical] = await json('du', '-s', '--physical', '/sizes')
  // One copy, in whole pages.
  assert.deepEqual([physical?.['bytes'], physical?.['files'], physical?.['directories']], [105 + 303_104, 3, 4])
})

test('a single copy is said aloud where it is written, and locations show where it lies', async () => {
  const local = join(cluster.directory, 'large')
  writeFileSync(local, randomBytes(100_000))
  const { code, stderr } = await cluster.fs('cp', local, ':/single')
  assert.equal(code, 0)
  assert.match(stderr, /^warning: only one copy is kept of what is written/)
  const [span] = await json('locations', '/single')
  assert.deepEqual([span?.['offset'], span?.['size'], span?.['data'], span?.['parity']], [0, 100_000, 1, 0])
  const [block] = (span?.['blocks'] ?? []) as Record<string, unknown>[]
  assert.deepEqual([block?.['domain'], block?.['state'], block?.['role']], ['domain0', 'ok', 'copy'])
  const [file] = await json('resolve', '/single')
  const found = await json('reverse_block_query', String(block?.['disk']))
  assert.ok(found.some((each) => each['block'] === block?.['block'] && each['file'] === file?.['inode']))
})

test('transient files are made, seen and expunged', async () => {
  await done('mkdir', '/eden')
  const [made] = await json('create_eden_file', '/eden')
  assert.match(String(made?.['inode']), INODE)
  assert.match(String(made?.['cookie']), /^[0-9a-f]{32}$/)
  const inode = String(made?.['inode'])
  const seen = async (): Promise<boolean> => (await json('visit_eden', inode)).some((each) => each['inode'] === inode)
  assert.ok(await seen())
  assert.match(await failed(1, 'expunge_span', inode), /it has none left/)
  await done('expunge_file', inode)
  assert.ok(!(await seen()))
  assert.match(await failed(1, 'expunge_file', inode), /no transient file\n {2}hint: "eider fs visit_eden"/)
})

test('visit_inodes lists what is there, of one shard or of all', async () => {
  const root = (await done('resolve', '/')).trim()
  const all = (await done('visit_inodes')).split('\n')
  assert.ok(all.includes(root))
  assert.equal(new Set(all).size, all.length)
  assert.deepEqual((await done('visit_inodes', '0')).split('\n')[0], root)
  assert.match(
    await failed(1, 'visit_inodes', '0x1'),
    /^eider: Cannot take "0x1" for an inode: there is none of that number\n/,
  )
  assert.match(await failed(1, 'stat', '0xffffffffffffffff'), /"0xffffffffffffffff"/)
  assert.match(await failed(2, 'visit_inodes', '256'), /shards are 0 to 255/)
})

test('who reads the output may go away', async () => {
  const { code, stdout, stderr } = await eider(['fs', 'visit_inodes'], {
    env: { EIDER_REGISTRY: cluster.registry },
    through: ['bash', '-c', '"$@" | head -c 10', 'bash'],
  })
  assert.deepEqual([code, stdout.length, stderr], [0, 10, ''])
})

test('a registry that cannot be reached is named, soon, with what helps', async () => {
  const [port] = await freePorts(1)
  const registry = `127.0.0.1:${port}`
  const { code, stdout, stderr } = await eider(['fs', 'ls', '/', '--registry', registry, '--timeout', '300ms'])
  assert.deepEqual([code, stdout], [1, ''])
  assert.match(
    stderr,
    new RegExp(`^eider: Cannot reach the registry at ${registry}: connect ECONNREFUSED .*\n  hint: Start it with`),
  )
})

test('what is misspelled is an error of usage', async () => {
  assert.match(await failed(2, 'lss', '/'), /"fs" has no such verb; did you mean ls\?/)
  assert.match(await failed(2, 'ls', 'relative'), /starts with "\/"/)
  assert.match(await failed(2, 'ls'), /PATH is missing/)
  assert.match(await failed(2, 'ls', '/', '/'), /takes no more arguments/)
  assert.match(
    await failed(2, 'cp', 'x'),
    /TARGET is missing: :\/PATH of the cluster, a path of this machine, or -\n {2}hint: See "eider fs cp --help"\.\n/,
  )
  assert.match(await failed(2, '--json', 'ls', '/'), /the verb comes right after/)
})

test('without the coordinator, directories are told to wait for it, and all else works', async () => {
  await using half = await TestCluster.start({ disks: 1, hasCoordinator: false })
  const made = await half.fs('mkdir', '/a', '--timeout', '200ms')
  assert.equal(made.code, 1)
  assert.match(made.stderr, /nobody knows where the coordinator is\n {2}hint: Start the missing process/)
  assert.equal((await half.fs('ln', '-s', 'x', '/link')).code, 0)
  assert.equal((await half.fs('ls', '/')).stdout, 'link\n')
})

test('the secret has to be the same', async () => {
  await using secret = await TestCluster.start({ disks: 1, secret: randomBytes(32) })
  const without = await secret.fs('ls', '/')
  assert.equal(without.code, 1)
  assert.match(
    without.stderr,
    /^eider: Cannot reach the registry at .*\n {2}hint: Give every process and client the same secret/,
  )
  const file = join(secret.directory, 'secret')
  writeFileSync(file, randomBytes(32).toString('hex'), { mode: 0o600 })
  assert.match((await secret.fs('ls', '/', '--secret-file', file)).stderr, /secret/)
})
