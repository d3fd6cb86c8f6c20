/**
 * Removal in bulk. The first removals of a process are sent at once and waited for; once several follow one another, as
 * `rm -r` makes them, they are acknowledged, queued, and go together by `Store.removeAll`: a thousand for one request. A name
 * that is queued is gone for everybody on this mount, also where the store still lists it (`DirectoryState.removing`).
 *
 * A queue is sent when it is long enough for one request, or BULK_DELAY_MS after its first entry, or, while it grows fast,
 * GROWING_MS_MAX after that; and before that whenever
 * somebody makes something under one of its names, moves a directory, asks for fsync, or unmounts. What somebody else has
 * replaced meanwhile stays theirs: the next look finds it. All else that keeps the store from it, an outage, a refusal, the room,
 * leaves it queued: it is told to whoever waits, and tried again.
 *
 * A directory that is there only because of its entries is made to stay when they go (`keep`), but only once it is clear that
 * it is not removed itself in the same breath.
 *
 * Invariant: entries are sent in the order in which they were queued, one batch after another, so a directory goes after what
 * lay in it.
 */
import { isOperationError, OperationError } from '#base/errors.ts'
import { counter } from '#base/metrics.ts'
import type { Removal } from '#store/store.ts'

import type { MountState } from './mount-state.ts'
import { stateOf } from './node-table.ts'
import type { Leaving, Node } from './node.ts'

/** What one DeleteObjects takes. */
const BATCH_ENTRIES = 1000
/** So long a removal is queued before it is sent, unless many follow. Programs that look at the store elsewhere see it then. */
const BULK_DELAY_MS = 100
/** Where so many more come within that time, it waits for them, too: `rm -r` fills a batch. */
const GROWTH_MIN = 10
const GROWING_MS_MAX = 1000
/** Removals follow one another when no more than this lies between them: `rm -r` looks at a directory of a far store meanwhile. */
const PAUSE_MS = 500
/** So many that follow one another are sent one by one: `rm a b` is as truthful as one. */
const SINGLES = 2
/** With so many queued, whoever removes more waits for the store. */
const QUEUE_ENTRIES_MAX = 20_000
/** So many processes are remembered, those that removed last. */
const REMOVERS_MAX = 256
/** After a failure that may pass. The store itself has tried for as long as it was told to. */
const RETRY_MS = 10_000
/** What the store says where something else is there by now. */
const ANOTHER: ReadonlySet<string> = new Set([
  ...['STORE_CONFLICT', 'STORE_NOT_EMPTY', 'STORE_IS_DIRECTORY', 'STORE_NOT_DIRECTORY'],
])
/** Directories that are made to stay, at a time. */
const KEEPS_AT_ONCE = 16

interface Queued extends Leaving {
  readonly parent: Node
  readonly name: string
  readonly number: number
  readonly removal: Removal
  readonly ended: PromiseWithResolvers<void>
}

export class Removals {
  readonly #state: MountState
  /** Makes a directory stay without entries where it would not. */
  readonly #keep: (directory: Node) => Promise<void>
  #queue: Queued[] = []
  /** Of the last one queued, and of the last one that somebody waits for. */
  #numberLast = 0
  #numberWanted = 0
  /** By process: a lone `rm` is waited for whatever others remove just then. In the order of their last removal. */
  readonly #removers = new Map<number, { count: number; endedAt: number }>()
  #sending: Promise<void> | undefined
  /** The last batch was not taken. */
  #isFailing = false
  #timer: NodeJS.Timeout | undefined
  readonly #outcomes = {
    ok: counter('eider_mount_removals_total', 'ok'),
    conflict: counter('eider_mount_removals_total', 'conflict'),
    failed: counter('eider_mount_removals_total', 'failed'),
  }

  constructor(state: MountState, keep: (directory: Node) => Promise<void>) {
    this.#state = state
    this.#keep = keep
  }

  /** How many are acknowledged and not yet in the store. */
  get size(): number {
    return this.#queue.length
  }

  /** Notes that a process begins to remove a name; gives whether that follows others of its own, and is to be queued. */
  begin(pid: number): boolean {
    // Of another namespace of processes, so that its removals cannot be told from anybody else's.
    if (pid === 0) return false
    const before = this.#removers.get(pid)
    const now = this.#state.now()
    const count = before !== undefined && now - before.endedAt <= PAUSE_MS ? before.count + 1 : 1
    this.#removers.delete(pid)
    this.#removers.set(pid, { count, endedAt: now })
    for (const oldest of this.#removers.keys()) {
      if (this.#removers.size <= REMOVERS_MAX) break
      this.#removers.delete(oldest)
    }
    // While the store takes none, whoever removes more is told at once.
    return count > SINGLES && !this.#isFailing
  }

  /** Notes that it has ended. */
  end(pid: number): void {
    const remover = this.#removers.get(pid)
    if (remover !== undefined) remover.endedAt = this.#state.now()
  }

  /** Takes the name off `node` here, now, and in the store a little later. Waits where too much is queued. */
  add(parent: Node, name: string, node: Node): Promise<void> | undefined {
    const { table } = this.#state
    const { kind, version, modified } = node
    if (version === undefined) throw new OperationError('INPUT_INVALID', `Cannot queue "${name}": it is not stored`)
    const queued: Queued = {
      parent,
      name,
      number: ++this.#numberLast,
      removal: { path: table.pathOf(node), kind, version, modified },
      ended: Promise.withResolvers<void>(),
      sent: () => this.#sent(queued),
    }
    stateOf(parent).removing.set(name, queued)
    table.changing([{ parent, name }], () => queued.ended.promise).catch(() => undefined)
    table.detach(node, 'removed')
    this.#queue.push(queued)
    if (queued.number - this.#numberWanted >= BATCH_ENTRIES) this.#want(queued)
    else this.#timer ??= this.#sendLater(0)
    return this.#queue.length > QUEUE_ENTRIES_MAX ? this.#sent(this.#queue[0]) : undefined
  }

  /** Resolves when all that was removed until now is gone from the store; rejects where that could not be found out. */
  async flush(): Promise<void> {
    await this.#sent(this.#queue.at(-1))
  }

  /** Gives up, at the end of a mount, what could not be removed; gives its paths. */
  giveUp(): readonly string[] {
    clearTimeout(this.#timer)
    return this.#queue.map(({ removal }) => removal.path)
  }

  async #sent(queued: Queued | undefined): Promise<void> {
    while (queued !== undefined && this.#queue.includes(queued)) await this.#send(queued)
  }

  /** As `#send`, with nobody to tell but the log. */
  #want(queued: Queued | undefined): void {
    if (queued === undefined) return
    this.#send(queued).catch((error: unknown) => {
      this.#state.log.warn({ err: error, count: this.#queue.length }, 'Cannot remove yet; it is tried again')
    })
  }

  /** Sends all up to `queued`. */
  #send(queued: Queued): Promise<void> {
    this.#numberWanted = Math.max(this.#numberWanted, queued.number)
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#sending ??= this.#sendWanted().finally(() => {
      this.#sending = undefined
      if (this.#queue.length > 0) this.#timer ??= this.#later()
    })
    return this.#sending
  }

  /** The first of what is queued has waited for `waitedMs`. */
  #sendLater(waitedMs: number): NodeJS.Timeout {
    const numberBefore = this.#numberLast
    return setTimeout(() => {
      const waited = waitedMs + BULK_DELAY_MS
      const grows = this.#numberLast - numberBefore >= GROWTH_MIN
      if (grows && waited < GROWING_MS_MAX) this.#timer = this.#sendLater(waited)
      else this.#want(this.#queue.at(-1))
    }, BULK_DELAY_MS)
  }

  /** What was queued while a batch was on its way, or has failed. */
  #later(): NodeJS.Timeout {
    const hasFailed = (this.#queue[0]?.number ?? 0) <= this.#numberWanted
    if (!hasFailed) return this.#sendLater(0)
    return setTimeout(() => this.#want(this.#queue.at(-1)), RETRY_MS).unref()
  }

  async #sendWanted(): Promise<void> {
    for (;;) {
      const [first] = this.#queue
      if (first === undefined || first.number > this.#numberWanted) return
      const batch = this.#queue.slice(0, BATCH_ENTRIES)
      const failure = await this.#sendBatch(batch)
      this.#isFailing = failure !== undefined
      if (failure !== undefined) throw failure
    }
  }

  /** Gives the error of what stays queued. */
  async #sendBatch(batch: readonly Queued[]): Promise<OperationError | undefined> {
    const { store, signal } = this.#state
    let outcomes: readonly (OperationError | undefined)[]
    try {
      await this.#keepDirectories(batch)
      outcomes = await store.removeAll(
        batch.map(({ removal }) => removal),
        { signal },
      )
    } catch (error) {
      if (!isOperationError(error)) throw error
      outcomes = batch.map(() => error)
    }
    let failure: OperationError | undefined
    const left = new Set<Queued>()
    for (const [index, queued] of batch.entries()) {
      const error = outcomes[index]
      if (error === undefined || error.code === 'STORE_NOT_FOUND') this.#removed(queued)
      else if (isAnother(error)) this.#kept(queued, error)
      else {
        this.#outcomes.failed.inc()
        failure = error
        left.add(queued)
      }
    }
    this.#queue = [...left, ...this.#queue.slice(batch.length)]
    return failure
  }

  #removed({ parent, name, removal, ended }: Queued): void {
    this.#outcomes.ok.inc()
    this.#state.attributeIndex?.forget(removal.path)
    stateOf(parent).removing.delete(name)
    ended.resolve()
  }

  /** It is there again: the next look asks the store. */
  #kept({ parent, name, removal, ended }: Queued, error: OperationError): void {
    this.#outcomes.conflict.inc()
    const detail = 'somebody else has changed it meanwhile; it is there again'
    this.#state.log.warn({ err: error, path: removal.path }, `Cannot remove "${removal.path}": ${detail}`)
    stateOf(parent).removing.delete(name)
    ended.reject(error)
  }

  /** Before entries go: the directories that stay without them, unless they go themselves. */
  async #keepDirectories(batch: readonly Queued[]): Promise<void> {
    const parents = new Set(batch.map(({ parent }) => parent))
    const queue = [...parents].filter(({ detached }) => detached === undefined)
    const worker = async (): Promise<void> => {
      for (let parent = queue.pop(); parent !== undefined; parent = queue.pop()) await this.#keepOne(parent)
    }
    await Promise.all(Array.from({ length: Math.min(KEEPS_AT_ONCE, queue.length) }, worker))
  }

  async #keepOne(directory: Node): Promise<void> {
    try {
      await this.#keep(directory)
    } catch (error) {
      if (isTransient(error)) throw error
      const { log, table } = this.#state
      log.warn({ err: error }, `Cannot keep the directory "${table.describe(directory)}"; it goes with its last entry`)
    }
  }
}

/** Whether trying again later may help; also what the end of the mount has cut. */
function isTransient(error: unknown): error is OperationError {
  return isOperationError(error) && (error.retry !== 'never' || error.code === 'ABORTED')
}

/** Whether what is there is not what was removed. */
function isAnother({ code }: OperationError): boolean {
  return ANOTHER.has(code)
}
