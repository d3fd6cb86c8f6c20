/**
 * Binding functions of the C library for the file facilities of this folder, at their first use: loading koffi costs
 * some ten milliseconds, which a command without system calls of its own must not pay. A bound call costs 0.3 to 0.6
 * µs, less than Node's own wrapper of the same system call.
 */
import { createRequire } from 'node:module'

import { SystemCallError } from './libc.ts'

interface Bound<A extends unknown[]> {
  (...args: A): number
  async(...args: [...A, (error: Error | null, result: number) => void]): void
}

interface Koffi {
  load(path: null): { func(definition: string): unknown }
  address(value: Uint8Array): bigint
  errno(): number
}

let koffi: Koffi | undefined
let library: { func(definition: string): unknown } | undefined

function loaded(): Koffi {
  koffi ??= createRequire(import.meta.url)('koffi') as Koffi
  return koffi
}

/** The function that C declares by `definition`, found in the process; its result is a number. */
export function bind<A extends unknown[]>(definition: string): Bound<A> {
  library ??= loaded().load(null)
  return library.func(definition) as Bound<A>
}

/** `make()` at the first call, the same ever after. */
export function once<T extends object>(make: () => T): () => T {
  let made: T | undefined
  return () => (made ??= make())
}

/** Of the last bound call on this thread; only right after it. */
export function errno(): number {
  return loaded().errno()
}

/** The result, or the failure of `call` where it is -1. */
export function checked(call: string, result: number): number {
  if (result === -1) throw new SystemCallError(call, errno())
  return result
}

/** Where the bytes lie; valid while the caller holds them. */
export function addressOf(bytes: Uint8Array): bigint {
  return loaded().address(bytes)
}

/** Runs a bound call on the thread pool; the errno of a failure stays on that thread. */
export function onThread(start: (done: (error: Error | null, result: number) => void) => void): Promise<number> {
  return new Promise((resolve, reject) => {
    start((error, result) => (error === null ? resolve(result) : reject(error)))
  })
}
