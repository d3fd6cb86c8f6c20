/** Places for a sync of a test: a source, a target and a state, removed at the end; the words that name them, and files. */
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'

import { OWN_NAME } from '#store/path.ts'
import type { ServerKeys } from '#test/servers/bucket.ts'

import { unmountBelow } from './mounts.ts'

export interface Places {
  readonly base: string
  readonly source: string
  readonly target: string
  readonly state: string
  /** `SOURCE --to TARGET --state STATE` */
  readonly words: readonly string[]
}

/** Makes them for as long as `use` takes. */
export async function withPlaces(use: (places: Places) => Promise<void>): Promise<void> {
  const base = mkdtempSync(join(tmpdir(), 'eider-sync-'))
  const [source, target, state] = [join(base, 'source'), join(base, 'target'), join(base, 'state')]
  mkdirSync(source)
  mkdirSync(target)
  try {
    await use({ base, source, target, state, words: [source, '--to', target, '--state', state] })
  } finally {
    unmountBelow(base)
    rmSync(base, { recursive: true, force: true })
  }
}

/** Files by their paths, with their content; directories above are made. */
export function fill(root: string, files: Readonly<Record<string, string | Uint8Array>>): void {
  for (const [path, bytes] of Object.entries(files)) {
    mkdirSync(dirname(join(root, path)), { recursive: true })
    writeFileSync(join(root, path), bytes)
  }
}

/** So many small files in a few directories. */
export function fillMany(root: string, count: number): void {
  for (let index = 0; index < count; index++) fill(root, { [`d${index % 10}/f${index}`]: `content ${index}` })
}

/** The content of a file; undefined where there is none. */
export function content(path: string): string | undefined {
  return existsSync(path) ? readFileSync(path, 'utf8') : undefined
}

/** What lies in a directory, without a target's own area. */
export function names(directory: string): string[] {
  return readdirSync(directory).filter((name) => name !== OWN_NAME)
}

/** The environment that names the key pair of a server, and the words for a bucket of it as a target. */
export function bucketEnds(
  { accessKey, secretKey, region }: ServerKeys,
  endpoint: string,
): { readonly env: Readonly<Record<string, string>>; readonly flags: readonly string[] } {
  return {
    env: { AWS_ACCESS_KEY_ID: accessKey, AWS_SECRET_ACCESS_KEY: secretKey },
    flags: ['--endpoint', endpoint, '--region', region, '--style', 'path'],
  }
}
