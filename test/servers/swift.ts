/**
 * A throw-away OpenStack Swift on loopback, for tests against a server that others wrote: proxy, account, container and object
 * server in one process, with TempAuth, in a temporary directory. Needs the Debian package python3-swift. The process ends with
 * `stop`, and with this process however that ends (its parent-death signal).
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

const SERVER = fileURLToPath(new URL('swift-server.py', import.meta.url))
const PACKAGE = '/usr/lib/python3/dist-packages/swift'

export interface Swift {
  readonly origin: string
  readonly authUrl: string
  readonly user: string
  readonly key: string
  /** As after a restart of what keeps tokens: none that was given is accepted any more. */
  forgetTokens(): Promise<void>
  stop(): Promise<void>
}

/** Why Swift cannot run here, for a skipped test; undefined where it can. */
export function swiftMissing(): string | undefined {
  return existsSync(PACKAGE) ? undefined : 'not installed: python3-swift'
}

/** Starts a server without containers, in about a second; its listings have so many entries a page. */
export async function startSwift(pageEntries = 10_000): Promise<Swift> {
  const directory = await mkdtemp(join(tmpdir(), 'eider-swift-'))
  const program = ['/usr/bin/python3', SERVER, directory, String(pageEntries)]
  const child = spawn('/usr/bin/setpriv', ['--pdeathsig', 'KILL', ...program], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const ended = once(child, 'exit')
  const stop = async (): Promise<void> => {
    child.kill('SIGKILL')
    await ended
    await rm(directory, { recursive: true, force: true })
  }
  const started = once(createInterface(child.stdout), 'line') as Promise<[string]>
  const [port] = await Promise.race([started, ended])
  if (typeof port !== 'string') {
    await stop()
    throw new Error(`Cannot start Swift: it ended with ${String(child.exitCode)}`)
  }
  const origin = `http://127.0.0.1:${port}`
  return {
    origin,
    authUrl: `${origin}/auth/v1.0`,
    user: 'test:tester',
    key: 'testing',
    forgetTokens: async () => {
      const forgotten = await (await fetch(`${origin}/forget-tokens`)).text()
      if (!(Number(forgotten) > 0)) throw new Error(`Cannot forget tokens: there are ${forgotten}`)
    },
    stop,
  }
}
