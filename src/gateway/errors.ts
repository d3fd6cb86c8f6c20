/**
 * The errors that S3's protocol has: one table of code, HTTP status and message, the error that carries one, and the
 * way from an operating error of ours to it. An `S3Error` is an answer to a client; it never leaves the gateway.
 */
import { isOperationError, OperationError, type ErrorCode } from '#base/errors.ts'

const S3_ERRORS = {
  AccessControlListNotSupported: [400, 'This gateway keeps no access control lists: its owner alone has access.'],
  AccessDenied: [403, 'Access Denied'],
  AuthorizationHeaderMalformed: [400, 'The authorization header that you provided is not valid.'],
  AuthorizationQueryParametersError: [400, 'The authorization query parameters that you provided are not valid.'],
  BadDigest: [400, 'The digest or checksum that you specified did not match what was received.'],
  BadRequest: [400, 'The request is not well-formed HTTP.'],
  BucketAlreadyOwnedByYou: [409, 'The bucket that you tried to create already exists, and you own it.'],
  BucketNotEmpty: [409, 'The bucket that you tried to delete is not empty.'],
  ConditionalRequestConflict: [409, 'The object changed while the conditional request ran. Please try again.'],
  EntityTooLarge: [400, 'Your proposed upload exceeds the maximum allowed object size.'],
  EntityTooSmall: [400, 'Your proposed upload is smaller than the minimum allowed object size.'],
  IncompleteBody: [400, 'You did not provide the number of bytes that the Content-Length header named.'],
  InsufficientStorage: [507, 'There is no room left for the object.'],
  InternalError: [500, 'We encountered an internal error. Please try again.'],
  InvalidAccessKeyId: [403, 'The access key id that you provided does not exist in our records.'],
  InvalidArgument: [400, 'Invalid Argument'],
  InvalidBucketName: [400, 'The specified bucket is not valid.'],
  InvalidDigest: [400, 'The Content-MD5 that you specified is not valid.'],
  InvalidLocationConstraint: [400, 'The specified location constraint is not valid.'],
  InvalidPart: [400, 'One or more of the specified parts could not be found, or its entity tag did not match.'],
  InvalidPartNumber: [416, 'The requested part number is not satisfiable.'],
  InvalidPartOrder: [400, 'The list of parts was not in ascending order.'],
  InvalidRange: [416, 'The requested range is not satisfiable.'],
  InvalidRequest: [400, 'Invalid Request'],
  InvalidStorageClass: [400, 'The storage class that you specified is not valid.'],
  InvalidToken: [400, 'The provided token is malformed or otherwise not valid.'],
  InvalidURI: [400, "Couldn't parse the specified URI."],
  KeyTooLongError: [400, 'Your key is too long.'],
  MalformedXML: [400, 'The XML that you provided was not well-formed or did not validate against our schema.'],
  MaxMessageLengthExceeded: [400, 'Your request was too big.'],
  MetadataTooLarge: [400, 'Your metadata headers exceed the maximum allowed metadata size.'],
  MethodNotAllowed: [405, 'The specified method is not allowed against this resource.'],
  MissingContentLength: [411, 'You must provide the Content-Length HTTP header.'],
  MissingRequestBodyError: [400, 'Request body is empty.'],
  NoSuchBucket: [404, 'The specified bucket does not exist.'],
  NoSuchBucketPolicy: [404, 'The bucket policy does not exist.'],
  NoSuchCORSConfiguration: [404, 'The CORS configuration does not exist.'],
  NoSuchKey: [404, 'The specified key does not exist.'],
  NoSuchLifecycleConfiguration: [404, 'The lifecycle configuration does not exist.'],
  NoSuchPublicAccessBlockConfiguration: [404, 'The public access block configuration was not found.'],
  NoSuchTagSet: [404, 'The TagSet does not exist.'],
  NoSuchUpload: [404, 'The specified upload does not exist; it may have been aborted or completed.'],
  NoSuchVersion: [404, 'The specified version does not exist: this gateway keeps one version of an object.'],
  NoSuchWebsiteConfiguration: [404, 'The specified bucket does not have a website configuration.'],
  NotImplemented: [501, 'A header or parameter that you provided implies functionality that is not implemented.'],
  ObjectLockConfigurationNotFoundError: [404, 'Object Lock configuration does not exist for this bucket.'],
  OperationAborted: [409, 'A conflicting operation is in progress against this resource. Please try again.'],
  PreconditionFailed: [412, 'At least one of the pre-conditions that you specified did not hold.'],
  ReplicationConfigurationNotFoundError: [404, 'The replication configuration was not found.'],
  RequestHeaderSectionTooLarge: [431, 'Your request header section exceeds the maximum allowed size.'],
  RequestTimeout: [400, 'Your connection was not read from or written to within the timeout period.'],
  RequestTimeTooSkewed: [403, "The difference between the request time and the server's time is too large."],
  ServerSideEncryptionConfigurationNotFoundError: [404, 'The server side encryption configuration was not found.'],
  ServiceUnavailable: [503, 'Please reduce your request rate.'],
  SignatureDoesNotMatch: [
    403,
    'The request signature that we calculated does not match the signature that you provided. Check your key and signing method.',
  ],
  SlowDown: [503, 'Please reduce your request rate.'],
  XAmzContentSHA256Mismatch: [400, "The provided 'x-amz-content-sha256' header does not match what was computed."],
} as const satisfies Record<string, readonly [status: number, message: string]>

export type S3ErrorCode = keyof typeof S3_ERRORS

interface S3ErrorOptions {
  readonly cause?: unknown
  /** Instead of the table's. */
  readonly status?: number
  /** Further elements of the error document. */
  readonly details?: readonly (readonly [name: string, value: string])[]
  /** Further headers of the answer: name, value, name, value. */
  readonly headers?: readonly string[]
}

/** What a client is told: S3's code, the status, a message (the table's where none is given) and details. */
export class S3Error extends Error {
  override name = 'S3Error'
  readonly code: S3ErrorCode
  readonly status: number
  readonly details: readonly (readonly [name: string, value: string])[]
  readonly headers: readonly string[]

  constructor(code: S3ErrorCode, message?: string, options: S3ErrorOptions = {}) {
    super(message ?? S3_ERRORS[code][1], options.cause === undefined ? undefined : { cause: options.cause })
    this.code = code
    this.status = options.status ?? S3_ERRORS[code][0]
    this.details = options.details ?? []
    this.headers = options.headers ?? []
  }
}

/** What a store's refusal is on the wire; what is not named here is an InternalError, or SlowDown where it may pass. */
const OF_STORE: Partial<Record<ErrorCode, readonly [code: S3ErrorCode, status?: number]>> = {
  STORE_NOT_FOUND: ['NoSuchKey'],
  STORE_CONFLICT: ['PreconditionFailed'],
  // S3 has no code for a key that would have to be a file and a directory at once.
  STORE_NOT_DIRECTORY: ['InvalidRequest', 409],
  STORE_IS_DIRECTORY: ['InvalidRequest', 409],
  STORE_NOT_EMPTY: ['InvalidRequest', 409],
  STORE_NAME_INVALID: ['InvalidArgument'],
  STORE_NAME_TOO_LONG: ['KeyTooLongError'],
  STORE_FILE_TOO_LARGE: ['EntityTooLarge'],
  STORE_ATTRIBUTES_TOO_LARGE: ['MetadataTooLarge'],
  STORE_DENIED: ['AccessDenied'],
  STORE_READ_ONLY: ['MethodNotAllowed'],
  STORE_NO_SPACE: ['InsufficientStorage'],
  STORE_UNSUPPORTED: ['NotImplemented'],
  STORE_THROTTLED: ['SlowDown'],
  STORE_UNAVAILABLE: ['ServiceUnavailable'],
  STORE_TIMEOUT: ['ServiceUnavailable'],
  STAGING_NO_SPACE: ['InsufficientStorage'],
  INPUT_INVALID: ['InvalidRequest'],
}

/** The answer to a request that `error` ended. Messages of operating errors are shown; of others, which may tell of the machine, not. */
export function s3ErrorOf(error: unknown): S3Error {
  if (error instanceof S3Error) return error
  if (error instanceof OperationError) {
    const found = OF_STORE[error.code]
    if (found !== undefined) {
      const [code, status] = found
      return new S3Error(code, error.message, status === undefined ? { cause: error } : { cause: error, status })
    }
  }
  return new S3Error('InternalError', undefined, { cause: error })
}

/** Whether a store said that nothing is there, or that nothing can be. */
export function isNothingThere(error: unknown): boolean {
  return isOperationError(error, 'STORE_NOT_FOUND', 'STORE_NOT_DIRECTORY')
}
