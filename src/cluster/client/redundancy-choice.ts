/**
 * How bytes are to be stored: in the record of the file, or in spans of which size and redundancy, of which storage class, in how many
 * stripes. Pure: follows from the policy that holds for the file, and from the disks that can be written to. Where there
 * are fewer failure domains than the policy asks for, a span is written with what there is rather than not at all.
 */
import { OperationError } from '#base/errors.ts'
import { defaultRedundancy, type Redundancy, stripesOf } from '#cluster/erasure/layout.ts'
import { INLINE_BYTES_MAX, type Policy, SPAN_BYTES_MAX } from '#cluster/wire/forms.ts'

import { isWritable, type KnownDisk } from './disk-choice.ts'

const INLINE_BYTES = 4096
const STRIPE_BYTES = 1 << 20
/** Of a block of a full span: takes a disk long enough that its seek does not matter, and a client's memory no more than some tens of MiB. */
const BLOCK_BYTES = 8 << 20
/** The first that is free for use. */
const CLASS_MIN = 2

/** How a span is to be written. */
export interface SpanForm extends Redundancy {
  readonly class: number
  readonly stripes: number
  /** Less redundant than the policy says, for want of failure domains. */
  readonly isDegraded: boolean
  /** The loss of one disk loses it: to be said aloud. */
  readonly isSingleCopy: boolean
}

/** What spans may not use, since it was tried in vain. */
export interface Avoided {
  readonly domains: ReadonlySet<string>
  /** Of a span in all, where the shard found no more. */
  readonly blocksMax?: number
}

const NOTHING_AVOIDED: Avoided = { domains: new Set() }

/** How many bytes a file may have that is kept in its record. */
export function inlineBytesMaxOf({ inlineBytesMax = INLINE_BYTES }: Policy): number {
  return Math.min(INLINE_BYTES_MAX, inlineBytesMax)
}

/** How many bytes a span is to have in a file that has more. */
export function spanBytesOf(policy: Policy, disks: Iterable<KnownDisk>): number {
  const last = policy.spans?.at(-1)
  if (last !== undefined) return Math.min(SPAN_BYTES_MAX, Math.max(1, last.bytesMax))
  const domains = Math.max(0, ...[...domainsByClass(disks).values()].map(({ size }) => size))
  return BLOCK_BYTES * defaultRedundancy(Math.max(1, domains)).data
}

/**
 * How a span of so many bytes is to be written now.
 * @throws DISKS_MISSING where there is no disk that could take a block
 */
export function chooseSpan(
  policy: Policy,
  bytes: number,
  disks: Iterable<KnownDisk>,
  avoided: Avoided = NOTHING_AVOIDED,
): SpanForm {
  const all = [...disks].filter(({ domain }) => !avoided.domains.has(domain))
  const step = policy.spans?.find(({ bytesMax }) => bytes <= bytesMax) ?? policy.spans?.at(-1)
  // The class follows from the size of blocks, that from the redundancy, and that from how many domains the class has.
  const data = step?.data ?? Math.ceil(bytes / BLOCK_BYTES)
  const storageClass = classOf(policy, Math.ceil(bytes / data), all)
  const domains = domainsByClass(all).get(storageClass)?.size ?? 0
  const blocksMax = Math.min(domains, avoided.blocksMax ?? domains)
  if (blocksMax === 0) {
    const detail =
      avoided.domains.size === 0
        ? `no disk of class ${storageClass} takes blocks`
        : `no disk of class ${storageClass} is left that takes blocks; those of ${[...avoided.domains].join(', ')} failed`
    throw new OperationError('DISKS_MISSING', `Cannot store a span of ${bytes} bytes: ${detail}`)
  }
  const wanted = step === undefined ? defaultRedundancy(blocksMax) : { data: step.data, parity: step.parity }
  const redundancy = reduced(wanted, blocksMax)
  const full = step ?? defaultRedundancy(domains + avoided.domains.size)
  return {
    ...redundancy,
    class: storageClass,
    stripes: stripesOf(bytes, policy.stripeBytes ?? STRIPE_BYTES),
    isDegraded: redundancy.data + redundancy.parity < full.data + full.parity,
    isSingleCopy: redundancy.data + redundancy.parity === 1,
  }
}

/** The redundancy with no more blocks than that: fewer data blocks first, as the parity is how many may be lost. */
export function reduced({ data, parity }: Redundancy, blocksMax: number): Redundancy {
  if (data + parity <= blocksMax) return { data, parity }
  if (blocksMax > parity) return { data: blocksMax - parity, parity }
  return { data: 1, parity: blocksMax - 1 }
}

/** What the policy says; otherwise the class with the most failure domains. */
function classOf({ classes }: Policy, blockBytes: number, disks: readonly KnownDisk[]): number {
  const found = classes?.findLast(({ bytesMin }) => bytesMin <= blockBytes) ?? classes?.[0]
  if (found !== undefined) return found.class
  let [best, most] = [CLASS_MIN, 0]
  for (const [storageClass, { size }] of domainsByClass(disks)) {
    if (size > most || (size === most && storageClass < best)) [best, most] = [storageClass, size]
  }
  return best
}

/** The failure domains with a disk that takes blocks. */
function domainsByClass(disks: Iterable<KnownDisk>): Map<number, Set<string>> {
  const found = new Map<number, Set<string>>()
  for (const disk of disks) {
    if (!isWritable(disk)) continue
    const domains = found.get(disk.class) ?? new Set()
    found.set(disk.class, domains.add(disk.domain))
  }
  return found
}
