/** What a directory may say of what lies under it. */
import { OperationError } from '#base/errors.ts'
import { isRedundancy, PAGE_BYTES } from '#cluster/erasure/layout.ts'
import { INLINE_BYTES_MAX, SPAN_BYTES_MAX, type Policy } from '#cluster/wire/forms.ts'

/** Of the storage classes, 0 is for no bytes and 1 for those in the inode. */
export const BLOCK_CLASS_MIN = 2

/** @throws INPUT_INVALID */
export function checkPolicy({ spans, classes, stripeBytes, inlineBytesMax }: Policy): void {
  const refuse = (detail: string): never => {
    throw new OperationError('INPUT_INVALID', `Cannot set the policy: ${detail}`)
  }
  if (spans !== undefined) {
    let before = 0
    // Below a page, a large file would be nothing but records of its spans.
    if ((spans[0]?.bytesMax ?? 0) < PAGE_BYTES) refuse(`a span has up to ${PAGE_BYTES} bytes at least`)
    for (const { bytesMax, data, parity } of spans) {
      if (bytesMax <= before || bytesMax > SPAN_BYTES_MAX) refuse('sizes of spans ascend, up to 1 GiB')
      if (!isRedundancy({ data, parity })) refuse(`${data}+${parity} is no redundancy`)
      before = bytesMax
    }
  }
  if (classes !== undefined) {
    let before = -1
    for (const each of classes) {
      if (each.bytesMin <= before) refuse('sizes of blocks ascend')
      if (each.class < BLOCK_CLASS_MIN) refuse(`class ${each.class} is not one of blocks`)
      before = each.bytesMin
    }
    if (classes[0]?.bytesMin !== 0) refuse('the first class is for blocks from 0 bytes on')
  }
  if (stripeBytes !== undefined && stripeBytes < PAGE_BYTES) refuse(`a stripe has ${PAGE_BYTES} bytes at least`)
  if (inlineBytesMax !== undefined && inlineBytesMax > INLINE_BYTES_MAX) {
    refuse(`at most ${INLINE_BYTES_MAX} bytes are kept inline`)
  }
}
