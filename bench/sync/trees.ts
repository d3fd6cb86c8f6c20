/** Trees that are synced, and how far a copy of one has come: all on local disk, by system calls that cost little beside what is measured. */
import { mkdirSync, readdirSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { noise } from '#bench/mount/far-bucket.ts'

/** Lays out files of that many bytes, no two of them the same, evenly in directories of one level. */
export function layTree(root: string, files: number, directories: number, bytes: number): void {
  const content = noise(bytes)
  const directory = (index: number): string => join(root, `directory-${index}`)
  for (let index = 0; index < directories; index++) mkdirSync(directory(index), { recursive: true })
  const each = Math.ceil(files / directories)
  for (let index = 0; index < files; index++) {
    content.writeUInt32LE(index, 0)
    writeFileSync(join(directory(Math.floor(index / each)), `file-${index}`), content)
  }
}

/** Files in the directories of `root`; what begins with a dot is on its way, or no file of the tree's. */
export function countFiles(root: string): number {
  let count = 0
  for (const entry of readdirSync(root, { withFileTypes: true })) {
    if (entry.name.startsWith('.')) continue
    if (!entry.isDirectory()) count++
    else for (const name of namesIn(join(root, entry.name))) if (!name.startsWith('.')) count++
  }
  return count
}

function namesIn(directory: string): readonly string[] {
  try {
    return readdirSync(directory)
  } catch {
    // Made and not there any more, or not yet.
    return []
  }
}

/** Waits until there are so many files; the moment of it. The last of them has its bytes, as it gets its name with them. */
export async function untilFiles(root: string, count: number, msMax: number): Promise<number> {
  const deadline = performance.now() + msMax
  for (;;) {
    const found = countFiles(root)
    if (found === count) return performance.now()
    if (performance.now() > deadline) throw new Error(`after ${msMax} ms there are ${found} of ${count} files`)
    await delay(10)
  }
}

/** Whether it is a whole file by now. */
export function isThere(path: string, bytes: number): boolean {
  return statSync(path, { throwIfNoEntry: false })?.size === bytes
}
