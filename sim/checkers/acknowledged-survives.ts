/** What was acknowledged survives: everything that somebody was told is done is there in the end, just so and just once. */
import { SimulationFailure } from '#sim/timeline.ts'

/** @param found all that is there, once for each time that it is */
export function acknowledgedSurvives(acknowledged: Iterable<string>, found: Iterable<string>): void {
  const counts = new Map<string, number>()
  for (const one of found) counts.set(one, (counts.get(one) ?? 0) + 1)
  for (const [one, count] of counts) {
    if (count > 1) throw new SimulationFailure(`${one} is there ${count} times`)
  }
  for (const one of acknowledged) {
    if (!counts.has(one)) throw new SimulationFailure(`${one} was acknowledged and is not there`)
  }
}
