/**
 * The S3 gateway over a directory, in a process of its own on one core; its clients are on the other. 1 KiB objects over
 * 32 connections, each request signed beforehand, durable puts to new keys; and 1 GiB up and down by curl, against `cp`
 * of the same bytes between the same two places in turns; the best of each, since a disturbed cp flatters the gateway.
 */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { randomFillSync } from 'node:crypto'
import { once } from 'node:events'
import { closeSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, statSync, writeSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

import { presigned, signedHeaders, wireRequest } from '#test/servers/signed-request.ts'

import type { BenchRow, BenchTable } from './table.ts'

const KEYS = { accessKey: 'EIDERBENCHKEY', secretKey: 'eider-bench-secret' }
const IN_FLIGHT = 32
const SMALL_BYTES = 1024
const SMALL_KEYS = 1000
const GETS = 20_000
const PUTS = 10_000
const LARGE_BYTES = 2 ** 30
const ROUNDS = 5
/** Two cores: the gateway has one, all else the other. */
const GATEWAY_CPU = '1'
const CLIENT_CPU = '0'

/** Runs the benchmark. */
export async function run(): Promise<BenchTable> {
  const directory = mkdtempSync(join(tmpdir(), 'eider-bench-gateway-'))
  const root = join(directory, 'root')
  mkdirSync(join(root, 'bucket'), { recursive: true })
  const gateway = startPinned(root, join(directory, 'staging'))
  try {
    const [line] = (await once(gateway.stdout ?? gateway, 'data')) as [Buffer]
    const port = Number(line.toString())
    const small = await smallObjects(port, gateway.pid ?? 0)
    const large = largeObjects(directory, port)
    return {
      title: `S3 gateway over a directory, on one core`,
      rows: [...small, ...large],
      notes: [
        `Small: ${IN_FLIGHT} connections, best of ${ROUNDS} rounds; puts are to new keys and durable when answered. CPU is the gateway process's.`,
        `Large: ${LARGE_BYTES / 2 ** 20} MiB by curl and by cp in turns, best of ${ROUNDS}; "of cp" is cp's time over ours.`,
        'An upload is durable when it is answered, a cp is not; "of cp, synced" is against cp and then sync of its file.',
      ],
    }
  } finally {
    gateway.stdin?.end()
    await once(gateway, 'exit')
    rmSync(directory, { recursive: true, force: true })
  }
}

function startPinned(root: string, staging: string): ChildProcess {
  const program = fileURLToPath(import.meta.resolve('#test/servers/gateway-process.ts'))
  const profile = process.env['EIDER_BENCH_PROFILE']
  const options = profile === undefined ? [] : ['--cpu-prof', `--cpu-prof-dir=${profile}`]
  const args = [...options, program, root, staging, KEYS.accessKey, KEYS.secretKey]
  return spawn('taskset', ['-c', GATEWAY_CPU, process.execPath, ...args], { stdio: ['pipe', 'pipe', 'inherit'] })
}

async function smallObjects(port: number, pid: number): Promise<BenchRow[]> {
  const body = Buffer.alloc(SMALL_BYTES, 'x')
  const request = (method: string, key: string): Buffer => {
    const target = `/bucket/${key}`
    const payload = method === 'PUT' ? body : ''
    const { headers } = signedHeaders({ method, target, host: `127.0.0.1:${port}`, body: payload }, KEYS)
    return wireRequest(method, target, { ...headers, 'content-length': String(payload.length) }, payload)
  }
  const seeds = Array.from({ length: SMALL_KEYS }, (_, index) => request('PUT', `seed/${index}`))
  await sendAll(port, seeds)
  const gets = Array.from({ length: GETS }, (_, index) => request('GET', `seed/${index % SMALL_KEYS}`))
  const best = { get: { perSecond: 0, cpuUs: Infinity }, put: { perSecond: 0, cpuUs: Infinity } }
  for (let round = 0; round < ROUNDS; round++) {
    const puts = Array.from({ length: PUTS }, (_, index) => request('PUT', `round-${round}/${index}`))
    for (const [name, requests] of [
      ['get', gets],
      ['put', puts],
    ] as const) {
      const cpuBefore = cpuUsOf(pid)
      const perSecond = await sendAll(port, requests)
      const cpuUs = (cpuUsOf(pid) - cpuBefore) / requests.length
      best[name] = { perSecond: Math.max(best[name].perSecond, perSecond), cpuUs: Math.min(best[name].cpuUs, cpuUs) }
    }
  }
  return [
    { name: 'GET 1 KiB', figures: { 'a second': best.get.perSecond, 'CPU µs': best.get.cpuUs, target: '3,000' } },
    {
      name: 'PUT 1 KiB, durable',
      figures: { 'a second': best.put.perSecond, 'CPU µs': best.put.cpuUs, target: '1,500' },
    },
  ]
}

/** User and system time of a process so far. */
function cpuUsOf(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'latin1').split(') ')[1]?.split(' ') ?? []
  // Clock ticks are hundredths of a second on every Linux that Node runs on.
  return (Number(fields[11]) + Number(fields[12])) * 10_000
}

/** Sends the requests over all connections, one at a time on each, and gives how many were answered a second. */
async function sendAll(port: number, requests: readonly Buffer[]): Promise<number> {
  let next = 0
  const start = performance.now()
  await Promise.all(Array.from({ length: IN_FLIGHT }, () => sendOver(port, () => requests[next++])))
  return requests.length / ((performance.now() - start) / 1000)
}

function sendOver(port: number, take: () => Buffer | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect({ port, host: '127.0.0.1', noDelay: true })
    let pending = Buffer.alloc(0)
    const send = (): void => {
      const request = take()
      if (request !== undefined) socket.write(request)
      else {
        socket.destroy()
        resolve()
      }
    }
    socket.on('connect', send)
    socket.on('error', reject)
    socket.on('data', (chunk) => {
      pending = pending.length === 0 ? chunk : Buffer.concat([pending, chunk])
      const end = pending.indexOf('\r\n\r\n')
      if (end === -1) return
      const head = pending.toString('latin1', 0, end)
      const length = Number(/\r\ncontent-length: (\d+)/i.exec(head)?.[1] ?? 0)
      if (pending.length < end + 4 + length) return
      if (!head.startsWith('HTTP/1.1 200')) reject(new Error(pending.toString()))
      pending = Buffer.alloc(0)
      send()
    })
  })
}

function largeObjects(directory: string, port: number): BenchRow[] {
  const source = join(directory, 'source')
  writeRandom(source)
  const host = `127.0.0.1:${port}`
  const stored = join(directory, 'root/bucket/large')
  const url = (method: string): string => `http://${host}${presigned({ method, target: '/bucket/large', host }, KEYS)}`
  const times = { up: [] as number[], down: [] as number[], copy: [] as number[], synced: [] as number[] }
  for (let round = 0; round < ROUNDS; round++) {
    const copied = join(directory, 'copied')
    const copyMs = timed('cp', [source, copied])
    const syncMs = timed('sync', ['-d', copied])
    rmSync(copied)
    times.copy.push(copyMs)
    times.synced.push(copyMs + syncMs)
    rmSync(stored, { force: true })
    times.up.push(timed('curl', ['-sSf', '-T', source, url('PUT')]))
    const down = join(directory, 'down')
    times.down.push(timed('curl', ['-sSf', '-o', down, url('GET')]))
    if (statSync(down).size !== LARGE_BYTES) throw new Error('The download is not whole')
    rmSync(down)
  }
  const rows: BenchRow[] = []
  for (const [name, ms] of [
    ['1 GiB up', Math.min(...times.up)],
    ['1 GiB down', Math.min(...times.down)],
  ] as const) {
    rows.push({
      name,
      figures: {
        'MiB/s': LARGE_BYTES / 2 ** 20 / (ms / 1000),
        'of cp': Math.min(...times.copy) / ms,
        'of cp, synced': Math.min(...times.synced) / ms,
        target: '0.5',
      },
    })
  }
  return rows
}

function writeRandom(path: string): void {
  const fd = openSync(path, 'wx')
  const buffer = randomFillSync(Buffer.alloc(1 << 24))
  for (let done = 0; done < LARGE_BYTES; done += buffer.length) writeSync(fd, buffer)
  closeSync(fd)
}

function timed(command: string, args: readonly string[]): number {
  const start = performance.now()
  const { status, stderr } = spawnSync('taskset', ['-c', CLIENT_CPU, command, ...args])
  if (status !== 0) throw new Error(`${command}: ${String(stderr)}`)
  return performance.now() - start
}
