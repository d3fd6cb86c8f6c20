import assert from 'node:assert/strict'
import { describe, test } from 'node:test'

import fc from 'fast-check'

import { OperationError } from '#base/errors.ts'
import { TestWorld } from '#cluster/wire/loopback-fixture.ts'

import { DurableMachine } from './durable-machine.ts'
import type { Machine } from './machine.ts'
import { MemoryJournal, type MemoryDisk } from './memory-journal.ts'
import { MemoryState } from './memory-state.ts'
import type { StateBatch, StateReader } from './state.ts'

/** Keeps texts one after the other; refuses "no" by the number of those that there are, and "boom" by a defect. */
class Texts implements Machine<string, number> {
  encode(entry: string): Uint8Array {
    return Buffer.from(entry)
  }

  decode(bytes: Buffer): string {
    return bytes.toString()
  }

  apply(batch: StateBatch, entry: string): number {
    const count = countOf(batch)
    if (entry === 'no') throw new OperationError('NAME_TAKEN', `Cannot keep it after ${count}`)
    if (entry === 'same') return count
    if (entry === 'half') {
      batch.put('half', Buffer.alloc(1))
      throw new OperationError('NAME_TAKEN', 'Cannot')
    }
    batch.put('count', Buffer.from(String(count + 1)))
    batch.put(`t${String(count).padStart(6, '0')}`, Buffer.from(entry))
    return count + 1
  }
}

function countOf(state: StateReader): number {
  return Number(state.get('count')?.toString() ?? 0)
}

function textsOf(state: StateReader): string[] {
  const texts: string[] = []
  state.range('t', 'u', (_, value) => texts.push(value.toString()) > 0)
  return texts
}

/** A disk whose writes are done when the test says. */
class SlowDisk implements MemoryDisk {
  readonly #pending: PromiseWithResolvers<void>[] = []

  get waiting(): number {
    return this.#pending.length
  }

  write(): Promise<void> {
    const pending = Promise.withResolvers<void>()
    this.#pending.push(pending)
    return pending.promise
  }

  done(): void {
    this.#pending.shift()?.resolve()
  }

  fail(): void {
    this.#pending.shift()?.reject(new Error('no room'))
  }
}

interface Setting {
  readonly world: TestWorld
  readonly disk: SlowDisk
  readonly journal: MemoryJournal
  readonly stored: MemoryState
  readonly machine: DurableMachine<string, number>
  readonly failures: OperationError[]
  readonly told: string[]
  readonly submit: (entry: string) => void
  readonly read: () => void
  /** All that can go on without the disk. */
  readonly settle: () => Promise<void>
}

async function open(journal?: MemoryJournal, stored = new MemoryState()): Promise<Setting> {
  const world = new TestWorld()
  const disk = new SlowDisk()
  const used = journal ?? new MemoryJournal(disk)
  const failures: OperationError[] = []
  const told: string[] = []
  const machine = await DurableMachine.open({
    machine: new Texts(),
    journal: used,
    stored,
    clock: world.clock,
    onFailed: (error) => void failures.push(error),
  })
  return {
    world,
    disk,
    journal: used,
    stored,
    machine,
    failures,
    told,
    submit: (entry) =>
      machine.submit(
        entry,
        (count) => void told.push(`${entry} ${count}`),
        (error) => void told.push(`${entry} ${error.message}`),
      ),
    read: () =>
      machine.read(
        countOf,
        (count) => void told.push(`read ${count}`),
        () => assert.fail(),
      ),
    settle: () => world.pass(0),
  }
}

describe('DurableMachine', () => {
  test('[S152] tells nobody of an entry before it is durable, then in order', async () => {
    const { disk, submit, settle, told, journal } = await open()
    submit('a')
    submit('b')
    await settle()
    assert.deepEqual(told, [])
    assert.equal(disk.waiting, 1, 'what comes in one turn is one group')
    submit('c')
    submit('d')
    await settle()
    assert.equal(disk.waiting, 1, 'one group is appended at a time')
    disk.done()
    await settle()
    assert.deepEqual(told, ['a 1', 'b 2'])
    assert.equal(journal.last, 2)
    assert.equal(disk.waiting, 1, 'what came meanwhile is the next one')
    disk.done()
    await settle()
    assert.deepEqual(told, ['a 1', 'b 2', 'c 3', 'd 4'])
  })

  test('[S152] reads, refusals and repetitions wait for what they have seen, and for no more', async () => {
    const { disk, submit, read, settle, told } = await open()
    read()
    submit('no')
    submit('same')
    assert.deepEqual(told.splice(0), ['read 0', 'no Cannot keep it after 0', 'same 0'])
    submit('a')
    read()
    submit('no')
    submit('same')
    await settle()
    submit('b')
    read()
    await settle()
    assert.deepEqual(told, [])
    disk.done()
    await settle()
    assert.deepEqual(told.splice(0), ['a 1', 'read 1', 'no Cannot keep it after 1', 'same 1'])
    disk.done()
    await settle()
    assert.deepEqual(told.splice(0), ['b 2', 'read 2'])
    read()
    assert.deepEqual(told, ['read 2'])
  })

  test('[S152] what saw nothing new of others does not wait for them', async () => {
    const { machine, submit, settle, told } = await open()
    submit('a')
    await settle()
    machine.read(
      (state) => state.get('other'),
      () => void told.push('read'),
      () => assert.fail(),
    )
    assert.deepEqual(told, ['read'])
  })

  test('an entry that is refused or changes nothing is not in the journal', async () => {
    const { disk, journal, submit, settle, machine } = await open()
    for (const entry of ['no', 'same', 'a', 'no', 'same']) submit(entry)
    await settle()
    disk.done()
    await settle()
    assert.deepEqual([journal.last, machine.applied], [1, 1])
  })

  test('a machine that refuses after a change is a defect', async () => {
    const { submit } = await open()
    assert.throws(() => submit('half'), { name: 'AssertionError' })
  })

  test('[S153] stores its state now and then, lets go of the journal, and begins from both', async () => {
    const { world, disk, journal, stored, submit, settle } = await open()
    for (let count = 0; count < 5; count++) submit(`a${count}`)
    await settle()
    disk.done()
    await world.pass(6000)
    assert.equal(stored.applied, 5)
    disk.done()
    await settle()
    assert.equal(journal.first, 6)
    for (let count = 5; count < 8; count++) submit(`a${count}`)
    await settle()
    disk.done()
    await settle()
    const next = await open(journal.crash(false), stored.crash(false))
    assert.deepEqual(textsOf(next.machine.state), ['a0', 'a1', 'a2', 'a3', 'a4', 'a5', 'a6', 'a7'])
    assert.equal(next.machine.applied, 8)
  })

  test('[S152] stores nothing that is not in the journal yet', async () => {
    const { world, disk, stored, submit, settle } = await open()
    submit('a')
    await world.pass(20_000)
    assert.equal(stored.applied, 0)
    disk.done()
    await settle()
    assert.equal(stored.applied, 1)
  })

  test('[S152] stops for good where the journal fails, without an answer to what is open', async () => {
    const { disk, submit, read, settle, told, failures, machine, world } = await open()
    submit('a')
    await settle()
    submit('b')
    read()
    disk.fail()
    await settle()
    assert.deepEqual(
      failures.map(({ code }) => code),
      ['JOURNAL_FAILED'],
    )
    submit('c')
    read()
    await world.wait(machine.close())
    assert.deepEqual(told, [])
    assert.equal(failures.length, 1)
  })

  test('stops for good where its state cannot be stored', async () => {
    const stateDisk = new SlowDisk()
    const stored = new MemoryState(stateDisk)
    const { world, submit, failures, told, settle } = await open(new MemoryJournal(), stored)
    submit('a')
    await settle()
    assert.deepEqual(told, ['a 1'])
    await world.pass(6000)
    stateDisk.fail()
    await settle()
    assert.deepEqual(
      failures.map(({ code }) => code),
      ['JOURNAL_FAILED'],
    )
    submit('b')
    assert.deepEqual(told, ['a 1'])
  })

  test('says when so much is changed that nothing more can be taken until it is stored', async () => {
    const stateDisk = new SlowDisk()
    const { world, machine, settle } = await open(new MemoryJournal(), new MemoryState(stateDisk))
    const large = 'x'.repeat(1024 ** 2)
    const add = async (count: number): Promise<void> => {
      for (let at = 0; at < count; at++) {
        machine.submit(
          large,
          () => undefined,
          () => assert.fail(),
        )
      }
      await settle()
    }
    await add(17)
    assert.equal(stateDisk.waiting, 1, 'beyond 16 MiB they are stored at once')
    await add(60)
    assert.equal(machine.isFull, false)
    await add(10)
    assert.equal(machine.isFull, true)
    stateDisk.done()
    await settle()
    assert.equal(machine.isFull, false)
    const closing = machine.close()
    await settle()
    stateDisk.done()
    await settle()
    stateDisk.done()
    await world.wait(closing)
  })

  test('stores all at its end, and leaves no timer', async () => {
    const stored = new MemoryState()
    const journal = new MemoryJournal()
    const { machine, submit, world } = await open(journal, stored)
    submit('a')
    await world.wait(machine.close())
    assert.equal(stored.applied, 1)
    // Nothing that is due finds a machine that is closed, nor keeps the process from ending.
    await assert.rejects(
      world.until(() => false, 60_000),
      /something is still due/,
    )
  })

  test('does not begin where the journal ends before the state, or has what cannot be applied', async () => {
    const stored = new MemoryState()
    await stored.commit([], 5)
    await assert.rejects(open(new MemoryJournal(), stored), { code: 'JOURNAL_CORRUPT' })
    for (const bad of ['no', 'half']) {
      const journal = new MemoryJournal()
      await journal.append(1, [Buffer.from('a'), Buffer.from(bad)])
      await assert.rejects(open(journal), { code: 'JOURNAL_CORRUPT' })
    }
    const trimmed = new MemoryJournal()
    await trimmed.append(1, [Buffer.from('a')])
    await trimmed.append(2, [Buffer.from('b')])
    await trimmed.trim(1)
    await assert.rejects(open(trimmed), { code: 'JOURNAL_CORRUPT' })
  })

  test('[S152] [S153] a crash at any moment leaves all that was told of, and just a beginning of what was asked', async () => {
    const action = fc.oneof(
      { weight: 6, arbitrary: fc.constant('submit' as const) },
      { weight: 2, arbitrary: fc.constant('read' as const) },
      { weight: 3, arbitrary: fc.constant('journal' as const) },
      { weight: 2, arbitrary: fc.constant('state' as const) },
      { weight: 2, arbitrary: fc.constant('time' as const) },
    )
    const life = fc.record({
      actions: fc.array(action, { maxLength: 40 }),
      isJournalKept: fc.boolean(),
      isStateKept: fc.boolean(),
    })
    await fc.assert(
      fc.asyncProperty(fc.array(life, { minLength: 1, maxLength: 5 }), async (lives) => {
        const [journalDisk, stateDisk] = [new SlowDisk(), new SlowDisk()]
        let [journal, stored] = [new MemoryJournal(journalDisk), new MemoryState(stateDisk)]
        let asked: string[] = []
        let number = 0
        for (const { actions, isJournalKept, isStateKept } of lives) {
          const { machine, world, settle } = await open(journal, stored)
          let told = asked.length
          let isAlive = true
          const tell = (count: number): void => {
            assert.ok(isAlive)
            // Whoever hears of a count can rely on all entries up to it.
            told = Math.max(told, count)
          }
          for (const each of actions) {
            if (each === 'submit') {
              const text = String(number++)
              asked.push(text)
              const place = asked.length
              machine.submit(
                text,
                (count) => {
                  assert.equal(count, place)
                  tell(count)
                },
                () => assert.fail(),
              )
            } else if (each === 'read') machine.read(countOf, tell, () => assert.fail())
            else if (each === 'journal') journalDisk.done()
            else if (each === 'state') stateDisk.done()
            await (each === 'time' ? world.pass(6000) : settle())
          }
          isAlive = false
          // In one order or the other: the two may lie on different disks.
          stored = stored.crash(isStateKept)
          journal = journal.crash(isJournalKept)
          while (journalDisk.waiting > 0) journalDisk.done()
          while (stateDisk.waiting > 0) stateDisk.done()
          const next = await open(journal.crash(false), stored.crash(false))
          const found = textsOf(next.machine.state)
          assert.ok(found.length >= told, `${told} were told of, and ${found.length} are there`)
          assert.deepEqual(found, asked.slice(0, found.length))
          asked = found
          journal = next.journal.crash(false, journalDisk)
          stored = next.stored.crash(false, stateDisk)
        }
      }),
      { seed: 152, numRuns: 150 },
    )
  })
})
