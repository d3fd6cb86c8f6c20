/** The store suite on the directory store. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { openDirectoryStore } from './directory-store.ts'
import { runStoreSuite } from './store-suite.ts'

runStoreSuite('directory', async () => {
  const root = await mkdtemp(join(tmpdir(), 'eider-directory-'))
  const store = await openDirectoryStore(root)
  return {
    store,
    close: async () => {
      await store.close()
      await rm(root, { recursive: true, force: true })
    },
  }
})
