import assert from 'node:assert/strict'
import { suite, test } from 'node:test'

import fc from 'fast-check'

import { isOperationError } from '#base/errors.ts'
import { inodeType, makeInodeId, ROOT_INODE, type InodeId } from '#cluster/inode-id.ts'
import type { Answer } from '#cluster/journal/sessions.ts'
import { findDirectory } from '#cluster/shard/records.ts'
import { shardMessages } from '#cluster/shard/shard-messages.ts'
import { decode } from '#cluster/wire/codec.ts'
import type { RequestId } from '#cluster/wire/envelope.ts'
import { ANYTHING, NOTHING } from '#cluster/wire/forms.ts'

import { ATTRIBUTES, contentOf, CoordinatorBench, openRecords, type Request } from './coordinator-fixture.ts'
import { CoordinatorMachine, openTransactions } from './coordinator-machine.ts'
import { coordinatorMessages } from './coordinator-messages.ts'
import { findCourse } from './courses.ts'
import { findTransaction, type Step } from './turn.ts'

const NAMES = ['x', 'y', 'z']
const DEEP = 4

const command = fc.record({
  what: fc.constantFrom('ask', 'ask', 'step', 'step', 'step', 'step', 'late', 'copy', 'again', 'file', 'unlink'),
  kind: fc.nat(5),
  from: fc.nat(12),
  to: fc.nat(12),
  name: fc.nat(NAMES.length - 1),
  toName: fc.nat(NAMES.length - 1),
  which: fc.nat(7),
})
type Command = typeof command extends fc.Arbitrary<infer T> ? T : never

/** Requests and answers in any order, some of them late, twice or again; and clients that use the shards meanwhile. */
class Disorder {
  readonly bench: CoordinatorBench
  readonly #directories: InodeId[] = [ROOT_INODE]
  readonly #asked: { request: Request; id: RequestId }[] = []
  readonly #given: { step: Step; answer: Answer }[] = []
  /** By queue: the last transaction that has asked a step. */
  readonly #turns = new Map<number, number>()

  constructor(machine: CoordinatorMachine) {
    this.bench = new CoordinatorBench(machine)
    let owner: InodeId = ROOT_INODE
    for (let index = 0; index < DEEP; index++) {
      owner = this.bench.run(coordinatorMessages.makeDirectory, { owner, name: 'x', attributes: ATTRIBUTES }).inode
      this.#directories.push(owner)
    }
  }

  run(commands: readonly Command[]): void {
    for (const each of commands) this.#do(each)
    while (this.bench.steps.length > 0) this.#step(0)
    this.#check()
  }

  #do(given: Command): void {
    const { what, which } = given
    const { bench } = this
    if (what === 'ask') return this.#ask(this.#request(given))
    if (what === 'step') return this.#step(which)
    if (what === 'file')
      return this.#asClient(() => bench.world.makeFile(this.#directory(given.from), nameOf(given.name)))
    if (what === 'unlink') return this.#asClient(() => this.#unlink(given))
    if (what === 'again') {
      const { request, id } = pick(this.#asked, which) ?? {}
      if (request !== undefined && id !== undefined) this.#ask(request, id)
      return
    }
    const old = pick(this.#given, which)
    if (old === undefined) return
    if (what === 'late') bench.give(old.step, old.answer)
    // A late copy of the step itself: the shard does nothing, and its answer comes as well.
    else this.#asClient(() => bench.give(old.step, bench.world.answer(old.step)))
  }

  #directory(index: number): InodeId {
    return pick(this.#directories, index) ?? ROOT_INODE
  }

  #edge(directory: InodeId, name: string): { inode: InodeId; created: number } {
    try {
      return this.bench.world.edge(directory, name)
    } catch {
      return { inode: this.#directory(directory), created: 1 }
    }
  }

  #request({ kind, from, to, name, toName, which }: Command): Request {
    const owner = this.#directory(from)
    const edge = this.#edge(owner, nameOf(name))
    const move = {
      inode: edge.inode,
      from: owner,
      fromName: nameOf(name),
      created: edge.created,
      to: this.#directory(to),
      toName: nameOf(toName),
      guard: which % 2 === 0 ? ANYTHING : NOTHING,
    }
    const removal = { owner, name: nameOf(name), directory: edge.inode, created: edge.created }
    switch (kind) {
      case 0:
      case 1:
      case 2: {
        const { moveFile, moveDirectory } = coordinatorMessages
        return { message: inodeType(edge.inode) === 'file' ? moveFile : moveDirectory, request: move }
      }
      case 3:
        return { message: coordinatorMessages.removeDirectory, request: removal }
      case 4:
        return {
          message: coordinatorMessages.hardUnlinkDirectory,
          request: { directory: which === 0 ? makeInodeId('directory', 1, 999) : this.#directory(to) },
        }
      default:
        return {
          message: coordinatorMessages.makeDirectory,
          request: { owner, name: nameOf(toName), attributes: ATTRIBUTES },
        }
    }
  }

  #ask(request: Request, id = this.bench.newId()): void {
    try {
      this.bench.submit(request.message, request.request, id)
      this.#asked.push({ request, id })
    } catch (error) {
      if (!isOperationError(error)) throw error
    }
    this.#noteTurns()
  }

  #step(which: number): void {
    const { bench } = this
    if (bench.steps.length === 0) return
    const step = bench.take(which % bench.steps.length)
    // Throws where somebody else's lock is in the way: queues leave none there.
    const answer = bench.world.answer(step)
    this.#given.push({ step, answer })
    for (const { id, answer: given } of bench.give(step, answer).answers) this.#learn(id, given)
    this.#noteTurns()
  }

  /** A client knows of a directory once its making is answered. */
  #learn(id: RequestId, answer: Answer): void {
    const asked = this.#asked.find((each) => each.id.slot === id.slot)
    if (asked?.request.message !== coordinatorMessages.makeDirectory || !('body' in answer)) return
    this.#directories.push(decode(coordinatorMessages.makeDirectory.reply, answer.body).inode)
  }

  #unlink({ from, name }: Command): void {
    const directory = this.#directory(from)
    const { inode, created } = this.bench.world.edge(directory, nameOf(name))
    this.bench.world.ask(directory, shardMessages.unlink, { directory, name: nameOf(name), inode, created })
  }

  #asClient(action: () => void): void {
    try {
      action()
    } catch (error) {
      if (!isOperationError(error)) throw error
    }
  }

  /** Nobody asks a step after a later one has asked one in the same queue. */
  #noteTurns(): void {
    for (const { transaction } of this.bench.steps) {
      const found = findTransaction(this.bench.state, transaction)
      if (found === undefined) continue
      for (const queue of findCourse(found.record.asks)?.queues(found.request) ?? []) {
        assert.ok(
          (this.#turns.get(queue) ?? 0) <= transaction,
          'transactions have their turn in the order of their queue',
        )
        this.#turns.set(queue, transaction)
      }
    }
  }

  #check(): void {
    const { bench } = this
    assert.deepEqual(openRecords(bench.state), [])
    assert.equal(openTransactions(bench.state), 0)
    assert.deepEqual(bench.surprises, [])
    for (const { id } of this.#asked) assert.ok(bench.answers.has(`${id.client}:${id.slot}:${id.sequence}`))
    for (const line of bench.world.tree()) assert.ok(!line.includes(' '), `all is as it should be: ${line}`)
    for (const [inode, count] of bench.world.owners()) assert.equal(count, 1, `inode ${inode} has one owner`)
    this.#checkParents()
    assert.deepEqual(contentOf(bench.replayed()), contentOf(bench.state))
  }

  /** Shards and coordinator agree where directories lie, and so do the names that lead to them. */
  #checkParents(): void {
    const { world, state } = this.bench
    const owners = new Map<number, number>()
    for (const directory of this.#directories) {
      const owner = findDirectory(world.state, directory)?.owner ?? 0
      if (owner !== 0) owners.set(directory, owner)
    }
    const parents = contentOf(state).filter(([key]) => key.startsWith(Buffer.from('d').toString('hex')))
    assert.equal(parents.length, owners.size)
    const edges = new Map<number, number>()
    for (const directory of [ROOT_INODE, ...owners.keys()]) {
      const page = { directory: directory as InodeId, after: '', limit: 100, withStatus: false }
      const { entries } = world.ask(page.directory, shardMessages.list, page)
      for (const { inode } of entries) if (this.#directories.includes(inode)) edges.set(inode, directory)
    }
    assert.deepEqual(new Map([...edges].sort(byKey)), new Map([...owners].sort(byKey)))
  }
}

function byKey([a]: [number, number], [b]: [number, number]): number {
  return a - b
}

function nameOf(index: number): string {
  return NAMES[index] ?? 'x'
}

function pick<T>(items: readonly T[], index: number): T | undefined {
  return items[index % items.length]
}

/** Takes any answer for that to the step under way. */
class Careless extends CoordinatorMachine {
  override isOutstanding(): boolean {
    return true
  }
}

function disorder(machine: () => CoordinatorMachine): fc.IProperty<[Command[]]> {
  return fc.property(fc.array(command, { minLength: 20, maxLength: 250, size: 'max' }), (commands) => {
    new Disorder(machine()).run(commands)
  })
}

suite('any order of requests and answers', () => {
  test('leaves no lock, no transaction and one owner of each file', () => {
    fc.assert(
      disorder(() => new CoordinatorMachine()),
      { seed: 20_261_121, numRuns: 200 },
    )
  })

  test('does not, where an answer that was doubled ends a lock', () => {
    const { failed } = fc.check(
      disorder(() => new Careless()),
      { seed: 1, numRuns: 100 },
    )
    assert.ok(failed)
  })
})
