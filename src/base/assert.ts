/**
 * Programmer errors. A failed assertion means that this program is wrong, not its input: it is kept in production
 * and ends the process at the edge, since going on could write what nobody meant.
 */

/** What `assert` throws: a defect of the program, never a condition of its surroundings. */
export class AssertionError extends Error {
  override name = 'AssertionError'
}

/** Throws an `AssertionError` saying what must hold, unless it does. */
export function assert(condition: unknown, mustHold: string): asserts condition {
  if (!condition) throw new AssertionError(`Broken invariant: ${mustHold}`)
}

/** For the default branch of a switch over a union: fails to compile when a case is missing, and throws if reached. */
export function assertNever(value: never): never {
  throw new AssertionError(`Broken invariant: no case for ${JSON.stringify(value)}`)
}
