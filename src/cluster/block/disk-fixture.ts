/**
 * What the tests of disks share: blocks of made-up bytes, and a disk whose clock stands where the test wants it.
 */
import { setLogLevel } from '#base/log.ts'

import { type BlockId, makeBlockId } from './block-id.ts'
import type { BlockFiles } from './block-files.ts'
import { crc32c } from '#cluster/erasure/crc32c.ts'
import { Disk, type DiskOptions } from './disk.ts'
import { type BlockFacts, writePermit } from './permit.ts'

// Disks fail by the thousand here, and each says so.
setLogLevel('silent')

export const NOW_MS = Date.UTC(2026, 6, 1, 12)

export class Clock {
  nowMs = NOW_MS

  forwardMs(ms: number): void {
    this.nowMs += ms
  }
}

/** Bytes that are the same for the same seed, and of which no two pages are alike. */
export function madeUp(size: number, seed = 1): Buffer {
  const bytes = Buffer.alloc(size)
  let state = (seed * 2654435761) >>> 0 || 1
  for (let at = 0; at < size; at++) {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    bytes[at] = state
  }
  return bytes
}

/** The `n`th block of the moment `timeMs`. */
export function idAt(timeMs = NOW_MS, n = 0): BlockId {
  return makeBlockId(timeMs + Math.floor(n / 16), n % 16, 3)
}

export function factsOf(id: BlockId, bytes: Uint8Array): BlockFacts {
  return { id, size: bytes.length, crc: crc32c(bytes) }
}

/** The bytes in pieces of that length, as they come from a network. */
export async function* stream(bytes: Uint8Array, pieceBytes = 65_536): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += pieceBytes) yield bytes.subarray(at, at + pieceBytes)
}

/** A generator of integers below a bound, the same for the same seed. */
export function chooser(seed: number): (below: number) => number {
  let state = seed >>> 0
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below
  }
}

/** A disk over `files`, by a clock that stands still, its blocks counted. */
export async function openDisk(files: BlockFiles, clock: Clock, options: Partial<DiskOptions> = {}): Promise<Disk> {
  const disk = await Disk.open({ files, reserveBytes: 0, now: () => clock.nowMs, ...options })
  await disk.counted
  return disk
}

/** Writes the bytes as that block, with the permit that it takes. */
export function put(disk: Disk, id: BlockId, bytes: Uint8Array, signal?: AbortSignal): Promise<Uint8Array> {
  const facts = factsOf(id, bytes)
  return disk.write(facts, writePermit(disk.identity, facts), stream(bytes), signal)
}

/** The code of the operating error that the promise ends with; undefined where it succeeds. */
export async function codeOf(promise: Promise<unknown>): Promise<string | undefined> {
  try {
    await promise
    return undefined
  } catch (error) {
    if (error instanceof Error && 'code' in error) return String(error.code)
    throw error
  }
}
