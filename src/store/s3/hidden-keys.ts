/**
 * What a listing leaves out, as no path can name it: keys that are none (`a//b`, `.`, `..`, names over 255 bytes, what is not
 * Unicode) and files whose name is a directory, too (`shadowed.ts`). Counted and logged; told one by one to who asked for it, for
 * whom alone texts are made.
 */
import { logger } from '#base/log.ts'
import { counter } from '#base/metrics.ts'
import { checkName, compareUtf8, NAME_BYTES_MAX } from '#store/path.ts'
import type { ListOptions } from '#store/store.ts'
import type { S3Context } from './context.ts'
import { tellShadowed } from './shadowed.ts'

const log = logger('store/s3')
const hiddenKeys = counter('eider_s3_hidden_keys_total')
/** Stores that have told of hidden keys. */
const told = new WeakSet<S3Context>()

/** What a listing is of; prefix and start are relative to the directory. */
export interface Listing {
  /** What the keys of the directory begin with. */
  readonly base: string
  readonly path: string
  readonly prefix: string
  readonly after: string
}

export class HiddenKeys {
  readonly #context: S3Context
  readonly #listing: Listing
  readonly #tell: ListOptions['onHidden']
  #count = 0

  constructor(context: S3Context, listing: Listing, tell: ListOptions['onHidden']) {
    this.#context = context
    this.#listing = listing
    this.#tell = tell
  }

  /** A key, relative to the directory, that is no path. */
  nameless(relative: string): void {
    this.#count++
    if (this.#tell === undefined || !isAsked(this.#listing, relative)) return
    this.#tell({ path: this.#pathOf(relative), detail: whyNoPath(relative) })
  }

  /** The key of a file that something lies under. */
  shadowed(key: string): void {
    const { base } = this.#listing
    tellShadowed(this.#context, key)
    if (this.#tell === undefined || isOwn(this.#context, key)) return
    const relative = key.slice(base.length)
    // One that is no path is told of by itself.
    if (!isAsked(this.#listing, relative) || !isPath(relative, true)) return
    const detail = 'its name is a directory, too: keys lie under it, and other S3 tools alone reach the file'
    this.#tell({ path: this.#pathOf(relative), detail })
  }

  /** The listing has come to its end. */
  end(): void {
    if (this.#count === 0) return
    hiddenKeys.inc(this.#count)
    if (told.has(this.#context)) return
    told.add(this.#context)
    const { path } = this.#listing
    log.warn({ path, keys: this.#count }, 'hides keys that can be no path; this is told only once')
  }

  #pathOf(relative: string): string {
    const { path } = this.#listing
    return shown(path === '' ? relative : `${path}/${relative}`)
  }
}

/** The root's own object, and what this program keeps for itself. */
export function isOwn({ keys }: S3Context, key: string): boolean {
  return key === keys.directory('') || keys.isOwn(key)
}

/** Whether a sort key, relative to the directory, is one that the listing was asked for. */
export function isAsked({ prefix, after }: Listing, relative: string): boolean {
  return relative.startsWith(prefix) && (after === '' || compareUtf8(relative, after) > 0)
}

/** Whether a key, relative to the directory, is a path; the slash at its end says that it is a directory. */
export function isPath(relative: string, recursive: boolean): boolean {
  if (!recursive && isPlainName(withoutSlash(relative))) return true
  return withoutSlash(relative)
    .split('/')
    .every((name) => faultOf(name) === undefined)
}

function whyNoPath(relative: string): string {
  for (const name of withoutSlash(relative).split('/')) {
    const fault = faultOf(name)
    if (fault !== undefined) return fault
  }
  return ''
}

function withoutSlash(relative: string): string {
  return relative.endsWith('/') ? relative.slice(0, -1) : relative
}

function isPlainName(name: string): boolean {
  return name.length * 3 <= NAME_BYTES_MAX && /^[A-Za-z0-9_][A-Za-z0-9._-]*$/.test(name)
}

/** Why it is no name; undefined where it is one. */
function faultOf(name: string): string | undefined {
  try {
    checkName(name)
    return undefined
  } catch (error) {
    return (error instanceof Error ? error.message : String(error)).toWellFormed()
  }
}

/** With bytes that were no UTF-8, which `listing.ts` gives as lone surrogates, as `\xNN`. */
function shown(path: string): string {
  return path.replaceAll(/\p{Surrogate}/gu, (unit) => `\\x${(unit.charCodeAt(0) & 0xff).toString(16).padStart(2, '0')}`)
}
