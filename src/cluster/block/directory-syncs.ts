/**
 * Syncs of directories, shared: whoever asks while one is under way waits for the next, which serves all who asked
 * meanwhile. The one under way would not do, since it may have begun before the change that is to be made durable.
 */
interface Syncs {
  /** Those who wait for the next one, which begins when the one under way ends. */
  next: Promise<void> | undefined
  running: Promise<void>
}

export class DirectorySyncs {
  readonly #sync: (path: string) => Promise<void>
  readonly #syncs = new Map<string, Syncs>()

  constructor(sync: (path: string) => Promise<void>) {
    this.#sync = sync
  }

  /** Resolves when the names that the directory has now are durable. */
  sync(path: string): Promise<void> {
    const found = this.#syncs.get(path)
    if (found === undefined) return this.#start(path)
    // How the one under way ends is told to those who asked for it.
    found.next ??= found.running.catch(() => undefined).then(() => this.#start(path))
    return found.next
  }

  #start(path: string): Promise<void> {
    const running = this.#sync(path)
    const syncs: Syncs = { next: undefined, running }
    this.#syncs.set(path, syncs)
    const ended = (): void => {
      if (syncs.next === undefined) this.#syncs.delete(path)
    }
    running.then(ended, ended)
    return running
  }
}
