/**
 * One client that works in directories of its own, and knows at each moment what must be there: what was acknowledged, and of a name whose last request
 * was not answered, what may be there. Such a name is left alone from then on, as that request may be done yet. Bytes of a file follow from its
 * number and size, so that any of them can be checked.
 */
import assert from 'node:assert/strict'
import { createCipheriv } from 'node:crypto'

import { type ErrorCode, isOperationError, type OperationError } from '#base/errors.ts'
import type { ClusterClient, Place, Slot } from '#cluster/client/cluster-client.ts'
import type { ClusterFiles } from '#cluster/client/cluster-files.ts'
import type { InodeId } from '#cluster/inode-id.ts'
import { EMPTY_POLICY } from '#cluster/wire/forms.ts'

/** Answers that say that a request was not done, for a reason that must not be: nobody else changes these names. */
const REFUSALS: readonly ErrorCode[] = [
  'NAME_TAKEN',
  'NAME_NOT_FOUND',
  'NAME_LOCKED',
  'EDGE_CHANGED',
  'INODE_NOT_FOUND',
  'DIRECTORY_REMOVED',
  'DIRECTORY_NOT_EMPTY',
  'DIRECTORY_LOOP',
  'REQUEST_STALE',
  'RECEIPT_REFUSED',
  'COOKIE_REFUSED',
  'TRANSIENT_EXPIRED',
  'SPAN_OUT_OF_ORDER',
  'SPAN_INVALID',
  'WIRE_MALFORMED',
  'BLOCK_CORRUPT',
  'BLOCK_CUT',
  'BLOCK_CONFLICT',
]
const DIRECTORIES = 4
const NAMES = 24
const HEAD_BYTES = 16

/** What a name leads to. */
interface Known {
  readonly inode: InodeId
  readonly created: number
  readonly kind: 'file' | 'directory'
}

interface Acknowledged {
  readonly directory: number
  readonly name: string
  readonly inode: InodeId
  readonly created: number
}

export interface WorkerTotals {
  done: number
  unknown: number
  unreadable: number
}

export class ChaosWorker {
  readonly totals: WorkerTotals = { done: 0, unknown: 0, unreadable: 0 }
  readonly #client: ClusterClient
  readonly #files: ClusterFiles
  readonly #name: string
  readonly #below: (count: number) => number
  readonly #roots: InodeId[] = []
  /** By directory, then by name. */
  readonly #known: Map<string, Known>[] = []
  /** Names whose last request was not answered. */
  readonly #open = new Set<string>()
  readonly #acknowledged: Acknowledged[] = []
  readonly #unknown: string[] = []
  #number = 0

  constructor(client: ClusterClient, files: ClusterFiles, name: string, below: (count: number) => number) {
    this.#client = client
    this.#files = files
    this.#name = name
    this.#below = below
  }

  async prepare(): Promise<void> {
    const top = await this.#client.ensureDirectory(await this.#client.slot(`/${this.#name}`), ATTRIBUTES)
    for (let index = 0; index < DIRECTORIES; index++) {
      this.#roots.push(await this.#client.ensureDirectory({ directory: top, name: `d${index}` }, ATTRIBUTES))
      this.#known.push(new Map())
    }
  }

  /** One operation, chosen by chance. */
  async step(): Promise<void> {
    const steps = [
      ...[() => this.#write(), () => this.#write(), () => this.#write()],
      ...[() => this.#read(), () => this.#read(), () => this.#list()],
      ...[() => this.#makeDirectory(), () => this.#move(), () => this.#move(), () => this.#remove()],
    ]
    await steps[this.#below(steps.length)]?.()
  }

  /** All that must be there is, and nothing else; of names that are open, what there is can be read. */
  async verify(): Promise<void> {
    for (const [index, root] of this.#roots.entries()) {
      const found = new Map<string, InodeId>()
      for await (const page of this.#client.list(root)) for (const { name, inode } of page) found.set(name, inode)
      for (const [name, known] of this.#known[index] ?? []) {
        if (this.#open.has(keyOf(index, name))) continue
        assert.equal(found.get(name), known.inode, `${this.#name}/d${index}/${name} is as it was acknowledged`)
        if (known.kind === 'file') await this.#checkBytes(known.inode)
      }
      for (const [name, inode] of found) {
        if (this.#open.has(keyOf(index, name))) await this.#checkOpen(inode)
        else assert.ok(this.#known[index]?.has(name), `${this.#name}/d${index}/${name} is there and was removed`)
      }
      await this.#verifyHistory(index, root)
    }
  }

  /** Every version that was acknowledged is in the history, or current. */
  async #verifyHistory(index: number, root: InodeId): Promise<void> {
    const edges = new Set<string>()
    for await (const { name, inode, created } of this.#client.history(root)) edges.add(`${name} ${inode} ${created}`)
    for (const { directory, name, inode, created } of this.#acknowledged) {
      if (directory !== index) continue
      assert.ok(edges.has(`${name} ${inode} ${created}`), `${this.#name}/d${index}/${name} of ${created} is kept`)
    }
  }

  async #checkOpen(inode: InodeId): Promise<void> {
    const status = await this.#client.stat(inode)
    if (status.type === 'file') await this.#checkBytes(inode)
  }

  async #checkBytes(inode: InodeId): Promise<void> {
    const chunks: Buffer[] = []
    // What is read is good until the next piece is asked for.
    for await (const chunk of this.#files.read(inode)) chunks.push(Buffer.from(chunk))
    const bytes = Buffer.concat(chunks)
    const [number, size] = [bytes.readDoubleLE(0), bytes.readDoubleLE(8)]
    assert.equal(bytes.length, size, `file ${number} of ${this.#name} has all of its bytes`)
    assert.ok(bytes.equals(bytesOf(number, size)), `file ${number} of ${this.#name} has its own bytes`)
  }

  /** A new file, or another one in the place of one. */
  async #write(): Promise<void> {
    const at = this.#slot()
    if (at === undefined || this.#knownAt(at)?.kind === 'directory') return
    const number = ++this.#number
    const size = HEAD_BYTES + this.#below([200, 4000, 60_000, 3_000_000][this.#below(4)] ?? 1)
    const source = async function* (): AsyncGenerator<Buffer> {
      yield bytesOf(number, size)
    }
    await this.#attempt([at], async () => {
      const file = { ...this.#slotOf(at), attributes: ATTRIBUTES, policy: EMPTY_POLICY, sizeHint: size }
      const { inode, created } = await this.#files.write(file, source())
      this.#settle(at, { inode, created, kind: 'file' })
    })
  }

  async #read(): Promise<void> {
    const at = this.#someKnown('file')
    const known = at === undefined ? undefined : this.#knownAt(at)
    if (at === undefined || known === undefined) return
    await this.#attempt([], async () => {
      const { directory, name } = this.#slotOf(at)
      const found = await this.#client.lookup(directory, name)
      assert.equal(found?.inode, known.inode, `${this.#name}/${at} is what was written last`)
      await this.#checkBytes(known.inode)
    })
  }

  async #list(): Promise<void> {
    const index = this.#below(DIRECTORIES)
    const root = this.#roots[index]
    if (root === undefined) return
    await this.#attempt([], async () => {
      const found = new Set<string>()
      for await (const page of this.#client.list(root)) for (const { name } of page) found.add(name)
      for (let number = 0; number < NAMES; number++) {
        const at = keyOf(index, `n${number}`)
        if (this.#open.has(at)) continue
        const isThere = found.has(`n${number}`)
        assert.equal(isThere, this.#knownAt(at) !== undefined, `${this.#name}/${at} is listed as it was acknowledged`)
      }
    })
  }

  async #makeDirectory(): Promise<void> {
    const at = this.#slot()
    if (at === undefined || this.#knownAt(at) !== undefined) return
    await this.#attempt([at], async () => {
      const made = await this.#client.makeDirectory(this.#slotOf(at), ATTRIBUTES)
      this.#settle(at, { ...made, kind: 'directory' })
    })
  }

  /** To a name that is free, or of a file to that of another one; mostly in another directory. */
  async #move(): Promise<void> {
    const from = this.#someKnown()
    const to = this.#slot()
    const known = from === undefined ? undefined : this.#knownAt(from)
    if (from === undefined || to === undefined || known === undefined || from === to) return
    const there = this.#knownAt(to)
    if (there !== undefined && (there.kind === 'directory' || known.kind === 'directory')) return
    await this.#attempt([from, to], async () => {
      const { created } = await this.#client.move(this.#placeOf(from, known), this.#slotOf(to))
      this.#knownOf(from).delete(nameOf(from))
      this.#settle(to, { ...known, created })
    })
  }

  async #remove(): Promise<void> {
    const at = this.#someKnown()
    const known = at === undefined ? undefined : this.#knownAt(at)
    if (at === undefined || known === undefined) return
    await this.#attempt([at], async () => {
      await this.#client.remove(this.#placeOf(at, known))
      this.#knownOf(at).delete(nameOf(at))
    })
  }

  /** What has no answer leaves its names open; what is refused must not be. */
  async #attempt(names: readonly string[], work: () => Promise<void>): Promise<void> {
    try {
      await work()
      this.totals.done++
    } catch (error) {
      if (!isOperationError(error)) throw error
      if (rootsOf(error).some((each) => REFUSALS.includes(each.code))) {
        throw new Error(`${this.#name}: refused at ${names.join(' and ')}: ${error.code}: ${error.message}`, {
          cause: error,
        })
      }
      for (const name of names) this.#open.add(name)
      if (names.length === 0) this.totals.unreadable++
      else this.totals.unknown++
      this.#unknown.push(`${names.join(' ')}: ${error.code} ${error.message}`)
    }
  }

  /** What kept operations from being done, for who looks into it. */
  get unknown(): readonly string[] {
    return this.#unknown
  }

  #settle(at: string, known: Known): void {
    this.#knownOf(at).set(nameOf(at), known)
    const { inode, created } = known
    this.#acknowledged.push({ directory: indexOf(at), name: nameOf(at), inode, created })
  }

  /** Some name that is not open. */
  #slot(): string | undefined {
    const at = keyOf(this.#below(DIRECTORIES), `n${this.#below(NAMES)}`)
    return this.#open.has(at) ? undefined : at
  }

  #someKnown(kind?: Known['kind']): string | undefined {
    const index = this.#below(DIRECTORIES)
    const names = [...(this.#known[index] ?? [])]
      .filter(([name, known]) => !this.#open.has(keyOf(index, name)) && (kind === undefined || known.kind === kind))
      .map(([name]) => keyOf(index, name))
    return names[this.#below(Math.max(1, names.length))]
  }

  #knownOf(at: string): Map<string, Known> {
    const known = this.#known[indexOf(at)]
    assert.ok(known !== undefined)
    return known
  }

  #knownAt(at: string): Known | undefined {
    return this.#knownOf(at).get(nameOf(at))
  }

  #slotOf(at: string): Slot {
    const directory = this.#roots[indexOf(at)]
    assert.ok(directory !== undefined)
    return { directory, name: nameOf(at) }
  }

  #placeOf(at: string, { inode, created }: Known): Place {
    const { directory: parent, name } = this.#slotOf(at)
    return { inode, created, parent, name }
  }
}

const ATTRIBUTES = { mode: 0o644, uid: 0, gid: 0, mtime: undefined, atime: undefined }

const keyOf = (directory: number, name: string): string => `d${directory}/${name}`
const indexOf = (at: string): number => Number(at[1])
const nameOf = (at: string): string => at.slice(3)

/** The error and what led to it: an error of many blocks has the first one's as its cause. */
function rootsOf(error: OperationError): OperationError[] {
  const found: OperationError[] = []
  for (let at: unknown = error; isOperationError(at); at = at.cause) found.push(at)
  return found
}

/** Its number, its size, and bytes that follow from these. */
function bytesOf(number: number, size: number): Buffer {
  const bytes = Buffer.alloc(size)
  const key = Buffer.alloc(16, number)
  key.writeDoubleLE(number, 0)
  const cipher = createCipheriv('aes-128-ctr', key, Buffer.alloc(16))
  cipher.update(bytes).copy(bytes)
  bytes.writeDoubleLE(number, 0)
  bytes.writeDoubleLE(size, 8)
  return bytes
}
