/** Write-back: what was closed survives a crash, once, whole, and under its name; without real power failures. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import {
  constants,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { setImmediate } from 'node:timers/promises'

import { OperationError, type ErrorCode } from '#base/errors.ts'
import { setLogLevel } from '#base/log.ts'
import { countsOf } from '#base/metrics.ts'
import { openMemoryStore } from '#store/memory-store.ts'
import { ANY, type Store } from '#store/store.ts'

import { codeOf, content, Gate, KernelDouble, O_RDONLY, O_RDWR, replacing } from './kernel-double.ts'
import { Journal } from './journal.ts'
import type { StoreFileSystemOptions } from './mount-state.ts'
import { StagingArea } from './staging.ts'
import { StoreFileSystem } from './store-file-system.ts'

setLogLevel('silent')

/** A store that answers, has gone, or takes puts and loses their answers; and what each mount sees of it. */
class Endpoint {
  readonly inner = openMemoryStore()
  mode: 'up' | 'down' | 'losing' = 'down'
  /** What every put is answered with. */
  refusal: ErrorCode | undefined
  /** What holds up a put before it takes effect. */
  gate: Gate | undefined
  puts = 0
  /** The next rename or removal is done, or not, and from then on nobody answers. */
  cut: 'after' | 'before' | undefined

  async #cutting<T>(work: () => Promise<T>): Promise<T> {
    const { cut } = this
    if (cut === undefined) return work()
    if (cut === 'after') await work()
    this.cut = undefined
    this.mode = 'down'
    throw new OperationError('STORE_TIMEOUT', 'Cannot do it: no answer')
  }

  /** What one process sees, until it dies. */
  seenBy(process: { dead: boolean }): Store {
    const check = (): void => {
      if (process.dead || this.mode === 'down') throw new OperationError('STORE_UNAVAILABLE', 'Cannot reach it')
    }
    return replacing(this.inner, {
      stat: async (path, options) => {
        check()
        return this.inner.stat(path, options)
      },
      read: async (path, options) => {
        check()
        return this.inner.read(path, options)
      },
      rename: async (...args) => {
        check()
        return this.#cutting(() => this.inner.rename(...args))
      },
      remove: async (...args) => {
        check()
        return this.#cutting(() => this.inner.remove(...args))
      },
      put: async (path, source, options) => {
        check()
        if (this.refusal !== undefined) throw new OperationError(this.refusal, 'Cannot put: refused')
        await this.gate?.pass()
        this.puts++
        const entry = await this.inner.put(path, source, options)
        if (this.mode === 'losing') throw new OperationError('STORE_TIMEOUT', 'Cannot put: no answer')
        return entry
      },
    })
  }
}

type Options = Partial<StoreFileSystemOptions> & { readonly wholeBytesMax?: number; readonly starts?: boolean }

/** One process after another over one endpoint and one staging disk. */
class Machine implements AsyncDisposable {
  readonly endpoint = new Endpoint()
  readonly staging = mkdtempSync(join(tmpdir(), 'eider-journal-'))
  readonly #options: Options
  #process: { dead: boolean; fs: StoreFileSystem; ending: AbortController } | undefined
  kernel!: KernelDouble

  constructor(options: Options = {}) {
    this.#options = options
  }

  get fs(): StoreFileSystem {
    assert.ok(this.#process !== undefined)
    return this.#process.fs
  }

  async boot(options: Options = {}): Promise<this> {
    const { wholeBytesMax, starts = true, ...others } = { ...this.#options, ...options }
    const ending = new AbortController()
    const process = { dead: false }
    const store = this.endpoint.seenBy(process)
    const staging = await StagingArea.open(this.staging, wholeBytesMax)
    const writeBack = others.writeBack ?? true
    const journal = Journal.open(staging, store.url, writeBack)
    const fs = new StoreFileSystem({
      ...{ store, staging, validityMs: 1000, readOnly: false, owner: { uid: 0, gid: 0 }, signal: ending.signal },
      ...others,
      ...(journal === undefined ? {} : { journal, writeBack }),
    })
    fs.replay()
    if (starts) fs.start()
    this.#process = Object.assign(process, { fs, ending })
    this.kernel = new KernelDouble(fs)
    return this
  }

  /** The process dies, and the disk has what it has. */
  async crash(): Promise<this> {
    const process = this.#process
    if (process === undefined || process.dead) return this
    process.dead = true
    process.ending.abort()
    await process.fs.closeJournal()
    return this
  }

  get journal(): string[] {
    const directory = join(this.staging, 'journal')
    return existsSync(directory) ? readdirSync(directory).sort() : []
  }

  get kept(): string[] {
    const directory = join(this.staging, 'conflicts')
    return readdirSync(directory).map((name) => readFileSync(join(directory, name), 'utf8'))
  }

  /** Resolves when nothing is ahead of the store. */
  async stored(): Promise<void> {
    this.endpoint.mode = 'up'
    await this.fs.publishAll()
    await settled(() => this.fs.status.dirtyFiles === 0)
    // A record that is written anew while its file is stored goes when it is synced.
    await settled(() => this.journal.length === 0)
  }

  async write(path: string, data: string): Promise<void> {
    await this.kernel.writeFile(path, data)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.crash()
    rmSync(this.staging, { recursive: true })
  }
}

async function settled(condition: () => boolean): Promise<void> {
  for (let turns = 0; !condition(); turns++) {
    assert.ok(turns < 100_000, 'it settles')
    await setImmediate()
  }
}

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

test('[S98] [S117] a put that waited for the one before it stores what was closed of a file that is being written by then', async () => {
  await using it = await new Machine().boot()
  it.endpoint.mode = 'up'
  const gate = new Gate()
  it.endpoint.gate = gate
  await it.write('f', 'first')
  await gate.reached
  await it.write('f', 'second')
  const third = await it.kernel.open('f', O_RDWR | constants.O_TRUNC)
  it.endpoint.gate = undefined
  gate.open()
  await settled(() => it.journal.length === 0)
  assert.equal(it.endpoint.puts, 2)
  for (let turns = 0; turns < 200; turns++) await setImmediate()
  assert.equal(await content(it.endpoint.inner, 'f'), 'second')
  await it.kernel.write(third, 0, 'third')
  await it.kernel.close(third)
  await it.stored()
  assert.equal(await content(it.endpoint.inner, 'f'), 'third')
  assert.deepEqual(it.kept, [])
})

test('[S99] what the store refuses for good is kept, and told of', async () => {
  await using it = await new Machine().boot()
  it.endpoint.mode = 'up'
  it.endpoint.refusal = 'STORE_FILE_TOO_LARGE'
  await it.write('f', 'bytes')
  await settled(() => it.fs.status.dirtyFiles === 0)
  assert.deepEqual(it.kept, ['bytes'])
  assert.deepEqual(it.journal, [])
})

test('[S118] what the store refuses for another reason than the file itself stays acknowledged, is told of and tried again', async () => {
  const refusals = ['STORE_DENIED', 'CREDENTIALS_REFUSED', 'CLOCK_SKEWED', 'STORE_NO_SPACE', 'STORE_PROTOCOL'] as const
  for (const refusal of refusals) {
    await using it = await new Machine().boot()
    it.endpoint.mode = 'up'
    it.endpoint.refusal = refusal
    await it.write('f', 'bytes')
    await settled(() => it.fs.status.failing !== undefined)
    assert.deepEqual(it.fs.status.failing, { files: 1, error: 'Cannot put: refused' })
    assert.equal(it.journal.length, 2)
    assert.deepEqual(it.kept, [])
    assert.equal(String(await it.kernel.readFile('f')), 'bytes')
    await it.crash()
    await it.boot()
    await settled(() => it.fs.status.failing !== undefined)
    it.endpoint.refusal = undefined
    await it.stored()
    assert.equal(it.fs.status.failing, undefined)
    assert.equal(await content(it.endpoint.inner, 'f'), 'bytes')
    assert.deepEqual(it.kept, [], refusal)
  }
})

test('[S99] [S118] what the store still refuses at the end of the mount is kept', async () => {
  await using it = await new Machine().boot()
  it.endpoint.mode = 'up'
  it.endpoint.refusal = 'STORE_DENIED'
  await it.write('f', 'bytes')
  await it.fs.publishAll()
  assert.deepEqual(await it.fs.keepUnpublished(), [])
  assert.deepEqual(it.kept, ['bytes'])
  assert.deepEqual(it.journal, [])
})

for (const onConflict of ['last-writer', 'keep-both'] as const) {
  test(`[S115] ${onConflict}: what others have stored before an acknowledged file is dealt with at once`, async () => {
    await using it = await new Machine({ onConflict }).boot()
    it.endpoint.mode = 'up'
    await it.write('f', 'base')
    await settled(() => it.fs.status.dirtyFiles === 0)
    const file = await it.kernel.open('f', O_RDWR)
    await it.kernel.write(file, 0, 'ours')
    await it.endpoint.inner.put('f', Buffer.from('theirs'), { guard: ANY })
    await it.kernel.close(file)
    await settled(() => it.fs.status.dirtyFiles === 0 && it.journal.length === 0)
    const stored = (await Array.fromAsync(it.endpoint.inner.list(''))).flat().map(({ path }) => path)
    const contents = await Promise.all(stored.map((path) => content(it.endpoint.inner, path)))
    assert.deepEqual(contents.sort(), onConflict === 'last-writer' ? ['ours'] : ['ours', 'theirs'])
    // Whatever comes later is not gone over.
    await it.endpoint.inner.put('f', Buffer.from('newer'), { guard: ANY })
    await it.fs.publishAll()
    assert.equal(await content(it.endpoint.inner, 'f'), 'newer')
    assert.deepEqual(it.kept, [])
  })

  test(`[S115] ${onConflict}: what is acknowledged and written again since is stored as it was acknowledged`, async () => {
    await using it = await new Machine({ onConflict }).boot({ starts: false })
    it.endpoint.mode = 'up'
    await it.endpoint.inner.put('f', Buffer.from('base'), { guard: ANY })
    const file = await it.kernel.open('f', O_RDWR)
    await it.kernel.write(file, 0, 'ours')
    await it.endpoint.inner.put('f', Buffer.from('theirs'), { guard: ANY })
    await it.kernel.fsync(file)
    await it.kernel.write(file, 0, 'half')
    it.fs.start()
    await settled(() => it.journal.length === 0)
    const stored = async (): Promise<string[]> => {
      const entries = (await Array.fromAsync(it.endpoint.inner.list(''))).flat()
      return (await Promise.all(entries.map(({ path }) => content(it.endpoint.inner, path)))).sort()
    }
    assert.deepEqual(await stored(), onConflict === 'last-writer' ? ['ours'] : ['ours', 'theirs'])
    await it.kernel.write(file, 4, ' whole')
    await it.kernel.close(file)
    await it.stored()
    assert.deepEqual(await stored(), onConflict === 'last-writer' ? ['half whole'] : ['half whole', 'theirs'])
    assert.deepEqual(it.kept, [])
  })
}

test('[S115] fail: both what was acknowledged and what was written since are kept', async () => {
  await using it = await new Machine().boot({ starts: false })
  it.endpoint.mode = 'up'
  const file = await it.kernel.create('f')
  await it.kernel.write(file, 0, 'acknowledged')
  await it.endpoint.inner.put('f', Buffer.from('theirs'), { guard: ANY })
  await it.kernel.fsync(file)
  await it.kernel.setattr('f', { size: 0 })
  await it.kernel.write(file, 0, 'later')
  it.fs.start()
  await settled(() => it.fs.status.dirtyFiles === 0)
  assert.equal(await content(it.endpoint.inner, 'f'), 'theirs')
  assert.deepEqual(it.kept.sort(), ['acknowledged', 'later'])
  assert.deepEqual(it.journal, [])
})

for (const onConflict of ['last-writer', 'fail'] as const) {
  test(`[S116] ${onConflict}: what others put on top of what was stored stays after a crash`, async () => {
    await using it = await new Machine({ onConflict }).boot()
    it.endpoint.mode = 'up'
    await it.write('f', 'base')
    await settled(() => it.fs.status.dirtyFiles === 0)
    const file = await it.kernel.open('f', O_RDWR)
    await it.kernel.write(file, 0, 'line one')
    const gate = new Gate()
    it.endpoint.gate = gate
    await it.kernel.fsync(file)
    await gate.reached
    await it.kernel.write(file, 8, ', not synced')
    it.endpoint.gate = undefined
    gate.open()
    await settled(() => it.journal.length === 0)
    assert.equal(it.fs.status.dirtyFiles, 1)
    await it.endpoint.inner.put('f', Buffer.from('line one, and theirs'), { guard: ANY })
    await it.crash()
    await it.boot()
    await it.stored()
    assert.equal(await content(it.endpoint.inner, 'f'), 'line one, and theirs')
    assert.deepEqual(it.kept, [])
  })
}

test('[S116] a close during the put of the one before it is over what that put stored', async () => {
  await using it = await new Machine().boot()
  it.endpoint.mode = 'up'
  const gate = new Gate()
  it.endpoint.gate = gate
  const file = await it.kernel.create('f')
  await it.kernel.write(file, 0, 'first')
  await it.kernel.fsync(file)
  await gate.reached
  await it.kernel.write(file, 0, 'later')
  await it.kernel.fsync(file)
  const second = new Gate()
  it.endpoint.gate = second
  gate.open()
  await second.reached
  const { version } = await it.endpoint.inner.stat('f')
  const [record = ''] = it.journal.filter((name) => name.endsWith('.json'))
  const told: unknown = JSON.parse(readFileSync(join(it.staging, 'journal', record), 'utf8'))
  assert.ok(typeof told === 'object' && told !== null && 'version' in told)
  assert.equal(told.version, version)
  await it.crash()
  it.endpoint.gate = undefined
  second.open()
  await it.boot()
  await it.stored()
  assert.equal(await content(it.endpoint.inner, 'f'), 'later')
  assert.deepEqual(it.kept, [])
})

test('[S117] what was synced of a file that its writer goes on with is stored while it is open', async () => {
  await using it = await new Machine().boot({ starts: false })
  it.endpoint.mode = 'up'
  const file = await it.kernel.create('log')
  await it.kernel.write(file, 0, 'committed')
  await it.kernel.fsync(file)
  await it.kernel.write(file, 9, ' and half a li')
  it.fs.start()
  await settled(() => it.journal.length === 0)
  assert.equal(await content(it.endpoint.inner, 'log'), 'committed')
  assert.equal((await it.kernel.read(file, 0, 100)).toString(), 'committed and half a li')
  await it.kernel.write(file, 23, 'ne')
  await it.kernel.close(file)
  await it.stored()
  assert.equal(await content(it.endpoint.inner, 'log'), 'committed and half a line')
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

test(
  '[S117] what was synced before a write that found no room is stored after the last close',
  { skip: process.getuid?.() === 0 ? false : 'only root makes a small disk' },
  async () => {
    await using it = new Machine()
    const { status, stderr } = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=4m', 'eider-test', it.staging])
    assert.equal(status, 0, String(stderr))
    try {
      await it.boot({ starts: false })
      it.endpoint.mode = 'up'
      const file = await it.kernel.create('f')
      await it.kernel.write(file, 0, 'synced')
      await it.kernel.fsync(file)
      it.endpoint.mode = 'down'
      await it.kernel.write(file, 0, 'WRITTEN SINCE')
      const filler = Buffer.alloc(1 << 20, 'x')
      for (let failed = false, at = 13; !failed;) {
        await it.kernel.write(file, at, filler).then(
          (written) => (at += written),
          () => (failed = true),
        )
      }
      assert.equal(await codeOf(it.kernel.close(file)), 'STAGING_NO_SPACE')
      assert.equal(String(await it.kernel.readFile('f')), 'synced')
      it.fs.start()
      await it.stored()
      assert.equal(await content(it.endpoint.inner, 'f'), 'synced')
      assert.deepEqual(it.kept, [])
    } finally {
      await it.crash()
      spawnSync('umount', ['-l', it.staging])
    }
  },
)

test('[S119] pending files leave descriptors for everything else', () => {
  const script = `
    import { openMemoryStore } from '#store/memory-store.ts'
    import { setLogLevel } from '#base/log.ts'
    import { codeOf, replacing, rig } from '#mount/kernel-double.ts'
    import { OperationError } from '#base/errors.ts'
    setLogLevel('silent')
    const down = async () => { throw new OperationError('STORE_UNAVAILABLE', 'Cannot reach it') }
    await using it = await rig(replacing(openMemoryStore(), { put: down }), { writeBack: true })
    let answered = 0
    let code
    while (code === undefined) {
      const file = await it.kernel.create('f' + answered)
      await it.kernel.write(file, 0, 'x')
      code = await it.kernel.close(file).then(() => undefined, (error) => error.code)
      if (code === undefined) answered++
    }
    console.log(JSON.stringify([answered, code]))
    process.exit()`
  const limited = 'ulimit -n 256 && exec "$0" --input-type=module-typescript -e "$1"'
  const { stdout, stderr } = spawnSync('bash', ['-c', limited, process.execPath, script], { timeout: 60_000 })
  assert.equal(String(stdout).trim(), '[64,"STORE_UNAVAILABLE"]', String(stderr))
})

test('[S119] a rename has succeeded once the name has moved, whether it can be journaled or not', async (t) => {
  await using it = await new Machine().boot({ starts: false })
  it.endpoint.mode = 'up'
  await it.write('a', 'bytes')
  const failing = t.mock.method(Journal.prototype, 'write', async () => {
    throw new OperationError('STAGING_NO_SPACE', 'Cannot journal: no space is left')
  })
  await it.kernel.rename('a', 'b')
  assert.equal(failing.mock.callCount(), 1)
  failing.mock.restore()
  assert.deepEqual(await it.kernel.names(''), ['b'])
  it.fs.start()
  await settled(() => it.fs.status.dirtyFiles === 0)
  assert.equal(await content(it.endpoint.inner, 'b'), 'bytes')
  assert.deepEqual(it.journal, [])
})

test('[S119] where the staging disk tells nothing of its room a close waits for the store', async () => {
  await using it = await new Machine().boot({ starts: false })
  it.endpoint.mode = 'up'
  const file = await it.kernel.create('f')
  await it.kernel.write(file, 0, 'bytes')
  renameSync(it.staging, `${it.staging}.away`)
  try {
    await it.kernel.close(file)
  } finally {
    renameSync(`${it.staging}.away`, it.staging)
  }
  assert.equal(await content(it.endpoint.inner, 'f'), 'bytes')
  assert.equal(it.fs.status.dirtyFiles, 0)
})

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
