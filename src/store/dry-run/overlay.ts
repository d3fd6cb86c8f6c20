/**
 * The tree of a dry run: what was changed, over what the store within has. A directory of it shows the directory of the
 * inner store that it is based on, but for the names that it has an answer of its own for. So a whole directory is moved by
 * moving one node, which goes on showing the inner directory from its new place.
 *
 * Everything here is synchronous and knows nothing of the inner store but paths: what has to be asked is asked through
 * `facts.ts` before anything is changed. Only what was touched is held: some 300 bytes for each entry.
 */
import { assert } from '#base/assert.ts'
import type { Timestamp } from '#base/time.ts'
import { joinPath, nameOf, parentOf } from '#store/path.ts'
import type { Attributes, Entry, Kind, Version } from '#store/store.ts'

import type { SpoolFile } from './spool.ts'

/** Where the bytes of an entry are. */
export type Content =
  | { readonly kind: 'spooled'; readonly file: SpoolFile }
  /** In the inner store, as this version of this path. */
  | { readonly kind: 'stored'; readonly path: string; readonly version: Version }
  | { readonly kind: 'memory'; readonly bytes: Buffer }

/** What is known of an entry that was made or changed here. */
export interface Own {
  readonly version: Version
  readonly modified: Timestamp
  readonly attributes: Attributes
}

/** A file, symlink, fifo or socket. */
export interface Leaf extends Own {
  readonly type: 'leaf'
  readonly kind: Exclude<Kind, 'directory'>
  readonly size: number
  readonly content: Content
}

export interface Directory {
  readonly type: 'directory'
  /** The directory of the inner store that shows through, which need not exist; undefined: none does. */
  readonly base: string | undefined
  /** Undefined where the inner directory's own attributes and version show, too. */
  own: Own | undefined
  /** Names that the inner directory is not asked for. */
  readonly children: Map<string, Node | typeof REMOVED>
}

export type Node = Leaf | Directory

export const REMOVED = 'removed'

/** What a path is: a node, a path of the inner store, nothing, or a path under what is no directory. */
export type Found =
  | { readonly at: 'node'; readonly node: Node }
  | { readonly at: 'inner'; readonly path: string }
  | { readonly at: 'nowhere' }
  | { readonly at: 'leaf'; readonly path: string }

export class Overlay {
  readonly root: Directory = { type: 'directory', base: '', own: undefined, children: new Map() }
  readonly #release: (leaf: Leaf) => void

  /** `release` is told of each leaf that is not in the tree any more, by replacement or removal. */
  constructor(release: (leaf: Leaf) => void) {
    this.#release = release
  }

  find(path: string): Found {
    if (path === '') return { at: 'node', node: this.root }
    let directory = this.root
    let start = 0
    for (;;) {
      const slash = path.indexOf('/', start)
      const end = slash === -1 ? path.length : slash
      const child = directory.children.get(path.slice(start, end))
      if (child === undefined) {
        if (directory.base === undefined) return { at: 'nowhere' }
        return { at: 'inner', path: joinPath(directory.base, path.slice(start)) }
      }
      if (child === REMOVED) return { at: 'nowhere' }
      if (slash === -1) return { at: 'node', node: child }
      if (child.type === 'leaf') return { at: 'leaf', path: path.slice(0, end) }
      directory = child
      start = end + 1
    }
  }

  /** Puts the node at the path, in place of what is there; the directories above come into being. */
  set(path: string, node: Node): void {
    const { children } = this.#connect(parentOf(path))
    const name = nameOf(path)
    const before = children.get(name)
    children.set(name, node)
    if (before !== undefined && before !== REMOVED) this.#releaseAll(before)
  }

  /** Takes the node at the path out of the tree, to be set elsewhere or, with `gone`, to be given up. */
  take(path: string, gone = false): Node | undefined {
    const parent = this.#connect(parentOf(path))
    const name = nameOf(path)
    const before = parent.children.get(name)
    if (parent.base === undefined) parent.children.delete(name)
    else parent.children.set(name, REMOVED)
    if (before === undefined || before === REMOVED) return undefined
    if (gone) this.#releaseAll(before)
    return before
  }

  /** The node of the directory at the path, made where there is none. Nothing on the way is a leaf. */
  #connect(path: string): Directory {
    let directory = this.root
    for (const name of path === '' ? [] : path.split('/')) {
      let child = directory.children.get(name)
      if (child === undefined || child === REMOVED) {
        const shown = child === undefined ? directory.base : undefined
        const base = shown === undefined ? undefined : joinPath(shown, name)
        child = { type: 'directory', base, own: undefined, children: new Map() }
        directory.children.set(name, child)
      }
      assert(child.type === 'directory', 'what lies above a change is a directory')
      directory = child
    }
    return directory
  }

  #releaseAll(node: Node): void {
    if (node.type === 'leaf') {
      this.#release(node)
      return
    }
    for (const child of node.children.values()) if (child !== REMOVED) this.#releaseAll(child)
  }
}

/** The entry of a leaf. */
export function leafEntry(path: string, { kind, size, version, modified, attributes }: Leaf): Entry {
  return { path, kind, size, version, modified, attributes }
}

/** The entry of a directory that has been changed itself. */
export function ownEntry(path: string, { version, modified, attributes }: Own): Entry {
  return { path, kind: 'directory', size: 0, version, modified, attributes }
}
