/**
 * The tree and all of its history are what a model makes of the operations, taken in the order of the times that the shards gave: each
 * edge that there is or was is the doing of exactly one operation, each operation that was acknowledged has left all of its edges, each
 * that was refused none, and each of which nobody knows either all or none. What each found in its place is what it asked for,
 * and each edge of the past is kept in the state that its end has left it in.
 *
 * So it holds as of every time at once: what a directory was then is made of the same edges.
 */
import { type InodeId, inodeType, shownInode } from '#cluster/inode-id.ts'
import { NO_INODE, type Edge, type NameGuard } from '#cluster/wire/forms.ts'
import type { DirectoryEdge } from '#sim/shard-view.ts'
import { SimulationFailure } from '#sim/timeline.ts'
import type { LoggedOperation, SeenEdge, Slot } from '#sim/workloads/tree-log.ts'

/** An edge between the one before and the one after it of the same name. */
interface Link {
  readonly edge: DirectoryEdge
  before: Link | undefined
  after: Link | undefined
  /** Whose doing it is. */
  by: LoggedOperation | undefined
  /** Who has taken out of the history what it owned. */
  takenBy: LoggedOperation | undefined
}

/**
 * @param edges all of all directories, by directory, name and time
 * @param makers of each inode: the number of the operation that made it
 */
export function historyExplained(
  operations: readonly LoggedOperation[],
  edges: readonly DirectoryEdge[],
  makers: ReadonlyMap<InodeId, number>,
): void {
  new Explanation(operations, edges, makers).check()
}

class Explanation {
  readonly #operations: readonly LoggedOperation[]
  readonly #makers: ReadonlyMap<InodeId, number>
  readonly #links: Link[] = []
  readonly #byPlace = new Map<string, Link>()

  constructor(
    operations: readonly LoggedOperation[],
    edges: readonly DirectoryEdge[],
    makers: ReadonlyMap<InodeId, number>,
  ) {
    this.#operations = operations
    this.#makers = makers
    for (const edge of edges) {
      const last = this.#links.at(-1)
      const isSameName = last?.edge.directory === edge.directory && last.edge.name === edge.name
      const link: Link = {
        edge,
        before: isSameName ? last : undefined,
        after: undefined,
        by: undefined,
        takenBy: undefined,
      }
      if (link.before !== undefined) {
        if (link.before.edge.created >= edge.created) fail(`${words(edge)} does not come after the edge before it`)
        link.before.after = link
      }
      this.#links.push(link)
      this.#byPlace.set(placeOf(edge, edge.created), link)
    }
  }

  check(): void {
    for (const logged of this.#operations) if (logged.outcome === 'done') this.#acknowledged(logged)
    const unknown = this.#operations.filter(({ outcome }) => outcome === 'unknown')
    for (const logged of unknown) if (logged.operation.kind === 'make') this.#perhapsMade(logged)
    this.#perhapsMoved(unknown)
    for (const link of this.#links) this.#checkLink(link)
  }

  #acknowledged(logged: LoggedOperation): void {
    const { operation, told } = logged
    if (operation.kind !== 'make') this.#claimSource(logged, operation.kind === 'remove' ? told.removed : undefined)
    if (operation.kind === 'remove') return
    const inode = operation.kind === 'make' ? told.inode : operation.inode
    const link = this.#byPlace.get(placeOf(operation.to, told.created ?? 0))
    if (link === undefined || link.edge.inode !== inode) {
      fail(`${describe(logged)} was acknowledged as of ${told.created}, and is not there`)
    }
    claim(link, logged)
    const replaced = liveBefore(link)?.inode ?? NO_INODE
    if (told.replaced !== undefined && told.replaced !== replaced) {
      fail(`${describe(logged)} said to replace ${told.replaced}, and replaced ${replaced}`)
    }
  }

  /** What was at the name that it takes something away from. */
  #claimSource(logged: LoggedOperation, removed: number | undefined): void {
    const { operation } = logged
    if (operation.kind === 'make') return
    const link = this.#sourceOf(operation)
    if (link === undefined) fail(`${describe(logged)} was acknowledged, and what it was done to was never there`)
    if (operation.kind === 'undelete') {
      if (link.takenBy !== undefined) fail(`${describe(logged)} and ${describe(link.takenBy)} took the same edge`)
      link.takenBy = logged
      return
    }
    const { after } = link
    if (after === undefined) fail(`${describe(logged)} was acknowledged, and the name still leads there`)
    const isOneDirectory = operation.kind === 'move' && operation.from.directory === operation.to.directory
    const time = isOneDirectory ? logged.told.created : removed
    const isRight = after.edge.inode === NO_INODE && (time === undefined || after.edge.created === time)
    if (!isRight) fail(`${describe(logged)} was acknowledged as of ${time}, and ${words(after.edge)} came next`)
    claim(after, logged)
  }

  #perhapsMade(logged: LoggedOperation): void {
    const { operation, number } = logged
    if (operation.kind !== 'make') return
    const link = this.#links.find(
      (each) =>
        each.by === undefined &&
        each.edge.inode !== NO_INODE &&
        this.#makers.get(each.edge.inode) === number &&
        isAt(each.edge, operation.to),
    )
    if (link !== undefined) claim(link, logged)
  }

  /** Finds out which of the others were done: such that everything is explained. */
  #perhapsMoved(unknown: readonly LoggedOperation[]): void {
    const targets = this.#links.filter(({ by, edge }) => by === undefined && edge.inode !== NO_INODE)
    const free = new Set(unknown.filter(({ operation: { kind } }) => kind === 'move' || kind === 'undelete'))
    const removals = unknown.filter(({ operation: { kind } }) => kind === 'remove')
    if (this.#assign(targets, 0, free, removals)) return
    // Which one it is that cannot be: the first that nobody could have done, or any.
    const [first] = targets.filter((target) => ![...free].some((logged) => couldBe(logged, target)))
    const left = this.#links.find(({ by }) => by === undefined)
    fail(`${words((first ?? left ?? targets[0])?.edge)} is there, and nothing that was done explains it`)
  }

  #assign(
    targets: readonly Link[],
    at: number,
    free: Set<LoggedOperation>,
    removals: readonly LoggedOperation[],
  ): boolean {
    const target = targets[at]
    if (target === undefined) return this.#explainRemovals(removals)
    for (const logged of [...free]) {
      const { operation } = logged
      if (operation.kind === 'make' || !couldBe(logged, target)) continue
      const source = this.#sourceOf(operation)
      if (source === undefined || !isFreeSource(logged, source, target)) continue
      const ended = operation.kind === 'undelete' ? undefined : source.after
      free.delete(logged)
      target.by = logged
      if (ended === undefined) source.takenBy = logged
      else ended.by = logged
      if (this.#assign(targets, at + 1, free, removals)) return true
      free.add(logged)
      target.by = undefined
      if (ended === undefined) source.takenBy = undefined
      else ended.by = undefined
    }
    return false
  }

  /** Whether removals explain all that is left. */
  #explainRemovals(removals: readonly LoggedOperation[]): boolean {
    const claimed: Link[] = []
    for (const logged of removals) {
      const { operation } = logged
      if (operation.kind !== 'remove') continue
      const after = this.#sourceOf(operation)?.after
      if (after === undefined || after.by !== undefined || after.edge.inode !== NO_INODE) continue
      after.by = logged
      claimed.push(after)
    }
    if (this.#links.every(({ by }) => by !== undefined)) return true
    for (const link of claimed) link.by = undefined
    return false
  }

  #sourceOf({ from, inode }: { readonly from: SeenEdge; readonly inode: InodeId }): Link | undefined {
    const link = this.#byPlace.get(placeOf(from, from.created))
    return link?.edge.inode === inode ? link : undefined
  }

  #checkLink(link: Link): void {
    const { edge, by } = link
    if (by === undefined) fail(`${words(edge)} is there, and nothing that was done explains it`)
    if (edge.state !== expectedState(link)) fail(`${words(edge)} should be ${expectedState(link)}`)
    if (edge.inode === NO_INODE) return
    if (by.operation.kind === 'remove') fail(`${words(edge)} cannot come of ${describe(by)}`)
    if (mayTake(by.operation.guard, link)) return
    const { how, inode } = by.operation.guard
    fail(
      `${describe(by)} took the place of ${words(liveBefore(link))}, and may take that of ${how} ${shownInode(inode)}`,
    )
  }
}

function claim(link: Link, logged: LoggedOperation): void {
  if (link.by !== undefined) fail(`${words(link.edge)} is the doing of ${describe(link.by)} and of ${describe(logged)}`)
  link.by = logged
}

/** Whether the operation would leave that edge at its target. */
function couldBe({ operation }: LoggedOperation, link: Link): boolean {
  if (operation.kind === 'make' || operation.kind === 'remove') return false
  return operation.inode === link.edge.inode && isAt(link.edge, operation.to) && mayTake(operation.guard, link)
}

/** Whether the edge may have come to where what was before it was. */
function mayTake({ how, inode }: NameGuard, link: Link): boolean {
  const before = liveBefore(link)
  if (before === undefined) return how !== 'is'
  if (how === 'absent' || (how === 'is' && before.inode !== inode)) return false
  return inodeType(before.inode) !== 'directory' && inodeType(link.edge.inode) !== 'directory'
}

function isFreeSource({ operation }: LoggedOperation, source: Link, target: Link): boolean {
  if (operation.kind === 'undelete') return source.takenBy === undefined && source.after !== undefined
  const { after } = source
  if (operation.kind !== 'move' || after === undefined || after.by !== undefined) return false
  const isOneDirectory = operation.from.directory === operation.to.directory
  return after.edge.inode === NO_INODE && (!isOneDirectory || after.edge.created === target.edge.created)
}

function liveBefore({ before }: Link): DirectoryEdge | undefined {
  return before === undefined || before.edge.inode === NO_INODE ? undefined : before.edge
}

function expectedState({ edge, after, takenBy }: Link): Edge['state'] {
  if (edge.inode === NO_INODE) return 'removed'
  if (after === undefined) return 'current'
  if (takenBy !== undefined || inodeType(edge.inode) === 'directory') return 'left'
  // It has the state of its end; what another file took the place of is owned.
  return after.edge.inode === NO_INODE && after.by?.operation.kind === 'move' ? 'left' : 'owned'
}

function isAt(edge: DirectoryEdge, { directory, name }: Slot): boolean {
  return edge.directory === directory && edge.name === name
}

function placeOf({ directory, name }: Slot, created: number): string {
  return `${directory} ${created} ${name}`
}

function fail(why: string): never {
  throw new SimulationFailure(why)
}

function words(edge: DirectoryEdge | undefined): string {
  if (edge === undefined) return 'nothing'
  const { directory, name, inode, created, state } = edge
  return `edge ${JSON.stringify(name)} of ${shownInode(directory)} as of ${created} (${state}, ${shownInode(inode)})`
}

function describe({ number, operation }: LoggedOperation): string {
  const parts = [`operation ${number}: ${operation.kind}`]
  if (operation.kind === 'make') parts.push(operation.what)
  else parts.push(`${shownInode(operation.inode)} from ${slotWords(operation.from)} of ${operation.from.created}`)
  if (operation.kind !== 'remove') parts.push(`to ${slotWords(operation.to)}`)
  return parts.join(' ')
}

function slotWords({ directory, name }: Slot): string {
  return `${JSON.stringify(name)} in ${shownInode(directory)}`
}
