/** The coordinator is killed at every write of every transaction, and after every step that a shard has done; answers of shards are lost, doubled and late. */
import assert from 'node:assert/strict'
import { suite, test } from 'node:test'

import { OperationError, type ErrorCode } from '#base/errors.ts'
import { ROOT_INODE, type InodeId } from '#cluster/inode-id.ts'
import { MemoryJournal, type MemoryDisk } from '#cluster/journal/memory-journal.ts'
import { MemoryState } from '#cluster/journal/memory-state.ts'
import type { Clock, Link, LinkHandler, Surroundings } from '#cluster/surroundings.ts'
import type { Caller } from '#cluster/wire/caller.ts'
import { decode, type ValueOf } from '#cluster/wire/codec.ts'
import { bodyOf, decodeError, encodeRequest, readHeader, type RequestId } from '#cluster/wire/envelope.ts'
import { ANYTHING, NOTHING } from '#cluster/wire/forms.ts'
import type { Message } from '#cluster/wire/message.ts'

import { ATTRIBUTES, openRecords, ShardWorld, type Request } from './coordinator-fixture.ts'
import { coordinatorMessages } from './coordinator-messages.ts'
import { CoordinatorServer } from './coordinator-server.ts'

const { makeDirectory, removeDirectory, moveFile, moveDirectory, hardUnlinkDirectory, hardUnlinkFile } =
  coordinatorMessages

const TURNS_MAX = 1000

function nextTurn(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve)
  })
}

async function until(condition: () => boolean): Promise<void> {
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
type Fate = 'answered' | 'lost once' | 'doubled' | 'late copies'
const FATES: readonly Fate[] = ['answered', 'lost once', 'doubled', 'late copies']

/** When the process is killed. */
interface Kill {
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
    this.#life++
    this.isKilled = false
    this.#server = await CoordinatorServer.open({
      surroundings,
      journal: this.#journal,
      stored: this.#stored,
      caller: this.#caller(this.#life),
      shardTarget: (shard) => ({ name: `shard ${shard}`, address: () => undefined }),
      onFailed: (error) => assert.fail(error),
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

function keyOf({ client, slot, sequence }: RequestId): string {
  return `${client}:${slot}:${sequence}`
}

/** `/a`, `/b`, `/a/deep`, `/a/deep/leaf`, the file `/a/file`, a file of the history of `/a`, and `dead`, a directory of the history. */
class Scene extends Cluster {
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

interface Scenario {
  readonly what: string
  readonly request: (scene: Scene) => Request
  readonly refusal?: ErrorCode
  readonly tree: readonly string[]
}

const TREE = ['/a', '/a/deep', '/a/deep/leaf', '/a/file', '/b', '/b/taken']

const SCENARIOS: readonly Scenario[] = [
  {
    what: 'a directory is made',
    request: ({ b: owner }) => ({ message: makeDirectory, request: { owner, name: 'new', attributes: ATTRIBUTES } }),
    tree: ['/a', '/a/deep', '/a/deep/leaf', '/a/file', '/b', '/b/new', '/b/taken'],
  },
  {
    what: 'a directory is not made over a file',
    request: ({ b: owner }) => ({ message: makeDirectory, request: { owner, name: 'taken', attributes: ATTRIBUTES } }),
    refusal: 'NAME_TAKEN',
    tree: TREE,
  },
  {
    what: 'a file moves',
    request: (scene) => ({ message: moveFile, request: scene.move('file', 'moved') }),
    tree: ['/a', '/a/deep', '/a/deep/leaf', '/b', '/b/moved', '/b/taken'],
  },
  {
    what: 'a file takes the place of another one',
    request: (scene) => ({ message: moveFile, request: scene.move('file', 'taken') }),
    tree: ['/a', '/a/deep', '/a/deep/leaf', '/b', '/b/taken'],
  },
  {
    what: 'a file does not move to a name that is taken',
    request: (scene) => ({ message: moveFile, request: scene.move('file', 'taken', NOTHING) }),
    refusal: 'NAME_TAKEN',
    tree: TREE,
  },
  {
    what: 'a directory moves',
    request: (scene) => ({ message: moveDirectory, request: scene.move('deep', 'deep') }),
    tree: ['/a', '/a/file', '/b', '/b/deep', '/b/deep/leaf', '/b/taken'],
  },
  {
    what: 'a directory does not move to a name that is taken',
    request: (scene) => ({ message: moveDirectory, request: scene.move('deep', 'taken') }),
    refusal: 'NAME_TAKEN',
    tree: TREE,
  },
  {
    what: 'a directory does not move under itself',
    request: (scene) => ({ message: moveDirectory, request: scene.move('deep', 'deep', ANYTHING, scene.leaf) }),
    refusal: 'DIRECTORY_LOOP',
    tree: TREE,
  },
  {
    what: 'a directory is removed',
    request: (scene) => ({ message: removeDirectory, request: scene.removal(scene.deep, 'leaf', scene.leaf) }),
    tree: ['/a', '/a/deep', '/a/file', '/b', '/b/taken'],
  },
  {
    what: 'a directory that is not empty is not removed',
    request: (scene) => ({ message: removeDirectory, request: scene.removal(scene.a, 'deep', scene.deep) }),
    refusal: 'DIRECTORY_NOT_EMPTY',
    tree: TREE,
  },
  {
    what: 'a directory is forgotten',
    request: ({ dead: directory }) => ({ message: hardUnlinkDirectory, request: { directory } }),
    tree: TREE,
  },
  {
    what: 'a directory in use is not forgotten',
    request: ({ deep: directory }) => ({ message: hardUnlinkDirectory, request: { directory } }),
    refusal: 'DIRECTORY_NOT_EMPTY',
    tree: TREE,
  },
  {
    what: 'a file is forgotten',
    request({ a: directory, world }) {
      const { inode: file, created } = world.makeOwned(directory, 'gone')
      return { message: hardUnlinkFile, request: { directory, name: 'gone', created, file } }
    },
    tree: TREE,
  },
]

/** @return how many writes and steps it took */
async function play({ request, refusal, tree }: Scenario, fate: Fate, kill?: Kill): Promise<Scene> {
  const scene = new Scene(fate)
  await scene.setUp()
  const asked = request(scene)
  scene.count(kill)
  const id = scene.newId()
  scene.send(asked, id)
  await until(() => scene.hasReply(id) || scene.isKilled)
  if (scene.isKilled) {
    assert.ok(!scene.hasReply(id), 'nobody is answered before it is durable')
    await scene.restart(kill?.isKept === true)
    // The client asks again, as it has no answer.
    scene.send(asked, id)
    await until(() => scene.hasReply(id))
  }
  const reply = scene.reply(id)
  assert.equal(typeof reply === 'string' ? reply : undefined, refusal)
  await until(() => scene.open.length === 0)
  assert.deepEqual(scene.world.tree(), tree)
  for (const [inode, count] of scene.world.owners()) assert.equal(count, 1, `inode ${inode} has one owner`)
  // And once more: it is done already.
  const { steps } = scene
  scene.send(asked, id)
  await until(() => scene.hasReply(id))
  assert.deepEqual(scene.reply(id), reply)
  assert.equal(scene.steps, steps)
  return scene
}

suite('a coordinator that is killed', () => {
  for (const scenario of SCENARIOS) {
    for (const fate of FATES) {
      test(`${scenario.what}; steps are ${fate}`, async () => {
        const { writes, steps } = await play(scenario, fate)
        assert.ok(writes >= 1)
        const kills: Kill[] = []
        for (let number = 1; number <= writes; number++) {
          kills.push({ at: 'write', number, isKept: false }, { at: 'write', number, isKept: true })
        }
        for (let number = 1; number <= steps; number++) kills.push({ at: 'step', number, isKept: false })
        for (const kill of kills) {
          // oxlint-disable-next-line no-await-in-loop -- one world after the other
          const scene = await play(scenario, fate, kill)
          assert.ok(scene.kill === undefined, `it was killed at ${kill.at} ${kill.number}`)
        }
      })
    }
  }
})
