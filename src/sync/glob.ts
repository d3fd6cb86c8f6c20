/**
 * Globs as rsync and gitignore have them, each made into one regular expression over a path within the tree:
 *
 * - `*` any characters of one name, `?` one, `[a-z]`, `[!a-z]` and `[[:digit:]]` one of a class, `\` takes what follows as it is;
 * - `**` as a whole name is any number of directories, also none; at the end of the glob, all that lies below; with other
 *   characters beside it, any characters, `/` among them;
 * - `/` at the front ties the glob to the root of the tree; else it may begin at any name of the path;
 * - `/` at the end has it match directories only.
 *
 * Names are compared by code points, and case counts.
 */
import { OperationError } from '#base/errors.ts'

export interface Glob {
  /** Whether it is the path that the glob names; what lies below a directory is not asked here. */
  matches(path: string, isDirectory: boolean): boolean
}

const POSIX_CLASSES: Readonly<Record<string, string>> = {
  alnum: 'a-zA-Z0-9',
  alpha: 'a-zA-Z',
  blank: ' \\t',
  cntrl: '\\x00-\\x1f\\x7f',
  digit: '0-9',
  graph: '\\x21-\\x7e',
  lower: 'a-z',
  print: '\\x20-\\x7e',
  punct: '!-\\/:-@\\[-`\\{-~',
  space: '\\s',
  upper: 'A-Z',
  xdigit: '0-9a-fA-F',
}

/** @throws OperationError `INPUT_INVALID` saying what is wrong with it. */
export function compileGlob(glob: string): Glob {
  const isDirectoryOnly = glob.endsWith('/')
  const body = glob.replace(/\/+$/, '').replace(/^\/+/, '')
  if (body === '') throw invalid(glob, 'it names nothing')
  const parts = body.split('/')
  let source = glob.startsWith('/') ? '^' : '^(?:.*/)?'
  for (const [index, part] of parts.entries()) {
    const isLast = index === parts.length - 1
    if (part === '**') source += isLast ? '.+' : '(?:.*/)?'
    else source += partSource(part, glob) + (isLast ? '' : '/')
  }
  const expression = new RegExp(`${source}$`, 'su')
  return {
    matches: (path, isDirectory) => (isDirectory || !isDirectoryOnly) && expression.test(path),
  }
}

function partSource(part: string, glob: string): string {
  let source = ''
  for (let at = 0; at < part.length;) {
    const stars = /^\*+/.exec(part.slice(at))?.[0].length ?? 0
    const character = String.fromCodePoint(part.codePointAt(at) ?? 0)
    if (stars > 0) {
      source += stars === 1 ? '[^/]*' : '.*'
      at += stars
    } else if (character === '?') {
      source += '[^/]'
      at++
    } else if (character === '[') {
      const { end, set } = classAt(part, at, glob)
      source += set
      at = end
    } else if (character === '\\') {
      const next = part.codePointAt(at + 1)
      if (next === undefined) throw invalid(glob, 'nothing follows the last backslash')
      const literal = String.fromCodePoint(next)
      source += RegExp.escape(literal)
      at += 1 + literal.length
    } else {
      source += RegExp.escape(character)
      at += character.length
    }
  }
  return source
}

/** The class that begins at `start`, as a set of a regular expression that never holds `/`. */
function classAt(part: string, start: number, glob: string): { end: number; set: string } {
  let at = start + 1
  const isNegated = part[at] === '!' || part[at] === '^'
  if (isNegated) at++
  let set = ''
  for (let isFirst = true; isFirst || part[at] !== ']'; isFirst = false) {
    if (at >= part.length) throw invalid(glob, `the class that begins with "${part.slice(start)}" has no end`)
    const posix = /^\[:([a-z]*):\]/.exec(part.slice(at))
    if (posix !== null) {
      const members = POSIX_CLASSES[posix[1] ?? '']
      if (members === undefined) throw invalid(glob, `there is no class "${posix[0]}"`)
      set += members
      at += posix[0].length
      continue
    }
    const first = memberAt(part, at, glob)
    at = first.end
    const isRange = part[at] === '-' && part[at + 1] !== undefined && part[at + 1] !== ']'
    const last = isRange ? memberAt(part, at + 1, glob) : first
    at = last.end
    if (last.code < first.code) throw invalid(glob, 'a range of a class ends before it begins')
    set += `\\u{${first.code.toString(16)}}-\\u{${last.code.toString(16)}}`
  }
  return { end: at + 1, set: isNegated ? `[^/${set}]` : `(?!/)[${set}]` }
}

function memberAt(part: string, start: number, glob: string): { code: number; end: number } {
  const at = part[start] === '\\' ? start + 1 : start
  const code = part.codePointAt(at)
  if (code === undefined) throw invalid(glob, `a class has no end`)
  return { code, end: at + (code > 0xffff ? 2 : 1) }
}

function invalid(glob: string, detail: string): OperationError {
  return new OperationError('INPUT_INVALID', `Cannot use "${glob}" as a pattern: ${detail}`)
}
