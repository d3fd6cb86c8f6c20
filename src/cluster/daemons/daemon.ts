/** What the daemons of a cluster have in common when they run on a real machine: how they are made known, and their directories. */
import { mkdirSync } from 'node:fs'
import { open, readFile, rename } from 'node:fs/promises'
import { join } from 'node:path'

import { OperationError } from '#base/errors.ts'
import { openFileJournal } from '#cluster/journal/file-journal.ts'
import type { Journal } from '#cluster/journal/journal.ts'
import { openLmdbState } from '#cluster/journal/lmdb-state.ts'
import type { StoredState } from '#cluster/journal/state.ts'
import type { Address } from '#cluster/surroundings.ts'
import { randomClient } from '#cluster/wire/caller.ts'
import { systemSurroundings } from '#cluster/system-surroundings.ts'
import type { TcpNetworkOptions } from '#cluster/wire/tcp-network.ts'

/** What every daemon is told. */
export interface DaemonOptions {
  /** Its directory, made where it is not there. */
  readonly data: string
  /** Where it listens; port 0 takes a free one. */
  readonly listen: Address
  /** The host at which others reach it, where that is not the one that it listens at. */
  readonly advertiseHost?: string | undefined
  readonly network?: Pick<TcpNetworkOptions, 'secret' | 'tls'>
  /** It cannot go on: the process is to end. */
  readonly onFailed: (error: OperationError) => void
}

/** What those are told that register. */
export interface RegisteredOptions extends DaemonOptions {
  readonly registry: Address
  /** Where it is, such as a data centre. */
  readonly location: string
}

export interface Daemon {
  /** Where others reach it. */
  readonly address: Address
  /** Everything is durable when it resolves. */
  close(): Promise<void>
}

/** A server over the journal and the state in the directory, which are closed where it cannot be opened. @throws JOURNAL_FAILED, JOURNAL_CORRUPT */
export async function openServer<Server>(
  data: string,
  openIt: (kept: { readonly journal: Journal; readonly stored: StoredState }) => Promise<Server>,
): Promise<Server> {
  makeDataDirectory(data)
  await using opened = new AsyncDisposableStack()
  const journal = opened.adopt(await openFileJournal(data), (each) => each.close())
  const stored = opened.adopt(await openLmdbState(data), (each) => each.close())
  const server = await openIt({ journal, stored })
  // From here on the server closes them.
  opened.move()
  return server
}

/** What a daemon at `address` is that has opened all that. */
export function daemonOf(address: Address, opened: AsyncDisposableStack): Daemon {
  const running = opened.move()
  return { address, close: () => running.disposeAsync() }
}

/** Where others reach what listens at `address`. */
export function advertisedAddress(address: Address, host: string | undefined): Address {
  if (host === undefined) return address
  const port = address.slice(address.lastIndexOf(':') + 1)
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`
}

/** @throws LOCAL_FAILED */
export function makeDataDirectory(path: string): void {
  try {
    mkdirSync(path, { recursive: true, mode: 0o700 })
  } catch (error) {
    throw new OperationError('LOCAL_FAILED', `Cannot use "${path}": ${(error as Error).message}`, { cause: error })
  }
}

/**
 * The number of the process, from the first start in this directory on. @param place what must be the same for it to be that process still, such as
 * the directory itself where a copy of it is another one
 * @throws LOCAL_FAILED
 */
export async function processIdOf(data: string, place = ''): Promise<number> {
  const path = join(data, 'process')
  try {
    const [number, madeAt = ''] = (await readFile(path, 'utf8')).trim().split(' ')
    const known = Number(number)
    const isOne = Number.isSafeInteger(known) && known > 0
    if (isOne && madeAt === place) return known
    if (isOne) return await newProcessId(path, place)
    throw new OperationError('LOCAL_FAILED', `Cannot use "${path}": it does not have the number of a process`, {
      hint: 'Remove it: the process is given another number.',
    })
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
  }
  return newProcessId(path, place)
}

async function newProcessId(path: string, place: string): Promise<number> {
  const made = randomClient(systemSurroundings())
  await using file = await open(`${path}.new`, 'w', 0o600)
  await file.writeFile(`${made} ${place}`.trimEnd() + '\n')
  await file.sync()
  await rename(`${path}.new`, path)
  return made
}
