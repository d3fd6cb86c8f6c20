/** The program: from the arguments to the exit code. */
import { runCommandLine } from '#cli/command-line.ts'

const exitCode = await runCommandLine(process.argv.slice(2))
// A command that is done is done, whatever connection is still kept alive for a next request.
process.exit(exitCode)
