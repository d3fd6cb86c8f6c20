/**
 * What a watcher has to tell and nobody has taken yet: in order, repeated tellings merged, the first half of a rename holding
 * back what comes after it until its second half is there. Says itself where a directory's move could hide what was
 * told under its old name just before.
 */
import { isWithin, parentOf } from '#store/path.ts'
import type { Change } from './watcher.ts'

/** More is not read from the kernel until some is taken; its queue overflows then, which is told. */
const CHANGES_MAX = 100_000
/** For so long what was told may have been looked at under a name that was the old one already. */
const RECENT_MS = 5_000

/** The place of a move whose second half has not come. */
export interface Held {
  readonly kind: 'held'
}

export class Outbox {
  #slots: (Change | Held | undefined)[] = []
  /** Where each path that was written is told, for as long as nothing else was told of it. */
  readonly #written = new Map<string, number>()
  #heldCount = 0
  /** Directories under which something was told, of this period and of the one before. */
  #recent = new Set<string>()
  #before = new Set<string>()
  #rotatedAt = Date.now()
  #wake: (() => void) | undefined
  #ended = false
  #error: Error | undefined
  #taken: () => void = () => undefined
  told = 0

  get isFull(): boolean {
    return this.#slots.length >= CHANGES_MAX
  }

  /** Called when a batch was taken. */
  onTaken(taken: () => void): void {
    this.#taken = taken
  }

  written(path: string, isOpen: boolean): void {
    const index = this.#written.get(path)
    if (index !== undefined) {
      const told = this.#slots[index]
      if (told?.kind === 'written' && told.isOpen !== isOpen) this.#slots[index] = { kind: 'written', path, isOpen }
      return
    }
    this.#recent.add(parentOf(path))
    this.#written.set(path, this.#slots.push({ kind: 'written', path, isOpen }) - 1)
    this.#tell()
  }

  gone(path: string, isDirectory: boolean): void {
    this.#forget(path, isDirectory)
    this.#recent.add(parentOf(path))
    this.#push({ kind: 'gone', path })
  }

  subtree(path: string): void {
    this.#recent.add(path)
    this.#written.delete(path)
    this.#push({ kind: 'subtree', path })
  }

  moved(from: string, to: string, isDirectory: boolean): void {
    this.#forget(from, isDirectory)
    this.#forget(to, isDirectory)
    this.#recent.add(parentOf(from)).add(parentOf(to))
    this.#push({ kind: 'moved', from, to, isDirectory })
    if (isDirectory && this.#wasToldUnder(from)) this.subtree(to)
  }

  other(change: Change & { kind: 'lost' | 'root-gone' | 'skipped' }): void {
    if (change.kind === 'lost') this.#written.clear()
    this.#push(change)
  }

  /** Keeps the place of a move; until it is resolved or released, nothing after it is told. */
  hold(from: string, isDirectory: boolean): Held {
    this.#forget(from, isDirectory)
    const held: Held = { kind: 'held' }
    this.#slots.push(held)
    this.#heldCount++
    return held
  }

  /** The move, in the place that was kept for it. */
  resolve(held: Held, change: Change & { kind: 'moved' }): void {
    // What was told of either name meanwhile stays behind it, and later tellings are not merged into those.
    this.#forget(change.to, change.isDirectory)
    this.#forget(change.from, change.isDirectory)
    this.#recent.add(parentOf(change.from)).add(parentOf(change.to))
    const hides = change.isDirectory && this.#wasToldUnder(change.from)
    this.#replace(held, change)
    if (hides) this.subtree(change.to)
  }

  /** The second half has not come: gone from there. Or `undefined`, where more than that was lost. */
  release(held: Held, change: (Change & { kind: 'gone' }) | undefined): void {
    this.#replace(held, change)
  }

  #replace(held: Held, change: Change | undefined): void {
    const index = this.#slots.indexOf(held)
    if (index === -1) return
    this.#slots[index] = change
    this.#heldCount--
    this.#tell()
  }

  end(): void {
    this.#ended = true
    this.#wake?.()
  }

  fail(error: unknown): void {
    this.#error ??= error instanceof Error ? error : new Error(String(error))
    this.end()
  }

  /** Batches, until the end or the signal; what is there at the end is given first. */
  async *batches(signal?: AbortSignal): AsyncGenerator<readonly Change[]> {
    const onAbort = (): void => this.#wake?.()
    signal?.addEventListener('abort', onAbort)
    try {
      while (signal?.aborted !== true) {
        const batch = this.#take()
        if (batch.length > 0) {
          this.told += batch.length
          this.#taken()
          yield batch
          continue
        }
        if (this.#error !== undefined) throw this.#error
        if (this.#ended) return
        await new Promise<void>((resolve) => (this.#wake = resolve))
        this.#wake = undefined
      }
    } finally {
      signal?.removeEventListener('abort', onAbort)
    }
  }

  #take(): Change[] {
    this.#rotate()
    const slots = this.#slots
    let count = slots.length
    if (this.#heldCount > 0 && !this.#ended) count = slots.findIndex((slot) => slot?.kind === 'held')
    if (count === 0) return []
    const rest = count === slots.length ? [] : slots.slice(count)
    this.#slots = rest
    this.#written.clear()
    for (const [index, slot] of rest.entries()) if (slot?.kind === 'written') this.#written.set(slot.path, index)
    slots.length = count
    return slots.filter((slot): slot is Change => slot !== undefined && slot.kind !== 'held')
  }

  #push(change: Change): void {
    this.#slots.push(change)
    this.#tell()
  }

  #tell(): void {
    this.#wake?.()
  }

  /** What is written from here on under that name is another thing than before. */
  #forget(path: string, isDirectory: boolean): void {
    if (isDirectory) this.#written.clear()
    else this.#written.delete(path)
  }

  #wasToldUnder(directory: string): boolean {
    for (const path of this.#recent) if (isWithin(path, directory)) return true
    for (const path of this.#before) if (isWithin(path, directory)) return true
    return false
  }

  #rotate(): void {
    if (Date.now() - this.#rotatedAt < RECENT_MS) return
    this.#before = this.#recent
    this.#recent = new Set()
    this.#rotatedAt = Date.now()
  }
}
