/**
 * The cheapest server that an S3 client is content with: the same answers to every GET, HEAD and PUT, straight on a socket. A
 * program of its own, so that a benchmark counts the CPU of its client alone; prints its port, ends with its stdin.
 */
import { createServer } from 'node:net'

const BODY = Buffer.alloc(1024, 'x')
const HEADERS = [
  'Date: Sat, 21 Nov 2026 00:00:00 GMT',
  'Last-Modified: Sat, 21 Nov 2026 00:00:00 GMT',
  'ETag: "5d41402abc4b2a76b9719d911017c592"',
  'Content-Type: application/octet-stream',
  'x-amz-meta-attr: {"st_uid": 0, "st_gid": 0, "st_mode": 33188, "st_mtime": 1700000000.123456789, "st_size": 1024}',
  'x-amz-request-id: 0123456789ABCDEF',
]
const answer = (length: number, body: Buffer): Buffer => {
  const head = ['HTTP/1.1 200 OK', ...HEADERS, `Content-Length: ${length}`, '', ''].join('\r\n')
  return Buffer.concat([Buffer.from(head), body])
}
const NO_BODY = Buffer.alloc(0)
const LIST = Buffer.from(
  '<ListBucketResult><EncodingType>url</EncodingType><IsTruncated>false</IsTruncated></ListBucketResult>',
)
const GET = answer(BODY.length, BODY)
const HEAD = answer(BODY.length, NO_BODY)
const PUT = answer(0, NO_BODY)
const LISTING = answer(LIST.length, LIST)

function answerTo(head: string): Buffer {
  if (head.includes('list-type=2')) return LISTING
  if (head.startsWith('GET')) return GET
  return head.startsWith('HEAD') ? HEAD : PUT
}

const server = createServer({ noDelay: true }, (socket) => {
  let pending = NO_BODY
  // A client that goes away is the end of its connection and no more.
  socket.on('error', () => socket.destroy())
  socket.on('data', (chunk) => {
    pending = pending.length === 0 ? chunk : Buffer.concat([pending, chunk])
    for (;;) {
      const end = pending.indexOf('\r\n\r\n')
      if (end === -1) return
      const head = pending.toString('latin1', 0, end)
      const length = Number(/\r\ncontent-length: (\d+)/i.exec(head)?.[1] ?? 0)
      if (pending.length < end + 4 + length) return
      pending = pending.subarray(end + 4 + length)
      socket.write(answerTo(head))
    }
  })
})
server.listen(0, '127.0.0.1', () => {
  const address = server.address()
  if (address !== null && typeof address === 'object') process.stdout.write(`${address.port}\n`)
})
process.stdin.resume()
process.stdin.on('end', () => process.exit(0))
