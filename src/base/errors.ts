/**
 * Operating errors: everything that can go wrong without the program being wrong. One table gives each code its
 * errno for FUSE, its HTTP status, whether to try again, a hint for the operator and the level it is logged at;
 * `docs/operating/errors.md` is generated from it. Nothing else in the program invents codes.
 */

import { ERRNO, type Errno } from './errno.ts'

/** What a caller may do about an error: not try again, try at once, try after a pause, or try another server. */
export type Retry = 'never' | 'now' | 'backoff' | 'elsewhere'

interface ErrorRow {
  /** The errno that a FUSE request is answered with. */
  readonly errno: Errno
  /** The HTTP status that a gateway request is answered with. */
  readonly status: number
  readonly retry: Retry
  readonly level: 'debug' | 'info' | 'warn' | 'error'
  /** What the code means, one sentence. */
  readonly meaning: string
  /** What an operator can do about it, one sentence. */
  readonly hint: string
}

const row = (
  errno: Errno,
  status: number,
  retry: Retry,
  level: ErrorRow['level'],
  meaning: string,
  hint: string,
): ErrorRow => ({ errno, status, retry, level, meaning, hint })

/** The one table of operating errors. */
export const ERRORS = {
  // What a store answers.
  STORE_NOT_FOUND: row(
    'ENOENT',
    404,
    'never',
    'debug',
    'Nothing is stored under that path.',
    'Check the path; somebody may have removed it.',
  ),
  STORE_CONFLICT: row(
    'ESTALE',
    412,
    'never',
    'warn',
    'The stored version is not the one that the guard named.',
    'Somebody else changed it meanwhile; look at the stored version, then write again.',
  ),
  STORE_NOT_DIRECTORY: row(
    'ENOTDIR',
    409,
    'never',
    'debug',
    'A part of the path is not a directory.',
    'Check the path.',
  ),
  STORE_IS_DIRECTORY: row(
    'EISDIR',
    409,
    'never',
    'debug',
    'The path is a directory where a file was expected.',
    'Check the path.',
  ),
  STORE_NOT_EMPTY: row(
    'ENOTEMPTY',
    409,
    'never',
    'debug',
    'The directory still has entries.',
    'Remove its entries first.',
  ),
  STORE_NAME_INVALID: row(
    'EILSEQ',
    400,
    'never',
    'debug',
    'The store cannot hold that name.',
    'Use another name; the store never alters one.',
  ),
  STORE_NAME_TOO_LONG: row(
    'ENAMETOOLONG',
    400,
    'never',
    'debug',
    'The name or path is longer than the store can hold.',
    'Use a shorter one: 255 bytes a name, and on S3 1,024 bytes for the whole key.',
  ),
  STORE_FILE_TOO_LARGE: row(
    'EFBIG',
    400,
    'never',
    'warn',
    'The file is larger than the store can hold.',
    'Split it; S3 holds 10,000 parts an object.',
  ),
  STORE_ATTRIBUTES_TOO_LARGE: row(
    'ENOSPC',
    400,
    'never',
    'warn',
    'The attributes are larger than the store can hold with a file.',
    'Remove extended attributes; S3 holds 2 KB of them an object.',
  ),
  STORE_DENIED: row(
    'EACCES',
    403,
    'never',
    'warn',
    'The store refuses this to these credentials.',
    'Check the policy of the bucket and of the credentials, and that the key may do this.',
  ),
  STORE_READ_ONLY: row(
    'EROFS',
    405,
    'never',
    'debug',
    'The store is opened for reading only.',
    'Mount or open it without --read-only.',
  ),
  STORE_NO_SPACE: row(
    'ENOSPC',
    507,
    'never',
    'error',
    'The store has no room left.',
    'Free some room where the store lives.',
  ),
  STORE_UNSUPPORTED: row(
    'EOPNOTSUPP',
    501,
    'never',
    'debug',
    'This store cannot do that.',
    'See docs/SEMANTICS.md for what each store holds.',
  ),
  STORE_THROTTLED: row(
    // Not EAGAIN: programs take that for a descriptor that does not block, and the kernel an attribute's for no support.
    'EIO',
    503,
    'backoff',
    'info',
    'The store asks for fewer requests.',
    'Nothing to do unless it lasts; then spread the load over prefixes.',
  ),
  STORE_UNAVAILABLE: row(
    'EIO',
    503,
    'backoff',
    'warn',
    'The store cannot be reached, or answers with an error of its own.',
    'Check the network, the endpoint and the health of the store.',
  ),
  STORE_TIMEOUT: row(
    'EIO',
    504,
    'backoff',
    'warn',
    'The store did not answer in time.',
    'Check the network and the load of the store.',
  ),
  STORE_CORRUPT: row(
    'EIO',
    502,
    'backoff',
    'error',
    'What the store sent is not what it says it is.',
    'Nothing of it was used; if it lasts, check the network between here and the store, and the store itself.',
  ),
  STORE_PROTOCOL: row(
    'EIO',
    502,
    'never',
    'error',
    'The store answered in a way that it should not.',
    'Check that the endpoint is an S3 server; the log has the answer.',
  ),
  // What opening a store can find.
  BUCKET_NOT_FOUND: row(
    'ENOENT',
    404,
    'never',
    'error',
    'The bucket does not exist.',
    'Check its name and the endpoint, or create it first.',
  ),
  CREDENTIALS_MISSING: row(
    'EACCES',
    403,
    'never',
    'error',
    'No credentials were found.',
    'Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, choose a profile, or run where a role gives them.',
  ),
  CREDENTIALS_REFUSED: row(
    'EACCES',
    403,
    'never',
    'error',
    'The store does not accept these credentials.',
    'Check the access key, the secret key and, for temporary ones, the session token.',
  ),
  CLOCK_SKEWED: row(
    'EACCES',
    403,
    'never',
    'error',
    'The clock of this machine and that of the store differ by more than 15 minutes.',
    'Set the clock of this machine, best by NTP.',
  ),
  REGION_WRONG: row(
    'EIO',
    400,
    'never',
    'error',
    'The bucket is in another region.',
    'Name its region: s3://BUCKET?region=REGION.',
  ),
  // What the mount and the machine can find.
  MOUNT_POINT_UNUSABLE: row(
    'EINVAL',
    400,
    'never',
    'error',
    'The mount point cannot be used.',
    'Name an empty directory that is not mounted on.',
  ),
  MOUNT_REFUSED: row(
    'EPERM',
    500,
    'never',
    'error',
    'This machine does not allow the mount.',
    'Run "eider doctor": it tells what is missing.',
  ),
  FILE_EXISTS: row('EEXIST', 409, 'never', 'debug', 'The name is taken.', 'Use another name, or remove what has it.'),
  FILE_STALE: row(
    'ESTALE',
    410,
    'never',
    'debug',
    'What was open has been replaced or removed by somebody else.',
    'Open it again.',
  ),
  FILE_NO_DATA: row(
    'ENXIO',
    416,
    'never',
    'debug',
    'The file has no data, or no hole, at that offset or after it.',
    'Nothing to do: programs that look for holes expect it at the end of a file.',
  ),
  ATTRIBUTE_NOT_FOUND: row(
    'ENODATA',
    404,
    'never',
    'debug',
    'There is no extended attribute of that name.',
    'Check the name.',
  ),
  OPERATION_NOT_PERMITTED: row(
    'EPERM',
    403,
    'never',
    'debug',
    'A mounted store has nothing of that kind: hard links, devices, fifos, sockets.',
    'See docs/SEMANTICS.md for what the mount holds.',
  ),
  NOT_MOUNTED: row(
    'EINVAL',
    400,
    'never',
    'error',
    'No store is mounted there.',
    'Name the directory that a store is mounted on; "mount -t fuse.eider" lists them.',
  ),
  MOUNT_BUSY: row(
    'EBUSY',
    409,
    'backoff',
    'warn',
    'The mount is in use.',
    'Close what is open in it and leave its directories; the message says who where that can be seen.',
  ),
  STAGING_NO_SPACE: row(
    'ENOSPC',
    507,
    'never',
    'error',
    'The local disk has no room for what is being written.',
    'Free some room, or choose another directory with --staging.',
  ),
  // What a sync can find.
  ROOT_CHANGED: row(
    'ENODEV',
    409,
    'never',
    'error',
    'The directory that is synced is not the one that it was: gone, emptied, or another file system is there.',
    'Mount or restore it; where the change is meant, run the sync once with --yes-delete.',
  ),
  DELETES_REFUSED: row(
    'EPERM',
    409,
    'never',
    'error',
    'More would be deleted from the target than is likely to be meant.',
    'Look at what --dry-run shows; where it is meant, run the sync once with --yes-delete.',
  ),
  PLAN_OUTDATED: row(
    'ESTALE',
    412,
    'never',
    'error',
    'What a plan was made on has changed meanwhile, so nothing of it was carried out.',
    'Make a new plan with --dry-run.',
  ),
  // What a disk of the cluster can find.
  BLOCK_NOT_FOUND: row(
    'ENOENT',
    404,
    'elsewhere',
    'debug',
    'The disk does not have that block.',
    'Read it from the other disks of its span; a scrub makes it anew.',
  ),
  BLOCK_CUT: row(
    'EIO',
    502,
    'elsewhere',
    'error',
    'The file of a block has lost its end.',
    'Read it from the other disks of its span; a scrub makes it anew. Find out who shortened the file.',
  ),
  BLOCK_CORRUPT: row(
    'EIO',
    502,
    'elsewhere',
    'error',
    'What a disk has of a block is not what was written.',
    'Read it from the other disks of its span; a scrub makes it anew. If it happens again, replace the disk.',
  ),
  BLOCK_IO_FAILED: row(
    'EIO',
    502,
    'elsewhere',
    'error',
    'The disk could not read or write that one block, though the rest of it works.',
    'Nothing to do for one; if it happens again, replace the disk.',
  ),
  BLOCK_CONFLICT: row(
    'EEXIST',
    409,
    'never',
    'warn',
    'The disk has other bytes under the id of that block, and keeps them.',
    'Ask the shard for a new block.',
  ),
  BLOCK_REFUSED: row(
    'EACCES',
    403,
    'never',
    'warn',
    'The permit is not one for this with that block on that disk.',
    'Ask the shard for a permit; if it lasts, the registry and the disk have different keys.',
  ),
  BLOCK_OUT_OF_TIME: row(
    'ESTALE',
    410,
    'never',
    'warn',
    'The block is too old to be written, too young to be erased, or from the future.',
    'Set the clocks of these machines, best by NTP; a client that was slow asks the shard for a new block.',
  ),
  BLOCK_BUSY: row(
    'EIO',
    503,
    'backoff',
    'info',
    'The disk has as much to do as it takes on, or the block is being written.',
    'Nothing to do unless it lasts; then add disks.',
  ),
  DISK_FULL: row(
    'ENOSPC',
    507,
    'elsewhere',
    'warn',
    'The disk has no room beyond what it keeps free.',
    'Add disks, or remove files and shorten how long history is kept.',
  ),
  DISK_FAILED: row(
    'EIO',
    503,
    'elsewhere',
    'error',
    'The disk has failed, and takes no part any more.',
    'Look at the log of the kernel; replace the disk, or start its service again once it works.',
  ),
  DISK_UNUSABLE: row(
    'EINVAL',
    500,
    'never',
    'error',
    'The directory cannot be used as a disk.',
    'The message says what is wrong with it; nothing in it was changed.',
  ),
  // What processes of the cluster can find.
  ADDRESS_UNUSABLE: row(
    'EINVAL',
    500,
    'never',
    'error',
    'The process cannot listen at that address.',
    'Choose another port, or end the process that has it.',
  ),
  JOURNAL_FAILED: row(
    'EIO',
    500,
    'never',
    'error',
    'The journal of the process could not be written or read.',
    'Look at the disk that holds it and at its room; then start the process again: nothing that was acknowledged is lost.',
  ),
  JOURNAL_CORRUPT: row(
    'EIO',
    500,
    'never',
    'error',
    'The journal or the state of the process is damaged.',
    'Restore its directory from a copy; eider fs fsck --offline says what can still be read.',
  ),
  JOURNAL_FENCED: row(
    'EIO',
    503,
    'elsewhere',
    'error',
    'Another process has taken over the journal.',
    'Nothing to do: the other one serves.',
  ),
  WIRE_MALFORMED: row(
    'EPROTO',
    400,
    'never',
    'warn',
    'A message is not well formed.',
    'Use one release of the program everywhere; if it lasts, something else speaks to that port.',
  ),
  WIRE_VERSION: row(
    'EPROTO',
    400,
    'never',
    'error',
    'The other side speaks another version of the protocol.',
    'Use one release of the program everywhere.',
  ),
  WIRE_KIND_UNKNOWN: row(
    'EPROTO',
    400,
    'never',
    'warn',
    'The process knows no message of that kind.',
    'Use one release of the program everywhere, and check that the address is that of the right process.',
  ),
  WIRE_REFUSED: row(
    'EACCES',
    403,
    'never',
    'error',
    'The other side does not know the secret of the cluster, or this side does not.',
    'Give every process and client the same secret.',
  ),
  CLUSTER_BUSY: row(
    'EIO',
    503,
    'backoff',
    'info',
    'The process has as much to do as it takes on.',
    'Nothing to do unless it lasts; then add processes or disks.',
  ),
  CLUSTER_UNREACHABLE: row(
    'EIO',
    503,
    'backoff',
    'warn',
    'A process of the cluster does not answer.',
    'Look at the page of the registry, which says what is there and what is not.',
  ),
  CLUSTER_INCOMPLETE: row(
    'EIO',
    503,
    'backoff',
    'warn',
    'A part of the cluster that is needed has not registered yet.',
    'Start the missing process; the page of the registry says which.',
  ),
  REGISTRATION_REFUSED: row(
    'EACCES',
    409,
    'never',
    'error',
    'The registry knows another one under that id or in that place, and keeps it.',
    'Start the process with the data directory that it had before; of two that serve the same, end one.',
  ),
  CLUSTER_MISMATCH: row(
    'EACCES',
    409,
    'never',
    'error',
    'The part belongs to another cluster than the registry that it was pointed at; nothing was changed.',
    'Give it the address of its own registry; where that is lost, docs/operating/recovery.md says how a new one takes its place.',
  ),
  CLOCK_UNTRUSTED: row(
    'EIO',
    503,
    'backoff',
    'error',
    'The clock of a process is not known to agree with that of the registry, so it writes nothing.',
    'Set the clocks of these machines, best by NTP; it goes on by itself as soon as they agree.',
  ),
  DISK_NOT_FOUND: row(
    'ENOENT',
    404,
    'never',
    'info',
    'The registry knows no disk of that id.',
    'Look at the page of the registry, which lists the ids of all disks.',
  ),
  DISK_FLAG_REFUSED: row(
    'EBUSY',
    409,
    'never',
    'warn',
    'That cannot be said of the disk as it is.',
    'A disk is terminated only once it is silent or has failed, and that is for ever.',
  ),
  SHARD_ELSEWHERE: row(
    'EIO',
    421,
    'elsewhere',
    'debug',
    'The process does not serve that shard.',
    'Nothing to do: the client asks the registry where it is.',
  ),
  REQUEST_STALE: row(
    'ESTALE',
    409,
    'never',
    'warn',
    'A later request of that client has taken the place of this one.',
    'Nothing to do: the answer to it was given long ago.',
  ),
  REQUEST_REFUSED: row(
    'EACCES',
    403,
    'never',
    'warn',
    'Only a process of the cluster may ask for that.',
    'Use the commands of eider fs.',
  ),
  INODE_NOT_FOUND: row(
    'ENOENT',
    404,
    'never',
    'debug',
    'There is no such file or directory any more.',
    'Look its path up again.',
  ),
  NAME_NOT_FOUND: row(
    'ENOENT',
    404,
    'never',
    'debug',
    'The directory has nothing of that name.',
    'Check the path; history and ls --as-of tell what was there.',
  ),
  NAME_TAKEN: row(
    'EEXIST',
    409,
    'never',
    'debug',
    'Something of that name is there already.',
    'Use another name, or remove what has it.',
  ),
  NAME_LOCKED: row(
    'EBUSY',
    503,
    'backoff',
    'debug',
    'The coordinator is just moving what has that name.',
    'Nothing to do: it is tried again.',
  ),
  EDGE_CHANGED: row(
    'ESTALE',
    409,
    'never',
    'debug',
    'The name leads to something else by now.',
    'Look its path up again.',
  ),
  DIRECTORY_EXPECTED: row('ENOTDIR', 400, 'never', 'debug', 'What is there is not a directory.', 'Check the path.'),
  FILE_EXPECTED: row('EISDIR', 400, 'never', 'debug', 'What is there is a directory.', 'Check the path.'),
  DIRECTORY_NOT_EMPTY: row(
    'ENOTEMPTY',
    409,
    'never',
    'debug',
    'The directory is not empty.',
    'Remove what is in it first.',
  ),
  DIRECTORY_REMOVED: row(
    'ENOENT',
    404,
    'never',
    'debug',
    'The directory was removed, and exists as history only.',
    'Use another one.',
  ),
  DIRECTORY_LOOP: row(
    'EINVAL',
    400,
    'never',
    'debug',
    'The directory would come to lie within itself.',
    'Choose a place outside of it.',
  ),
  ROOT_REFUSED: row('EBUSY', 400, 'never', 'debug', 'That cannot be done with the root.', 'Name something beneath it.'),
  COOKIE_REFUSED: row(
    'EACCES',
    403,
    'never',
    'warn',
    'The transient file belongs to somebody else.',
    'Write a file of your own.',
  ),
  TRANSIENT_EXPIRED: row(
    'ESTALE',
    410,
    'never',
    'info',
    'The file was not finished in time, and is given up.',
    'Write it again.',
  ),
  TRANSIENT_EXPECTED: row(
    'EINVAL',
    409,
    'never',
    'warn',
    'That can be done only with a file that is not linked.',
    'Nothing to do.',
  ),
  SPAN_OUT_OF_ORDER: row(
    'EINVAL',
    409,
    'never',
    'warn',
    'A span has to begin where the file ends, and once the one before it is certified.',
    'Write the spans of a file one after the other.',
  ),
  SPAN_INVALID: row(
    'EINVAL',
    400,
    'never',
    'warn',
    'The facts of a span contradict each other.',
    'The message says which.',
  ),
  SPAN_NOT_FOUND: row('ENOENT', 404, 'never', 'debug', 'The file has no such span.', 'Look at its spans again.'),
  RECEIPT_REFUSED: row(
    'EACCES',
    403,
    'never',
    'warn',
    'A receipt is not one of that disk for that very block.',
    'Write the span again; if it lasts, the registry and the disk have different keys.',
  ),
  BLOCKS_CHANGED: row('ESTALE', 409, 'never', 'info', 'The span has other blocks by now.', 'Look at its blocks again.'),
  DISKS_MISSING: row(
    'ENOSPC',
    507,
    'backoff',
    'warn',
    'There are not enough disks that can be written to.',
    'Start the services of the missing disks, add disks, or free room on those that are full.',
  ),
  EDGE_OWNED: row(
    'EINVAL',
    409,
    'never',
    'warn',
    'The entry of the history owns its file, so it cannot just be dropped.',
    'Unlink the file for good instead.',
  ),
  SPANS_LOST: row(
    'EIO',
    502,
    'never',
    'error',
    'Too many blocks of the file are missing or damaged: its bytes cannot be put together.',
    'Bring back a disk that has blocks of it; locations tells which.',
  ),
  // What anything can find.
  INPUT_INVALID: row(
    'EINVAL',
    400,
    'never',
    'info',
    'The input is not well formed.',
    'The message says what was expected.',
  ),
  USAGE: row('EINVAL', 400, 'never', 'info', 'The command line is not well formed.', 'See --help.'),
  LOCAL_FAILED: row(
    'EIO',
    500,
    'never',
    'error',
    'A call to this machine failed.',
    'The message says what this machine refused.',
  ),
  ABORTED: row('EINTR', 499, 'never', 'debug', 'The caller gave the operation up.', 'Nothing to do.'),
} as const satisfies Record<string, ErrorRow>

export type ErrorCode = keyof typeof ERRORS

/** An error of operation: a code from the table, a message "Cannot do X: detail", and the cause. */
export class OperationError extends Error {
  override name = 'OperationError'
  readonly code: ErrorCode
  /** Private, as logs write what is enumerable. */
  readonly #hint: string | undefined

  /** `hint`: where more is known of what helps than the table says. */
  constructor(code: ErrorCode, message: string, options?: { cause?: unknown; hint?: string }) {
    super(message, options)
    this.code = code
    this.#hint = options?.hint
  }

  get errno(): number {
    return ERRNO[ERRORS[this.code].errno]
  }
  get status(): number {
    return ERRORS[this.code].status
  }
  get retry(): Retry {
    return ERRORS[this.code].retry
  }
  get hint(): string {
    return this.#hint ?? ERRORS[this.code].hint
  }
}

/** Whether `error` is an operating error of one of the codes (of any code where none is named). */
export function isOperationError(error: unknown, ...codes: ErrorCode[]): error is OperationError {
  return error instanceof OperationError && (codes.length === 0 || codes.includes(error.code))
}

/** The errno for a FUSE answer: the table's for an operating error, EINTR for an abort, EIO for anything else. */
export function errnoOf(error: unknown): number {
  if (error instanceof OperationError) return error.errno
  if (error instanceof Error && error.name === 'AbortError') return ERRNO.EINTR
  return ERRNO.EIO
}
