/**
 * Who a disk is: an id and a key in the file `disk` (docs/formats/blocks.md), made at the first use of an empty directory and
 * never again. A directory that has lost it, or has a damaged one, is refused: with a new key, all permits that shards gave out
 * would be void, and with a new id the blocks there would belong to no disk of the cluster.
 *
 * And which cluster it belongs to, in the file `cluster`, from its first registration on: it is not taken back either.
 */
import { OperationError } from '#base/errors.ts'

import type { BlockFiles } from './block-files.ts'
import { BLOCK_DIRECTORIES } from './block-id.ts'
import { CLUSTER_FILE, type ClusterId, decodeClusterFile, encodeClusterFile } from '#cluster/cluster-id.ts'
import { crc32c } from '#cluster/erasure/crc32c.ts'
import { type DiskId, type DiskKey, KEY_BYTES } from './permit.ts'

export const IDENTITY_FILE = 'disk'
/** Where block files are written before they get their names. */
export const TEMPORARY_DIRECTORY = 'tmp'
/** Made by file systems themselves, at the top of each. */
const FOREIGN_NAMES = new Set(['lost+found'])
const IDENTITY_BYTES_MAX = 4096
const IDENTITY = /^eider disk 1\nid ([1-9][0-9]{0,15})\nkey ([0-9a-f]{64})\n(?=crc32c ([0-9a-f]{8})\n$)/

/** So many random bytes. */
export type RandomBytes = (count: number) => Uint8Array

/**
 * The identity of the disk, made with all its directories where there is nothing yet.
 * @throws DISK_UNUSABLE, and what calls of the file system throw
 */
export async function openIdentity(files: BlockFiles, random: RandomBytes): Promise<DiskKey> {
  const names = new Set((await files.list('')).map(({ name }) => name))
  if (names.has(IDENTITY_FILE)) return readIdentity(files)
  await checkEmpty(files, names)
  const missing = [TEMPORARY_DIRECTORY, ...BLOCK_DIRECTORIES].filter((name) => !names.has(name))
  await Promise.all(missing.map((name) => files.makeDirectory(name)))
  // The directories are durable before the identity is: where that is found, all of them are there.
  await files.syncDirectory('')
  const made = { disk: randomId(random), key: random(KEY_BYTES) }
  await makeFile(files, IDENTITY_FILE, encodeIdentity(made))
  return made
}

/** Undefined where the disk is new. @throws DISK_UNUSABLE, and what calls of the file system throw */
export async function readCluster(files: BlockFiles): Promise<ClusterId | undefined> {
  const bytes = await readSmall(files, CLUSTER_FILE)
  if (bytes === undefined) return undefined
  const cluster = decodeClusterFile(bytes)
  if (cluster === undefined) throw unusable('the file "cluster", which says to which it belongs, is damaged')
  return cluster
}

/** Of a disk that is new. @throws DISK_UNUSABLE, and what calls of the file system throw */
export async function writeCluster(files: BlockFiles, cluster: ClusterId): Promise<void> {
  await makeFile(files, CLUSTER_FILE, encodeClusterFile(cluster))
  // An attempt that failed may have left it there.
  if ((await readCluster(files)) !== cluster) throw unusable('it belongs to another cluster')
}

/** As it lies on the device, not in memory: also a look whether the device still answers. */
export async function readIdentity(files: BlockFiles): Promise<DiskKey> {
  const bytes = await readSmall(files, IDENTITY_FILE)
  if (bytes === undefined) throw unusable('its identity, the file "disk", is gone')
  const identity = decodeIdentity(bytes)
  if (identity === undefined) throw unusable('its identity, the file "disk", is damaged; restore that file')
  return identity
}

async function readSmall(files: BlockFiles, path: string): Promise<Buffer | undefined> {
  const file = await files.open(path, 'uncached')
  if (file === undefined) return undefined
  try {
    const buffer = files.allocate(IDENTITY_BYTES_MAX)
    return Buffer.from(buffer.subarray(0, await file.read(0, buffer)))
  } finally {
    await file.close()
  }
}

/** Whole and durable under its name, or not there. */
async function makeFile(files: BlockFiles, path: string, bytes: Buffer): Promise<void> {
  const temporary = `${TEMPORARY_DIRECTORY}/${path}`
  await files.remove(temporary)
  const file = await files.create(temporary)
  try {
    await file.append([bytes])
    await file.sync()
  } finally {
    await file.close()
  }
  await files.rename(temporary, path)
  await files.syncDirectory('')
}

/** A directory that is only half made is taken for new, one with anybody's files in it is not. */
async function checkEmpty(files: BlockFiles, names: ReadonlySet<string>): Promise<void> {
  for (const name of names) {
    if (name === TEMPORARY_DIRECTORY || FOREIGN_NAMES.has(name)) continue
    if (!BLOCK_DIRECTORIES.includes(name)) throw unusable(`it has no identity, and there is "${name}" in it`)
    if ((await files.list(name)).length > 0) throw unusable('it has blocks, but its identity, the file "disk", is gone')
  }
}

function unusable(detail: string): OperationError {
  return new OperationError('DISK_UNUSABLE', `Cannot use the directory as a disk: ${detail}`)
}

function randomId(random: RandomBytes): DiskId {
  const bytes = Buffer.from(random(7))
  const id = (bytes.readUIntLE(0, 6) + ((bytes[6] ?? 0) & 31) * 2 ** 48) as DiskId
  return id === 0 ? randomId(random) : id
}

function encodeIdentity({ disk, key }: DiskKey): Buffer {
  const text = `eider disk 1\nid ${disk}\nkey ${Buffer.from(key).toString('hex')}\n`
  const crc = crc32c(Buffer.from(text)).toString(16).padStart(8, '0')
  return Buffer.from(`${text}crc32c ${crc}\n`)
}

/** Undefined where it is not one, or not as it was written. */
function decodeIdentity(bytes: Buffer): DiskKey | undefined {
  const match = IDENTITY.exec(bytes.toString('latin1'))
  if (match === null) return undefined
  const [text, id = '', key = '', crc = ''] = match
  const disk = Number(id)
  if (!Number.isSafeInteger(disk) || crc32c(Buffer.from(text, 'latin1')) !== Number.parseInt(crc, 16)) return undefined
  return { disk: disk as DiskId, key: Buffer.from(key, 'hex') }
}
