/**
 * The coordinator has nothing left to do once nothing is asked any more: no transaction, no queue, nobody who waits. And it knows where all
 * directories lie, since by that it keeps them from coming to lie in themselves.
 */
import { type InodeId, shownInode } from '#cluster/inode-id.ts'
import { NUMBER_BYTES, numberOfKey } from '#cluster/journal/keys.ts'
import type { Key, StateReader } from '#cluster/journal/state.ts'
import { NO_INODE } from '#cluster/wire/forms.ts'
import { PARENT } from '#cluster/coordinator/records.ts'
import { SimulationFailure } from '#sim/timeline.ts'

/** By the first letter of a key. */
const OPEN: ReadonlyMap<string, string> = new Map([
  ['t', 'a transaction'],
  ['r', 'a request that is being done'],
  ['q', 'a queue'],
  ['n', 'one who waits in a queue'],
])
const DIRECTORY = 'd'
/** After all keys: no character of one is above 255. */
const END: Key = '\u0100'

/** @param owners of each directory there is: where it lies; of a removed one, and of the root, 0 */
export function coordinatorRests(state: StateReader, owners: ReadonlyMap<InodeId, InodeId>): void {
  const known = new Set<InodeId>()
  state.range('', END, (key) => {
    const kind = key.charAt(0)
    const left = OPEN.get(kind)
    if (left !== undefined) {
      throw new SimulationFailure(`The coordinator still has ${left}: ${Buffer.from(key, 'latin1').toString('hex')}`)
    }
    if (kind === DIRECTORY && key.length === DIRECTORY.length + NUMBER_BYTES) {
      known.add(numberOfKey(key, DIRECTORY.length) as InodeId)
    }
    return true
  })
  const live = [...owners].flatMap(([directory, owner]) => (owner === NO_INODE ? [] : [directory]))
  for (const directory of new Set([...known, ...live])) {
    const [parent, owner] = [PARENT.get(state, directory)?.parent, owners.get(directory)]
    if (parent === owner) continue
    const [there, here] = [parent, owner].map((each) => (each === undefined ? 'nowhere' : shownInode(each)))
    throw new SimulationFailure(`The coordinator has ${shownInode(directory)} in ${there}, and it lies in ${here}`)
  }
}
