/**
 * The block service: what a process with disks answers to clients. Finds the disk that a request is for, has it done there, and
 * answers with what came of it. Bounds the bytes of blocks that are being written, as those lie in memory; each disk bounds what
 * else it does (`disk.ts`). Which disks there are does not change while it runs; one that fails goes on to be listed, with its reason.
 *
 * Bytes are not copied: a block is written from the frame that it came in, and a range goes out from the memory that it was read to.
 */
import { assert } from '#base/assert.ts'
import { OperationError } from '#base/errors.ts'
import { BufferMemory } from '#cluster/erasure/buffer-memory.ts'
import { ClockTrust } from '#cluster/clock-trust.ts'
import type { Address, Listener, Surroundings } from '#cluster/surroundings.ts'
import type { Target } from '#cluster/wire/caller.ts'
import { type Incoming, Responder } from '#cluster/wire/responder.ts'

import { FETCH_TAIL, fetchHead } from './block-frames.ts'
import { BLOCK_MESSAGES, blockMessages } from './block-messages.ts'
import { BlockRegistration } from './block-registration.ts'
import type { Disk } from './disk.ts'
import type { DiskId } from './permit.ts'
import { failureOf, type RegistrationFacts, type ServedDisk } from './served-disk.ts'

/** Of frames with blocks that are being written, at a time. */
const WRITE_BYTES_MAX = 512 << 20
/** For ranges that were read and are on their way out; more of them lie in memory of their own. */
const READ_BYTES = 64 << 20
/** In which a disk is given a block: enough for a call, and little enough that checksums and calls take turns. */
const PIECE_BYTES = 1 << 20

export interface BlockServerOptions {
  readonly surroundings: Surroundings
  readonly disks: readonly ServedDisk[]
  readonly writeBytesMax?: number
}

export class BlockServer {
  readonly #surroundings: Surroundings
  readonly #disks: ReadonlyMap<DiskId, ServedDisk>
  readonly #writeBytesMax: number
  readonly #responder: Responder
  readonly #listeners: Listener[] = []
  readonly #failed = new Set<DiskId>()
  readonly #memory = new BufferMemory(READ_BYTES)
  #registration: BlockRegistration | undefined
  #writeBytes = 0
  #closing: Promise<void> | undefined

  constructor({ surroundings, disks, writeBytesMax = WRITE_BYTES_MAX }: BlockServerOptions) {
    this.#surroundings = surroundings
    this.#disks = new Map(disks.map((served) => [served.disk.id, served]))
    assert(this.#disks.size === disks.length, 'a disk is served once')
    this.#writeBytesMax = writeBytesMax
    this.#responder = new Responder(BLOCK_MESSAGES, (request) => this.#answer(request))
  }

  /** Bytes of blocks that are being written. */
  get writeBytes(): number {
    return this.#writeBytes
  }

  /** Memory of ranges that are being read or on their way out. */
  get readBytes(): number {
    return this.#memory.bytesLent
  }

  /** Serves at `address`; gives the one it can be reached at. @throws ADDRESS_UNUSABLE */
  async listen(address: Address): Promise<Address> {
    const listener = await this.#surroundings.network.listen(address, this.#responder.accept)
    this.#listeners.push(listener)
    return listener.address
  }

  /**
   * Tells the registry of the disks, now and again and again until `close`. Resolves when it knows of them.
   * @param trust by which its disks tell the time
   * @throws CLUSTER_MISMATCH where one of them is of another cluster
   */
  register(
    registry: Target,
    facts: RegistrationFacts,
    trust = new ClockTrust(this.#surroundings.clock),
  ): Promise<void> {
    assert(this.#registration === undefined, 'a block service has one registry')
    this.#registration = new BlockRegistration(this.#surroundings, registry, trust, facts, [...this.#disks.values()])
    return this.#registration.start()
  }

  /** Takes no more requests, finishes what the disks have begun, and lets go of them. */
  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close(): Promise<void> {
    this.#registration?.stop()
    await Promise.all(this.#listeners.map((listener) => listener.close()))
    await Promise.all([...this.#disks.values()].map(({ disk }) => disk.close()))
  }

  #answer(request: Incoming): void {
    if (request.is(blockMessages.write)) this.#write(request)
    else if (request.is(blockMessages.fetch)) this.#fetch(request)
    else if (request.is(blockMessages.check)) this.#check(request)
    else if (request.is(blockMessages.erase)) this.#erase(request)
    else this.#tellDisks(request)
  }

  #write(request: Incoming): void {
    const { disk: id, block, crc, permit, bytes } = request.read(blockMessages.write)
    const disk = this.#diskOf(id)
    const size = request.frame.length
    // One is always taken, however large: the frame is here already.
    if (this.#writeBytes > 0 && this.#writeBytes + size > this.#writeBytesMax) {
      throw new OperationError('CLUSTER_BUSY', `Cannot write a block: ${this.#writeBytes} bytes are being written`)
    }
    this.#writeBytes += size
    const written = disk.write({ id: block, size: bytes.length, crc }, permit, piecesOf(bytes)).finally(() => {
      this.#writeBytes -= size
    })
    this.#deliver(request, disk, written, (receipt) =>
      request.reply(blockMessages.write, { receipt: bufferOf(receipt) }),
    )
  }

  #fetch(request: Incoming): void {
    const { disk: id, block, offset, length } = request.read(blockMessages.fetch)
    const disk = this.#diskOf(id)
    this.#deliver(request, disk, disk.fetch(block, offset, length, { memory: this.#memory }), (read) => {
      if (read.outcome === 'whole')
        request.replyLent(() => read.release?.(), fetchHead(read.bytes.length), read.bytes, FETCH_TAIL)
      else request.reply(blockMessages.fetch, { outcome: 'bad', bytes: Buffer.alloc(0), pages: read.pages })
    })
  }

  #check(request: Incoming): void {
    const { disk: id, block } = request.read(blockMessages.check)
    const disk = this.#diskOf(id)
    this.#deliver(request, disk, disk.check(block), (found) => {
      const { size, crc } = found.outcome === 'whole' ? found.facts : { size: 0, crc: 0 }
      const pages = found.outcome === 'whole' ? [] : found.pages
      request.reply(blockMessages.check, { outcome: pages.length === 0 ? 'whole' : 'bad', size, crc, pages })
    })
  }

  #erase(request: Incoming): void {
    const { disk: id, block, permit } = request.read(blockMessages.erase)
    const disk = this.#diskOf(id)
    this.#deliver(request, disk, disk.erase(block, permit), (receipt) =>
      request.reply(blockMessages.erase, { receipt: bufferOf(receipt) }),
    )
  }

  #tellDisks(request: Incoming): void {
    request.read(blockMessages.disks)
    const all = Promise.all([...this.#disks.values()].map(({ disk }) => diskFacts(disk)))
    void all.then((disks) => request.reply(blockMessages.disks, { disks }))
  }

  #diskOf(id: DiskId): Disk {
    const served = this.#disks.get(id)
    if (served !== undefined) return served.disk
    throw new OperationError('DISK_NOT_FOUND', `Cannot use disk ${id}: this service has none of that id`)
  }

  /** Answers with what comes of the work; a disk that turns out to have failed is told to the registry at once. */
  #deliver<T>(request: Incoming, disk: Disk, work: Promise<T>, reply: (result: T) => void): void {
    void work.then(reply, (error: unknown) => {
      if (disk.failure !== undefined && !this.#failed.has(disk.id)) {
        this.#failed.add(disk.id)
        this.#registration?.now()
      }
      request.refuse(error)
    })
  }
}

interface DiskFacts {
  readonly disk: DiskId
  readonly status: string
  readonly failure: string
  readonly usedBytes: number
  readonly freeBytes: number
}

/** Of one that has failed: no room. */
async function diskFacts(disk: Disk): Promise<DiskFacts> {
  const { usedBytes, freeBytes } = await disk.usage().catch(() => ({ usedBytes: 0, freeBytes: 0 }))
  return { disk: disk.id, status: disk.status, failure: failureOf(disk), usedBytes, freeBytes }
}

async function* piecesOf(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += PIECE_BYTES) yield bytes.subarray(at, at + PIECE_BYTES)
}

function bufferOf(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}
