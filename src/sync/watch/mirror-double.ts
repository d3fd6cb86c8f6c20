/**
 * What a reader of a watcher knows of a tree that keeps to the rules of the port, and nothing beyond: a change that is not told
 * is not known. For tests: at the end it is compared with the tree.
 */
import { lstatSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { isWithin, joinPath } from '#store/path.ts'
import type { Change } from './watcher.ts'

interface Entry {
  readonly inode: bigint
  /** Names of a file. */
  readonly links: bigint
  /** Differs where the entry does: type, mode, and of a file its size and time. */
  readonly line: string
}

export class Mirror {
  readonly #root: string
  readonly entries = new Map<string, Entry>()
  readonly told: Change[] = []
  /** Not found when they were looked at, and not yet told to be gone or to have moved. */
  readonly #missing = new Set<string>()
  scans = 0

  constructor(root: string) {
    this.#root = root
  }

  /** All of the tree as it is, by names of the mirror's kind. */
  static of(root: string): Mirror {
    const mirror = new Mirror(root)
    mirror.scan('')
    return mirror
  }

  take(batch: readonly Change[]): void {
    const looks = new Set<string>()
    const scans = new Set<string>()
    for (const change of batch) {
      this.told.push(change)
      if (change.kind === 'gone') this.#found(change.path)
      if (change.kind === 'written' || change.kind === 'gone') looks.add(change.path)
      else if (change.kind === 'subtree') scans.add(change.path)
      else if (change.kind === 'lost') scans.add('')
      else if (change.kind === 'moved') {
        this.#moved(change.from, change.to, looks, scans)
        looks.add(change.to)
      }
    }
    for (const path of scans) this.scan(path)
    for (const path of looks) {
      if (this.#look(path) === undefined && !batch.some((change) => change.kind === 'gone' && change.path === path)) {
        this.#missing.add(path)
      }
    }
  }

  #found(path: string): void {
    for (const each of [...this.#missing]) if (isWithin(each, path)) this.#missing.delete(each)
  }

  /** What differs from the tree as it is. */
  differences(): string[] {
    const now = Mirror.of(this.#root).entries
    const differ: string[] = []
    for (const [path, { line }] of now) {
      const known = this.entries.get(path)
      if (known?.line !== line) differ.push(`${path}: is ${line}, known as ${known?.line}`)
    }
    for (const path of this.entries.keys()) if (!now.has(path)) differ.push(`${path}: is gone, known to be there`)
    return differ
  }

  scan(path: string): void {
    this.scans++
    this.#forget(path)
    this.#found(path)
    const left = [path]
    for (let at = left.pop(); at !== undefined; at = left.pop()) {
      const kind = this.#look(at)
      if (kind === undefined) this.#missing.add(at)
      if (kind !== 'directory') continue
      try {
        for (const name of readdirSync(join(this.#root, at))) left.push(joinPath(at, name))
      } catch {
        this.#missing.add(at)
      }
    }
  }

  #moved(from: string, to: string, looks: Set<string>, scans: Set<string>): void {
    for (const set of [looks, scans]) {
      for (const path of [...set]) if (isWithin(path, from)) set.add(to + path.slice(from.length))
    }
    for (const path of [...this.#missing]) {
      if (!isWithin(path, from)) continue
      this.#missing.delete(path)
      scans.add(to + path.slice(from.length))
    }
    const known = this.entries.get(from)
    if (known === undefined || entryAt(this.#root, to)?.inode !== known.inode || entryAt(this.#root, from)) {
      scans.add(from).add(to)
      return
    }
    this.#forget(to)
    for (const [path, entry] of [...this.entries]) {
      if (!isWithin(path, from)) continue
      this.entries.delete(path)
      this.entries.set(to + path.slice(from.length), entry)
    }
  }

  #look(path: string): 'directory' | 'other' | undefined {
    const entry = entryAt(this.#root, path)
    if (entry === undefined || !entry.line.startsWith('directory')) this.#forget(path)
    if (entry === undefined) return undefined
    this.entries.set(path, entry)
    if (entry.links > 1n) {
      for (const [other, known] of this.entries) {
        if (known.inode !== entry.inode) continue
        const now = entryAt(this.#root, other)
        if (now !== undefined) this.entries.set(other, now)
      }
    }
    return entry.line.startsWith('directory') ? 'directory' : 'other'
  }

  #forget(path: string): void {
    const known = this.entries.get(path)
    this.entries.delete(path)
    if (known?.line.startsWith('directory') !== true) return
    for (const each of [...this.entries.keys()]) if (isWithin(each, path)) this.entries.delete(each)
  }
}

function entryAt(root: string, path: string): Entry | undefined {
  try {
    const { ino, mode, nlink, size, mtimeNs } = lstatSync(join(root, path), { bigint: true })
    const isDirectory = (mode & 0o170000n) === 0o040000n
    if (isDirectory) return { inode: ino, links: 1n, line: `directory ${ino} ${mode}` }
    return { inode: ino, links: nlink, line: `file ${ino} ${mode} ${size} ${mtimeNs}` }
  } catch {
    return undefined
  }
}
