/** What a check of a cluster finds wrong, for people: how bad it is, what is affected, and why. */

/** `lost`: names or bytes are gone. `degraded`: all is there, but something works less well, or is less safe. `leak`: only room is wasted. */
export type Severity = 'lost' | 'degraded' | 'leak'

export interface Problem {
  readonly severity: Severity
  /** A path, an inode, or a directory of this machine. */
  readonly where: string
  readonly detail: string
}

export type OnProblem = (problem: Problem) => void
