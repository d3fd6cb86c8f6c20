/**
 * What requests to S3 cost, as an estimate for people: Amazon's list prices, without storage, transfer, and what a contract
 * changes. Other servers may cost something else or nothing.
 */

/** US dollars for 1,000 requests. */
interface Prices {
  /** PUT, COPY, POST and LIST. */
  readonly change: number
  /** GET, HEAD and all others but DELETE, which is free. */
  readonly look: number
}

/**
 * By storage class: the page "Amazon S3 pricing", region US East (N. Virginia), as of November 2025. Not in it: what some classes
 * ask for each gigabyte that is read or written besides.
 */
const PRICES = {
  STANDARD: { change: 0.005, look: 0.0004 },
  INTELLIGENT_TIERING: { change: 0.005, look: 0.0004 },
  STANDARD_IA: { change: 0.01, look: 0.001 },
  ONEZONE_IA: { change: 0.01, look: 0.001 },
  GLACIER_IR: { change: 0.02, look: 0.01 },
  EXPRESS_ONEZONE: { change: 0.00113, look: 0.00003 },
} as const satisfies Record<string, Prices>

type PriceClass = keyof Prices | 'free'

/** By operation as S3 calls it; those that are not here look at something. */
const CLASSES: Readonly<Record<string, PriceClass>> = {
  PutObject: 'change',
  CopyObject: 'change',
  CreateMultipartUpload: 'change',
  UploadPart: 'change',
  UploadPartCopy: 'change',
  CompleteMultipartUpload: 'change',
  CreateBucket: 'change',
  RenameObject: 'change',
  ListObjectsV2: 'change',
  ListMultipartUploads: 'change',
  ListParts: 'change',
  DeleteObject: 'free',
  DeleteObjects: 'free',
  AbortMultipartUpload: 'free',
}

/** Outcomes of requests that were not served, which cost nothing. */
const UNSERVED: ReadonlySet<string> = new Set(['STORE_UNAVAILABLE', 'STORE_THROTTLED', 'STORE_TIMEOUT'])

/** A count of requests, with the labels of `eider_s3_requests_total`. */
export interface RequestCount {
  readonly operation: string
  readonly outcome: string
  readonly count: number
}

/** What requests cost in US dollars, about; of a storage class that is not known, as of `STANDARD`. */
export function estimatedCostUsd(requests: Iterable<RequestCount>, storageClass = 'STANDARD'): number {
  const prices: Prices = isKnown(storageClass) ? PRICES[storageClass] : PRICES.STANDARD
  let sum = 0
  for (const { operation, outcome, count } of requests) {
    const priceClass = CLASSES[operation] ?? 'look'
    if (priceClass !== 'free' && !UNSERVED.has(outcome)) sum += (count / 1000) * prices[priceClass]
  }
  return sum
}

function isKnown(storageClass: string): storageClass is keyof typeof PRICES {
  return Object.hasOwn(PRICES, storageClass)
}
