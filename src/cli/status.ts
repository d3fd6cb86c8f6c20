/** `eider status`: how the mounts of this machine stand. */
import { resolve } from 'node:path'
import { OperationError } from '#base/errors.ts'
import { command, EXIT } from './command.ts'
import type { MountRecord } from './mount-records.ts'
import type { MountStatus } from './mount-status.ts'
import { boolean, path } from './options.ts'

export const status = command({
  name: 'status',
  summary: 'what the mounts of this machine have in hand',
  description:
    'Shows each mount: open files, what is not yet in the store, memory, cache, the requests sent so far and what they would have cost at list prices. Root sees the mounts of all users. Ends with 1 where a mount does not answer, or its process is gone.',
  arguments: [],
  options: {
    mount: path({ help: 'Only the mount on that directory', group: 'Output', placeholder: 'DIRECTORY' }),
    json: boolean({ help: 'Writes one JSON object instead of lines', group: 'Output' }),
  },
  run: async (_, { json, mount }) => {
    const [{ mountRecords }, { deadMounts }, { askStatus }, { isRunning }, { mountPath }, { deadLines, statusLines }] =
      await Promise.all([
        import('./mount-records.ts'),
        import('./dead-mounts.ts'),
        import('./mount-status.ts'),
        import('./process-identity.ts'),
        import('#os/mount-table.ts'),
        import('./status-screen.ts'),
      ])
    const target = mount === undefined ? undefined : mountPath(resolve(mount))
    const known = mountRecords().filter(({ directory }) => target === undefined || directory === target)
    const records = known.filter((record) => isRunning(record.process))
    const dead = await deadMounts(known, target)
    if (target !== undefined && records.length === 0 && dead.length === 0) {
      throw new OperationError('NOT_MOUNTED', `Cannot show '${target}': no mount of Eider is there`)
    }
    const told = await Promise.all(records.map((record) => ask(record, askStatus)))
    const mounts = told.filter((each): each is MountStatus => !('error' in each))
    const silent = told.filter((each): each is Silent => 'error' in each)
    if (json) process.stdout.write(`${JSON.stringify({ mounts, silent, dead }, null, 2)}\n`)
    else {
      const shown = [...mounts.map(statusLines), ...dead.map(deadLines)]
      if (shown.length > 0) process.stdout.write(`${shown.join('\n\n')}\n`)
      else if (told.length === 0) process.stdout.write('Nothing is mounted\n')
    }
    for (const { directory, pid, error } of silent) {
      process.stderr.write(`eider: ${directory} (process ${pid}) does not tell how it stands: ${error}\n`)
    }
    return silent.length === 0 && dead.length === 0 ? EXIT.done : EXIT.failed
  },
})

interface Silent {
  readonly directory: string
  readonly pid: number
  readonly error: string
}

async function ask(
  { directory, process: server, socket }: MountRecord,
  askStatus: (socket: string) => Promise<MountStatus>,
): Promise<MountStatus | Silent> {
  try {
    if (socket === undefined) throw new Error('it is of another version of Eider')
    return await askStatus(socket)
  } catch (error) {
    return { directory, pid: server.pid, error: error instanceof Error ? error.message : String(error) }
  }
}
