/** Sending what the target has not: many small files to a bucket at some distance, few large ones to one nearby, and a tree to a directory. */
import { cpSync, mkdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { FarBucket } from '#bench/mount/far-bucket.ts'
import type { BenchRow } from '#bench/table.ts'
import { bucketUrl, installed, type Peer, rcloneHome, s3cmdHome, syncOnce, timed } from './programs.ts'
import { inTurns, median, type Run, rowOf, type Scenario } from './row.ts'
import { countFiles, layTree } from './trees.ts'

const SMALL_FILES = 10_000
const SMALL_DIRECTORIES = 100
const SMALL_BYTES = 4096
const SMALL_ROUNDS = 3
/** s3cmd sends one file at a time: of all of them it would take minutes. */
const S3CMD_FILES = 1000
const LARGE_FILES = 4
const LARGE_BYTES = 2 ** 30
const LARGE_ROUNDS = 3
const FIRST_ROUNDS = 3

/** Copies to a place of the bucket that is empty again afterwards. Undefined where the peer is not installed. */
class IntoBucket {
  readonly #far: FarBucket
  readonly #scratch: string
  #runs = 0

  constructor(far: FarBucket, scratch: string) {
    this.#far = far
    this.#scratch = scratch
  }

  /** Gives files, or megabytes, a second: `amount` is what is copied. */
  async rate(amount: number, files: number, copy: (prefix: string) => Promise<number>): Promise<number> {
    const prefix = `run-${++this.#runs}`
    const place = join(this.#far.directory, prefix)
    try {
      const ms = await copy(prefix)
      const found = countFiles(place)
      if (found !== files) throw new Error(`${found} of ${files} files are in the bucket`)
      return (amount / ms) * 1000
    } finally {
      rmSync(place, { recursive: true, force: true })
    }
  }

  async eider(source: string, endpoint: string, prefix: string): Promise<number> {
    const state = join(this.#scratch, `state-${prefix}`)
    const args = [source, `--to=${bucketUrl(this.#far, endpoint, prefix)}`, `--state=${state}`]
    return (await syncOnce(args, join(this.#scratch, 'home'))).ms
  }
}

async function small({ scratch }: Run): Promise<BenchRow[]> {
  const far = await FarBucket.start('puts')
  try {
    const source = join(scratch, 'source')
    layTree(source, SMALL_FILES, SMALL_DIRECTORIES, SMALL_BYTES)
    const fewer = join(scratch, 'fewer')
    layTree(fewer, S3CMD_FILES, SMALL_DIRECTORIES / 10, SMALL_BYTES)
    const into = new IntoBucket(far, scratch)
    const rcloneIn = rcloneHome(scratch, far.endpoint)
    const s3cmdIn = s3cmdHome(scratch, far.endpoint)
    const by = (peer: Peer, files: number, home: string, args: (prefix: string) => string[]) => {
      const program = installed(peer)
      if (program === undefined) return {}
      return { [peer]: () => into.rate(files, files, async (prefix) => (await timed(program, args(prefix), home)).ms) }
    }
    const found = await inTurns<string>(SMALL_ROUNDS, {
      eider: () => into.rate(SMALL_FILES, SMALL_FILES, (prefix) => into.eider(source, far.endpoint, prefix)),
      ...by('rclone', SMALL_FILES, rcloneIn, (prefix) => ['sync', source, `far:${far.name}/${prefix}`]),
      ...by('s3cmd', S3CMD_FILES, s3cmdIn, (prefix) => ['sync', '-q', `${fewer}/`, `s3://${far.name}/${prefix}/`]),
    })
    const common = {
      name: `${SMALL_FILES} files of 4 KiB to S3, 25 ms a put`,
      unit: 'files/s',
      eider: median(found['eider']) ?? Number.NaN,
      better: 'more',
    } as const
    return [
      rowOf({ ...common, other: median(found['rclone']), otherName: 'rclone sync', target: 5 }),
      rowOf({
        ...{ ...common, other: median(found['s3cmd']), otherName: 's3cmd sync', target: 20 },
        note: `s3cmd with ${S3CMD_FILES} files`,
      }),
    ]
  } finally {
    far.stop()
  }
}

async function large({ scratch }: Run): Promise<BenchRow[]> {
  const far = await FarBucket.start('none')
  try {
    const source = join(scratch, 'source')
    mkdirSync(source)
    far.lay('large', LARGE_BYTES)
    for (let index = 0; index < LARGE_FILES; index++)
      cpSync(join(far.directory, 'large'), join(source, `large-${index}`))
    rmSync(join(far.directory, 'large'))
    const into = new IntoBucket(far, scratch)
    const megabytes = (LARGE_FILES * LARGE_BYTES) / 1e6
    const aws = installed('aws')
    const found = await inTurns(LARGE_ROUNDS, {
      eider: () => into.rate(megabytes, LARGE_FILES, (prefix) => into.eider(source, far.near, prefix)),
      ...(aws === undefined
        ? {}
        : {
            awscli: () =>
              into.rate(megabytes, LARGE_FILES, async (prefix) => {
                const where = [source, `s3://${far.name}/${prefix}`, `--endpoint-url=${far.near}`]
                return (await timed(aws, ['s3', 'sync', '--only-show-errors', ...where], join(scratch, 'home'))).ms
              }),
          }),
    })
    return [
      rowOf({
        ...{ name: `${LARGE_FILES} files of 1 GiB to S3`, unit: 'MB/s', eider: median(found.eider) ?? Number.NaN },
        ...{ other: median(found.awscli), otherName: 'aws s3 sync', better: 'more', target: 1 },
      }),
    ]
  } finally {
    far.stop()
  }
}

async function first({ scratch }: Run): Promise<BenchRow[]> {
  const source = join(scratch, 'source')
  layTree(source, SMALL_FILES, SMALL_DIRECTORIES, SMALL_BYTES)
  const home = join(scratch, 'home')
  const rsync = installed('rsync')
  let runs = 0
  /** Into an empty directory, on the same file system. */
  const into = async (copy: (target: string) => Promise<number>): Promise<number> => {
    const target = join(scratch, `target-${++runs}`)
    mkdirSync(target)
    try {
      const ms = await copy(target)
      if (countFiles(target) !== SMALL_FILES) throw new Error('not all files were copied')
      return ms
    } finally {
      rmSync(target, { recursive: true })
    }
  }
  const found = await inTurns(FIRST_ROUNDS, {
    eider: () =>
      into(async (target) => {
        const args = [source, `--to=${target}`, `--state=${target}-state`, '--metadata']
        return (await syncOnce(args, home)).ms
      }),
    ...(rsync === undefined
      ? {}
      : { rsync: () => into(async (target) => (await timed(rsync, ['-a', `${source}/`, `${target}/`], home)).ms) }),
  })
  return [
    rowOf({
      ...{ name: `first copy of ${SMALL_FILES} files of 4 KiB, local`, unit: 'ms' },
      ...{
        eider: median(found.eider) ?? Number.NaN,
        other: median(found.rsync),
        otherName: 'rsync -a',
        better: 'less',
      },
      note: 'each file of Eider is durable',
    }),
  ]
}

export const COPYING: readonly Scenario[] = [
  { name: 'small', run: small },
  { name: 'large', run: large },
  { name: 'first', run: first },
]
