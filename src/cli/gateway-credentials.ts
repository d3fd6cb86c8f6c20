/**
 * The key pair of the gateway: given by variables, or made once and kept in a file that only its owner reads. For a
 * directory that file lies with the store, so that the same tree has the same keys wherever it is served from.
 */
import { createHash, randomBytes } from 'node:crypto'
import { linkSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import * as v from 'valibot'
import { OperationError } from '#base/errors.ts'
import { makeDirectories } from '#os/make-directories.ts'
import { stateDirectory } from './places.ts'

const PairSchema = v.object({
  accessKey: v.pipe(v.string(), v.minLength(3)),
  secretKey: v.pipe(v.string(), v.minLength(8)),
})

export interface GatewayCredentials {
  readonly accessKey: string
  readonly secretKey: string
  /** The file that holds them; undefined: they were given. */
  readonly file: string | undefined
  /** Whether they were made just now. */
  readonly made: boolean
}

export interface CredentialSources {
  readonly accessKey: string | undefined
  readonly secretKey: string | undefined
  /** Where they are kept instead of the usual place. */
  readonly file: string | undefined
}

/** The key pair for that store. @throws OperationError `USAGE`, `LOCAL_FAILED`. */
export function gatewayCredentials(storeUrl: string, sources: CredentialSources): GatewayCredentials {
  const { accessKey, secretKey } = sources
  if (accessKey !== undefined && secretKey !== undefined) return { accessKey, secretKey, file: undefined, made: false }
  if (accessKey !== undefined || secretKey !== undefined) {
    const [given, missing] = accessKey === undefined ? ['SECRET', 'ACCESS'] : ['ACCESS', 'SECRET']
    throw new OperationError('USAGE', `Cannot use EIDER_${given}_KEY: EIDER_${missing}_KEY must be given with it`)
  }
  const file = sources.file ?? usualFile(storeUrl)
  const made = makeUnlessThere(file)
  return { ...read(file), file, made }
}

function usualFile(storeUrl: string): string {
  if (storeUrl.startsWith('file:')) return join(fileURLToPath(storeUrl), '.eider', 'gateway.json')
  return join(stateDirectory(), `gateway-${createHash('sha256').update(storeUrl).digest('hex').slice(0, 24)}.json`)
}

/** Whole or not at all, and of two that start at a time one makes it: the file is linked into place. */
function makeUnlessThere(file: string): boolean {
  const pair = { accessKey: `EIDER${random(15)}`, secretKey: random(40) }
  const temporary = `${file}.${process.pid}`
  try {
    makeDirectories(dirname(file))
    writeFileSync(temporary, `${JSON.stringify(pair, null, 2)}\n`, { mode: 0o600, flush: true })
    linkSync(temporary, file)
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false
    const detail = error instanceof Error ? error.message : String(error)
    throw new OperationError('LOCAL_FAILED', `Cannot keep the key pair in '${file}': ${detail}`, { cause: error })
  } finally {
    rmSync(temporary, { force: true })
  }
}

function read(file: string): v.InferOutput<typeof PairSchema> {
  try {
    return v.parse(PairSchema, JSON.parse(readFileSync(file, 'utf8')))
  } catch (error) {
    // The detail of what does not parse could show a part of the secret.
    throw new OperationError(
      'LOCAL_FAILED',
      `Cannot read the key pair in '${file}': it is not {"accessKey", "secretKey"}`,
      {
        cause: error instanceof v.ValiError ? undefined : error,
      },
    )
  }
}

/** Letters and digits only: a pair that survives every shell, URL and INI file. */
function random(length: number): string {
  const alphabet = 'ABCDEFGHJKLMNPQRSTUVWXYZ23456789'
  // 32 letters divide 256, so that each is as likely.
  return Array.from(randomBytes(length), (byte) => alphabet[byte % alphabet.length]).join('')
}
