/**
 * Reads a file of LMDB (docs/formats/journal.md) as plain bytes: without LMDB itself, which maps its file and ends the process where that is
 * damaged, and which writes a table of readers beside it. Here every page is looked at before it is believed; one that is damaged or cut off is told of
 * once, and what lies on other pages is given all the same.
 *
 * The file must not change meanwhile: whoever opens it has the lock of its directory. Memory: some pages, however large the file is.
 */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs'

import { OperationError } from '#base/errors.ts'
import type { EachPair, Key, StateReader } from '#cluster/journal/state.ts'

const PAGE_BYTES = 4096
/** 16 MiB: all the branches of a state of many millions of keys, and the leaves that are read just now. */
const PAGES_KEPT = 4096
const HEADER_BYTES = 24
const NODE_BYTES = 8
const MAGIC = 0xbeefc0de
const DATA_VERSION = 2
/** In the header of a page: which page it is, flags, how many bytes its list of nodes has. */
const FLAGS_AT = 18
const LOWER_AT = 20
const IS_BRANCH = 1
const IS_LEAF = 2
const IS_OVERFLOW = 4
/** Of a node: its value lies on pages of its own; it is another tree. */
const IS_BIG = 1
const IS_TREE = 2
/** In one of the two pages that the file begins with: the trees, the last page, the number of the transaction. */
const ROOT_TREE_AT = HEADER_BYTES + 24 + 48
const LAST_PAGE_AT = HEADER_BYTES + 120
const TRANSACTION_AT = HEADER_BYTES + 128
const TREE_BYTES = 48
const TREE_ROOT_AT = 40
/** Of a tree that is empty. */
const NO_PAGE = Number(0xffffffffffffffffn)
/** No tree of such pages is deeper: what seems to be goes round. */
const DEPTH_MAX = 32

/** Told of each page once: which one it is, and what is wrong. */
export type OnDamage = (detail: string) => void

/** Where in a tree a page is: its keys lie from `low` on and before `high`. Pages that do not keep to that could go round for ever. */
interface Place {
  readonly depth: number
  readonly low: Key
  readonly high: Key | undefined
}

const ALL: Place = { depth: 0, low: '', high: undefined }

interface Node {
  readonly flags: number
  readonly keyAt: number
  readonly keyEnd: number
}

export class LmdbFile {
  readonly #fd: number
  readonly #bytes: number
  readonly #onDamage: OnDamage
  readonly #told = new Set<number>()
  /** Those that were used lately, and those that were used before; when the first are many, they take the place of the others. */
  #pages = new Map<number, Buffer>()
  #pagesBefore = new Map<number, Buffer>()
  /** The main database. */
  readonly root: LmdbTree

  private constructor(fd: number, bytes: number, onDamage: OnDamage) {
    this.#fd = fd
    this.#bytes = bytes
    this.#onDamage = onDamage
    this.root = new LmdbTree(this, bytes === 0 ? NO_PAGE : this.#newestRoot())
  }

  /** @throws JOURNAL_FAILED where it cannot be read, JOURNAL_CORRUPT where it does not begin as such a file */
  static open(path: string, onDamage: OnDamage): LmdbFile {
    let fd: number
    try {
      fd = openSync(path, 'r')
    } catch (error) {
      throw new OperationError('JOURNAL_FAILED', `Cannot read "${path}": ${(error as Error).message}`, { cause: error })
    }
    try {
      return new LmdbFile(fd, fstatSync(fd).size, onDamage)
    } catch (error) {
      closeSync(fd)
      const detail = (error as Error).message
      throw new OperationError('JOURNAL_CORRUPT', `Cannot read "${path}": ${detail}`, { cause: error })
    }
  }

  close(): void {
    closeSync(this.#fd)
  }

  /** A named database, whose name has a NUL after it; an empty one where there is none. */
  database(name: string): LmdbTree {
    const found = this.root.find(Buffer.from(`${name}\0`, 'latin1'))
    const isTree = found !== undefined && (found.flags & IS_TREE) !== 0 && found.value.length >= TREE_BYTES
    return new LmdbTree(this, isTree ? readU64(found.value, TREE_ROOT_AT) : NO_PAGE)
  }

  /** A page of a tree; undefined where it is damaged, which is told of. */
  page(number: number): Buffer | undefined {
    const kept = this.#pages.get(number)
    if (kept !== undefined) return kept
    const before = this.#pagesBefore.get(number)
    if (before !== undefined) return this.#keep(number, before)
    const read = this.#read(number, PAGE_BYTES)
    if (typeof read === 'string') return this.damaged(number, read)
    const flaw = flawOf(read, number)
    if (flaw !== undefined) return this.damaged(number, flaw)
    return this.#keep(number, read)
  }

  /** What lies on pages of its own. */
  overflow(number: number, length: number): Buffer | undefined {
    const read = this.#read(number, HEADER_BYTES + length)
    if (typeof read === 'string') return this.damaged(number, read)
    if (readU64(read, 0) !== number || (read.readUInt16LE(FLAGS_AT) & IS_OVERFLOW) === 0) {
      return this.damaged(number, 'is not the one that it should be')
    }
    return read.subarray(HEADER_BYTES)
  }

  damaged(number: number, flaw: string): undefined {
    if (!this.#told.has(number)) this.#onDamage(`page ${number} ${flaw}`)
    this.#told.add(number)
    return undefined
  }

  #keep(number: number, page: Buffer): Buffer {
    this.#pages.set(number, page)
    if (this.#pages.size < PAGES_KEPT / 2) return page
    this.#pagesBefore = this.#pages
    this.#pages = new Map()
    return page
  }

  #read(number: number, length: number): Buffer | string {
    const at = number * PAGE_BYTES
    if (!Number.isSafeInteger(at) || at + length > this.#bytes) return 'lies beyond the end of the file'
    const bytes = Buffer.allocUnsafeSlow(length)
    try {
      for (let filled = 0; filled < length;) {
        const count = readSync(this.#fd, bytes, filled, length - filled, at + filled)
        if (count === 0) return 'lies beyond the end of the file'
        filled += count
      }
    } catch (error) {
      return `cannot be read: ${(error as Error).message}`
    }
    return bytes
  }

  /** The main tree as of the last transaction that was committed. */
  #newestRoot(): number {
    let newest: { readonly transaction: number; readonly root: number } | undefined
    for (const number of [0, 1]) {
      const page = this.#read(number, PAGE_BYTES)
      if (typeof page === 'string' || page.readUInt32LE(HEADER_BYTES) !== MAGIC) continue
      if (page.readUInt32LE(HEADER_BYTES + 4) !== DATA_VERSION || page.readUInt32LE(HEADER_BYTES + 24) !== PAGE_BYTES) {
        throw new Error('it is of another version')
      }
      const transaction = readU64(page, TRANSACTION_AT)
      if ((newest?.transaction ?? -1) >= transaction) continue
      newest = { transaction, root: readU64(page, ROOT_TREE_AT + TREE_ROOT_AT) }
      const bytes = (readU64(page, LAST_PAGE_AT) + 1) * PAGE_BYTES
      if (bytes > this.#bytes) this.#onDamage(`has lost its end: ${this.#bytes} bytes are left of up to ${bytes}`)
    }
    if (newest === undefined) throw new Error('it does not begin as one of its kind does')
    return newest.root
  }
}

/** One database of the file: keys in the order of their bytes. What is damaged is missing. */
export class LmdbTree implements StateReader {
  readonly #file: LmdbFile
  readonly #root: number

  constructor(file: LmdbFile, root: number) {
    this.#file = file
    this.#root = root
  }

  get(key: Key): Buffer | undefined {
    return this.find(Buffer.from(key, 'latin1'))?.value
  }

  /** The value at the key, and the flags of its node. */
  find(key: Buffer): { readonly value: Buffer; readonly flags: number } | undefined {
    let number = this.#root
    for (let depth = 0; number !== NO_PAGE && depth < DEPTH_MAX; depth++) {
      const page = this.#file.page(number)
      if (page === undefined) return undefined
      const at = firstFrom(page, key)
      if (isBranch(page)) {
        number = childOf(page, branchTo(page, at, key))
        continue
      }
      if (at === countOf(page)) return undefined
      const node = nodeOf(page, at)
      if (key.compare(page, node.keyAt, node.keyEnd) !== 0) return undefined
      const value = this.#valueOf(page, at, node)
      return value === undefined ? undefined : { value, flags: node.flags }
    }
    return undefined
  }

  range(from: Key, to: Key, each: EachPair): void {
    if (from < to) this.#forwards(this.#root, Buffer.from(from, 'latin1'), to, each, ALL)
  }

  rangeBackwards(from: Key, to: Key, each: EachPair): void {
    if (from < to) this.#backwards(this.#root, from, Buffer.from(to, 'latin1'), each, ALL)
  }

  /** Whether to go on. @param from undefined where all of the page is wanted */
  #forwards(number: number, from: Buffer | undefined, to: Key, each: EachPair, place: Place): boolean {
    const page = this.#pageAt(number, place)
    if (page === undefined) return true
    let at = from === undefined ? 0 : firstFrom(page, from)
    if (isBranch(page)) {
      if (from !== undefined) at = branchTo(page, at, from)
      for (let index = at; index < countOf(page); index++) {
        if (index > at && keyOf(page, index) >= to) return false
        if (!this.#forwards(childOf(page, index), index === at ? from : undefined, to, each, below(page, index, place)))
          return false
      }
      return true
    }
    for (let index = at; index < countOf(page); index++) {
      const key = keyOf(page, index)
      if (key >= to) return false
      const value = this.#valueOf(page, index, nodeOf(page, index))
      if (value !== undefined && !each(key, value)) return false
    }
    return true
  }

  #backwards(number: number, from: Key, to: Buffer | undefined, each: EachPair, place: Place): boolean {
    const page = this.#pageAt(number, place)
    if (page === undefined) return true
    if (isBranch(page)) {
      const last = to === undefined ? countOf(page) - 1 : branchTo(page, firstFrom(page, to), to)
      for (let index = last; index >= 0; index--) {
        if (
          !this.#backwards(childOf(page, index), from, index === last ? to : undefined, each, below(page, index, place))
        )
          return false
        if (index > 0 && keyOf(page, index) <= from) return false
      }
      return true
    }
    const end = to === undefined ? countOf(page) : firstFrom(page, to)
    for (let index = end - 1; index >= 0; index--) {
      const key = keyOf(page, index)
      if (key < from) return false
      const value = this.#valueOf(page, index, nodeOf(page, index))
      if (value !== undefined && !each(key, value)) return false
    }
    return true
  }

  #pageAt(number: number, { depth, low, high }: Place): Buffer | undefined {
    if (number === NO_PAGE) return undefined
    if (depth >= DEPTH_MAX) return this.#file.damaged(number, 'lies deeper than any can')
    const page = this.#file.page(number)
    const count = page === undefined ? 0 : countOf(page)
    const first = page !== undefined && isBranch(page) ? 1 : 0
    if (page === undefined || first >= count) return page
    const isWithin = keyOf(page, first) >= low && (high === undefined || keyOf(page, count - 1) < high)
    return isWithin ? page : this.#file.damaged(number, 'has keys of another place')
  }

  #valueOf(page: Buffer, index: number, { flags, keyEnd }: Node): Buffer | undefined {
    const at = nodeAt(page, index)
    const length = page.readUInt16LE(at) + page.readUInt16LE(at + 2) * 65_536
    if ((flags & IS_BIG) !== 0) return this.#file.overflow(readU64(page, keyEnd), length)
    return page.subarray(keyEnd, keyEnd + length)
  }
}

/** What is wrong with the bytes of a page, undefined where they can be used. */
function flawOf(page: Buffer, number: number): string | undefined {
  if (readU64(page, 0) !== number) return 'is not the one that it should be'
  const flags = page.readUInt16LE(FLAGS_AT) & (IS_BRANCH | IS_LEAF)
  if (flags !== IS_BRANCH && flags !== IS_LEAF) return 'is neither branch nor leaf'
  const end = HEADER_BYTES + page.readUInt16LE(LOWER_AT)
  const count = countOf(page)
  if (end > PAGE_BYTES || (count === 0 && flags === IS_BRANCH)) return 'is not well formed'
  for (let index = 0; index < count; index++) {
    const at = nodeAt(page, index)
    if (at < end || at + NODE_BYTES > PAGE_BYTES) return 'is not well formed'
    const { flags: own, keyAt, keyEnd } = nodeOf(page, index)
    let bytes = 0
    if (flags === IS_LEAF) {
      bytes = (own & IS_BIG) !== 0 ? 8 : page.readUInt16LE(at) + page.readUInt16LE(at + 2) * 65_536
    }
    if (keyEnd + bytes > PAGE_BYTES) return 'is not well formed'
    if (index === 0 || (index === 1 && flags === IS_BRANCH)) continue
    const before = nodeOf(page, index - 1)
    if (page.compare(page, keyAt, keyEnd, before.keyAt, before.keyEnd) >= 0) return 'has its keys out of order'
  }
  return undefined
}

function isBranch(page: Buffer): boolean {
  return (page.readUInt16LE(FLAGS_AT) & IS_BRANCH) !== 0
}

function countOf(page: Buffer): number {
  return page.readUInt16LE(LOWER_AT) >>> 1
}

function nodeAt(page: Buffer, index: number): number {
  return HEADER_BYTES + page.readUInt16LE(HEADER_BYTES + 2 * index)
}

function nodeOf(page: Buffer, index: number): Node {
  const at = nodeAt(page, index)
  const keyAt = at + NODE_BYTES
  return { flags: page.readUInt16LE(at + 4), keyAt, keyEnd: keyAt + page.readUInt16LE(at + 6) }
}

function keyOf(page: Buffer, index: number): Key {
  const { keyAt, keyEnd } = nodeOf(page, index)
  return page.toString('latin1', keyAt, keyEnd)
}

/** The first node whose key is `key` or after it; of a branch, the first node is before all keys. */
function firstFrom(page: Buffer, key: Buffer): number {
  let low = isBranch(page) ? 1 : 0
  let high = countOf(page)
  while (low < high) {
    const middle = (low + high) >>> 1
    const { keyAt, keyEnd } = nodeOf(page, middle)
    if (key.compare(page, keyAt, keyEnd) > 0) low = middle + 1
    else high = middle
  }
  return low
}

/** Of a branch: the node under which the key lies, where `at` is the first one from it on. */
function branchTo(page: Buffer, at: number, key: Buffer): number {
  if (at === countOf(page)) return at - 1
  const { keyAt, keyEnd } = nodeOf(page, at)
  return key.compare(page, keyAt, keyEnd) === 0 ? at : at - 1
}

/** Of a branch: the page below a node, a number of 48 bits. */
function childOf(page: Buffer, index: number): number {
  const at = nodeAt(page, index)
  return page.readUInt16LE(at) + page.readUInt16LE(at + 2) * 65_536 + page.readUInt16LE(at + 4) * 2 ** 32
}

function below(page: Buffer, index: number, { depth, low, high }: Place): Place {
  return {
    depth: depth + 1,
    low: index === 0 ? low : keyOf(page, index),
    high: index + 1 < countOf(page) ? keyOf(page, index + 1) : high,
  }
}

function readU64(bytes: Buffer, at: number): number {
  return bytes.readUInt32LE(at) + bytes.readUInt32LE(at + 4) * 2 ** 32
}
