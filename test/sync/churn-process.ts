/**
 * Changes a tree at random, from a seed, for a time: argv is DIRECTORY OUTSIDE MILLISECONDS SEED [PAUSE_MS_MAX]. For tests. Trees are moved between
 * the directory and the one outside, which lies on the same file system. Prints the number of things it did.
 */
import {
  appendFileSync,
  chmodSync,
  closeSync,
  cpSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'

const [directory = '', outside = '', ms = '', seed = '', pauseMsMax = '8'] = process.argv.slice(2)
let state = Number(seed) >>> 0

function below(count: number): number {
  state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
  return Math.floor((state / 0x1_0000_0000) * count)
}

const pick = <T>(from: readonly T[]): T | undefined => from[below(from.length)]
const NAMES = ['a', 'b', 'c', 'd', 'e', 'a-b', 'ä', 'x y']
const name = (): string => `${pick(NAMES)}${below(4)}`

function directories(): string[] {
  const found = [directory]
  for (const entry of readdirSync(directory, { withFileTypes: true, recursive: true })) {
    if (entry.isDirectory()) found.push(join(entry.parentPath, entry.name))
  }
  return found
}

/** Other bytes and the same size; the time put back, too, so that only the ctime tells. */
function sameSize(file: string, putBack: boolean): void {
  const { isFile, size, atime, mtime } = before(file)
  if (!isFile || size === 0) return
  const fd = openSync(file, 'r+')
  try {
    writeSync(fd, String(below(10)), below(size))
  } finally {
    closeSync(fd)
  }
  if (putBack) utimesSync(file, atime, mtime)
}

function before(file: string): { isFile: boolean; size: number; atime: Date; mtime: Date } {
  const status = lstatSync(file)
  const { size, atime, mtime } = status
  return { isFile: status.isFile(), size, atime, mtime }
}

function act(all: readonly string[]): void {
  const into = pick(all) ?? directory
  const from = pick(all.slice(1)) ?? join(directory, 'none')
  const path = join(into, name())
  const file = pick(readdirSync(into).map((each) => join(into, each))) ?? path
  const acts: (() => void)[] = [
    () => writeFileSync(path, 'x'.repeat(below(5000))),
    () => appendFileSync(file, 'more'),
    () => writeFileSync(file, 'again'),
    () => mkdirSync(path),
    () => mkdirSync(join(path, name(), name()), { recursive: true }),
    () => renameSync(file, path),
    () => renameSync(from, path),
    () => renameSync(from, join(outside, name())),
    () => renameSync(join(outside, pick(readdirSync(outside)) ?? 'none'), path),
    () => truncateSync(file, below(3000)),
    () => sameSize(file, below(2) === 0),
    () => rmSync(file),
    () => rmSync(file, { recursive: all.length < 200 ? below(3) === 0 : true }),
    () => symlinkSync('nowhere', path),
    () => linkSync(file, path),
    () => chmodSync(file, 0o700 + below(64)),
    () => {
      writeFileSync(`${file}.tmp`, 'saved')
      renameSync(`${file}.tmp`, file)
    },
    () => {
      // Over something else, or into itself, it ends the process.
      const isFree = lstatSync(path, { throwIfNoEntry: false }) === undefined && !`${path}/`.startsWith(`${from}/`)
      if (all.length < 100 && isFree) cpSync(from, path, { recursive: true })
    },
    // Never a name that came from the tree: it may have further ones there, and nobody could tell of those.
    () => writeFileSync(join(outside, `z${below(9)}`), 'not of the tree'),
  ]
  pick(acts)?.()
}

const until = Date.now() + Number(ms)
let done = 0
while (Date.now() < until) {
  const all = directories()
  for (let burst = below(40); burst >= 0; burst--) {
    try {
      act(all)
      done++
    } catch {
      // What cannot be done (a directory into itself, a name that is taken or gone) is not.
    }
  }
  await setTimeout(below(Number(pauseMsMax)))
}
process.stdout.write(`${done}\n`)
