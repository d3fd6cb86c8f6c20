/** Asking a process how it stands that may be another user's, and says whatever it likes. */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, type RequestListener, type Server } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { askStatus } from './mount-status.ts'

const scratch = mkdtempSync(join(tmpdir(), 'eider-asked-'))
const servers: Server[] = []
after(() => {
  for (const server of servers) server.close().closeAllConnections()
  rmSync(scratch, { recursive: true })
})

async function answering(name: string, answer: RequestListener): Promise<string> {
  const socket = join(scratch, name)
  const server = createServer(answer)
  servers.push(server)
  await new Promise<void>((resolve) => {
    server.listen(socket, resolve)
  })
  return socket
}

test('an answer without end is given up', async () => {
  const socket = await answering('endless', (_, response) => {
    const more = (): void => {
      while (response.write(Buffer.alloc(65_536, ' ')));
      response.once('drain', more)
    }
    more()
  })
  await assert.rejects(askStatus(socket), /Cannot ask at '.*': the answer is too long/)
})

test('an answer that is none of Eider is told as such, and so is nobody there', async () => {
  const socket = await answering('foreign', (_, response) => response.end('{}'))
  await assert.rejects(askStatus(socket), /the answer is of another version of Eider/)
  await assert.rejects(askStatus(join(scratch, 'nobody')), /Cannot ask at '.*nobody': .*ENOENT/)
})
