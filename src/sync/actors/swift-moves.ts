/**
 * Copies and renames within a container of a Swift, which moves the bytes by itself. A rename is a copy and then a removal: a crash
 * between them leaves both names, never none, and the same call again goes on from there.
 *
 * Large objects are copied by Swift into one piece, so that no two manifests share segments, and where they are larger than a piece
 * can be, it refuses. They are never renamed: what is sent anew under the new name has segments of its own.
 */
import { isOperationError, OperationError } from '#base/errors.ts'
import type { Version } from '#store/store.ts'
import type { RenameCallOptions } from '#sync/actor.ts'
import type { TreeEntry } from '#sync/tree.ts'

import { refusal } from './http-client.ts'
import type { SwiftAccount } from './swift-account.ts'
import { encodedName, isLarge, objectName, versionOf } from './swift-object.ts'
import type { SwiftRemoval } from './swift-removal.ts'

/** Swift reads and writes all bytes before it answers: some 10 MB a second of the largest piece. */
const COPY_MS_MAX = 600_000

export class SwiftMoves {
  readonly #account: SwiftAccount
  readonly #removal: SwiftRemoval
  readonly #container: string
  readonly #threads: number

  /** `container`: encoded, with a slash before it. */
  constructor(account: SwiftAccount, removal: SwiftRemoval, container: string, threads: number) {
    this.#account = account
    this.#removal = removal
    this.#container = container
    this.#threads = threads
  }

  /** Gives the version of the copy. */
  async copy(from: string, to: string, signal: AbortSignal | undefined): Promise<Version> {
    const action = `copy "${from}" to "${to}"`
    const answer = await this.#account.request({
      action,
      method: 'PUT',
      path: `${this.#container}/${encodedName(to)}`,
      headers: { 'x-copy-from': `${this.#container}/${encodedName(from)}`, 'content-length': '0' },
      timeoutMs: COPY_MS_MAX,
      signal,
    })
    if (answer.status !== 201) throw refusal(action, answer)
    return versionOf(answer.headers)
  }

  /** Moves entries, each from under `from` to the same place under `to`. Nothing is removed before all is copied. */
  async rename(entries: readonly TreeEntry[], from: string, to: string, options: RenameCallOptions): Promise<void> {
    const { signal, onVersionChanged } = options
    const large = entries.find((entry) => isLarge(entry))
    if (large !== undefined) {
      throw new OperationError('STORE_UNSUPPORTED', `Cannot rename "${large.path}" to "${to}": it is a large object`)
    }
    const names = entries.map((entry) => objectName(entry))
    const left = entries.entries()
    const work = async (): Promise<void> => {
      for (const [index, { version }] of left) {
        const name = names[index] ?? ''
        const target = to + name.slice(from.length)
        const copied = await this.#copyOrGone(name, target, signal)
        if (copied !== undefined && version !== undefined && copied !== version)
          onVersionChanged?.(target, version, copied)
      }
    }
    await Promise.all(Array.from({ length: Math.min(this.#threads, entries.length) }, work))
    const errors = await this.#removal.removeAll(this.#container, names, signal)
    const failed = errors.find((error) => error !== undefined)
    if (failed !== undefined) throw failed
  }

  /** Undefined where an earlier try has moved it, or somebody removed it. */
  async #copyOrGone(from: string, to: string, signal: AbortSignal | undefined): Promise<Version | undefined> {
    try {
      return await this.copy(from, to, signal)
    } catch (error) {
      if (isOperationError(error, 'STORE_NOT_FOUND')) return undefined
      throw error
    }
  }
}
