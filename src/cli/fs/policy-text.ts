/**
 * Policies as people write them, a word for each thing that a directory may say:
 *
 *   history.age=30d  history.versions=3      how long, and how many of a name, replaced and removed versions are kept
 *   spans=1MiB:1+2,64MiB:4+2                 spans of up to so many bytes have that redundancy; the last is the largest
 *   classes=0:2,1MiB:3                       blocks of at least so many bytes go to that storage class
 *   stripe=1MiB  inline=4KiB                 bytes of a stripe; files of up to so many bytes lie in their inode
 *
 * A word with nothing after `=` takes it back: it is inherited again.
 */
import { OperationError } from '#base/errors.ts'
import type { Policy } from '#cluster/wire/forms.ts'

import { bytes, duration, formatBytes, formatDuration } from '#cli/options.ts'

export const POLICY_WORDS = ['history.age', 'history.versions', 'spans', 'classes', 'stripe', 'inline'] as const
type Word = (typeof POLICY_WORDS)[number]
type Mutable = { -readonly [K in keyof Policy]: Policy[K] }

const SIZE = bytes({ help: '' })
const TIME = duration({ help: '' })

/** A word for each thing that is said. */
export function policyText(policy: Policy): string[] {
  return POLICY_WORDS.flatMap((word) => {
    const text = wordText(policy, word)
    return text === undefined ? [] : [`${word}=${text}`]
  })
}

/** What a policy says of one thing; undefined where it says nothing. */
export function wordText(
  { history, spans, classes, stripeBytes, inlineBytesMax }: Policy,
  word: Word,
): string | undefined {
  switch (word) {
    case 'history.age':
      return history?.ageUs === undefined ? undefined : formatDuration(history.ageUs / 1000)
    case 'history.versions':
      return history?.versions?.toString()
    case 'spans':
      return spans?.map(({ bytesMax, data, parity }) => `${formatBytes(bytesMax)}:${data}+${parity}`).join(',')
    case 'classes':
      return classes?.map((each) => `${formatBytes(each.bytesMin)}:${each.class}`).join(',')
    case 'stripe':
      return stripeBytes === undefined ? undefined : formatBytes(stripeBytes)
    case 'inline':
      return inlineBytesMax === undefined ? undefined : formatBytes(inlineBytesMax)
  }
}

/** The policy with what the texts say. @throws USAGE */
export function withPolicyText(policy: Policy, texts: readonly string[]): Policy {
  const changed: Mutable = { ...policy }
  for (const text of texts) {
    const at = text.indexOf('=')
    const word = POLICY_WORDS.find((each) => each === text.slice(0, at))
    if (word === undefined) {
      const hint = `One of ${POLICY_WORDS.map((each) => `${each}=…`).join(', ')} is expected.`
      throw new OperationError('USAGE', `Cannot use "${text}" as a part of a policy`, { hint })
    }
    change(changed, word, text.slice(at + 1))
  }
  return changed
}

function change(policy: Mutable, word: Word, text: string): void {
  const isSaid = text !== ''
  switch (word) {
    case 'history.age':
    case 'history.versions': {
      const { ageUs, versions } = policy.history ?? { ageUs: undefined, versions: undefined }
      const history =
        word === 'history.age'
          ? { ageUs: isSaid ? millisecondsOf(word, text) * 1000 : undefined, versions }
          : { ageUs, versions: isSaid ? countOf(word, text) : undefined }
      policy.history = history.ageUs === undefined && history.versions === undefined ? undefined : history
      return
    }
    case 'spans':
      policy.spans = isSaid ? text.split(',').map((step) => spanStep(step)) : undefined
      return
    case 'classes':
      policy.classes = isSaid ? text.split(',').map((step) => classStep(step)) : undefined
      return
    case 'stripe':
      policy.stripeBytes = isSaid ? bytesOf(word, text) : undefined
      return
    case 'inline':
      policy.inlineBytesMax = isSaid ? bytesOf(word, text) : undefined
  }
}

function spanStep(text: string): { bytesMax: number; data: number; parity: number } {
  const match = /^([^:]+):(\d{1,2})\+(\d{1,2})$/.exec(text)
  if (match === null) throw refused('spans', text, 'SIZE:DATA+PARITY such as 64MiB:4+2')
  return { bytesMax: bytesOf('spans', match[1] ?? ''), data: Number(match[2]), parity: Number(match[3]) }
}

function classStep(text: string): { bytesMin: number; class: number } {
  const match = /^([^:]+):(\d{1,3})$/.exec(text)
  if (match === null || Number(match[2]) > 255) throw refused('classes', text, 'SIZE:CLASS such as 1MiB:3')
  return { bytesMin: bytesOf('classes', match[1] ?? ''), class: Number(match[2]) }
}

function bytesOf(word: Word, text: string): number {
  const value = SIZE.parse(text)
  if (value === undefined || value > 0xffff_ffff) throw refused(word, text, 'a size such as 1MiB')
  return value
}

function millisecondsOf(word: Word, text: string): number {
  const value = TIME.parse(text)
  if (value === undefined) throw refused(word, text, 'a time such as 12h or 30d')
  return value
}

function countOf(word: Word, text: string): number {
  if (/^\d{1,9}$/.test(text)) return Number(text)
  throw refused(word, text, 'a whole number')
}

function refused(word: Word, text: string, expected: string): OperationError {
  return new OperationError('USAGE', `Cannot use ${word}=${text}: ${expected} is expected`)
}
