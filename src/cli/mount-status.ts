/**
 * What a mount tells of itself while it runs: the shape, and the talk between who asks (`eider status`, `eider unmount`) and
 * the process that serves the mount. It is one GET over a Unix socket beside the record of the mount, so who may ask is who
 * may read that folder, and nothing listens on a network.
 */
import { createServer, request, type Server } from 'node:http'
import { rmSync } from 'node:fs'
import * as v from 'valibot'
import { OperationError } from '#base/errors.ts'
import { logger } from '#base/log.ts'

const log = logger('cli/status')

const count = v.number()
const StatusSchema = v.object({
  directory: v.string(),
  store: v.string(),
  pid: count,
  /** ISO 8601. */
  since: v.string(),
  /** `storing`: unmounted, and what was written is on its way to the store. */
  state: v.picklist(['mounted', 'storing']),
  openFiles: count,
  /** Files whose bytes or attributes are not yet in the store, and those bytes. */
  dirtyFiles: count,
  dirtyBytes: count,
  /** Those of them whose last put failed, and why one of them did; they are tried again. */
  failing: v.nullable(v.object({ files: count, error: v.string() })),
  /** Requests of programs without an answer so far; whose the oldest is (0: not known), and since when, in ISO 8601. */
  waiting: v.nullable(v.object({ requests: count, pid: count, since: v.string() })),
  memoryBytes: count,
  memoryBytesMax: count,
  cache: v.nullable(
    v.object({
      files: count,
      bytes: count,
      bytesMax: count,
      hitBytes: count,
      missBytes: count,
      evictedBytes: count,
      corruptBlocks: count,
    }),
  ),
  /** S3 requests by operation since the start; empty for other stores. */
  requests: v.record(v.string(), count),
  /** What they would have cost at the list prices named; null for stores that cost nothing. */
  cost: v.nullable(v.object({ usd: count, prices: v.string() })),
})
export type MountStatus = v.InferOutput<typeof StatusSchema>

/** An answer is at once; a process that gives none in so long hangs. */
const ANSWER_MS_MAX = 5000
/** Who answers may be another user's process. */
const ANSWER_BYTES_MAX = 1024 ** 2

export interface StatusServer {
  close(): void
}

/** Answers with what `status` gives, until it is closed. @throws OperationError `LOCAL_FAILED` */
export async function serveStatus(socket: string, status: () => Promise<MountStatus>): Promise<StatusServer> {
  // Left by a process that was killed: whoever writes the record of the mount owns the name.
  rmSync(socket, { force: true })
  const server: Server = createServer((_, response) => {
    status().then(
      (answer) => response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(answer)),
      (error: unknown) => {
        log.error({ err: error }, 'cannot tell the status')
        response.writeHead(500).end()
      },
    )
  })
  server.maxConnections = 16
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause) => {
      reject(new OperationError('LOCAL_FAILED', `Cannot listen at '${socket}': ${cause.message}`, { cause }))
    })
    server.listen(socket, resolve)
  })
  // To tell how it stands is no reason to stay.
  server.unref()
  return {
    close: () => {
      server.close()
      server.closeAllConnections()
      rmSync(socket, { force: true })
    },
  }
}

/** Asks. @throws OperationError `LOCAL_FAILED` where nobody answers. */
export function askStatus(socket: string): Promise<MountStatus> {
  return new Promise((resolve, reject) => {
    const fail = (detail: string, cause?: unknown): void => {
      reject(new OperationError('LOCAL_FAILED', `Cannot ask at '${socket}': ${detail}`, { cause }))
    }
    // Of the whole answer: a byte now and then is none.
    const patience = setTimeout(() => {
      asked.destroy(new Error(`no answer in ${ANSWER_MS_MAX / 1000} seconds`))
    }, ANSWER_MS_MAX)
    const asked = request({ socketPath: socket, agent: false }, (response) => {
      const chunks: Buffer[] = []
      let size = 0
      response.on('data', (chunk: Buffer) => {
        chunks.push(chunk)
        size += chunk.length
        if (size > ANSWER_BYTES_MAX) response.destroy(new Error('the answer is too long'))
      })
      response.on('error', (error) => fail(error.message, error))
      response.on('end', () => {
        try {
          resolve(v.parse(StatusSchema, JSON.parse(Buffer.concat(chunks).toString())))
        } catch (error) {
          fail('the answer is of another version of Eider', error)
        }
      })
    })
    asked.on('error', (error) => fail(error.message, error))
    asked.on('close', () => clearTimeout(patience))
    asked.end()
  })
}
