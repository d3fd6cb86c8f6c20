/**
 * Names that were removed here, or may have been changed, while answers of the store are under way that may still tell of them
 * as they were: kept with the directory that they lay in (`DirectoryState.removals`, `unsure`) for as long as that can be.
 *
 * A fetch of one directory is counted there (`fetches`). A page of a whole tree may tell of any directory, also of one that is
 * not known when it is asked for, so while one is under way, which is called a sweep, names are kept for all of them. What no
 * sweep under way began before is let go at the end of each, so `rm -r` of a large tree keeps those of a page or two.
 */
import type { DirectoryState } from './node.ts'

/** A fetch that may tell of any directory, by the clock of the table when it was asked. */
export interface Sweep {
  readonly clock: number
}

interface Noted {
  readonly state: DirectoryState
  readonly names: Map<string, number>
  readonly name: string
  readonly clock: number
}

export class NameLog {
  readonly #sweeps = new Set<Sweep>()
  /** In the order of their clocks, from `#first` on. */
  #noted: Noted[] = []
  #first = 0
  /** When a directory was last forgotten of which names were kept: what was asked before may bring them back. */
  lostAt = 0

  /** Keeps `name` in `names`, one of the maps of `state`, where an answer under way may tell of it as it was. */
  note(state: DirectoryState, names: Map<string, number>, name: string, clock: number): void {
    if (this.#sweeps.size > 0) this.#noted.push({ state, names, name, clock })
    else if (state.fetches === 0) return
    names.set(name, clock)
  }

  begin(clock: number): Sweep {
    const sweep = { clock }
    this.#sweeps.add(sweep)
    return sweep
  }

  end(sweep: Sweep): void {
    this.#sweeps.delete(sweep)
    const oldest = this.#oldest()
    for (; this.#first < this.#noted.length; this.#first++) {
      const noted = this.#noted[this.#first]
      if (noted === undefined || noted.clock > oldest) break
      // Where a fetch of the directory itself is under way, its end lets go of them.
      if (noted.state.fetches === 0 && noted.names.get(noted.name) === noted.clock) noted.names.delete(noted.name)
    }
    if (this.#first * 2 < this.#noted.length) return
    this.#noted = this.#noted.slice(this.#first)
    this.#first = 0
  }

  /** The last fetch of the directory itself has ended. */
  fetched({ removals, unsure }: DirectoryState): void {
    const oldest = this.#oldest()
    for (const names of [removals, unsure]) {
      if (oldest === Infinity) names.clear()
      else for (const [name, clock] of names) if (clock <= oldest) names.delete(name)
    }
  }

  /** A directory is forgotten, or is another's now. */
  forgotten({ removals, unsure }: DirectoryState, clock: number): void {
    if (removals.size > 0 || unsure.size > 0) this.lostAt = clock
  }

  #oldest(): number {
    let oldest = Infinity
    for (const { clock } of this.#sweeps) oldest = Math.min(oldest, clock)
    return oldest
  }
}
