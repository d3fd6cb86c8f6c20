/**
 * What a comparison found in the target alone, until it may be deleted: in memory while it is little, else in a file of
 * lines. Files come back in the order in which they came, directories after
 * all files and the deepest first.
 */
import { closeSync, mkdirSync, openSync, unlinkSync, writeSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { join } from 'node:path'

import type { TreeEntry } from './tree.ts'

const MEMORY_MAX = 10_000
const PAGE_ENTRIES = 1000

export class TargetOnly {
  readonly #scratch: string
  #files: TreeEntry[] = []
  readonly #directories: TreeEntry[] = []
  #path: string | undefined
  #fd = -1
  /** Files, in memory and in the file. */
  #fileCount = 0

  /** `scratch`: the directory for the file. */
  constructor(scratch: string) {
    this.#scratch = scratch
  }

  get count(): number {
    return this.#fileCount + this.#directories.length
  }
  get fileCount(): number {
    return this.#fileCount
  }

  add({ path, kind, size, version }: TreeEntry): void {
    const entry: TreeEntry = { path, kind, size, mtime: undefined, ...(version === undefined ? {} : { version }) }
    if (kind === 'directory') {
      this.#directories.push(entry)
      return
    }
    this.#fileCount++
    this.#files.push(entry)
    if (this.#files.length >= MEMORY_MAX) this.#spill()
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
    const kept = [this.#files, withDirectories ? this.#directories.splice(0).toReversed() : []]
    this.#files = []
    this.#fileCount = 0
    for (const entries of kept) {
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
