/**
 * Standard output of a verb: lines, gathered to large writes, and bytes, which go out as they are. Writes do not block this process, so
 * that more is fetched meanwhile. Who reads it may go away (`| head`): then `OutputClosed` ends the verb without a word.
 */
import { write } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'

import { OperationError } from '#base/errors.ts'
import { printable } from '#cli/status-screen.ts'

const LINES_BYTES = 64 * 1024
/** A pipe that does not block is full: whoever reads it needs some time. */
const FULL_MS = 2

/** Nobody reads what is written. */
export class OutputClosed extends Error {
  override name = 'OutputClosed'
}

export class FsOutput {
  readonly isTerminal: boolean
  readonly #fd: number
  #lines: string[] = []
  #length = 0

  constructor(fd = 1, isTerminal = process.stdout.isTTY) {
    this.#fd = fd
    this.isTerminal = isTerminal
  }

  /** One line. Most calls only remember it. */
  line(text: string): Promise<void> | undefined {
    // A name may have in it what steers a terminal.
    const shown = this.isTerminal ? printable(text) : text
    this.#lines.push(shown)
    this.#length += shown.length + 1
    return this.#length >= LINES_BYTES ? this.flush() : undefined
  }

  json(value: unknown): Promise<void> | undefined {
    return this.line(JSON.stringify(value))
  }

  /** Bytes as they are, after all lines before them. */
  async bytes(chunk: Uint8Array): Promise<void> {
    await this.flush()
    await this.#write(chunk)
  }

  async flush(): Promise<void> {
    if (this.#lines.length === 0) return
    const text = `${this.#lines.join('\n')}\n`
    this.#lines = []
    this.#length = 0
    await this.#write(Buffer.from(text))
  }

  async #write(chunk: Uint8Array): Promise<void> {
    for (let at = 0; at < chunk.length;) {
      try {
        at += await written(this.#fd, chunk, at)
      } catch (error) {
        const { code } = error as NodeJS.ErrnoException
        if (code === 'EPIPE') throw new OutputClosed('Cannot write: nobody reads it', { cause: error })
        if (code !== 'EAGAIN') {
          const { message } = error as Error
          throw new OperationError('LOCAL_FAILED', `Cannot write the output: ${message}`, { cause: error })
        }
        await sleep(FULL_MS)
      }
    }
  }
}

function written(fd: number, chunk: Uint8Array, at: number): Promise<number> {
  return new Promise((resolve, reject) => {
    write(fd, chunk, at, chunk.length - at, null, (error, count) => (error === null ? resolve(count) : reject(error)))
  })
}
