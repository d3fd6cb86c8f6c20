/**
 * Signs requests by SigV4 in the Authorization header. Every header that is sent is signed. The signing key is kept for
 * its day, the time for its second: what is left for a request is two hashes and one HMAC.
 */
import { createSecretKey, type KeyObject } from 'node:crypto'

import type { Credentials } from './credentials.ts'
import type { Endpoint } from './endpoint.ts'
import {
  ALGORITHM,
  amzDateOf,
  canonicalHeaderValue,
  canonicalRequest,
  credentialScope,
  EMPTY_SHA256,
  sha256Hex,
  sign,
  signingKey,
  stringToSign,
  UNSIGNED_PAYLOAD,
} from './sigv4.ts'

export type Header = readonly [name: string, value: string]

/** Hashing more than this takes longer than the rest of the request; such a body carries a CRC of its own. */
const HASHED_BYTES_MAX = 64 * 1024

export interface Unsigned {
  readonly method: string
  /** Encoded, without the query. */
  readonly path: string
  /** Encoded and sorted. */
  readonly query: string
  /** Lower-case names in any order; values in ASCII, or in bytes as Latin-1 spells them. */
  readonly headers: readonly Header[]
  readonly body: Uint8Array | undefined
}

export class Signer {
  #second = 0
  #amzDate = ''
  #keyId = ''
  #key: KeyObject | undefined

  /** All headers of the signed request, names and values by turns. */
  sign(request: Unsigned, endpoint: Endpoint, credentials: Credentials | undefined, nowMs: number): string[] {
    const headers: Header[] = [['host', endpoint.host], ...request.headers]
    if (credentials === undefined) return headers.flat()
    const amzDate = this.#date(nowMs)
    const payloadHash = hashOf(request.body, endpoint)
    headers.push(['x-amz-content-sha256', payloadHash], ['x-amz-date', amzDate])
    if (credentials.sessionToken !== undefined) headers.push(['x-amz-security-token', credentials.sessionToken])
    headers.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0))

    const signed = headers.map(([name, value]): Header => [name, canonicalHeaderValue(value)])
    const { method, path, query } = request
    const canonical = canonicalRequest({ method, path, query, headers: signed, payloadHash })
    const date = amzDate.slice(0, 8)
    const scope = credentialScope(date, endpoint.region)
    const text = stringToSign(amzDate, scope, canonical)
    const signature = sign(this.#keyOf(credentials, date, endpoint.region), text)
    const names = headers.map(([name]) => name).join(';')
    const flat = headers.flat()
    flat.push(
      'authorization',
      `${ALGORITHM} Credential=${credentials.accessKeyId}/${scope}, SignedHeaders=${names}, Signature=${signature}`,
    )
    return flat
  }

  #date(nowMs: number): string {
    const second = Math.floor(nowMs / 1000)
    if (second !== this.#second) {
      this.#second = second
      this.#amzDate = amzDateOf(nowMs)
    }
    return this.#amzDate
  }

  #keyOf(credentials: Credentials, date: string, region: string): KeyObject {
    const id = `${date}/${region}/${credentials.secretAccessKey}`
    if (this.#key === undefined || id !== this.#keyId) {
      // A key object: an HMAC with one costs a fifth of one with the same bytes.
      this.#key = createSecretKey(signingKey(credentials.secretAccessKey, date, region))
      this.#keyId = id
    }
    return this.#key
  }
}

function hashOf(body: Uint8Array | undefined, endpoint: Endpoint): string {
  if (body === undefined || body.length === 0) return EMPTY_SHA256
  // Where others could alter it on its way, the signature has to cover the body whatever it costs.
  return body.length <= HASHED_BYTES_MAX || !endpoint.private ? sha256Hex(body) : UNSIGNED_PAYLOAD
}
