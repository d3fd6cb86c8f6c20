/** The S3 gateway in this process, over a directory store in a temporary directory, for tests that need one. */
import { mkdtemp, mkdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { startGateway, type GatewayOptions } from '#gateway/gateway.ts'
import { openDirectoryStore } from '#store/directory-store.ts'

export interface TestGateway {
  readonly host: string
  readonly port: number
  /** `http://127.0.0.1:PORT` */
  readonly endpoint: string
  readonly region: string
  readonly accessKey: string
  readonly secretKey: string
  /** A temporary directory of this gateway's, for the files of a test. */
  readonly directory: string
  /** The directory that the store is. */
  readonly root: string
  readonly staging: string
  stop(): Promise<void>
}

/** Starts one on a free port of loopback. */
export async function startTestGateway(options: Partial<GatewayOptions> = {}): Promise<TestGateway> {
  const directory = await mkdtemp(join(tmpdir(), 'eider-gateway-'))
  const root = join(directory, 'root')
  const staging = join(directory, 'staging')
  await mkdir(root)
  const store = options.store ?? (await openDirectoryStore(root))
  const accessKey = options.accessKey ?? 'EIDERTESTKEY'
  const secretKey = options.secretKey ?? 'eider/test+secret'
  const gateway = await startGateway({
    host: '127.0.0.1',
    port: 0,
    accessKey,
    secretKey,
    stagingDirectory: staging,
    ...options,
    store,
  })
  const { host, port } = gateway.address
  return {
    host,
    port,
    endpoint: `http://${host}:${port}`,
    region: 'us-east-1',
    accessKey,
    secretKey,
    directory,
    root,
    staging,
    stop: async () => {
      await gateway.close()
      await store.close()
      await rm(directory, { recursive: true, force: true })
    },
  }
}
