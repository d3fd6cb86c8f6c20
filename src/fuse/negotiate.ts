/**
 * What to agree on with the kernel at INIT: a pure function of its offer and our settings, with the reasons for each flag.
 *
 * Asked for: ASYNC_READ, BIG_WRITES and MAX_PAGES (requests of 1 MiB); READDIRPLUS, adaptive (a listing brings the
 * attributes only to who asks for them); PARALLEL_DIROPS (lookups in one directory side by side); ATOMIC_O_TRUNC (an
 * open that truncates is one request, so the old content is never fetched); CACHE_SYMLINKS; ABORT_ERROR (an
 * aborted connection can be told from an unmount); HANDLE_KILLPRIV_V2 (without it every write(2) first asks
 * for the attribute `security.capability`, one more round trip a write; the session clears the bits instead).
 * AUTO_INVAL_DATA rather than EXPLICIT_INVAL_DATA: cached pages go when new attributes show another size or time, so
 * that a file that others change is right even where no notice of the change arrives.
 *
 * Not asked for: WRITEBACK_CACHE (close could no longer tell the truth), POSIX_LOCKS and FLOCK_LOCKS (without them the
 * kernel keeps the locks itself, among the processes of this machine), EXPORT_SUPPORT (no NFS export: node ids do not outlive
 * the mount), ASYNC_DIO (a process in a direct read could no longer be killed before its answer), DONT_MASK (the kernel applies the umask), POSIX_ACL, SPLICE_* (bytes pass through user space once at most).
 */
import type { InitRequest } from './decode.ts'
import type { InitAnswer } from './encode.ts'
import {
  FUSE_ABORT_ERROR,
  FUSE_ASYNC_READ,
  FUSE_ATOMIC_O_TRUNC,
  FUSE_AUTO_INVAL_DATA,
  FUSE_BIG_WRITES,
  FUSE_CACHE_SYMLINKS,
  FUSE_DO_READDIRPLUS,
  FUSE_FLAGS2_PASSTHROUGH,
  FUSE_HANDLE_KILLPRIV_V2,
  FUSE_INIT_EXT,
  FUSE_KERNEL_MINOR_VERSION,
  FUSE_KERNEL_VERSION,
  FUSE_MAX_PAGES,
  FUSE_MINOR_VERSION_MIN,
  FUSE_PARALLEL_DIROPS,
  FUSE_READDIRPLUS_AUTO,
} from './protocol.ts'

const WANTED =
  FUSE_ASYNC_READ |
  FUSE_BIG_WRITES |
  FUSE_MAX_PAGES |
  FUSE_DO_READDIRPLUS |
  FUSE_READDIRPLUS_AUTO |
  FUSE_PARALLEL_DIROPS |
  FUSE_ATOMIC_O_TRUNC |
  FUSE_CACHE_SYMLINKS |
  FUSE_ABORT_ERROR |
  FUSE_HANDLE_KILLPRIV_V2 |
  FUSE_AUTO_INVAL_DATA |
  FUSE_INIT_EXT

const PAGE_BYTES = 4096

/** What was agreed on. */
export interface NegotiatedInit {
  /** As in 7.45. */
  readonly minor: number
  readonly maxWriteBytes: number
  readonly maxReadaheadBytes: number
  /** What the kernel offered, and what both use. */
  readonly offeredFlags: number
  readonly offeredFlags2: number
  readonly flags: number
  readonly flags2: number
}

export interface NegotiationSettings {
  readonly maxWriteBytes: number
  readonly maxBackground: number
  /** Ask for passthrough to backing files. */
  readonly passthrough: boolean
}

/** The answer to the kernel's offer, or why there is none. */
export function negotiate(
  request: InitRequest,
  settings: NegotiationSettings,
): { readonly answer: InitAnswer; readonly agreed: NegotiatedInit } | { readonly refusal: string } {
  if (request.major !== FUSE_KERNEL_VERSION || request.minor < FUSE_MINOR_VERSION_MIN) {
    return {
      refusal: `the kernel speaks FUSE ${request.major}.${request.minor}, and ${FUSE_KERNEL_VERSION}.${FUSE_MINOR_VERSION_MIN} (Linux 5.4) or later is needed`,
    }
  }
  const minor = Math.min(request.minor, FUSE_KERNEL_MINOR_VERSION)
  const flags = (request.flags & WANTED) >>> 0
  const extended = (flags & FUSE_INIT_EXT) !== 0
  const flags2 = extended && settings.passthrough ? request.flags2 & FUSE_FLAGS2_PASSTHROUGH : 0
  const maxPages = Math.max(1, Math.ceil(settings.maxWriteBytes / PAGE_BYTES))
  const { maxReadaheadBytes } = request
  const { maxWriteBytes, maxBackground } = settings
  const maxStackDepth = (flags2 & FUSE_FLAGS2_PASSTHROUGH) === 0 ? 0 : 1
  return {
    answer: { minor, maxReadaheadBytes, flags, flags2, maxBackground, maxWriteBytes, maxPages, maxStackDepth },
    agreed: {
      minor,
      maxWriteBytes,
      maxReadaheadBytes,
      offeredFlags: request.flags,
      offeredFlags2: request.flags2,
      flags,
      flags2,
    },
  }
}
