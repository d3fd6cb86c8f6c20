/** `create_test_file`, which stores one file in all three ways that there are, and `create_eden_file`, a file without a name. */
import { SpanWriter } from '#cluster/client/span-writer.ts'
import { chooseSpan, reduced } from '#cluster/client/redundancy-choice.ts'
import { isWritable } from '#cluster/client/disk-choice.ts'
import { crc32c, crc32cZeros } from '#cluster/erasure/crc32c.ts'
import { inodeShard, shownInode } from '#cluster/inode-id.ts'
import { OperationError } from '#base/errors.ts'
import { shardMessages } from '#cluster/shard/shard-messages.ts'
import { ANYTHING, EMPTY_POLICY } from '#cluster/wire/forms.ts'

import { named } from './names.ts'
import { checkDirectory, clusterPath, placeOf } from './place.ts'
import { type FsSession, ownAttributes, warnOfSpan } from './session.ts'

const INLINE = Buffer.from('hello,')
const MIRRORED = Buffer.from(' world')
const ZEROS_BYTES = 10
const MIRRORED_FORM = { data: 1, parity: 2 }
const CLASS_MIN = 2
const CLASS_MAX = 255

/** `create_test_file PATH [CLASS]`: `hello,` inline, ` world` mirrored, ten zeros. */
export async function createTestFile(session: FsSession, text: string, classText: string | undefined): Promise<void> {
  const { client, out, isJson } = session
  const storageClass = Number(classText ?? CLASS_MIN)
  if (!Number.isInteger(storageClass) || storageClass < CLASS_MIN || storageClass > CLASS_MAX) {
    throw new OperationError(
      'USAGE',
      `Cannot use "${classText}" as a storage class: ${CLASS_MIN} to ${CLASS_MAX} are for blocks`,
    )
  }
  const path = clusterPath(text)
  const slot = await client.slot(path)
  const shard = inodeShard(slot.directory)
  const construct = { type: 'file' as const, attributes: ownAttributes(0o666), note: 'test file' }
  await named(`make "${path}"`, async () => {
    const own = await client.askShard(shard, shardMessages.construct, construct)
    const zerosCrc = crc32cZeros(0, ZEROS_BYTES)
    const inline = { ...own, offset: 0, size: INLINE.length, crc: crc32c(INLINE), bytes: INLINE }
    await client.askShard(shard, shardMessages.addInline, inline)
    await writeMirrored(session, { ...own, offset: INLINE.length, bytes: MIRRORED }, storageClass)
    const offset = INLINE.length + MIRRORED.length
    const zeros = { ...own, offset, size: ZEROS_BYTES, crc: zerosCrc, bytes: Buffer.alloc(0) }
    await client.askShard(shard, shardMessages.addInline, zeros)
    const size = offset + ZEROS_BYTES
    const linked = await client.askShard(shard, shardMessages.link, { ...own, ...slot, guard: ANYTHING, size })
    if (isJson) await out.json({ path, inode: shownInode(own.file), size, created: linked.created })
    else await out.line(shownInode(own.file))
  })
}

type MirroredSpan = Omit<Parameters<SpanWriter['write']>[0], 'choose'>

async function writeMirrored(session: FsSession, span: MirroredSpan, storageClass: number): Promise<void> {
  const { client, signal } = session
  const { surroundings, caller, blocks, map: disks } = client
  const writer = new SpanWriter({ surroundings, caller, blocks, disks, shard: (number) => disks.shard(number) })
  const domains = new Set(
    [...disks.all()].filter((disk) => disk.class === storageClass && isWritable(disk)).map((disk) => disk.domain),
  )
  // Where there are fewer failure domains, it is for the sake of a test no less right.
  const { parity } = reduced(MIRRORED_FORM, Math.max(1, domains.size))
  const policy = {
    ...EMPTY_POLICY,
    spans: [{ bytesMax: span.bytes.length, data: 1, parity }],
    classes: [{ bytesMin: 0, class: storageClass }],
  }
  const form = await writer.write(
    { ...span, choose: (avoided) => chooseSpan(policy, span.bytes.length, disks.all(), avoided) },
    signal,
  )
  warnOfSpan(session, form)
}

/** `create_eden_file DIRECTORY`: a transient file on the shard of the directory, and what proves that it is one's own. */
export async function createTransient({ client, out, isJson }: FsSession, text: string): Promise<void> {
  const { inode } = await placeOf(client, text)
  checkDirectory(text, inode)
  const construct = { type: 'file' as const, attributes: ownAttributes(0o666), note: 'made by hand' }
  const { file, cookie } = await client.ask(inode, shardMessages.construct, construct)
  if (isJson) return out.json({ inode: shownInode(file), cookie: cookie.toString('hex') })
  await out.line(`inode=${shownInode(file)}`)
  await out.line(`cookie=${cookie.toString('hex')}`)
}
