/** The process that is measured: one shard, without a registry. Arguments: its directory. Says its port, and at the end of its input its CPU time in milliseconds. */
import { join } from 'node:path'

import { ClockTrust } from '#cluster/clock-trust.ts'
import { openFileJournal } from '#cluster/journal/file-journal.ts'
import { openLmdbState } from '#cluster/journal/lmdb-state.ts'
import { ShardServer } from '#cluster/shard/shard-server.ts'
import { systemSurroundings } from '#cluster/system-surroundings.ts'

const data = process.argv[2] ?? ''
const surroundings = systemSurroundings()
const { clock } = surroundings
// As with a registry that has told its time.
const trust = new ClockTrust(clock)
trust.compare(clock.monotonicMs(), clock.nowMs())
const server = await ShardServer.open({
  surroundings,
  trust,
  journal: await openFileJournal(join(data, 'journal')),
  stored: await openLmdbState(join(data, 'state')),
  first: 0,
  last: 255,
  onFailed: (error) => {
    throw error
  },
})
const listener = await surroundings.network.listen('127.0.0.1:0', (link) => server.accept(link))
process.stdout.write(`${JSON.stringify({ address: listener.address })}\n`)
process.stdin.on('data', () => {
  const { user, system } = process.cpuUsage()
  process.stdout.write(`${JSON.stringify({ cpuUs: user + system, rss: process.memoryUsage.rss() })}\n`)
})
process.stdin.on('end', () => {
  void listener
    .close()
    .then(() => server.close())
    .then(() => process.exit(0))
})
