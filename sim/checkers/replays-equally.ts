/** Replaying a journal gives the state: all its entries, applied to nothing, make byte for byte what the machine has. */
import type { Machine } from '#cluster/journal/machine.ts'
import type { Key, StateReader } from '#cluster/journal/state.ts'
import { MemoryState } from '#cluster/journal/memory-state.ts'
import { WorkingBatch, WorkingState } from '#cluster/journal/working-state.ts'
import { SimulationFailure } from '#sim/timeline.ts'

/** After all keys: no character of one is above 255. */
const END: Key = '\u0100'

/** @param entries from the first one there ever was to the last one that `state` has */
export function replaysEqually<E, O>(machine: Machine<E, O>, entries: readonly Buffer[], state: StateReader): void {
  const replayed = new WorkingState(new MemoryState())
  for (const [index, bytes] of entries.entries()) {
    machine.apply(new WorkingBatch(replayed, index + 1), machine.decode(bytes))
  }
  const [expected, found] = [pairsOf(replayed), pairsOf(state)]
  for (const key of new Set([...expected.keys(), ...found.keys()])) {
    const [right, is] = [expected.get(key), found.get(key)]
    if (right !== undefined && is !== undefined && right.equals(is)) continue
    const named = Buffer.from(key, 'latin1').toString('hex')
    throw new SimulationFailure(
      `Key ${named} is ${inWords(is)}, and ${inWords(right)} by the ${entries.length} entries`,
    )
  }
}

function pairsOf(state: StateReader): Map<Key, Buffer> {
  const pairs = new Map<Key, Buffer>()
  state.range('', END, (key, value) => {
    pairs.set(key, value)
    return true
  })
  return pairs
}

function inWords(value: Buffer | undefined): string {
  return value === undefined ? 'not there' : `0x${value.toString('hex')}`
}
