/**
 * The disk of a simulated machine: its journals, states and directories of blocks, which outlast its processes. Each write takes its
 * time, more of it in slow spells; a disk may be full. When the process dies, what was not acknowledged is kept or lost; when the power
 * goes, files of blocks lose what was not synced (`MemoryBlockFiles`).
 */
import { assert } from '#base/assert.ts'
import { MemoryBlockFiles, systemError } from '#cluster/block/memory-block-files.ts'
import type { MemoryDisk } from '#cluster/journal/memory-journal.ts'
import { MemoryJournal } from '#cluster/journal/memory-journal.ts'
import { MemoryState } from '#cluster/journal/memory-state.ts'

import { KeptJournal } from './kept-journal.ts'
import type { Life } from './event-queue.ts'
import type { Random } from './random.ts'
import type { Timeline } from './timeline.ts'

export interface DiskFaults {
  /** How likely it is for a step that it is slow, by up to `SLOW_US_MAX`. */
  slow: number
  isFull: boolean
  /** How likely it is for a step that it fails with EIO. */
  errors: number
}

/** A write and a sync, or a read, of a good drive with a cache that survives the power; each drive is up to so many times slower. */
const STEP_US_MIN = 20
const STEP_US_MAX = 150
const SLOWNESS_MAX = 100
const BYTES_A_US = 1000
const SLOW_US_MAX = 3_000_000
const BLOCK_BYTES_TOTAL = 1 << 30

export class MachineDisk {
  readonly faults: DiskFaults = { slow: 0, isFull: false, errors: 0 }
  /** Called when a step begins, with its number since the beginning of the world, from 1 on: to end the process just there. */
  onStep: ((number: number) => void) | undefined
  /** Of each directory of blocks: the files that rot has come to. */
  readonly rotten = new Map<string, Set<string>>()
  readonly #name: string
  readonly #timeline: Timeline
  readonly #random: Random
  readonly #slowness: number
  readonly #journals = new Map<string, MemoryJournal>()
  /** Of each journal: the entries from the first one on, as far as they are known. */
  readonly #histories = new Map<string, Buffer[]>()
  readonly #states = new Map<string, MemoryState>()
  readonly #blocks = new Map<string, MemoryBlockFiles>()
  #life: Life | undefined
  #stepCount = 0

  constructor(name: string, timeline: Timeline, random: Random) {
    this.#name = name
    this.#timeline = timeline
    this.#random = random
    this.#slowness = SLOWNESS_MAX ** random.fraction()
  }

  /** A process begins to use what is here. */
  begin(life: Life): void {
    assert(this.#life?.alive !== true, 'a disk has one process at a time')
    this.#life = life
    const disk = this.#diskOf(life)
    for (const [name, journal] of this.#journals) {
      this.#journals.set(name, journal.crash(this.#random.happens(0.5), disk))
    }
    for (const [name, state] of this.#states) this.#states.set(name, state.crash(this.#random.happens(0.5), disk))
  }

  journal(name: string): KeptJournal {
    let journal = this.#journals.get(name)
    if (journal === undefined) this.#journals.set(name, (journal = new MemoryJournal(this.#diskOf(this.#user()))))
    let history = this.#histories.get(name)
    if (history === undefined) this.#histories.set(name, (history = []))
    return new KeptJournal(journal, history)
  }

  state(name: string): MemoryState {
    let state = this.#states.get(name)
    if (state === undefined) this.#states.set(name, (state = new MemoryState(this.#diskOf(this.#user()))))
    return state
  }

  blocks(name: string, totalBytes = BLOCK_BYTES_TOTAL): MemoryBlockFiles {
    let files = this.#blocks.get(name)
    if (files === undefined) {
      files = new MemoryBlockFiles(totalBytes)
      files.before = ({ call, path }) => {
        const life = this.#user()
        if ((call === 'append' || call === 'makeDirectory') && this.faults.isFull) throw systemError('write', 'ENOSPC')
        this.#timeline.note(this.#name, call, path)
        return this.#wait(life, 0)
      }
      this.#blocks.set(name, files)
    }
    return files
  }

  /** The power is gone: what was not synced is lost, in part or whole. */
  losePower(): void {
    for (const files of this.#blocks.values()) files.crash((below) => this.#random.below(below))
  }

  /** Something becomes of the bytes of a block: a bit flips, its end or all of it is lost. False where there is none. */
  rot(): boolean {
    const all = [...this.#blocks].flatMap(([name, files]) =>
      files
        .paths()
        .flatMap((path) => (/^[^/]+\/[^/]+$/.test(path) && !path.startsWith('tmp/') ? [{ name, files, path }] : [])),
    )
    if (all.length === 0) return false
    const { name, files, path } = this.#random.pick(all)
    this.rotten.set(name, (this.rotten.get(name) ?? new Set()).add(path))
    const bytes = files.bytesOf(path)
    if (bytes === undefined || bytes.length === 0) return false
    if (this.#random.happens(0.7)) {
      const at = this.#random.below(bytes.length)
      bytes[at] = (bytes[at] ?? 0) ^ (1 << this.#random.below(8))
      this.#timeline.note(this.#name, 'flips a bit of', path)
    } else {
      const length = this.#random.below(bytes.length)
      files.place(path, bytes.subarray(0, length))
      this.#timeline.note(this.#name, `is left with ${length} bytes of`, path)
    }
    return true
  }

  #user(): Life {
    assert(this.#life !== undefined, 'a process uses the disk')
    return this.#life
  }

  #diskOf(life: Life): MemoryDisk {
    return {
      write: async (bytes) => {
        await this.#wait(life, bytes)
        // Letting go of entries needs no room.
        if (this.faults.isFull && bytes > 0) throw systemError('write', 'ENOSPC')
        this.#timeline.note(this.#name, 'has written', bytes)
      },
    }
  }

  /** Never ends for a process that has died: what it asked for does not happen. */
  async #wait(life: Life, bytes: number): Promise<void> {
    this.onStep?.(++this.#stepCount)
    const random = this.#random
    let us = Math.ceil(random.between(STEP_US_MIN, STEP_US_MAX) * this.#slowness + bytes / BYTES_A_US)
    if (random.happens(this.faults.slow)) us += random.below(SLOW_US_MAX)
    await this.#timeline.delay(us, life)
    if (random.happens(this.faults.errors)) throw systemError('fsync', 'EIO')
  }
}
