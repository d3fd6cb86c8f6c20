/** Modes as `chmod` reads them: octal, or `u+x,go-w`; owners as `chown` does: numbers, or names of this machine. */
import { readFileSync } from 'node:fs'

import { OperationError } from '#base/errors.ts'

const WHO: Readonly<Record<string, number>> = { u: 0o4700, g: 0o2070, o: 0o1007, a: 0o7777 }
const WHAT: Readonly<Record<string, number>> = { r: 0o444, w: 0o222, x: 0o111, s: 0o6000, t: 0o1000 }

/** Where a mode has the permissions of whom: `g=u` takes them from there. */
const SHIFTS: Readonly<Record<string, number>> = { u: 6, g: 3, o: 0 }

/** What a mode becomes by a text. */
export type ModeChange = (mode: number, isDirectory: boolean) => number

/** @throws USAGE */
export function parseMode(text: string): ModeChange {
  if (/^[0-7]{1,4}$/.test(text)) {
    const mode = Number.parseInt(text, 8)
    return () => mode
  }
  const steps = text.split(',').map((clause) => clauseOf(text, clause))
  return (mode, isDirectory) => steps.reduce((now, step) => step(now, isDirectory), mode)
}

function clauseOf(text: string, clause: string): ModeChange {
  const match = /^([ugoa]*)([-+=])([rwxXst]*|[ugo])$/.exec(clause)
  if (match === null) {
    throw new OperationError(
      'USAGE',
      `Cannot use "${text}" as a mode: an octal number, or such as u+x,go-w, is expected`,
    )
  }
  const [, who = '', how, what = ''] = match
  // As chmod has it: for whom nobody is named, the umask keeps what it forbids.
  const whom = who === '' ? 0o7777 & ~process.umask() : who.split('').reduce((bits, each) => bits | (WHO[each] ?? 0), 0)
  return (mode, isDirectory) => {
    const bits = bitsOf(what, mode, isDirectory)
    if (how === '+') return mode | (bits & whom)
    return how === '-' ? mode & ~(bits & whom) : (mode & ~(whom & 0o777)) | (bits & whom)
  }
}

/** For everybody. */
function bitsOf(what: string, mode: number, isDirectory: boolean): number {
  const shift = SHIFTS[what]
  if (shift !== undefined) return ((mode >> shift) & 7) * 0o111
  return what.split('').reduce((all, each) => {
    if (each !== 'X') return all | (WHAT[each] ?? 0)
    return isDirectory || (mode & 0o111) !== 0 ? all | 0o111 : all
  }, 0)
}

/** `USER`, `USER:GROUP` or `:GROUP`. @throws USAGE */
export function parseOwner(text: string): { readonly uid?: number; readonly gid?: number } {
  const [user = '', group = '', ...more] = text.split(':')
  if (more.length > 0 || (user === '' && group === '')) {
    throw new OperationError('USAGE', `Cannot use "${text}" as an owner: USER, USER:GROUP or :GROUP is expected`)
  }
  return {
    ...(user !== '' && { uid: numberOf(user, '/etc/passwd', 'user') }),
    ...(group !== '' && { gid: numberOf(group, '/etc/group', 'group') }),
  }
}

function numberOf(text: string, file: string, what: string): number {
  if (/^\d{1,10}$/.test(text) && Number(text) < 0xffff_ffff) return Number(text)
  const line = linesOf(file).find((each) => each.startsWith(`${text}:`))
  const number = line?.split(':')[2]
  if (number !== undefined) return Number(number)
  throw new OperationError('USAGE', `Cannot use "${text}" as a ${what}: this machine knows none of that name`, {
    hint: 'The cluster keeps numbers; give the number itself.',
  })
}

function linesOf(file: string): string[] {
  try {
    return readFileSync(file, 'utf8').split('\n')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
    throw error
  }
}
