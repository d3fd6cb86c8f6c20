/**
 * Who a store is opened as. Keys in the options and in the environment are taken as they are; only where there are none
 * is the SDK's chain loaded (profile, SSO, container, instance role with IMDSv2), which costs a tenth of a second.
 * Temporary credentials are fetched again before they end, once at a time, and in the background while they still hold.
 */
import { logger } from '#base/log.ts'
import { OperationError } from '#base/errors.ts'
import type { S3Options } from './endpoint.ts'

export interface Credentials {
  readonly accessKeyId: string
  readonly secretAccessKey: string
  readonly sessionToken?: string | undefined
  readonly expiration?: Date | undefined
}

/** Gives credentials that hold now; undefined means that requests go unsigned. */
export type CredentialSource = () => Credentials | undefined | Promise<Credentials | undefined>

/** Fetched anew so long before they end. */
const REFRESH_MS = 5 * 60_000
/** No longer used so shortly before they end. */
const UNUSABLE_MS = 30_000

const log = logger('store/s3')

/** The source that the options choose. */
export function credentialSource(options: S3Options): CredentialSource {
  if (options.anonymous === true) return () => undefined
  if (options.credentials !== undefined) return constant(options.credentials)
  const fromEnvironment = options.profile === undefined ? environmentCredentials(process.env) : undefined
  if (fromEnvironment !== undefined) return constant(fromEnvironment)
  return refreshed(() => chainCredentials(options.profile))
}

function constant(credentials: Credentials): CredentialSource {
  return () => credentials
}

/** `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and `AWS_SESSION_TOKEN`. */
export function environmentCredentials(environment: NodeJS.ProcessEnv): Credentials | undefined {
  const accessKeyId = environment['AWS_ACCESS_KEY_ID']
  const secretAccessKey = environment['AWS_SECRET_ACCESS_KEY']
  if (accessKeyId === undefined || accessKeyId === '') return undefined
  if (secretAccessKey === undefined || secretAccessKey === '') return undefined
  return { accessKeyId, secretAccessKey, sessionToken: environment['AWS_SESSION_TOKEN'] || undefined }
}

async function chainCredentials(profile: string | undefined): Promise<Credentials> {
  const { fromNodeProviderChain } = await import('@aws-sdk/credential-providers')
  try {
    return await fromNodeProviderChain(profile === undefined ? {} : { profile })()
  } catch (cause) {
    const detail = cause instanceof Error ? cause.message : String(cause)
    throw new OperationError('CREDENTIALS_MISSING', `Cannot find credentials: ${detail}`, { cause })
  }
}

/** Keeps what `fetch` gives until shortly before it ends. */
export function refreshed(fetch: () => Promise<Credentials>, now: () => number = Date.now): CredentialSource {
  let current: Credentials | undefined
  let pending: Promise<Credentials> | undefined
  const refresh = (): Promise<Credentials> => {
    pending ??= fetch()
      .then((credentials) => (current = credentials))
      .finally(() => (pending = undefined))
    return pending
  }
  return () => {
    if (current === undefined) return refresh()
    const leftMs = current.expiration === undefined ? Number.POSITIVE_INFINITY : current.expiration.getTime() - now()
    if (leftMs < UNUSABLE_MS) return refresh()
    if (leftMs < REFRESH_MS && pending === undefined) {
      refresh().catch((error: unknown) => log.warn({ err: error }, 'cannot refresh credentials yet'))
    }
    return current
  }
}
