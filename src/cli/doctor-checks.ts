/**
 * The looks that `eider doctor` takes. Each is quick, has a time limit where it could hang, changes nothing, and says what
 * it found and what can be done; none throws. Of credentials it tells where they are, never what they are.
 */
import { constants, existsSync } from 'node:fs'
import { access, readFile, statfs } from 'node:fs/promises'
import { homedir, release } from 'node:os'
import { dirname, join } from 'node:path'
import { type FuseProbe, probeFuse } from '#fuse/probe.ts'
import { withDeadline } from '#os/deadline.ts'
import { probeFanotify } from '#os/fanotify.ts'
import { findHelper } from '#os/fusermount.ts'
import { statePath } from './places.ts'

export interface Finding {
  readonly subject: string
  /** `weak`: works, but less well or not all of it; `missing`: a mount cannot work. */
  readonly state: 'ok' | 'weak' | 'missing'
  readonly found: string
  readonly advice?: string
}

type Told = Omit<Finding, 'subject'>
type Look = readonly [subject: string, look: (fuse: Promise<FuseProbe>) => Told | Promise<Told>]

const LOOK_MS_MAX = 10_000
/** Below that a mount still works, but large files being written may not fit. */
const STAGING_BYTES_LOW = 1024 ** 3
const OPEN_FILES_LOW = 4096
/** A clock before this is wrong, whoever looks; more cannot be told without asking another machine. */
const BUILT = new Date('2026-01-01')
const CAP_SYS_ADMIN = 21

const isRoot = (): boolean => process.getuid?.() === 0

const LOOKS: readonly Look[] = [
  ['Node', node],
  ['Linux', kernel],
  ['/dev/fuse', fuseDevice],
  ['a mount', fuseMount],
  ['passthrough', passthrough],
  ['fusermount3', fuseHelper],
  ['allow_other', allowOther],
  ['fanotify', fanotify],
  ['rights', rights],
  ['open files', openFiles],
  ['room', room],
  ['clock', clock],
  ['credentials', credentials],
]

/** Every finding, in the order in which they are shown. */
export async function examine(): Promise<Finding[]> {
  const probed = probeFuse()
  return Promise.all(
    LOOKS.map(async ([subject, look]) => {
      try {
        const finding = await withDeadline(`look at ${subject}`, Promise.resolve(look(probed)), LOOK_MS_MAX)
        return { subject, ...finding }
      } catch (error) {
        return { subject, state: 'weak', found: error instanceof Error ? error.message : String(error) }
      }
    }),
  )
}

function node(): Told {
  return { state: 'ok', found: `${process.version} at ${process.execPath}` }
}

function kernelVersion(): readonly [number, number] {
  const [, major, minor] = /^(\d+)\.(\d+)/.exec(release()) ?? []
  return [Number(major), Number(minor)]
}

function kernelIsAtLeast(major: number, minor: number): boolean {
  const [ownMajor, ownMinor] = kernelVersion()
  return ownMajor > major || (ownMajor === major && ownMinor >= minor)
}

function kernel(): Told {
  if (kernelIsAtLeast(4, 20)) return { state: 'ok', found: release() }
  return { state: 'missing', found: release(), advice: 'A mount needs Linux 4.20 or later.' }
}

async function fuseDevice(): Promise<Told> {
  if (!existsSync('/dev/fuse')) {
    return {
      state: 'missing',
      found: 'not there',
      advice: isRoot()
        ? 'Load the kernel module: modprobe fuse. In a container, start it with --device /dev/fuse.'
        : 'Let root load the kernel module (modprobe fuse); in a container, start it with --device /dev/fuse.',
    }
  }
  try {
    await access('/dev/fuse', constants.R_OK | constants.W_OK)
    return { state: 'ok', found: 'may be opened' }
  } catch {
    return { state: 'missing', found: 'may not be opened', advice: 'Let root allow it: chmod 666 /dev/fuse.' }
  }
}

async function fuseMount(probed: Promise<FuseProbe>): Promise<Told> {
  const { available, why, protocol, how } = await probed
  if (available) return { state: 'ok', found: `made and taken away by ${how}; protocol ${protocol}` }
  return { state: 'missing', found: `cannot be made: ${why}`, advice: 'What else is marked here tells what to do.' }
}

async function passthrough(probed: Promise<FuseProbe>): Promise<Told> {
  const probe = await probed
  if (probe.passthrough) return { state: 'ok', found: 'local files can be given to the kernel' }
  return {
    state: 'weak',
    found: probe.passthroughWhy ?? 'needs a mount',
    advice: 'Linux 6.9 or later, as root, reads local files through a mount at the speed of the disk.',
  }
}

function fuseHelper(): Told {
  const helper = findHelper()
  if (helper !== undefined) return { state: 'ok', found: helper }
  if (isRoot()) return { state: 'ok', found: 'not there, and root needs none' }
  return { state: 'missing', found: 'not there', advice: 'Let root install it: apt-get install fuse3.' }
}

async function allowOther(): Promise<Told> {
  if (isRoot()) return { state: 'ok', found: 'root may always let other users in' }
  const text = await readFile('/etc/fuse.conf', 'utf8').catch(() => '')
  if (/^\s*user_allow_other\s*$/m.test(text)) return { state: 'ok', found: 'set in /etc/fuse.conf' }
  return {
    state: 'weak',
    found: 'not set in /etc/fuse.conf',
    advice: 'Only for --allow-other: let root write the line user_allow_other into /etc/fuse.conf.',
  }
}

function fanotify(): Told {
  const notify = probeFanotify('notify')
  const preContent = kernelIsAtLeast(6, 14) ? probeFanotify('pre-content') : 'needs Linux 6.14'
  const found = `watching a whole file system: ${notify}; filling files on first access: ${preContent}`
  if (notify === 'yes' && preContent === 'yes') return { state: 'ok', found }
  return { state: 'weak', found, advice: 'A mount does not need it; both take root (CAP_SYS_ADMIN).' }
}

async function rights(): Promise<Told> {
  const status = await readFile('/proc/self/status', 'utf8')
  const effective = BigInt(`0x${/^CapEff:\s*([0-9a-f]+)/m.exec(status)?.[1] ?? '0'}`)
  const mayMount = ((effective >> BigInt(CAP_SYS_ADMIN)) & 1n) === 1n
  if (mayMount) return { state: 'ok', found: `user ${process.getuid?.()}, with CAP_SYS_ADMIN` }
  if (!isRoot()) return { state: 'ok', found: `user ${process.getuid?.()}, mounts by fusermount3; no passthrough` }
  return {
    state: 'missing',
    found: 'root without CAP_SYS_ADMIN, as in most containers',
    advice: 'Start the container with --cap-add SYS_ADMIN --device /dev/fuse.',
  }
}

async function openFiles(): Promise<Told> {
  const limits = await readFile('/proc/self/limits', 'utf8')
  const of = (name: string): string => new RegExp(`^${name}\\s+(\\S+)`, 'm').exec(limits)?.[1] ?? 'unknown'
  const files = of('Max open files')
  const found = `${files} at a time; processes and threads: ${of('Max processes')}`
  if (files === 'unlimited' || Number(files) >= OPEN_FILES_LOW) return { state: 'ok', found }
  return {
    state: 'weak',
    found,
    advice: `Raise it where many files are open at a time: ulimit -n ${OPEN_FILES_LOW}, or LimitNOFILE= of a unit.`,
  }
}

async function room(): Promise<Told> {
  let directory = statePath()
  while (!existsSync(directory)) directory = dirname(directory)
  const { bavail, bsize } = await statfs(directory)
  const bytes = bavail * bsize
  const found = `${(bytes / 1024 ** 3).toFixed(1)} GiB free in ${directory}, where files being written are staged`
  if (bytes >= STAGING_BYTES_LOW) return { state: 'ok', found }
  return { state: 'weak', found, advice: 'Choose a larger disk with --staging.' }
}

function clock(): Told {
  const now = new Date()
  if (now < BUILT) {
    return { state: 'missing', found: now.toISOString(), advice: 'Set the clock: S3 refuses requests from the past.' }
  }
  if (existsSync('/run/systemd/timesync/synchronized') || existsSync('/run/chrony')) {
    return { state: 'ok', found: `${now.toISOString()}, kept by NTP` }
  }
  return { state: 'ok', found: `${now.toISOString()}; S3 refuses requests where it is off by over 15 minutes` }
}

async function credentials(): Promise<Told> {
  const has = (name: string): boolean => (process.env[name] ?? '') !== ''
  const sources: string[] = []
  if (has('AWS_ACCESS_KEY_ID') && has('AWS_SECRET_ACCESS_KEY'))
    sources.push('AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY')
  if (has('AWS_PROFILE')) sources.push(`AWS_PROFILE ${process.env['AWS_PROFILE']}`)
  if (has('AWS_WEB_IDENTITY_TOKEN_FILE')) sources.push('AWS_WEB_IDENTITY_TOKEN_FILE')
  if (has('AWS_CONTAINER_CREDENTIALS_RELATIVE_URI') || has('AWS_CONTAINER_CREDENTIALS_FULL_URI'))
    sources.push('the container')
  for (const [variable, name] of [
    ['AWS_SHARED_CREDENTIALS_FILE', 'credentials'],
    ['AWS_CONFIG_FILE', 'config'],
  ] as const) {
    const file = process.env[variable] ?? join(homedir(), '.aws', name)
    const text = await readFile(file, 'utf8').catch(() => '')
    const profiles = [...text.matchAll(/^\[(?:profile )?([^\]]+)\]/gm)].map(([, profile]) => profile)
    if (profiles.length > 0) sources.push(`${file} (${profiles.join(', ')})`)
  }
  if (sources.length > 0) return { state: 'ok', found: sources.join('; ') }
  return {
    state: 'weak',
    found: 'none in the environment or in ~/.aws; an instance role is not asked for here',
    advice: 'For a bucket set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or choose a profile. "eider up" needs none.',
  }
}
