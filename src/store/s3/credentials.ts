/**
 * Who a store is opened as. Keys in the options and in the environment are taken as they are; only where there are none
 * is the SDK's chain loaded (profile, SSO, container, instance role with IMDSv2), which costs a tenth of a second.
 * Temporary credentials are fetched again before they end, once at a time, and in the background while they still hold.
 */
import { readFile } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join } from 'node:path'

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
  // The chain would go on to the machine's role, and sign as somebody who was not asked for.
  if (profile !== undefined) await checkProfile(profile)
  const { fromNodeProviderChain } = await import('@aws-sdk/credential-providers')
  try {
    return await fromNodeProviderChain(profile === undefined ? {} : { profile })()
  } catch (cause) {
    const detail = cause instanceof Error ? cause.message : String(cause)
    throw new OperationError('CREDENTIALS_MISSING', `Cannot find credentials: ${detail}`, { cause })
  }
}

/** @throws OperationError `CREDENTIALS_MISSING` where no file of the AWS tools has that profile. */
async function checkProfile(profile: string): Promise<void> {
  const { AWS_CONFIG_FILE, AWS_SHARED_CREDENTIALS_FILE } = process.env
  const files = [
    AWS_SHARED_CREDENTIALS_FILE || join(homedir(), '.aws', 'credentials'),
    AWS_CONFIG_FILE || join(homedir(), '.aws', 'config'),
  ]
  // A file that cannot be read has none.
  const texts = await Promise.all(files.map((file) => readFile(file, 'utf8').catch(() => '')))
  const known = new Set(texts.flatMap(profilesIn))
  if (known.has(profile)) return
  const hint = known.size === 0 ? 'There is no profile in them.' : `Those in them are: ${[...known].join(', ')}.`
  throw new OperationError(
    'CREDENTIALS_MISSING',
    `Cannot find credentials: there is no profile "${profile}" in '${files.join("' or '")}'`,
    { hint },
  )
}

function profilesIn(text: string): string[] {
  const heads = text.matchAll(/^\s*\[\s*(?:profile\s+)?["']?([^\]]+?)["']?\s*\]/gm)
  return Array.from(heads, ([, name = '']) => name).filter((name) => !/^(?:sso-session|services)\s/.test(name))
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
