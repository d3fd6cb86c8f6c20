/**
 * Random system calls on a mount and on a local directory, which must answer alike: results and errnos after each step, the
 * whole trees now and then, and in the end what the bucket has. Over plain mounts and those with a cache, with and
 * without passthrough, read back by another mount, and over a store that fails.
 *
 * 10,000 steps in all by default. By hand:
 *   EIDER_MODEL_STEPS=N   so many in all; with EIDER_MODEL_SEED=random from a seed that is printed
 *   EIDER_MODEL_ONLY=NAME one set-up alone: plain, cache, no-passthrough, remount, faulty, faulty-second, faulty-hour
 * A failure prints the shortest steps found, and the command that takes just those again.
 */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'

import fc from 'fast-check'

import { probeFuse } from '#fuse/probe.ts'

import { BucketMount } from './bucket-mount.ts'
import { FaultyMount } from './faulty-mount.ts'
import { type StepOutcome, TreeWorker } from './tree-worker.ts'
import { type TreeStep, treeStep } from './tree-steps.ts'

const { EIDER_MODEL_STEPS, EIDER_MODEL_SEED, EIDER_MODEL_ONLY, EIDER_MODEL_PATH } = process.env
const STEPS = Number(EIDER_MODEL_STEPS ?? 10_000)
const SEED = EIDER_MODEL_SEED === 'random' ? Date.now() % 2 ** 31 : Number(EIDER_MODEL_SEED ?? 20_261_121)
/** Of a set-up, shrinking included; by hand there is none. */
const LIMIT_MS = EIDER_MODEL_STEPS === undefined ? 240_000 : undefined
/** From here on a run starts in an empty directory again. */
const RUN_STEPS_MAX = 250
const COMPARE_EVERY = 40
/** Every run is one directory of both trees. */
const MOUNT = 0
const LOCAL = 1

const fuse = await probeFuse()
const skip = fuse.available ? false : `no mount can be made here: ${fuse.why}`

/** What is mounted, and what it is compared with. */
interface SetUp extends AsyncDisposable {
  readonly directory: string
  /** Ends the mount, and mounts anew: what a reader finds then came from the store. */
  remount(): Promise<void>
  /** Whether the times of directories are those of changes made through the mount alone. */
  readonly keepsDirectoryTimes: boolean
  /** Whether a file keeps its set-id bits where root writes to it: whoever writes past the mount is taken for a user. */
  readonly keepsSetId: boolean
  /** Whether an errno may be an injected fault. */
  isFault(error: string): boolean
  /** How often the store has failed; undefined where it never does. */
  readonly faultCount: number | undefined
  /** Lets the store work, or fail again; with a seed, by other faults. */
  calm(isCalm: boolean, seed?: number): Promise<void>
}

class BucketSetUp implements SetUp {
  readonly keepsDirectoryTimes = true
  readonly faultCount = undefined
  readonly keepsSetId: boolean
  readonly #mount: BucketMount
  readonly #cache: string

  private constructor(mount: BucketMount, cache: string, isPassedThrough: boolean) {
    this.#mount = mount
    this.keepsSetId = !isPassedThrough
    this.#cache = cache
  }

  static async start(withCache: boolean, ...mountArguments: string[]): Promise<BucketSetUp> {
    const cache = mkdtempSync(join(tmpdir(), 'eider-model-cache-'))
    const cacheArguments = withCache ? ['--cache', cache, '--cache-min-free', '1MB'] : []
    const mount = await BucketMount.start({ mountArguments: [...cacheArguments, ...mountArguments] })
    return new BucketSetUp(mount, cache, withCache && !mountArguments.includes('--no-passthrough'))
  }

  get directory(): string {
    return this.#mount.directory
  }

  remount(): Promise<void> {
    return this.#mount.remount()
  }

  isFault(): boolean {
    return false
  }

  async calm(): Promise<void> {
    // It always works.
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#mount[Symbol.asyncDispose]()
    rmSync(this.#cache, { recursive: true, force: true })
  }
}

interface Kind {
  readonly name: string
  readonly claims: string
  readonly start: () => Promise<SetUp>
  /** Every run ends with a look at what another mount finds. */
  readonly remounts: boolean
}

const KINDS: readonly Kind[] = [
  { name: 'plain', claims: '[S18] [S22] [S26]', start: () => BucketSetUp.start(false), remounts: false },
  { name: 'cache', claims: '[S18] [S22]', start: () => BucketSetUp.start(true), remounts: false },
  {
    name: 'no-passthrough',
    claims: '[S18] [S22]',
    start: () => BucketSetUp.start(true, '--no-passthrough'),
    remounts: false,
  },
  { name: 'remount', claims: '[S18] [S25]', start: () => BucketSetUp.start(true), remounts: true },
  { name: 'faulty', claims: '[S18] [S27] [S110]', start: () => FaultyMount.start(0), remounts: true },
  { name: 'faulty-second', claims: '[S18] [S111]', start: () => FaultyMount.start(1000), remounts: true },
  { name: 'faulty-hour', claims: '[S18] [S112]', start: () => FaultyMount.start(3_600_000), remounts: true },
]

/** What a failure prints. */
function replay(kind: Kind, path: string): string {
  const settings = `EIDER_MODEL_ONLY=${kind.name} EIDER_MODEL_SEED=${SEED} EIDER_MODEL_STEPS=${STEPS} EIDER_MODEL_PATH=${path}`
  return `${settings} node scripts/run.js --test test/mount-model.test.ts`
}

class Run {
  readonly #setUp: SetUp
  readonly #worker: TreeWorker
  readonly #top: string

  constructor(setUp: SetUp, worker: TreeWorker, top: string) {
    this.#setUp = setUp
    this.#worker = worker
    this.#top = top
  }

  async take(given: TreeStep): Promise<void> {
    const step = this.#placed(given)
    const [mounted = {}] = await this.#worker.take(step, [MOUNT])
    if (mounted.error !== undefined && this.#setUp.isFault(mounted.error)) return this.#settle(step, mounted)
    const [local = {}] = await this.#worker.take(step, [LOCAL])
    assert.deepEqual(mounted, local, `the mount (first) answers ${JSON.stringify(given)} as the local directory`)
  }

  /** The step with its paths under the directory of this run. */
  #placed(step: TreeStep): TreeStep {
    const { path, from, to, mode } = step
    return {
      ...step,
      ...(step.do === 'chmod' && !this.#setUp.keepsSetId ? { mode: Number(mode) & 0o1777 } : {}),
      times: this.#setUp.keepsDirectoryTimes,
      ...(path === undefined ? {} : { path: `${this.#top}/${String(path)}` }),
      ...(from === undefined ? {} : { from: `${this.#top}/${String(from)}` }),
      ...(typeof to === 'string' ? { to: `${this.#top}/${to}` } : {}),
    }
  }

  /** After a fault: has it happened, or not? Nothing between the two. */
  async #settle(step: TreeStep, mounted: StepOutcome): Promise<void> {
    await this.#setUp.calm(true)
    const found = await this.#snapshot(MOUNT, false)
    const before = await this.#snapshot(LOCAL, false)
    const happened = JSON.stringify(found) !== JSON.stringify(before)
    for (const done of happenings(step, mounted, happened)) await this.#worker.take(done, [LOCAL])
    assert.deepEqual(
      found,
      await this.#snapshot(LOCAL, false),
      `after ${mounted.error}, ${JSON.stringify(step)} is done or not`,
    )
    await this.#setUp.calm(false)
  }

  /** With `times` also those of directories, which a mount keeps for itself, and a directory store changes at every put. */
  async #snapshot(of: number, times: boolean): Promise<unknown> {
    const tree = await this.#worker.value({ do: 'tree', path: this.#top, times }, of)
    return { tree, handles: await this.#worker.value({ do: 'handles', times }, of) }
  }

  async compare(when: string, times = this.#setUp.keepsDirectoryTimes): Promise<void> {
    await this.#setUp.calm(true)
    const found = await this.#snapshot(MOUNT, times)
    assert.deepEqual(found, await this.#snapshot(LOCAL, times), `the mount (first) is as the local directory ${when}`)
    await this.#setUp.calm(false)
  }

  async finish(remounts: boolean): Promise<void> {
    await this.#setUp.calm(true)
    const outcomes = await this.#worker.take({ do: 'closeall' }, [MOUNT, LOCAL])
    assert.deepEqual(outcomes[MOUNT], outcomes[LOCAL])
    await this.compare('at the end')
    if (!remounts) return
    await this.#setUp.calm(true)
    await this.#setUp.remount()
    await this.compare('to another mount', false)
  }
}

/** What a step that failed by a fault did all the same, as steps that do just that. */
function happenings(step: TreeStep, { stage }: StepOutcome, happened: boolean): TreeStep[] {
  switch (step.do) {
    // The descriptor is gone either way.
    case 'close':
      return [step]
    case 'open':
      return happened ? [{ do: 'touch', path: step['path'] ?? '', flags: step['flags'] ?? 0 }] : []
    case 'writefile':
      if (stage === 'close') return [step]
      return happened || stage === 'write' ? [{ ...step, size: 0 }] : []
    default:
      return happened ? [step] : []
  }
}

/** Takes steps of a kind, in runs that begin in an empty directory each; gives how many, and how often the store failed. */
async function explore(kind: Kind, stepsMin: number): Promise<{ taken: number; faults: number | undefined }> {
  const local = mkdtempSync(join(tmpdir(), 'eider-model-'))
  let taken = 0
  let runs = 0
  let hasFailed = false
  let faults: number | undefined
  try {
    await using setUp = await kind.start()
    const property = fc.asyncProperty(
      fc.array(treeStep, { maxLength: RUN_STEPS_MAX, size: 'max' }),
      fc.noShrink(fc.nat()),
      async (steps: readonly TreeStep[], faultSeed: number) => {
        if (taken >= stepsMin && !hasFailed) return
        const top = `run${runs++}`
        await using worker = new TreeWorker([setUp.directory, local])
        await setUp.calm(true)
        await worker.take({ do: 'mkdir', path: top, mode: 0o755 }, [MOUNT, LOCAL])
        await setUp.calm(false, faultSeed)
        const run = new Run(setUp, worker, top)
        try {
          for (const [index, step] of steps.entries()) {
            await run.take(step)
            taken++
            if (index % COMPARE_EVERY === COMPARE_EVERY - 1) await run.compare(`after ${index + 1} steps`)
          }
          await run.finish(kind.remounts)
        } catch (error) {
          hasFailed = true
          throw error
        }
      },
    )
    const details = await fc.check(property, {
      seed: SEED,
      // More than it takes: those after the last step do nothing.
      numRuns: Math.ceil(stepsMin / (RUN_STEPS_MAX / 8)),
      ...(LIMIT_MS === undefined ? {} : { interruptAfterTimeLimit: LIMIT_MS }),
      ...(EIDER_MODEL_PATH === undefined ? {} : { path: EIDER_MODEL_PATH, endOnFailure: true }),
    })
    faults = setUp.faultCount
    if (details.failed) {
      const again = replay(kind, details.counterexamplePath ?? '')
      const steps = details.counterexample?.[0].map((step) => JSON.stringify(step)).join('\n')
      const cause = details.errorInstance
      throw new Error(
        `${cause instanceof Error ? cause.message : String(cause)}\nafter\n${steps}\nagain by\n${again}`,
        {
          cause,
        },
      )
    }
  } finally {
    rmSync(local, { recursive: true, force: true })
  }
  return { taken, faults }
}

const kinds = KINDS.filter(({ name }) => EIDER_MODEL_ONLY === undefined || name === EIDER_MODEL_ONLY)
for (const kind of kinds) {
  const { name, claims } = kind
  test(`${claims} a mount answers random system calls as a local directory: ${name}`, { skip }, async (t) => {
    const stepsMin = STEPS / kinds.length
    const { taken, faults } = await explore(kind, stepsMin)
    t.diagnostic(`${taken} steps from seed ${SEED}${faults === undefined ? '' : `, and ${faults} faults`}`)
    // From a path fast-check takes just those that it names.
    assert.ok(taken >= stepsMin || EIDER_MODEL_PATH !== undefined, `${taken} steps were taken`)
    assert.ok(faults === undefined || faults >= taken / 100, `${faults} faults happened`)
  })
}
