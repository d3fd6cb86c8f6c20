/**
 * The coordinator process: takes requests of clients to its machine, asks shards what the machine says, under ids that outlast the process, until they
 * answer, and takes their answers to the machine. Nothing is asked or answered before what it rests on is durable; so a start finds
 * every step that may have been asked, and asks it again.
 */
import { OperationError, type ErrorCode } from '#base/errors.ts'
import { logger } from '#base/log.ts'
import { DurableMachine } from '#cluster/journal/durable-machine.ts'
import type { Journal } from '#cluster/journal/journal.ts'
import { SESSION_US } from '#cluster/journal/sessions.ts'
import type { Key, StateReader, StoredState } from '#cluster/journal/state.ts'
import type { Cancel, Link, LinkHandler, Surroundings } from '#cluster/surroundings.ts'
import { type Caller, randomClient, type Target } from '#cluster/wire/caller.ts'
import { encode } from '#cluster/wire/codec.ts'
import { bodyOf, type RequestId } from '#cluster/wire/envelope.ts'
import { Responder, type Incoming } from '#cluster/wire/responder.ts'

import { CoordinatorMachine, openTransactions, outstandingSteps, ownClient } from './coordinator-machine.ts'
import { COORDINATOR_MESSAGES } from './coordinator-messages.ts'
import type { CoordinatorEntry } from './records.ts'
import type { Answered, Effects, Step } from './turn.ts'

const log = logger('cluster/coordinator')

/** How often old answers are forgotten, and how many are looked at. */
const FORGET_MS = 60_000
const FORGET_COUNT = 1000
/** After what is no answer to a step. */
const PAUSE_MS = 1000

export interface CoordinatorServerOptions {
  readonly surroundings: Surroundings
  readonly journal: Journal
  readonly stored: StoredState
  /** Of a process of the cluster. It is closed after the server. */
  readonly caller: Pick<Caller, 'start'>
  readonly shardTarget: (shard: number) => Target
  /** Called once, where it cannot go on: the process is to end. */
  readonly onFailed: (error: OperationError) => void
  /** For the simulator's own tests: one that does something wrong. */
  readonly machine?: CoordinatorMachine
}

export class CoordinatorServer {
  readonly #options: CoordinatorServerOptions
  readonly #machine: DurableMachine<CoordinatorEntry, Effects>
  readonly #responder: Responder
  /** All copies of requests that are not answered yet. */
  readonly #waiting = new Map<string, Incoming[]>()
  /** Pauses before steps are asked again. */
  readonly #pauses = new Set<Cancel>()
  #cancelForget: Cancel | undefined
  #isClosed = false

  private constructor(options: CoordinatorServerOptions, machine: DurableMachine<CoordinatorEntry, Effects>) {
    this.#options = options
    this.#machine = machine
    this.#responder = new Responder(COORDINATOR_MESSAGES, (request) => this.#answer(request))
  }

  /** Goes on with what was under way. @throws JOURNAL_FAILED, JOURNAL_CORRUPT */
  static async open(options: CoordinatorServerOptions): Promise<CoordinatorServer> {
    const { journal, stored, surroundings, onFailed, machine = new CoordinatorMachine() } = options
    const { clock } = surroundings
    const opened = await DurableMachine.open({ machine, journal, stored, clock, onFailed })
    const server = new CoordinatorServer(options, opened)
    if (ownClient(opened.state) === undefined) await server.#begin()
    for (const step of outstandingSteps(opened.state)) server.#ask(step)
    server.#forgetLater('')
    return server
  }

  /** For `Network.listen`. */
  accept(link: Link): LinkHandler {
    return this.#responder.accept(link)
  }

  /** For checks and for who answers nobody by it. */
  get state(): StateReader {
    return this.#machine.state
  }

  /** Transactions that wait or are under way. */
  get openTransactions(): number {
    return openTransactions(this.#machine.state)
  }

  /** What is under way goes on at the next start. */
  async close(): Promise<void> {
    this.#isClosed = true
    this.#cancelForget?.()
    for (const cancel of this.#pauses) cancel()
    await this.#machine.close()
  }

  async #begin(): Promise<void> {
    if (this.#machine.applied > 0) {
      throw new OperationError(
        'JOURNAL_CORRUPT',
        'Cannot begin the coordinator: the directory is none of a coordinator',
      )
    }
    const client = randomClient(this.#options.surroundings)
    await new Promise<void>((resolve, reject) => {
      this.#machine.submit({ kind: 'begin', client }, () => resolve(), reject)
    })
  }

  #nowUs(): number {
    return Math.floor(this.#options.surroundings.clock.nowMs() * 1000)
  }

  #answer(request: Incoming): void {
    if (this.#isClosed || this.#machine.isFull) {
      const detail = this.#isClosed ? 'the coordinator ends' : 'too much is waiting to be stored'
      return request.refuse(new OperationError('CLUSTER_BUSY', `Cannot take a request: ${detail}`))
    }
    const { client, slot, sequence, kind } = request.header
    // Before it is submitted: its transaction may be done by the time that this copy is known to belong to it.
    this.#wait(request)
    const id = { client, slot, sequence }
    this.#machine.submit(
      { kind: 'request', ...id, timeUs: this.#nowUs(), asks: kind, body: bodyOf(request.frame) },
      (effects) => this.#carryOut(effects),
      (error) => {
        if (this.#waitNoMore(request)) request.refuse(error)
      },
    )
  }

  #wait(request: Incoming): void {
    const key = keyOf(request.header)
    const copies = this.#waiting.get(key)
    if (copies === undefined) this.#waiting.set(key, [request])
    else copies.push(request)
  }

  /** Whether it had no answer yet. */
  #waitNoMore(request: Incoming): boolean {
    const key = keyOf(request.header)
    const copies = this.#waiting.get(key)
    const at = copies?.indexOf(request) ?? -1
    if (copies === undefined || at < 0) return false
    copies.splice(at, 1)
    if (copies.length === 0) this.#waiting.delete(key)
    return true
  }

  #carryOut({ steps, answers, surprises }: Effects): void {
    if (this.#isClosed) return
    for (const { transaction, step, why } of surprises) {
      log.error({ transaction, step, err: why }, 'A step that cannot fail was refused')
    }
    for (const step of steps) this.#ask(step)
    for (const answered of answers) this.#give(answered)
  }

  #give({ id, answer }: Answered): void {
    const key = keyOf(id)
    const copies = this.#waiting.get(key)
    // Nobody, where it was asked before a restart: who still wants to know asks again.
    if (copies === undefined) return
    this.#waiting.delete(key)
    for (const request of copies) {
      if ('body' in answer) request.replyBytes(answer.body)
      else request.refuse(answer.refusal)
    }
  }

  #ask(step: Step): void {
    const { shard, message, request, id } = step
    const { caller, shardTarget } = this.#options
    caller.start(shardTarget(shard), message, request, { shard, id, deadlineMs: Infinity }, (error, reply) => {
      if (this.#isClosed) return
      if (error === undefined) this.#answered(step, encode(message.reply, reply))
      else if (isDecision(error)) this.#refused(step, error)
      else this.#askAgain(step, error)
    })
  }

  #answered({ transaction, id: { slot, sequence } }: Step, reply: Buffer): void {
    this.#submit({ kind: 'answered', transaction, slot, sequence, timeUs: this.#nowUs(), reply })
  }

  #refused({ transaction, id: { slot, sequence } }: Step, why: OperationError): void {
    this.#submit({ kind: 'refused', transaction, slot, sequence, timeUs: this.#nowUs(), why })
  }

  #submit(entry: CoordinatorEntry): void {
    this.#machine.submit(
      entry,
      (effects) => this.#carryOut(effects),
      (error) => this.#fail(error),
    )
  }

  /** Nobody knows whether the step was done: it stays what is to be done next. */
  #askAgain(step: Step, error: OperationError): void {
    if (error.code === 'REQUEST_STALE') {
      // It asks under numbers that were used, and would make directories anew under ids that were given out.
      const detail = `shard ${step.shard} knows later requests of this coordinator than it does itself`
      return this.#fail(
        new OperationError('JOURNAL_CORRUPT', `Cannot go on: ${detail}`, {
          cause: error,
          hint: 'The data directory is an old copy: start the coordinator with the newest one.',
        }),
      )
    }
    log.warn({ err: error, transaction: step.transaction, shard: step.shard }, 'A step is asked again')
    const cancel = this.#options.surroundings.clock.after(PAUSE_MS, () => {
      this.#pauses.delete(cancel)
      this.#ask(step)
    })
    this.#pauses.add(cancel)
  }

  #fail(error: OperationError): void {
    if (this.#isClosed) return
    this.#isClosed = true
    this.#options.onFailed(error)
  }

  #forgetLater(from: Key): void {
    if (this.#isClosed) return
    this.#cancelForget = this.#options.surroundings.clock.after(FORGET_MS, () => {
      const beforeUs = Math.max(0, this.#nowUs() - SESSION_US)
      const entry = { kind: 'forget', beforeUs, from: Buffer.from(from, 'latin1'), count: FORGET_COUNT } as const
      this.#machine.submit(
        entry,
        ({ next }) => this.#forgetLater(next),
        (error) => this.#fail(error),
      )
    })
  }
}

function keyOf({ client, slot, sequence }: RequestId): string {
  return `${client}:${slot}:${sequence}`
}

const UNDECIDED: readonly ErrorCode[] = ['ABORTED', 'SHARD_ELSEWHERE']

/** Whether a shard refuses the step itself, rather than that something is wrong with the asking. */
function isDecision({ code }: OperationError): boolean {
  return !/^(?:WIRE|REQUEST|JOURNAL|CLUSTER)_/.test(code) && !UNDECIDED.includes(code)
}
