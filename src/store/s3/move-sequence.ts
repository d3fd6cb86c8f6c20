/**
 * Moves under an intent: one for the rename of a directory, three for an exchange. Each copies, says that it has copied, and only
 * then removes. What fails while it copies is taken back, with the moves before it; what fails later is left to be finished.
 *
 * ```
 * copying --all copied--> removing --all removed--> copying of the next move … or done
 *    \--failed--> undoing --copies removed--> copying of the moves before, backwards … or done
 * ```
 */
import type { OperationError } from '#base/errors.ts'
import { logger } from '#base/log.ts'
import type { S3Context } from './context.ts'
import { Mover } from './mover.ts'
import { Lease, newIntentId, type Move, type Moving } from './rename-intents.ts'

/** After so long, what could not be taken back is left to whoever opens the store next. */
const UNDO_MS_MAX = 60_000

const log = logger('store/s3')

export interface Moved {
  /** One for each move. */
  readonly movers: readonly Mover[]
  /** The error of what stayed under its old name, if anything did. */
  readonly stayed: OperationError | undefined
}

/**
 * Makes the moves in their order; their targets have been seen to be free. Three requests beside those of the moves, none for
 * one move of one object; two more for each move after the first.
 */
export async function runMoves(
  context: S3Context,
  moves: readonly Move[],
  callerSignal: AbortSignal | undefined,
): Promise<Moved> {
  const lost = new AbortController()
  const signal = callerSignal === undefined ? lost.signal : AbortSignal.any([callerSignal, lost.signal])
  let lease: Lease<Moving> | undefined
  const begin = async (): Promise<void> => {
    const what: Moving = { kind: 'move', moves: [...moves], step: 0, phase: 'copying' }
    lease = await Lease.begin(context, newIntentId(), what, signal)
    lease.signal.addEventListener('abort', () => lost.abort(lease?.signal.reason), { once: true })
  }
  const held = (): Lease<Moving> | undefined => lease
  if (moves.length > 1) await begin()
  const movers: Mover[] = []
  let stayed: OperationError | undefined
  for (const [step, move] of moves.entries()) {
    const options = { resumed: false, hold: async () => held()?.hold(signal), signal }
    const mover = new Mover(context, move, moves.length > 1 ? options : { ...options, onMany: begin })
    movers.push(mover)
    try {
      if (step > 0) await held()?.advance({ step, phase: 'copying' }, signal)
      await mover.copy()
    } catch (error) {
      await takeBack(context, held(), mover)
      throw lost.signal.aborted ? lost.signal.reason : error
    }
    try {
      await held()?.advance({ phase: 'removing' }, signal)
      const left = await mover.remove()
      stayed ??= left
    } catch (error) {
      held()?.leave()
      throw lost.signal.aborted ? lost.signal.reason : error
    }
  }
  await held()?.end(undefined)
  return { movers, stayed }
}

/** What fails here is left to be finished later, and told in the log alone. */
async function takeBack(context: S3Context, lease: Lease<Moving> | undefined, mover: Mover): Promise<void> {
  const signal = AbortSignal.timeout(UNDO_MS_MAX)
  try {
    await lease?.advance({ phase: 'undoing' }, signal)
    await mover.undo(signal)
    if (lease === undefined) return
    await goBack(context, lease, signal)
    await lease.end(signal)
  } catch (error) {
    log.warn({ err: error, key: lease?.key }, 'cannot take back a rename that failed; it is left to the next opening')
    lease?.leave()
  }
}

/** Reverses the moves before the one whose copies have been removed. */
async function goBack(context: S3Context, lease: Lease<Moving>, signal: AbortSignal): Promise<void> {
  const { moves, step } = lease.what
  if (step === 0) return
  const back = moves.slice(0, step).map(({ from, to, directory }) => ({ from: to, to: from, directory }))
  await lease.advance({ moves: back.toReversed(), step: 0, phase: 'copying' }, signal)
  await goOn(context, lease, signal)
}

/** Makes the moves from the one that is under way on, whatever of it has been done. */
async function goOn(context: S3Context, lease: Lease<Moving>, signal: AbortSignal): Promise<void> {
  const { moves, step: first } = lease.what
  for (const [step, move] of moves.entries()) {
    if (step < first) continue
    const resumed = { resumed: true, hold: () => lease.hold(signal), signal }
    // All originals are older than the note that all were copied; what is newer was put there by others since.
    const until = lease.what.phase === 'removing' && step === first ? lease.before?.written : undefined
    const mover = new Mover(context, move, until === undefined ? resumed : { ...resumed, until })
    if (step > first) await lease.advance({ step, phase: 'copying' }, signal)
    if (lease.what.phase === 'copying') {
      await mover.copy()
      await lease.advance({ phase: 'removing' }, signal)
    }
    const stayed = await mover.remove()
    if (stayed !== undefined)
      log.warn({ ...move, err: stayed }, 'not all of a directory could be moved; the rest is left')
  }
}

/** Finishes what another has begun: forwards, unless it was being taken back. */
export async function finishMoves(context: S3Context, lease: Lease<Moving>, signal: AbortSignal): Promise<void> {
  const { moves, step, phase } = lease.what
  if (phase === 'undoing') {
    const move = moves[step]
    const mover = move && new Mover(context, move, { resumed: true, hold: () => lease.hold(signal), signal })
    await mover?.undo(signal)
    await goBack(context, lease, signal)
  } else {
    await goOn(context, lease, signal)
  }
}
