/**
 * A server that keeps a ledger in a journal, and clients that ask until they are answered: the smallest system that can do wrong all
 * that the simulator is there to find. By it the world itself is tested; its defects can be planted.
 */
import { isOperationError } from '#base/errors.ts'
import type { Journal } from '#cluster/journal/journal.ts'
import type { Cancel, Link, LinkHandler } from '#cluster/surroundings.ts'
import { ByteReader, ByteWriter, struct, text, u16, u53 } from '#cluster/wire/codec.ts'
import { acknowledgedSurvives } from '#sim/checkers/acknowledged-survives.ts'
import { type FaultKind, ORDINARY_FAULTS } from '#sim/faults.ts'
import type { Machine, Process } from '#sim/process.ts'
import type { Scenario, Simulation } from '#sim/scenario.ts'
import { SimulationFailure } from '#sim/timeline.ts'
import type { World } from '#sim/world.ts'

/** What may be wrong with it, on purpose. */
export type Defect = 'answers before durable' | 'does a request again' | 'never asks again' | 'forgets its clients'

const ADDRESS = 'server:7000'
const CLIENTS = 4
const LINES_EACH = 40
const THINK_MS_MAX = 500
const ASK_AGAIN_MS = 300
const PROCEEDS_WITHIN_MS = 30_000

const line = struct({ client: u16, sequence: u53, text: text(64) })
interface Line {
  readonly client: number
  readonly sequence: number
  readonly text: string
}

export function ledger(defect?: Defect): Scenario {
  return {
    name: 'ledger',
    faults: [...ORDINARY_FAULTS, 'full-disks', 'disk-errors'],
    proceedsWithinMs: PROCEEDS_WITHIN_MS,
    build: (world) => build(world, defect),
  }
}

function build(world: World, defect: Defect | undefined): Simulation {
  const acknowledged: string[] = []
  const server = world.process('server', (machine) => LedgerServer.start(machine, defect), {
    mayExit: (why) => isOperationError(why, 'JOURNAL_FAILED'),
  })
  const clients = Array.from({ length: CLIENTS }, (_, number) =>
    world.process(`client-${number}`, (machine) => new LedgerClient(machine, number, acknowledged, defect)),
  )
  return {
    run: async (isUp) => {
      await server.start()
      const running = await Promise.all(clients.map((client) => client.start()))
      isUp()
      await Promise.all(running.map((client) => client.done))
    },
    check: async () => {
      server.kill()
      // Whoever watches over processes may start it again as well.
      while (server.running === undefined) await world.timeline.delay(1000)
      acknowledgedSurvives(acknowledged, server.running.lines.map(inWords))
      if (acknowledged.length !== CLIENTS * LINES_EACH) throw new SimulationFailure('Clients ended before their work')
    },
    // What clients know is in their memory alone.
    spares: (kind: FaultKind, { name }: Process) => (kind === 'kills' || kind === 'power-cuts') && name !== 'server',
    describe: (frame) => inWords(decodeLine(frame)),
  }
}

class LedgerServer {
  readonly lines: Line[] = []
  readonly #journal: Journal
  readonly #machine: Machine
  readonly #defect: Defect | undefined
  /** The last line of each client that is in the ledger, by its sequence number. */
  readonly #last = new Map<number, number>()
  #waiting: { readonly line: Line; readonly link: Link }[] = []
  #isAppending = false

  private constructor(machine: Machine, journal: Journal, defect: Defect | undefined) {
    this.#machine = machine
    this.#journal = journal
    this.#defect = defect
  }

  static async start(machine: Machine, defect: Defect | undefined): Promise<LedgerServer> {
    const journal = machine.disk.journal('ledger')
    const server = new LedgerServer(machine, journal, defect)
    await journal.read(1, (_, entry) => {
      const kept = decodeLine(entry)
      server.lines.push(kept)
      if (defect !== 'forgets its clients') server.#last.set(kept.client, kept.sequence)
    })
    await machine.surroundings.network.listen(ADDRESS, (link) => server.#accept(link))
    return server
  }

  #accept(link: Link): LinkHandler {
    return { onFrame: (frame) => this.#asked(decodeLine(frame), link), onClosed: () => undefined }
  }

  #asked(asked: Line, link: Link): void {
    const last = this.#last.get(asked.client) ?? 0
    if (asked.sequence <= last && this.#defect !== 'does a request again') {
      // What is still being appended is answered when it is durable.
      if (!this.#waiting.some(({ line: { client } }) => client === asked.client)) this.#answer(asked, link)
      return
    }
    this.#last.set(asked.client, asked.sequence)
    if (this.#defect === 'answers before durable') this.#answer(asked, link)
    this.#waiting.push({ line: asked, link })
    if (!this.#isAppending) void this.#append().catch((error: unknown) => this.#machine.exit(error))
  }

  async #append(): Promise<void> {
    this.#isAppending = true
    while (this.#waiting.length > 0) {
      const group = [...this.#waiting]
      await this.#journal.append(
        this.#journal.last + 1,
        group.map(({ line: written }) => encodeLine(written)),
      )
      this.#waiting = this.#waiting.slice(group.length)
      for (const { line: written, link } of group) {
        this.lines.push(written)
        this.#answer(written, link)
      }
    }
    this.#isAppending = false
  }

  #answer(answered: Line, link: Link): void {
    link.send(encodeLine(answered))
  }
}

class LedgerClient {
  readonly done: Promise<void>
  readonly #machine: Machine
  readonly #number: number
  readonly #acknowledged: string[]
  readonly #defect: Defect | undefined
  #finish = (): void => undefined
  #link: Link | undefined
  #sequence = 0
  #isWaiting = false
  #cancel: Cancel = () => undefined

  constructor(machine: Machine, number: number, acknowledged: string[], defect: Defect | undefined) {
    this.#machine = machine
    this.#number = number
    this.#acknowledged = acknowledged
    this.#defect = defect
    this.done = new Promise((resolve) => (this.#finish = resolve))
    this.#next()
  }

  #next(): void {
    if (this.#sequence === LINES_EACH) {
      this.#link?.close()
      this.#finish()
      return
    }
    const { clock, chance } = this.#machine.surroundings
    clock.after(chance.below(THINK_MS_MAX), () => {
      this.#sequence++
      this.#isWaiting = true
      this.#ask()
    })
  }

  #answered(answer: Line): void {
    // Of an earlier line, or come again.
    if (answer.sequence !== this.#sequence || !this.#isWaiting) return
    this.#isWaiting = false
    this.#cancel()
    this.#acknowledged.push(inWords(answer))
    this.#next()
  }

  #ask(): void {
    this.#link ??= this.#machine.surroundings.network.connect(ADDRESS, {
      onFrame: (frame) => this.#answered(decodeLine(frame)),
      onClosed: () => (this.#link = undefined),
    })
    this.#link.send(encodeLine({ client: this.#number, sequence: this.#sequence, text: `line ${this.#sequence}` }))
    if (this.#defect !== 'never asks again') {
      const { clock, chance } = this.#machine.surroundings
      this.#cancel = clock.after(ASK_AGAIN_MS + chance.below(ASK_AGAIN_MS), () => this.#ask())
    }
  }
}

function inWords({ client, sequence, text: written }: Line): string {
  return `${client}/${sequence} "${written}"`
}

function encodeLine(value: Line): Buffer {
  const writer = new ByteWriter(64)
  line.write(writer, value)
  return writer.finish()
}

function decodeLine(bytes: Buffer): Line {
  return line.read(new ByteReader(bytes))
}
