/**
 * All that a process of the cluster asks of the world beside its disks, as ports, so that the simulator can be that world:
 * a clock, chance, and a network of frames. Nothing in src/cluster reads a clock or draws a random number by other means.
 */

/** What ends a timer before its time; does nothing after that. */
export type Cancel = () => void

export interface Clock {
  /** Milliseconds since 1970, with a fraction; may jump, as clocks do. */
  nowMs(): number
  /** Milliseconds since some moment, never less than before. */
  monotonicMs(): number
  /** For how long this machine has slept, since some moment: the monotonic clock stands meanwhile, the time of day does not. Costs a look at the system. */
  sleptMs(): number
  after(ms: number, action: () => void): Cancel
  /** At the end of this turn: after everything that has arrived by now was handed over. */
  soon(action: () => void): void
}

export interface Chance {
  /** So many bytes that nobody can guess. */
  bytes(count: number): Buffer
  /** A whole number from 0 to `below` - 1. */
  below(below: number): number
}

/**
 * One end of a connection that carries frames. Frames of a real one come in order, whole and once, until it is closed; those of
 * the simulator may be lost, come twice or out of order. So nobody relies on more than: a frame that comes is as it was sent.
 */
export interface Link {
  /** Who is at the other end, for people. */
  readonly peer: string
  /** Bytes handed to `send` that the network has not taken yet. */
  readonly bytesWaiting: number
  /** The parts, one after the other, as one frame; they must stay as they are from here on. Of a closed link nothing is sent. */
  send(...parts: readonly Uint8Array[]): void
  /**
   * `send` for memory that is used again: calls `taken` once, when the parts are not needed any more, also where they were never sent. A
   * link that copies what it is given has it not.
   */
  sendLent?(taken: () => void, ...parts: readonly Uint8Array[]): void
  /** Lets go of the link; `onClosed` is still called, once. */
  close(): void
}

/** Memory for frames, by who knows when they are done with. */
export interface FrameMemory {
  take(bytes: number): Buffer
  /** Takes back a buffer that `take` gave, or one that begins where it does; others are left as they are. */
  give(buffer: Buffer): void
}

export interface LinkHandler {
  /** Where large frames may lie; those that `onFrame` is handed are to be given back there. */
  readonly memory?: FrameMemory
  /** A whole frame, which nobody else uses. Must not throw. */
  onFrame(frame: Buffer): void
  /** Once; no frame comes after that. With the reason where it was not `close`. */
  onClosed(error?: Error): void
}

/** `host:port`, the port alone for one of this machine's own choice is 0. */
export type Address = string

export interface Listener {
  /** Where it can be reached, the chosen port in it. */
  readonly address: Address
  /** Takes no more links, and closes those that there are. */
  close(): Promise<void>
}

export interface Network {
  /** `accept` is called for each new link, when it can be used. @throws ADDRESS_UNUSABLE */
  listen(address: Address, accept: (link: Link) => LinkHandler): Promise<Listener>
  /** A link to `address` at once; what is sent waits until it stands. Where it cannot be made, it is closed. */
  connect(address: Address, handler: LinkHandler): Link
}

export interface Surroundings {
  readonly clock: Clock
  readonly chance: Chance
  readonly network: Network
}
