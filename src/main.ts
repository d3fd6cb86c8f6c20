/** The program: from the arguments to the exit code. */
import { runCommandLine } from '#cli/command-line.ts'
import { reportFailure } from '#cli/failure.ts'

// A defect ends the process: going on could write what nobody meant.
process.on('uncaughtException', (error) => process.exit(reportFailure(error)))

const exitCode = await runCommandLine(process.argv.slice(2))
// A command that is done is done, whatever connection is still kept alive for a next request.
process.exit(exitCode)
