import assert from 'node:assert/strict'
import { appendFileSync, mkdirSync, renameSync, rmSync, statSync, unlinkSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, test } from 'node:test'

import { isOperationError, OperationError } from '#base/errors.ts'
import { ABSENT, ANY, type Store } from '#store/store.ts'

import { sync, tick, withParts, type Parts } from './parts-double.ts'
import type { TreeEntry } from './tree.ts'

async function textOf({ store }: Parts, path: string): Promise<string> {
  return Buffer.from(await (await store.read(path)).bytes()).toString()
}

async function absent({ store }: Parts, path: string): Promise<void> {
  await assert.rejects(store.stat(path), (error) => isOperationError(error, 'STORE_NOT_FOUND', 'STORE_NOT_DIRECTORY'))
}

/** A store whose method fails the next time it is called, before or after it has done its work. */
function failing(name: 'put' | 'rename', when: 'before' | 'after'): { wrap: (store: Store) => Store; arm: () => void } {
  let isArmed = false
  const fail = (): never => {
    isArmed = false
    throw new OperationError('STORE_UNAVAILABLE', 'Cannot reach the store: made up')
  }
  const wrap = (store: Store): Store =>
    new Proxy(store, {
      get(target, property) {
        const value: unknown = Reflect.get(target, property, target)
        if (typeof value !== 'function') return value
        if (property !== name) return value.bind(target) as unknown
        return async (...args: unknown[]) => {
          if (isArmed && when === 'before') fail()
          const result: unknown = await (value.apply(target, args) as Promise<unknown>)
          if (isArmed) fail()
          return result
        }
      },
    })
  return { wrap, arm: () => (isArmed = true) }
}

describe('a path is decided about and made equal', () => {
  test('a file is sent, and not again while it is the same; an edit that keeps size and time is', () =>
    withParts({}, async (parts) => {
      const file = join(parts.directory, 'a')
      writeFileSync(file, 'aaaa')
      await tick()
      assert.equal(await sync(parts, 'a'), 'sent')
      assert.equal(await sync(parts, 'a'), 'nothing')
      const { atime, mtime } = statSync(file)
      writeFileSync(file, 'bbbb')
      utimesSync(file, atime, mtime)
      await tick()
      assert.equal(await sync(parts, 'a'), 'sent')
      assert.equal(await textOf(parts, 'a'), 'bbbb')
    }))

  test('what is gone is deleted, with the directories that were made for it and all that lies in them', () =>
    withParts({ deleteRules: { isMeant: true, countMax: undefined, percentMax: 50 } }, async (parts) => {
      mkdirSync(join(parts.directory, 'd/e'), { recursive: true })
      for (const path of ['d/e/1', 'd/e/2', 'd/3']) writeFileSync(join(parts.directory, path), path)
      for (const path of ['d/e/1', 'd/e/2', 'd/3']) await sync(parts, path)
      rmSync(join(parts.directory, 'd'), { recursive: true })
      assert.equal(await sync(parts, 'd'), 'deleted')
      await absent(parts, 'd')
      assert.equal(await sync(parts, 'd'), 'nothing')
      assert.equal(await sync(parts, 'd/e/1'), 'nothing')
    }))

  test('a file takes the place of a directory, and a directory that of a file', () =>
    withParts({ deleteRules: { isMeant: true, countMax: undefined, percentMax: 50 } }, async (parts) => {
      const at = (path: string): string => join(parts.directory, path)
      mkdirSync(at('x'))
      writeFileSync(at('x/in'), 'in')
      writeFileSync(at('y'), 'y')
      await sync(parts, 'x/in')
      await sync(parts, 'y')
      rmSync(at('x'), { recursive: true })
      writeFileSync(at('x'), 'now a file')
      unlinkSync(at('y'))
      mkdirSync(at('y/z'), { recursive: true })
      writeFileSync(at('y/z/in'), 'deep')
      await sync(parts, 'x')
      await sync(parts, 'y/z/in')
      assert.equal(await textOf(parts, 'x'), 'now a file')
      assert.equal(await textOf(parts, 'y/z/in'), 'deep')
    }))

  test('[S141] an upload whose answer is lost leaves nothing behind when the file is gone then', async () => {
    const { wrap, arm } = failing('put', 'after')
    await withParts({ wrap }, async (parts) => {
      writeFileSync(join(parts.directory, 'a'), 'a')
      writeFileSync(join(parts.directory, 'b'), 'b')
      await sync(parts, 'b')
      arm()
      await assert.rejects(sync(parts, 'a'), (error) => isOperationError(error, 'STORE_UNAVAILABLE'))
      assert.equal(await textOf(parts, 'a'), 'a')
      unlinkSync(join(parts.directory, 'a'))
      assert.equal(await sync(parts, 'a'), 'deleted')
      await absent(parts, 'a')
    })
  })

  test('what a listing told of the target goes, though its source was gone before anything was sent', () =>
    withParts({ deleteRules: { isMeant: true, countMax: undefined, percentMax: 50 } }, async (parts) => {
      const { version } = await parts.store.put('a', Buffer.from('old'), { guard: ABSENT })
      const listed: TreeEntry = { path: 'a', kind: 'file', size: 3, mtime: undefined, version }
      writeFileSync(join(parts.directory, 'a'), 'newer')
      const decision = await parts.decider.decide('a', listed)
      assert.equal(decision.do, 'send')
      unlinkSync(join(parts.directory, 'a'))
      await assert.rejects(parts.executor.carryOut(decision), (error) => isOperationError(error, 'STORE_NOT_FOUND'))
      assert.equal(await sync(parts, 'a'), 'deleted')
      await absent(parts, 'a')
    }))

  test('[S133] a file that grows while it is read is not stored, and is sent again', () =>
    withParts({}, async (parts) => {
      const file = join(parts.directory, 'a')
      writeFileSync(file, Buffer.alloc(3 << 20, 1))
      await tick()
      const decision = await parts.decider.decide('a', null)
      const carried = parts.executor.carryOut(decision)
      appendFileSync(file, 'more')
      const outcome = await carried.catch((error: unknown) => {
        assert.ok(isOperationError(error, 'FILE_STALE'), String(error))
        return 'refused'
      })
      assert.ok(outcome === 'refused' || outcome === 'sent' || outcome === 'changed', outcome)
      await tick()
      await sync(parts, 'a')
      assert.equal((await parts.store.stat('a')).size, (3 << 20) + 4)
    }))
})

describe('[trap 23] what somebody else put into the target', () => {
  test('stays where it replaced what a comparison wants deleted, and is told', () =>
    withParts({}, async (parts) => {
      const { store, executor } = parts
      const before = await store.put('a', Buffer.from('of the sync'), { guard: ABSENT })
      const kept = await store.put('b', Buffer.from('of the sync'), { guard: ABSENT })
      await store.put('a', Buffer.from('of somebody else'), { guard: ANY })
      const targets = [
        { path: 'a', kind: 'file', size: 11, mtime: undefined, version: before.version },
        { path: 'b', kind: 'file', size: 11, mtime: undefined, version: kept.version },
      ] as const
      const left = await executor.deleteAll(targets)
      assert.deepEqual(
        [...left].map(([{ path }, error]) => [path, isOperationError(error, 'STORE_CONFLICT')]),
        [['a', true]],
      )
      assert.equal(await textOf(parts, 'a'), 'of somebody else')
      await absent(parts, 'b')
    }))

  test('stays in a directory that goes where the filter leaves it out', () =>
    withParts(
      {
        filter: { globs: [{ kind: 'exclude', glob: '*.local' }] },
        deleteRules: { isMeant: true, countMax: undefined, percentMax: 50 },
      },
      async (parts) => {
        mkdirSync(join(parts.directory, 'd'))
        writeFileSync(join(parts.directory, 'd/a'), 'a')
        await sync(parts, 'd/a')
        await parts.store.put('d/notes.local', Buffer.from('theirs'), { guard: ABSENT })
        rmSync(join(parts.directory, 'd'), { recursive: true })
        assert.equal(await sync(parts, 'd'), 'deleted')
        await absent(parts, 'd/a')
        assert.equal(await textOf(parts, 'd/notes.local'), 'theirs')
      },
    ))

  test('is replaced where the source has another file, which wins', () =>
    withParts({}, async (parts) => {
      writeFileSync(join(parts.directory, 'a'), 'first')
      await sync(parts, 'a')
      await parts.store.put('a', Buffer.from('theirs'), { guard: ANY })
      writeFileSync(join(parts.directory, 'a'), 'second version')
      assert.equal(await sync(parts, 'a'), 'sent')
      assert.equal(await textOf(parts, 'a'), 'second version')
    }))
})

describe('[S136] a rename', () => {
  const signal = new AbortController().signal
  const move = (from: string, to: string, isDirectory = false) => ({ kind: 'move', from, to, isDirectory }) as const

  test('of a file is a rename in the target, and nothing is sent', () =>
    withParts({}, async (parts) => {
      writeFileSync(join(parts.directory, 'a'), 'a')
      await tick()
      await sync(parts, 'a')
      renameSync(join(parts.directory, 'a'), join(parts.directory, 'b'))
      assert.equal(await parts.mover.move(move('a', 'b'), signal), true)
      await absent(parts, 'a')
      assert.equal(await textOf(parts, 'b'), 'a')
      await tick()
      assert.equal(await sync(parts, 'b'), 'nothing')
    }))

  test('[S130] hides no edit before it, though that put size and time back', () =>
    withParts({}, async (parts) => {
      const file = join(parts.directory, 'a')
      writeFileSync(file, 'aaaa')
      await tick()
      await sync(parts, 'a')
      const { atime, mtime } = statSync(file)
      writeFileSync(file, 'bbbb')
      utimesSync(file, atime, mtime)
      renameSync(file, join(parts.directory, 'b'))
      await tick()
      await parts.mover.move(move('a', 'b'), signal)
      await sync(parts, 'b')
      assert.equal(await textOf(parts, 'b'), 'bbbb')
    }))

  test('of a directory takes along all that is known of it', () =>
    withParts({}, async (parts) => {
      mkdirSync(join(parts.directory, 'd/e'), { recursive: true })
      for (const path of ['d/1', 'd/e/2']) writeFileSync(join(parts.directory, path), path)
      await tick()
      for (const path of ['d/1', 'd/e/2']) await sync(parts, path)
      renameSync(join(parts.directory, 'd'), join(parts.directory, 'f'))
      assert.equal(await parts.mover.move(move('d', 'f', true), signal), true)
      assert.equal(await textOf(parts, 'f/e/2'), 'd/e/2')
      for (const path of ['f/1', 'f/e/2', 'f/e', 'd/1']) assert.equal(await sync(parts, path), 'nothing', path)
    }))

  test('is not believed where something is at the old name, or nothing at the new one', () =>
    withParts({}, async (parts) => {
      writeFileSync(join(parts.directory, 'a'), 'a')
      await sync(parts, 'a')
      assert.equal(await parts.mover.move(move('a', 'b'), signal), false)
      writeFileSync(join(parts.directory, 'b'), 'b')
      assert.equal(await parts.mover.move(move('a', 'b'), signal), false)
      assert.equal(await textOf(parts, 'a'), 'a')
    }))

  test('that broke off is mended: what it had moved and what not', async () => {
    const { wrap, arm } = failing('rename', 'before')
    const deleteRules = { isMeant: true, countMax: undefined, percentMax: 50 }
    await withParts({ wrap, deleteRules }, async (parts) => {
      mkdirSync(join(parts.directory, 'd'))
      for (const path of ['d/1', 'd/2', 'd/3']) writeFileSync(join(parts.directory, path), path)
      await tick()
      for (const path of ['d/1', 'd/2', 'd/3']) await sync(parts, path)
      renameSync(join(parts.directory, 'd'), join(parts.directory, 'f'))
      arm()
      await assert.rejects(parts.mover.move(move('d', 'f', true), signal))
      // One of them had been moved, and another is gone since.
      await parts.store.rename('d/2', 'f/2', { guard: ANY, targetGuard: ANY })
      unlinkSync(join(parts.directory, 'f/2'))
      for (const path of ['f/1', 'f/2', 'f/3', 'd']) await sync(parts, path)
      assert.equal(await textOf(parts, 'f/1'), 'd/1')
      assert.equal(await textOf(parts, 'f/3'), 'd/3')
      await absent(parts, 'f/2')
      await absent(parts, 'd')
    })
  })
})
