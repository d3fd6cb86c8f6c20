/** Why an address cannot be listened at, with the process that has it where /proc tells: of this user's, or of all for root. */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { OperationError } from '#base/errors.ts'
import type { HostPort } from './options.ts'

/** `LOCAL_FAILED` for what `listen` failed with; `flag` is the option that names the address. */
export function listenError(action: string, { port }: HostPort, error: unknown, flag: string): OperationError {
  const { code, message } = error as NodeJS.ErrnoException
  const hints: Readonly<Record<string, string>> = {
    EADDRINUSE: `Name another port with ${flag}, or port 0 for any that is free; or end that program.`,
    EACCES: `Ports below 1024 are root's: name a higher one with ${flag}.`,
    EADDRNOTAVAIL: `Name an address of this machine with ${flag}, such as 127.0.0.1, or 0.0.0.0 for all of them.`,
  }
  const hint = hints[code ?? '']
  const options = { cause: error, ...(hint === undefined ? {} : { hint }) }
  return new OperationError('LOCAL_FAILED', `Cannot ${action}: ${detailOf(code, port) ?? message}`, options)
}

function detailOf(code: string | undefined, port: number): string | undefined {
  switch (code) {
    case 'EADDRINUSE': {
      const holder = listenerAt(port)
      return `another program listens there${holder === undefined ? '' : ` (process ${holder})`}`
    }
    case 'EACCES':
      return 'this user may not'
    case 'EADDRNOTAVAIL':
      return 'this machine does not have that address'
    default:
      return undefined
  }
}

/** As in tcp_states.h. */
const LISTEN = '0A'

/** `1234 (node)`: who listens at the port; undefined where nobody does who can be seen. */
function listenerAt(port: number): string | undefined {
  const sockets = new Set<string>()
  for (const table of ['tcp', 'tcp6']) {
    for (const line of readText(`/proc/self/net/${table}`).split('\n').slice(1)) {
      const [, local = '', , state, , , , , , inode = ''] = line.trim().split(/\s+/)
      if (state === LISTEN && Number.parseInt(local.slice(local.lastIndexOf(':') + 1), 16) === port) {
        sockets.add(`socket:[${inode}]`)
      }
    }
  }
  if (sockets.size === 0) return undefined
  const pid = readdirSync('/proc').find((name) => /^\d+$/.test(name) && hasOpen(name, sockets))
  return pid === undefined ? undefined : `${pid} (${readText(`/proc/${pid}/comm`).trim()})`
}

function hasOpen(pid: string, names: ReadonlySet<string>): boolean {
  try {
    return readdirSync(`/proc/${pid}/fd`).some((fd) => names.has(linkOf(`/proc/${pid}/fd/${fd}`)))
  } catch {
    // Another user's, or it has ended.
    return false
  }
}

function linkOf(path: string): string {
  try {
    return readlinkSync(path)
  } catch {
    return ''
  }
}

/** Empty where it cannot be read: a machine without IPv6, a process that has ended. */
function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}
