/** What a directory can have as a name: 1 to 255 bytes of UTF-8 without `/` and NUL, and neither `.` nor `..`. Checked wherever a name comes in. */
import { OperationError } from '#base/errors.ts'

const NAME_BYTES_MAX = 255
const REFUSED = /[/\0]/

/** Of a name that is to be taken. @throws STORE_NAME_INVALID, STORE_NAME_TOO_LONG */
export function checkName(name: string): void {
  if (name === '' || name === '.' || name === '..' || REFUSED.test(name)) {
    throw new OperationError('STORE_NAME_INVALID', `Cannot use ${JSON.stringify(name)} as a name`, {
      hint: 'A name is not empty, neither "." nor "..", and has neither "/" nor NUL in it.',
    })
  }
  checkLength(name)
}

/** Of a name that is looked for: no state is asked for a key that it cannot have. @throws STORE_NAME_TOO_LONG */
export function checkLength(name: string): void {
  // A character has at most 3 bytes for each of its UTF-16 units.
  if (name.length * 3 <= NAME_BYTES_MAX) return
  const bytes = Buffer.byteLength(name)
  if (bytes <= NAME_BYTES_MAX) return
  const shown = JSON.stringify(`${name.slice(0, 40)}…`)
  throw new OperationError('STORE_NAME_TOO_LONG', `Cannot use ${shown} as a name: it has ${bytes} bytes`)
}
