/** The verbs about what was, as they are called. */
import type { Argument, Command } from '#cli/command.ts'
import { verb } from './options.ts'
import { PATH } from './tree-verbs.ts'
import { string } from '#cli/options.ts'

const GROUP = 'Verb'
const TIME: Argument = {
  name: 'TIME',
  help: 'microseconds, a date, or such as "1h ago"; 0 where it is left out',
  optional: true,
}
const SIDES = [
  ['le', 'the newest that began at TIME or before'],
  ['ge', 'the oldest that began at TIME or later'],
] as const

export const HISTORY_VERBS: readonly Command[] = [
  verb({
    name: 'history',
    summary: 'every version of a name',
    description: 'Shows what a name has led to, the oldest first: from when until when, and what became of it.',
    arguments: [PATH],
    run: async (session, [path = '']) => (await import('./history.ts')).history(session, path),
  }),
  verb({
    name: 'undelete',
    summary: 'brings a removed or replaced file back',
    description:
      'Gives a file of the history its name again: the newest one, or that of a time. Where the name is taken, --to gives another one. Prints the inode.',
    arguments: [PATH],
    options: {
      at: string({ help: 'What was there at that time', group: GROUP, placeholder: 'TIME' }),
      to: string({ help: 'Another name in the same directory', group: GROUP, placeholder: 'NAME' }),
    },
    run: async (session, [path = ''], values) => (await import('./history.ts')).undelete(session, path, values),
  }),
  ...SIDES.map(([side, which]) =>
    verb({
      name: `resolve_dead_${side}`,
      summary: `a past version of a name: ${which}`,
      description: `Shows where a name led once: ${which}.`,
      arguments: [PATH, TIME],
      run: async (session, [path = '', time]) =>
        (await import('./history.ts')).resolveDead(session, path, { side, time }),
    }),
  ),
  ...SIDES.flatMap(([side, which]) =>
    [false, true].map((all) =>
      verb({
        name: all ? `ls_dead_all_${side}` : `ls_dead_${side}`,
        summary: `names with a past version, ${which}${all ? ', also deletions' : ''}`,
        description: `Lists the names of a directory that led to something else once: of the versions of each, ${which}.${
          all
            ? ' Where that is a deletion, the name is shown with "[deleted]".'
            : ' Where that is a deletion, the name is left out.'
        }`,
        arguments: [PATH, TIME],
        run: async (session, [path = '', time]) =>
          (await import('./listing.ts')).listDead(session, path, { side, all, time }),
      }),
    ),
  ),
]
