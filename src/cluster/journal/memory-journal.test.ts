import assert from 'node:assert/strict'
import { describe, it } from 'node:test'

import { MemoryJournal, PROMPT_DISK } from './memory-journal.ts'
import { MemoryState } from './memory-state.ts'
import type { Journal } from './journal.ts'
import type { StoredState } from './state.ts'

/** Writes that end when a test says so. */
class HeldDisk {
  readonly bytes: number[] = []
  readonly #held: { resolve: () => void; reject: (error: Error) => void }[] = []

  write(bytes: number): Promise<void> {
    this.bytes.push(bytes)
    return new Promise((resolve, reject) => this.#held.push({ resolve, reject }))
  }

  release(): void {
    this.#held.shift()?.resolve()
  }

  fail(): void {
    this.#held.shift()?.reject(new Error('no room'))
  }
}

async function entriesOf(journal: Journal, from = journal.first): Promise<string[]> {
  const found: string[] = []
  await journal.read(from, (number, entry) => found.push(`${number}:${entry.toString()}`))
  return found
}

function keysOf(state: StoredState): string[] {
  const keys: string[] = []
  state.range('', '\xff', (key, value) => keys.push(`${key}=${value.toString()}`) > 0)
  return keys
}

const group = (...entries: string[]): Buffer[] => entries.map((entry) => Buffer.from(entry))

describe('MemoryJournal', () => {
  it('has a group once the disk has it, and lets whole groups go', async () => {
    const disk = new HeldDisk()
    const journal = new MemoryJournal(disk)
    assert.deepEqual([journal.first, journal.last], [1, 0])
    const appended = journal.append(1, group('a', 'b'))
    assert.deepEqual([journal.last, await entriesOf(journal)], [0, []])
    disk.release()
    await appended
    const more = journal.append(3, group('c'))
    disk.release()
    await more
    assert.deepEqual(await entriesOf(journal, 2), ['2:b', '3:c'])
    assert.deepEqual(disk.bytes, [2, 1])
    const half = journal.trim(1)
    disk.release()
    await half
    assert.equal(journal.first, 1)
    const trimmed = journal.trim(2)
    disk.release()
    await trimmed
    assert.deepEqual([journal.first, await entriesOf(journal)], [3, ['3:c']])
    await assert.rejects(entriesOf(journal, 2), { code: 'JOURNAL_CORRUPT' })
  })

  it('keeps or loses at a crash what was not acknowledged, whole, and nothing else', async () => {
    for (const keep of [true, false]) {
      const disk = new HeldDisk()
      const journal = new MemoryJournal(disk)
      const appended = journal.append(1, group('a', 'b'))
      disk.release()
      await appended
      const trimming = assert.rejects(journal.trim(2), { code: 'JOURNAL_FENCED' })
      const lost = assert.rejects(journal.append(3, group('c', 'd')), { code: 'JOURNAL_FENCED' })
      const next = journal.crash(keep, PROMPT_DISK)
      assert.deepEqual(await entriesOf(next), keep ? ['3:c', '4:d'] : ['1:a', '2:b'])
      disk.release()
      disk.release()
      await trimming
      await lost
      await assert.rejects(journal.append(3, group('e')), { code: 'JOURNAL_FENCED' })
      await next.append(next.last + 1, group('f'))
      assert.equal((await entriesOf(next)).at(-1), keep ? '5:f' : '3:f')
      const empty = new MemoryJournal()
      assert.deepEqual([empty.crash(keep).first, empty.crash(keep).last], [1, 0])
    }
  })

  it('goes on after the last entry though all of them were let go of', async () => {
    const journal = new MemoryJournal()
    await journal.append(1, group('a', 'b'))
    await journal.trim(2)
    const next = journal.crash(false)
    assert.deepEqual([next.first, next.last], [3, 2])
  })

  it('fails for good once a write has failed', async () => {
    const disk = new HeldDisk()
    const journal = new MemoryJournal(disk)
    const appended = assert.rejects(journal.append(1, group('a')), { code: 'JOURNAL_FAILED' })
    disk.fail()
    await appended
    await assert.rejects(journal.append(1, group('a')), { code: 'JOURNAL_FAILED' })
    assert.deepEqual(await entriesOf(journal.crash(true)), ['1:a'])
  })
})

describe('MemoryState', () => {
  it('has a commit whole once the disk has it, with its number', async () => {
    const disk = new HeldDisk()
    const state = new MemoryState(disk)
    const committed = state.commit(
      [
        ['b', Buffer.from('1')],
        ['a', Buffer.from('2')],
      ],
      7,
    )
    assert.deepEqual([state.applied, keysOf(state)], [0, []])
    disk.release()
    await committed
    assert.deepEqual([state.applied, keysOf(state)], [7, ['a=2', 'b=1']])
    const removed = state.commit([['a', null]], 9)
    disk.release()
    await removed
    assert.deepEqual([state.get('a'), state.get('b')?.toString(), state.applied], [undefined, '1', 9])
  })

  it('keeps or loses at a crash the commit that was not acknowledged, whole', async () => {
    for (const keep of [true, false]) {
      const disk = new HeldDisk()
      const state = new MemoryState(disk)
      const lost = assert.rejects(state.commit([['a', Buffer.from('1')]], 3), { code: 'JOURNAL_FENCED' })
      const next = state.crash(keep)
      assert.deepEqual([next.applied, keysOf(next)], keep ? [3, ['a=1']] : [0, []])
      disk.release()
      await lost
      await assert.rejects(state.commit([], 4), { code: 'JOURNAL_FENCED' })
    }
  })

  it('is as it was after a commit that failed, and takes the next', async () => {
    const disk = new HeldDisk()
    const state = new MemoryState(disk)
    const failed = assert.rejects(state.commit([['a', Buffer.from('1')]], 3), { code: 'JOURNAL_FAILED' })
    disk.fail()
    await failed
    const committed = state.commit([['b', Buffer.from('2')]], 4)
    disk.release()
    await committed
    assert.deepEqual([state.applied, keysOf(state)], [4, ['b=2']])
  })
})
