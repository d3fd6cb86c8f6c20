/**
 * The supervisor of `eider up`: starts the gateway and the mount as processes of their own, waits until both answer, and
 * ends them in the right order (the mount first, as it still stores through the gateway).
 *
 * The children are in sessions of their own, so that the terminal's Ctrl-C reaches this process alone; they end by
 * themselves when it dies. Who they are is kept in `up.json`, so that a start after a kill waits for them to be gone.
 */
import { closeSync, existsSync, fsyncSync, openSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import type { ChildProcess } from 'node:child_process'
import * as v from 'valibot'
import { OperationError } from '#base/errors.ts'
import { logger } from '#base/log.ts'
import { makeDirectories } from '#os/make-directories.ts'
import { clearStaleMount } from '#os/mount-point.ts'
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
import { goodbye, type MountEnding, welcome } from './up-screen.ts'
import type { UP_OPTIONS } from './up.ts'

const log = logger('cli/up')
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
const StateTextSchema = v.pipe(v.string(), v.parseJson(), StateSchema)

/** Runs until a signal, or until the gateway ends. @throws OperationError, ChildFailure for what keeps it from starting. */
export async function supervise(values: OptionValues<typeof UP_OPTIONS & CommonOptions>): Promise<ExitCode> {
  const signal = stopSignal()
  const { data, mount: folder } = values
  if (isWithin(folder.slice(1), data.slice(1)) || isWithin(data.slice(1), folder.slice(1))) {
    throw new OperationError('USAGE', `Cannot mount on '${folder}' what lies in '${data}': one is inside the other`)
  }
  holdLock(
    join(data, '.eider', 'up.lock'),
    `start on '${data}'`,
    'another "eider up" runs on it',
    'End that one with Ctrl-C where it runs or by SIGTERM, or give this one a tree of its own with --data and --mount.',
  )
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
    const ending = await system.stop()
    if (ended === EXIT.done) ended = EXIT_OF[ending]
    // Where it never was up, the error alone is told: nothing can have been written.
    if (system.welcomed) process.stdout.write(`${goodbye(data, ending)}\n`)
  }
  return ended
}

const EXIT_OF: Readonly<Record<MountEnding, ExitCode>> = {
  stored: EXIT.done,
  kept: EXIT.partly,
  lost: EXIT.failed,
  broken: EXIT.failed,
}

/** A child and its end. */
interface Part {
  readonly child: ChildProcess
  readonly facts: Facts
  readonly ended: Promise<MountEnding>
}

class System {
  readonly #values: OptionValues<typeof UP_OPTIONS & CommonOptions>
  readonly #signal: AbortSignal
  readonly #state: StateFile
  #gateway: Part | undefined
  #mount: Part | undefined
  #stopping = false
  #welcomed = false
  /** Two at a time would each take a mount away. */
  #clearing: Promise<boolean> | undefined

  constructor(values: OptionValues<typeof UP_OPTIONS & CommonOptions>, signal: AbortSignal) {
    this.#values = values
    this.#signal = signal
    this.#state = new StateFile(join(values.data, '.eider', 'up.json'))
  }

  /** Whether the screen was shown that invites to write. */
  get welcomed(): boolean {
    return this.#welcomed
  }

  async start(): Promise<void> {
    const { data, mount: folder, listen } = this.#values
    const state = this.#state.read()
    await orphansEnded(state.children)
    makeDirectories(join(data, BUCKET))
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
    this.#welcomed = true
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
    void this.#mount?.ended.then(async () => {
      if (this.#stopping) return
      await this.#clearMount()
      process.stderr.write(
        `eider: the mount on ${this.#values.mount} has ended; the S3 API is still served\n` +
          `  hint: Stop and start "eider up" again to have it back; the log of the mount: ${this.#log('mount.log')}\n`,
      )
    })
    await Promise.race([stopped(this.#signal), gateway.ended])
    if (this.#signal.aborted) return EXIT.done
    throw new OperationError(
      'LOCAL_FAILED',
      `Cannot go on: the gateway has ended; its log: ${this.#log('gateway.log')}`,
    )
  }

  /** The mount first: what it still has to store goes through the gateway. Gives how the mount ended. */
  async stop(): Promise<MountEnding> {
    this.#stopping = true
    const ending = await endPart(this.#mount)
    await this.#clearMount()
    await endPart(this.#gateway)
    this.#state.write({ ...this.#state.read(), children: [] })
    return ending
  }

  /** A mount whose process was killed stays as a folder that fails every access, until somebody takes it away. */
  async #clearMount(): Promise<void> {
    if (this.#mount === undefined) return
    try {
      await (this.#clearing ??= clearStaleMount(this.#values.mount))
    } catch (error) {
      log.warn({ err: error, directory: this.#values.mount }, 'cannot take the dead mount away')
    }
    this.#clearing = undefined
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
    const file = this.#log(`${name}.log`)
    const errors = openErrors(file)
    try {
      const { child, facts } = await startReady([...args, `--log=${file}`, `--log-level=${this.#values.logLevel}`], {
        errors,
        environment: { ...plainEnvironment(), ...keys },
        signal: this.#signal,
      })
      const ended = new Promise<MountEnding>((resolve) => {
        child.once('exit', (code) => resolve(endingOf(code)))
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
    const read = v.safeParse(StateTextSchema, readFileSync(this.#file, 'utf8'))
    if (read.success) return read.output
    log.warn({ file: this.#file, why: read.issues[0].message }, 'starting anew, as what the last start left is damaged')
    return { children: [] }
  }

  write(state: State): void {
    const temporary = `${this.#file}.new`
    const fd = openSync(temporary, 'w')
    try {
      writeFileSync(fd, JSON.stringify(state))
      // A crash of the machine may otherwise leave the new name with an empty file.
      fsyncSync(fd)
    } finally {
      closeSync(fd)
    }
    renameSync(temporary, this.#file)
  }
}

/** Only what the process says itself counts: a signal, or a code that it never gives, says nothing of what it wrote. */
function endingOf(code: number | null): MountEnding {
  if (code === EXIT.done) return 'stored'
  if (code === EXIT.partly) return 'kept'
  return code === EXIT.failed ? 'lost' : 'broken'
}

async function endPart(part: Part | undefined): Promise<MountEnding> {
  if (part === undefined) return 'stored'
  part.child.kill('SIGTERM')
  const patience = setTimeout(() => part.child.kill('SIGKILL'), ENDING_MS_MAX)
  const ending = await part.ended
  clearTimeout(patience)
  return ending
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
