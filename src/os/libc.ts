/**
 * The C library through koffi: the few calls that Node lacks, each typed, failures as `OperationError` with the name of
 * the errno in the message and as `code` of its cause. Loaded at the first use, since koffi costs some ten
 * milliseconds that a command without system calls of its own must not pay. Not here: what a call is good for; that
 * is in the file of each facility.
 */
import { createRequire } from 'node:module'
import { getSystemErrorName } from 'node:util'
import type { PollHandle, PollOptions } from './poll-handle.ts'
import { type ErrorCode, OperationError } from '#base/errors.ts'

/** A failed system call: `code` is the name of its errno, as in Node's own errors. */
export class SystemCallError extends Error {
  override name = 'SystemCallError'
  readonly call: string
  readonly errno: number
  readonly code: string

  constructor(call: string, errno: number) {
    const code = errnoName(errno)
    super(`${call} failed with ${code}`)
    this.call = call
    this.errno = errno
    this.code = code
  }

  /** As an operating error: `action` is what could not be done, as in "mount on '/x'". */
  toOperationError(action: string, code: ErrorCode = 'LOCAL_FAILED'): OperationError {
    return new OperationError(code, `Cannot ${action}: ${this.message}`, { cause: this })
  }
}

/** "EBUSY" for 16. */
export function errnoName(errno: number): string {
  try {
    return getSystemErrorName(-errno)
  } catch {
    return `errno ${errno}`
  }
}

type Pointer = bigint
type Asynchronous<A extends unknown[]> = (...args: [...A, (error: Error | null, result: number) => void]) => void
interface Callable<A extends unknown[]> {
  (...args: A): number
  async: Asynchronous<A>
}

interface Koffi {
  load(path: null): { func(definition: string): unknown }
  address(value: Uint8Array): Pointer
  errno(): number
  node: { poll(fd: number, options: PollOptions, callback: (status: number) => void): PollHandle }
}

/** The calls, as C declares them; each throws a `SystemCallError` where C returns -1. */
export interface Libc {
  mount(source: string, target: string, type: string, flags: number, data: string): void
  /** On the thread pool: taking a mount away can wait for the process that serves it. Resolves to whether it succeeded. */
  umount2(target: string, flags: number): Promise<boolean>
  /** A connected pair of stream sockets, both close-on-exec. */
  socketpair(): readonly [number, number]
  /** On the thread pool: bytes received, -1 for a failure (whose errno stays on that thread). */
  recvmsg(fd: number, message: Uint8Array, flags: number): Promise<number>
  fcntl(fd: number, command: number, argument: number): number
  ioctl(fd: number, request: number, argument: Uint8Array): number
  /** Where `bytes` lie; valid while the caller holds them. */
  address(bytes: Uint8Array): Pointer
  poll(fd: number, options: PollOptions, callback: (status: number) => void): PollHandle
}

let loaded: Libc | undefined

/** The C library; koffi is loaded by the first call. */
export function libc(): Libc {
  loaded ??= load()
  return loaded
}

function load(): Libc {
  const koffi = createRequire(import.meta.url)('koffi') as Koffi
  const library = koffi.load(null)
  const bind = <A extends unknown[]>(definition: string): Callable<A> => library.func(definition) as Callable<A>

  const mount = bind<[string, string, string, number, string]>(
    'int mount(const char *source, const char *target, const char *type, unsigned long flags, const char *data)',
  )
  const umount2 = bind<[string, number]>('int umount2(const char *target, int flags)')
  const socketpair = bind<[number, number, number, Uint8Array]>(
    'int socketpair(int domain, int type, int protocol, void *pair)',
  )
  const recvmsg = bind<[number, Uint8Array, number]>('long recvmsg(int fd, void *message, int flags)')
  // Declared variadic in C, but on the ABIs of Linux on x64 and arm64 an integer or pointer is passed alike either way.
  const fcntl = bind<[number, number, number]>('int fcntl(int fd, int command, long argument)')
  const ioctl = bind<[number, number, Uint8Array]>('int ioctl(int fd, unsigned long request, void *argument)')

  const checked = (call: string, result: number): number => {
    if (result === -1) throw new SystemCallError(call, koffi.errno())
    return result
  }

  return {
    mount(source, target, type, flags, data) {
      checked('mount', mount(source, target, type, flags, data))
    },
    umount2(target, flags) {
      return onThread((done) => umount2.async(target, flags, done)).then((result) => result === 0)
    },
    socketpair() {
      const AF_UNIX = 1
      const SOCK_STREAM = 1
      const SOCK_CLOEXEC = 0o2000000
      const pair = new Int32Array(2)
      checked('socketpair', socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, new Uint8Array(pair.buffer)))
      return [pair[0] ?? -1, pair[1] ?? -1]
    },
    recvmsg(fd, message, flags) {
      return onThread((done) => recvmsg.async(fd, message, flags, done))
    },
    fcntl(fd, command, argument) {
      return checked('fcntl', fcntl(fd, command, argument))
    },
    ioctl(fd, request, argument) {
      return checked('ioctl', ioctl(fd, request, argument))
    },
    address: (bytes) => koffi.address(bytes),
    poll: (fd, options, callback) => koffi.node.poll(fd, options, callback),
  }
}

function onThread(start: (done: (error: Error | null, result: number) => void) => void): Promise<number> {
  return new Promise((resolve, reject) => {
    start((error, result) => (error === null ? resolve(result) : reject(error)))
  })
}
