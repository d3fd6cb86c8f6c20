/**
 * The secret that all processes of a cluster share: the content of a file, without the white space around it, which editors add.
 * Whoever has it may do everything, so it is worth guessing: a short one is refused.
 */
import { open } from 'node:fs/promises'

import { OperationError } from '#base/errors.ts'
import { logger } from '#base/log.ts'

/** As base64, 128 bits have 22 characters; a secret that somebody made up has to be as long as a phrase. */
export const SECRET_BYTES_MIN = 16
/** Of a file beyond this, somebody has named the wrong one. */
const SECRET_BYTES_MAX = 4096

const HINT = 'Make one with: head -c 32 /dev/urandom | base64 > FILE && chmod 600 FILE'
const log = logger('cluster/wire')

/** The secret that a file has in it. @param place how messages name it. @throws OperationError `USAGE` */
export function secretFrom(content: Uint8Array, place: string): Buffer {
  // Byte by byte, as a secret may be any bytes.
  let start = 0
  let end = content.length
  while (start < end && isSpace(content[start])) start++
  while (end > start && isSpace(content[end - 1])) end--
  const bytes = end - start
  if (bytes < SECRET_BYTES_MIN)
    throw new OperationError(
      'USAGE',
      `Cannot use the secret in ${place}: it has ${bytes} bytes, and needs ${SECRET_BYTES_MIN}`,
      { hint: HINT },
    )
  if (bytes > SECRET_BYTES_MAX)
    throw new OperationError('USAGE', `Cannot use the secret in ${place}: it has more than ${SECRET_BYTES_MAX} bytes`, {
      hint: HINT,
    })
  return Buffer.from(content.subarray(start, end))
}

/** Says in the log where everybody on this machine may read it. @throws OperationError `USAGE` */
export async function readSecret(path: string): Promise<Buffer> {
  try {
    await using file = await open(path, 'r')
    const { mode } = await file.stat()
    if ((mode & 0o004) !== 0) log.warn({ path }, 'everybody on this machine may read the secret of the cluster')
    // One more than there may be with a line's end tells that it is too long; the rest of a wrong file is never read.
    const buffer = Buffer.alloc(SECRET_BYTES_MAX + 64)
    const { bytesRead } = await file.read(buffer, 0, buffer.length, null)
    return secretFrom(buffer.subarray(0, bytesRead), `"${path}"`)
  } catch (error) {
    if (error instanceof OperationError) throw error
    const detail = error instanceof Error ? error.message : String(error)
    throw new OperationError('USAGE', `Cannot read the secret from "${path}": ${detail}`, { cause: error, hint: HINT })
  }
}

function isSpace(byte: number | undefined): boolean {
  return byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09
}
