/**
 * Makes a checkout ready: installs what the lock file names, and the Debian packages that the tests use. Plain JavaScript
 * for Node 20 without dependencies, as it runs before anything is installed; quick when there is nothing to do.
 *
 *   node scripts/setup.js run       what `npm start` needs
 *   node scripts/setup.js develop   what `npm run ok` needs
 *   node scripts/setup.js test      what `npm test` needs
 *   node scripts/setup.js bench     what the benchmarks need
 */
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))
const isRoot = process.getuid?.() === 0

/** The one list of Debian packages, by what needs them. */
const PACKAGES = {
  // Only an ordinary user mounts through fusermount3; root calls mount(2) itself.
  run: isRoot ? [] : ['fuse3'],
  develop: [],
  test: [
    'fuse3', // fusermount3, for mounts of an ordinary user
    'procps', // ps, in tests that look at processes
    'util-linux', // mount, setpriv, unshare
    // Programs that work in a mount.
    'git',
    'sqlite3',
    'rsync',
    'attr',
    'acl',
    // Clients of the S3 gateway that others wrote.
    'curl',
    'awscli',
    's3cmd',
    'rclone',
    's3fs',
    'python3-boto3',
    // An S3 server that others wrote.
    'radosgw',
    'ceph-mon',
    'ceph-osd',
    // A Swift server that others wrote.
    'python3-swift',
    'ca-certificates',
    // Small disks of their own, that fill up.
    'e2fsprogs',
    // A browser that looks at pages.
    'chromium-headless-shell',
    // Processes that write and read beside each other.
    'python3-minimal',
  ],
}
PACKAGES.bench = [
  ...PACKAGES.test,
  // What a server in C takes, against which stats are measured.
  ...['gcc', 'libc6-dev', 'libfuse3-dev', 'pkg-config'],
  // A program that keeps a copy by rsync, against which watching is measured.
  'lsyncd',
  // Codes and checksums in assembler, against which those of the cluster are measured.
  'libisal2',
  // An engine for metadata, against which shards are measured.
  'redis-server',
  'redis-tools',
]

function fail(message) {
  process.stderr.write(`setup: ${message}\n`)
  process.exit(1)
}

function say(message) {
  process.stderr.write(`setup: ${message}\n`)
}

function readLock(path) {
  try {
    return JSON.parse(readFileSync(join(root, path), 'utf8')).packages
  } catch {
    return undefined
  }
}

/** Whether node_modules holds what the lock file names: compared by content, as a fresh clone's times tell nothing. */
function dependenciesAreInstalled() {
  const wanted = readLock('package-lock.json')
  const present = readLock('node_modules/.package-lock.json')
  if (wanted === undefined) fail('Cannot read package-lock.json: the checkout is not whole')
  if (present === undefined) return false
  for (const [path, entry] of Object.entries(wanted)) {
    if (path === '') continue
    const found = present[path]
    if (found === undefined) {
      // Optional packages for other machines are in the lock file and never installed here.
      if (entry.optional && !fitsThisMachine(entry)) continue
      if (entry.optional && entry.os === undefined && entry.cpu === undefined) continue
      return false
    }
    if (found.version !== entry.version || !existsSync(join(root, path, 'package.json'))) return false
  }
  return Object.keys(present).every((path) => wanted[path] !== undefined)
}

function fitsThisMachine(entry) {
  const libc = existsSync('/etc/alpine-release') ? 'musl' : 'glibc'
  return (
    (entry.os === undefined || entry.os.includes(process.platform)) &&
    (entry.cpu === undefined || entry.cpu.includes(process.arch)) &&
    (entry.libc === undefined || entry.libc.includes(libc))
  )
}

function installDependencies() {
  say('Installing dependencies (npm ci) …')
  // npm must not run under the Node inside node_modules, which it is about to remove.
  const path = (process.env.PATH ?? '')
    .split(delimiter)
    .filter((directory) => !directory.endsWith('node_modules/.bin'))
    .join(delimiter)
  const done = spawnSync('npm', ['ci', '--no-audit', '--no-fund', '--loglevel=error'], {
    cwd: root,
    stdio: ['ignore', 'inherit', 'inherit'],
    env: { ...process.env, PATH: path },
  })
  if (done.error !== undefined) fail(`Cannot run npm: ${done.error.message}`)
  if (done.status !== 0) {
    fail(
      'Cannot install the dependencies: npm ci failed; check that this machine reaches the registry of "npm config get registry"',
    )
  }
}

function missingPackages(names) {
  const query = spawnSync('dpkg-query', ['-W', '-f', '${Package} ${db:Status-Status}\n', ...names], {
    encoding: 'utf8',
  })
  if (query.error !== undefined) return undefined
  const installed = new Set(
    query.stdout
      .split('\n')
      .filter((line) => line.endsWith(' installed'))
      .map((line) => line.split(' ')[0]),
  )
  return names.filter((name) => !installed.has(name))
}

function aptGet(...args) {
  const done = spawnSync('apt-get', ['-q', '-o', 'DPkg::Lock::Timeout=300', ...args], {
    stdio: ['ignore', 'ignore', 'inherit'],
    env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
  })
  return done.status === 0
}

function installPackages(names) {
  if (names.length === 0) return
  const missing = missingPackages(names)
  if (missing === undefined) {
    say(`This is not a Debian system; what is needed goes by these names there: ${names.join(' ')}`)
    return
  }
  if (missing.length === 0) return
  if (!isRoot) {
    say(`Missing, and only root can install them: apt-get install --no-install-recommends ${missing.join(' ')}`)
    return
  }
  say(`Installing Debian packages: ${missing.join(' ')} …`)
  if (!aptGet('update') || !aptGet('install', '-y', '--no-install-recommends', ...missing)) {
    fail(`Cannot install Debian packages: apt-get failed; install them by hand: ${missing.join(' ')}`)
  }
}

const purpose = process.argv[2]
if (!Object.hasOwn(PACKAGES, purpose))
  fail(`Cannot set up for "${purpose}": one of run, develop, test, bench is expected`)
if (process.platform !== 'linux') fail('Eider runs on Linux only')
if (!dependenciesAreInstalled()) installDependencies()
installPackages(PACKAGES[purpose])
