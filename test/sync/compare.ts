/**
 * What differs between a tree and what a sync made of it, by means of their own: rsync, a walk that reads every byte, the listing
 * and the bytes of every object. Empty where they are equal.
 */
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { type BigIntStats, lstatSync, readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { join } from 'node:path'

import { GetObjectCommand, ListObjectsV2Command, NoSuchKey, S3Client } from '@aws-sdk/client-s3'

import { isWithin } from '#store/path.ts'
import type { ServerKeys } from '#test/servers/bucket.ts'

/** The target's own area, of which a source has nothing. */
const OWN_NAME = '.eider'

/** What rsync would do to make the target equal: bytes, modes, owners, times, symlinks. */
export function rsyncDifferences(source: string, target: string): string[] {
  const args = ['-ani', '--delete', '--checksum', '--exclude', `/${OWN_NAME}`, `${source}/`, `${target}/`]
  const { status, stdout, stderr } = spawnSync('rsync', args, { encoding: 'utf8', maxBuffer: 1 << 28 })
  const lines = stdout.split('\n').filter((line) => line !== '')
  return status === 0 ? lines : [...lines, `rsync ended with ${status}: ${stderr}`]
}

export interface CompareOptions {
  /** Modes, owners, times to the nanosecond, symlinks and empty directories count, too. */
  readonly metadata?: boolean
}

/** What a walk of both trees finds, reading every byte. */
export function treeDifferences(source: string, target: string, options: CompareOptions = {}): string[] {
  return mapDifferences(linesOf(source, options), linesOf(target, options))
}

function linesOf(root: string, { metadata = false }: CompareOptions): Map<string, string> {
  const lines = new Map<string, string>()
  const walk = (below: string): void => {
    for (const name of readdirSync(join(root, below))) {
      const path = below === '' ? name : `${below}/${name}`
      if (path === OWN_NAME) continue
      const status = lstatSync(join(root, path), { bigint: true })
      const line = lineOf(join(root, path), status, metadata)
      if (line !== undefined) lines.set(path, line)
      if (status.isDirectory()) walk(path)
    }
  }
  walk('')
  return lines
}

function lineOf(path: string, status: BigIntStats, metadata: boolean): string | undefined {
  const { mode, uid, gid, mtimeNs } = status
  const more = metadata ? ` ${(mode & 0o7777n).toString(8)} ${uid}:${gid} ${mtimeNs}` : ''
  if (status.isFile()) return `file ${digestOf(readFileSync(path))}${metadata ? more : ` ${mtimeNs}`}`
  if (!metadata) return undefined
  if (status.isSymbolicLink()) return `symlink ${readlinkSync(path)} ${uid}:${gid} ${mtimeNs}`
  return status.isDirectory() ? `directory${more}` : undefined
}

/**
 * What the objects of a bucket, below a prefix, are other than the files of a tree. Without `strict`, objects of directories count for
 * nothing: the gateway shows each directory that is empty as one, also where a copy that was refused has made it. Where the source has a
 * symlink or the like, which is left out, the target's content stays, and counts for nothing either.
 */
export async function objectDifferences(
  source: string,
  server: ServerKeys,
  bucket: string,
  prefix = '',
  options: { readonly strict?: boolean } = {},
): Promise<string[]> {
  const files = new Map<string, string>()
  const directories = new Set<string>()
  const leftOut: string[] = []
  for (const entry of readdirSync(source, { withFileTypes: true, recursive: true })) {
    const path = join(entry.parentPath, entry.name)
    const key = path.slice(source.length + 1)
    if (entry.isFile()) files.set(key, digestOf(readFileSync(path)))
    else if (entry.isDirectory()) directories.add(`${key}/`)
    else leftOut.push(key)
  }
  const objects = await objectsOf(server, bucket, prefix)
  // A directory may have an object of its own, and has to where nothing else lies in it.
  for (const key of objects.keys()) {
    const isLeftOut = leftOut.some((path) => isWithin(key, path))
    if (isLeftOut || directories.has(key) || (key.endsWith('/') && options.strict !== true)) objects.delete(key)
  }
  return mapDifferences(files, objects)
}

/** The digest of each object's bytes, by what follows the prefix in its key. */
export async function objectsOf(server: ServerKeys, bucket: string, prefix = ''): Promise<Map<string, string>> {
  const { endpoint, region, accessKey, secretKey } = server
  const client = new S3Client({
    endpoint,
    region,
    forcePathStyle: true,
    credentials: { accessKeyId: accessKey, secretAccessKey: secretKey },
  })
  const found = new Map<string, string>()
  try {
    let token: string | undefined
    do {
      const page = await client.send(
        new ListObjectsV2Command({ Bucket: bucket, Prefix: prefix, ContinuationToken: token }),
      )
      for (const { Key: key = '' } of page.Contents ?? []) {
        const below = key.slice(prefix.length)
        if (below === OWN_NAME || below.startsWith(`${OWN_NAME}/`)) continue
        found.set(below, await digestOfObject(client, bucket, key))
      }
      token = page.NextContinuationToken
    } while (token !== undefined)
  } finally {
    client.destroy()
  }
  return found
}

async function digestOfObject(client: S3Client, bucket: string, key: string): Promise<string> {
  try {
    const { Body: body } = await client.send(new GetObjectCommand({ Bucket: bucket, Key: key }))
    return digestOf((await body?.transformToByteArray()) ?? new Uint8Array(0))
  } catch (error) {
    if (error instanceof NoSuchKey) return 'gone since it was listed'
    throw error
  }
}

function mapDifferences(source: ReadonlyMap<string, string>, target: ReadonlyMap<string, string>): string[] {
  const found: string[] = []
  for (const [path, line] of source) {
    const other = target.get(path)
    if (other === undefined) found.push(`only in the source: ${path} (${line})`)
    else if (other !== line) found.push(`${path}: ${line} is ${other} in the target`)
  }
  for (const [path, line] of target) if (!source.has(path)) found.push(`only in the target: ${path} (${line})`)
  return found
}

function digestOf(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex').slice(0, 16)
}
