/** What the values of the options mean for a sync. */
import { join } from 'node:path'
import type { SyncSettings } from '#sync/open-sync.ts'
import type { Prefixes } from '#sync/prefixes.ts'
import { linksOf, type SyncValues } from './sync-ends.ts'

/** `directory`: of the state. */
export function settingsOf(
  values: SyncValues,
  prefixes: Prefixes | undefined,
  directory: string,
  signal: AbortSignal,
): SyncSettings {
  const { include, exclude, sourceFilter, sourceExclude, oneFileSystem } = values
  const { once, threads, metadata, checksum, verify, bandwidth, interval } = values
  return {
    ...{ once, threads, metadata, checksum, verify, signal },
    links: linksOf(values),
    fingerprint: JSON.stringify([
      [include, exclude, sourceFilter ?? '', sourceExclude ?? '', oneFileSystem, linksOf(values), values.metadata],
    ]),
    deletes: values.delete,
    deleteRules: { isMeant: values.yesDelete, countMax: values.deleteMax, percentMax: values.deletePercent },
    backupDirectory: values.backupDir?.replace(/\/+$/, ''),
    bytesPerSecond: bandwidth,
    compareEveryMs: interval,
    scratch: join(directory, 'scratch'),
    keyOf: (path) => {
      const absolute = prefixes?.sourceOf(path)
      return absolute === undefined ? path : (prefixes?.keyOf(absolute) ?? path)
    },
  }
}
