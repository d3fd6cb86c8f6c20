/**
 * Addresses of TCP as people write them: `host:port`, where an IPv6 address stands in brackets. Says which of them only this machine
 * can reach; asks no name server by itself.
 */
import { isIP, isIPv4 } from 'node:net'

import { OperationError } from '#base/errors.ts'

export interface HostPort {
  /** Without brackets. */
  readonly host: string
  readonly port: number
}

const PORT_MAX = 0xff_ff

/** @throws OperationError `USAGE` */
export function parsedAddress(address: string): HostPort {
  const match = /^(?:\[([0-9a-f:.]+(?:%[\w.-]+)?)\]|([^\s:[\]/]+)):(\d{1,5})$/i.exec(address)
  const host = match?.[1] ?? match?.[2]
  const port = Number(match?.[3])
  if (host === undefined || port > PORT_MAX || (match?.[1] !== undefined && isIP(host) !== 6))
    throw new OperationError('USAGE', `Cannot use the address "${address}": it is not HOST:PORT`, {
      hint: 'Write it as in 10.0.0.1:8600, node-1:8600 or [fd00::1]:8600.',
    })
  return { host, port }
}

/** What `parsedAddress` reads. */
export function shownAddress(host: string, port: number): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`
}

/** Whether an IP address (no name) is one of this machine that no other one reaches. */
export function isLoopback(ip: string): boolean {
  const plain = ip.toLowerCase().startsWith('::ffff:') ? ip.slice(7) : ip
  if (isIPv4(plain)) return plain.startsWith('127.')
  return plain === '::1' || plain === '0:0:0:0:0:0:0:1'
}
