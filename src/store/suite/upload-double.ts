/**
 * Uploads in parts over a store that has none, for tests of what stands between such a store and its user: the parts are
 * kept in memory until the commit, and put together then. It promises what the port does, and no more.
 */
import { assert } from '#base/assert.ts'
import { isOperationError } from '#base/errors.ts'
import { checkAborted } from '#store/abort.ts'
import { readFileSegments } from '#store/file-segments.ts'
import type { Attributes, CallOptions, Entry, FileSegment, PutOptions, Store, Upload } from '#store/store.ts'

export interface UploadDouble extends Store {
  /** Uploads that were begun, and neither committed nor given up. */
  readonly uploadsOpen: ReadonlySet<Upload>
}

/** The store with uploads whose parts all have so many bytes; closing it closes the store. */
export function withUploads(inner: Store, partBytes: number): UploadDouble {
  const uploadsOpen = new Set<Upload>()
  return {
    url: inner.url,
    capabilities: inner.capabilities,
    uploadsOpen,
    stat: (path, o) => inner.stat(path, o),
    list: (path, o) => inner.list(path, o),
    read: (path, o) => inner.read(path, o),
    readLink: (path, o) => inner.readLink(path, o),
    put: (path, source, o) => inner.put(path, source, o),
    symlink: (path, target, o) => inner.symlink(path, target, o),
    makeSpecial: (path, kind, o) => inner.makeSpecial(path, kind, o),
    makeDirectory: (path, o) => inner.makeDirectory(path, o),
    setAttributes: (path, changes, o) => inner.setAttributes(path, changes, o),
    copy: (from, to, o) => inner.copy(from, to, o),
    rename: (from, to, o) => inner.rename(from, to, o),
    exchange: (path, other, o) => inner.exchange(path, other, o),
    removeAll: (removals, o) => inner.removeAll(removals, o),
    remove: (path, o) => inner.remove(path, o),
    removeDirectory: (path, o) => inner.removeDirectory(path, o),
    space: (o) => inner.space(o),
    close: () => inner.close(),
    beginUpload: async (path, { attributes, signal }) => {
      checkAborted(`begin to put "${path}"`, signal)
      const upload = new PartsInMemory(inner, path, partBytes, attributes, () => uploadsOpen.delete(upload))
      uploadsOpen.add(upload)
      return upload
    },
  }
}

class PartsInMemory implements Upload {
  readonly #inner: Store
  readonly #path: string
  readonly #partBytes: number
  readonly #attributes: Attributes
  readonly #onEnd: () => void
  readonly #parts = new Map<number, Buffer>()
  #ended = false
  #isCommitted = false

  constructor(inner: Store, path: string, partBytes: number, attributes: Attributes, onEnd: () => void) {
    this.#inner = inner
    this.#path = path
    this.#partBytes = partBytes
    this.#attributes = attributes
    this.#onEnd = onEnd
  }

  part(index: number): { offset: number; length: number } {
    return { offset: index * this.#partBytes, length: this.#partBytes }
  }

  async send(index: number, fd: number, { signal }: CallOptions = {}): Promise<void> {
    assert(!this.#ended, 'the upload is still under way')
    const bytes = await readFileSegments(this.#path, [{ fd, ...this.part(index) }], signal)
    this.#parts.set(index, bytes)
  }

  async commit(source: FileSegment, changed: ReadonlySet<number>, options: PutOptions): Promise<Entry> {
    // Its answer was lost, and it is tried again: as a put of the whole, whose guard tells what is there now.
    if (this.#isCommitted) return this.#inner.put(this.#path, { kind: 'file', segments: [source] }, options)
    assert(!this.#ended, 'the upload is still under way')
    const pieces: Buffer[] = []
    for (let index = 0; index * this.#partBytes < source.length; index++) {
      const { offset, length } = this.part(index)
      const sent = changed.has(index) || offset + length > source.length ? undefined : this.#parts.get(index)
      const segment = {
        fd: source.fd,
        offset: source.offset + offset,
        length: Math.min(length, source.length - offset),
      }
      pieces.push(sent ?? (await readFileSegments(this.#path, [segment], options.signal)))
    }
    const attributes = { ...this.#attributes, ...options.attributes }
    try {
      const entry = await this.#inner.put(this.#path, Buffer.concat(pieces), { ...options, attributes })
      this.#isCommitted = true
      this.#end()
      return entry
    } catch (error) {
      if (isOperationError(error, 'STORE_CONFLICT')) this.#end()
      throw error
    }
  }

  async abort(): Promise<void> {
    this.#end()
  }

  #end(): void {
    this.#ended = true
    this.#parts.clear()
    this.#onEnd()
  }
}
