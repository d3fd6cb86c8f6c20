/**
 * Every command, in the order of the overview. Their files are light: each imports what it works with only when it runs.
 */
import type { Command } from './command.ts'
import { doctor } from './doctor.ts'

export const COMMANDS: readonly Command[] = [doctor]
