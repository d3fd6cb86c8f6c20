/**
 * A mount of a directory whose store fails by chance, as a program of its own: faulty-mount-child.ts STORE DIR STAGING SEED.
 * A message `true` has the store work, `false` has it fail again; each is answered. Ends with its parent's channel or by SIGTERM,
 * with exit code 0 only where all that was written is stored.
 */
import { setLogLevel } from '#base/log.ts'
import { mountStore } from '#mount/mount.ts'
import { openDirectoryStore } from '#store/directory-store.ts'
import { openFaultyStore } from '#store/faulty-store.ts'
import type { Store } from '#store/store.ts'

const [root = '', directory = '', stagingDirectory = '', seed = ''] = process.argv.slice(2)
const STOP_MS = 10_000

setLogLevel('fatal')
process.chdir('/')
const inner = await openDirectoryStore(root)
const faulty = openFaultyStore(inner, {
  seed: Number(seed),
  rates: { error: 0.04, lost: 0.04, throttled: 0.02, delay: 0.05, cut: 0.05 },
})
let isCalm = true
const store: Store = new Proxy(inner, {
  get: (_, key) => {
    const from = isCalm ? inner : faulty
    const value = Reflect.get(from, key) as unknown
    return typeof value === 'function' ? (value.bind(from) as unknown) : value
  },
})
const mount = await mountStore({ store, directory, stagingDirectory, readOnly: false, allowOther: true })
process.on('message', (calm: boolean) => {
  isCalm = calm
  process.send?.({ faults: faulty.faultCount })
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
