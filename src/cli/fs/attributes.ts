/** Verbs about attributes: chmod, chown, xattr, policy. */
import { OperationError } from '#base/errors.ts'
import { inodeType, shownInode } from '#cluster/inode-id.ts'
import { namesOf } from '#cluster/client/cluster-client.ts'
import { shardMessages } from '#cluster/shard/shard-messages.ts'
import { NO_INODE, EMPTY_POLICY } from '#cluster/wire/forms.ts'

import type { ExitCode } from '#cli/command.ts'
import { parseMode, parseOwner } from './mode.ts'
import { named } from './names.ts'
import { checkDirectory, clusterPath, placeOf } from './place.ts'
import { POLICY_WORDS, withPolicyText, wordText } from './policy-text.ts'
import { type FsSession, forEach } from './session.ts'
import { shownMode, xattrsOf } from './status.ts'

/** Bytes that are no text are shown so in JSON. */
const UTF8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** `chmod MODE PATH...` */
export function changeMode(
  { client, out, isJson }: FsSession,
  [text = '', ...paths]: readonly string[],
): Promise<ExitCode> {
  const change = parseMode(text)
  return forEach(paths, async (path) => {
    const { inode } = await placeOf(client, path)
    const { mode } = await client.stat(inode)
    const changes = { mode: change(mode, inodeType(inode) === 'directory') }
    await named(`change the mode of "${path}"`, () => client.setAttributes(inode, changes))
    if (isJson) await out.json({ path, inode: shownInode(inode), mode: shownMode(changes.mode) })
  })
}

/** `chown OWNER PATH...` */
export function changeOwner(
  { client, out, isJson }: FsSession,
  [text = '', ...paths]: readonly string[],
): Promise<ExitCode> {
  const owner = parseOwner(text)
  return forEach(paths, async (path) => {
    const { inode } = await placeOf(client, path)
    await named(`change the owner of "${path}"`, () => client.setAttributes(inode, owner))
    if (isJson) await out.json({ path, inode: shownInode(inode), ...owner })
  })
}

/** `xattr get|set|list|remove PATH [NAME] [VALUE]` */
export async function attribute(session: FsSession, args: readonly string[]): Promise<void> {
  const [action, path = '', name, value] = args
  const counts: Readonly<Record<string, number>> = { list: 2, get: 3, remove: 3, set: 4 }
  if (action === undefined || counts[action] !== args.length) {
    const forms = 'list PATH, get PATH NAME, set PATH NAME VALUE or remove PATH NAME'
    throw new OperationError('USAGE', `Cannot run "eider fs xattr ${args.join(' ')}": ${forms} is expected`)
  }
  const { client, out, isJson } = session
  const { inode } = await placeOf(client, path)
  if (action === 'list') {
    for (const [each, bytes] of await xattrsOf(session, inode)) {
      await (isJson ? out.json({ name: each, ...valueJson(bytes) }) : out.line(each))
    }
    return
  }
  if (name === undefined) return
  if (action === 'get') {
    const bytes = (await xattrsOf(session, inode)).get(name)
    if (bytes === undefined) {
      const detail = `"${path}" has none of that name`
      throw new OperationError('ATTRIBUTE_NOT_FOUND', `Cannot get the attribute ${JSON.stringify(name)}: ${detail}`)
    }
    if (isJson) await out.json({ name, ...valueJson(bytes) })
    else {
      await out.bytes(bytes)
      if (out.isTerminal) await out.line('')
    }
    return
  }
  const bytes = Buffer.from(value ?? '')
  await named(`change attributes of "${path}"`, async () => {
    if (action === 'remove') await client.ask(inode, shardMessages.removeXattr, { inode, name })
    else await client.ask(inode, shardMessages.setXattr, { inode, xattr: { name, value: bytes }, how: 'any' })
  })
  if (isJson) await out.json({ path, inode: shownInode(inode), name, ...(action === 'set' && valueJson(bytes)) })
}

function valueJson(bytes: Buffer): { readonly value: string } | { readonly base64: string } {
  try {
    return { value: UTF8.decode(bytes) }
  } catch {
    return { base64: bytes.toString('base64') }
  }
}

/** `policy get PATH`, `policy set PATH WORD=VALUE...` */
export async function policy(session: FsSession, args: readonly string[]): Promise<void> {
  const [action, text = '', ...words] = args
  if (action === 'get' && words.length === 0) return showPolicy(session, text)
  if (action !== 'set' || words.length === 0) {
    throw new OperationError(
      'USAGE',
      `Cannot run "eider fs policy ${args.join(' ')}": get PATH or set PATH WORD=VALUE... is expected`,
      { hint: `Words are ${POLICY_WORDS.join(', ')}.` },
    )
  }
  const { client, out, isJson } = session
  const { inode } = await placeOf(client, text)
  checkDirectory(text, inode)
  const { policy: own = EMPTY_POLICY } = await client.stat(inode)
  const changed = withPolicyText(own, words)
  await named(`set the policy of "${text}"`, () => client.setPolicy(inode, changed))
  if (isJson) await out.json({ path: text, inode: shownInode(inode), policy: changed })
}

/** What holds at a path, and which directory says it. */
async function showPolicy({ client, out, isJson }: FsSession, text: string): Promise<void> {
  const path = clusterPath(text)
  const names = namesOf(path)
  const shownPath = `/${names.join('/')}`
  const place = await client.find(path)
  const isDirectory = inodeType(place.inode) === 'directory'
  if (!isDirectory) names.pop()
  const inode = isDirectory ? place.inode : place.parent
  const found = new Map<string, { readonly value: string; readonly from: string }>()
  for (let at = inode; at !== NO_INODE; names.pop()) {
    const { policy: own = EMPTY_POLICY, owner } = await client.stat(at)
    for (const word of POLICY_WORDS) {
      const value = wordText(own, word)
      if (value !== undefined && !found.has(word)) found.set(word, { value, from: `/${names.join('/')}` })
    }
    at = owner
  }
  for (const word of POLICY_WORDS) {
    const said = found.get(word)
    if (isJson) await out.json({ name: word, value: said?.value ?? null, from: said?.from ?? null })
    else if (said === undefined) await out.line(`${word}  (default)`)
    else await out.line(`${word}=${said.value}${said.from === shownPath ? '' : `  (from ${said.from})`}`)
  }
}
