/** What can be asked of a shard without changing anything. */
import { OperationError } from '#base/errors.ts'
import { inodeType, makeInodeId, shownInode, type InodeId } from '#cluster/inode-id.ts'
import { numberOfKey, NUMBER_BYTES, textOfKey, readNumber } from '#cluster/journal/keys.ts'
import { RangePull, type Pair } from '#cluster/journal/pull.ts'
import type { Key, StateReader } from '#cluster/journal/state.ts'
import { decode, type ValueOf } from '#cluster/wire/codec.ts'
import { COOKIE_BYTES, NO_INODE, type Edge, type Span, type Status } from '#cluster/wire/forms.ts'
import type { Message } from '#cluster/wire/message.ts'

import {
  blockKey,
  edgeKey,
  edgesEnd,
  findDirectory,
  findEdge,
  findFile,
  findTransient,
  nameOfEdge,
  nameOfPast,
  NAME_AT,
  ownSpan,
  pastKey,
  pastsEnd,
  readEdge,
  readPast,
  spanKey,
  spanRecord,
  spansEnd,
  transientKey,
  transientRecord,
  xattrKey,
  xattrsEnd,
  type EdgeRecord,
} from './records.ts'
import { checkLength } from './names.ts'
import { PAGE_ENTRIES_MAX, type shardMessages } from './shard-messages.ts'
import { anyDirectory, checkShard, cookieOf, checkLive } from './step.ts'

type Read<M> = M extends Message<infer Q, infer R> ? (state: StateReader, shard: number, request: Q) => R : never
type ReadsOf<T, K extends keyof T> = { readonly [N in K]: Read<T[N]> }
type Listed = ValueOf<(typeof shardMessages)['list']['reply']>['entries'][number]

/** A page of spans ends where it has so many bytes inline. */
const INLINE_PAGE_BYTES = 1024 ** 2
const SPANS_MAX = 1000

export const reads: ReadsOf<
  typeof shardMessages,
  'lookup' | 'stat' | 'list' | 'listAsOf' | 'history' | 'spans' | 'xattrs' | 'visit' | 'diskBlocks'
> = {
  lookup(state, shard, { directory, name }) {
    checkLength(name)
    checkLive(state, shard, directory)
    const edge = findEdge(state, directory, name)
    if (edge === undefined) {
      throw new OperationError('NAME_NOT_FOUND', `Cannot find ${JSON.stringify(name)} in ${shownInode(directory)}`)
    }
    return { inode: edge.inode, created: edge.created, isLocked: edge.state === 'locked' }
  },

  stat(state, shard, { inode }) {
    checkShard(inode, shard)
    const found = statusOf(state, inode)
    if (found !== undefined) return found
    throw new OperationError('INODE_NOT_FOUND', `Cannot find inode ${shownInode(inode)}`)
  },

  list(state, shard, { directory, after, limit, withStatus }) {
    checkLength(after)
    checkLive(state, shard, directory)
    const count = pageCount(limit)
    const found: Listed[] = []
    let isLast = true
    const from = after === '' ? edgeKey(directory, '') : `${edgeKey(directory, after)}\0`
    state.range(from, edgesEnd(directory), (key, value) => {
      if (found.length === count) {
        isLast = false
        return false
      }
      const { inode, created } = readEdge(value)
      found.push({ name: nameOfEdge(key), inode, created, status: undefined })
      return true
    })
    if (!withStatus) return { entries: found, isLast }
    return { entries: found.map((entry) => ({ ...entry, status: statusOf(state, entry.inode) })), isLast }
  },

  listAsOf(state, shard, { directory, asOf, after, limit }) {
    checkLength(after)
    anyDirectory(state, shard, directory)
    const count = pageCount(limit)
    const entries: Listed[] = []
    const edges = new EdgePull(state, directory, after, after === '' ? 0 : Number.MAX_SAFE_INTEGER, false)
    let best: Edge | undefined
    const give = (): void => {
      if (best !== undefined && best.inode !== NO_INODE) {
        entries.push({ name: best.name, inode: best.inode, created: best.created, status: undefined })
      }
    }
    for (let edge = edges.next(); edge !== undefined; edge = edges.next()) {
      if (edge.name !== best?.name) {
        give()
        if (entries.length === count) return { entries, isLast: false }
        best = undefined
      }
      if (edge.created <= asOf) best = edge
    }
    give()
    return { entries, isLast: true }
  },

  history(state, shard, { directory, name, time, isBackwards, isSameName, limit }) {
    checkLength(name)
    anyDirectory(state, shard, directory)
    const count = pageCount(limit)
    const edges: Edge[] = []
    const pull = new EdgePull(state, directory, name, time, isBackwards)
    for (let edge = pull.next(); edge !== undefined; edge = pull.next()) {
      if (isSameName && edge.name !== name) break
      if (edges.length === count) return { edges, isLast: false }
      edges.push(edge)
    }
    return { edges, isLast: true }
  },

  spans(state, shard, { file, offset, limit }) {
    checkShard(file, shard)
    const record = findFile(state, file)
    const transient = record === undefined ? findTransient(state, file) : undefined
    const size = record?.size ?? transient?.size
    if (size === undefined) throw new OperationError('INODE_NOT_FOUND', `Cannot find file ${shownInode(file)}`)
    const count = Math.min(Math.max(limit, 1), SPANS_MAX)
    const spans: Span[] = []
    const own = record === undefined ? undefined : ownSpan(record)
    if (own !== undefined) {
      if (offset < size) spans.push({ offset: 0, ...own, isCertified: true })
      return { size, spans, isLast: true }
    }
    let inlineBytes = 0
    let isLast = true
    state.range(firstSpan(state, file, offset), spansEnd(file), (key, value) => {
      if (spans.length === count || inlineBytes > INLINE_PAGE_BYTES) {
        isLast = false
        return false
      }
      const at = numberOfKey(key, NAME_AT)
      const found = decode(spanRecord, value)
      inlineBytes += found.inline?.length ?? 0
      const isOpen = transient !== undefined && transient.lastSpan !== 'clean' && at + found.size === size
      spans.push({ offset: at, ...found, isCertified: !isOpen })
      return true
    })
    return { size, spans, isLast }
  },

  xattrs(state, shard, { inode }) {
    checkShard(inode, shard)
    if (statusOf(state, inode) === undefined) {
      throw new OperationError('INODE_NOT_FOUND', `Cannot find inode ${shownInode(inode)}`)
    }
    const xattrs: { name: string; value: Buffer }[] = []
    state.range(xattrKey(inode, ''), xattrsEnd(inode), (key, value) => {
      xattrs.push({ name: textOfKey(key.slice(NAME_AT)), value })
      return true
    })
    return { xattrs }
  },

  visit(state, shard, { what, after, limit }) {
    const count = pageCount(limit)
    const inodes: { inode: InodeId; deadline: number; cookie: Buffer }[] = []
    const letter = what === 'directories' ? 'd' : what === 'files' ? 'f' : 't'
    const types = what === 'directories' ? (['directory'] as const) : (['file', 'symlink'] as const)
    for (const type of types) {
      const first = makeInodeId(type, shard, 0)
      const from = Math.max(first, after === 0 ? 0 : after + 1)
      const end = first + 2 ** 43
      if (from >= end) continue
      let isFull = false
      state.range(
        letter + transientKey(from as InodeId).slice(1),
        letter + transientKey(end as InodeId).slice(1),
        (key, value) => {
          if (inodes.length === count) {
            isFull = true
            return false
          }
          const inode = numberOfKey(key, 1) as InodeId
          const isTransient = what === 'transient'
          const deadline = isTransient ? decode(transientRecord, value).deadline : 0
          inodes.push({ inode, deadline, cookie: isTransient ? cookieOf(state, inode) : Buffer.alloc(COOKIE_BYTES) })
          return true
        },
      )
      if (isFull) return { inodes, isLast: false }
    }
    return { inodes, isLast: true }
  },

  diskBlocks(state, shard, { disk, after, limit }) {
    const count = pageCount(limit)
    type Placed = ValueOf<(typeof shardMessages)['diskBlocks']['reply']>['blocks'][number]
    const blocks: Placed[] = []
    let isLast = true
    state.range(blockKey(shard, disk, after + 1), blockKey(shard, disk, 2 ** 53), (key, value) => {
      if (blocks.length === count) {
        isLast = false
        return false
      }
      const block = numberOfKey(key, key.length - NUMBER_BYTES) as Placed['block']
      blocks.push({ block, file: readNumber(value, 0) as InodeId, offset: readNumber(value, NUMBER_BYTES) })
      return true
    })
    return { blocks, isLast }
  },
}

/** What the process knows of an inode on any of its shards. */
function statusOf(state: StateReader, inode: InodeId): Status | undefined {
  const type = inodeType(inode)
  const none = { owner: NO_INODE, policy: undefined, transient: undefined }
  if (type === 'directory') {
    const record = findDirectory(state, inode)
    return record === undefined ? undefined : { ...none, inode, type, size: 0, ...record }
  }
  const file = findFile(state, inode)
  if (file !== undefined) return { ...none, inode, type, ...file }
  const transient = findTransient(state, inode)
  if (transient === undefined) return undefined
  const { deadline, note, lastSpan: _, ...attributes } = transient
  return { ...none, inode, type, ...attributes, transient: { deadline, note } }
}

function pageCount(limit: number): number {
  return Math.min(Math.max(limit, 1), PAGE_ENTRIES_MAX)
}

/** The key of the span that has the byte at `offset`, or of the one after it. */
function firstSpan(state: StateReader, file: InodeId, offset: number): Key {
  let from = spanKey(file, offset)
  state.rangeBackwards(spanKey(file, 0), `${from}\0`, (key, value) => {
    if (numberOfKey(key, NAME_AT) + decode(spanRecord, value).size > offset) from = key
    return false
  })
  return from
}

/** All edges of a directory in order of name and time, or backwards: those of the history, and after them the current one of each name. */
class EdgePull {
  readonly #pasts: RangePull<Buffer>
  readonly #currents: RangePull<Buffer>
  readonly #isBackwards: boolean

  /** From edges of `name` made at `time` on; backwards, from those made at `time` or before. */
  constructor(state: StateReader, directory: InodeId, name: string, time: number, isBackwards: boolean) {
    this.#isBackwards = isBackwards
    const past = pastKey(directory, name, time)
    const current = edgeKey(directory, name)
    const edge = findEdge(state, directory, name)
    if (isBackwards) {
      const isBefore = edge !== undefined && edge.created > time
      this.#pasts = new RangePull(state, pastKey(directory, '', 0).slice(0, -8), `${past}\0`, true)
      this.#currents = new RangePull(state, edgeKey(directory, ''), isBefore ? current : `${current}\0`, true)
    } else {
      const isBefore = edge !== undefined && edge.created < time
      this.#pasts = new RangePull(state, past, pastsEnd(directory))
      this.#currents = new RangePull(state, isBefore ? `${current}\0` : current, edgesEnd(directory))
    }
  }

  next(): Edge | undefined {
    const [past, current] = [this.#pasts.peek(), this.#currents.peek()]
    if (past === undefined && current === undefined) return undefined
    if (current === undefined || (past !== undefined && this.#isPastNext(past, current))) {
      this.#pasts.advance()
      return past === undefined ? undefined : edgeOf(nameOfPast(past.key), readPast(past.key, past.value))
    }
    this.#currents.advance()
    return edgeOf(nameOfEdge(current.key), readEdge(current.value))
  }

  /** Of one name, its current edge is the newest. */
  #isPastNext(past: Pair<Buffer>, current: Pair<Buffer>): boolean {
    const pastName = past.key.slice(NAME_AT, -NUMBER_BYTES - 1)
    const currentName = current.key.slice(NAME_AT)
    if (pastName === currentName) return !this.#isBackwards
    return pastName < currentName !== this.#isBackwards
  }
}

function edgeOf(name: string, { inode, created, state }: EdgeRecord): Edge {
  return { name, inode, created, state }
}
