import assert from 'node:assert/strict'
import { test } from 'node:test'

import { isOperationError } from '#base/errors.ts'
import type { Link } from '#cluster/surroundings.ts'

import type { Machine, Process } from './process.ts'
import { World } from './world.ts'

const HOUR_US = 3_600_000_000
const ADDRESS = 'server:9'

interface Pair {
  readonly world: World
  readonly server: Process
  readonly client: Process<Machine>
  readonly link: Link
  /** What the server got, and what the client did, in order. */
  readonly asked: string[]
  readonly answered: string[]
  readonly closed: (Error | undefined)[]
  readonly pass: (us: number) => Promise<void>
}

/** A server that answers each frame with the same, and a client with a link to it. */
async function pair(seed: number): Promise<Pair> {
  const world = new World(seed)
  const [asked, answered, closed]: [string[], string[], (Error | undefined)[]] = [[], [], []]
  const server = world.process('server', async ({ surroundings }) => {
    await surroundings.network.listen(ADDRESS, (end) => ({
      onFrame: (frame) => {
        asked.push(frame.toString())
        end.send(Buffer.from('re: '), frame)
      },
      onClosed: (error) => asked.push(error === undefined ? 'closed' : 'lost'),
    }))
  })
  const client = world.process('client', (machine) => machine)
  const pass = (us: number): Promise<void> => world.timeline.until('time', world.timeline.delay(us), HOUR_US)
  await world.timeline.until('the start', Promise.all([server.start(), client.start()]), HOUR_US)
  const link = connect(client, answered, closed)
  await pass(200_000)
  return { world, server, client, link, asked, answered, closed, pass }
}

function connect(client: Process<Machine>, answered: string[], closed: (Error | undefined)[], address = ADDRESS): Link {
  assert.ok(client.running !== undefined)
  return client.running.surroundings.network.connect(address, {
    onFrame: (frame) => answered.push(frame.toString()),
    onClosed: (error) => closed.push(error),
  })
}

function send(link: Link, count: number): string[] {
  const sent = Array.from({ length: count }, (_, index) => `frame ${index}`)
  for (const text of sent) link.send(Buffer.from(text))
  return sent
}

test('without faults, frames arrive in order, once, also those sent before the link stands', async () => {
  const { client, link, asked, answered, pass } = await pair(1)
  const sent = send(link, 1000)
  await pass(500_000)
  assert.deepEqual(asked, sent)
  assert.deepEqual(
    answered,
    sent.map((text) => `re: ${text}`),
  )
  const early: string[] = []
  send(connect(client, early, []), 3)
  await pass(200_000)
  assert.equal(early.length, 3)
})

test('a frame is a copy that nobody else uses', async () => {
  const { link, asked, answered, pass } = await pair(1)
  const bytes = Buffer.from('as it was')
  link.send(bytes)
  bytes.fill(0)
  await pass(200_000)
  assert.deepEqual([asked, answered], [['as it was'], ['re: as it was']])
})

test('each fault of frames does what it says', async () => {
  const lossy = await pair(2)
  lossy.world.network.faults.loss = 0.2
  send(lossy.link, 1000)
  await lossy.pass(500_000)
  assert.ok(lossy.asked.length > 700 && lossy.asked.length < 880, `${lossy.asked.length} came`)

  const unanswered = await pair(2)
  unanswered.world.network.faults.answerLoss = 0.5
  send(unanswered.link, 1000)
  await unanswered.pass(500_000)
  assert.equal(unanswered.asked.length, 1000)
  assert.ok(unanswered.answered.length > 400 && unanswered.answered.length < 600)

  const doubled = await pair(2)
  doubled.world.network.faults.duplication = 0.1
  const sent = send(doubled.link, 1000)
  await doubled.pass(500_000)
  assert.ok(doubled.asked.length > 1050 && doubled.asked.length < 1150)
  assert.deepEqual(new Set(doubled.asked), new Set(sent))

  const mixed = await pair(2)
  mixed.world.network.faults.reordering = 0.3
  send(mixed.link, 100)
  await mixed.pass(500_000)
  assert.deepEqual(new Set(mixed.asked), new Set(sent.slice(0, 100)))
  assert.notDeepEqual(mixed.asked, sent.slice(0, 100))

  const late = await pair(2)
  late.world.network.faults.spike = 1
  send(late.link, 1)
  await late.pass(5000)
  assert.equal(late.asked.length, 0)
  await late.pass(5_000_000)
  assert.equal(late.answered.length, 1)
})

test('a test decides what becomes of a single frame', async () => {
  const { world, link, asked, answered, pass } = await pair(3)
  world.network.fate = (from, _to, frame) => {
    if (from === 'server' && frame.includes('frame 1')) return 'is lost'
    return from === 'client' && frame.includes('frame 2') ? 'comes twice' : 'arrives'
  }
  send(link, 3)
  await pass(500_000)
  assert.deepEqual(asked, ['frame 0', 'frame 1', 'frame 2', 'frame 2'])
  assert.deepEqual(answered, ['re: frame 0', 're: frame 2', 're: frame 2'])
})

test('a cut in one direction lets the other through, until it is mended', async () => {
  const { world, link, asked, answered, pass } = await pair(4)
  world.network.cut('server', 'client')
  link.send(Buffer.from('one'))
  await pass(200_000)
  assert.deepEqual([asked, answered], [['one'], []])
  world.network.mend()
  link.send(Buffer.from('two'))
  await pass(200_000)
  assert.deepEqual(answered, ['re: two'])
})

test('where nobody listens, a link is refused soon; where nobody can be reached, it is given up in the end', async () => {
  const { world, client, server, pass } = await pair(5)
  const refused: (Error | undefined)[] = []
  connect(client, [], refused, 'server:10')
  await pass(200_000)
  assert.match(String(refused[0]), /server:10 refuses connections/)
  assert.ok(isOperationError(refused[0], 'CLUSTER_UNREACHABLE'))

  const unreachable: (Error | undefined)[] = []
  server.kill(true)
  connect(client, [], unreachable)
  await pass(1_000_000)
  assert.deepEqual(unreachable, [])
  await pass(20_000_000)
  assert.match(String(unreachable[0]), /does not answer/)

  const patient: string[] = []
  world.network.cut('client', 'server')
  const link = connect(client, patient, [])
  await world.timeline.until('the start', server.start(), HOUR_US)
  send(link, 1)
  world.network.mend()
  await pass(5_000_000)
  assert.deepEqual(patient, ['re: frame 0'])
})

test('who closes a link is told so once, and so is the other side, after what was sent before', async () => {
  const { link, asked, closed, pass } = await pair(6)
  send(link, 2)
  link.close()
  link.close()
  link.send(Buffer.from('too late'))
  await pass(500_000)
  assert.deepEqual(asked, ['frame 0', 'frame 1', 'closed'])
  assert.deepEqual(closed, [undefined])
})

test('the other end of a process that died is told at once, or late, or when it sends to who runs again', async () => {
  const killed = await pair(7)
  killed.server.kill()
  await killed.pass(200_000)
  assert.match(String(killed.closed), /was reset/)

  const vanished = await pair(7)
  vanished.server.kill(true)
  await vanished.pass(200_000)
  assert.deepEqual(vanished.closed, [])
  await vanished.pass(30_000_000)
  assert.match(String(vanished.closed), /has vanished/)

  const restarted = await pair(8)
  restarted.server.kill(true)
  await restarted.world.timeline.until('the start', restarted.server.start(), HOUR_US)
  send(restarted.link, 3)
  await restarted.pass(200_000)
  assert.deepEqual(restarted.asked, [])
  assert.match(String(restarted.closed), /was reset/)
  assert.equal(restarted.closed.length, 1)
})

test('a listener has a port that is free, or one of the choice of the host, and gives it back', async () => {
  const { world, server, pass } = await pair(9)
  await world.timeline.until(
    'it',
    (async () => {
      const machine = await world.process('other', (its) => its).start()
      const { network } = machine.surroundings
      const accept = (): never => assert.fail('nobody connects')
      const first = await network.listen('other:0', accept)
      const second = await network.listen('other:0', accept)
      assert.notEqual(first.address, second.address)
      await assert.rejects(network.listen(first.address, accept), { code: 'ADDRESS_UNUSABLE' })
      await assert.rejects(network.listen(ADDRESS, accept), { code: 'ADDRESS_UNUSABLE' })
      await first.close()
      await network.listen(first.address, accept)
    })(),
    HOUR_US,
  )
  server.kill()
  await world.timeline.until('the start', server.start(), HOUR_US)
  await pass(1)
})

test('what is sent faster than it goes shows as bytes that wait, and drains', async () => {
  const { link, pass } = await pair(10)
  for (let index = 0; index < 8; index++) link.send(Buffer.alloc(1 << 20))
  assert.ok(link.bytesWaiting > 4 << 20)
  await pass(1_000_000)
  assert.equal(link.bytesWaiting, 0)
})
