/**
 * A process that writes in a directory store, for tests that kill it or race it: `node directory-child.ts MODE ROOT
 * [COUNT]`. It tells each thing that is done on a line of its standard output, synchronously.
 */
import { writeSync } from 'node:fs'

import { isOperationError } from '#base/errors.ts'
import { openDirectoryStore } from '#store/directory-store.ts'
import { ABSENT, ANY, ifVersion, type Store } from '#store/store.ts'

import { bodyOf } from './directory-bodies.ts'

const PATHS = 12

function tell(line: string): void {
  writeSync(1, `${line}\n`)
}

/** Puts one body after another over the same few paths, until it is killed. */
async function putForEver(store: Store): Promise<void> {
  const writer = async (index: number): Promise<void> => {
    for (let round = 1; ; round++) {
      const path = `d${index % 3}/file-${index}`
      const body = bodyOf(index, round)
      if (round % 2 === 0) {
        await store.put(path, body, { guard: ANY })
      } else {
        const stream = (async function* () {
          for (let at = 0; at < body.length; at += 50_000) yield body.subarray(at, at + 50_000)
        })()
        await store.put(path, { kind: 'stream', stream }, { guard: ANY, attributes: { mode: 0o640 } })
      }
      tell(`${path} ${round}`)
    }
  }
  await Promise.all(Array.from({ length: PATHS }, (_, index) => writer(index)))
}

/** Creates what nobody else has created, and counts in one file, each under its guard. */
async function race(store: Store, count: number): Promise<void> {
  for (let index = 0; index < count; index++) {
    try {
      await store.put(`created/${index}`, Buffer.from(String(process.pid)), { guard: ABSENT })
      tell(`created ${index}`)
    } catch (error) {
      if (!isOperationError(error, 'STORE_CONFLICT')) throw error
    }
    for (;;) {
      const { entry, bytes } = await readCounter(store)
      try {
        await store.put('counter', Buffer.from(String(Number(bytes) + 1)), { guard: ifVersion(entry.version) })
        break
      } catch (error) {
        if (!isOperationError(error, 'STORE_CONFLICT')) throw error
      }
    }
  }
}

async function readCounter(
  store: Store,
): Promise<{ entry: { version: Parameters<typeof ifVersion>[0] }; bytes: string }> {
  const reading = await store.read('counter')
  return { entry: reading.entry, bytes: (await reading.bytes()).toString() }
}

const [mode, root = '', count = '0'] = process.argv.slice(2)
const store = await openDirectoryStore(root)
if (mode === 'put') await putForEver(store)
else await race(store, Number(count))
await store.close()
