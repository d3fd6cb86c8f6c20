/**
 * Which entries of a tree take part in a sync. Two gates, and an entry has to pass both:
 *
 * - `--include` and `--exclude` globs (`glob.ts`) over paths within the tree, in the order in which they were given: the first
 *   that matches decides, and what none matches takes part. A directory that is excluded is not entered, so nothing below it is
 *   ever asked about, not even where an `--include` names it;
 * - autosync's `--source_filter` and `--source_exclude`, Python regular expressions matched from the start of a file's absolute
 *   path. Directories are not asked, as autosync does not.
 *
 * Not here: what becomes of entries of the target that are filtered out. The fingerprint of a filter is kept with the state, so
 * that what only a changed filter took out of the source is not deleted from the target.
 */
import { createHash } from 'node:crypto'

import { OperationError } from '#base/errors.ts'
import { joinPath } from '#store/path.ts'

import { compileGlob, type Glob } from './glob.ts'
import { compilePython, type PythonPattern } from './python-pattern.ts'

/** As they were given, in that order. */
export interface FilterRules {
  readonly globs?: readonly { readonly kind: 'include' | 'exclude'; readonly glob: string }[]
  /** Files whose absolute paths match take part. */
  readonly sourceFilter?: string | undefined
  /** Files whose absolute paths match do not, whatever `sourceFilter` says. */
  readonly sourceExclude?: string | undefined
}

/** The filter of one tree. */
export interface TreeFilter {
  /** Whether the entry takes part, given that the directories above it do. */
  admits(path: string, isDirectory: boolean): boolean
  /** Whether it and all directories above it do: for a path that was not come to from above. */
  reaches(path: string, isDirectory: boolean): boolean
}

export class Filter {
  /** Equal for equal rules: another one means that entries may come or go that nobody made or removed. */
  readonly fingerprint: string
  readonly #globs: readonly { readonly isInclude: boolean; readonly glob: Glob }[]
  readonly #accepts: PythonPattern | undefined
  readonly #rejects: PythonPattern | undefined

  /** @throws OperationError `INPUT_INVALID` for a pattern that cannot be used, and for includes that leave nothing out. */
  constructor(rules: FilterRules = {}) {
    const { globs = [], sourceFilter, sourceExclude } = rules
    if (globs.length > 0 && globs.every(({ kind }) => kind === 'include')) {
      throw new OperationError(
        'INPUT_INVALID',
        'Cannot filter by --include alone: it only keeps what a later --exclude would leave out; for just these files, ' +
          "add --include '*/' --exclude '*' after it",
      )
    }
    this.#globs = globs.map(({ kind, glob }) => ({ isInclude: kind === 'include', glob: compileGlob(glob) }))
    this.#accepts = sourceFilter === undefined ? undefined : compilePython(sourceFilter)
    this.#rejects = sourceExclude === undefined ? undefined : compilePython(sourceExclude)
    const text = JSON.stringify([
      1,
      globs.map(({ kind, glob }) => [kind, glob]),
      sourceFilter ?? null,
      sourceExclude ?? null,
    ])
    this.fingerprint = createHash('sha256').update(text).digest('base64url').slice(0, 22)
  }

  /** Everything takes part. */
  get isEmpty(): boolean {
    return this.#globs.length === 0 && this.#accepts === undefined && this.#rejects === undefined
  }

  /** For the tree that lies at the absolute path `root`; of a tree in a store, `/`. */
  at(root: string): TreeFilter {
    const prefix = root.endsWith('/') ? root : `${root}/`
    const admits = (path: string, isDirectory: boolean): boolean =>
      this.#globsAdmit(path, isDirectory) && (isDirectory || this.#patternsAdmit(prefix + path))
    const reaches = (path: string, isDirectory: boolean): boolean => {
      let above = ''
      for (const part of path.split('/').slice(0, -1)) {
        above = joinPath(above, part)
        if (!admits(above, true)) return false
      }
      return admits(path, isDirectory)
    }
    return { admits, reaches }
  }

  #globsAdmit(path: string, isDirectory: boolean): boolean {
    return this.#globs.find(({ glob }) => glob.matches(path, isDirectory))?.isInclude ?? true
  }

  #patternsAdmit(absolute: string): boolean {
    return this.#accepts?.(absolute) !== false && this.#rejects?.(absolute) !== true
  }
}
