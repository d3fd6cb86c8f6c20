/**
 * Finds a Node that can run Eider (24 or later): the one that the package brings as an optional dependency, else one on
 * PATH. Plain JavaScript without dependencies, as it runs under whatever Node there is, from 20 on.
 */
import { execFileSync } from 'node:child_process'
import { accessSync, constants } from 'node:fs'
import { createRequire } from 'node:module'
import { delimiter, join } from 'node:path'

const NODE_MAJOR_MIN = 24
const F_SETFD = 2
/**
 * Calls to disks wait in threads of libuv, whose number is read once, before anything runs: four for each disk of a block service, so that
 * one that hangs keeps none from the others.
 */
const DISK_COMMANDS = new Set(['cluster', 'block-service'])
const DISK_THREADS = '64'

/** Whether the running Node is new enough. */
function runningNodeFits() {
  return Number(process.versions.node.split('.')[0]) >= NODE_MAJOR_MIN
}

/** The path of a Node that fits, or undefined. */
function findNode() {
  try {
    return createRequire(import.meta.url).resolve(`node-linux-${process.arch}/bin/node`)
  } catch {
    // Optional: an install may leave it out, and another architecture has none. PATH is next.
  }
  for (const directory of (process.env.PATH ?? '').split(delimiter)) {
    const candidate = join(directory, 'node')
    try {
      accessSync(candidate, constants.X_OK)
      const version = execFileSync(candidate, ['--version'], { encoding: 'utf8', timeout: 5000 })
      if (Number(/^v(\d+)/.exec(version)?.[1]) >= NODE_MAJOR_MIN) return candidate
    } catch {
      // Not there, or not a Node: the next directory may have one.
    }
  }
  return undefined
}

/**
 * Runs the module `file` with `args` under a Node that fits, in this process's place: imported where this Node fits, else by
 * execve(2), so that signals, exit codes, the terminal and the process id are those of the program itself.
 */
export async function runUnderNode(file, args) {
  if (DISK_COMMANDS.has(args[0])) process.env.UV_THREADPOOL_SIZE ??= DISK_THREADS
  if (runningNodeFits()) {
    process.argv.splice(1, process.argv.length, file, ...args)
    await import(file)
    return
  }
  const node = findNode()
  if (node === undefined) {
    process.stderr.write(
      `eider: Cannot start: Node ${NODE_MAJOR_MIN} or later is needed, and this is ${process.version}\n` +
        '  hint: Install again with optional dependencies (npm brings the right Node along), or put a newer Node on PATH.\n',
    )
    process.exit(1)
  }
  const { default: koffi } = await import('koffi')
  const libc = koffi.load('libc.so.6')
  const fcntl = libc.func('int fcntl(int fd, int command, int value)')
  const execv = libc.func('int execv(const char *path, const char **argv)')
  // Node marks its standard streams close-on-exec.
  for (const fd of [0, 1, 2]) fcntl(fd, F_SETFD, 0)
  execv(node, [node, file, ...args, null])
  process.stderr.write(`eider: Cannot start: ${node} cannot be executed (errno ${koffi.errno()})\n`)
  process.exit(1)
}
