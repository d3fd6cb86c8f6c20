/** Requests that take minutes: their clients hear that something is going on, and errors after that in the document. */
import assert from 'node:assert/strict'
import { request as httpRequest, type IncomingMessage } from 'node:http'
import { once } from 'node:events'
import { after, before, mock, test } from 'node:test'

import { OperationError } from '#base/errors.ts'
import { openMemoryStore } from '#store/memory-store.ts'
import { ABSENT, ANY, type Store } from '#store/store.ts'
import { startTestGateway, type TestGateway } from '#test/servers/gateway.ts'
import { signedHeaders } from '#test/servers/signed-request.ts'

let gateway: TestGateway | undefined
let copying: () => Promise<void> = async () => {}
let copiesBegun = 0

before(async () => {
  const memory = openMemoryStore()
  await memory.makeDirectory('bucket', { guard: ABSENT })
  await memory.put('bucket/from', Buffer.from('bytes'), { guard: ANY })
  const slow: Store = Object.create(memory, {
    copy: {
      value: async (...args: Parameters<Store['copy']>) => {
        copiesBegun++
        await copying()
        return memory.copy(...args)
      },
    },
  }) as Store
  // Methods of the store underneath work on it, not on what is made over it.
  for (const name of ['stat', 'list', 'read', 'put', 'setAttributes', 'close'] as const) {
    Object.defineProperty(slow, name, { value: memory[name].bind(memory) })
  }
  Object.defineProperty(slow, 'capabilities', { value: memory.capabilities })
  gateway = await startTestGateway({ store: slow })
})
after(async () => {
  mock.timers.reset()
  await gateway?.stop()
})

/** Begins a copy that ends when `release` is called, and gives its answer as soon as the head is there. */
async function slowCopy(to: string, outcome: () => void): Promise<{ answer: IncomingMessage; release: () => void }> {
  assert.ok(gateway !== undefined)
  const target = `/bucket/${to}`
  const { headers } = signedHeaders(
    { method: 'PUT', target, host: `127.0.0.1:${gateway.port}`, headers: { 'x-amz-copy-source': 'bucket/from' } },
    gateway,
  )
  const { promise, resolve } = Promise.withResolvers<void>()
  copying = () => promise.then(outcome)
  const begun = copiesBegun
  mock.timers.enable({ apis: ['setInterval'] })
  const request = httpRequest({ host: '127.0.0.1', port: gateway.port, method: 'PUT', path: target, headers })
  const answered = once(request, 'response') as Promise<[IncomingMessage]>
  request.end()
  while (copiesBegun === begun) await new Promise((next) => setImmediate(next))
  mock.timers.tick(11_000)
  const [answer] = await answered
  mock.timers.reset()
  return { answer, release: resolve }
}

async function textOf(answer: IncomingMessage): Promise<string> {
  let text = ''
  for await (const chunk of answer) text += String(chunk)
  return text
}

test('a long copy is answered with a head at once, spaces meanwhile, and its result at the end', async () => {
  const { answer, release } = await slowCopy('to', () => {})
  assert.equal(answer.statusCode, 200)
  release()
  assert.match(await textOf(answer), /^<\?xml[^>]*>\n {2}\s*<CopyObjectResult.*<ETag>.*<\/CopyObjectResult>$/s)
})

test('one that fails after its head tells so in the document, as S3 does', async () => {
  const { answer, release } = await slowCopy('to-nothing', () => {
    throw new OperationError('STORE_NO_SPACE', 'Cannot copy: the disk is full')
  })
  assert.equal(answer.statusCode, 200)
  release()
  assert.match(await textOf(answer), /^<\?xml[^>]*>\n {2}\s*<Error><Code>InsufficientStorage<\/Code>.*<\/Error>$/s)
})
