/**
 * What a comparison found in the target alone, until it may be deleted: in memory while it is little, else in a file of
 * lines. Files come back in the order in which they came, directories after
 * all files and the deepest first.
 */
import { closeSync, mkdirSync, openSync, unlinkSync, writeSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { join } from 'node:path'

import { parentOf } from '#store/path.ts'

import type { TreeEntry } from './tree.ts'

const MEMORY_MAX = 10_000
const PAGE_ENTRIES = 1000

export class TargetOnly {
  readonly #scratch: string
  #files: TreeEntry[] = []
  /** By path, in the order in which they came. */
  readonly #directories = new Map<string, TreeEntry>()
  #path: string | undefined
  #fd = -1
  /** Files, in memory and in the file. */
  #fileCount = 0
  /** All that were ever added, and when the present root began. */
  #added = 0
  #addedBefore = 0
  /** Entries that the source had when the present root began. */
  #sourceBefore = 0
  /** The first root that has nothing, though the target has something of it. */
  emptied: string | undefined

  /** `scratch`: the directory for the file. */
  constructor(scratch: string) {
    this.#scratch = scratch
  }

  get count(): number {
    return this.#fileCount + this.#directories.size
  }
  get fileCount(): number {
    return this.#fileCount
  }

  add({ path, kind, size, version }: TreeEntry): void {
    this.#added++
    const entry: TreeEntry = { path, kind, size, mtime: undefined, ...(version === undefined ? {} : { version }) }
    if (kind === 'directory') {
      this.#directories.set(path, entry)
      return
    }
    this.#fileCount++
    this.#files.push(entry)
    if (this.#files.length >= MEMORY_MAX) this.#spill()
  }

  /** The comparison comes to the next root: so many entries the source has had before. */
  beginRoot(source: number): void {
    this.#sourceBefore = source
    this.#addedBefore = this.#added
  }

  endRoot(name: string, source: number): void {
    if (!this.isInRoot(source) && this.#added > this.#addedBefore) this.emptied ??= name
  }

  /** Whether the source has something of the root, as it has had so many entries by now. */
  isInRoot(source: number): boolean {
    return source > this.#sourceBefore
  }

  /** Something stays at the path, and with it the directories above. */
  keep(path: string): void {
    if (this.#directories.size === 0) return
    for (let above = parentOf(path); above !== ''; above = parentOf(above)) this.#directories.delete(above)
  }

  /** All that there is, which it has no more then; directories, in which more may be found, at the end alone. */
  async *pages(withDirectories: boolean): AsyncGenerator<readonly TreeEntry[], void, undefined> {
    if (this.#path !== undefined) {
      this.#spill()
      const file = await open(this.#path)
      unlinkSync(this.#path)
      this.#path = undefined
      closeSync(this.#fd)
      this.#fd = -1
      let page: TreeEntry[] = []
      for await (const line of file.readLines()) {
        page.push(JSON.parse(line) as TreeEntry)
        if (page.length < PAGE_ENTRIES) continue
        yield page
        page = []
      }
      if (page.length > 0) yield page
    }
    const left = [this.#files, withDirectories ? [...this.#directories.values()].toReversed() : []]
    this.#files = []
    this.#fileCount = 0
    if (withDirectories) this.#directories.clear()
    for (const entries of left) {
      for (let at = 0; at < entries.length; at += PAGE_ENTRIES) yield entries.slice(at, at + PAGE_ENTRIES)
    }
  }

  close(): void {
    if (this.#fd >= 0) closeSync(this.#fd)
    this.#fd = -1
    if (this.#path !== undefined) unlinkSync(this.#path)
    this.#path = undefined
  }

  #spill(): void {
    if (this.#path === undefined) {
      mkdirSync(this.#scratch, { recursive: true, mode: 0o700 })
      this.#path = join(this.#scratch, `target-only-${process.pid}`)
      this.#fd = openSync(this.#path, 'w', 0o600)
    }
    writeSync(this.#fd, this.#files.map((entry) => `${JSON.stringify(entry)}\n`).join(''))
    this.#files = []
  }
}
