/**
 * Which parts an object is made of, whose bytes are partly here and partly in the store already. Pure. What is stored is copied
 * within the store, as far as a part may be: every part but the last has a least size, so pieces between copies that are
 * shorter are filled up with stored bytes from beside them, and stored pieces that are shorter go with their neighbours.
 *
 * Invariants: the parts in order are the segments in order; there are at most as many parts as the store allows; of all choices
 * of what to copy, the one is taken that sends the fewest bytes.
 */
import { assert } from '#base/assert.ts'
import { isStored, type Segment, type StoredSegment } from '#store/store.ts'

export interface PartLimits {
  /** Least size of every part but the last. */
  readonly bytesMin: number
  /** Of a part that is sent; at least `bytesMin`. A part has less than this and `bytesMin` together. */
  readonly sentBytes: number
  /** Largest part that is copied; at least twice `bytesMin`. */
  readonly copiedBytes: number
  /** Largest part that there may be. */
  readonly bytesMax: number
  readonly countMax: number
}

/** One part: copied within the store, or put together here and sent. */
export type PlannedPart =
  | { readonly kind: 'copy'; readonly from: StoredSegment }
  | { readonly kind: 'send'; readonly segments: readonly Segment[]; readonly bytes: number }

/** The segments without those that are empty, and with those joined that follow one another where they come from. */
export function joinSegments(segments: readonly Segment[]): Segment[] {
  const joined: Segment[] = []
  for (const segment of segments) {
    if (segment.length === 0) continue
    const last = joined.at(-1)
    if (last !== undefined && follows(last, segment)) {
      joined[joined.length - 1] = { ...last, length: last.length + segment.length }
    } else joined.push(segment)
  }
  return joined
}

function follows(a: Segment, b: Segment): boolean {
  if (a.offset + a.length !== b.offset) return false
  if (isStored(a)) return isStored(b) && a.path === b.path && a.version === b.version
  return !isStored(b) && a.fd === b.fd
}

/** The parts of an object of these (joined) segments. */
export function planParts(segments: readonly Segment[], limits: PartLimits): PlannedPart[] {
  assert(
    limits.sentBytes >= limits.bytesMin && limits.copiedBytes >= 2 * limits.bytesMin,
    'parts can be cut as they are asked for',
  )
  const { bytesMax, countMax } = limits
  // Larger parts where there would be too many, and only longer runs copied.
  for (let scale = 1; ; scale *= 2) {
    const bytesMin = limits.bytesMin * scale
    const sentBytes = Math.min(limits.sentBytes * scale, bytesMax - limits.bytesMin)
    const copiedBytes = Math.min(limits.copiedBytes * scale, bytesMax)
    if (2 * bytesMin > copiedBytes) break
    const parts = cut(choose(segments, bytesMin), { ...limits, sentBytes, copiedBytes })
    if (parts.length <= countMax) return parts
  }
  // The last resort: all is sent in the largest parts.
  const parts = cut([{ sent: [...segments] }], { ...limits, sentBytes: bytesMax })
  assert(parts.length <= countMax, 'a file fits into the parts that there may be')
  return parts
}

/** Stretches of the object in turn. */
type Stretch = { readonly copied: StoredSegment } | { readonly sent: Segment[] }

/** How things stand after a stored run: how it was reached, and what it means for what comes next. */
interface Choice {
  /** Bytes sent from the store so far. */
  readonly cost: number
  /** What the last copy can still give away; 0 where the last run is sent. */
  readonly slack: number
  /** Of the bytes to be sent before the next copy, as many as matter. */
  readonly sent: number
  readonly copied: boolean
  /** What this run gives to the stretch before it. */
  readonly given: number
  /** What the copy before gives to the stretch between. */
  readonly taken: number
  readonly before: Choice | undefined
}

/** Stored runs that are long enough to be parts, and how many bytes are sent after each (in `gaps`, one more: before the first). */
interface Runs {
  readonly runs: readonly { readonly at: number; readonly segment: StoredSegment }[]
  readonly gaps: readonly number[]
}

function runsOf(segments: readonly Segment[], bytesMin: number): Runs {
  const runs: { at: number; segment: StoredSegment }[] = []
  const gaps = [0]
  segments.forEach((segment, at) => {
    const isLast = at === segments.length - 1
    if (isStored(segment) && (segment.length >= bytesMin || isLast)) {
      runs.push({ at, segment })
      gaps.push(0)
    } else gaps.push((gaps.pop() ?? 0) + segment.length)
  })
  return { runs, gaps }
}

/**
 * The cheapest choice of what is copied, found from left to right. Where a run is sent, the stretch that it is in is long
 * enough without help, so one such choice is kept; of those whose last run is copied, each that is cheaper or has more to give
 * than the others.
 */
function choose(segments: readonly Segment[], bytesMin: number): Stretch[] {
  const { runs, gaps } = runsOf(segments, bytesMin)
  const [lead = 0] = gaps
  let choices: Choice[] = [
    { cost: 0, slack: 0, sent: Math.min(lead, bytesMin), copied: false, given: 0, taken: 0, before: undefined },
  ]
  runs.forEach(({ at, segment: { length } }, index) => {
    const gap = Math.min(gaps[index + 1] ?? 0, bytesMin)
    const isEnd = at === segments.length - 1
    const next: Choice[] = []
    for (const before of choices) {
      const absorbed = before.cost + length
      next.push({ cost: absorbed, slack: 0, sent: bytesMin, copied: false, given: 0, taken: 0, before })
      const need = before.sent === 0 ? 0 : bytesMin - before.sent
      const taken = Math.min(need, before.slack)
      const given = need - taken
      const left = length - given
      if (left < (isEnd ? 1 : bytesMin)) continue
      const slack = Math.min(left - bytesMin, bytesMin)
      next.push({ cost: before.cost + need, slack, sent: gap, copied: true, given, taken, before })
    }
    choices = best(next)
  })
  const found = choices.reduce((a, b) => (b.cost < a.cost ? b : a))
  return stretchesOf(segments, runs, found)
}

/** Without the choices that another is at least as good as. */
function best(choices: Choice[]): Choice[] {
  const kept: Choice[] = []
  const sent = choices.filter(({ copied }) => !copied)
  const cheapest = sent.reduce<Choice | undefined>((a, b) => (a === undefined || b.cost < a.cost ? b : a), undefined)
  if (cheapest !== undefined) kept.push(cheapest)
  const copied = choices.filter((each) => each.copied).sort((a, b) => a.cost - b.cost || b.slack - a.slack)
  let slack = Number.NEGATIVE_INFINITY
  for (const choice of copied) {
    if (choice.slack <= slack) continue
    kept.push(choice)
    slack = choice.slack
  }
  return kept
}

function stretchesOf(segments: readonly Segment[], runs: Runs['runs'], last: Choice): Stretch[] {
  /** By the segment's place: what of it is copied. */
  const copies = new Map<number, { head: number; tail: number }>()
  let choice: Choice | undefined = last
  for (let index = runs.length - 1, tail = 0; index >= 0; index--) {
    const run = runs[index]
    assert(run !== undefined && choice !== undefined, 'there is a choice for each run')
    if (choice.copied) copies.set(run.at, { head: choice.given, tail })
    tail = choice.taken
    choice = choice.before
  }
  const stretches: Stretch[] = []
  let sent: Segment[] = []
  const send = (segment: Segment, offset: number, length: number): void => {
    if (length > 0) sent.push({ ...segment, offset: segment.offset + offset, length })
  }
  segments.forEach((segment, at) => {
    const copy = copies.get(at)
    if (copy === undefined || !isStored(segment)) {
      send(segment, 0, segment.length)
      return
    }
    const { head, tail } = copy
    send(segment, 0, head)
    if (sent.length > 0) stretches.push({ sent })
    sent = []
    stretches.push({ copied: { ...segment, offset: segment.offset + head, length: segment.length - head - tail } })
    send(segment, segment.length - tail, tail)
  })
  if (sent.length > 0) stretches.push({ sent })
  return stretches
}

/** Cuts stretches into parts. */
function cut(stretches: readonly Stretch[], { bytesMin, sentBytes, copiedBytes }: PartLimits): PlannedPart[] {
  const parts: PlannedPart[] = []
  stretches.forEach((stretch, index) => {
    if ('copied' in stretch) {
      const { copied } = stretch
      // Of about one size, so that none is too short.
      const count = Math.ceil(copied.length / copiedBytes)
      for (let part = 0; part < count; part++) {
        const start = Math.floor((copied.length * part) / count)
        const end = Math.floor((copied.length * (part + 1)) / count)
        parts.push({ kind: 'copy', from: { ...copied, offset: copied.offset + start, length: end - start } })
      }
      return
    }
    let left = stretch.sent.reduce((sum, { length }) => sum + length, 0)
    const isLast = index === stretches.length - 1
    const pieces = new Pieces(stretch.sent)
    while (left > 0) {
      // What is left must be a part by itself, or go with this one.
      const tooShort = left - sentBytes < bytesMin && !isLast
      const bytes = tooShort ? left : Math.min(left, sentBytes)
      parts.push({ kind: 'send', segments: pieces.take(bytes), bytes })
      left -= bytes
    }
  })
  return parts
}

/** Takes segments apart from their beginning. */
class Pieces {
  readonly #segments: readonly Segment[]
  #index = 0
  #offset = 0

  constructor(segments: readonly Segment[]) {
    this.#segments = segments
  }

  take(bytes: number): Segment[] {
    const taken: Segment[] = []
    for (let left = bytes; left > 0;) {
      const segment = this.#segments[this.#index]
      assert(segment !== undefined, 'no more is taken than there is')
      const length = Math.min(left, segment.length - this.#offset)
      taken.push({ ...segment, offset: segment.offset + this.#offset, length })
      left -= length
      this.#offset += length
      if (this.#offset < segment.length) continue
      this.#index++
      this.#offset = 0
    }
    return taken
  }
}
