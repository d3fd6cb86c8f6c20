/**
 * What mount(8) and /etc/fstab ask for, as a command line of `eider mount`. mount(8) runs `mount.eider SOURCE DIR [-sfnv] [-o
 * OPTIONS]` for the type `eider` or `fuse.eider`; mount.fuse3 runs `eider SOURCE DIR -o OPTIONS` for `fuse.eider`. Options are
 * those of `eider mount` without their dashes: `cache=/var/cache/eider,cache-size=20GiB,validity=5s`; what mount(8) itself
 * means by an option is taken or left out, and what nobody knows is an error, as a misspelled one must not be lost.
 */
import { resolve } from 'node:path'
import { OperationError } from '#base/errors.ts'
import { flagOf } from './options.ts'
import { MOUNT_OPTIONS } from './mount.ts'
import { suggestionText } from './suggestion.ts'

/** What is for mount(8), systemd or the kernel, and says nothing to a store. */
const LEFT_OUT: ReadonlySet<string> = new Set([
  ...[
    'defaults',
    'rw',
    'auto',
    'noauto',
    'user',
    'users',
    'nouser',
    'owner',
    'group',
    'nofail',
    '_netdev',
    'dev',
    'nodev',
  ],
  ...['suid', 'nosuid', 'exec', 'noexec', 'atime', 'noatime', 'relatime', 'diratime', 'nodiratime', 'async', 'sync'],
])
/** Names that mounts of other file systems have for the same. */
const SAME: Readonly<Record<string, string>> = { ro: 'read-only', allow_other: 'allow-other' }

/** What mount(8) asks for. */
export interface MountRequest {
  /** The words after `eider`. */
  readonly words: readonly string[]
  /** All is to be done but the mount itself, as `mount -f` says. */
  readonly fake: boolean
}

/** What a mount helper was called for with these arguments. @throws OperationError `USAGE`. */
export function mountRequest(argv: readonly string[]): MountRequest {
  const places: string[] = []
  const options: string[] = []
  let fake = false
  for (let index = 0; index < argv.length; index++) {
    const word = argv[index] ?? ''
    if (word === '-o') options.push(...splitOptions(argv[++index] ?? ''))
    else if (word === '-t' || word === '-N') index++
    else if (/^-[sfnvw]+$/.test(word)) fake ||= word.includes('f')
    else places.push(word)
  }
  const [source, directory, extra] = places
  if (source === undefined || directory === undefined || extra !== undefined) {
    throw new OperationError('USAGE', 'Cannot mount: SOURCE DIR [-o OPTIONS] is expected, as mount(8) gives it')
  }
  // mount(8) makes no difference between a directory that it is told of and what it has found: relative to where it stands.
  return { words: ['mount', source, resolve(directory), ...options.flatMap(flagFor)], fake }
}

/**
 * Splits at commas; a comma of a value comes as `\054`, or the value is in double quotes. In fstab that is written `\134054`:
 * mount(8) decodes a field once before it looks for options, so that of `\054` only the comma is left.
 */
function splitOptions(text: string): string[] {
  const options = text.match(/(?:"[^"]*"|[^,])+/g) ?? []
  return options.map((option) => option.replaceAll('"', '').replaceAll('\\054', ',').replaceAll('\\040', ' '))
}

function flagFor(option: string): string[] {
  const equals = option.indexOf('=')
  const given = equals === -1 ? option : option.slice(0, equals)
  if (LEFT_OUT.has(given) || given.startsWith('x-') || given.startsWith('comment')) return []
  const name = SAME[given] ?? given.replaceAll('_', '-')
  const known = Object.entries(MOUNT_OPTIONS).filter(([key, row]) => !row.secret && key !== 'foreground')
  const names = known.map(([key]) => flagOf(key).slice(2))
  const isOff = name.startsWith('no-') && names.includes(name.slice(3))
  if (!names.includes(name) && !isOff) {
    throw new OperationError(
      'USAGE',
      `Cannot use the mount option "${given}": there is none${suggestionText(name, names)}`,
    )
  }
  return equals === -1 ? [`--${name}`] : [`--${name}=${option.slice(equals + 1)}`]
}
