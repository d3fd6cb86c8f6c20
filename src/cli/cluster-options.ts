/** What every process and client of a cluster is given: the secret that they share, and TLS. */
import { readFile } from 'node:fs/promises'

import { OperationError } from '#base/errors.ts'
import type { ClusterId } from '#cluster/cluster-id.ts'
import { readSecret } from '#cluster/wire/secret.ts'
import type { TlsOptions } from '#cluster/wire/tcp-tls.ts'

import { type OptionRow, type OptionValues, path, string } from './options.ts'

const GROUP = 'Security'
const placeholder = 'FILE'

export const CLUSTER_OPTIONS = {
  secretFile: path({
    help: 'The file with the secret that all processes and clients of the cluster share; needed beyond this machine',
    group: GROUP,
    placeholder,
  }),
  tlsKey: path({ help: 'The private key for TLS, as PEM', group: GROUP, placeholder }),
  tlsCert: path({ help: 'The certificate that goes with it, as PEM', group: GROUP, placeholder }),
  tlsCa: path({
    help: 'The authority that has signed the certificates of the cluster, as PEM',
    group: GROUP,
    placeholder,
  }),
} as const

/** Of those that begin a registry. */
export function clusterIdOption(group: string): OptionRow<string | undefined> {
  return string({
    help: 'Begin the registry anew for the cluster of that id, where its directory was lost; the parts have it in their files "cluster"',
    group,
    placeholder: 'HEX',
  })
}

/** What the option says. @throws OperationError `USAGE` */
export async function clusterIdGiven(text: string | undefined): Promise<ClusterId | undefined> {
  if (text === undefined) return undefined
  // Not before it is needed: most commands have nothing to do with clusters.
  const { parseClusterId } = await import('#cluster/cluster-id.ts')
  const id = parseClusterId(text)
  if (id !== undefined) return id
  throw new OperationError('USAGE', `Cannot use --cluster-id ${text}: it has 32 hexadecimal digits`)
}

export interface ClusterSecurity {
  readonly secret?: Buffer
  readonly tls?: TlsOptions
}

/** Reads the files that the options name. @throws OperationError `USAGE` */
export async function clusterSecurity(values: OptionValues<typeof CLUSTER_OPTIONS>): Promise<ClusterSecurity> {
  const { secretFile, tlsKey, tlsCert, tlsCa } = values
  if ((tlsKey === undefined) !== (tlsCert === undefined)) {
    throw new OperationError('USAGE', 'Cannot use TLS: --tls-key and --tls-cert go together')
  }
  const tls = {
    ...(tlsKey !== undefined && { key: await pem(tlsKey) }),
    ...(tlsCert !== undefined && { cert: await pem(tlsCert) }),
    ...(tlsCa !== undefined && { ca: await pem(tlsCa) }),
  }
  return {
    ...(secretFile !== undefined && { secret: await readSecret(secretFile) }),
    ...(Object.keys(tls).length > 0 && { tls }),
  }
}

async function pem(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8')
  } catch (error) {
    const detail = error instanceof Error ? error.message : String(error)
    throw new OperationError('USAGE', `Cannot read "${file}": ${detail}`, { cause: error })
  }
}
