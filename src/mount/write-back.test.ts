/** Write-back: what was closed survives a crash, once, whole, and under its name; without real power failures. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { constants, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'

import { setLogLevel } from '#base/log.ts'
import { countsOf } from '#base/metrics.ts'
import { ANY } from '#store/store.ts'

import { codeOf, content, Gate, O_RDONLY, O_RDWR, type KernelDouble } from './kernel-double.ts'
import { Journal } from './journal.ts'
import { StagingArea } from './staging.ts'
import { Machine, settled } from './write-back-double.ts'

setLogLevel('silent')

async function syncs(): Promise<{ file: number; directory: number }> {
  const counts = await countsOf('eider_mount_journal_syncs_total')
  const of = (what: string): number => counts.find(([, label]) => label === what)?.[0] ?? 0
  return { file: of('file'), directory: of('directory') }
}

test('[S96] a close is answered while the store is away, by three syncs; then it is stored, and nothing is left', async () => {
  await using it = await new Machine().boot()
  // A lookup asks the store; only then it goes away.
  it.endpoint.mode = 'up'
  const file = await it.kernel.create('f')
  it.endpoint.mode = 'down'
  const before = await syncs()
  await it.kernel.write(file, 0, 'bytes')
  await it.kernel.close(file)
  const after = await syncs()
  assert.deepEqual([after.file - before.file, after.directory - before.directory], [2, 1])
  assert.equal(it.journal.length, 2)
  assert.equal(it.fs.status.dirtyFiles, 1)
  assert.equal(String(await it.kernel.readFile('f')), 'bytes')
  await it.stored()
  assert.equal(await content(it.endpoint.inner, 'f'), 'bytes')
  assert.deepEqual(readdirSync(it.staging).sort(), ['conflicts', 'journal'])
})

test('[S96] with the store there a close starts the put, and no sync or request is made twice', async () => {
  await using it = await new Machine().boot()
  it.endpoint.mode = 'up'
  await it.write('f', 'bytes')
  await settled(() => it.fs.status.dirtyFiles === 0)
  assert.equal(it.endpoint.puts, 1)
  assert.deepEqual(it.journal, [])
})

test('[S96] closes at the same time share the sync of the directory', async () => {
  await using it = await new Machine().boot()
  it.endpoint.mode = 'up'
  const files = await Promise.all(Array.from({ length: 20 }, (_, index) => it.kernel.create(`f${index}`)))
  for (const file of files) await it.kernel.write(file, 0, 'x')
  it.endpoint.mode = 'down'
  const before = await syncs()
  await Promise.all(files.map((file) => it.kernel.close(file)))
  const after = await syncs()
  assert.equal(after.file - before.file, 40)
  assert.ok(after.directory - before.directory < 20, `${after.directory - before.directory} syncs of the directory`)
  await it.stored()
})

test('[S97] what was closed before a crash is there at once after it, and is stored with its attributes', async () => {
  await using it = await new Machine().boot()
  it.endpoint.mode = 'up'
  await it.kernel.mkdir('d')
  const file = await it.kernel.create('d/f', O_RDWR, 0o640)
  await it.kernel.write(file, 0, 'bytes')
  await it.fs.setxattr(file.node, 'user.x', Buffer.from('value'), 0)
  it.endpoint.mode = 'down'
  await it.kernel.close(file)
  const unclosed = await it.kernel.create('d/unclosed')
  await it.kernel.write(unclosed, 0, 'more')
  await it.crash()
  await it.boot()
  it.endpoint.mode = 'up'
  assert.equal(String(await it.kernel.readFile('d/f')), 'bytes')
  assert.equal(await it.kernel.exists('d/unclosed'), false)
  await it.stored()
  const entry = await it.endpoint.inner.stat('d/f')
  assert.equal(entry.attributes?.mode, 0o640)
  assert.equal(String(entry.attributes?.xattrs?.get('user.x')), 'value')
  assert.equal(await content(it.endpoint.inner, 'd/f'), 'bytes')
  assert.deepEqual(it.kept, [])
})

test('[S97] a put that took effect before the crash is known for ours', async () => {
  await using it = await new Machine().boot()
  it.endpoint.mode = 'losing'
  await it.write('f', 'bytes')
  await settled(() => it.endpoint.puts === 1)
  await it.crash()
  const { version } = await it.endpoint.inner.stat('f')
  await it.boot()
  await it.stored()
  assert.deepEqual(it.kept, [])
  assert.equal(await content(it.endpoint.inner, 'f'), 'bytes')
  assert.notEqual(version, undefined)
})

test('[S97] a put that took effect before the crash is known for ours also when the file is changed before it is stored', async () => {
  const changes: Record<string, (kernel: KernelDouble) => Promise<unknown>> = {
    rewritten: async (kernel) => kernel.writeFile('f', 'new'),
    cut: async (kernel) => {
      const file = await kernel.open('f', O_RDWR)
      await kernel.setattr('f', { size: 2 })
      await kernel.close(file)
    },
    edited: async (kernel) => {
      const file = await kernel.open('f', O_RDWR)
      await kernel.write(file, 1, 'new')
      await kernel.close(file)
    },
    'with another mode': async (kernel) => kernel.setattr('f', { mode: 0o600 }),
    removed: async (kernel) => kernel.unlink('f'),
    replaced: async (kernel) => {
      await kernel.writeFile('g', 'new')
      await kernel.rename('g', 'f')
    },
  }
  const contents = { rewritten: 'new', cut: 'by', edited: 'bnews', removed: undefined, replaced: 'new' }
  for (const [name, change] of Object.entries(changes)) {
    await using it = await new Machine().boot()
    it.endpoint.mode = 'losing'
    await it.write('f', 'bytes')
    await settled(() => it.endpoint.puts === 1)
    await it.crash()
    await it.boot({ starts: false })
    it.endpoint.mode = 'up'
    await change(it.kernel)
    await it.crash()
    await it.boot()
    await it.stored()
    assert.deepEqual(it.kept, [], name)
    const names: string[] = []
    for await (const page of it.endpoint.inner.list('', {})) names.push(...page.map(({ path }) => path))
    assert.deepEqual(names, name === 'removed' ? [] : ['f'], name)
    if (name === 'removed') continue
    const expected = name in contents ? contents[name as keyof typeof contents] : 'bytes'
    assert.equal(await content(it.endpoint.inner, 'f'), expected, name)
  }
})

test('[S97] a put that was under way at the next close, and took effect after the crash, is known for ours', async () => {
  await using it = await new Machine().boot()
  it.endpoint.mode = 'up'
  const gate = new Gate()
  it.endpoint.gate = gate
  await it.write('f', 'first')
  await gate.reached
  await it.write('f', 'second')
  assert.equal(it.journal.length, 2, 'no writer waited for the put, and there is one record')
  await it.crash()
  it.endpoint.gate = undefined
  gate.open()
  await settled(() => it.endpoint.puts === 1)
  await it.boot()
  await it.stored()
  assert.equal(await content(it.endpoint.inner, 'f'), 'second')
  assert.deepEqual(it.kept, [])
})

test('[S97] what others stored meanwhile is dealt with by the policy', async () => {
  for (const onConflict of ['fail', 'keep-both', 'last-writer'] as const) {
    await using it = await new Machine({ onConflict }).boot()
    it.endpoint.mode = 'up'
    const file = await it.kernel.create('f')
    await it.kernel.write(file, 0, 'ours')
    it.endpoint.mode = 'down'
    await it.kernel.close(file)
    await it.crash()
    await it.endpoint.inner.put('f', Buffer.from('theirs'), { guard: ANY })
    await it.boot()
    it.endpoint.mode = 'up'
    await it.fs.publishAll()
    await settled(() => it.fs.status.dirtyFiles === 0)
    assert.equal(await content(it.endpoint.inner, 'f'), onConflict === 'last-writer' ? 'ours' : 'theirs')
    assert.deepEqual(it.kept, onConflict === 'fail' ? ['ours'] : [])
    let names = 0
    for await (const page of it.endpoint.inner.list('', {})) names += page.length
    assert.equal(names, onConflict === 'keep-both' ? 2 : 1)
    assert.deepEqual(it.journal, [])
  }
})

test('[S97] a journal that was cut off at any point, or damaged, gives what was acknowledged and drops the rest', async () => {
  await using it = await new Machine().boot()
  it.endpoint.mode = 'up'
  const files = await Promise.all(['whole', 'damaged', 'bare'].map((name) => it.kernel.create(name)))
  it.endpoint.mode = 'down'
  for (const [index, file] of files.entries()) {
    await it.kernel.write(file, 0, ['whole', 'damaged', 'bare'][index] ?? '')
    await it.kernel.close(file)
  }
  await it.crash()
  const directory = join(it.staging, 'journal')
  for (const name of it.journal.filter((each) => each.endsWith('.json'))) {
    const record = join(directory, name)
    if (readFileSync(record, 'utf8').includes('"damaged"')) writeFileSync(record, '{"sequence":')
    if (readFileSync(record, 'utf8').includes('"bare"')) rmSync(record)
  }
  writeFileSync(join(directory, '0123456789abcdef.json.new'), '{')
  writeFileSync(join(directory, 'fedcba9876543210'), 'bytes without a record')
  writeFileSync(join(directory, '00000000deadbeef.json'), '{}')
  await it.boot()
  await it.stored()
  assert.equal(await content(it.endpoint.inner, 'whole'), 'whole')
  assert.deepEqual(it.kept, ['damaged'], 'bytes of a damaged record are kept')
})

test('[S97] a journal with files for another store is refused, and one is used by one mount only', async () => {
  await using it = await new Machine().boot()
  it.endpoint.mode = 'up'
  const file = await it.kernel.create('f')
  it.endpoint.mode = 'down'
  await it.kernel.close(file)
  const staging = await StagingArea.open(it.staging)
  assert.throws(() => Journal.open(staging, 'memory:', true), {
    message: new RegExp(`another mount uses it \\(process ${process.pid}\\)$`),
    hint: /--staging/,
  })
  await it.crash()
  assert.throws(() => Journal.open(staging, 's3://other', false), /not yet in "memory:.*mount that store/)
  await it.boot({ writeBack: false })
  await it.stored()
  assert.equal(await content(it.endpoint.inner, 'f'), '', 'also by a mount without write-back')
})

test(
  '[S96] pending files alone fill no staging disk: a write waits for them, and a close for its own put',
  { skip: process.getuid?.() === 0 ? false : 'only root makes a small disk' },
  async () => {
    await using it = new Machine()
    const { status, stderr } = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=4m', 'eider-test', it.staging])
    assert.equal(status, 0, String(stderr))
    try {
      await it.boot({ starts: false })
      it.endpoint.mode = 'up'
      const files = await Promise.all(['a', 'b', 'c', 'd'].map((name) => it.kernel.create(name)))
      it.endpoint.mode = 'down'
      const mebibyte = Buffer.alloc(1 << 20, 'x')
      for (const file of files.slice(0, 3)) {
        await it.kernel.write(file, 0, mebibyte)
        await it.kernel.close(file)
      }
      const last = files[3]
      assert.ok(last !== undefined)
      await it.kernel.write(last, 0, mebibyte.subarray(0, 900_000))
      assert.equal(await codeOf(it.kernel.close(last)), 'STORE_UNAVAILABLE', 'it is not answered from the disk')
      assert.equal(it.endpoint.puts, 0)
      it.endpoint.mode = 'up'
      const more = await it.kernel.create('more')
      let written = 0
      while (written < 1_500_000) {
        written += await it.kernel.write(more, written, mebibyte.subarray(0, Math.min(1 << 17, 1_500_000 - written)))
      }
      await it.kernel.close(more)
      await it.stored()
      let names = 0
      for await (const page of it.endpoint.inner.list('', {})) names += page.length
      assert.equal(names, 5)
      assert.equal((await it.endpoint.inner.stat('more')).size, 1_500_000)
    } finally {
      await it.crash()
      spawnSync('umount', ['-l', it.staging])
    }
  },
)

test('[S98] a file that is written again keeps what was closed until it is closed again', async () => {
  for (const flags of [O_RDWR, O_RDWR | constants.O_TRUNC]) {
    await using it = await new Machine().boot()
    it.endpoint.mode = 'up'
    const first = await it.kernel.create('f')
    await it.kernel.write(first, 0, 'first version')
    it.endpoint.mode = 'down'
    await it.kernel.close(first)
    const second = await it.kernel.open('f', flags)
    await it.kernel.write(second, 0, 'second')
    await it.crash()
    await it.boot()
    it.endpoint.mode = 'up'
    assert.equal(String(await it.kernel.readFile('f')), 'first version')
    await it.fs.publishAll()
    const third = await it.kernel.open('f', flags)
    await it.kernel.write(third, 0, 'third')
    it.endpoint.mode = 'down'
    await it.kernel.close(third)
    assert.equal(it.journal.length, 2, 'one record')
    await it.crash()
    await it.boot()
    await it.stored()
    const whole = (flags & constants.O_TRUNC) !== 0 ? 'third' : 'third version'
    assert.equal(await content(it.endpoint.inner, 'f'), whole)
    assert.deepEqual(it.kept, [])
  }
})

test('[S98] a file that is written again while its put is under way has its last close stored', async () => {
  await using it = await new Machine().boot()
  it.endpoint.mode = 'up'
  const inner = it.endpoint.inner
  for (let round = 0; round < 50; round++) await it.write('f', `round ${round}`)
  await settled(() => it.fs.status.dirtyFiles === 0)
  assert.equal(await content(inner, 'f'), 'round 49')
  assert.deepEqual(it.journal, [])
  assert.deepEqual(it.kept, [])
})

test('[S98] what was renamed, replaced, removed or changed in its attributes while pending is so after a crash', async () => {
  await using it = await new Machine().boot({ starts: false })
  it.endpoint.mode = 'up'
  const files = await Promise.all(['a', 'old', 'new', 'gone', 'mode'].map((name) => it.kernel.create(name)))
  for (const [index, file] of files.entries()) await it.kernel.write(file, 0, `file ${index}`)
  await it.kernel.find('b')
  it.endpoint.mode = 'down'
  for (const file of files) await it.kernel.close(file)
  await it.kernel.rename('a', 'b')
  await it.kernel.rename('new', 'old')
  await it.kernel.unlink('gone')
  await it.kernel.setattr('mode', { mode: 0o600 })
  assert.equal(it.journal.length, 6, 'three records')
  await it.crash()
  await it.boot()
  await it.stored()
  const { inner } = it.endpoint
  assert.equal(await content(inner, 'b'), 'file 0')
  assert.equal(await content(inner, 'old'), 'file 2')
  assert.equal((await inner.stat('mode')).attributes?.mode, 0o600)
  const names: string[] = []
  for await (const page of inner.list('', {})) names.push(...page.map(({ path }) => path))
  assert.deepEqual(names, ['b', 'mode', 'old'])
  assert.deepEqual(it.kept, [])
})

test('[S98] a move of a directory stores first what is pending in it', async () => {
  await using it = await new Machine().boot()
  it.endpoint.mode = 'up'
  await it.kernel.mkdir('d')
  const file = await it.kernel.create('d/f')
  await it.kernel.write(file, 0, 'bytes')
  it.endpoint.mode = 'down'
  await it.kernel.close(file)
  it.endpoint.mode = 'up'
  await it.kernel.rename('d', 'e')
  assert.equal(await content(it.endpoint.inner, 'e/f'), 'bytes')
  await it.stored()
})

test('[S97] an edit of a large file, of which most is only in the store, is whole after a crash', async () => {
  await using it = await new Machine({ wholeBytesMax: 1000 }).boot()
  it.endpoint.mode = 'up'
  const base = 'b'.repeat(100_000)
  await it.write('f', base)
  await settled(() => it.fs.status.dirtyFiles === 0)
  const file = await it.kernel.open('f', O_RDWR)
  await it.kernel.write(file, 50_000, 'edit')
  it.endpoint.mode = 'down'
  await it.kernel.close(file)
  await it.crash()
  await it.boot()
  it.endpoint.mode = 'up'
  const expected = `${base.slice(0, 50_000)}edit${base.slice(50_004)}`
  const read = await it.kernel.open('f', O_RDONLY)
  assert.equal(String(await it.kernel.read(read, 49_998, 8)), 'bbeditbb')
  await it.stored()
  assert.equal(await content(it.endpoint.inner, 'f'), expected)
  await it.kernel.close(read)
})

for (const cut of ['after', 'before'] as const) {
  const outcome = cut === 'after' ? 'took effect' : 'did not take effect'

  for (const directory of ['', 'd/']) {
    test(`[S111] what is closed after a rename of ${directory === '' ? 'it' : 'its directory'} that ${outcome} in an outage is stored where it is, also after a crash`, async () => {
      for (const crashes of [false, true]) {
        await using it = await new Machine().boot()
        it.endpoint.mode = 'up'
        if (directory !== '') await it.kernel.mkdir('d')
        await it.write(`${directory}from`, 'text')
        await settled(() => it.fs.status.dirtyFiles === 0)
        const file = await it.kernel.open(`${directory}from`, O_RDWR)
        await it.kernel.write(file, 0, 'T')
        await it.kernel.fsync(file)
        await settled(() => it.fs.status.dirtyFiles === 0)
        it.endpoint.cut = cut
        if (directory === '') await assert.rejects(it.kernel.rename('from', 'to'))
        else await assert.rejects(it.kernel.rename('d', 'e'))
        await it.kernel.write(file, 1, 'E')
        await it.kernel.close(file)
        if (crashes) await (await it.crash()).boot()
        await it.stored()
        const names = cut === 'before' ? ['d/from', 'from'] : ['e/from', 'to']
        const [expected = ''] = names.filter((name) => name.includes('/') === (directory !== ''))
        assert.equal(await content(it.endpoint.inner, expected), 'TExt')
        assert.equal((await it.kernel.readFile(expected)).toString(), 'TExt')
        const stored = (await Array.fromAsync(it.endpoint.inner.list('', { recursive: true }))).flat()
        assert.deepEqual(
          stored.flatMap(({ kind, path }) => (kind === 'file' ? [path] : [])),
          [expected],
        )
        assert.deepEqual(it.kept, [])
      }
    })
  }

  test(`[S112] what is closed after its removal that ${outcome} in an outage ${cut === 'after' ? 'goes with it' : 'is stored'}, also after a crash`, async () => {
    for (const crashes of [false, true]) {
      await using it = await new Machine().boot()
      it.endpoint.mode = 'up'
      await it.write('file', 'text')
      await settled(() => it.fs.status.dirtyFiles === 0)
      const file = await it.kernel.open('file', O_RDWR)
      await it.kernel.write(file, 0, 'T')
      await it.kernel.fsync(file)
      await settled(() => it.fs.status.dirtyFiles === 0)
      it.endpoint.cut = cut
      await assert.rejects(it.kernel.unlink('file'))
      await it.kernel.write(file, 1, 'E')
      await it.kernel.close(file)
      if (crashes) await (await it.crash()).boot()
      await it.stored()
      if (cut === 'before') assert.equal(await content(it.endpoint.inner, 'file'), 'TExt')
      else assert.deepEqual(await Array.fromAsync(it.endpoint.inner.list('')), [])
      assert.equal(await it.kernel.exists('file'), cut === 'before')
      assert.deepEqual(it.kept, [])
    }
  })
}
