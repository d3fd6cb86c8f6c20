/**
 * One that works in a tree together with others: looks at a name somewhere and does something with what is there, as the seed says. Makes
 * files, symlinks and directories, overwrites, renames, moves what it finds into any directory that ever was, also into itself; removes,
 * takes back what was removed, lists, and reads. Every answer goes to the log, and what can be judged at once is.
 */
import { type ErrorCode, isOperationError, OperationError } from '#base/errors.ts'
import type { ClusterClient, NewAttributes, Place } from '#cluster/client/cluster-client.ts'
import type { ClusterFiles } from '#cluster/client/cluster-files.ts'
import { gathered } from '#cluster/client/span-reader.ts'
import { inodeType, type InodeId, ROOT_INODE, shownInode } from '#cluster/inode-id.ts'
import { shardMessages } from '#cluster/shard/shard-messages.ts'
import type { Chance } from '#cluster/surroundings.ts'
import { ANYTHING, type NameGuard, NOTHING, type Policy } from '#cluster/wire/forms.ts'
import { Random } from '#sim/random.ts'
import { SimulationFailure } from '#sim/timeline.ts'

import type { LoggedOperation, Operation, Slot, Told, TreeLog } from './tree-log.ts'

export interface TreeShape {
  /** Of which there are so few that all get into each other's way. */
  readonly names: readonly string[]
  /** 1: all in the root. */
  readonly directoriesMax: number
  readonly policy: Policy
  readonly bytesMax: number
}

/** After these nobody knows whether it was done. */
const UNDECIDED: readonly ErrorCode[] = [
  'CLUSTER_UNREACHABLE',
  'CLUSTER_BUSY',
  'CLUSTER_INCOMPLETE',
  'NAME_LOCKED',
  'CLOCK_UNTRUSTED',
  'ABORTED',
]
/** None of these may ever be told to a client that does as it should. */
const DEFECTS: readonly ErrorCode[] = [
  'REQUEST_STALE',
  'WIRE_MALFORMED',
  'WIRE_KIND_UNKNOWN',
  'WIRE_VERSION',
  'COOKIE_REFUSED',
  'SPAN_INVALID',
]
const HOT_DIRECTORIES = 3
const LOOKS = 5
const CHUNK_BYTES = 10_000
/** Files that are small are most of them, as everywhere. */
const SMALL_BYTES_MAX = 100
/** So few that most listings have several pages, between which names change. */
const PAGE_ENTRIES = 3

type Found = { readonly inode: InodeId; readonly created: number }

export class TreeWorker {
  readonly #client: ClusterClient
  readonly #files: ClusterFiles
  readonly #log: TreeLog
  readonly #chance: Chance
  readonly #shape: TreeShape

  constructor(client: ClusterClient, files: ClusterFiles, log: TreeLog, shape: TreeShape) {
    this.#client = client
    this.#files = files
    this.#log = log
    this.#chance = client.surroundings.chance
    this.#shape = shape
  }

  /** Looks somewhere, and does something there; now and then with what was there long ago. */
  async step(): Promise<void> {
    const what = this.#below(20)
    if (what < 2) return this.#actOnThePast()
    if (what < 3) return this.#moveIntoEachOther()
    if (what < 6) return this.#watch()
    const slot = this.#anySlot()
    const found = await this.#look(slot)
    if (found === 'unknown') return
    if (found === undefined) await this.#atNothing(slot)
    else if (isDirectory(found)) await this.#atDirectory(slot, found)
    else await this.#atFile(slot, found)
  }

  #below(below: number): number {
    return this.#chance.below(below)
  }

  #pick<T>(of: readonly T[]): T | undefined {
    return of.length === 0 ? undefined : of[this.#below(of.length)]
  }

  /** Rather one of those that were made of late, where the others are, too. */
  #anyDirectory(): InodeId {
    const { directories } = this.#log
    const from = this.#below(3) === 0 ? 0 : Math.max(0, directories.length - HOT_DIRECTORIES)
    return this.#pick(directories.slice(from)) ?? ROOT_INODE
  }

  #anyName(): string {
    return this.#pick(this.#shape.names) ?? 'name'
  }

  #anySlot(): Slot {
    return { directory: this.#anyDirectory(), name: this.#anyName() }
  }

  /** It may be there still, or again at another time, or not. */
  async #actOnThePast(): Promise<void> {
    const { operation, told } = this.#pick(this.#log.operations) ?? {}
    if (operation === undefined || operation.kind === 'remove' || told?.created === undefined) return
    const inode = operation.kind === 'make' ? told.inode : operation.inode
    if (inode === undefined) return
    const found = { inode, created: told.created }
    if (this.#below(2) === 0) await this.#move(operation.to, found)
    else await this.#remove(operation.to, found)
  }

  /** Looks on while others do something: nobody may see what may yet be lost. */
  async #watch(): Promise<void> {
    const { operation } = this.#log.operations.findLast(({ outcome }) => outcome === 'unknown') ?? {}
    if (operation === undefined) return
    const slot = operation.kind === 'remove' || this.#below(3) === 0 ? fromOf(operation) : operation.to
    for (let count = 0; count < LOOKS; count++) if ((await this.#look(slot)) === 'unknown') return
  }

  /** Two directories, each into the other, at once: only one of them may, or they would be cut off from the root. */
  async #moveIntoEachOther(): Promise<void> {
    const slots = [this.#anySlot(), this.#anySlot()] as const
    const [one, other] = await Promise.all(slots.map((slot) => this.#look(slot)))
    if (!isDirectory(one) || !isDirectory(other) || one.inode === other.inode) return
    await Promise.all([
      this.#moveTo(slots[0], one, { directory: other.inode, name: this.#anyName() }),
      this.#moveTo(slots[1], other, { directory: one.inode, name: this.#anyName() }),
    ])
  }

  async #atNothing(slot: Slot): Promise<void> {
    const what = this.#below(10)
    if (what < 4) await this.#makeFile(slot, this.#guard(undefined))
    else if (what < 7) await this.#makeDirectory(slot)
    else if (what < 8) await this.#makeSymlink(slot)
    else if (what < 9) await this.#undelete(slot)
    else await this.#list(slot.directory)
  }

  async #atFile(slot: Slot, found: Found): Promise<void> {
    const what = this.#below(10)
    if (what < 3) await this.#makeFile(slot, this.#guard(found))
    else if (what < 5) await this.#move(slot, found)
    else if (what < 7) await this.#remove(slot, found)
    else if (what < 9) await this.#read(found)
    else await this.#undelete(slot)
  }

  async #atDirectory(slot: Slot, found: Found): Promise<void> {
    const what = this.#below(10)
    if (what < 4) await this.#move(slot, found)
    else if (what < 6) await this.#remove(slot, found)
    else if (what < 8) await this.#list(found.inode)
    else if (what < 9) await this.#listAsOf(found.inode)
    // What cannot be: it is refused, and nothing has changed.
    else await this.#makeFile(slot, this.#guard(found))
  }

  /** One that holds unless somebody else comes first. */
  #guard(found: Found | undefined): NameGuard {
    if (this.#below(2) === 0) return ANYTHING
    return found === undefined ? NOTHING : { how: 'is', inode: found.inode }
  }

  #attributes(number: number): NewAttributes {
    return { mode: 0o644, uid: number, gid: 0, mtime: undefined, atime: undefined }
  }

  async #attempt(operation: Operation, size: number, run: (number: number) => Promise<Told>): Promise<void> {
    const logged = this.#log.begin(operation, size)
    try {
      this.#log.done(logged, await run(logged.number))
    } catch (error) {
      if (mayHaveBeenDone(error, operation)) return
      this.#log.refused(logged)
    }
  }

  async #makeFile(to: Slot, guard: NameGuard): Promise<void> {
    const isSmall = this.#below(3) > 0
    const size = this.#below(isSmall ? SMALL_BYTES_MAX : this.#shape.bytesMax)
    const { policy } = this.#shape
    await this.#attempt({ kind: 'make', what: 'file', to, guard }, size, async (number) => {
      const file = { ...to, attributes: this.#attributes(number), guard, policy }
      return this.#files.write(file, chunksOf(contentOf(number, size)))
    })
  }

  async #makeSymlink(to: Slot): Promise<void> {
    const guard = this.#guard(undefined)
    const { policy } = this.#shape
    const size = 1 + this.#below(SMALL_BYTES_MAX)
    await this.#attempt({ kind: 'make', what: 'symlink', to, guard }, size, async (number) => {
      const file = { ...to, type: 'symlink', attributes: this.#attributes(number), guard, policy } as const
      return this.#files.write(file, chunksOf(contentOf(number, size)))
    })
  }

  async #makeDirectory(to: Slot): Promise<void> {
    if (this.#log.directories.length >= this.#shape.directoriesMax) return
    await this.#attempt({ kind: 'make', what: 'directory', to, guard: NOTHING }, 0, (number) =>
      this.#client.makeDirectory(to, this.#attributes(number)),
    )
  }

  async #move(from: Slot, found: Found): Promise<void> {
    const isNear = this.#below(2) === 0
    await this.#moveTo(from, found, isNear ? { directory: from.directory, name: this.#anyName() } : this.#anySlot())
  }

  async #moveTo(from: Slot, found: Found, to: Slot): Promise<void> {
    if (to.directory === from.directory && to.name === from.name) return
    const { inode, created } = found
    const guard = isDirectory(found) || this.#below(2) === 0 ? NOTHING : ANYTHING
    const place: Place = { inode, created, parent: from.directory, name: from.name }
    const operation = { kind: 'move', inode, from: { ...from, created }, to, guard } as const
    await this.#attempt(operation, 0, () => this.#client.move(place, to, guard))
  }

  async #remove(from: Slot, { inode, created }: Found): Promise<void> {
    const place: Place = { inode, created, parent: from.directory, name: from.name }
    await this.#attempt({ kind: 'remove', inode, from: { ...from, created } }, 0, async () => ({
      removed: await this.#client.remove(place),
    }))
  }

  async #undelete(from: Slot): Promise<void> {
    const owned: { created: number; inode: InodeId }[] = []
    const isKnown = await this.#tried(async () => {
      for await (const edge of this.#client.history(from.directory, from.name)) {
        if (edge.state === 'owned') owned.push(edge)
      }
    })
    const edge = this.#pick(owned)
    if (!isKnown || edge === undefined) return
    const { created, inode } = edge
    const newName = this.#anyName()
    const guard = this.#below(2) === 0 ? NOTHING : ANYTHING
    const to = { directory: from.directory, name: newName }
    await this.#attempt({ kind: 'undelete', inode, from: { ...from, created }, to, guard }, 0, () =>
      this.#client.ask(from.directory, shardMessages.undelete, { ...from, created, newName, guard }),
    )
  }

  /** What the name leads to; `unknown` where nobody says. */
  async #look(slot: Slot): Promise<Found | 'unknown' | undefined> {
    const floor = this.#log.floorOf(slot)
    let found: Found | undefined
    const isKnown = await this.#tried(async () => {
      found = await this.#client.lookup(slot.directory, slot.name)
    })
    if (!isKnown) return 'unknown'
    this.#log.reads.push({ ...slot, created: found?.created ?? 0, inode: found?.inode, floor })
    return found
  }

  async #list(directory: InodeId): Promise<void> {
    const floors = this.#log.floorsOf(directory)
    const found = new Map<string, Found>()
    let after = ''
    for (let isLast = false; !isLast;) {
      const isKnown = await this.#tried(async () => {
        const request = { directory, after, limit: PAGE_ENTRIES, withStatus: this.#below(2) === 0 }
        const page = await this.#client.ask(directory, shardMessages.list, request)
        for (const each of page.entries) found.set(each.name, each)
        isLast = page.isLast
        after = page.entries.at(-1)?.name ?? after
      })
      if (!isKnown) return
    }
    for (const name of new Set([...floors.keys(), ...found.keys()])) {
      const { created = 0, inode } = found.get(name) ?? {}
      this.#log.reads.push({ directory, name, created, inode, floor: floors.get(name) ?? 0 })
    }
  }

  async #listAsOf(directory: InodeId): Promise<void> {
    const latest = this.#log.latestOf(directory)
    if (latest === 0) return
    const asOf = latest - (this.#below(2) === 0 ? 0 : this.#below(10_000_000))
    const entries: { name: string; inode: InodeId }[] = []
    const isKnown = await this.#tried(async () => {
      for await (const page of this.#client.list(directory, { asOf })) entries.push(...page)
    })
    if (isKnown) this.#log.listings.push({ directory, asOf, entries })
  }

  async #read({ inode }: Found): Promise<void> {
    await this.#tried(() => this.checkContent(inode))
  }

  /** Reads a file or symlink whole. @throws SimulationFailure where its bytes are not those that were written */
  async checkContent(inode: InodeId): Promise<void> {
    const { uid, size } = await this.#client.stat(inode)
    const bytes = await gathered(this.#files.read(inode))
    const logged = this.#log.operations[uid - 1]
    checkBytes(inode, logged, size, bytes)
  }

  /** Whether it was answered, and not refused since the directory is gone or the like. */
  async #tried(read: () => Promise<void>): Promise<boolean> {
    try {
      await read()
      return true
    } catch (error) {
      if (!(error instanceof OperationError) || DEFECTS.includes(error.code)) throw error
      return false
    }
  }
}

function isDirectory(found: Found | 'unknown' | undefined): found is Found {
  return typeof found === 'object' && inodeType(found.inode) === 'directory'
}

function fromOf(operation: Operation): Slot {
  return operation.kind === 'make' ? operation.to : operation.from
}

function checkBytes(inode: InodeId, logged: LoggedOperation | undefined, size: number, bytes: Buffer): void {
  if (logged === undefined) throw new SimulationFailure(`${shownInode(inode)} was made by nobody`)
  if (size === logged.size && bytes.equals(contentOf(logged.number, size))) return
  const told = `${bytes.length} bytes and size ${size}`
  throw new SimulationFailure(`${shownInode(inode)} has other bytes than were written: ${told}, not ${logged.size}`)
}

/** The bytes of what the operation of that number makes; the target of a symlink as well, so without NUL. */
export function contentOf(number: number, size: number): Buffer {
  const bytes = new Random(number).bytes(size)
  for (let at = 0; at < size; at++) if (bytes[at] === 0) bytes[at] = 1
  return bytes
}

/** @throws what no client may ever be told */
function mayHaveBeenDone(error: unknown, { kind }: Operation): boolean {
  if (!isOperationError(error)) throw error
  if (DEFECTS.includes(error.code)) {
    throw new SimulationFailure(`To ${kind} was answered with ${error.code}: ${error.message}`, { cause: error })
  }
  return UNDECIDED.includes(error.code)
}

export async function* chunksOf(bytes: Buffer): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += CHUNK_BYTES) yield bytes.subarray(at, at + CHUNK_BYTES)
}
