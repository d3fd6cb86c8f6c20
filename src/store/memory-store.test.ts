/** The store suite on the memory store. */
import { openMemoryStore } from './memory-store.ts'
import { runStoreSuite } from './store-suite.ts'

runStoreSuite('memory', async () => {
  const store = openMemoryStore()
  return { store, close: () => store.close() }
})
