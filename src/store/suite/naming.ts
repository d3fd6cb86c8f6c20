/** Cases of the store suite: names that other tools stumble over, and names that are refused. */
import assert from 'node:assert/strict'

import { compareUtf8 } from '#store/path.ts'
import { ABSENT, ANY } from '#store/store.ts'

import { assertContent, assertGone, inParallel, keysOf, listAll, noise, rejectsWith, type SuiteCase } from './case.ts'

/** Every kind of name that a store holds as it is. */
const ODD_NAMES: readonly string[] = [
  'plain',
  'with space',
  ' leading space',
  'trailing space ',
  '.hidden',
  'trailing dot.',
  'a..b',
  '...',
  '..a',
  'plus+plus',
  'percent%',
  '%2F',
  '%2e%2e',
  'a%20b',
  'a+b c%2Bd',
  'line\nbreak',
  'carriage\rreturn',
  'tab\tbed',
  '&<>"\'',
  ']]>',
  '&amp;',
  'back\\slash',
  'a:b;c,d=e',
  '?query#fragment',
  '~tilde!*()$@[]{}|^`',
  '日本語',
  'emoji 🦆 duck',
  '\u{10348}',
  '\uffee',
  'caf\u00e9',
  'cafe\u0301',
  '\u0001control',
  '\u007fdelete',
  'x'.repeat(255),
  'é'.repeat(127),
]

export const namingCases: readonly SuiteCase[] = [
  {
    name: '[S8] names: odd ones are kept as they are, as files and as directories',
    run: async ({ store, at, directory, options }) => {
      const names = ODD_NAMES.filter((name) => !options.namesRefused.includes(name))
      await inParallel(names.length, options.parallel, async (index) => {
        const name = names[index] ?? ''
        await store.put(at(`files/${name}`), noise(100, index), { guard: ABSENT })
        await store.put(at(`dirs/${name}/${name}`), noise(100, index), { guard: ABSENT })
      })
      const sorted = names.toSorted(compareUtf8)
      assert.deepEqual(keysOf(await listAll(store, at('files')), at('files')).toSorted(compareUtf8), sorted)
      const directories = keysOf(await listAll(store, at('dirs')), at('dirs'))
      assert.deepEqual(directories.toSorted(compareUtf8), sorted.map((name) => `${name}/`).toSorted(compareUtf8))
      await inParallel(names.length, options.parallel, async (index) => {
        const name = names[index] ?? ''
        assert.equal((await store.stat(at(`files/${name}`))).size, 100)
        await assertContent(store, at(`files/${name}`), noise(100, index))
        assert.equal((await store.stat(at(`dirs/${name}`))).kind, 'directory')
        const [only, ...more] = await listAll(store, at(`dirs/${name}`))
        assert.equal(only?.path, at(`dirs/${name}/${name}`))
        assert.equal(more.length, 0)
        await store.rename(at(`files/${name}`), at(`moved/${name}`), { guard: ANY, targetGuard: ABSENT })
        await assertGone(store, at(`files/${name}`))
        await assertContent(store, at(`moved/${name}`), noise(100, index))
        await store.remove(at(`moved/${name}`), { guard: ANY })
      })
      assert.deepEqual(
        keysOf(await listAll(store, directory), directory).filter((key) => key === 'moved/x'),
        [],
      )
    },
  },
  {
    name: '[S8] names: composed and decomposed accents are two files',
    run: async ({ store, at }) => {
      await store.put(at('caf\u00e9'), noise(10, 60), { guard: ABSENT })
      await store.put(at('cafe\u0301'), noise(10, 61), { guard: ABSENT })
      await assertContent(store, at('caf\u00e9'), noise(10, 60))
      await assertContent(store, at('cafe\u0301'), noise(10, 61))
    },
  },
  {
    name: '[S8] names: what cannot be held is refused, by every call, and nothing is altered',
    run: async ({ store, at, options }) => {
      const refused = ['/a', 'a/', 'a//b', '.', '..', 'a/./b', 'a/../b', 'a/..', 'nul\0', 'half \ud83e pair']
      for (const path of [...refused, ...options.namesRefused.map(at)]) {
        await rejectsWith(store.stat(path), 'STORE_NAME_INVALID')
        await rejectsWith(store.read(path), 'STORE_NAME_INVALID')
        await rejectsWith(store.put(path, noise(1, 62), { guard: ANY }), 'STORE_NAME_INVALID')
        await rejectsWith(store.makeDirectory(path, { guard: ANY }), 'STORE_NAME_INVALID')
        await rejectsWith(store.symlink(path, 'x', { guard: ANY }), 'STORE_NAME_INVALID')
        await rejectsWith(store.remove(path, { guard: ANY }), 'STORE_NAME_INVALID')
        await rejectsWith(store.rename(path, at('x'), { guard: ANY, targetGuard: ANY }), 'STORE_NAME_INVALID')
        await rejectsWith(listAll(store, path), 'STORE_NAME_INVALID')
      }
      await rejectsWith(store.put(at('x'.repeat(256)), noise(1, 62), { guard: ANY }), 'STORE_NAME_TOO_LONG')
      await rejectsWith(store.put(at('é'.repeat(128)), noise(1, 62), { guard: ANY }), 'STORE_NAME_TOO_LONG')
    },
  },
  {
    name: 'names: a path may be as long as the store says (1,024 bytes where it holds more), and no longer',
    run: async ({ store, directory }) => {
      const { pathBytesMax } = store.capabilities
      const pathOf = (length: number): string => {
        let path = directory
        while (path.length < length) {
          const room = Math.min(length - path.length - 1, 250)
          // One byte left over cannot be a slash and a name: the part before gives one up.
          path += `/${'n'.repeat(length - path.length - 1 - room === 1 ? room - 1 : room)}`
        }
        return path
      }
      const long = pathOf(Math.min(pathBytesMax, 1024))
      assert.equal(Buffer.byteLength(long), Math.min(pathBytesMax, 1024))
      await store.put(long, noise(10, 63), { guard: ABSENT })
      await assertContent(store, long, noise(10, 63))
      await store.remove(long, { guard: ANY })
      const tooLong = pathOf(pathBytesMax + 1)
      await rejectsWith(store.put(tooLong, noise(10, 64), { guard: ANY }), 'STORE_NAME_TOO_LONG')
      await rejectsWith(store.stat(tooLong), 'STORE_NAME_TOO_LONG', 'STORE_NOT_FOUND')
    },
  },
]
