/**
 * A service that `eider sync --actor http` sends to: it keeps files in a directory, and is as small as the protocol allows
 * (docs/formats/http-actor.md). It is an example to begin from, and what the actor is tested against; it imports nothing of Eider's.
 *
 *   MEDIA_FILES_SECRET=… node examples/media-files-server.ts DIRECTORY [PORT]
 *
 * Below DIRECTORY lie the files (`files/`), what is being received (`incoming/`), and `index.jsonl`: a line for each change, from which
 * the records of all files are read at start. A file is renamed into place once its bytes are known to be right, so none is
 * ever seen in part.
 */
import { createHash, createHmac, randomUUID, timingSafeEqual } from 'node:crypto'
import * as fs from 'node:fs'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { dirname, join } from 'node:path'
import { pipeline } from 'node:stream/promises'

interface FileRecord {
  readonly path: string
  readonly size: number
  readonly mtime: string
  readonly sha256: string
  readonly version: string
}

const BASE = '/api/v1/media_files'
const PAGE_FILES = Number(process.env['MEDIA_FILES_PAGE'] ?? 1000)
const WINDOW_SECONDS = 300
const EMPTY_SHA256 = createHash('sha256').digest('hex')

const [root, port = '0'] = process.argv.slice(2)
const secret = process.env['MEDIA_FILES_SECRET']
if (root === undefined || secret === undefined || secret === '') {
  process.stderr.write('usage: MEDIA_FILES_SECRET=… node media-files-server.ts DIRECTORY [PORT]\n')
  process.exit(2)
}
const [files, incoming, index] = ['files', 'incoming', 'index.jsonl'].map((name) => join(root, name)) as [
  string,
  string,
  string,
]
const records = readIndex()
/** In order of UTF-8 bytes; made anew where something came or went. */
let sortedPaths: readonly string[] | undefined
/** When each was used. In order of time, so the old ones are in front. */
const nonces = new Map<string, number>()

/** A request that is refused. */
class Refusal extends Error {
  readonly status: number
  constructor(status: number, message: string) {
    super(message)
    this.status = status
  }
}

const server = createServer((request, response) => {
  const nonce = headerOf(request, 'eider-nonce')
  serve(request).then(
    ([status, value]) => answer(response, nonce, status, value === undefined ? '' : JSON.stringify(value)),
    (error: unknown) => {
      const code = (error as NodeJS.ErrnoException).code ?? ''
      const taken = ['ENOTDIR', 'EISDIR', 'EEXIST', 'ENOTEMPTY'].includes(code)
      // Of an escape in a path that stands for no character.
      const isMalformed = error instanceof URIError
      const status = isMalformed
        ? 400
        : error instanceof Refusal
          ? error.status
          : taken
            ? 409
            : code === 'ENOSPC'
              ? 507
              : 500
      const message =
        error instanceof Refusal ? error.message : taken ? 'a file and a directory of one name' : 'it failed'
      // A body that nobody reads any more must not be taken for the next request.
      if (!request.complete) response.setHeader('connection', 'close')
      answer(response, nonce, status, JSON.stringify({ error: message }))
    },
  )
})
server.listen(Number(port), '127.0.0.1', () => {
  process.stdout.write(`http://127.0.0.1:${(server.address() as AddressInfo).port}${BASE}\n`)
})
process.once('SIGTERM', () => process.exit(0))

async function serve(request: IncomingMessage): Promise<[status: number, value?: unknown]> {
  authenticate(request)
  const [pathname = '', query = ''] = (request.url ?? '').split('?', 2)
  if (pathname === BASE && request.method === 'GET') return [200, page(new URLSearchParams(query))]
  const path = pathOf(pathname)
  const record = records.get(path)
  if (request.method === 'PUT') return [record === undefined ? 201 : 200, await receive(request, path)]
  if (request.method === 'DELETE') return remove(path)
  if (request.method !== 'GET') throw new Refusal(405, `there is no ${request.method}`)
  if (record === undefined) throw new Refusal(404, 'there is no such file')
  return [200, record]
}

/** Lets nobody through who does not know the secret, and no request twice. */
function authenticate(request: IncomingMessage): void {
  const [date, nonce, sha256] = ['eider-date', 'eider-nonce', 'eider-content-sha256'].map((name) =>
    headerOf(request, name),
  )
  const now = Date.now() / 1000
  if (!(Math.abs(now - Number(date)) <= WINDOW_SECONDS)) throw new Refusal(401, 'the date is too far from ours')
  const signed = ['eider-http-1', request.method, request.url, date, nonce, sha256]
  signed.push(headerOf(request, 'content-length') || '0', headerOf(request, 'eider-mtime'))
  const right = hmac(signed.join('\n'))
  const given = Buffer.from(headerOf(request, 'authorization').replace(/^Eider-HMAC-SHA256 /, ''), 'hex')
  if (given.length !== right.length || !timingSafeEqual(given, right)) throw new Refusal(401, 'the signature is wrong')
  if (request.method !== 'PUT' && sha256 !== EMPTY_SHA256) throw new Refusal(400, 'only a PUT has a body')
  for (const [old, usedAt] of nonces) {
    // By then the date of its request is out of the window, whatever the clocks were.
    if (now - usedAt < 2 * WINDOW_SECONDS + 1) break
    nonces.delete(old)
  }
  if (!/^[0-9a-f]{32}$/.test(nonce ?? '') || nonces.has(nonce ?? ''))
    throw new Refusal(401, 'the nonce is not a new one')
  nonces.set(nonce ?? '', now)
}

/** A page of records, in order of the UTF-8 bytes of their paths: what follows `after`, and lies at or under `under`. */
function page(query: URLSearchParams): { files: FileRecord[]; next?: string } {
  sortedPaths ??= [...records.keys()].toSorted(compareBytes)
  const [after, under] = [query.get('after'), query.get('under')]
  const list: FileRecord[] = []
  let last = ''
  for (const path of sortedPaths.slice(after === null ? 0 : firstAfter(sortedPaths, after))) {
    if (under !== null && path !== under && !path.startsWith(`${under}/`)) continue
    if (list.length === PAGE_FILES) return { files: list, next: last }
    const record = records.get(path)
    if (record !== undefined) list.push(record)
    last = path
  }
  return { files: list }
}

/** Where the first path is that is greater, in a sorted list. */
function firstAfter(paths: readonly string[], after: string): number {
  let [low, high] = [0, paths.length]
  while (low < high) {
    const middle = (low + high) >> 1
    if (compareBytes(paths[middle] ?? '', after) > 0) high = middle
    else low = middle + 1
  }
  return low
}

function compareBytes(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b))
}

/** Takes a file in. Nothing shows before its bytes are all there, and are those that were signed. */
async function receive(request: IncomingMessage, path: string): Promise<FileRecord> {
  const temporary = join(incoming, randomUUID())
  const hash = createHash('sha256')
  let size = 0
  try {
    const count = async function* (chunks: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
      for await (const chunk of chunks) {
        hash.update(chunk)
        size += chunk.length
        yield chunk
      }
    }
    await pipeline(request, count, fs.createWriteStream(temporary, { flush: true }))
    const sha256 = hash.digest('hex')
    if (sha256 !== headerOf(request, 'eider-content-sha256')) throw new Refusal(422, 'the bytes have another hash')
    if (size !== Number(headerOf(request, 'content-length'))) throw new Refusal(411, 'a length is needed')
    const record = { path, size, mtime: headerOf(request, 'eider-mtime'), sha256, version: randomUUID() }
    fs.mkdirSync(dirname(join(files, path)), { recursive: true })
    // Both without letting another request in between, so that the record is that of the bytes.
    fs.renameSync(temporary, join(files, path))
    note(path, record)
    return record
  } finally {
    fs.rmSync(temporary, { force: true })
  }
}

function remove(path: string): [status: number] {
  if (!records.has(path)) return [204]
  // Told first: a file without a record does less harm than a record without its file.
  note(path, undefined)
  fs.rmSync(join(files, path), { force: true })
  for (let parent = dirname(path); parent !== '.'; parent = dirname(parent)) {
    if (fs.readdirSync(join(files, parent)).length > 0) break
    fs.rmdirSync(join(files, parent))
  }
  return [204]
}

function pathOf(pathname: string): string {
  if (!pathname.startsWith(`${BASE}/`)) throw new Refusal(404, 'there is nothing of that name')
  const names = pathname
    .slice(BASE.length + 1)
    .split('/')
    .map(decodeURIComponent)
  const isWrong = (name: string): boolean => name === '' || name === '.' || name === '..' || /[/\0]/.test(name)
  if (names.some(isWrong)) throw new Refusal(400, 'the path is not one of a file')
  return names.join('/')
}

function readIndex(): Map<string, FileRecord> {
  for (const directory of [files, incoming]) fs.mkdirSync(directory, { recursive: true })
  for (const left of fs.readdirSync(incoming)) fs.rmSync(join(incoming, left))
  const found = new Map<string, FileRecord>()
  const lines = fs.existsSync(index) ? fs.readFileSync(index, 'utf8').split('\n') : []
  // What follows the last line's end was cut by a crash.
  for (const line of lines.slice(0, -1)) {
    const { path, record } = JSON.parse(line) as { path: string; record?: FileRecord }
    if (record === undefined) found.delete(path)
    else found.set(path, record)
  }
  fs.writeFileSync(`${index}.new`, [...found].map(([path, record]) => `${JSON.stringify({ path, record })}\n`).join(''))
  fs.renameSync(`${index}.new`, index)
  return found
}

function note(path: string, record: FileRecord | undefined): void {
  fs.appendFileSync(index, `${JSON.stringify({ path, record })}\n`)
  if (record === undefined || !records.has(path)) sortedPaths = undefined
  if (record === undefined) records.delete(path)
  else records.set(path, record)
}

function answer(response: ServerResponse, nonce: string, status: number, body: string): void {
  const signature = hmac(
    ['eider-http-1-answer', nonce, status, createHash('sha256').update(body).digest('hex')].join('\n'),
  )
  response.writeHead(status, { 'content-type': 'application/json', 'eider-signature': signature.toString('hex') })
  response.end(body)
}

function hmac(text: string): Buffer {
  return createHmac('sha256', secret ?? '')
    .update(text)
    .digest()
}

function headerOf(request: IncomingMessage, name: string): string {
  return String(request.headers[name] ?? '')
}
