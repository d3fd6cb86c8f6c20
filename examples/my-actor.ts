/**
 * An actor of one's own, whole: an archive that keeps each file compressed, with one index beside them. Copy it and change what it
 * does; it needs nothing but Node. It is run as
 *
 *   eider sync DIRECTORY --actor ./my-actor.ts --archive-directory=/backup [--compression-level=9]
 *
 * Eider scans, watches, compares, tries again and remembers. An actor says what its target has (`list`), takes a file in
 * (`upload`) and removes one (`delete`), and must keep one promise: a file is in the target wholly or not at all.
 *
 * In the archive, `objects/` holds the compressed bytes under the hash of each file's path, so that no name can be too long or in
 * another's way, and `index.jsonl` has a line for each change: what a path has, or that it has nothing any more.
 */
import { createHash, randomUUID } from 'node:crypto'
import { appendFileSync, createWriteStream, existsSync, mkdirSync, readFileSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { createGzip } from 'node:zlib'

// What Eider hands over, as far as this actor uses it. Types are gone when the module runs, so they may as well stand here.

/** A time since 1970, to the nanosecond. */
interface Timestamp {
  seconds: number
  nanoseconds: number
}
/** What is in the target: `path` and `size` are needed; without `mtime` a sync has less to compare by. */
interface Listed {
  path: string
  size: number
  mtime: Timestamp
}
interface FileToSend extends Listed {
  /** The bytes, from the start at each call. It throws at its end where the file was changed meanwhile. */
  stream(): AsyncIterable<Uint8Array>
}
interface Context {
  /** Values of the options below, by name. */
  options: Record<string, string>
}
interface Call {
  /** Fires where the sync is stopped: give up then. */
  signal?: AbortSignal
}

/**
 * Options of this actor. Each becomes a flag, `--archive-directory`, and may be written `--archive_directory` as well. Those that are
 * `required` are asked for before anything starts; values of those that are `secret` are shown nowhere.
 */
export const options = {
  archiveDirectory: { help: 'where the archive is', placeholder: 'DIRECTORY', required: true },
  compressionLevel: { help: 'from 1, fast, to 9, small', placeholder: 'NUMBER', default: '6' },
}

/** Called once, before the first scan. What it throws stops the sync with those words. */
export function open({ options: values }: Context): Archive {
  const level = Number(values['compressionLevel'])
  if (!(level >= 1 && level <= 9)) throw new Error('--compression-level is a number from 1 to 9')
  return new Archive(values['archiveDirectory'] ?? '', level)
}

class Archive {
  /** For messages. */
  readonly url: string
  /** True where `list` gives paths in order of their UTF-8 bytes: then the first file is sent before the listing ends. */
  readonly alreadySorted = false
  /** What is kept beside the bytes: modification times, to the nanosecond. */
  readonly keeps = { mtimePrecisionNs: 1 }
  readonly #objects: string
  readonly #index: string
  readonly #level: number
  readonly #files = new Map<string, Listed>()

  constructor(directory: string, level: number) {
    this.url = `archive:${directory}`
    this.#objects = join(directory, 'objects')
    this.#index = join(directory, 'index.jsonl')
    this.#level = level
    mkdirSync(this.#objects, { recursive: true })
    const lines = existsSync(this.#index) ? readFileSync(this.#index, 'utf8').split('\n') : []
    // What follows the last line's end was cut by a crash: what it told was not done.
    for (const line of lines.slice(0, -1)) {
      const { path, file } = JSON.parse(line) as { path: string; file: Listed | null }
      if (file === null) this.#files.delete(path)
      else this.#files.set(path, file)
    }
  }

  /** All that is in the target: one by one as here, or in arrays, which is faster for many. */
  async *list(): AsyncGenerator<Listed> {
    yield* this.#files.values()
  }

  /**
   * Creates or replaces a file. At most one call is under way for a path, many for different ones. A call that throws is made again
   * later, so whatever it left must not matter: here, bytes go to a name of their own first, and are renamed once they are all there.
   */
  async upload(file: FileToSend, { signal }: Call): Promise<Listed> {
    const { path, size, mtime } = file
    const temporary = join(this.#objects, `new-${randomUUID()}`)
    const target = createWriteStream(temporary, { flush: true })
    try {
      await pipeline(file.stream(), createGzip({ level: this.#level }), target, signal === undefined ? {} : { signal })
      renameSync(temporary, this.#objectOf(path))
    } catch (error) {
      rmSync(temporary, { force: true })
      throw error
    }
    const kept = { path, size, mtime }
    this.#note(path, kept)
    // What is there now; nothing may be told, too.
    return kept
  }

  /** Removes a file. It may not be there any more, which is no error. */
  async delete({ path }: { path: string }): Promise<void> {
    this.#note(path, null)
    rmSync(this.#objectOf(path), { force: true })
  }

  // Eider can do more with an actor that has more: `stat`, `hash`, `rename`, `copy`, `deleteAll`, `makeDirectory`, `symlink`, `readLink`,
  // `setAttributes`, and `close`, which is called at the end. src/sync/actor.ts says what each has to do.

  #objectOf(path: string): string {
    return join(this.#objects, `${createHash('sha256').update(path).digest('hex')}.gz`)
  }

  #note(path: string, file: Listed | null): void {
    appendFileSync(this.#index, `${JSON.stringify({ path, file })}\n`)
    if (file === null) this.#files.delete(path)
    else this.#files.set(path, file)
  }
}
