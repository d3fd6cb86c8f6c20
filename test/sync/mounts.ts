/**
 * File systems that a test mounts for a while: in memory, or in an image. `withPlaces` takes away what is left below it; and so does
 * the end of the test file, for a test that never came to its own.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after } from 'node:test'

import { isWithin } from '#store/path.ts'

import { until } from './sync-process.ts'
import { isRoot } from './users.ts'

/** Directories that something is mounted on, in the order of the mounts. */
const mounted: string[] = []

after(() => unmountBelow(''))

/** Why nothing can be mounted here; false where it can. */
export const noMounts = whyNot((directory) => mountMemory(directory))

/** Why there can be no file systems of a test's own making; false where there can. */
export function noImages(): string | false {
  return whyNot((directory) => {
    makeImage(`${directory}.img`)
    mountImage(`${directory}.img`, directory)
  })
}

function whyNot(use: (directory: string) => void): string | false {
  if (!isRoot) return 'it takes root to mount'
  const base = mkdtempSync(join(tmpdir(), 'eider-may-mount-'))
  const directory = join(base, 'mount')
  mkdirSync(directory)
  try {
    use(directory)
    return false
  } catch (error) {
    return `nothing can be mounted here: ${error instanceof Error ? error.message : String(error)}`
  } finally {
    unmountBelow(base)
    rmSync(base, { recursive: true })
  }
}

/** An empty file system in memory. */
export function mountMemory(directory: string, size = '4m'): void {
  mount(directory, '-t', 'tmpfs', '-o', `size=${size}`, 'none')
}

/** A small ext4 in a file, with further words of mkfs. */
export function makeImage(image: string, ...words: readonly string[]): void {
  run('mkfs.ext4', '-q', '-F', ...words, image, '4m')
}

export function mountImage(image: string, directory: string): void {
  mount(directory, '-o', 'loop', image)
}

function mount(directory: string, ...words: readonly string[]): void {
  run('mount', ...words, directory)
  mounted.push(directory)
}

/** Takes away what is mounted there, also where somebody looks at it just then. */
export function unmount(directory: string): void {
  run('umount', '-l', directory)
  mounted.splice(mounted.lastIndexOf(directory), 1)
}

/** The same; when it resolves nobody has anything of it open, and all is in its image. */
export async function unmountWhole(directory: string): Promise<void> {
  await until(`"${directory}" to be unmounted`, () => spawnSync('umount', [directory], { cwd: '/' }).status === 0)
  mounted.splice(mounted.lastIndexOf(directory), 1)
}

/** Takes away all that is mounted at or below a directory. */
export function unmountBelow(base: string): void {
  for (const directory of mounted.toReversed()) if (isWithin(directory, base)) unmount(directory)
}

function run(program: string, ...words: readonly string[]): void {
  const { status, stderr, error } = spawnSync(program, words, { encoding: 'utf8', cwd: '/' })
  assert.equal(status, 0, `${program}: ${error?.message ?? stderr}`)
}
