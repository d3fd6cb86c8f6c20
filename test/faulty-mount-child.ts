/**
 * A mount of a directory whose store fails by chance, as a program of its own: faulty-mount-child.ts STORE DIR STAGING VALIDITY_MS.
 * A message says whether the store is to be calm, and may give a seed of the faults that come after; each is answered. Ends with its parent's channel or by SIGTERM,
 * with exit code 0 only where all that was written is stored.
 */
import { setLogLevel } from '#base/log.ts'
import { mountStore } from '#mount/mount.ts'
import { openDirectoryStore } from '#store/directory-store.ts'
import { type FaultyStore, openFaultyStore } from '#store/faulty-store.ts'
import type { Store } from '#store/store.ts'

const [root = '', directory = '', stagingDirectory = '', validityMs = '0'] = process.argv.slice(2)
const STOP_MS = 10_000

setLogLevel('warn')
process.chdir('/')
const inner = await openDirectoryStore(root)
// What is believed is not asked for, so that little but changes meets the store.
const times = validityMs === '0' ? 1 : 3
const rates = { error: 0.08 * times, lost: 0.08 * times, throttled: 0.04 * times, delay: 0.05, cut: 0.1 }
const failing = (seed: number): FaultyStore => openFaultyStore(inner, { seed, rates })
let faulty = failing(0)
let faultsBefore = 0
let isCalm = true
const store: Store = new Proxy(inner, {
  get: (_, key) => {
    const from = isCalm ? inner : faulty
    const value = Reflect.get(from, key) as unknown
    return typeof value === 'function' ? (value.bind(from) as unknown) : value
  },
})
const mount = await mountStore({
  ...{ store, directory, stagingDirectory, readOnly: false, allowOther: true },
  validityMs: Number(validityMs),
})
process.on('message', ({ calm, seed }: { readonly calm: boolean; readonly seed?: number }) => {
  isCalm = calm
  if (seed !== undefined) {
    faultsBefore += faulty.faultCount
    faulty = failing(seed)
  }
  process.send?.({ faults: faultsBefore + faulty.faultCount })
})
process.once('SIGTERM', () => void stop())
process.once('disconnect', () => void stop())
process.send?.('mounted')

async function stop(): Promise<void> {
  isCalm = true
  const { lost } = await mount.stop({ graceMs: STOP_MS, publishMs: STOP_MS })
  await inner.close()
  process.exit(lost.length === 0 ? 0 : 1)
}
