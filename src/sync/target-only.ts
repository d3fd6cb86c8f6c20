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
  #count = 0

  /** `scratch`: the directory for the file. */
  constructor(scratch: string) {
    this.#scratch = scratch
  }

  get count(): number {
    return this.#count
  }

  add({ path, kind, size, version }: TreeEntry): void {
    this.#count++
    const entry: TreeEntry = { path, kind, size, mtime: undefined, ...(version === undefined ? {} : { version }) }
    if (kind === 'directory') {
      this.#directories.push(entry)
      return
    }
    this.#files.push(entry)
    if (this.#files.length >= MEMORY_MAX) this.#spill()
  }

  async *pages(): AsyncGenerator<readonly TreeEntry[], void, undefined> {
    if (this.#path !== undefined) {
      this.#spill()
      const file = await open(this.#path)
      unlinkSync(this.#path)
      this.#path = undefined
      let page: TreeEntry[] = []
      for await (const line of file.readLines()) {
        page.push(JSON.parse(line) as TreeEntry)
        if (page.length < PAGE_ENTRIES) continue
        yield page
        page = []
      }
      if (page.length > 0) yield page
    }
    for (const entries of [this.#files, this.#directories.toReversed()]) {
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
