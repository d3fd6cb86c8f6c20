/**
 * Store URLs: which store a scheme opens. The S3 store is loaded only where it is asked for, since its HTTP client costs
 * tens of milliseconds to load.
 */
import { fileURLToPath } from 'node:url'

import { OperationError } from '#base/errors.ts'
import type { S3Options } from '#store/s3/endpoint.ts'

import { openDirectoryStore } from './directory-store.ts'
import { dryRunStore, type DryRunOptions } from './dry-run-store.ts'
import { openMemoryStore } from './memory-store.ts'
import { readOnlyStore } from './read-only-store.ts'
import type { Store } from './store.ts'

export interface StoreOptions {
  /** Refuses every change with `STORE_READ_ONLY`. */
  readonly readOnly?: boolean
  /** Shows every change and sends none, not even of its own: what others left unfinished stays as well. */
  readonly dryRun?: DryRunOptions
  readonly signal?: AbortSignal
  /** For `s3:` URLs. */
  readonly s3?: S3Options
}

const KNOWN = 's3://BUCKET/PREFIX, file:///DIRECTORY, an absolute path, or memory:'

/** Opens the store that `url` names. @throws OperationError `INPUT_INVALID` where it names none, and what opening finds. */
export async function openStore(url: string, options: StoreOptions = {}): Promise<Store> {
  const { readOnly = false, dryRun } = options
  if (readOnly || dryRun === undefined) {
    const store = await openByScheme(url, options)
    return readOnly ? readOnlyStore(store) : store
  }
  const inner = await openByScheme(url, { ...options, readOnly: true })
  try {
    return dryRunStore(readOnlyStore(inner), dryRun)
  } catch (error) {
    await inner.close()
    throw error
  }
}

async function openByScheme(url: string, options: StoreOptions): Promise<Store> {
  const common = {
    ...(options.readOnly === undefined ? {} : { readOnly: options.readOnly }),
    ...(options.signal === undefined ? {} : { signal: options.signal }),
  }
  const scheme = /^([a-z][a-z0-9+.-]*):/i.exec(url)?.[1]?.toLowerCase()
  switch (scheme) {
    case 'memory':
      return openMemoryStore()
    case 'file':
      return openDirectoryStore(pathOf(url), common)
    case 's3': {
      const { openS3Store } = await import('#store/s3/s3-store.ts')
      return openS3Store(url, { ...options.s3, ...common })
    }
    case undefined:
      if (url.startsWith('/')) return openDirectoryStore(url, common)
  }
  throw new OperationError('INPUT_INVALID', `Cannot open the store "${url}": expected ${KNOWN}`)
}

function pathOf(url: string): string {
  try {
    // "file:" and "file://" alone would otherwise be the root of the machine.
    if (/^file:\/\/\//i.test(url)) return fileURLToPath(url)
  } catch (error) {
    throw notFile(url, error)
  }
  throw notFile(url)
}

function notFile(url: string, cause?: unknown): OperationError {
  return new OperationError('INPUT_INVALID', `Cannot open the store "${url}": expected file:///DIRECTORY`, { cause })
}
