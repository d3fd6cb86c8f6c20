/** A process that changes a tree at random while it is synced, and the places for it. */
import { type ChildProcessByStdio, spawn } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { fileURLToPath } from 'node:url'

import { fill, withPlaces, type Places } from './tree.ts'

const CHURN = fileURLToPath(import.meta.resolve('#test/sync/churn-process.ts'))

export interface ChurnPlaces extends Places {
  /** Where trees are moved to, and from: on the same file system as the source. */
  readonly outside: string
}

export interface ChurnOptions {
  readonly ms: number
  readonly seed: number
  /** Between bursts of changes. */
  readonly pauseMsMax?: number
}

/** Makes them, with a first file, for as long as `use` takes. */
export async function withChurnPlaces(use: (places: ChurnPlaces) => Promise<void>): Promise<void> {
  await withPlaces(async (places) => {
    const outside = join(places.base, 'outside')
    mkdirSync(outside)
    fill(places.source, { 'a0/b1/first': 'first' })
    await use({ ...places, outside })
  })
}

/** Prints in the end how much it has done. */
export function startChurn(
  { source, outside }: ChurnPlaces,
  { ms, seed, pauseMsMax }: ChurnOptions,
): ChildProcessByStdio<null, Readable, null> {
  const pause = pauseMsMax === undefined ? [] : [String(pauseMsMax)]
  return spawn(process.execPath, [CHURN, source, outside, String(ms), String(seed), ...pause], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
}
