/**
 * Listings of a directory store: in sort-key order, one directory's names in memory at a time (and those of the
 * directories above it, in a walk of a whole tree), never holding the event loop for more than some milliseconds, and
 * holding no descriptor while the caller looks at a page. Names that are not UTF-8 cannot be paths of a store: they
 * are left out, told, counted, and logged once.
 */
import { closeSync, constants } from 'node:fs'

import { logger } from '#base/log.ts'
import { counter } from '#base/metrics.ts'
import { openBeneath, readEntries } from '#os/at.ts'
import { shownBytes } from '#os/entry-name.ts'
import { inodePath } from '#os/inode.ts'
import { glanceAt } from '#os/status.ts'
import { xattrNames } from '#os/xattr.ts'
import { checkAborted } from '#store/abort.ts'
import { compareUtf8, joinPath, OWN_NAME, sortUtf8 } from '#store/path.ts'
import type { Entry, Kind, ListOptions } from '#store/store.ts'

import { keptAttributes } from './attributes.ts'
import { entryOf, hasXattrs, kindOf, NOTHING_KEPT } from './entry.ts'
import { errnoNameOf, failure } from './failure.ts'

/** More of them would outlive the moment that the engine gives what is young, and cost memory and time. */
const PAGE_ENTRIES = 200
const SLICE_MS = 5
const READ_BYTES = 64 << 10
const DIRECTORY = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW

const log = logger('store/directory')
let hiddenLogged = false

/** A directory on the way: its names from `next` on are still to be given. */
interface Frame {
  readonly path: string
  /** What the sort keys of its entries begin with, relative to the directory that is listed. */
  readonly base: string
  /** With `/` after those of directories, in order. */
  readonly names: readonly string[]
  next: number
}

/** Pages of a listing of `path`; `root` stays open for as long as the store does. */
export async function* listDirectory(
  root: number,
  path: string,
  options: ListOptions,
): AsyncGenerator<readonly Entry[]> {
  const action = `list "${path}"`
  const { signal, pageEntries = PAGE_ENTRIES, recursive = false } = options
  const filter = new KeyFilter(options.prefix ?? '', options.after ?? '', recursive)
  const slice = new Slice()
  const view: View = {
    root,
    filter,
    slice,
    pageEntries,
    brief: options.brief === true,
    buffer: Buffer.allocUnsafe(READ_BYTES),
    onHidden: options.onHidden,
  }
  let first: readonly string[]
  try {
    first = await namesOf(view, path, '')
  } catch (error) {
    throw failure(error, action)
  }
  const frames: Frame[] = [{ path, base: '', names: first, next: 0 }]
  while (frames.length > 0) {
    checkAborted(action, signal)
    const page: Entry[] = []
    try {
      await fillPage(view, frames, page)
    } catch (error) {
      throw failure(error, action)
    }
    if (page.length > 0) yield page
    // The caller may have taken the page without letting the event loop run.
    if (slice.over()) await slice.next()
  }
}

/** What a listing shows, and how. */
interface View {
  readonly root: number
  readonly filter: KeyFilter
  readonly slice: Slice
  readonly pageEntries: number
  readonly brief: boolean
  /** For names as the kernel gives them: a new one for each directory would be 64 MiB of garbage for a thousand. */
  readonly buffer: Buffer
  readonly onHidden: ListOptions['onHidden']
}

async function fillPage(view: View, frames: Frame[], page: Entry[]): Promise<void> {
  const { pageEntries } = view
  for (;;) {
    const frame = frames.at(-1)
    if (frame === undefined || page.length >= pageEntries) return
    const entered = await takeEntries(view, frame, page)
    if (entered !== undefined) {
      const base = `${frame.base}${entered}/`
      const path = joinPath(frame.path, entered)
      frames.push({ path, base, names: await namesIfThere(view, path, base), next: 0 })
    } else if (frame.next >= frame.names.length) {
      frames.pop()
    }
  }
}

/** Adds entries of the frame until the page is full or, in a walk, a directory is to be entered: its name then. */
async function takeEntries(view: View, frame: Frame, page: Entry[]): Promise<string | undefined> {
  const { root, filter, slice, pageEntries, brief } = view
  if (frame.next >= frame.names.length) return undefined
  const dir = openIfThere(root, frame.path)
  if (dir === undefined) {
    frame.next = frame.names.length
    return undefined
  }
  try {
    while (frame.next < frame.names.length && page.length < pageEntries) {
      const key = frame.names[frame.next++] ?? ''
      const isDirectory = key.endsWith('/')
      const name = isDirectory ? key.slice(0, -1) : key
      if (filter.shows(frame.base + key)) {
        const entry = entryAt(dir, frame.path, name, isDirectory, brief)
        if (entry !== undefined) page.push(entry)
      }
      if (isDirectory && filter.enters(frame.base + key)) return name
      if (slice.over()) await slice.next()
    }
    return undefined
  } finally {
    closeSync(dir)
  }
}

/** Undefined where it is gone, or has become another kind meanwhile and so would be out of order. */
function entryAt(dir: number, parent: string, name: string, isDirectory: boolean, brief: boolean): Entry | undefined {
  const status = glanceAt(dir, name)
  const kind = status === undefined ? undefined : kindOf(status)
  if (status === undefined || kind === undefined || (kind === 'directory') !== isDirectory) return undefined
  return entryOf(joinPath(parent, name), kind, status, !brief && hasXattrs(kind) ? keptAt(dir, name) : NOTHING_KEPT)
}

function keptAt(dir: number, name: string): ReturnType<typeof keptAttributes> {
  const path = `${inodePath(dir)}/${name}`
  try {
    return keptAttributes(path, xattrNames(path, true), true)
  } catch (error) {
    // Removed since its status was taken.
    if (errnoNameOf(error) === 'ENOENT') return NOTHING_KEPT
    throw error
  }
}

function openIfThere(root: number, path: string): number | undefined {
  try {
    return openBeneath(root, path === '' ? '.' : path, DIRECTORY)
  } catch (error) {
    const name = errnoNameOf(error)
    if (name === 'ENOENT' || name === 'ENOTDIR' || name === 'ELOOP') return undefined
    throw error
  }
}

async function namesIfThere(view: View, path: string, base: string): Promise<readonly string[]> {
  try {
    return await namesOf(view, path, base)
  } catch (error) {
    const name = errnoNameOf(error)
    if (name === 'ENOENT' || name === 'ENOTDIR' || name === 'ELOOP') return []
    throw error
  }
}

/** The names that the filter lets through, in order, with `/` after those of directories. */
async function namesOf(view: View, path: string, base: string): Promise<readonly string[]> {
  const { root, filter, slice, buffer, onHidden } = view
  const fd = openBeneath(root, path === '' ? '.' : path, DIRECTORY)
  const runs: string[][] = []
  try {
    for (;;) {
      const run: string[] = []
      const more = readEntries(fd, buffer, (name, type, bytes) => {
        if (name === undefined) {
          tellHidden(joinPath(path, shownBytes(bytes())), onHidden)
          return
        }
        if (path === '' && name === OWN_NAME) return
        const kind = type === 'unknown' ? kindAt(fd, name) : type
        if (kind === undefined || kind === 'other') return
        const key = kind === 'directory' ? `${name}/` : name
        if (filter.shows(base + key) || filter.enters(base + key)) run.push(key)
      })
      if (run.length > 0) runs.push(sortUtf8(run))
      if (!more) break
      if (slice.over()) await slice.next()
    }
  } finally {
    closeSync(fd)
  }
  return mergeRuns(runs, slice)
}

function kindAt(dir: number, name: string): Kind | undefined {
  const status = glanceAt(dir, name)
  return status === undefined ? undefined : kindOf(status)
}

function tellHidden(path: string, onHidden: ListOptions['onHidden']): void {
  onHidden?.({ path, detail: 'its name is not UTF-8' })
  counter('eider_directory_names_hidden_total').inc()
  if (hiddenLogged) return
  hiddenLogged = true
  log.warn({ path }, 'names that are not UTF-8 are left out of listings; said once, counted in metrics')
}

/** One sorted list of many, pair by pair, so that a directory of a million names is sorted in slices too. */
export async function mergeRuns(runs: string[][], slice: Slice): Promise<readonly string[]> {
  let level = runs
  while (level.length > 1) {
    const merged: string[][] = []
    for (let index = 0; index < level.length; index += 2) {
      const [a, b] = [level[index] ?? [], level[index + 1] ?? []]
      const out: string[] = []
      let i = 0
      let j = 0
      while (i < a.length || j < b.length) {
        const [x, y] = [a[i], b[j]]
        if (x !== undefined && (y === undefined || compareUtf8(x, y) <= 0)) {
          out.push(x)
          i++
        } else if (y !== undefined) {
          out.push(y)
          j++
        }
        if ((out.length & 1023) === 0 && slice.over()) await slice.next()
      }
      merged.push(out)
    }
    level = merged
  }
  return level[0] ?? []
}

/** What a listing shows by its `prefix` and `after`, and which directories a walk has to enter for it. */
class KeyFilter {
  readonly #prefix: string
  readonly #after: string
  readonly #recursive: boolean

  constructor(prefix: string, after: string, recursive: boolean) {
    this.#prefix = prefix
    this.#after = after
    this.#recursive = recursive
  }

  shows(key: string): boolean {
    return key.startsWith(this.#prefix) && compareUtf8(key, this.#after) > 0
  }

  /** Whether anything under the directory of this key may be shown. */
  enters(key: string): boolean {
    if (!this.#recursive || !key.endsWith('/')) return false
    if (!key.startsWith(this.#prefix) && !this.#prefix.startsWith(key)) return false
    return compareUtf8(key, this.#after) > 0 || this.#after.startsWith(key)
  }
}

/** Lets the event loop run whenever work on it has lasted some milliseconds. */
export class Slice {
  #start = performance.now()

  over(): boolean {
    return performance.now() - this.#start > SLICE_MS
  }

  async next(): Promise<void> {
    await new Promise((resolve) => setImmediate(resolve))
    this.#start = performance.now()
  }
}
