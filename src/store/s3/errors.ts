/**
 * What an S3 server's refusals and a broken connection are called here: from an HTTP status and an S3 error code to a
 * code of ours, and whether sending the same request again can help.
 */
import { OperationError, type ErrorCode } from '#base/errors.ts'
import { parseXml, textOf } from './xml.ts'

/** A refusal by an S3 server. */
export class S3Error extends OperationError {
  /** S3's own code (`NoSuchKey`), or `HTTP 404` where the answer had no error document. */
  readonly s3Code: string
  readonly httpStatus: number
  /** The region that the answer names. */
  readonly region: string | undefined
  /** Whether the same request may be sent again after a pause. */
  readonly again: boolean

  constructor(code: ErrorCode, message: string, refusal: Refusal, again: boolean) {
    super(code, message)
    this.s3Code = refusal.s3Code
    this.httpStatus = refusal.status
    this.region = refusal.region
    this.again = again
  }
}

export interface Refusal {
  readonly status: number
  readonly s3Code: string
  readonly detail: string
  readonly region: string | undefined
}

type Row = readonly [code: ErrorCode, again?: 'again']

/** By S3 error code; what is not here goes by status. */
const BY_CODE: Readonly<Record<string, Row>> = {
  NoSuchKey: ['STORE_NOT_FOUND'],
  NoSuchVersion: ['STORE_NOT_FOUND'],
  NoSuchBucket: ['BUCKET_NOT_FOUND'],
  AccessDenied: ['STORE_DENIED'],
  AllAccessDisabled: ['STORE_DENIED'],
  InvalidObjectState: ['STORE_DENIED'],
  InvalidAccessKeyId: ['CREDENTIALS_REFUSED'],
  SignatureDoesNotMatch: ['CREDENTIALS_REFUSED'],
  InvalidToken: ['CREDENTIALS_REFUSED'],
  ExpiredToken: ['CREDENTIALS_REFUSED'],
  TokenRefreshRequired: ['CREDENTIALS_REFUSED'],
  RequestTimeTooSkewed: ['CLOCK_SKEWED'],
  PermanentRedirect: ['REGION_WRONG'],
  TemporaryRedirect: ['REGION_WRONG'],
  AuthorizationHeaderMalformed: ['REGION_WRONG'],
  IllegalLocationConstraintException: ['REGION_WRONG'],
  PreconditionFailed: ['STORE_CONFLICT'],
  ConditionalRequestConflict: ['STORE_CONFLICT', 'again'],
  OperationAborted: ['STORE_UNAVAILABLE', 'again'],
  SlowDown: ['STORE_THROTTLED', 'again'],
  RequestLimitExceeded: ['STORE_THROTTLED', 'again'],
  TooManyRequests: ['STORE_THROTTLED', 'again'],
  ServiceUnavailable: ['STORE_UNAVAILABLE', 'again'],
  InternalError: ['STORE_UNAVAILABLE', 'again'],
  RequestTimeout: ['STORE_TIMEOUT', 'again'],
  BadDigest: ['STORE_CORRUPT', 'again'],
  XAmzContentSHA256Mismatch: ['STORE_CORRUPT', 'again'],
  XAmzContentChecksumMismatch: ['STORE_CORRUPT', 'again'],
  IncompleteBody: ['STORE_CORRUPT', 'again'],
  EntityTooLarge: ['STORE_FILE_TOO_LARGE'],
  KeyTooLongError: ['STORE_NAME_TOO_LONG'],
  MetadataTooLarge: ['STORE_ATTRIBUTES_TOO_LARGE'],
  RequestHeaderSectionTooLarge: ['STORE_ATTRIBUTES_TOO_LARGE'],
  InvalidURI: ['STORE_NAME_INVALID'],
  MethodNotAllowed: ['STORE_UNSUPPORTED'],
  NotImplemented: ['STORE_UNSUPPORTED'],
  QuotaExceeded: ['STORE_NO_SPACE'],
  XMinioStorageFull: ['STORE_NO_SPACE'],
}

function byStatus(status: number): Row {
  if (status === 301 || status === 307) return ['REGION_WRONG']
  if (status === 401 || status === 403) return ['STORE_DENIED']
  if (status === 404) return ['STORE_NOT_FOUND']
  if (status === 405 || status === 501) return ['STORE_UNSUPPORTED']
  if (status === 408) return ['STORE_TIMEOUT', 'again']
  if (status === 409) return ['STORE_CONFLICT']
  if (status === 412) return ['STORE_CONFLICT']
  if (status === 413) return ['STORE_FILE_TOO_LARGE']
  // Amazon's 503 is SlowDown, and an answer to HEAD has no document to say so.
  if (status === 429 || status === 503) return ['STORE_THROTTLED', 'again']
  if (status === 504) return ['STORE_TIMEOUT', 'again']
  if (status === 507) return ['STORE_NO_SPACE']
  if (status >= 500) return ['STORE_UNAVAILABLE', 'again']
  return ['STORE_PROTOCOL']
}

/** What an answer of status 300 or more, or a 200 with an error document, says. */
export function refusalOf(status: number, header: (name: string) => string | undefined, body: Buffer): Refusal {
  const region = header('x-amz-bucket-region')
  if (body.length > 0) {
    try {
      const root = parseXml(body.toString())
      const s3Code = textOf(root, 'Code')
      if (root.name === 'Error' && s3Code !== undefined) {
        const detail = textOf(root, 'Message') ?? ''
        return { status, s3Code, detail, region: region ?? textOf(root, 'Region') }
      }
    } catch {
      // Not a document of S3's, but a proxy's page: its status has to do, and the text goes into the message.
    }
  }
  const detail = body.toString('latin1', 0, 120).replace(/[^ -~]+/g, ' ')
  return { status, s3Code: `HTTP ${status}`, detail, region }
}

/** The error for a refusal; `action` completes "Cannot ...". */
export function s3ErrorOf(action: string, refusal: Refusal): S3Error {
  const [code, again] = BY_CODE[refusal.s3Code] ?? byStatus(refusal.status)
  const detail = refusal.detail === '' ? '' : `, ${refusal.detail.trim().replace(/\.$/, '')}`
  return new S3Error(code, `Cannot ${action}: ${sentence(code)}${refusal.s3Code}${detail}`, refusal, again === 'again')
}

/** For what an operator has to put right: what it means, before S3's own words. */
function sentence(code: ErrorCode): string {
  switch (code) {
    case 'BUCKET_NOT_FOUND':
      return 'the bucket does not exist: '
    case 'CREDENTIALS_REFUSED':
      return 'the credentials are not accepted: '
    case 'CLOCK_SKEWED':
      return `the clock of this machine (${new Date().toISOString()}) is too far from the one of the store: `
    case 'REGION_WRONG':
      return 'the bucket is in another region: '
    default:
      return ''
  }
}

/** The error for a request that got no whole answer. */
export function connectionError(action: string, cause: unknown): OperationError {
  if (cause instanceof OperationError) return cause
  const code = errorCode(cause)
  const late = code.includes('TIMEOUT') || code === 'ETIMEDOUT'
  const text = cause instanceof Error ? cause.message : String(cause)
  const detail = text.includes(code) ? text : `${text} (${code})`
  return new OperationError(late ? 'STORE_TIMEOUT' : 'STORE_UNAVAILABLE', `Cannot ${action}: ${detail}`, { cause })
}

function errorCode(error: unknown): string {
  if (error instanceof AggregateError && error.errors.length > 0) return errorCode(error.errors[0])
  if (error instanceof Error && 'code' in error && typeof error.code === 'string') return error.code
  return ''
}

/** Whether the endpoint is out of reach, too slow or in trouble by its own words, which passes. */
export function isOutage(error: OperationError): boolean {
  return error.code === 'STORE_UNAVAILABLE' || error.code === 'STORE_TIMEOUT' || error.code === 'STORE_THROTTLED'
}

/** S3's words for what was not begun, though their status or code is that of a server in trouble. */
const NOT_BEGUN: ReadonlySet<string> = new Set(['ServiceUnavailable', 'OperationAborted'])
/** Nothing was sent. */
const NOT_REACHED: ReadonlySet<string> = new Set(['ECONNREFUSED', 'ENOTFOUND', 'EAI_AGAIN', 'UND_ERR_CONNECT_TIMEOUT'])

/** Whether a request that failed may have taken effect all the same: it was sent, and not refused. */
export function mayHaveActed(error: OperationError): boolean {
  if (!(error instanceof S3Error)) return !NOT_REACHED.has(errorCode(error.cause))
  if (error.code !== 'STORE_UNAVAILABLE' && error.code !== 'STORE_TIMEOUT') return false
  return !NOT_BEGUN.has(error.s3Code)
}

/** Whether the same request may be sent again. */
export function canRetry(error: unknown): boolean {
  if (error instanceof S3Error) return error.again
  return error instanceof OperationError && error.retry === 'backoff'
}
