/**
 * Paths within a store: relative, `/`-separated UTF-8, no empty part, no `.` or `..`; the root is the empty string.
 * A name that breaks the rules is refused here, never altered. Order is by UTF-8 bytes, with a directory sorted as
 * its name plus `/`, which is the order S3 lists keys in.
 */
import { OperationError } from '#base/errors.ts'

/** Longest name that Linux and every store hold, in bytes of UTF-8. */
export const NAME_BYTES_MAX = 255

/** What lies under this name in the root is the store's own, where the tree is somewhere that lasts. */
export const OWN_NAME = '.eider'

/** Throws `STORE_NAME_INVALID` or `STORE_NAME_TOO_LONG` unless `name` can be one part of a path. */
export function checkName(name: string): void {
  if (
    name === '' ||
    name === '.' ||
    name === '..' ||
    name.includes('/') ||
    name.includes('\0') ||
    !name.isWellFormed()
  ) {
    throw new OperationError(
      'STORE_NAME_INVALID',
      `Cannot use ${JSON.stringify(name)} as a name: it is empty, ".", "..", has "/" or NUL in it, or is not Unicode`,
    )
  }
  if (name.length > NAME_BYTES_MAX || (name.length * 3 > NAME_BYTES_MAX && Buffer.byteLength(name) > NAME_BYTES_MAX)) {
    throw new OperationError(
      'STORE_NAME_TOO_LONG',
      `Cannot use "${name.slice(0, 40)}…" as a name: it has ${Buffer.byteLength(name)} bytes, at most ${NAME_BYTES_MAX} are allowed`,
    )
  }
}

/** Throws unless `path` is the root or names joined by single slashes. */
export function checkPath(path: string): void {
  if (path === '') return
  let start = 0
  for (;;) {
    const slash = path.indexOf('/', start)
    if (slash === -1) {
      checkName(path.slice(start))
      return
    }
    checkName(path.slice(start, slash))
    start = slash + 1
  }
}

/** The path of `name` in the directory `parent`. */
export function joinPath(parent: string, name: string): string {
  return parent === '' ? name : `${parent}/${name}`
}

/** The directory that `path` lies in; the root's is the root. */
export function parentOf(path: string): string {
  const slash = path.lastIndexOf('/')
  return slash === -1 ? '' : path.slice(0, slash)
}

/** The last part of `path`; empty for the root. */
export function nameOf(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1)
}

/** Whether `path` is `directory` itself or lies under it. */
export function isWithin(path: string, directory: string): boolean {
  return (
    directory === '' || path === directory || (path.startsWith(directory) && path.charCodeAt(directory.length) === 47)
  )
}

/** Characters that UTF-16 puts in another order than UTF-8 does. */
const OTHERWISE_ORDERED = /[\ud800-\uffff]/

/** Sorts the strings in place by their UTF-8 bytes. */
export function sortUtf8(strings: string[]): string[] {
  // Without a function to call the engine compares twice as fast.
  return strings.some((string) => OTHERWISE_ORDERED.test(string)) ? strings.sort(compareUtf8) : strings.sort()
}

/** Compares two strings by their UTF-8 bytes (which is by code point), without encoding them. */
export function compareUtf8(a: string, b: string): number {
  const length = Math.min(a.length, b.length)
  for (let i = 0; i < length; i++) {
    let x = a.charCodeAt(i)
    let y = b.charCodeAt(i)
    if (x === y) continue
    // UTF-16 puts surrogates (code points past 0xffff) below 0xe000 to 0xffff; UTF-8 puts them above.
    if (x >= 0xd800 && y >= 0xd800) {
      x = x >= 0xe000 ? x - 0x800 : x + 0x2000
      y = y >= 0xe000 ? y - 0x800 : y + 0x2000
    }
    return x - y
  }
  return a.length - b.length
}
