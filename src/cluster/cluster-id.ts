/**
 * Which cluster something belongs to: 128 random bits, which the registry draws when it begins. Each part of a cluster keeps them in the file `cluster`
 * of its directory from its first registration on; so none of them works with the parts of another cluster, whoever gives it
 * a wrong address.
 */
import { OperationError } from '#base/errors.ts'
import { crc32c } from '#cluster/erasure/crc32c.ts'
import { type Codec, fixedBytes } from '#cluster/wire/codec.ts'

/** 32 hexadecimal digits. */
export type ClusterId = string & { readonly __cluster: never }

export const CLUSTER_ID_BYTES = 16
/** In the directory of a part. */
export const CLUSTER_FILE = 'cluster'
const HEX = /^[0-9a-f]{32}$/
const FILE = /^eider cluster 1\nid ([0-9a-f]{32})\n(?=crc32c ([0-9a-f]{8})\n$)/

const idBytes = fixedBytes(CLUSTER_ID_BYTES)
export const clusterId: Codec<ClusterId> = {
  write: (to, value) => idBytes.write(to, Buffer.from(value, 'hex')),
  read: (from) => clusterIdOf(idBytes.read(from)),
  form: 'cluster id (16 bytes)',
}

/** Of so many random bytes. */
export function clusterIdOf(bytes: Buffer): ClusterId {
  return bytes.toString('hex') as ClusterId
}

/** As people write it; undefined where it is none. */
export function parseClusterId(text: string): ClusterId | undefined {
  const digits = text.toLowerCase()
  return HEX.test(digits) ? (digits as ClusterId) : undefined
}

/** What the file has. */
export function encodeClusterFile(id: ClusterId): Buffer {
  const text = `eider cluster 1\nid ${id}\n`
  return Buffer.from(`${text}crc32c ${checksumOf(text)}\n`)
}

/** Undefined where it is not one, or not as it was written. */
export function decodeClusterFile(bytes: Uint8Array): ClusterId | undefined {
  const match = FILE.exec(Buffer.from(bytes).toString('latin1'))
  if (match === null) return undefined
  const [text, id = '', checksum] = match
  return checksumOf(text) === checksum ? (id as ClusterId) : undefined
}

/** What is of one cluster is not taken by the registry of another. @throws CLUSTER_MISMATCH */
export function checkSameCluster(action: string, own: ClusterId, registrys: ClusterId): void {
  if (own === registrys) return
  throw new OperationError(
    'CLUSTER_MISMATCH',
    `${action}: the part is of cluster ${own}, and the registry of cluster ${registrys}`,
  )
}

function checksumOf(text: string): string {
  return crc32c(Buffer.from(text)).toString(16).padStart(8, '0')
}
