/**
 * Watches the directory of its argv by inotify and prints what is told, a line of JSON a batch; first which subtrees are polled once
 * it is armed. For tests that need limits of their own. Ends with its standard input.
 */
import { setLogLevel } from '#base/log.ts'

import { InotifyWatcher } from '../../src/sync/watch/inotify-watcher.ts'

setLogLevel('silent')
const watcher = new InotifyWatcher(process.argv[2] ?? '', { pollEveryMs: 20 })
await watcher.arm()
const print = (value: unknown): boolean => process.stdout.write(`${JSON.stringify(value)}\n`)
print(watcher.degraded)
process.stdin.resume().on('end', () => void watcher.close())
for await (const batch of watcher.changes()) print(batch)
