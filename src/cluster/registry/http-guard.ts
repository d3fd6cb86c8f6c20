/**
 * Who may ask the registry by HTTP. With a secret: whoever knows it, and readers on this machine. Without one: this machine alone.
 *
 * A page of somebody else, open in a browser on this machine, must not do it either: a name of its own that it has led here (DNS
 * rebinding) is not one that this host is asked by, and a form or script of another origin cannot send what changes ask for.
 */
import { createHash, timingSafeEqual } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import { isIP } from 'node:net'

import { OperationError } from '#base/errors.ts'
import { isLoopback } from '#cluster/wire/tcp-address.ts'

export interface Objection {
  readonly status: number
  readonly error: OperationError
  readonly headers: Readonly<Record<string, string>>
}

const ASK_FOR_SECRET = { 'www-authenticate': 'Basic realm="Eider registry", charset="UTF-8"' }
/** Proxies say by these that somebody else asks. */
const FORWARDED = ['forwarded', 'x-forwarded-for', 'x-real-ip', 'via'] as const

/** Why the request is not answered; undefined where it is. */
export function objectionTo(request: IncomingMessage, secret: Buffer | undefined): Objection | undefined {
  const isChange = request.method !== 'GET' && request.method !== 'HEAD'
  const given = givenSecret(request.headers.authorization)
  const knowsSecret = secret !== undefined && given !== undefined && isSameSecret(given, secret)
  if (!knowsSecret) {
    const isHere = isFromHere(request)
    if (secret !== undefined && (isChange || !isHere || given !== undefined)) {
      return refusal(401, 'it takes the secret of the cluster, as a bearer token or as a password', ASK_FOR_SECRET)
    }
    if (!isHere) return refusal(403, 'without a secret the registry answers this machine alone')
    if (!isOurHost(request.headers.host)) return refusal(403, 'it was asked by a name that is not that of this machine')
  }
  return isChange ? objectionToOrigin(request) : undefined
}

function objectionToOrigin({ headers }: IncomingMessage): Objection | undefined {
  const { origin, host } = headers
  if (origin !== undefined && URL.parse(origin)?.host !== host) return refusal(403, 'a page of another origin asks')
  const site = headers['sec-fetch-site']
  if (site !== undefined && site !== 'same-origin' && site !== 'none') return refusal(403, 'another site asks')
  // Forms cannot send that, and scripts of another origin must ask first, which is not answered.
  if (/^application\/json(?:;|$)/i.test(headers['content-type'] ?? '')) return undefined
  const error = new OperationError('INPUT_INVALID', 'Cannot take the request: its content type is not application/json')
  return { status: 415, error, headers: {} }
}

function refusal(status: number, detail: string, headers: Objection['headers'] = {}): Objection {
  return { status, headers, error: new OperationError('WIRE_REFUSED', `Cannot answer: ${detail}`) }
}

function isFromHere({ socket, headers }: IncomingMessage): boolean {
  return isLoopback(socket.remoteAddress ?? '') && FORWARDED.every((name) => headers[name] === undefined)
}

/** An address, which no name server can make lead elsewhere, or a name that leads here on every machine. */
function isOurHost(host: string | undefined): boolean {
  const name = URL.parse(`http://${host ?? ''}`)?.hostname ?? ''
  return name === 'localhost' || name.endsWith('.localhost') || isIP(name.replace(/^\[(.*)\]$/, '$1')) !== 0
}

/** Headers are bytes, as latin1. */
function givenSecret(authorization: string | undefined): Buffer | undefined {
  if (authorization === undefined) return undefined
  const [scheme = '', value = ''] = authorization.split(/ +(.*)/s)
  if (scheme.toLowerCase() === 'bearer') return Buffer.from(value.trim(), 'latin1')
  if (scheme.toLowerCase() !== 'basic') return Buffer.alloc(0)
  const pair = Buffer.from(value, 'base64')
  return pair.subarray(pair.indexOf(':') + 1)
}

/** In a time that says nothing of where they differ, nor of how long the secret is. */
function isSameSecret(a: Buffer, b: Buffer): boolean {
  const digest = (bytes: Buffer): Buffer => createHash('sha256').update(bytes).digest()
  return timingSafeEqual(digest(a), digest(b))
}
