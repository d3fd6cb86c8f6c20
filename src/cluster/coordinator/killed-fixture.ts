/** A coordinator process that is killed, on shards in memory: between the two is no network, but answers are lost, doubled and late. */
import assert from 'node:assert/strict'

import { OperationError, type ErrorCode } from '#base/errors.ts'
import { ROOT_INODE, type InodeId } from '#cluster/inode-id.ts'
import { MemoryJournal, type MemoryDisk } from '#cluster/journal/memory-journal.ts'
import { MemoryState } from '#cluster/journal/memory-state.ts'
import type { Clock, Link, LinkHandler, Surroundings } from '#cluster/surroundings.ts'
import type { Caller } from '#cluster/wire/caller.ts'
import { decode, type ValueOf } from '#cluster/wire/codec.ts'
import { bodyOf, decodeError, encodeRequest, readHeader, type RequestId } from '#cluster/wire/envelope.ts'
import { ANYTHING } from '#cluster/wire/forms.ts'
import type { Message } from '#cluster/wire/message.ts'

import { ATTRIBUTES, keyOf, openRecords, ShardWorld, type Request } from './coordinator-fixture.ts'
import { coordinatorMessages } from './coordinator-messages.ts'
import { CoordinatorServer } from './coordinator-server.ts'

const { makeDirectory, removeDirectory, moveFile } = coordinatorMessages

const TURNS_MAX = 1000

function nextTurn(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve)
  })
}

export async function until(condition: () => boolean): Promise<void> {
  for (let turn = 0; turn < TURNS_MAX; turn++) {
    if (condition()) return
    // oxlint-disable-next-line no-await-in-loop -- turn after turn
    await nextTurn()
  }
  assert.fail('it never comes to that')
}

/** Timers never fire: nothing here depends on time. */
const clock: Clock = {
  nowMs: () => 1e12,
  monotonicMs: () => 0,
  sleptMs: () => 0,
  after: () => () => undefined,
  soon: (action) => void setImmediate(action),
}
const surroundings: Surroundings = {
  clock,
  chance: { bytes: (count) => Buffer.alloc(count, 5), below: () => 0 },
  network: {
    listen: () => assert.fail('the test has no network'),
    connect: () => assert.fail('the test has no network'),
  },
}

/** What befalls the answers of shards. */
export type Fate = 'answered' | 'lost once' | 'doubled' | 'late copies'
export const FATES: readonly Fate[] = ['answered', 'lost once', 'doubled', 'late copies']

/** When the process is killed. */
export interface Kill {
  readonly at: 'write' | 'step'
  readonly number: number
  /** Whether a write that was not acknowledged is there afterwards. */
  readonly isKept: boolean
}

type Asked = Parameters<ShardWorld['answer']>[0]

class Cluster {
  readonly world = new ShardWorld()
  readonly fate: Fate
  kill: Kill | undefined
  isKilled = false
  /** Since the last `count`. */
  writes = 0
  steps = 0
  #journal: MemoryJournal
  #stored: MemoryState
  #server: CoordinatorServer | undefined
  #life = 0
  readonly #asked: Asked[] = []
  readonly #replies = new Map<string, Buffer>()
  readonly #disk: MemoryDisk = { write: () => this.#write() }
  #slot = 0

  constructor(fate: Fate) {
    this.fate = fate
    this.#journal = new MemoryJournal(this.#disk)
    this.#stored = new MemoryState()
  }

  async start(): Promise<void> {
    const life = ++this.#life
    this.isKilled = false
    this.#server = await CoordinatorServer.open({
      surroundings,
      journal: this.#journal,
      stored: this.#stored,
      caller: this.#caller(life),
      shardTarget: (shard) => ({ name: `shard ${shard}`, address: () => undefined }),
      onFailed: (error) => {
        // The journal of one that was killed is another one's by now.
        if (!this.isKilled && this.#life === life) assert.fail(error)
      },
    })
  }

  /** What the next process finds. */
  restart(isKept: boolean): Promise<void> {
    this.kill = undefined
    this.#journal = this.#journal.crash(isKept, this.#disk)
    this.#stored = this.#stored.crash(isKept)
    return this.start()
  }

  count(kill?: Kill): void {
    this.kill = kill
    this.writes = this.steps = 0
  }

  get open(): string[] {
    return openRecords(this.#running.state)
  }

  newId(): RequestId {
    return { client: 8, slot: this.#slot++, sequence: 1 }
  }

  /** Sends the request; what comes back is kept under its id. */
  send({ message, request }: Request, id: RequestId): void {
    const link: Link = {
      peer: 'test',
      bytesWaiting: 0,
      send: (...parts) => {
        const frame = Buffer.concat(parts)
        const header = readHeader(frame)
        this.#replies.set(keyOf(header), frame)
      },
      close: () => assert.fail('the link is fine'),
    }
    const handler: LinkHandler = this.#running.accept(link)
    handler.onFrame(encodeRequest({ ...id, kind: message.kind, shard: 0, isInternal: false }, message.request, request))
  }

  hasReply(id: RequestId): boolean {
    return this.#replies.has(keyOf(id))
  }

  /** The body of the reply, or the code of the refusal. */
  reply(id: RequestId): Buffer | ErrorCode {
    const frame = this.#replies.get(keyOf(id))
    assert.ok(frame)
    return readHeader(frame).what === 'reply' ? bodyOf(frame) : decodeError(bodyOf(frame)).code
  }

  async run<Q, R>(message: Message<Q, R>, request: Q): Promise<R> {
    const id = this.newId()
    this.send({ message, request }, id)
    await until(() => this.hasReply(id))
    const reply = this.reply(id)
    assert.ok(typeof reply !== 'string', `done, not ${String(reply)}`)
    return decode(message.reply, reply)
  }

  get #running(): CoordinatorServer {
    assert.ok(this.#server)
    return this.#server
  }

  #write(): Promise<void> {
    this.writes++
    if (this.kill?.at === 'write' && this.kill.number === this.writes) this.isKilled = true
    return this.isKilled ? new Promise(() => undefined) : Promise.resolve()
  }

  /** Asks the shards of this world, without a network between them. Of a process that is killed nothing is asked any more. */
  #caller(life: number): Pick<Caller, 'start'> {
    return {
      start: (_, message, request, { shard = 0, id }, done) => {
        assert.ok(id)
        const asked: Asked = { shard, message, request, id }
        setImmediate(() => {
          if (this.isKilled || this.#life !== life) return
          if (this.fate === 'late copies') this.#lateCopies()
          this.#asked.push(asked)
          let answer = this.world.answer(asked)
          this.steps++
          if (this.kill?.at === 'step' && this.kill.number === this.steps) {
            this.isKilled = true
            return
          }
          // The answer was lost, and it is asked again.
          if (this.fate === 'lost once') answer = this.world.answer(asked)
          const tell = (): void => {
            if (this.isKilled || this.#life !== life) return
            if ('refusal' in answer) done(answer.refusal, undefined)
            else done(undefined, decode(message.reply, answer.body))
          }
          tell()
          if (this.fate !== 'doubled') return
          tell()
          setImmediate(tell)
          setImmediate(() => setImmediate(tell))
        })
      },
    }
  }

  /** All that was ever asked comes to the shards once more. */
  #lateCopies(): void {
    for (const asked of this.#asked) {
      try {
        this.world.answer(asked)
      } catch (error) {
        assert.ok(error instanceof OperationError && error.code === 'REQUEST_STALE')
      }
    }
  }
}

/** `/a`, `/b`, `/a/deep`, `/a/deep/leaf`, the file `/a/file`, a file of the history of `/a`, and `dead`, a directory of the history. */
export class Scene extends Cluster {
  a: InodeId = ROOT_INODE
  b: InodeId = ROOT_INODE
  deep: InodeId = ROOT_INODE
  leaf: InodeId = ROOT_INODE
  dead: InodeId = ROOT_INODE

  async setUp(): Promise<void> {
    await this.start()
    const make = async (owner: InodeId, name: string): Promise<InodeId> =>
      (await this.run(makeDirectory, { owner, name, attributes: ATTRIBUTES })).inode
    this.a = await make(ROOT_INODE, 'a')
    this.b = await make(ROOT_INODE, 'b')
    this.deep = await make(this.a, 'deep')
    this.leaf = await make(this.deep, 'leaf')
    this.dead = await make(this.b, 'dead')
    await this.run(removeDirectory, this.removal(this.b, 'dead', this.dead))
    this.world.makeFile(this.a, 'file')
    this.world.makeFile(this.b, 'taken')
    this.count()
  }

  removal(owner: InodeId, name: string, directory: InodeId): ValueOf<typeof removeDirectory.request> {
    return { owner, name, directory, created: this.world.edge(owner, name).created }
  }

  move(fromName: string, toName: string, guard = ANYTHING, to = this.b): ValueOf<typeof moveFile.request> {
    const { inode, created } = this.world.edge(this.a, fromName)
    return { inode, from: this.a, fromName, created, to, toName, guard }
  }
}
