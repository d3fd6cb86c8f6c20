/**
 * How much of the target may be deleted before somebody has to say that it is meant. Two questions: of all that a comparison found
 * in the target alone, and, while the source is watched, of what has gone since then and did not come again. The second lets a few
 * go at any time, as a directory that files pass through is often empty. Pure.
 */
import { OperationError } from '#base/errors.ts'

/** A percentage says little of a handful of files. */
const FEW = 10

export interface DeleteRules {
  /** `--yes-delete`: it was said that it is meant. */
  readonly isMeant: boolean
  readonly countMax: number | undefined
  /** Of what the target has. */
  readonly percentMax: number
}

/** What a comparison found, as far as it has come. */
export interface Compared {
  /** Entries of the source. */
  readonly source: number
  /** Entries of the target, those that it deleted since included. */
  readonly target: number
  /** A root of several that has nothing any more, though the target has something of it. */
  readonly emptied?: string | undefined
}

export class DeleteGuard {
  readonly #rules: DeleteRules
  /** Entries of the target, once a comparison has told: until then no percentage can be. */
  #present = Number.MAX_SAFE_INTEGER
  /** Since the comparison began. */
  #deleted = 0
  #isCounting = true
  /** Deleted since the last comparison, less what came. */
  #gone = 0

  constructor(rules: DeleteRules) {
    this.#rules = rules
  }

  /** It is not known yet how much a comparison will delete: what is not a part of that has to wait. */
  get isCounting(): boolean {
    return this.#isCounting
  }

  /** The target has so many entries, and what the comparison was to delete is gone. */
  begin(present: number): void {
    this.#present = present
    this.#deleted = 0
    this.#gone = 0
    this.#isCounting = false
  }

  /** A comparison begins: what it deletes is counted from here. */
  beginComparison(): void {
    this.#deleted = 0
    this.#isCounting = true
  }

  /** So many came to the target since. */
  added(count: number): void {
    this.#present += count
    this.#gone = Math.max(0, this.#gone - count)
  }

  /** So many are going to be deleted together. @throws OperationError `DELETES_REFUSED` */
  take(count: number): void {
    this.check(count)
    this.note(count)
  }

  /** So many are deleted that were found to be allowed together. */
  note(count: number): void {
    this.#deleted += count
    this.#gone += count
    this.#present -= count
  }

  /** Whether so many may go together. @throws OperationError `DELETES_REFUSED` */
  check(count: number): void {
    const together = this.#gone + count
    refuse(together, this.#objection(together, this.#present + this.#gone))
  }

  /** Why so many, which a comparison found in the target alone, may not go with those that it had deleted before. */
  comparedObjection(count: number, { source, target, emptied }: Compared): string | undefined {
    if (!this.#rules.isMeant && count > 0) {
      if (source === 0) return `the source is empty, and it has ${target}`
      if (emptied !== undefined) return `"${emptied}" is empty, and it has what was there`
    }
    return this.#objection(this.#deleted + count, target)
  }

  /** @throws OperationError `DELETES_REFUSED` */
  checkCompared(count: number, compared: Compared): void {
    refuse(this.#deleted + count, this.comparedObjection(count, compared))
  }

  #objection(count: number, present: number): string | undefined {
    const { isMeant, countMax, percentMax } = this.#rules
    if (isMeant || count === 0) return undefined
    if (countMax !== undefined && count > countMax) return `--delete-max is ${countMax}`
    if (count <= FEW || count * 100 <= percentMax * present) return undefined
    return count >= present
      ? `it has ${present}, and nothing would be left of it`
      : `it has ${present}, and --delete-percent is ${percentMax}`
  }
}

function refuse(count: number, objection: string | undefined): void {
  if (objection === undefined) return
  throw new OperationError('DELETES_REFUSED', `Cannot delete ${count} entries of the target: ${objection}`)
}
