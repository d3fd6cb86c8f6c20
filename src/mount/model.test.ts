/**
 * Random operations on a mounted store and on a plain model of a tree, compared after each: what a program sees here, and in
 * the end what the store has. Others change the store in between only where the validity has passed, so the model knows
 * what must be seen.
 */
import assert from 'node:assert/strict'
import { constants } from 'node:fs'
import { test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'

import fc from 'fast-check'

import { isOperationError, OperationError, type ErrorCode } from '#base/errors.ts'
import { setLogLevel } from '#base/log.ts'
import { FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE } from '#os/fallocate.ts'
import { openMemoryStore } from '#store/memory-store.ts'
import { isWithin, joinPath, nameOf, parentOf } from '#store/path.ts'
import type { Store } from '#store/store.ts'

import { O_RDWR, replacing, rig, untold, type OpenedFile, type Rig, type RigOptions } from './kernel-double.ts'

setLogLevel('silent')

const SEED = 20_240_229
const ALLOCATE = 0
const KEEP_SIZE = FALLOC_FL_KEEP_SIZE
const PUNCH_HOLE = FALLOC_FL_PUNCH_HOLE
const ZERO_RANGE = FALLOC_FL_ZERO_RANGE
const RUNS = 120

/** A file of the model: an object of its own, so that handles follow it through renames and removals. */
interface ModelFile {
  bytes: Buffer
  mode: number
}
type ModelNode = ModelFile | 'directory' | { readonly target: string }

interface Handles {
  readonly model: ModelFile
  readonly real: OpenedFile
}

class Model {
  readonly tree = new Map<string, ModelNode>([['', 'directory']])

  children(path: string): string[] {
    return [...this.tree.keys()].filter((key) => key !== '' && parentOf(key) === path).map(nameOf)
  }

  get(path: string): ModelNode {
    const parent = parentOf(path)
    if (path !== '' && this.get(parent) !== 'directory') throw new Expected('STORE_NOT_DIRECTORY')
    const found = this.tree.get(path)
    if (found === undefined) throw new Expected('STORE_NOT_FOUND')
    return found
  }

  /** The node, or undefined where only the last name is missing. */
  find(path: string): ModelNode | undefined {
    if (this.get(parentOf(path)) !== 'directory') throw new Expected('STORE_NOT_DIRECTORY')
    return this.tree.get(path)
  }

  file(path: string): ModelFile {
    const found = this.get(path)
    if (found === 'directory') throw new Expected('STORE_IS_DIRECTORY')
    if ('target' in found) throw new Expected('INPUT_INVALID')
    return found
  }

  rename(from: string, to: string): void {
    for (const parent of [parentOf(from), parentOf(to)]) {
      if (this.get(parent) !== 'directory') throw new Expected('STORE_NOT_DIRECTORY')
    }
    const source = this.get(from)
    const target = this.find(to)
    if (from === to) return
    if (source === 'directory' && isWithin(to, from)) throw new Expected('INPUT_INVALID')
    if (target !== undefined) {
      if (target === 'directory' && source !== 'directory') throw new Expected('STORE_IS_DIRECTORY')
      if (target !== 'directory' && source === 'directory') throw new Expected('STORE_NOT_DIRECTORY')
      if (target === 'directory' && this.children(to).length > 0) throw new Expected('STORE_NOT_EMPTY')
    }
    for (const [path, node] of [...this.tree]) {
      if (!isWithin(path, from)) continue
      this.tree.delete(path)
      this.tree.set(to + path.slice(from.length), node)
    }
  }
}

/** What the model says must fail; the real one may name another reason, where several hold. */
class Expected extends Error {
  readonly code: ErrorCode

  constructor(code: ErrorCode) {
    super(code)
    this.code = code
  }
}

type Step =
  | { readonly do: 'write'; readonly path: string; readonly text: string }
  | { readonly do: 'open'; readonly path: string; readonly create: boolean; readonly truncate: boolean }
  | { readonly do: 'pwrite'; readonly handle: number; readonly offset: number; readonly text: string }
  | { readonly do: 'pread' | 'fsync' | 'close'; readonly handle: number }
  | {
      readonly do: 'fallocate'
      readonly handle: number
      readonly mode: number
      readonly offset: number
      readonly length: number
    }
  | { readonly do: 'copy'; readonly handle: number; readonly to: number; readonly offset: number; readonly at: number }
  | { readonly do: 'truncate'; readonly path: string; readonly size: number }
  | { readonly do: 'chmod'; readonly path: string; readonly mode: number }
  | { readonly do: 'mkdir' | 'unlink' | 'rmdir' | 'list' | 'read'; readonly path: string }
  | { readonly do: 'symlink'; readonly path: string; readonly target: string }
  | { readonly do: 'rename'; readonly from: string; readonly to: string }
  | { readonly do: 'wait'; readonly ms: number }

// Few names, so that operations meet; the longer ones, so that they meet in directories that move.
const path = fc.constantFrom('a', 'b', 'd', 'e', 'd/a', 'd/b', 'e/a', 'd/e/a')
const text = fc.string({ maxLength: 12, unit: 'grapheme-ascii' })
// The kernel sends no empty writes.
const words = fc.string({ minLength: 1, maxLength: 12, unit: 'grapheme-ascii' })
const handle = fc.nat(3)
const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({ do: fc.constant('write' as const), path, text }),
  fc.record({ do: fc.constant('open' as const), path, create: fc.boolean(), truncate: fc.boolean() }),
  fc.record({ do: fc.constant('pwrite' as const), handle, offset: fc.nat(20), text: words }),
  fc.record({ do: fc.constantFrom('pread' as const, 'fsync' as const, 'close' as const), handle }),
  fc.record({
    do: fc.constant('fallocate' as const),
    handle,
    mode: fc.constantFrom(ALLOCATE, ALLOCATE | KEEP_SIZE, PUNCH_HOLE | KEEP_SIZE, ZERO_RANGE, ZERO_RANGE | KEEP_SIZE),
    offset: fc.nat(20),
    length: fc.integer({ min: 1, max: 12 }),
  }),
  fc.record({ do: fc.constant('copy' as const), handle, to: handle, offset: fc.nat(12), at: fc.nat(20) }),
  fc.record({ do: fc.constant('truncate' as const), path, size: fc.nat(20) }),
  fc.record({ do: fc.constant('chmod' as const), path, mode: fc.constantFrom(0o600, 0o644, 0o755) }),
  fc.record({
    do: fc.constantFrom(
      'mkdir' as const,
      'mkdir' as const,
      'unlink' as const,
      'rmdir' as const,
      'list' as const,
      'read' as const,
    ),
    path,
  }),
  fc.record({ do: fc.constant('symlink' as const), path, target: fc.constantFrom('x', 'a/b') }),
  fc.record({ do: fc.constant('rename' as const), from: path, to: path }),
  fc.record({ do: fc.constant('wait' as const), ms: fc.constantFrom(10, 600, 1500) }),
)

class Run {
  readonly #model = new Model()
  readonly #rig: Rig
  readonly #handles: Handles[] = []

  constructor(it: Rig) {
    this.#rig = it
  }

  async take(at: Step): Promise<void> {
    switch (at.do) {
      case 'write':
        return this.#both(
          () => this.#modelWrite(at.path, at.text),
          () => this.#rig.kernel.writeFile(at.path, at.text),
        )
      case 'open':
        return this.#open(at.path, at.create, at.truncate)
      case 'pwrite':
        return this.#withHandle(at.handle, async ({ model, real }) => {
          const missing = Math.max(0, at.offset + at.text.length - model.bytes.length)
          model.bytes = Buffer.concat([model.bytes, Buffer.alloc(missing)])
          model.bytes.write(at.text, at.offset, 'latin1')
          await this.#rig.kernel.write(real, at.offset, Buffer.from(at.text, 'latin1'))
        })
      case 'pread':
        return this.#withHandle(at.handle, async ({ model, real }) => {
          assert.deepEqual(await this.#rig.kernel.read(real, 0, 1000), model.bytes)
          assert.equal((await this.#rig.kernel.fstat(real)).size, model.bytes.length)
        })
      case 'fallocate':
        return this.#withHandle(at.handle, async ({ model, real }) => {
          const { mode, offset, length } = at
          const size = (mode & KEEP_SIZE) === 0 ? Math.max(model.bytes.length, offset + length) : model.bytes.length
          model.bytes = Buffer.concat([model.bytes, Buffer.alloc(size - model.bytes.length)])
          if ((mode & ~KEEP_SIZE) !== ALLOCATE)
            model.bytes.fill(0, Math.min(offset, size), Math.min(offset + length, size))
          await this.#rig.kernel.fallocate(real, mode, offset, length)
        })
      case 'copy':
        return this.#withHandle(at.handle, ({ model, real }) =>
          this.#withHandle(at.to, (to) => this.#copy(model, real, to, at.offset, at.at)),
        )
      case 'fsync':
        return this.#withHandle(at.handle, ({ real }) => this.#rig.kernel.fsync(real))
      case 'close':
        return this.#withHandle(at.handle, async (open) => {
          this.#handles.splice(this.#handles.indexOf(open), 1)
          await this.#rig.kernel.close(open.real)
        })
      case 'truncate':
        return this.#both(
          () => {
            const file = this.#model.file(at.path)
            const zeros = Buffer.alloc(Math.max(0, at.size - file.bytes.length))
            file.bytes = Buffer.concat([file.bytes, zeros]).subarray(0, at.size)
          },
          () => this.#rig.kernel.setattr(at.path, { size: at.size }),
        )
      case 'chmod':
        return this.#both(
          () => {
            const found = this.#model.get(at.path)
            if (found !== 'directory' && 'mode' in found) found.mode = at.mode
          },
          () => this.#rig.kernel.setattr(at.path, { mode: at.mode }),
        )
      case 'mkdir':
        return this.#both(
          () => this.#make(at.path, 'directory'),
          () => this.#rig.kernel.mkdir(at.path),
        )
      case 'symlink':
        return this.#both(
          () => this.#make(at.path, { target: at.target }),
          () => this.#rig.kernel.symlink(at.path, at.target),
        )
      case 'unlink':
        return this.#both(
          () => {
            if (this.#model.get(at.path) === 'directory') throw new Expected('STORE_IS_DIRECTORY')
            this.#model.tree.delete(at.path)
          },
          () => this.#rig.kernel.unlink(at.path),
        )
      case 'rmdir':
        return this.#both(
          () => {
            if (this.#model.get(at.path) !== 'directory') throw new Expected('STORE_NOT_DIRECTORY')
            if (this.#model.children(at.path).length > 0) throw new Expected('STORE_NOT_EMPTY')
            this.#model.tree.delete(at.path)
          },
          () => this.#rig.kernel.rmdir(at.path),
        )
      case 'rename':
        return this.#both(
          () => this.#model.rename(at.from, at.to),
          () => this.#rig.kernel.rename(at.from, at.to),
        )
      case 'list':
        return this.#both(
          () => {
            if (this.#model.get(at.path) !== 'directory') throw new Expected('STORE_NOT_DIRECTORY')
            return this.#model.children(at.path).toSorted()
          },
          () => this.#rig.kernel.names(at.path),
        )
      case 'read':
        return this.#both(
          () => this.#model.file(at.path).bytes.toString('latin1'),
          async () => {
            const { mode } = await this.#rig.kernel.stat(at.path)
            if ((mode & 0o170000) === 0o120000) throw new OperationError('INPUT_INVALID', 'Cannot read a symlink')
            return (await this.#rig.kernel.readFile(at.path)).toString('latin1')
          },
        )
      case 'wait':
        this.#rig.clock.ms += at.ms
    }
  }

  async #copy(from: ModelFile, real: OpenedFile, to: Handles, offset: number, at: number): Promise<void> {
    const { kernel } = this.#rig
    const bytes = Buffer.from(from.bytes.subarray(offset, offset + 8))
    if (from === to.model && bytes.length > 0 && Math.abs(offset - at) < bytes.length) {
      await assert.rejects(kernel.copy(real, offset, to.real, at, 8), { code: 'INPUT_INVALID' })
      return
    }
    if (bytes.length > 0) {
      const missing = Math.max(0, at + bytes.length - to.model.bytes.length)
      to.model.bytes = Buffer.concat([to.model.bytes, Buffer.alloc(missing)])
      bytes.copy(to.model.bytes, at)
    }
    assert.equal(await kernel.copy(real, offset, to.real, at, 8), bytes.length)
  }

  /** Runs both, and compares their values, or that both fail. */
  async #both(model: () => unknown, real: () => Promise<unknown>): Promise<void> {
    let expected: unknown
    let value: unknown
    try {
      value = model()
    } catch (error) {
      if (!(error instanceof Expected)) throw error
      expected = error
    }
    try {
      const found = await real()
      assert.equal(expected, undefined, 'the model expects an error')
      if (value !== undefined) assert.deepEqual(found, value)
    } catch (error) {
      if (!isOperationError(error)) throw error
      assert.ok(expected instanceof Expected, `the model expects no error, but: ${error.message}`)
      assert.equal(error.code, expected.code, error.message)
    }
  }

  #make(at: string, node: ModelNode): void {
    if (this.#model.get(parentOf(at)) !== 'directory') throw new Expected('STORE_NOT_DIRECTORY')
    if (this.#model.find(at) !== undefined) throw new Expected('FILE_EXISTS')
    this.#model.tree.set(at, node)
  }

  #modelOpen(at: string, create: boolean, truncate: boolean): ModelFile {
    let found = create ? this.#model.find(at) : this.#model.get(at)
    if (found === undefined) {
      if (this.#model.get(parentOf(at)) !== 'directory') throw new Expected('STORE_NOT_DIRECTORY')
      found = { bytes: Buffer.alloc(0), mode: 0o644 }
      this.#model.tree.set(at, found)
    }
    if (found === 'directory') throw new Expected('STORE_IS_DIRECTORY')
    if ('target' in found) throw new Expected('INPUT_INVALID')
    if (truncate) found.bytes = Buffer.alloc(0)
    return found
  }

  #modelWrite(at: string, data: string): void {
    this.#modelOpen(at, true, true).bytes = Buffer.from(data, 'latin1')
  }

  async #open(at: string, create: boolean, truncate: boolean): Promise<void> {
    if (this.#handles.length >= 4) return
    let model: ModelFile | undefined
    await this.#both(
      () => {
        model = this.#modelOpen(at, create, truncate)
      },
      async () => {
        const flags = O_RDWR | (truncate ? constants.O_TRUNC : 0)
        const real = create ? await this.#rig.kernel.create(at, flags) : await this.#rig.kernel.open(at, flags)
        if (model !== undefined) this.#handles.push({ model, real })
      },
    )
  }

  async #withHandle(index: number, use: (open: Handles) => Promise<void>): Promise<void> {
    const open = this.#handles[index]
    if (open !== undefined) await use(open)
  }

  /** Closes all, and compares the tree as the mount shows it with the model, and with what the store has. */
  async finish(store: Store): Promise<void> {
    for (const { real } of this.#handles.splice(0)) await this.#rig.kernel.close(real)
    await this.#rig.fs.publishAll()
    assert.equal(this.#rig.fs.status.dirtyFiles, 0)
    await this.#compare('', store)
    this.#rig.clock.ms += 5000
    await this.#compare('', store)
    assert.equal(this.#rig.fs.status.openFiles, 0)
    assert.equal(this.#rig.fs.status.memoryBytes, 0)
  }

  async #compare(directory: string, store: Store): Promise<void> {
    const names = this.#model.children(directory).toSorted()
    assert.deepEqual(await this.#rig.kernel.names(directory), names, `names of "${directory}"`)
    for (const child of names) {
      const at = joinPath(directory, child)
      const node = this.#model.get(at)
      if (node === 'directory') await this.#compare(at, store)
      else if ('target' in node) assert.equal(await this.#rig.kernel.readlink(at), node.target)
      else {
        assert.deepEqual(await this.#rig.kernel.readFile(at), node.bytes, at)
        assert.deepEqual(await (await store.read(at)).bytes(), node.bytes, `${at} in the store`)
        assert.equal((await this.#rig.kernel.stat(at)).mode & 0o7777, node.mode, `mode of ${at}`)
        assert.equal((await store.stat(at)).attributes?.mode, node.mode, `mode of ${at} in the store`)
      }
    }
  }
}

/** `store` as S3 does it: a version is of the bytes and the place, so that moves and attributes change it. */
function restless(store: Store): Store {
  return replacing(store, {
    rename: async (from, to, options) => {
      const entry = await store.rename(from, to, options)
      for await (const page of store.list('', { recursive: true })) {
        for (const { path: at } of page) {
          if (!isWithin(at, to)) continue
          const { version } = await store.stat(at)
          const after = await store.setAttributes(at, {}, { guard: { kind: 'any' } })
          if (after.kind !== 'directory') options.onVersionChanged?.(at, version, after.version)
        }
      }
      return entry.kind === 'directory' ? entry : store.stat(to)
    },
  })
}

/** `store` that takes its time for puts, so that other operations come while files wait for theirs. */
function lagging(store: Store): Store {
  return replacing(store, {
    put: async (at, source, options) => {
      await delay(3)
      return store.put(at, source, options)
    },
  })
}

/** `store` that makes every change of a name or of attributes, and loses its answer. */
function mute(store: Store): Store {
  const losing =
    <A extends unknown[], R>(call: (...args: A) => Promise<R>) =>
    async (...args: A): Promise<R> => {
      await call(...args)
      throw new OperationError('STORE_TIMEOUT', 'Cannot tell what was done: no answer')
    }
  return replacing(store, {
    rename: losing(store.rename.bind(store)),
    remove: losing(store.remove.bind(store)),
    removeDirectory: losing(store.removeDirectory.bind(store)),
    setAttributes: losing(store.setAttributes.bind(store)),
  })
}

/** What is there at first. */
const FURNISHED: readonly Step[] = [
  { do: 'mkdir', path: 'd' },
  { do: 'mkdir', path: 'e' },
  { do: 'write', path: 'a', text: 'first' },
  { do: 'write', path: 'd/a', text: 'second' },
  { do: 'open', path: 'a', create: false, truncate: false },
  { do: 'open', path: 'd/a', create: false, truncate: false },
]

const KINDS: readonly (readonly [string, (store: Store) => Store, RigOptions])[] = [
  ['whose listings tell all', (store) => store, {}],
  ['whose listings tell no attributes', untold, {}],
  ['whose versions change with a move', (store) => untold(restless(store)), {}],
  ['with edits laid over what is stored', (store) => store, { wholeBytesMax: 3 }],
  ['that closes do not wait for', (store) => lagging(restless(store)), { writeBack: true }],
  ['that loses its answers', mute, {}],
  ['that loses its answers, where nothing is believed', (store) => mute(restless(store)), { validityMs: 0 }],
  ['that loses its answers, where all is believed', (store) => mute(untold(store)), { validityMs: 3_600_000 }],
  ['that loses its answers, where closes do not wait', (store) => mute(lagging(store)), { writeBack: true }],
  ['with edits laid over versions that change', (store) => untold(restless(store)), { wholeBytesMax: 0 }],
]

for (const [kind, decorate, options] of KINDS) {
  test(`random operations are seen as on a plain tree, over a store ${kind}`, async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 60 }), async (steps) => {
        const store = openMemoryStore()
        await using it = await rig(decorate(store), options)
        const run = new Run(it)
        for (const at of FURNISHED) await run.take(at)
        for (const at of steps) await run.take(at)
        await run.finish(store)
      }),
      { seed: SEED, numRuns: RUNS },
    )
  })
}
