/**
 * The one place where a command's failure is told: one sentence, a hint, and the exit code. The stack goes to the log at
 * debug, and for a defect of the program always, as nothing else would tell where it is.
 */
import { isOperationError } from '#base/errors.ts'
import { logger } from '#base/log.ts'
import { EXIT, type ExitCode } from './command.ts'

/** A failure as it can be sent from one process to another. */
export interface Failure {
  readonly message: string
  readonly hint: string
  readonly exitCode: ExitCode
}

/** What to tell about an error. */
export function failureOf(error: unknown): Failure {
  if (isOperationError(error)) {
    return { message: error.message, hint: error.hint, exitCode: error.code === 'USAGE' ? EXIT.usage : EXIT.failed }
  }
  const detail = error instanceof Error ? `${error.name}: ${error.message}` : String(error)
  return {
    message: `Cannot go on: ${detail}`,
    hint: 'This is a defect of Eider rather than of its input; the stack is in the log.',
    exitCode: EXIT.failed,
  }
}

/** Tells a failure on stderr and in the log, and gives the exit code for it. */
export function reportFailure(error: unknown): ExitCode {
  const failure = failureOf(error)
  if (isOperationError(error)) logger('cli').debug({ err: error }, 'command failed')
  else logger('cli').error({ err: error }, 'command failed by a defect')
  printFailure(failure)
  return failure.exitCode
}

/** Writes the sentence and the hint to stderr. */
export function printFailure({ message, hint }: Failure): void {
  process.stderr.write(`eider: ${message}\n${hint === '' ? '' : `  hint: ${hint}\n`}`)
}
