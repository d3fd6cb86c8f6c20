/** Rules of the code base that no linter knows: how files are called, how long they are, and how they open. */
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { basename } from 'node:path'

const LINES_MAX = 800
const NAMES_FORBIDDEN = new Set(['utils', 'util', 'helpers', 'helper', 'common', 'types', 'shared', 'index', 'misc'])
/** Written so that this file does not break its own rule. */
const NOTES_FORBIDDEN = /\b(?:TO[D]O|FIX[M]E|XX[X])\b/
/** What a process of the cluster has from its surroundings alone, or the simulator could not repeat what it does. */
const WORLD_CALLS =
  /(?<![\w.])(?:setTimeout|setInterval|setImmediate|queueMicrotask|process\.nextTick|Date\.now|performance\.now|Math\.random|AbortSignal\.timeout)\b/
/** Those that are the surroundings, the defaults of real processes, and what runs in a browser. */
const WORLD_FILES =
  /^src\/cluster\/(?:system-surroundings|block\/disk|block\/disk-calls|registry\/page-script|wire\/tcp-[a-z-]+|.*-fixture|.*\.test)\.ts$/
const CODE = /\.(?:ts|js)$/

/** One line for each rule that a file of the project breaks. */
export function brokenFileRules(): string[] {
  const listed = spawnSync('git', ['ls-files', '--cached', '--others', '--exclude-standard'], { encoding: 'utf8' })
  if (listed.status !== 0) return ['Cannot list the files of the project: git ls-files failed']
  return listed.stdout
    .split('\n')
    .filter((path) => CODE.test(path) && existsSync(path))
    .flatMap((path) => brokenBy(path, readFileSync(path, 'utf8')))
}

function brokenBy(path: string, text: string): string[] {
  const broken: string[] = []
  const lines = text.split('\n')
  const stem = basename(path).replace(/(?:\.test)?\.(?:ts|js)$/, '')
  if (NAMES_FORBIDDEN.has(stem)) broken.push(`${path}: a file is named after what it holds, not "${stem}"`)
  if (!/^[a-z0-9]+(?:-[a-z0-9]+)*$/.test(stem)) broken.push(`${path}: file names are kebab-case`)
  if (lines.length > LINES_MAX) broken.push(`${path}: ${lines.length} lines, at most ${LINES_MAX} are allowed`)
  const opening = lines[0]?.startsWith('#!') ? lines[1] : lines[0]
  // A test beside the code answers for the file that it is named after.
  const isUnitTest = /^(?:src|sim)\//.test(path) && path.endsWith('.test.ts')
  if (!isUnitTest && !opening?.startsWith('/**'))
    broken.push(`${path}: a file opens with a paragraph saying what it answers for`)
  const isSimulated = path.startsWith('src/cluster/') && !WORLD_FILES.test(path)
  for (const [index, line] of lines.entries()) {
    if (isSimulated && WORLD_CALLS.test(line)) {
      broken.push(`${path}:${index + 1}: time and chance of the cluster come from its surroundings`)
    }
    if (NOTES_FORBIDDEN.test(line)) broken.push(`${path}:${index + 1}: a note of work left undone`)
  }
  return broken
}
