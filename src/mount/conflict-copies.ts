/**
 * What becomes of staged bytes that cannot be published: they are kept under `conflicts/`, with a line in the log that says
 * where, and the name goes back to what the store has. Nothing that a program has written is dropped before that.
 */
import { timestampNow } from '#base/time.ts'
import { OperationError } from '#base/errors.ts'

import type { MountState } from './mount-state.ts'
import type { Node, OpenFile } from './node.ts'
import type { Stager } from './stager.ts'
import type { KeptFile } from './staging.ts'

export class ConflictCopies {
  readonly #state: MountState
  readonly #stager: Stager
  /** Drops what a file has ahead of the store. */
  readonly #settle: (node: Node, file: OpenFile) => void

  constructor(state: MountState, stager: Stager, settle: (node: Node, file: OpenFile) => void) {
    this.#state = state
    this.#stager = stager
    this.#settle = settle
  }

  /**
   * Gives up bytes that may not be published, after they were kept.
   * @throws OperationError `STORE_CONFLICT` always.
   */
  async lose(node: Node, file: OpenFile, reason: unknown): Promise<never> {
    const { log, published, staging, table } = this.#state
    const cause = reason instanceof Error ? { cause: reason } : {}
    const why = typeof reason === 'string' ? reason : 'the stored version is not the one that was opened'
    const path = table.describe(node)
    let message = `Cannot publish the attributes of "${path}": ${why}`
    published.conflict.inc()
    if (file.dirty && file.staged !== undefined) {
      await this.#completeIfPossible(node, file)
      const { journaled, staged } = file
      if (journaled !== undefined && journaled.staged !== staged) {
        const older = await staging.keep(journaled.staged, this.#factsOf(node))
        log.warn({ path }, `Cannot publish "${path}": what was last closed or synced of it is kept in "${older}"`)
      }
      const kept = await staging.keep(staged, this.#factsOf(node))
      message = `Cannot publish "${path}": ${why}; what was written is kept in "${kept}"`
    }
    log.warn({ path }, message)
    this.drop(node, file)
    throw new OperationError('STORE_CONFLICT', message, cause)
  }

  /** The version that was edited may still be there: then the copy has all of its bytes. */
  async #completeIfPossible(node: Node, { staged }: OpenFile): Promise<void> {
    if (staged === undefined || staged.isComplete || node.detached !== undefined) return
    try {
      await this.#stager.complete(node, staged)
    } catch (error) {
      this.#state.log.debug({ err: error }, `Cannot fetch the rest of "${node.name}" for its conflict copy`)
    }
  }

  #factsOf(node: Node): KeptFile {
    const { table } = this.#state
    const { name, version, attributes } = node
    const base = version === undefined ? undefined : { path: table.describe(node), version }
    return { name, modified: attributes?.mtime ?? timestampNow(), base }
  }

  /** Gives up what a file has ahead of the store: the next look at its name finds what that has. */
  drop(node: Node, file: OpenFile): void {
    if (node.detached === undefined) this.#state.table.supersede(node)
    this.#settle(node, file)
    file.staged?.close()
    file.staged = undefined
  }

  /**
   * Keeps what could not be published, at the end of a mount. Gives the paths of what could not even be kept: it stays
   * dirty, so another try may do.
   */
  async keepAll(): Promise<string[]> {
    const { dirty, log, staging, table } = this.#state
    const left: string[] = []
    for (const node of [...dirty]) {
      const { file } = node
      if (file === undefined || node.detached === 'removed') continue
      const path = table.describe(node)
      if (!file.dirty || file.staged === undefined) {
        log.error({ path }, `Cannot publish the attributes of "${path}", and attributes cannot be kept`)
        left.push(path)
        continue
      }
      try {
        const kept = await staging.keep(file.staged, this.#factsOf(node))
        log.warn({ path, kept }, `Cannot publish "${path}": the mount ends; what was written is kept in "${kept}"`)
        this.drop(node, file)
      } catch (error) {
        log.error({ err: error, path }, `Cannot keep what was written to "${path}"`)
        left.push(path)
      }
    }
    return left
  }

  /** As `keepAll`, without a wait, for a process that ends at once. */
  keepAtOnce(): void {
    const { dirty, log, staging, table } = this.#state
    for (const node of dirty) {
      const { file } = node
      if (file?.staged === undefined || !file.dirty || node.detached === 'removed') continue
      // The next mount stores it.
      if (file.journaled?.staged === file.staged && file.journaled.generation === file.staged.generation) continue
      const path = table.describe(node)
      try {
        const kept = staging.keepAtOnce(file.staged, this.#factsOf(node))
        log.error({ path, kept }, `Cannot publish "${path}": the process ends; what was written is kept in "${kept}"`)
      } catch (error) {
        log.fatal({ err: error, path }, `Cannot keep what was written to "${path}", and it is lost`)
      }
    }
  }
}
