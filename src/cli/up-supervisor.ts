/**
 * The supervisor of `eider up`: starts the gateway and the mount as processes of their own, waits until both answer, and
 * ends them in the right order (the mount first, as it still stores through the gateway).
 *
 * The children are in sessions of their own, so that the terminal's Ctrl-C reaches this process alone; they end by
 * themselves when it dies. Who they are is kept in `up.json`, so that a start after a kill waits for them to be gone.
 */
import { closeSync, existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import type { ChildProcess } from 'node:child_process'
import * as v from 'valibot'
import { OperationError } from '#base/errors.ts'
import { isWithin } from '#store/path.ts'
import { EXIT, type ExitCode } from './command.ts'
import { ChildFailure } from './failure.ts'
import { gatewayCredentials } from './gateway-credentials.ts'
import { holdLock } from './held-lock.ts'
import { MOUNT_OPTIONS } from './mount.ts'
import {
  COMMON_OPTIONS,
  type CommonOptions,
  formatHostPort,
  type HostPort,
  type OptionValues,
  variableOf,
} from './options.ts'
import { hasEnded, identityOf } from './process-identity.ts'
import { type Facts, openErrors, startReady } from './readiness.ts'
import { SERVE_S3_OPTIONS } from './serve-s3.ts'
import { stopped, stopSignal } from './stop-signal.ts'
import { goodbye, welcome } from './up-screen.ts'
import type { UP_OPTIONS } from './up.ts'

const BUCKET = 'tree'
const USUAL: HostPort = { host: '127.0.0.1', port: 9000 }
/** What a mount with much to store may take to end; then it is killed, and what was closed is stored anyway. */
const ENDING_MS_MAX = 60_000
/** What the processes of a supervisor that was killed may take to notice and end. */
const ORPHAN_MS_MAX = 20_000

const StateSchema = v.object({
  port: v.optional(v.number()),
  children: v.optional(v.array(v.object({ pid: v.number(), startTicks: v.number() })), []),
})
type State = v.InferOutput<typeof StateSchema>

/** Runs until a signal, or until the gateway ends. @throws OperationError, ChildFailure for what keeps it from starting. */
export async function supervise(values: OptionValues<typeof UP_OPTIONS & CommonOptions>): Promise<ExitCode> {
  const signal = stopSignal()
  const { data, mount: folder } = values
  if (isWithin(folder.slice(1), data.slice(1)) || isWithin(data.slice(1), folder.slice(1))) {
    throw new OperationError('USAGE', `Cannot mount on '${folder}' what lies in '${data}': one is inside the other`)
  }
  holdLock(join(data, '.eider', 'up.lock'), `start on '${data}'`, 'another "eider up" runs on it')
  const system = new System(values, signal)
  let ended: ExitCode = EXIT.failed
  try {
    await system.start()
    ended = await system.run()
  } catch (error) {
    // Stopped while it started is no failure.
    if (!signal.aborted) throw error
    ended = EXIT.done
  } finally {
    const mountEnded = await system.stop()
    if (ended === EXIT.done) ended = mountEnded
    process.stdout.write(`${goodbye(data, mountEnded)}\n`)
  }
  return ended
}

/** A child and its end. */
interface Part {
  readonly child: ChildProcess
  readonly facts: Facts
  readonly ended: Promise<ExitCode>
}

class System {
  readonly #values: OptionValues<typeof UP_OPTIONS & CommonOptions>
  readonly #signal: AbortSignal
  readonly #state: StateFile
  #gateway: Part | undefined
  #mount: Part | undefined
  #stopping = false

  constructor(values: OptionValues<typeof UP_OPTIONS & CommonOptions>, signal: AbortSignal) {
    this.#values = values
    this.#signal = signal
    this.#state = new StateFile(join(values.data, '.eider', 'up.json'))
  }

  async start(): Promise<void> {
    const { data, mount: folder, listen } = this.#values
    const state = this.#state.read()
    await orphansEnded(state.children)
    mkdirSync(join(data, BUCKET), { recursive: true })
    const url = pathToFileURL(data).href
    const keys = gatewayCredentials(url, { ...this.#values, file: undefined })
    const wanted = listen ?? { ...USUAL, port: state.port ?? USUAL.port }
    const address = listen ?? (await freeAddress(wanted))

    this.#gateway = await this.#startPart(['serve', 's3', url, `--listen=${formatHostPort(address)}`], 'gateway', {
      EIDER_ACCESS_KEY: keys.accessKey,
      EIDER_SECRET_KEY: keys.secretKey,
    })
    const endpoint = this.#gateway.facts['endpoint'] ?? ''
    const port = Number(new URL(endpoint).port)
    this.#remember(port)
    const refused = await this.#startMount(endpoint, keys)
    this.#remember(port)
    process.stdout.write(
      welcome({
        data,
        folder: refused === undefined ? folder : undefined,
        refused,
        endpoint,
        bucket: BUCKET,
        ...keys,
        logs: this.#log(''),
        portTaken: listen === undefined && port !== wanted.port ? wanted.port : undefined,
      }),
    )
  }

  /** Until a signal or the end of the gateway; the mount may be taken away meanwhile. */
  async run(): Promise<ExitCode> {
    const gateway = this.#gateway
    if (gateway === undefined) return EXIT.failed
    void this.#mount?.ended.then(() => {
      if (this.#stopping) return
      process.stderr.write(`eider: the mount on ${this.#values.mount} has ended; the S3 API is still served\n`)
    })
    await Promise.race([stopped(this.#signal), gateway.ended])
    if (this.#signal.aborted) return EXIT.done
    throw new OperationError(
      'LOCAL_FAILED',
      `Cannot go on: the gateway has ended; its log: ${this.#log('gateway.log')}`,
    )
  }

  /** The mount first: what it still has to store goes through the gateway. Gives how the mount ended. */
  async stop(): Promise<ExitCode> {
    this.#stopping = true
    const code = await endPart(this.#mount)
    await endPart(this.#gateway)
    this.#state.write({ ...this.#state.read(), children: [] })
    return code
  }

  /** Why there is no mount, where this machine does not allow one. */
  async #startMount(endpoint: string, keys: { accessKey: string; secretKey: string }): Promise<string | undefined> {
    const store = `s3://${BUCKET}?endpoint=${encodeURIComponent(endpoint)}&region=us-east-1&style=path`
    try {
      this.#mount = await this.#startPart(['mount', store, this.#values.mount, '--foreground', '--mkdir'], 'mount', {
        AWS_ACCESS_KEY_ID: keys.accessKey,
        AWS_SECRET_ACCESS_KEY: keys.secretKey,
      })
      return undefined
    } catch (error) {
      if (error instanceof ChildFailure && error.failure.code === 'MOUNT_REFUSED') return error.message
      throw error
    }
  }

  async #startPart(args: readonly string[], name: string, keys: Readonly<Record<string, string>>): Promise<Part> {
    const log = this.#log(`${name}.log`)
    const errors = openErrors(log)
    try {
      const { child, facts } = await startReady([...args, `--log=${log}`, `--log-level=${this.#values.logLevel}`], {
        errors,
        environment: { ...plainEnvironment(), ...keys },
        signal: this.#signal,
      })
      const ended = new Promise<ExitCode>((resolve) => {
        child.once('exit', (code) => resolve(code === EXIT.done || code === EXIT.partly ? code : EXIT.failed))
      })
      return { child, facts, ended }
    } finally {
      closeSync(errors)
    }
  }

  #log(file: string): string {
    return join(this.#values.data, '.eider', 'logs', file)
  }

  #remember(port: number): void {
    const children = [this.#gateway, this.#mount].flatMap((part) =>
      part?.child.pid === undefined ? [] : [identityOf(part.child.pid)],
    )
    this.#state.write({ port, children })
  }
}

/** What the next start must know. */
class StateFile {
  readonly #file: string

  constructor(file: string) {
    this.#file = file
  }

  read(): State {
    if (!existsSync(this.#file)) return { children: [] }
    const read = v.safeParse(StateSchema, JSON.parse(readFileSync(this.#file, 'utf8')))
    return read.success ? read.output : { children: [] }
  }

  write(state: State): void {
    const temporary = `${this.#file}.new`
    writeFileSync(temporary, JSON.stringify(state))
    renameSync(temporary, this.#file)
  }
}

async function endPart(part: Part | undefined): Promise<ExitCode> {
  if (part === undefined) return EXIT.done
  part.child.kill('SIGTERM')
  const patience = setTimeout(() => part.child.kill('SIGKILL'), ENDING_MS_MAX)
  const code = await part.ended
  clearTimeout(patience)
  return code
}

/** Waits for what an earlier supervisor left to end; kills what does not, as it would work in the same places. */
async function orphansEnded(children: State['children']): Promise<void> {
  for (const child of children) {
    if (await hasEnded(child, ORPHAN_MS_MAX)) continue
    process.kill(child.pid, 'SIGKILL')
    await hasEnded(child)
  }
}

/** Without what steers this program or the AWS tools elsewhere: the parts are told all by flags and keys. */
function plainEnvironment(): NodeJS.ProcessEnv {
  const steering = new Set(
    [SERVE_S3_OPTIONS, MOUNT_OPTIONS, COMMON_OPTIONS].flatMap((table) => Object.keys(table).map(variableOf)),
  )
  return Object.fromEntries(
    Object.entries(process.env).filter(([name]) => !name.startsWith('AWS_') && !steering.has(name)),
  )
}

/** The address if nobody listens there, else any free port of its host. */
async function freeAddress(wanted: HostPort): Promise<HostPort> {
  const free = await new Promise<boolean>((resolve) => {
    const probe = createServer()
    probe.once('error', () => resolve(false))
    probe.listen(wanted.port, wanted.host, () => probe.close(() => resolve(true)))
  })
  return free ? wanted : { ...wanted, port: 0 }
}
