/**
 * The one place where a command's failure is told: one sentence, a hint, and the exit code. The stack goes to the log at
 * debug, and for a defect of the program always, as nothing else would tell where it is.
 */
import { type ErrorCode, isOperationError } from '#base/errors.ts'
import { logger, logsToFile } from '#base/log.ts'
import { EXIT, type ExitCode } from './command.ts'

const log = logger('cli')

/** A failure as it can be sent from one process to another. */
export interface Failure {
  /** Undefined for a defect. */
  readonly code?: ErrorCode
  readonly message: string
  readonly hint: string
  readonly exitCode: ExitCode
}

/** The failure of another process of this program, told here as it would have told it. */
export class ChildFailure extends Error {
  override name = 'ChildFailure'
  readonly failure: Failure

  constructor(failure: Failure) {
    super(failure.message)
    this.failure = failure
  }
}

/** What to tell about an error. */
export function failureOf(error: unknown): Failure {
  if (error instanceof ChildFailure) return error.failure
  if (isOperationError(error)) {
    const { code, message, hint } = error
    return { code, message, hint, exitCode: code === 'USAGE' ? EXIT.usage : EXIT.failed }
  }
  const detail = error instanceof Error ? `${error.name}: ${error.message}` : String(error)
  return {
    message: `Cannot go on: ${detail}`,
    hint: 'This is a defect of Eider rather than of its input; the stack is in the log.',
    exitCode: EXIT.failed,
  }
}

/** Whether another process of this program started this one: it tells the failure, and standard error is the log. */
const IS_STARTED = process.send !== undefined

/** Tells a failure on stderr, in a log that is a file as a line of that, and gives the exit code for it. */
export function reportFailure(error: unknown): ExitCode {
  const failure = failureOf(error)
  const { code, message, hint, exitCode } = failure
  if (error instanceof ChildFailure || isOperationError(error)) {
    if (IS_STARTED || logsToFile()) log.error({ code, hint }, message)
    log.debug({ err: error }, 'command failed')
  } else log.error({ err: error }, 'command failed by a defect')
  if (!IS_STARTED) process.stderr.write(`eider: ${message}\n${hint === '' ? '' : `  hint: ${hint}\n`}`)
  return exitCode
}
