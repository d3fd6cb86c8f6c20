/** `eider doctor`: what this machine allows, and what to do about what it does not. */
import { command, EXIT } from './command.ts'
import { boolean } from './options.ts'

export const doctor = command({
  name: 'doctor',
  summary: 'what this machine allows, and what to do about what it does not',
  description:
    'Looks at this machine and says what Eider can do on it: Node, FUSE, passthrough, fanotify, rights, limits, room, clock, credentials. Ends with 1 where something is missing that a mount needs.',
  arguments: [],
  options: { json: boolean({ help: 'Write one JSON object instead of lines', group: 'Output' }) },
  run: async (_, { json }) => {
    const { examine } = await import('./doctor-checks.ts')
    const findings = await examine()
    if (json) {
      process.stdout.write(`${JSON.stringify({ findings }, null, 2)}\n`)
    } else {
      for (const { subject, state, found, advice } of findings) {
        process.stdout.write(`${MARKS[state]} ${subject.padEnd(16)} ${found}\n`)
        if (advice !== undefined) process.stdout.write(`${' '.repeat(19)}→ ${advice}\n`)
      }
    }
    return findings.some(({ state }) => state === 'missing') ? EXIT.failed : EXIT.done
  },
})

const MARKS = { ok: '✔', weak: '!', missing: '✘' } as const
