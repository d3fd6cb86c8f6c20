/**
 * How much of the target may be deleted before somebody has to say that it is meant. What is counted is counted from one
 * comparison of the trees to the next. Pure.
 */
import { OperationError } from '#base/errors.ts'

/** A percentage says little of a handful of files. */
const FEW = 10

export interface DeleteRules {
  /** `--yes-delete`: it was said that it is meant. */
  readonly isMeant: boolean
  readonly countMax: number | undefined
  /** Of what the target had when it was compared. */
  readonly percentMax: number
}

export class DeleteGuard {
  readonly #rules: DeleteRules
  /** Until a comparison has told. */
  #total = Number.MAX_SAFE_INTEGER
  #deleted = 0

  constructor(rules: DeleteRules) {
    this.#rules = rules
  }

  /** The target has so many entries; what is deleted is counted from here. */
  begin(total: number): void {
    this.#total = total
    this.#deleted = 0
  }

  /** So many entries of the target are known by now, of a comparison that is not over. */
  known(total: number): void {
    this.#total = total
  }

  /**
   * So many came to the target since. They make up for what was deleted: else files that come and go, as those of editors, would
   * add up to more than there is.
   */
  added(count: number): void {
    const madeUp = Math.min(this.#deleted, count)
    this.#deleted -= madeUp
    this.#total += count - madeUp
  }

  /** Whether so many more may be deleted. */
  allows(count: number): boolean {
    return this.objection(count) === undefined
  }

  /** So many are going to be deleted. @throws OperationError `DELETES_REFUSED` */
  take(count: number): void {
    const objection = this.objection(count)
    if (objection !== undefined) {
      throw new OperationError(
        'DELETES_REFUSED',
        `Cannot delete ${this.#deleted + count} entries of the target: ${objection}`,
      )
    }
    this.#deleted += count
  }

  /** Why so many more may not be deleted; undefined where they may. */
  objection(count: number): string | undefined {
    const { isMeant, countMax, percentMax } = this.#rules
    const after = this.#deleted + count
    if (isMeant || count === 0) return undefined
    if (countMax !== undefined && after > countMax) return `--delete-max is ${countMax}`
    if (after >= this.#total && this.#total > 1) return `it has ${this.#total}, and nothing would be left of it`
    if (after > FEW && after * 100 > percentMax * this.#total) {
      return `it has ${this.#total}, and --delete-percent is ${percentMax}`
    }
    return undefined
  }
}
