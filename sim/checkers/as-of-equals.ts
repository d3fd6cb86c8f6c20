/** A directory as of a time is what a model of it was then: the same names, in order of their bytes, and behind them the same inodes. */
import { type InodeId, shownInode } from '#cluster/inode-id.ts'
import { SimulationFailure } from '#sim/timeline.ts'

/** What became of a name at a time; undefined where nothing is there from then on. */
export interface NameEvent {
  readonly stampUs: number
  readonly name: string
  readonly inode: InodeId | undefined
}

interface Listed {
  readonly name: string
  readonly inode: InodeId
}

/** @param events all that ever happened to the directory, in order of time; later ones than `asOf` are left out */
export function asOfEquals(events: readonly NameEvent[], asOf: number, listed: readonly Listed[]): void {
  const model = new Map<string, InodeId>()
  for (const { stampUs, name, inode } of events) {
    if (stampUs > asOf) break
    if (inode === undefined) model.delete(name)
    else model.set(name, inode)
  }
  const expected = [...model].sort(([a], [b]) => Buffer.compare(Buffer.from(a), Buffer.from(b)))
  for (let at = 0; at < Math.max(expected.length, listed.length); at++) {
    const right = expected[at]
    const found = listed[at]
    if (right !== undefined && right[0] === found?.name && right[1] === found.inode) continue
    const [is, be] = [found && inWords(found.name, found.inode), right && inWords(...right)]
    throw new SimulationFailure(`As of ${asOf}, entry ${at} is ${is ?? 'missing'}, and should be ${be ?? 'missing'}`)
  }
}

function inWords(name: string, inode: InodeId): string {
  return `${JSON.stringify(name)} ${shownInode(inode)}`
}
