/**
 * What becomes of names, open files and what is written to them when the answer of the store to a change is lost: told at once
 * where the store answers when it is asked, and else by whoever needs to know.
 */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'

import { OperationError } from '#base/errors.ts'
import { setLogLevel } from '#base/log.ts'
import { openFaultyStore, type Fault, type FaultyOperation, type FaultyStore } from '#store/faulty-store.ts'
import { openMemoryStore } from '#store/memory-store.ts'
import { isWithin } from '#store/path.ts'
import { ANY, type Store } from '#store/store.ts'

import { codeOf, content, O_RDONLY, O_RDWR, replacing, rig, type OpenedFile, type Rig } from './kernel-double.ts'

setLogLevel('silent')

const LOST: Fault = { kind: 'lost' }
const FAILED: Fault = { kind: 'error', code: 'STORE_UNAVAILABLE' }
const RENAME_EXCHANGE = 2
const VALIDITIES = [0, 1000, 3_600_000]

/** A store that does not answer while `isDown`, and what others see of it. */
interface Outage {
  readonly inner: Store
  readonly store: Store
  readonly faulty: FaultyStore
  isDown: boolean
}

/** `store` whose moves copy, and so give what they move other versions, as S3's may. */
function copying(store: Store): Store {
  return replacing(store, {
    rename: async (from, to, options) => {
      const entry = await store.rename(from, to, options)
      const moved = entry.kind === 'directory' ? await Array.fromAsync(store.list('', { recursive: true })) : [[entry]]
      for (const { path, kind, version } of moved.flat()) {
        if (kind === 'directory' || !isWithin(path, to)) continue
        const after = await store.setAttributes(path, {}, { guard: ANY })
        options.onVersionChanged?.(path, version, after.version)
      }
      return entry.kind === 'directory' ? entry : store.stat(to)
    },
  })
}

function outage(decorate: (store: Store) => Store = (store) => store): Outage {
  const inner = openMemoryStore()
  const faulty = openFaultyStore(decorate(inner))
  const it: { -readonly [K in keyof Outage]: Outage[K] } = { inner, faulty, isDown: false, store: faulty }
  it.store = new Proxy<Store>(faulty, {
    get: (target, key) => {
      const value = Reflect.get(target, key) as unknown
      if (typeof value !== 'function') return value
      return (...args: unknown[]): unknown => {
        if (it.isDown) {
          const error = new OperationError('STORE_UNAVAILABLE', `Cannot ${String(key)}: nobody answers`)
          if (key === 'list') return failing(error)
          return Promise.reject(error)
        }
        return Reflect.apply(value, target, args) as unknown
      }
    },
  })
  return it
}

function failing(error: OperationError): AsyncIterable<never> {
  return { [Symbol.asyncIterator]: () => ({ next: () => Promise.reject(error) }) }
}

function conflicts(it: Rig): string[] {
  const directory = join(it.stagingDirectory, 'conflicts')
  return readdirSync(directory).map((name) => readFileSync(join(directory, name), 'utf8'))
}

/** The next call of `operation` is done, or not, and from then on nobody answers. */
function loseNext(it: Outage, operation: FaultyOperation, fault: Fault): void {
  const down = replacing(it.faulty, {})
  const call = Reflect.get(down, operation) as (...args: unknown[]) => Promise<unknown>
  it.faulty.failNext(operation, fault)
  Object.defineProperty(it.faulty, operation, {
    configurable: true,
    value: async (...args: unknown[]) => {
      delete (it.faulty as unknown as Record<string, unknown>)[operation]
      Object.defineProperty(it.faulty, operation, { configurable: true, writable: true, value: call })
      try {
        return await call(...args)
      } finally {
        it.isDown = true
      }
    },
  })
}

async function readAll(it: Rig, file: OpenedFile): Promise<string> {
  return (await it.kernel.read(file, 0, 1000)).toString()
}

for (const validityMs of VALIDITIES) {
  for (const versions of ['kept', 'changed'] as const) {
    const name = `(validity ${validityMs} ms, versions ${versions} by moves)`
    const decorate = versions === 'kept' ? (store: Store): Store => store : copying

    test(`[S110] a rename that took effect and lost its answer is done ${name}`, async () => {
      const at = outage(decorate)
      await using it = await rig(at.store, { validityMs })
      await it.kernel.writeFile('from', 'text')
      const file = await it.kernel.open('from', O_RDWR)
      at.faulty.failNext('rename', LOST)
      await it.kernel.rename('from', 'to')
      assert.deepEqual(await it.kernel.names(''), ['to'])
      await it.kernel.write(file, 0, 'T')
      await it.kernel.close(file)
      assert.equal(await content(at.inner, 'to'), 'Text')
      assert.deepEqual(conflicts(it), [])
    })

    test(`[S110] a rename that did not take effect fails, and all is as it was ${name}`, async () => {
      const at = outage(decorate)
      await using it = await rig(at.store, { validityMs })
      await it.kernel.writeFile('from', 'text')
      await it.kernel.writeFile('to', 'other')
      const files = [await it.kernel.open('from', O_RDWR), await it.kernel.open('to', O_RDWR)]
      at.faulty.failNext('rename', FAILED)
      assert.equal(await codeOf(it.kernel.rename('from', 'to')), 'STORE_UNAVAILABLE')
      for (const file of files) {
        await it.kernel.write(file, 0, 'T')
        await it.kernel.close(file)
      }
      assert.equal(await content(at.inner, 'from'), 'Text')
      assert.equal(await content(at.inner, 'to'), 'Tther')
      assert.deepEqual(conflicts(it), [])
    })

    for (const fault of [LOST, FAILED]) {
      const done = fault === LOST
      const outcome = done ? 'took effect' : 'did not take effect'

      test(`[S111] a file that is open through an outage in which its rename ${outcome} goes on where it is ${name}`, async () => {
        const at = outage(decorate)
        await using it = await rig(at.store, { validityMs })
        await it.kernel.writeFile('from', 'text')
        const file = await it.kernel.open('from', O_RDWR)
        loseNext(at, 'rename', fault)
        await assert.rejects(it.kernel.rename('from', 'to'))
        for (const each of ['from', 'to']) assert.equal(await codeOf(it.kernel.find(each)), 'STORE_UNAVAILABLE')
        assert.equal(await codeOf(it.kernel.names('')), 'STORE_UNAVAILABLE')
        at.isDown = false
        assert.equal(await readAll(it, file), 'text')
        assert.deepEqual(await it.kernel.names(''), [done ? 'to' : 'from'])
        await it.kernel.write(file, 0, 'T')
        await it.kernel.close(file)
        await assertOnly(it, at, done ? 'to' : 'from', 'Text')
      })

      test(`[S111] what is written through an outage in which the rename ${outcome} is stored where the file is ${name}`, async () => {
        const at = outage(decorate)
        await using it = await rig(at.store, { validityMs })
        await it.kernel.writeFile('from', 'text')
        const file = await it.kernel.open('from', O_RDWR)
        await it.kernel.write(file, 0, 'T')
        await it.kernel.fsync(file)
        loseNext(at, 'rename', fault)
        await assert.rejects(it.kernel.rename('from', 'to'))
        await it.kernel.write(file, 1, 'E')
        assert.equal(await codeOf(it.kernel.close(file)), 'STORE_UNAVAILABLE')
        at.isDown = false
        assert.deepEqual(await it.fs.publishFailed(), [])
        await assertOnly(it, at, done ? 'to' : 'from', 'TExt')
      })

      test(`[S111] a file that was to be replaced in an outage is where it is, or gone: the rename ${outcome} ${name}`, async () => {
        const at = outage(decorate)
        await using it = await rig(at.store, { validityMs })
        await it.kernel.writeFile('from', 'text')
        await it.kernel.writeFile('to', 'other')
        const file = await it.kernel.open('to', O_RDWR)
        await it.kernel.write(file, 0, 'O')
        loseNext(at, 'rename', fault)
        await assert.rejects(it.kernel.rename('from', 'to'))
        assert.equal(await readAll(it, file), 'Other')
        at.isDown = false
        await it.kernel.close(file)
        assert.deepEqual(await it.kernel.names(''), done ? ['to'] : ['from', 'to'])
        assert.equal(await content(at.inner, 'to'), done ? 'text' : 'Other')
        assert.equal((await it.kernel.readFile('to')).toString(), done ? 'text' : 'Other')
        assert.deepEqual(conflicts(it), [])
      })

      test(`[S111] what is open in a directory goes on where it is: its rename in an outage ${outcome} ${name}`, async () => {
        const at = outage(decorate)
        await using it = await rig(at.store, { validityMs })
        await it.kernel.mkdir('from')
        await it.kernel.mkdir('from/in')
        await it.kernel.writeFile('from/in/read', 'text')
        await it.kernel.writeFile('from/written', 'text')
        await it.kernel.writeFile('from/other', 'text')
        const reader = await it.kernel.open('from/in/read', O_RDONLY)
        const writer = await it.kernel.open('from/written', O_RDWR)
        await it.kernel.write(writer, 0, 'T')
        await it.kernel.fsync(writer)
        loseNext(at, 'rename', fault)
        await assert.rejects(it.kernel.rename('from', 'to'))
        assert.equal(await codeOf(it.kernel.names('')), 'STORE_UNAVAILABLE')
        await it.kernel.write(writer, 1, 'E')
        at.isDown = false
        const directory = done ? 'to' : 'from'
        await it.kernel.close(writer)
        assert.equal(await content(at.inner, `${directory}/written`), 'TExt')
        assert.equal(await readAll(it, reader), 'text')
        assert.deepEqual(await it.kernel.names(''), [directory])
        assert.deepEqual(await it.kernel.names(directory), ['in', 'other', 'written'])
        assert.equal((await it.kernel.readFile(`${directory}/in/read`)).toString(), 'text')
        assert.equal(await it.kernel.exists(done ? 'from/other' : 'to/other').catch(() => false), false)
        assert.deepEqual(conflicts(it), [])
      })

      test(`[S111] two entries that were to be exchanged are where they are: the exchange in an outage ${outcome} ${name}`, async () => {
        const at = outage()
        await using it = await rig(at.store, { validityMs })
        await it.kernel.mkdir('one')
        await it.kernel.writeFile('one/a', 'first')
        await it.kernel.writeFile('two', 'second')
        const files = [await it.kernel.open('one/a', O_RDWR), await it.kernel.open('two', O_RDWR)] as const
        for (const file of files) {
          await it.kernel.write(file, 0, 'X')
          await it.kernel.fsync(file)
        }
        loseNext(at, 'exchange', fault)
        await assert.rejects(it.kernel.rename('one', 'two', RENAME_EXCHANGE))
        for (const file of files) await it.kernel.write(file, 1, 'Y')
        at.isDown = false
        for (const file of files) await it.kernel.close(file)
        assert.equal(await content(at.inner, done ? 'two/a' : 'one/a'), 'XYrst')
        assert.equal(await content(at.inner, done ? 'one' : 'two'), 'XYcond')
        assert.deepEqual(await it.kernel.names(done ? 'two' : 'one'), ['a'])
        assert.deepEqual(conflicts(it), [])
      })

      test(`[S112] what is written to a file whose removal in an outage ${outcome} goes with it, or is stored ${name}`, async () => {
        const at = outage()
        await using it = await rig(at.store, { validityMs })
        await it.kernel.writeFile('file', 'text')
        const file = await it.kernel.open('file', O_RDWR)
        await it.kernel.write(file, 0, 'T')
        loseNext(at, 'remove', fault)
        await assert.rejects(it.kernel.unlink('file'))
        await it.kernel.write(file, 1, 'E')
        assert.equal(await codeOf(it.kernel.fsync(file)), 'STORE_UNAVAILABLE')
        at.isDown = false
        assert.equal(await it.kernel.exists('file'), !done)
        await it.kernel.close(file)
        assert.equal(it.fs.status.dirtyFiles, 0)
        if (done) await assert.rejects(at.inner.stat('file'), { code: 'STORE_NOT_FOUND' })
        else assert.equal(await content(at.inner, 'file'), 'TExt')
        assert.deepEqual(conflicts(it), [])
      })

      test(`[S112] a directory whose removal in an outage ${outcome} is ${done ? 'gone' : 'there'} ${name}`, async () => {
        const at = outage()
        await using it = await rig(at.store, { validityMs })
        await it.kernel.mkdir('dir')
        loseNext(at, 'removeDirectory', fault)
        await assert.rejects(it.kernel.rmdir('dir'))
        assert.equal(await codeOf(it.kernel.mkdir('dir')), 'STORE_UNAVAILABLE')
        at.isDown = false
        assert.equal(
          await codeOf(it.kernel.mkdir('dir').then(() => Promise.reject(made()))),
          done ? 'INPUT_INVALID' : 'FILE_EXISTS',
        )
        assert.deepEqual(await it.kernel.names(''), ['dir'])
      })
    }
  }
}

for (const validityMs of VALIDITIES) {
  test(`[S110] removals that took effect and lost their answers are done (validity ${validityMs} ms)`, async () => {
    const at = outage()
    await using it = await rig(at.store, { validityMs })
    await it.kernel.mkdir('dir')
    await it.kernel.writeFile('file', 'text')
    const file = await it.kernel.open('file', O_RDWR)
    await it.kernel.write(file, 0, 'T')
    at.faulty.failNext('remove', LOST)
    at.faulty.failNext('removeDirectory', LOST)
    await it.kernel.unlink('file')
    await it.kernel.rmdir('dir')
    assert.deepEqual(await it.kernel.names(''), [])
    await it.kernel.close(file)
    assert.deepEqual(await Array.fromAsync(at.inner.list('')), [])
    assert.deepEqual(conflicts(it), [])
  })

  test(`[S112] what is not yet stored of a file is not given up for a removal that the store may refuse later (validity ${validityMs} ms)`, async () => {
    const at = outage((inner) =>
      replacing(inner, {
        removeAll: async (removals) =>
          removals.map(({ path }) => new OperationError('STORE_DENIED', `Cannot remove "${path}": not allowed`)),
        remove: async (path, options) => {
          if (path === 'written') throw new OperationError('STORE_DENIED', `Cannot remove "${path}": not allowed`)
          await inner.remove(path, options)
        },
      }),
    )
    await using it = await rig(at.store, { validityMs })
    for (const name of ['a', 'b', 'written', 'c']) await it.kernel.writeFile(name, 'text')
    const file = await it.kernel.open('written', O_RDWR)
    await it.kernel.write(file, 0, 'T')
    await it.kernel.unlink('a')
    await it.kernel.unlink('b')
    assert.equal(await codeOf(it.kernel.unlink('written')), 'STORE_DENIED')
    await it.kernel.unlink('c')
    await it.kernel.close(file)
    assert.equal(await content(at.inner, 'written'), 'Text')
    assert.equal((await it.fs.publishAll()).length, 1)
    assert.deepEqual(await it.kernel.names(''), ['written'])
  })

  test(`[S111] a file that is at neither name after its rename is kept (validity ${validityMs} ms)`, async () => {
    const at = outage()
    await using it = await rig(at.store, { validityMs })
    await it.kernel.writeFile('from', 'text')
    const file = await it.kernel.open('from', O_RDWR)
    await it.kernel.write(file, 0, 'T')
    await it.kernel.fsync(file)
    loseNext(at, 'rename', LOST)
    await assert.rejects(it.kernel.rename('from', 'to'))
    await it.kernel.write(file, 1, 'E')
    await at.inner.put('to', Buffer.from('theirs'), { guard: ANY })
    at.isDown = false
    assert.equal(await codeOf(it.kernel.close(file)), 'STORE_CONFLICT')
    assert.deepEqual(conflicts(it), ['TExt'])
    assert.deepEqual(await it.kernel.names(''), ['to'])
    assert.equal((await it.kernel.readFile('to')).toString(), 'theirs')
  })

  test(`[S111] a move that was cut between its copy and its removal is finished (validity ${validityMs} ms)`, async () => {
    const at = outage((inner) =>
      replacing(inner, {
        rename: async (from, to, { targetGuard }) => {
          await inner.copy(from, to, { guard: targetGuard })
          throw new OperationError('STORE_UNAVAILABLE', 'Cannot rename: the answer to its removal is lost')
        },
      }),
    )
    await using it = await rig(at.store, { validityMs })
    await it.kernel.writeFile('from', 'text')
    const file = await it.kernel.open('from', O_RDWR)
    await it.kernel.rename('from', 'to')
    await it.kernel.write(file, 0, 'T')
    await it.kernel.close(file)
    await assertOnly(it, at, 'to', 'Text')
  })

  test(`[S111] what is open in a directory of which a half has moved goes on where it is (validity ${validityMs} ms)`, async () => {
    const at = outage((inner) =>
      replacing(inner, {
        rename: async (from, to) => {
          await inner.makeDirectory(to, { guard: ANY })
          await inner.makeDirectory(`${to}/in`, { guard: ANY })
          await inner.rename(`${from}/in/moved`, `${to}/in/moved`, { guard: ANY, targetGuard: ANY })
          throw new OperationError('STORE_UNAVAILABLE', 'Cannot rename: nobody answers')
        },
      }),
    )
    await using it = await rig(at.store, { validityMs })
    await it.kernel.mkdir('from')
    await it.kernel.mkdir('from/in')
    for (const each of ['moved', 'left']) await it.kernel.writeFile(`from/in/${each}`, 'text')
    const files = [await it.kernel.open('from/in/moved', O_RDWR), await it.kernel.open('from/in/left', O_RDWR)]
    assert.equal(await codeOf(it.kernel.rename('from', 'to')), 'STORE_UNAVAILABLE')
    for (const file of files) {
      assert.equal(await readAll(it, file), 'text')
      await it.kernel.write(file, 0, 'T')
      await it.kernel.close(file)
    }
    assert.deepEqual(await it.kernel.names('from/in'), ['left'])
    assert.deepEqual(await it.kernel.names('to/in'), ['moved'])
    for (const path of ['from/in/left', 'to/in/moved']) {
      assert.equal(await content(at.inner, path), 'Text')
      assert.equal((await it.kernel.readFile(path)).toString(), 'Text')
    }
    assert.deepEqual(conflicts(it), [])
  })
}

/** Says that a call has succeeded, by a code that none of those that are asked for has. */
function made(): OperationError {
  return new OperationError('INPUT_INVALID', 'Cannot fail: it was made')
}

async function assertOnly(it: Rig, at: Outage, name: string, text: string): Promise<void> {
  assert.equal(await content(at.inner, name), text)
  assert.deepEqual(await it.kernel.names(''), [name])
  assert.equal((await it.kernel.readFile(name)).toString(), text)
  const stored = (await Array.fromAsync(at.inner.list(''))).flat().map(({ path }) => path)
  assert.deepEqual(stored, [name])
  assert.equal(it.fs.status.dirtyFiles, 0)
  assert.deepEqual(conflicts(it), [])
}
