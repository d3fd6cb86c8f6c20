/**
 * Regular expressions of Python's `re`, as autosync's options take them, made into JavaScript's. Both agree on most; what is
 * written another way is translated, and what JavaScript has no way to say is refused with a sentence, never taken for
 * something else. Text is matched by code points; `\w`, `\d`, `\s` and `\b` know letters and digits of all scripts.
 */
import { OperationError } from '#base/errors.ts'

const WORD = '\\p{L}\\p{N}_'
const SPACE = '\\t-\\r\\x1c-\\x20\\x85\\p{Z}'
/** What Python means by a backslash and a letter, where that is not what JavaScript does. */
const ESCAPES: Readonly<Record<string, string>> = {
  A: '(?<![\\s\\S])',
  Z: '(?![\\s\\S])',
  a: '\\x07',
  b: `(?:(?<=[${WORD}])(?![${WORD}])|(?<![${WORD}])(?=[${WORD}]))`,
  B: `(?:(?<=[${WORD}])(?=[${WORD}])|(?<![${WORD}])(?![${WORD}]))`,
  d: '\\p{Nd}',
  D: '\\P{Nd}',
  s: `[${SPACE}]`,
  S: `[^${SPACE}]`,
  w: `[${WORD}]`,
  W: `[^${WORD}]`,
}
const CLASS_ESCAPES: Readonly<Record<string, string>> = {
  a: '\\x07',
  b: '\\x08',
  d: '\\p{Nd}',
  D: '\\P{Nd}',
  s: SPACE,
  w: WORD,
}
const SAME_ESCAPES = /^(?:[fnrtv]|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4})/
const QUANTIFIER = /^(?:[*+?]|\{(?:\d+,?\d*|,\d+)\})/

/** Whether `text` matches from its first character on, as `re.match` says: the end of `text` need not be reached. */
export type PythonPattern = (text: string) => boolean

/** @throws OperationError `INPUT_INVALID` where it is no expression, or one that cannot be translated. */
export function compilePython(pattern: string): PythonPattern {
  const { source, flags } = new Translation(pattern).run()
  try {
    // Sticky, and so tried at the first character alone: a search for it would also stop within a surrogate pair.
    const expression = new RegExp(source, `y${flags}`)
    return (text) => {
      expression.lastIndex = 0
      return expression.test(text)
    }
  } catch (error) {
    const detail = error instanceof Error ? error.message.replace(/^.*: /, '') : String(error)
    throw new OperationError('INPUT_INVALID', `Cannot use "${pattern}" as a regular expression: ${detail}`, {
      cause: error,
    })
  }
}

/** One pass over a pattern. */
class Translation {
  readonly #pattern: string
  #at = 0
  #out = ''
  #isIgnoreCase = false
  #isMultiline = false
  #isDotAll = false

  constructor(pattern: string) {
    this.#pattern = pattern
  }

  run(): { source: string; flags: string } {
    this.#globalFlags()
    while (this.#at < this.#pattern.length) this.#step()
    return { source: this.#out, flags: this.#isIgnoreCase ? 'iu' : 'u' }
  }

  get #rest(): string {
    return this.#pattern.slice(this.#at)
  }

  /** `(?ims)` at the front. */
  #globalFlags(): void {
    for (
      let found = /^\(\?([a-zA-Z]+)\)/.exec(this.#rest);
      found !== null;
      found = /^\(\?([a-zA-Z]+)\)/.exec(this.#rest)
    ) {
      for (const flag of found[1] ?? '') {
        if (flag === 'i') this.#isIgnoreCase = true
        else if (flag === 'm') this.#isMultiline = true
        else if (flag === 's') this.#isDotAll = true
        else if (flag !== 'u') throw this.#refusal(`the flag "${flag}"`)
      }
      this.#at += found[0].length
    }
  }

  #step(): void {
    const rest = this.#rest
    const character = String.fromCodePoint(rest.codePointAt(0) ?? 0)
    if (character === '\\') return this.#escape()
    if (character === '[') return this.#class()
    if (rest.startsWith('(?')) return this.#group()
    const quantifier = QUANTIFIER.exec(rest)
    if (quantifier !== null) return this.#quantifier(quantifier[0])
    this.#at += character.length
    if (character === '.') this.#out += this.#isDotAll ? '[\\s\\S]' : '[^\\n]'
    else if (character === '^') this.#out += this.#isMultiline ? '(?<![^\\n])' : '(?<![\\s\\S])'
    // Also before a newline that ends the text.
    else if (character === '$') this.#out += this.#isMultiline ? '(?![^\\n])' : '(?=\\n?(?![\\s\\S]))'
    else if (character === '(' || character === ')' || character === '|') this.#out += character
    else this.#out += RegExp.escape(character)
  }

  #quantifier(text: string): void {
    this.#at += text.length
    if (this.#rest.startsWith('+')) throw this.#refusal('possessive quantifiers')
    this.#out += text.startsWith('{,') ? `{0${text.slice(1)}` : text
    if (this.#rest.startsWith('?')) {
      this.#out += '?'
      this.#at++
    }
    if (QUANTIFIER.test(this.#rest)) throw this.#refusal('a quantifier of a quantifier')
  }

  #group(): void {
    const rest = this.#rest
    const take = (text: string, out: string): void => {
      this.#out += out
      this.#at += text.length
    }
    for (const opening of ['(?:', '(?=', '(?!', '(?<=', '(?<!']) {
      if (rest.startsWith(opening)) return take(opening, opening)
    }
    const named = /^\(\?P<([A-Za-z_]\w*)>/.exec(rest)
    if (named !== null) return take(named[0], `(?<${named[1]}>`)
    const again = /^\(\?P=([A-Za-z_]\w*)\)/.exec(rest)
    if (again !== null) return take(again[0], `\\k<${again[1]}>`)
    const comment = /^\(\?#[^)]*\)/.exec(rest)
    if (comment !== null) return take(comment[0], '')
    const scoped = /^\(\?(i|-i):/.exec(rest)
    if (scoped !== null) return take(scoped[0], scoped[0])
    if (/^\(\?[a-zA-Z]+\)/.test(rest)) throw this.#refusal('flags that are not at its front')
    throw this.#refusal(`the group "${/^\(\?(?:P.|.)?/u.exec(rest)?.[0]}"`)
  }

  #escape(): void {
    const after = this.#pattern.slice(this.#at + 1)
    const letter = String.fromCodePoint(after.codePointAt(0) ?? 0)
    const translated = ESCAPES[letter]
    const reference = /^[1-9]\d?/.exec(after)
    if (after === '') throw this.#refusal('a backslash at its end')
    if (translated !== undefined) {
      this.#out += translated
      this.#at += 2
    } else if (reference !== null) {
      // What follows must not become a part of the number.
      this.#out += `(?:\\${reference[0]})`
      this.#at += 1 + reference[0].length
    } else this.#literalEscape(after, letter)
  }

  #class(): void {
    this.#at++
    this.#out += '['
    if (this.#rest.startsWith('^')) {
      this.#out += '^'
      this.#at++
    }
    for (let isFirst = true; isFirst || !this.#rest.startsWith(']'); isFirst = false) {
      const rest = this.#rest
      const character = String.fromCodePoint(rest.codePointAt(0) ?? 0)
      if (rest === '') throw this.#refusal('a class without an end')
      const escaped = character === '\\' ? rest.slice(1, 2) : undefined
      const translated = escaped === undefined ? undefined : CLASS_ESCAPES[escaped]
      if (translated !== undefined) {
        this.#out += translated
        this.#at += 2
      } else if (escaped === 'S' || escaped === 'W') {
        throw this.#refusal(`"\\${escaped}" in a class`)
      } else if (escaped !== undefined) {
        this.#literalEscape(rest.slice(1), String.fromCodePoint(rest.codePointAt(1) ?? 0))
      } else {
        this.#out += character === '-' ? '-' : RegExp.escape(character)
        this.#at += character.length
      }
    }
    this.#out += ']'
    this.#at++
  }

  /** An escape that both know, or one that takes a character as it is; `after` is what follows the backslash. */
  #literalEscape(after: string, letter: string): void {
    const same = SAME_ESCAPES.exec(after)
    const long = /^U([0-9a-fA-F]{8})/.exec(after)
    if (same !== null) {
      this.#out += `\\${same[0]}`
      this.#at += 1 + same[0].length
    } else if (long !== null) {
      this.#out += `\\u{${long[1]}}`
      this.#at += 10
    } else if (/^[A-Za-z0-9]/.test(letter) || after === '') {
      throw this.#refusal(`"\\${letter}"`)
    } else {
      this.#out += RegExp.escape(letter)
      this.#at += 1 + letter.length
    }
  }

  #refusal(what: string): OperationError {
    const detail = `${what} cannot be translated from Python's syntax`
    return new OperationError('INPUT_INVALID', `Cannot use "${this.#pattern}" as a regular expression: ${detail}`)
  }
}
