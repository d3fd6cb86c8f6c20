/** The parts of a sync of a real directory to a store in memory, for tests of the parts alone. */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'

import { openMemoryStore } from '#store/memory-store.ts'
import type { Store } from '#store/store.ts'
import { Filter, type FilterRules } from './filters.ts'
import { LocalSource } from './local-source.ts'
import { Mover } from './mover.ts'
import { partsOf, type SyncSettings } from './open-sync.ts'
import { Prefixes } from './prefixes.ts'
import { SyncState } from './state.ts'
import { StoreActor } from './store-actor.ts'
import type { SyncParts } from './sync.ts'

export interface Parts extends SyncParts {
  readonly directory: string
  readonly store: Store
  readonly mover: Mover
}

export interface PartsOptions extends Partial<SyncSettings> {
  readonly filter?: FilterRules
  readonly wrap?: (store: Store) => Store
}

const SETTINGS: Omit<SyncSettings, 'scratch' | 'signal'> = {
  threads: 4,
  once: true,
  fingerprint: '',
  deletes: 'after',
  metadata: false,
  backupDirectory: undefined,
  compareEveryMs: 0,
  links: 'skip',
  checksum: false,
  verify: false,
  bytesPerSecond: 0,
  deleteRules: { isMeant: false, countMax: undefined, percentMax: 50 },
  keyOf: (path) => path,
}

/** Makes them for as long as `use` takes. */
export async function withParts(options: PartsOptions, use: (parts: Parts) => Promise<void>): Promise<void> {
  const base = mkdtempSync(join(tmpdir(), 'eider-sync-parts-'))
  const directory = join(base, 'source')
  mkdirSync(directory)
  const { filter, wrap = (store) => store, ...settings } = options
  const state = await SyncState.open(join(base, 'state'))
  const source = new LocalSource({
    prefixes: new Prefixes({ paths: [{ path: directory, isDirectory: true }], sourcePrefix: `${directory}/` }),
    filter: new Filter(filter),
    links: settings.links ?? 'skip',
    xattrs: settings.metadata ?? false,
  })
  const store = openMemoryStore()
  const actor = new StoreActor(wrap(store))
  const { signal } = new AbortController()
  const parts = partsOf(source, actor, state, { ...SETTINGS, scratch: base, signal, ...settings })
  // As after a comparison.
  parts.deleteGuard.begin(Number.MAX_SAFE_INTEGER)
  try {
    await use({
      ...parts,
      directory,
      store,
      mover: new Mover(source, actor, state, { deletes: true, backupDirectory: undefined }),
    })
  } finally {
    await state.close()
    rmSync(base, { recursive: true, force: true })
  }
}

/** Decides about a path and carries that out. */
export async function sync({ decider, executor }: Parts, path: string): Promise<string> {
  const decision = await decider.decide(path, undefined)
  return executor.carryOut(decision)
}

/** The clock that stamps files ticks, so that their times tell of all that came before. */
export async function tick(): Promise<void> {
  await delay(25)
}
