/** What the daemons of a cluster have in common when they run on a real machine: how they are made known, and their directories. */
import { existsSync, mkdirSync } from 'node:fs'
import { open, readFile, rename } from 'node:fs/promises'
import { dirname, join } from 'node:path'

import { OperationError } from '#base/errors.ts'
import { CLUSTER_FILE, type ClusterId, decodeClusterFile, encodeClusterFile } from '#cluster/cluster-id.ts'
import { openFileJournal } from '#cluster/journal/file-journal.ts'
import type { Journal } from '#cluster/journal/journal.ts'
import { openLmdbState } from '#cluster/journal/lmdb-state.ts'
import { segmentFilesIn } from '#cluster/journal/segment-files.ts'
import type { Membership } from '#cluster/membership.ts'
import type { StoredState } from '#cluster/journal/state.ts'
import type { Address } from '#cluster/surroundings.ts'
import { randomClient } from '#cluster/wire/caller.ts'
import { systemSurroundings } from '#cluster/system-surroundings.ts'
import type { TcpNetworkOptions } from '#cluster/wire/tcp-network.ts'

/** Written once all else is there that it says something of. */
const PROCESS_FILE = 'process'

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
  checkKept(data)
  const stored = opened.adopt(await openLmdbState(data), (each) => each.close())
  const journal = opened.adopt(await openFileJournal(data, { state: stored }), (each) => each.close())
  const server = await openIt({ journal, stored })
  // From here on the server closes them.
  opened.move()
  return server
}

/**
 * A process that has served from the directory has a state and a journal there: one that lost them is not new.
 * @throws JOURNAL_CORRUPT
 */
function checkKept(data: string): void {
  if (!existsSync(join(data, PROCESS_FILE))) return
  const journal = join(data, 'journal')
  const hasJournal = existsSync(journal) && segmentFilesIn(journal).length > 0
  if (hasJournal && existsSync(join(data, 'state', 'data.lmdb'))) return
  const detail = 'a process has served from it, and its state or its journal is gone'
  throw new OperationError('JOURNAL_CORRUPT', `Cannot use "${data}": ${detail}`)
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
  const path = join(data, PROCESS_FILE)
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
  await replaceFile(path, `${made} ${place}`.trimEnd() + '\n')
  return made
}

/** Which cluster the process belongs to whose directory that is; it is made where it is not there. @throws LOCAL_FAILED */
export async function membershipIn(data: string): Promise<Membership> {
  makeDataDirectory(data)
  let known = await clusterIn(data)
  return {
    get cluster() {
      return known
    },
    async join(cluster) {
      await replaceFile(join(data, CLUSTER_FILE), encodeClusterFile(cluster))
      known = cluster
    },
  }
}

/** The cluster that the directory belongs to; undefined where it is new, or not there. @throws LOCAL_FAILED */
export async function clusterIn(data: string): Promise<ClusterId | undefined> {
  const path = join(data, CLUSTER_FILE)
  let bytes: Buffer
  try {
    bytes = await readFile(path)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw new OperationError('LOCAL_FAILED', `Cannot read "${path}": ${(error as Error).message}`, { cause: error })
  }
  const cluster = decodeClusterFile(bytes)
  if (cluster !== undefined) return cluster
  throw new OperationError('LOCAL_FAILED', `Cannot use "${path}": it does not say a cluster`, {
    hint: 'Copy the file of that name from another part of the same cluster: it is the same in all of them.',
  })
}

/** Durable, name and all, when it resolves. */
async function replaceFile(path: string, text: string | Buffer): Promise<void> {
  {
    await using file = await open(`${path}.new`, 'w', 0o600)
    await file.writeFile(text)
    await file.sync()
  }
  await rename(`${path}.new`, path)
  await using directory = await open(dirname(path), 'r')
  await directory.sync()
}
