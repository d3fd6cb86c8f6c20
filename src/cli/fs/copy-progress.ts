/** What a copy has done so far, and on a terminal a line that says so, from the first second on. */
import { isHole, type Piece } from '#cluster/client/pieces.ts'

import type { CopyKind } from './copy-end.ts'
import type { FsSession } from './session.ts'
import { about, counted } from '#cli/status-screen.ts'

const DRAW_MS = 200
/** What is done sooner needs no line. */
const QUIET_MS = 500
const COLUMNS = 80

export class CopyProgress {
  /** Entries that could not be copied. */
  failed = 0
  #files = 0
  #symlinks = 0
  #directories = 0
  /** That have gone by, of files that fail too. */
  #bytes = 0
  #bytesOfFiles = 0
  #line = ''
  readonly #begunMs = performance.now()
  readonly #timer: NodeJS.Timeout | undefined

  constructor({ isJson }: Pick<FsSession, 'isJson'>) {
    if (isJson || !process.stderr.isTTY) return
    this.#timer = setInterval(() => this.#draw(), DRAW_MS).unref()
  }

  get done(): number {
    return this.#files + this.#symlinks + this.#directories
  }

  get totals(): Readonly<Record<'files' | 'symlinks' | 'directories' | 'bytes', number>> {
    const bytes = this.#bytesOfFiles
    return { files: this.#files, symlinks: this.#symlinks, directories: this.#directories, bytes }
  }

  /** A file has its bytes, all else has none. */
  finish(kind: CopyKind, bytes = 0): void {
    this.#bytesOfFiles += bytes
    if (kind === 'file') this.#files++
    else if (kind === 'symlink') this.#symlinks++
    else this.#directories++
  }

  /** The pieces as they come, their bytes counted. */
  async *counted(pieces: AsyncIterable<Piece>): AsyncGenerator<Piece> {
    for await (const piece of pieces) {
      if (!isHole(piece)) this.#bytes += piece.length
      yield piece
    }
  }

  /** Writes on standard error where the line is, which goes below. */
  above(write: () => void): void {
    this.#clear()
    write()
  }

  end(): void {
    clearInterval(this.#timer)
    this.#clear()
  }

  #draw(): void {
    const elapsedMs = performance.now() - this.#begunMs
    if (elapsedMs < QUIET_MS) return
    const rate = `${about((this.#bytes * 1000) / elapsedMs)}/s`
    const failed = this.failed === 0 ? '' : `  ${this.failed} failed`
    const text = `Copied ${counted(this.#files, 'file')}  ${about(this.#bytes)}  ${rate}${failed}`
    this.#line = text.slice(0, (process.stderr.columns ?? COLUMNS) - 1)
    process.stderr.write(`\r${this.#line}\x1b[K`)
  }

  #clear(): void {
    if (this.#line !== '') process.stderr.write('\r\x1b[K')
    this.#line = ''
  }
}
