/**
 * The compliance suite of the Store port: the same cases for every store. A store's test calls `runStoreSuite` with a
 * way to open it; the cases look at its capabilities and adapt, and skip by name what the store says it cannot do.
 * All cases share one open store and work in directories of their own, so a store some milliseconds away is fine.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'

import { assert } from '#base/assert.ts'

import type { Store } from './store.ts'
import { attributeCases } from './suite/attributes.ts'
import { bulkRemovalCases } from './suite/bulk-removal.ts'
import { inDirectory, type SuiteOptions } from './suite/case.ts'
import { directoryCases } from './suite/directories.ts'
import { exchangingCases } from './suite/exchanging.ts'
import { faultCases } from './suite/faults.ts'
import { guardCases } from './suite/guards.ts'
import { listingCases } from './suite/listing.ts'
import { modelCases } from './suite/model.ts'
import { namingCases } from './suite/naming.ts'
import { readingCases } from './suite/reading.ts'
import { renamingCases } from './suite/renaming.ts'
import { specialFileCases } from './suite/special-files.ts'
import { storedSegmentCases } from './suite/stored-segments.ts'
import { uploadingCases } from './suite/uploading.ts'
import { writingCases } from './suite/writing.ts'

/** A store that the suite may write in, and how to be rid of it. */
export interface OpenedStore {
  readonly store: Store
  /** Closes the store and removes what was made for it. */
  close(): Promise<void>
}

const CASES = [
  ...readingCases,
  ...writingCases,
  ...guardCases,
  ...namingCases,
  ...listingCases,
  ...directoryCases,
  ...attributeCases,
  ...renamingCases,
  ...exchangingCases,
  ...bulkRemovalCases,
  ...specialFileCases,
  ...storedSegmentCases,
  ...uploadingCases,
  ...faultCases,
  ...modelCases,
]

/** Registers the suite with node:test. The store is empty, or a directory `suite-…` of it may be written in. */
export function runStoreSuite(name: string, open: () => Promise<OpenedStore>, options: SuiteOptions = {}): void {
  const complete: Required<SuiteOptions> = {
    entriesInOneDirectory: 10_000,
    largeBytes: 20 << 20,
    parallel: 16,
    propertyRuns: 25,
    propertySeed: 20_261,
    treeChecked: true,
    namesRefused: [],
    ...options,
  }
  describe(`store suite: ${name}`, () => {
    let opened: OpenedStore | undefined
    let scratch = ''
    before(async () => {
      scratch = await mkdtemp(join(tmpdir(), 'eider-suite-'))
      opened = await open()
    })
    after(async () => {
      await opened?.close()
      await rm(scratch, { recursive: true, force: true })
    })
    const run = Date.now().toString(36)
    CASES.forEach((suiteCase, index) => {
      test(suiteCase.name, async (t) => {
        assert(opened !== undefined, 'the store of the suite is open')
        const directory = `suite-${run}/${index}`
        await suiteCase.run({
          store: opened.store,
          options: complete,
          directory,
          at: inDirectory(directory),
          skip: (reason) => t.skip(reason),
          scratch,
        })
      })
    })
  })
}
