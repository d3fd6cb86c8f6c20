import assert from 'node:assert/strict'
import { readSync } from 'node:fs'
import { appendFile, mkdtemp, readdir, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'

import { NO_DESCRIPTION } from './object-metadata.ts'
import { UploadStaging, type Part, type Upload } from './upload-staging.ts'

let scratch = ''
before(async () => {
  scratch = await mkdtemp(join(tmpdir(), 'eider-staging-'))
})
after(() => rm(scratch, { recursive: true, force: true }))

function plan(key: string, createdMs = Date.now()): Parameters<UploadStaging['create']>[0] {
  return { bucket: 'b', key, createdMs, description: NO_DESCRIPTION, checksum: undefined }
}

async function* streamOf(...pieces: string[]): AsyncGenerator<Buffer> {
  for (const piece of pieces) yield Buffer.from(piece)
}

function put(upload: Upload, number: number, text: string): Promise<Part> {
  return upload.writePart(number, text.length, streamOf(text), () => ({ etag: `tag${number}`, checksum: undefined }))
}

/** What the parts are, put together as a store would. */
async function contents(upload: Upload): Promise<string> {
  const parts = [...upload.parts.values()].toSorted((a, b) => a.number - b.number)
  return upload.withSegments(parts, async (segments) => {
    let text = ''
    for (const { fd, offset, length } of segments) {
      const buffer = Buffer.alloc(length)
      assert.equal(readSync(fd, buffer, 0, length, offset), length)
      text += buffer.toString()
    }
    return text
  })
}

describe('uploads under way', () => {
  test('[S40] survive the end of the process, parts and all, but for a line that was torn', async () => {
    const directory = join(scratch, 'restart')
    const first = await UploadStaging.open(directory)
    const upload = await first.create(plan('k'))
    await put(upload, 2, 'second')
    await put(upload, 1, 'old first')
    await put(upload, 1, 'first ')
    await appendFile(join(directory, upload.id, 'parts'), '\n{"number":3,"offset":0,"si')
    const second = await UploadStaging.open(directory)
    const found = second.require(upload.id, 'b', 'k')
    assert.equal(await contents(found), 'first second')
    await put(found, 3, ' third')
    const third = await UploadStaging.open(directory)
    assert.equal(await contents(third.require(upload.id, 'b', 'k')), 'first second third')
  })

  test('use the room of replaced and broken parts again', async () => {
    const directory = join(scratch, 'room')
    const staging = await UploadStaging.open(directory)
    const upload = await staging.create(plan('k'))
    for (let round = 0; round < 10; round++) {
      await put(upload, 1, 'x'.repeat(1000))
      const broken = async function* (): AsyncGenerator<Buffer> {
        yield Buffer.alloc(500)
        throw new Error('cut')
      }
      await assert.rejects(
        upload.writePart(2, 1000, broken(), () => ({ etag: '', checksum: undefined })),
        /cut/,
      )
    }
    assert.equal(upload.parts.size, 1)
    assert.ok((await stat(join(directory, upload.id, 'data'))).size <= 3000)
    await Promise.all([3, 4, 5].map((number) => put(upload, number, String(number).repeat(700))))
    assert.equal(
      await contents(upload),
      ['x'.repeat(1000), ...[3, 4, 5].map((number) => String(number).repeat(700))].join(''),
    )
  })

  test('end with all that they left on disk, also while a part is on its way', async () => {
    const directory = join(scratch, 'end')
    const staging = await UploadStaging.open(directory)
    const upload = await staging.create(plan('k'))
    let release: () => void = () => {}
    const waiting = new Promise<void>((resolve) => (release = resolve))
    const slow = async function* (): AsyncGenerator<Buffer> {
      yield Buffer.from('a')
      await waiting
      yield Buffer.from('b')
    }
    const part = upload.writePart(1, 2, slow(), () => ({ etag: '', checksum: undefined }))
    const refused = assert.rejects(part, { code: 'NoSuchUpload' })
    await staging.finish(upload)
    release()
    await refused
    assert.deepEqual(await readdir(directory), [])
    assert.throws(() => staging.require(upload.id, 'b', 'k'), { code: 'NoSuchUpload' })
    await assert.rejects(put(upload, 1, 'late'), { code: 'NoSuchUpload' })
  })

  test('are found under their own key only, and removed when they are idle', async () => {
    const directory = join(scratch, 'idle')
    const staging = await UploadStaging.open(directory)
    const old = await staging.create(plan('b'))
    const other = await staging.create(plan('a'))
    assert.throws(() => staging.require(old.id, 'b', 'other'), { code: 'NoSuchUpload' })
    assert.throws(() => staging.require('../../etc', 'b', 'b'), { code: 'NoSuchUpload' })
    assert.deepEqual(
      staging.ofBucket('b').map((upload) => upload.plan.key),
      ['a', 'b'],
    )
    old.activeMs = 1000
    await staging.removeIdle(2000)
    assert.deepEqual(await readdir(directory), [other.id])
  })
})
