/** A failed run in words: what happened last, what failed, and the command that replays it. */
import type { Outcome } from './run-seed.ts'

const LAST_LINES = 60

/** @param wasTraced the lines of the trace were told already */
export function failureReport(outcome: Outcome, wasTraced: boolean): string[] {
  const { scenario, seed, failure, faults, lastLines, simulatedMs, eventCount } = outcome
  const cause = failure?.cause instanceof Error ? (failure.cause.stack ?? failure.cause.message) : undefined
  return [
    ...(wasTraced ? [] : lastLines.slice(-LAST_LINES)),
    '',
    `FAILED: seed ${seed} of ${scenario}, at ${(simulatedMs / 1000).toFixed(6)} s, after ${eventCount} events`,
    `  ${failure?.message ?? 'nothing'}`,
    ...(cause === undefined ? [] : [`  ${cause.replaceAll('\n', '\n  ')}`]),
    `  faults: ${faults.length === 0 ? 'none' : faults.join(', ')}`,
    `  replay: ${replayCommand(outcome)}`,
  ]
}

export function replayCommand({ scenario, seed }: Outcome): string {
  return `npm run sim -- --scenario ${scenario} --seed ${seed}`
}
