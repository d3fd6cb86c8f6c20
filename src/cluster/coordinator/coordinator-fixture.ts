/**
 * Shards and a coordinator for tests: the machine of all shards in memory, which answers one step at a time, and the coordinator's machine, whose
 * steps wait until the test has them answered.
 */
import assert from 'node:assert/strict'

import { OperationError } from '#base/errors.ts'
import { numberOfKey } from '#cluster/journal/keys.ts'
import { inodeShard, ROOT_INODE, shownInode, type InodeId } from '#cluster/inode-id.ts'
import { MemoryState } from '#cluster/journal/memory-state.ts'
import type { Answer } from '#cluster/journal/sessions.ts'
import type { StateReader } from '#cluster/journal/state.ts'
import { WorkingBatch, WorkingState } from '#cluster/journal/working-state.ts'
import { ownMessages } from '#cluster/shard/own-messages.ts'
import { reads } from '#cluster/shard/reads.ts'
import { nameOfEdge, nameOfPast, readEdge, readPast } from '#cluster/shard/records.ts'
import { ShardMachine } from '#cluster/shard/shard-machine.ts'
import { shardMessages } from '#cluster/shard/shard-messages.ts'
import { decode, encode } from '#cluster/wire/codec.ts'
import { encodeRequest, readHeader, type RequestId } from '#cluster/wire/envelope.ts'
import { ANYTHING } from '#cluster/wire/forms.ts'
import type { AnyMessage, Message } from '#cluster/wire/message.ts'

import { CoordinatorMachine } from './coordinator-machine.ts'
import type { CoordinatorEntry } from './records.ts'
import type { Effects, Step } from './turn.ts'

export const ATTRIBUTES = { mode: 0o755, uid: 1, gid: 2, mtime: undefined, atime: undefined }
const NO_ATTRIBUTES = { ...ATTRIBUTES, mode: 0o644 }

/** What is asked of a shard. */
type Asked = Pick<Step, 'shard' | 'message' | 'request' | 'id'>

/** All 256 shards. */
export class ShardWorld {
  readonly state = new WorkingState(new MemoryState())
  readonly #machine = new ShardMachine()
  #entries = 0
  #timeUs = 1e15
  #sequence = 0

  constructor() {
    this.#write({
      shard: 0,
      message: ownMessages.begin,
      request: { first: 0, last: 255, secret: Buffer.alloc(32, 1) },
      id: this.#newId(),
    })
  }

  /** @throws what says "later" */
  answer(asked: Asked): Answer {
    if (asked.message.does === 'write') return this.#write(asked)
    const read = (reads as Readonly<Record<string, unknown>>)[asked.message.name] as (
      state: StateReader,
      shard: number,
      request: unknown,
    ) => unknown
    try {
      return { body: encode(asked.message.reply, read(this.state, asked.shard, asked.request)) }
    } catch (error) {
      if (!(error instanceof OperationError)) throw error
      return { refusal: error }
    }
  }

  /** As a client asks. @throws OperationError */
  ask<Q, R>(inode: InodeId, message: Message<Q, R>, request: Q): R {
    const answer = this.answer({ shard: inodeShard(inode), message, request, id: this.#newId() })
    if ('refusal' in answer) throw answer.refusal
    return decode(message.reply, answer.body)
  }

  makeFile(directory: InodeId, name: string): { readonly inode: InodeId; readonly created: number } {
    return this.ask(directory, shardMessages.create, {
      directory,
      name,
      guard: ANYTHING,
      type: 'file',
      attributes: NO_ATTRIBUTES,
      size: 0,
      crc: 0,
      bytes: Buffer.alloc(0),
      xattrs: [],
    })
  }

  /** A file whose edge in the history of a directory owns it, and lies on another shard. */
  makeOwned(directory: InodeId, name: string): { readonly inode: InodeId; readonly created: number } {
    const shard = (inodeShard(directory) + 1) % 256
    const id = this.#newId()
    const request = { type: 'file', attributes: NO_ATTRIBUTES, note: '' } as const
    const answer = this.answer({ shard, message: shardMessages.construct, request, id })
    assert.ok('body' in answer)
    const { file } = decode(shardMessages.construct.reply, answer.body)
    const { created } = this.ask(directory, shardMessages.createEdge, {
      directory,
      name,
      target: file,
      guard: ANYTHING,
    })
    this.ask(directory, shardMessages.unlink, { directory, name, inode: file, created })
    return { inode: file, created }
  }

  edge(directory: InodeId, name: string): { readonly inode: InodeId; readonly created: number } {
    return this.ask(directory, shardMessages.lookup, { directory, name })
  }

  /** Every current edge as `/a/b`, with its state where that is another; then directories that no edge leads to, where it is the whole tree. */
  tree(top = ROOT_INODE): string[] {
    const edges = new Map<number, { name: string; inode: InodeId; state: string }[]>()
    this.state.range('e', 'f', (key, value) => {
      const directory = numberOfKey(key, 1)
      const { inode, state } = readEdge(value)
      edges.set(directory, [...(edges.get(directory) ?? []), { name: nameOfEdge(key), inode, state }])
      return true
    })
    const found: string[] = []
    const walk = (directory: InodeId, above: string): void => {
      const names = edges.get(directory) ?? []
      edges.delete(directory)
      for (const { name, inode, state } of names) {
        const path = `${above}/${name}`
        found.push(state === 'current' ? path : `${path} ${state}`)
        walk(inode, path)
      }
    }
    walk(top, '')
    if (top !== ROOT_INODE) return found
    for (const directory of edges.keys()) found.push(`lost ${shownInode(directory as InodeId)}`)
    return found
  }

  /** What owns each file, by current edges and by those of the history. */
  owners(): Map<InodeId, number> {
    const owners = new Map<InodeId, number>()
    const count = (inode: InodeId): void => void owners.set(inode, (owners.get(inode) ?? 0) + 1)
    this.state.range('e', 'f', (_, value) => {
      count(readEdge(value).inode)
      return true
    })
    this.state.range('h', 'i', (key, value) => {
      const { inode, state } = readPast(key, value)
      if (state === 'owned') count(inode)
      return true
    })
    return owners
  }

  /** `name state` of the history of a directory, the oldest first. */
  past(directory: InodeId): string[] {
    const found: string[] = []
    this.state.range('h', 'i', (key, value) => {
      const of = numberOfKey(key, 1)
      if (of === directory) found.push(`${nameOfPast(key)} ${readPast(key, value).state}`)
      return true
    })
    return found
  }

  #newId(): RequestId {
    return { client: 7, slot: 0, sequence: ++this.#sequence }
  }

  #write({ shard, message, request, id }: Asked): Answer {
    const facts = { ...id, kind: message.kind, shard, isInternal: true }
    const frame = encodeRequest(facts, message.request, request)
    const batch = new WorkingBatch(this.state, ++this.#entries)
    const entry = { timeUs: ++this.#timeUs, chosen: [], header: readHeader(frame), frame }
    return this.#machine.apply(batch, entry)
  }
}

/** All that a state has, for comparisons. */
export function contentOf(state: StateReader): [string, string][] {
  const found: [string, string][] = []
  state.range('\0', '\xff', (key, value) => {
    found.push([Buffer.from(key, 'latin1').toString('hex'), value.toString('hex')])
    return true
  })
  return found
}

/** Kinds of records that are there only while there are transactions. */
export function openRecords(state: StateReader): string[] {
  return contentOf(state)
    .map(([key]) => String.fromCharCode(Number.parseInt(key.slice(0, 2), 16)))
    .filter((kind) => 'trqn'.includes(kind))
}

export const CLIENT = 42

/** A client asks for that, in a slot of its own where it names none. */
export interface Request {
  readonly message: AnyMessage
  readonly request: unknown
}

export class CoordinatorBench {
  readonly world = new ShardWorld()
  readonly state = new WorkingState(new MemoryState())
  readonly entries: Uint8Array[] = []
  /** Steps that have no answer yet. */
  readonly steps: Step[] = []
  readonly answers = new Map<string, Answer>()
  readonly surprises: string[] = []
  readonly #machine: CoordinatorMachine
  #slot = 0
  #timeUs = 5e14

  constructor(machine = new CoordinatorMachine()) {
    this.#machine = machine
    this.apply({ kind: 'begin', client: 99 })
  }

  /** As `DurableMachine` does. */
  apply(entry: CoordinatorEntry): Effects {
    const batch = new WorkingBatch(this.state, this.entries.length + 1)
    let effects: Effects
    try {
      effects = this.#machine.apply(batch, entry)
    } catch (error) {
      assert.equal(batch.isChanged, false, 'what refuses an entry changes nothing')
      throw error
    }
    if (batch.isChanged) this.entries.push(this.#machine.encode(entry))
    this.steps.push(...effects.steps)
    for (const { id, answer } of effects.answers) this.answers.set(keyOf(id), answer)
    this.surprises.push(...effects.surprises.map(({ step, why }) => `${step} ${why.code}`))
    return effects
  }

  newId(): RequestId {
    return { client: CLIENT, slot: this.#slot++, sequence: 1 }
  }

  /** @throws OperationError what refuses it at once */
  submit<Q, R>(message: Message<Q, R>, request: Q, id = this.newId()): RequestId {
    const body = encode(message.request, request)
    this.apply({ kind: 'request', ...id, timeUs: ++this.#timeUs, asks: message.kind, body })
    return id
  }

  /** What a shard answers to a step is taken to the machine. */
  give(step: Step, answer: Answer): Effects {
    const { transaction, id } = step
    const head = { transaction, slot: id.slot, sequence: id.sequence, timeUs: ++this.#timeUs }
    if ('body' in answer) return this.apply({ kind: 'answered', ...head, reply: answer.body })
    return this.apply({ kind: 'refused', ...head, why: answer.refusal })
  }

  /** Takes the step that waits longest, or that one. */
  take(index = 0): Step {
    const [step] = this.steps.splice(index, 1)
    assert.ok(step, 'a step waits')
    return step
  }

  /** Has all steps answered until there are none. @return their names */
  drain(): string[] {
    const names: string[] = []
    while (this.steps.length > 0) {
      const step = this.take()
      names.push(step.message.name)
      this.give(step, this.world.answer(step))
    }
    return names
  }

  /** @throws OperationError what it was refused by */
  reply<Q, R>(message: Message<Q, R>, id: RequestId): R {
    const answer = this.answers.get(keyOf(id))
    assert.ok(answer, 'the request has an answer')
    if ('refusal' in answer) throw answer.refusal
    return decode(message.reply, answer.body)
  }

  /** From the request to its reply. @throws OperationError */
  run<Q, R>(message: Message<Q, R>, request: Q): R {
    const id = this.submit(message, request)
    this.drain()
    return this.reply(message, id)
  }

  /** The state that the entries of the journal make anew. */
  replayed(): WorkingState {
    const state = new WorkingState(new MemoryState())
    const machine = new CoordinatorMachine()
    for (const [index, bytes] of this.entries.entries()) {
      machine.apply(new WorkingBatch(state, index + 1), machine.decode(Buffer.from(bytes)))
    }
    return state
  }
}

export function keyOf({ client, slot, sequence }: RequestId): string {
  return `${client}:${slot}:${sequence}`
}
