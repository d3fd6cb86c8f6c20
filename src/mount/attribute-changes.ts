/**
 * What was changed of a file's attributes here and is not yet in the store. Machines that share a store each change what
 * they mean to change: a publish sends what is stored with these changes over it, so that a write here keeps the mode that
 * another machine has set, which no guard would notice where a version stands for the bytes alone (S3's etag).
 */
import { compareTimestamps, type Timestamp } from '#base/time.ts'
import type { Attributes } from '#store/store.ts'

import type { Node } from './node.ts'

type Xattrs = ReadonlyMap<string, Uint8Array>
const NO_XATTRS: Xattrs = new Map()
type TimeName = 'mtime' | 'atime' | 'ctime'
const TIME_NAMES: readonly TimeName[] = ['mtime', 'atime', 'ctime']

export interface ChangeParts {
  readonly isNew: boolean
  readonly withoutXattrs: boolean
  readonly others: Attributes
  readonly xattrs: readonly (readonly [string, Uint8Array | undefined])[]
  readonly setTimes: readonly TimeName[]
}

export class AttributeChanges {
  /** The file was made here: it has its own attributes, and nothing of what is stored under its name. */
  isNew = false
  /** The store has refused them: the file goes there without any extended attributes. */
  #withoutXattrs = false
  /** All that were changed but the extended ones. */
  readonly #others: Attributes = {}
  /** By name; undefined: removed. */
  readonly #xattrs = new Map<string, Uint8Array | undefined>()
  /** Times that somebody has set, rather than a write. */
  readonly #setTimes = new Set<TimeName>()

  /** What `parts` has given. */
  static of({ isNew, withoutXattrs, others, xattrs, setTimes }: ChangeParts): AttributeChanges {
    const changes = new AttributeChanges()
    changes.isNew = isNew
    changes.#withoutXattrs = withoutXattrs
    Object.assign(changes.#others, others)
    for (const [name, value] of xattrs) changes.#xattrs.set(name, value)
    for (const name of setTimes) changes.#setTimes.add(name)
    return changes
  }

  /** All there is to it, for what outlives the process. */
  parts(): ChangeParts {
    const { isNew } = this
    const others = { ...this.#others }
    return {
      ...{ isNew, withoutXattrs: this.#withoutXattrs, others },
      ...{ xattrs: [...this.#xattrs], setTimes: [...this.#setTimes] },
    }
  }

  /** These, and `later` over them. */
  with(later: AttributeChanges): AttributeChanges {
    const both = AttributeChanges.of(this.parts())
    both.add(later)
    return both
  }

  get hasXattrs(): boolean {
    return this.#xattrs.size > 0 || this.#withoutXattrs
  }

  /** Notes a change of what was `before`; `byWrite`: nobody asked for it, it comes with a change of the bytes. */
  note(changes: Attributes, before: Attributes | undefined, byWrite = false): void {
    for (const name of TIME_NAMES) {
      if (changes[name] === undefined) continue
      if (byWrite) this.#setTimes.delete(name)
      else this.#setTimes.add(name)
    }
    const { xattrs } = changes
    if (xattrs === undefined) {
      Object.assign(this.#others, changes)
      return
    }
    const { xattrs: _, ...others } = changes
    Object.assign(this.#others, others)
    const old = before?.xattrs ?? NO_XATTRS
    for (const name of old.keys()) if (!xattrs.has(name)) this.#xattrs.set(name, undefined)
    for (const [name, value] of xattrs) if (old.get(name) !== value) this.#xattrs.set(name, value)
  }

  /** Takes in changes made after these. */
  add(later: AttributeChanges): void {
    Object.assign(this.#others, later.#others)
    for (const [name, value] of later.#xattrs) this.#xattrs.set(name, value)
    for (const name of TIME_NAMES) {
      if (later.#setTimes.has(name)) this.#setTimes.add(name)
      else if (later.#others[name] !== undefined) this.#setTimes.delete(name)
    }
  }

  /**
   * All attributes for an upload that was begun with `begun`, which costs nothing more only where they are the same: times
   * that came with writes stay as they were then.
   */
  overBegun(stored: Attributes, begun: Attributes): Attributes {
    const wanted = this.over(stored)
    const { mtime, atime, ctime } = begun
    const kept = {
      ...wanted,
      ...(mtime === undefined || this.#setTimes.has('mtime') ? {} : { mtime }),
      ...(atime === undefined || this.#setTimes.has('atime') ? {} : { atime }),
    }
    // The time of change alone says nothing that is worth a copy.
    return ctime !== undefined && areEqual({ ...kept, ctime }, begun) ? { ...kept, ctime } : kept
  }

  /** All attributes, where `stored` are those in the store, with or without these changes. */
  over(stored: Attributes): Attributes {
    const attributes = { ...stored, ...this.#others }
    return this.hasXattrs ? { ...attributes, xattrs: this.#xattrsOver(stored) } : attributes
  }

  /** What alone has to be sent to a store that keeps what it is not told of. */
  alone(stored: Attributes): Attributes {
    return this.hasXattrs ? { ...this.#others, xattrs: this.#xattrsOver(stored) } : { ...this.#others }
  }

  #xattrsOver(stored: Attributes): Xattrs {
    if (this.#withoutXattrs) return NO_XATTRS
    const xattrs = new Map(stored.xattrs)
    for (const [name, value] of this.#xattrs) {
      if (value === undefined) xattrs.delete(name)
      else xattrs.set(name, value)
    }
    return xattrs
  }

  /**
   * Gives up extended attributes that the store refuses: first what was changed here, then all. False where there are no
   * more to give up.
   */
  giveUpXattrs(sent: Attributes): boolean {
    if (this.#withoutXattrs || (sent.xattrs?.size ?? 0) === 0) return false
    if (this.#xattrs.size > 0 && !this.isNew) this.#xattrs.clear()
    else this.#withoutXattrs = true
    return true
  }
}

function areEqual(a: Attributes, b: Attributes): boolean {
  if (a.mode !== b.mode || a.uid !== b.uid || a.gid !== b.gid) return false
  for (const name of TIME_NAMES) if (!isSameTime(a[name], b[name])) return false
  const [one, other] = [a.xattrs ?? NO_XATTRS, b.xattrs ?? NO_XATTRS]
  return one.size === other.size && [...one].every(([name, value]) => isSameValue(value, other.get(name)))
}

function isSameTime(a: Timestamp | undefined, b: Timestamp | undefined): boolean {
  return a === b || (a !== undefined && b !== undefined && compareTimestamps(a, b) === 0)
}

function isSameValue(a: Uint8Array, b: Uint8Array | undefined): boolean {
  return b !== undefined && Buffer.compare(a, b) === 0
}

/** Changes attributes of a node here; of an open file the next publish sends them. */
export function changeAttributes(node: Node, changes: Attributes, byWrite = false): void {
  // The other attributes are not known: a publish has to ask for them.
  if (node.attributes === undefined) node.validatedAt = -Infinity
  node.file?.changes.note(changes, node.attributes, byWrite)
  node.attributes = { ...node.attributes, ...changes }
}
