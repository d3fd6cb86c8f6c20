/**
 * Which path of the target a source path becomes, by autosync's arithmetic: `source_prefix` is taken off the front of the
 * absolute path as a plain string, whether it ends at a `/` or not, and `target_prefix` is put before what is left. A store has
 * no leading `/`, so there it is dropped; an actor that asks for keys gets them as they are, `/` and all.
 *
 * Unlike autosync, whose `os.path.join` drops the target prefix where the rest begins with `/` (a source prefix without its
 * trailing slash), the prefix always stays, joined by one `/`: what was meant for `backup/` never lands beside it.
 *
 * Invariant: no two source paths become one target path, and what one PATH becomes lies in one stretch of the order of sort
 * keys, so that the listings of several PATHs follow one another. Combinations that could break it are refused.
 */
import { resolve } from 'node:path'

import { OperationError } from '#base/errors.ts'
import { checkPath, compareUtf8, isWithin, joinPath } from '#store/path.ts'

/** One PATH that was named, and where in the target it goes. */
export interface Root {
  /** Absolute, without `/` at its end unless it is `/`. */
  readonly source: string
  readonly isDirectory: boolean
  /** The target's path of it: the empty string where its content is the content of the target. */
  readonly target: string
}

export interface PrefixOptions {
  /** As they were named, relative ones to `cwd`. */
  readonly paths: readonly { readonly path: string; readonly isDirectory: boolean }[]
  readonly sourcePrefix?: string | undefined
  readonly targetPrefix?: string | undefined
  readonly cwd?: string
}

export class Prefixes {
  /** In the order in which their listings follow one another. One that lies within another is part of that. */
  readonly roots: readonly Root[]
  /** What all that is synced lies under in the target; the empty string for all of it. */
  readonly targetPrefix: string
  /** No PATH begins with the source prefix, so nothing is taken off: most likely not what was meant. */
  readonly isSourcePrefixIdle: boolean
  readonly #sourcePrefix: string
  readonly #keyPrefix: string

  /** @throws OperationError `INPUT_INVALID` where two source paths could become one target path. */
  constructor(options: PrefixOptions) {
    const { paths, sourcePrefix = '', targetPrefix = '', cwd = process.cwd() } = options
    if (paths.length === 0) throw new OperationError('INPUT_INVALID', 'Cannot sync: no path is named')
    this.#sourcePrefix = sourcePrefix
    this.#keyPrefix = targetPrefix
    this.targetPrefix = withoutSlashes(targetPrefix)
    checkTarget(this.targetPrefix, `use "${targetPrefix}" as a target prefix`)
    const named = paths.map(({ path, isDirectory }) => ({ source: resolve(cwd, path), isDirectory }))
    const outer = named.filter((one, index) => !named.some((other, at) => holds(other, one, at < index)))
    const roots = outer.map((one) => ({ ...one, target: this.#rootTarget(one) }))
    this.roots = roots.toSorted((a, b) => compareUtf8(orderOf(a), orderOf(b)))
    checkApart(this.roots)
    const slashed = outer.map(({ source, isDirectory }) => (isDirectory ? withSlash(source) : source))
    this.isSourcePrefixIdle = sourcePrefix !== '' && !slashed.some((path) => path.startsWith(sourcePrefix))
  }

  /** The name that autosync gives a file, and what a directory's files have before theirs: with a leading `/` where it has one. */
  keyOf(absolute: string): string {
    const rest = absolute.startsWith(this.#sourcePrefix) ? absolute.slice(this.#sourcePrefix.length) : absolute
    if (this.#keyPrefix === '') return rest
    return `${this.#keyPrefix.replace(/\/+$/, '')}/${rest.replace(/^\/+/, '')}`
  }

  /** The path in the target of an absolute source path; undefined where it lies in none of the roots. */
  targetOf(absolute: string): string | undefined {
    const root = this.roots.find((one) => isIn(absolute, one))
    if (root === undefined) return undefined
    return absolute === root.source ? root.target : joinPath(root.target, absolute.slice(withSlash(root.source).length))
  }

  /** The absolute source path that becomes `target`; undefined where none of the roots' paths would. */
  sourceOf(target: string): string | undefined {
    const root = this.roots.find((one) => (one.isDirectory ? isWithin(target, one.target) : target === one.target))
    if (root === undefined) return undefined
    if (target === root.target) return root.source
    return withSlash(root.source) + (root.target === '' ? target : target.slice(root.target.length + 1))
  }

  #rootTarget({ source, isDirectory }: Omit<Root, 'target'>): string {
    const all = isDirectory ? withSlash(source) : source
    const prefix = this.#sourcePrefix
    if (isDirectory && prefix.length > all.length && prefix.startsWith(all)) {
      throw new OperationError(
        'INPUT_INVALID',
        `Cannot take "${prefix}" off what lies under "${source}": only a part of it begins so, and the rest could get the ` +
          `same names; name "${withoutEnd(prefix)}" as the path to sync, or a source prefix that "${all}" begins with`,
      )
    }
    const target = withoutSlashes(this.keyOf(all))
    if (!isDirectory && target === this.targetPrefix) {
      throw new OperationError(
        'INPUT_INVALID',
        `Cannot sync the file "${source}": its source prefix is its whole path, which leaves it without a name; end the ` +
          `source prefix at the "/" of its directory`,
      )
    }
    checkTarget(target, `sync "${source}" to "${target}"`)
    return target
  }
}

/** Whether `inner` is part of `outer`: what is named twice counts once, where it was named first. */
function holds(outer: Omit<Root, 'target'>, inner: Omit<Root, 'target'>, isEarlier: boolean): boolean {
  return outer.source === inner.source ? isEarlier : isIn(inner.source, outer)
}

function isIn(absolute: string, { source, isDirectory }: Omit<Root, 'target'>): boolean {
  return absolute === source || (isDirectory && absolute.startsWith(withSlash(source)))
}

/** What sort keys of a root begin with. */
function orderOf({ target, isDirectory }: Root): string {
  return isDirectory && target !== '' ? `${target}/` : target
}

/** Throws where what two roots become lies one in the other. */
function checkApart(roots: readonly Root[]): void {
  for (const [index, root] of roots.entries()) {
    for (const other of roots.slice(index + 1)) {
      const [a, b] = isWithin(other.target, root.target) ? [root, other] : [other, root]
      if (!isWithin(b.target, a.target)) continue
      const [inner, outer] = [b, a].map(({ target }) => (target === '' ? 'the root of the target' : `"${target}"`))
      const where = inner === outer ? `both become ${inner}` : `${inner} lies in ${outer}`
      throw new OperationError(
        'INPUT_INVALID',
        `Cannot sync "${a.source}" and "${b.source}" to one target: ${where}, so that two files could get one name; use a ` +
          `source prefix that both paths begin with, or two syncs with target prefixes of their own`,
      )
    }
  }
}

function checkTarget(path: string, action: string): void {
  try {
    checkPath(path)
  } catch (error) {
    const detail = error instanceof Error ? error.message : String(error)
    throw new OperationError('INPUT_INVALID', `Cannot ${action}: ${detail}`, { cause: error })
  }
}

function withSlash(path: string): string {
  return path.endsWith('/') ? path : `${path}/`
}

function withoutEnd(path: string): string {
  return path.replace(/\/+$/, '')
}

/** A path without slashes at either end. */
export function withoutSlashes(path: string): string {
  return withoutEnd(path).replace(/^\/+/, '')
}
