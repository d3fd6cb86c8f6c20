/**
 * A bank on the foundations that every daemon of the cluster stands on: requests that are sent again under their ids, a machine that
 * answers once it is durable, its journal and its stored state. Nothing of a file system is in it, so what fails here
 * fails in those.
 */
import { isOperationError, OperationError } from '#base/errors.ts'
import { DurableMachine } from '#cluster/journal/durable-machine.ts'
import { numberKey } from '#cluster/journal/keys.ts'
import type { Machine as EntryMachine } from '#cluster/journal/machine.ts'
import { type Answer, findAnswer, keepAnswer } from '#cluster/journal/sessions.ts'
import type { StateBatch, StateReader } from '#cluster/journal/state.ts'
import { Caller, type Target } from '#cluster/wire/caller.ts'
import { decode, encode, struct, u16, u53 } from '#cluster/wire/codec.ts'
import type { RequestId } from '#cluster/wire/envelope.ts'
import { message, MessageTable } from '#cluster/wire/message.ts'
import { Responder } from '#cluster/wire/responder.ts'
import { acknowledgedSurvives } from '#sim/checkers/acknowledged-survives.ts'
import { replaysEqually } from '#sim/checkers/replays-equally.ts'
import { type FaultKind, ORDINARY_FAULTS } from '#sim/faults.ts'
import { frameWords } from '#sim/frame-words.ts'
import type { Machine, Process } from '#sim/process.ts'
import type { Scenario, Simulation } from '#sim/scenario.ts'
import { SimulationFailure } from '#sim/timeline.ts'
import type { World } from '#sim/world.ts'

const ADDRESS = 'bank:7000'
const BANK: Target = { name: 'the bank', address: () => ADDRESS }
const ACCOUNTS = 5
const CLIENTS = 3
const WORKERS_EACH = 3
const ORDERS_EACH = 25
const THINK_MS_MAX = 1500
const AMOUNT_MAX = 100
/** Requests are sent again after at most ten seconds. */
const PROCEEDS_WITHIN_MS = 90_000

const order = struct({ number: u53, from: u16, to: u16, amount: u53 })
/** How many orders were carried out, the number of the last of them, and what all accounts hold. */
const summary = struct({ orders: u53, last: u53, sum: u53 })
const TOTALS = 't'
const ORDER = message('order', {
  kind: 1,
  request: order,
  reply: summary,
  does: 'write',
  meaning: 'Takes an amount from an account and gives it to another. Account 0 has what there is not yet.',
})
const SUM = message('sum', {
  kind: 2,
  request: struct({}),
  reply: summary,
  does: 'read',
  meaning: 'How things stand.',
})
const MESSAGES = new MessageTable('the bank', { ORDER, SUM })

const entryCodec = struct({ client: u53, slot: u16, sequence: u53, timeUs: u53, order })
type Order = { readonly number: number; readonly from: number; readonly to: number; readonly amount: number }
type Entry = RequestId & { readonly timeUs: number; readonly order: Order }
type Summary = { readonly orders: number; readonly last: number; readonly sum: number }

const bankMachine: EntryMachine<Entry, Answer> = {
  encode: (entry) => encode(entryCodec, entry),
  decode: (bytes) => decode(entryCodec, bytes),
  apply(state, entry) {
    const { client, slot, sequence, timeUs, order: asked } = entry
    const before = findAnswer(state, 0, entry)
    if (before !== undefined) return before
    const answer = carryOut(state, asked)
    keepAnswer(state, { client, slot, sequence, shard: 0, isInternal: false }, timeUs, answer)
    return answer
  },
}

function carryOut(state: StateBatch, { number, from, to, amount }: Order): Answer {
  const { orders, sum } = summaryOf(state)
  const held = from === 0 ? Infinity : readNumber(state, `a${numberKey(from)}`)
  if (held < amount) {
    const words = `Cannot take ${amount} from account ${from}: it has ${held}`
    return { refusal: new OperationError('STORE_CONFLICT', words) }
  }
  if (from !== 0) state.put(`a${numberKey(from)}`, encode(u53, held - amount))
  state.put(`a${numberKey(to)}`, encode(u53, readNumber(state, `a${numberKey(to)}`) + amount))
  // Found again by who checks: an order that was carried out twice is there twice.
  const times = readNumber(state, `o${numberKey(number)}`) + 1
  state.put(`o${numberKey(number)}`, encode(u53, times))
  const body = encode(summary, { orders: orders + 1, last: number, sum: from === 0 ? sum + amount : sum })
  state.put(TOTALS, body)
  return { body }
}

function readNumber(state: StateReader, key: string): number {
  const found = state.get(key)
  return found === undefined ? 0 : decode(u53, found)
}

function summaryOf(state: StateReader): Summary {
  const found = state.get(TOTALS)
  return found === undefined ? { orders: 0, last: 0, sum: 0 } : decode(summary, found)
}

/** What may be wrong with the bank, on purpose. */
export type BankDefect = 'tells what is not durable' | 'does a request again'

class Bank {
  readonly #durable: DurableMachine<Entry, Answer>

  private constructor(durable: DurableMachine<Entry, Answer>) {
    this.#durable = durable
  }

  get state(): StateReader {
    return this.#durable.state
  }

  static async start({ surroundings, disk, exit }: Machine, defect: BankDefect | undefined): Promise<Bank> {
    const durable = await DurableMachine.open({
      machine: bankMachine,
      journal: disk.journal('bank'),
      stored: disk.state('bank'),
      clock: surroundings.clock,
      onFailed: exit,
    })
    const responder = new Responder(MESSAGES, (request) => {
      const refuse = (error: OperationError): void => request.refuse(error)
      if (request.is(SUM) && defect === 'tells what is not durable') request.reply(SUM, summaryOf(durable.state))
      else if (request.is(SUM)) durable.read(summaryOf, (found) => request.reply(SUM, found), refuse)
      else {
        const { client, slot, sequence } = request.header
        const timeUs = Math.floor(surroundings.clock.nowMs() * 1000)
        const once = defect === 'does a request again' ? surroundings.chance.below(2 ** 30) : client
        const entry = { client: once, slot, sequence, timeUs, order: request.read(ORDER) }
        const answer = (given: Answer): void =>
          'body' in given ? request.replyBytes(given.body) : refuse(given.refusal)
        durable.submit(entry, answer, refuse)
      }
    })
    await surroundings.network.listen(ADDRESS, responder.accept)
    return new Bank(durable)
  }
}

/** What the clients were told, all together. */
class Told {
  readonly acknowledged = new Set<number>()
  deposited = 0
  /** The number of the order that was the first, the second, and so on. */
  readonly #orders = new Map<number, number>()

  /** What somebody was told of is durable: no other order ever takes its place. */
  look({ orders, last }: Summary): void {
    const before = this.#orders.get(orders)
    this.#orders.set(orders, last)
    if (before === undefined || before === last) return
    throw new SimulationFailure(`Order ${orders} was that of number ${before}, and now it is that of ${last}`)
  }
}

/** Gives orders, and looks in between what has become of them. */
async function work({ surroundings }: Machine, caller: Caller, told: Told, firstNumber: number): Promise<void> {
  const { chance, clock } = surroundings
  for (let number = firstNumber; number < firstNumber + ORDERS_EACH; number++) {
    // Now and then many orders follow each other at once.
    if (chance.below(3) === 0) await new Promise<void>((resolve) => clock.after(chance.below(THINK_MS_MAX), resolve))
    const from = chance.below(ACCOUNTS)
    const asked: Order = { number, from, to: 1 + chance.below(ACCOUNTS), amount: chance.below(AMOUNT_MAX) }
    try {
      told.look(await caller.call(BANK, ORDER, asked, { deadlineMs: Infinity }))
      told.acknowledged.add(number)
      if (from === 0) told.deposited += asked.amount
    } catch (error) {
      if (!isOperationError(error, 'STORE_CONFLICT')) throw error
    }
    if (chance.below(2) === 0) told.look(await caller.call(BANK, SUM, {}, { deadlineMs: Infinity }))
  }
}

function build(world: World, defect: BankDefect | undefined): Simulation {
  const told = new Told()
  const bank = world.process('bank', (machine) => Bank.start(machine, defect), {
    mayExit: (why) => isOperationError(why, 'JOURNAL_FAILED'),
  })
  const clients = Array.from({ length: CLIENTS }, (_, client) =>
    world.process(`client-${client}`, (machine) => {
      const caller = new Caller(machine.surroundings, { slots: WORKERS_EACH })
      const workers = Array.from({ length: WORKERS_EACH }, (__, worker) =>
        work(machine, caller, told, (client * WORKERS_EACH + worker) * ORDERS_EACH),
      )
      return { done: Promise.all(workers) }
    }),
  )
  return {
    run: async (isUp) => {
      await bank.start()
      const running = await Promise.all(clients.map((client) => client.start()))
      isUp()
      await Promise.all(running.map(({ done }) => done))
    },
    check: async () => {
      bank.kill()
      while (bank.running === undefined) await world.timeline.delay(1000)
      const { state } = bank.running
      const found: string[] = []
      state.range('o', 'p', (key, value) => found.push(...Array.from({ length: decode(u53, value) }, () => key)) > 0)
      acknowledgedSurvives(
        [...told.acknowledged].map((number) => `o${numberKey(number)}`),
        found,
      )
      told.look(summaryOf(state))
      const { orders, sum } = summaryOf(state)
      if (orders !== told.acknowledged.size) throw new SimulationFailure('An order was carried out and refused')
      if (sum !== told.deposited) throw new SimulationFailure(`There is ${sum}, and ${told.deposited} was paid in`)
      replaysEqually(bankMachine, await bank.disk.journal('bank').all(), state)
    },
    describe: frameWords((host) => (host === 'bank' ? MESSAGES : undefined)),
    // What clients know is in their memory alone.
    spares: (kind: FaultKind, { name }: Process) => (kind === 'kills' || kind === 'power-cuts') && name !== 'bank',
  }
}

export function accounts(defect?: BankDefect): Scenario {
  return {
    name: 'accounts',
    faults: [...ORDINARY_FAULTS, 'full-disks', 'disk-errors'],
    proceedsWithinMs: PROCEEDS_WITHIN_MS,
    build: (world) => build(world, defect),
  }
}
