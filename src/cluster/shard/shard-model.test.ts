import assert from 'node:assert/strict'
import { describe, test } from 'node:test'

import fc from 'fast-check'

import { isOperationError } from '#base/errors.ts'
import { makeInodeId, ROOT_INODE, type InodeId } from '#cluster/inode-id.ts'
import { numberOfKey } from '#cluster/journal/keys.ts'
import type { StateReader } from '#cluster/journal/state.ts'
import { NO_INODE, type Edge } from '#cluster/wire/forms.ts'

import { nameOfPast, NAME_AT, readEdge, readPast } from './records.ts'
import { shardMessages as m } from './shard-messages.ts'
import { ANYTHING, digestOf, NOTHING, TestShard } from './shard-fixture.ts'

const NAMES = ['a', 'aa', 'a\u0001', 'b', 'ü', 'n'.repeat(255)]
const DIRECTORIES = [ROOT_INODE, makeInodeId('directory', 0, 1), makeInodeId('directory', 0, 2)]

/** What the shard is to have: a list of edges for each name, the newest last, and nothing clever. */
class Model {
  readonly edges = new Map<string, Edge[]>()

  of(directory: InodeId, name: string): Edge[] {
    const key = `${directory}/${name}`
    const found = this.edges.get(key) ?? []
    this.edges.set(key, found)
    return found
  }

  current(directory: InodeId, name: string): Edge | undefined {
    const last = this.of(directory, name).at(-1)
    return last?.state === 'current' || last?.state === 'locked' ? last : undefined
  }

  take(directory: InodeId, name: string, inode: InodeId, created: number): void {
    const edges = this.of(directory, name)
    const before = this.current(directory, name)
    if (before !== undefined) edges[edges.length - 1] = { ...before, state: 'owned' }
    edges.push({ name, inode, created, state: 'current' })
  }

  free(directory: InodeId, name: string, removed: number, becomes: 'owned' | 'left'): void {
    const edges = this.of(directory, name)
    edges[edges.length - 1] = { ...(edges.at(-1) as Edge), state: becomes }
    edges.push({ name, inode: NO_INODE, created: removed, state: 'removed' })
  }

  names(directory: InodeId): string[] {
    return NAMES.filter((name) => this.current(directory, name) !== undefined)
  }

  asOf(directory: InodeId, time: number): Map<string, InodeId> {
    const found = new Map<string, InodeId>()
    for (const name of NAMES.toSorted((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)))) {
      const last = this.of(directory, name).findLast(({ created }) => created <= time)
      if (last !== undefined && last.inode !== NO_INODE) found.set(name, last.inode)
    }
    return found
  }
}

const ACTION = fc.record({
  do: fc.oneof(
    { weight: 8, arbitrary: fc.constant('create' as const) },
    { weight: 3, arbitrary: fc.constant('link' as const) },
    { weight: 5, arbitrary: fc.constant('unlink' as const) },
    { weight: 5, arbitrary: fc.constant('rename' as const) },
    { weight: 3, arbitrary: fc.constant('move' as const) },
    { weight: 3, arbitrary: fc.constant('undelete' as const) },
    { weight: 2, arbitrary: fc.constant('forget' as const) },
    { weight: 1, arbitrary: fc.constant('lock' as const) },
  ),
  directory: fc.constantFrom(...DIRECTORIES),
  other: fc.constantFrom(...DIRECTORIES),
  name: fc.constantFrom(...NAMES),
  newName: fc.constantFrom(...NAMES),
  guard: fc.constantFrom(ANYTHING, NOTHING),
  pick: fc.nat(),
})
type Action = typeof ACTION extends fc.Arbitrary<infer T> ? T : never

/** Does it in the shard and, where the shard did it, in the model. */
function act(shard: TestShard, model: Model, action: Action): void {
  const { directory, name, newName, guard, pick } = action
  const edge = model.current(directory, name)
  const known = { directory, name, inode: edge?.inode ?? NO_INODE, created: edge?.created ?? 0 }
  const owned = model.of(directory, name).filter(({ state }) => state === 'owned')
  const past = owned[pick % Math.max(1, owned.length)]
  if (action.do === 'create') {
    const { inode, created } = shard.create(name, { directory, guard, content: String(pick) })
    model.take(directory, name, inode, created)
  } else if (action.do === 'link') {
    const own = shard.construct()
    const { created } = shard.write(m.link, { ...own, directory, name, guard, size: 0 })
    model.take(directory, name, own.file, created)
  } else if (action.do === 'undelete' && past !== undefined) {
    const { created } = shard.write(m.undelete, { directory, name, created: past.created, newName, guard })
    const edges = model.of(directory, name)
    edges[edges.indexOf(past)] = { ...past, state: 'left' }
    model.take(directory, newName, past.inode, created)
  } else if (action.do === 'forget' && past !== undefined) {
    shard.write(m.hardUnlink, { directory, name, created: past.created, file: past.inode })
    const edges = model.of(directory, name)
    edges.splice(edges.indexOf(past), 1)
  } else if (edge !== undefined) actOn(shard, model, action, known)
}

function actOn(
  shard: TestShard,
  model: Model,
  { do: what, directory, other, name, newName, guard }: Action,
  known: { directory: InodeId; name: string; inode: InodeId; created: number },
): void {
  const { inode, created } = known
  if (what === 'unlink') model.free(directory, name, shard.write(m.unlink, known).removed, 'owned')
  else if (what === 'rename') {
    const renamed = shard.write(m.rename, { ...known, newName, guard })
    model.free(directory, name, renamed.created, 'left')
    model.take(directory, newName, inode, renamed.created)
  } else if (what === 'move' && other !== directory) {
    // As the coordinator does it.
    const edge = { directory, name, target: inode, created }
    shard.write(m.lockEdge, edge)
    let moved: { created: number } | undefined
    try {
      moved = shard.write(m.createEdge, { directory: other, name: newName, target: inode, guard })
      model.take(other, newName, inode, moved.created)
    } finally {
      const { removed } = shard.write(m.unlockEdge, { ...edge, hasLeft: moved !== undefined })
      if (moved !== undefined) model.free(directory, name, removed, 'left')
    }
  } else if (what === 'lock') {
    const edge = { directory, name, target: inode, created }
    shard.write(m.lockEdge, edge)
    shard.refuses('NAME_LOCKED', m.unlink, known)
    shard.write(m.unlockEdge, { ...edge, hasLeft: false })
  }
}

/** Who owns which file, by all that the state has. */
function owners(state: StateReader): Map<InodeId, string[]> {
  const found = new Map<InodeId, string[]>()
  const add = (inode: InodeId, owner: string): void => void found.set(inode, [...(found.get(inode) ?? []), owner])
  state.range('e', 'f', (key, value) => {
    add(readEdge(value).inode, `current ${key.slice(NAME_AT)}`)
    return true
  })
  state.range('h', 'i', (key, value) => {
    const { inode, state: edgeState } = readPast(key, value)
    if (edgeState === 'owned') add(inode, `past ${nameOfPast(key)}`)
    return true
  })
  return found
}

function checkOwners(state: StateReader): void {
  const owned = owners(state)
  state.range('f', 'g', (key) => {
    const inode = numberOfKey(key, 1) as InodeId
    assert.equal(owned.get(inode)?.length, 1, `file ${inode} has one owner: ${owned.get(inode)?.join(', ')}`)
    owned.delete(inode)
    return true
  })
  for (const [inode, by] of owned) assert.ok(DIRECTORIES.includes(inode), `${by.join(', ')} own a file that is there`)
}

function newShard(): TestShard {
  const shard = new TestShard()
  shard.isStrict = false
  shard.makeDirectory('one', 1)
  shard.makeDirectory('two', 2)
  return shard
}

function listedAsOf(shard: TestShard, directory: InodeId, asOf: number, limit: number): Map<string, InodeId> {
  const found = new Map<string, InodeId>()
  for (let after = '', isLast = false; !isLast;) {
    const page = shard.read('listAsOf', { directory, asOf, after, limit })
    for (const { name, inode } of page.entries) {
      assert.ok(!found.has(name), 'a name comes once')
      found.set(name, inode)
    }
    isLast = page.isLast
    after = page.entries.at(-1)?.name ?? after
  }
  // The directories themselves are no part of the model.
  for (const name of ['one', 'two']) found.delete(name)
  return found
}

describe('a shard and a simple model of it', () => {
  test('[S147] [S149] [S153] agree on names, history, owners and every moment of the past', () => {
    let done = 0
    let refused = 0
    fc.assert(
      fc.property(
        fc.array(ACTION, { maxLength: 120, size: 'max' }),
        fc.integer({ min: 1, max: 4 }),
        (actions, limit) => {
          const shard = newShard()
          const model = new Model()
          const times: number[] = [shard.nowUs]
          for (const action of actions) {
            try {
              act(shard, model, action)
              done++
            } catch (error) {
              assert.ok(isOperationError(error), String(error))
              refused++
            }
            times.push(shard.nowUs)
          }
          checkOwners(shard.state)
          for (const directory of DIRECTORIES) {
            const names = shard.names(directory).filter((name) => name !== 'one' && name !== 'two')
            assert.deepEqual(names.toSorted(), model.names(directory).toSorted())
            for (const name of NAMES) {
              const request = { directory, name, time: 0, isBackwards: false, isSameName: true, limit: 1000 }
              assert.deepEqual(shard.read('history', request).edges, model.of(directory, name))
            }
            for (const time of times) {
              assert.deepEqual([...listedAsOf(shard, directory, time, limit)], [...model.asOf(directory, time)])
            }
          }
          assert.equal(digestOf(shard.replayed()), digestOf(shard.state))
        },
      ),
      { seed: 147, numRuns: 60 },
    )
    assert.ok(done > 1000 && refused > 100, `${done} were done and ${refused} refused`)
  })
})
