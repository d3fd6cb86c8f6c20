/** `cat` and `locations`: the bytes of files, and where they lie. */
import { blockName } from '#cluster/block/block-id.ts'
import type { KnownDisk } from '#cluster/client/disk-choice.ts'
import { shownInode } from '#cluster/inode-id.ts'
import type { BlocksBody, Span } from '#cluster/wire/forms.ts'

import type { ExitCode } from '#cli/command.ts'
import { spansOf } from './finding.ts'
import { named } from './names.ts'
import { checkFile, placeOf } from './place.ts'
import { type FsSession, forEach, pastTime } from './session.ts'

/** `cat PATH...` */
export function concatenate(session: FsSession, paths: readonly string[], asOf: string | undefined): Promise<ExitCode> {
  const { client, files, out, signal } = session
  const time = pastTime(session, asOf)
  return forEach(paths, async (path) => {
    const { inode } = await placeOf(client, path, time)
    checkFile(path, inode)
    await named(`read "${path}"`, async () => {
      for await (const chunk of files.read(inode, 0, Number.MAX_SAFE_INTEGER, signal)) await out.bytes(chunk)
    })
  })
}

/** `locations FILE` */
export async function locations(session: FsSession, path: string): Promise<void> {
  const { client, out, isJson } = session
  const { inode } = await placeOf(client, path)
  checkFile(path, inode)
  for await (const span of spansOf(client, inode)) {
    const blocks =
      span.blocks === undefined
        ? []
        : span.blocks.blocks.map((block, index) => blockFacts(session, span.blocks, block, index))
    if (isJson) {
      const { offset, size } = span
      await out.json({ inode: shownInode(inode), offset, size, ...formJson(span), blocks })
      continue
    }
    await out.line(`${span.offset}-${span.offset + span.size}  ${formText(span)}`)
    for (const { role, disk, address, domain, block, state } of blocks) {
      await out.line(
        `  ${role.padEnd(6)} ${block}  disk ${disk} at ${address ?? 'an unknown address'}, ${domain ?? 'unknown domain'}: ${state}`,
      )
    }
  }
}

interface BlockFacts {
  readonly role: 'copy' | 'data' | 'parity'
  readonly block: string
  readonly disk: number
  readonly address: string | undefined
  readonly domain: string | undefined
  /** Of its disk, as the registry knows it. */
  readonly state: string
}

function blockFacts(
  { client }: FsSession,
  body: BlocksBody | undefined,
  { disk, block }: BlocksBody['blocks'][number],
  index: number,
): BlockFacts {
  const known = client.map.find(disk)
  const data = body?.data ?? 1
  return {
    role: data === 1 ? 'copy' : index < data ? 'data' : 'parity',
    block: blockName(block),
    disk,
    address: known?.address,
    domain: known?.domain,
    state: stateOf(known),
  }
}

function stateOf(disk: KnownDisk | undefined): string {
  if (disk === undefined) return 'unknown to the registry'
  if (disk.failure !== '') return `failed (${disk.failure})`
  return disk.flags.length === 0 ? 'ok' : disk.flags.join(', ')
}

function formJson({ inline, blocks, isCertified }: Span): Record<string, unknown> {
  if (blocks === undefined) return { form: inline === undefined ? 'zeros' : 'inline' }
  const { class: storageClass, data, parity, stripes, cellBytes } = blocks
  return {
    form: data === 1 ? 'mirrored' : 'striped',
    class: storageClass,
    data,
    parity,
    stripes,
    cellBytes,
    isCertified,
  }
}

function formText({ size, inline, blocks, isCertified }: Span): string {
  if (blocks === undefined) return inline === undefined ? `${size} zeros` : `${size} bytes inline`
  const { class: storageClass, data, parity, stripes } = blocks
  const copies = parity === 0 ? 'a single copy' : `mirrored 1+${parity}`
  const facts = [data === 1 ? copies : `${data}+${parity}`, `class ${storageClass}`]
  if (stripes > 1) facts.push(`${stripes} stripes`)
  if (!isCertified) facts.push('not finished')
  return `${size} bytes, ${facts.join(', ')}`
}
