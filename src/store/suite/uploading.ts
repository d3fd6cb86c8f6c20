/** Cases of the store suite: uploads whose parts are sent while the file is still being written, where a store has them. */
import assert from 'node:assert/strict'
import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs'
import { join } from 'node:path'

import { ABSENT, ANY, ifVersion, type Attributes, type FileSegment, type Upload } from '#store/store.ts'

import {
  assertContent,
  assertGone,
  keysOf,
  listAll,
  noise,
  rejectsWith,
  type SuiteCase,
  type SuiteContext,
} from './case.ts'

const NONE_CHANGED: ReadonlySet<number> = new Set()
const MODE: Attributes = { mode: 0o640 }

/** A local file that is being written, with what it has in it. */
interface Written {
  readonly fd: number
  bytes: Buffer
  write(at: number, bytes: Uint8Array): void
  cut(size: number): void
  whole(): FileSegment
}

/** Runs a case with a begun upload and an empty local file; skips it where the store has no uploads. */
function uploadCase(
  name: string,
  run: (
    context: SuiteContext,
    begin: (path: string, attributes?: Attributes) => Promise<Upload>,
    file: Written,
  ) => Promise<void>,
): SuiteCase {
  return {
    name: `upload: ${name} (where the store has uploads)`,
    run: async (context) => {
      const { store, scratch, skip } = context
      if (store.beginUpload === undefined) return skip('the store has none')
      const fd = openSync(join(scratch, `upload-${name.replaceAll(/\W/g, '-')}`), 'w+')
      const file: Written = {
        fd,
        bytes: Buffer.alloc(0),
        write: (at, bytes) => {
          for (let done = 0; done < bytes.length;) done += writeSync(fd, bytes, done, bytes.length - done, at + done)
          const grown = Buffer.alloc(Math.max(file.bytes.length, at + bytes.length))
          file.bytes.copy(grown)
          grown.set(bytes, at)
          file.bytes = grown
        },
        cut: (size) => {
          ftruncateSync(fd, size)
          file.bytes = file.bytes.subarray(0, size)
        },
        whole: () => ({ fd, offset: 0, length: file.bytes.length }),
      }
      const begun: Upload[] = []
      const begin = async (path: string, attributes: Attributes = {}): Promise<Upload> => {
        const upload = await store.beginUpload?.(path, { attributes })
        assert.ok(upload !== undefined)
        begun.push(upload)
        return upload
      }
      try {
        await run(context, begin, file)
      } finally {
        for (const upload of begun) await upload.abort()
        closeSync(fd)
      }
    },
  }
}

/** Where part `index` begins. */
function startOf(upload: Upload, index: number): number {
  return upload.part(index).offset
}

export const uploadingCases: readonly SuiteCase[] = [
  uploadCase('parts follow one another', async ({ at }, begin) => {
    const upload = await begin(at('file'))
    let end = 0
    for (let index = 0; index < 100; index++) {
      const { offset, length } = upload.part(index)
      assert.equal(offset, end)
      assert.ok(length > 0)
      end = offset + length
    }
  }),
  uploadCase('parts sent out of order, the rest at the end', async ({ store, at, directory }, begin, file) => {
    await store.put(at('other'), noise(1, 200), { guard: ABSENT })
    const upload = await begin(at('file'), MODE)
    file.write(0, noise(startOf(upload, 3) + 1000, 201))
    await Promise.all([upload.send(2, file.fd), upload.send(0, file.fd)])
    await assertGone(store, at('file'))
    assert.deepEqual(keysOf(await listAll(store, directory), directory), ['other'])
    const put = await upload.commit(file.whole(), NONE_CHANGED, { guard: ABSENT, attributes: MODE })
    assert.deepEqual([put.path, put.kind, put.size], [at('file'), 'file', file.bytes.length])
    assert.equal((await store.stat(at('file'))).version, put.version)
    if (store.capabilities.attributes) assert.equal(put.attributes?.mode, 0o640)
    await assertContent(store, at('file'), file.bytes)
    assert.deepEqual(keysOf(await listAll(store, directory), directory), ['file', 'other'])
  }),
  uploadCase('parts changed after they were sent', async ({ store, at }, begin, file) => {
    const upload = await begin(at('file'))
    file.write(0, noise(startOf(upload, 3), 202))
    for (const index of [0, 1, 2]) await upload.send(index, file.fd)
    file.write(10, noise(100, 203))
    file.write(startOf(upload, 1) + 5, noise(100, 204))
    await upload.send(1, file.fd)
    await upload.commit(file.whole(), new Set([0]), { guard: ABSENT })
    await assertContent(store, at('file'), file.bytes)
  }),
  uploadCase(
    'a file that became shorter than what was sent, and one that nothing was sent of',
    async ({ store, at }, begin, file) => {
      const shorter = await begin(at('shorter'))
      file.write(0, noise(startOf(shorter, 2), 205))
      await shorter.send(0, file.fd)
      await shorter.send(1, file.fd)
      file.cut(startOf(shorter, 1) + 7)
      await shorter.commit(file.whole(), new Set([1]), { guard: ABSENT })
      await assertContent(store, at('shorter'), file.bytes)
      const small = await begin(at('small'))
      await small.send(0, file.fd)
      file.cut(100)
      await small.commit(file.whole(), new Set([0]), { guard: ABSENT })
      await assertContent(store, at('small'), file.bytes)
      const unsent = await begin(at('unsent'))
      await unsent.commit(file.whole(), NONE_CHANGED, { guard: ABSENT })
      await assertContent(store, at('unsent'), file.bytes)
      file.cut(0)
      const empty = await begin(at('empty'))
      await empty.commit(file.whole(), NONE_CHANGED, { guard: ABSENT })
      await assertContent(store, at('empty'), file.bytes)
    },
  ),
  uploadCase('[S3] a guard that does not hold leaves what is there', async ({ store, at }, begin, file) => {
    const old = await store.put(at('file'), noise(10, 206), { guard: ABSENT })
    const current = await store.put(at('file'), noise(10, 207), { guard: ANY })
    for (const guard of [ABSENT, ifVersion(old.version)]) {
      const upload = await begin(at('file'))
      file.write(0, noise(startOf(upload, 1) + 10, 208))
      await upload.send(0, file.fd)
      await rejectsWith(upload.commit(file.whole(), NONE_CHANGED, { guard }), 'STORE_CONFLICT')
      assert.equal((await store.stat(at('file'))).version, current.version)
      await upload.abort()
    }
    await assertContent(store, at('file'), noise(10, 207))
    const upload = await begin(at('file'))
    await upload.send(0, file.fd)
    await upload.commit(file.whole(), NONE_CHANGED, { guard: ifVersion(current.version) })
    await assertContent(store, at('file'), file.bytes)
  }),
  uploadCase('[S1] given up, it leaves nothing', async ({ store, at, directory }, begin, file) => {
    const kept = await store.put(at('kept'), noise(10, 209), { guard: ABSENT })
    for (const name of ['kept', 'new']) {
      const upload = await begin(at(name))
      file.write(0, noise(startOf(upload, 2), 210))
      await upload.send(0, file.fd)
      await upload.abort()
      await upload.abort()
    }
    assert.deepEqual(keysOf(await listAll(store, directory), directory), ['kept'])
    assert.equal((await store.stat(at('kept'))).version, kept.version)
  }),
  uploadCase('attributes that became others until the end', async ({ store, at, skip }, begin, file) => {
    if (!store.capabilities.attributes) return skip('the store keeps no attributes')
    const before = { mode: 0o600, xattrs: new Map([['user.kept', Buffer.from('yes')]]) }
    const upload = await begin(at('file'), before)
    file.write(0, noise(startOf(upload, 1) + 10, 211))
    await upload.send(0, file.fd)
    const mtime = { seconds: 1_700_000_000, nanoseconds: 123_456_789 }
    const attributes = { ...before, mode: 0o755, mtime }
    const put = await upload.commit(file.whole(), NONE_CHANGED, { guard: ABSENT, attributes })
    const found = await store.stat(at('file'))
    assert.equal(found.version, put.version)
    assert.deepEqual([found.attributes?.mode, found.attributes?.mtime], [0o755, mtime])
    assert.equal(Buffer.from(found.attributes?.xattrs?.get('user.kept') ?? []).toString(), 'yes')
    await assertContent(store, at('file'), file.bytes)
  }),
  uploadCase('an abort of the last call leaves it as it was, to be ended later', async ({ store, at }, begin, file) => {
    const upload = await begin(at('file'))
    file.write(0, noise(startOf(upload, 1) + 10, 212))
    const signal = AbortSignal.abort()
    await rejectsWith(upload.send(0, file.fd, { signal }), 'ABORTED')
    await upload.send(0, file.fd)
    await rejectsWith(upload.commit(file.whole(), NONE_CHANGED, { guard: ABSENT, signal }), 'ABORTED')
    await assertGone(store, at('file'))
    await upload.commit(file.whole(), NONE_CHANGED, { guard: ABSENT })
    await assertContent(store, at('file'), file.bytes)
  }),
  uploadCase('of two of one path, the one that ends first has it', async ({ store, at }, begin, file) => {
    const [first, second] = [await begin(at('file')), await begin(at('file'))]
    file.write(0, noise(startOf(first, 1) + 10, 213))
    await Promise.all([first.send(0, file.fd), second.send(0, file.fd)])
    await second.commit(file.whole(), NONE_CHANGED, { guard: ABSENT })
    await rejectsWith(first.commit(file.whole(), NONE_CHANGED, { guard: ABSENT }), 'STORE_CONFLICT')
    await assertContent(store, at('file'), file.bytes)
  }),
]
