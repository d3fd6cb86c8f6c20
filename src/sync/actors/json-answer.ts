/** The JSON of an answer, checked: what a service sends is believed no further than its form has been looked at. */
import * as v from 'valibot'

import { OperationError } from '#base/errors.ts'

/** @throws OperationError `STORE_PROTOCOL` where it is not what is expected; `action` completes "Cannot ...". */
export function jsonOf<T extends v.GenericSchema>(
  action: string,
  schema: T,
  { body }: { readonly body: Buffer },
): v.InferOutput<T> {
  let value: unknown
  try {
    value = JSON.parse(body.toString())
  } catch (error) {
    throw malformed(action, 'no JSON', error)
  }
  const checked = v.safeParse(schema, value)
  if (checked.success) return checked.output
  const [issue] = checked.issues
  const at = v.getDotPath(issue)
  throw malformed(action, at === null ? issue.message : `${issue.message} at "${at}"`)
}

function malformed(action: string, detail: string, cause?: unknown): OperationError {
  return new OperationError('STORE_PROTOCOL', `Cannot ${action}: the answer is not well formed: ${detail}`, {
    cause,
    hint: 'Check that the URL is that of the service that was meant.',
  })
}
