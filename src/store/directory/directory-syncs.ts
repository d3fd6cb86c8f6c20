/**
 * fsync of directories, shared: of all who want one directory made durable while a sync of it is under way, one more
 * sync serves all. With many puts in flight that is one for some ten of them, at 60 µs of CPU each.
 */
import { closeSync, fsync } from 'node:fs'

import { statusOf } from '#os/status.ts'

/** An open directory that is closed when its sync has ended; `id` is that of its inode. */
export interface DirectoryToSync {
  readonly fd: number
  readonly id: string
}

/** An open directory, to be given to `DirectorySyncs`. */
export function toSync(fd: number): DirectoryToSync {
  return { fd, id: statusOf(fd).id }
}

interface Waiting {
  readonly fd: number
  readonly promise: Promise<void>
  readonly start: () => void
}

export class DirectorySyncs {
  /** By inode: the sync that will follow the one under way, if anybody waits for it. */
  readonly #running = new Map<string, Waiting | undefined>()

  /** Resolves when all that was done in the directory before the call is durable. */
  sync({ fd, id }: DirectoryToSync): Promise<void> {
    if (!this.#running.has(id)) return this.#run(fd, id)
    const waiting = this.#running.get(id)
    if (waiting !== undefined) {
      closeSync(fd)
      return waiting.promise
    }
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const start = (): void => {
      this.#run(fd, id).then(resolve, reject)
    }
    this.#running.set(id, { fd, promise, start })
    return promise
  }

  #run(fd: number, id: string): Promise<void> {
    this.#running.set(id, undefined)
    return new Promise((resolve, reject) => {
      fsync(fd, (error) => {
        closeSync(fd)
        const next = this.#running.get(id)
        this.#running.delete(id)
        next?.start()
        // A file system that syncs no directories has nothing to wait for.
        if (error === null || error.code === 'EINVAL' || error.code === 'ENOTSUP') resolve()
        else reject(error)
      })
    })
  }
}
