import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, test } from 'node:test'

import { OperationError } from '#base/errors.ts'
import type { Store } from '#store/store.ts'

import { Gone } from './gone.ts'
import { type Parts, withParts } from './parts-double.ts'
import { Progress } from './progress.ts'
import type { SyncOptions } from './sync.ts'
import { TouchedDirectories } from './touched-directories.ts'
import { Workers } from './workers.ts'

interface Told {
  readonly failed: string[]
  readonly fatal: unknown[]
}

function workersOf(parts: Parts, told: Told): Workers {
  const stop = new AbortController()
  const options: SyncOptions = {
    ...{ threads: 2, once: true, deletes: 'after', metadata: false, backupDirectory: undefined, compareEveryMs: 0 },
    ...{ fingerprint: '', scratch: parts.directory, signal: stop.signal },
  }
  const onFatal = (error: unknown): void => {
    told.fatal.push(error)
    stop.abort(error)
  }
  const events = { isComparing: () => false, onGone: () => {}, onFailed: onFatal }
  return new Workers(parts, options, {
    progress: new Progress({ onFailed: ({ path }) => void told.failed.push(path) }, () =>
      assert.fail('nobody watches'),
    ),
    directories: new TouchedDirectories(parts, options),
    gone: new Gone(parts, options, events),
    compareLater: () => assert.fail('nothing is to be compared'),
    onFatal,
  })
}

/** A store whose puts wait, and tell when one has come. */
function gated(): { readonly wrap: (store: Store) => Store; readonly came: Promise<void>; readonly open: () => void } {
  const came = Promise.withResolvers<void>()
  const gate = Promise.withResolvers<void>()
  const wrap = (store: Store): Store => {
    const put: Store['put'] = async (...call) => {
      came.resolve()
      await gate.promise
      return store.put(...call)
    }
    return new Proxy(store, {
      get: (inner, name): unknown => {
        if (name === 'put') return put
        const value: unknown = Reflect.get(inner, name, inner)
        return typeof value === 'function' ? (value.bind(inner) as unknown) : value
      },
    })
  }
  return { wrap, came: came.promise, open: gate.resolve }
}

describe('workers', () => {
  test('what fails outside of the queue leaves alone what is under way at its path', async () => {
    const { wrap, came, open } = gated()
    await withParts({ wrap }, async (parts) => {
      const told: Told = { failed: [], fatal: [] }
      const workers = workersOf(parts, told)
      writeFileSync(join(parts.directory, 'a'), 'abc')
      workers.queue.add('a')
      workers.pump()
      await came
      workers.giveUp('a', new OperationError('STORE_UNAVAILABLE', 'Cannot delete "a": no answer'))
      assert.ok(workers.queue.isRunning('a'))
      open()
      while (!workers.queue.isEmpty) await workers.changed()
      assert.deepEqual(told, { failed: ['a'], fatal: [] })
      assert.equal((await parts.store.stat('a')).size, 3)
    })
  })

  test('what fails for every path ends the sync, and is told of none', () =>
    withParts({}, async (parts) => {
      const told: Told = { failed: [], fatal: [] }
      const refusal = new OperationError('CREDENTIALS_REFUSED', 'Cannot delete "a": the key is not known')
      workersOf(parts, told).giveUp('a', refusal)
      assert.deepEqual(told, { failed: [], fatal: [refusal] })
    }))
})
