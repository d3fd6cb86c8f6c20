/**
 * Writes whole versions of one file, each all of one byte, one after another: argv is FILE BYTES MILLISECONDS HOW. `in-place` opens the
 * file, writes over what is there and closes it, with a pause after each, as what is never closed has no whole versions; `saved` writes
 * a file of its own and renames it over. For tests. Prints the number of versions.
 */
import { closeSync, openSync, renameSync, writeSync } from 'node:fs'

const [file = '', bytes = '', ms = '', how = ''] = process.argv.slice(2)
const PAUSE_MS = 5
const pause = new Int32Array(new SharedArrayBuffer(4))
const until = Date.now() + Number(ms)
let version = 0
while (Date.now() < until) {
  version++
  const path = how === 'saved' ? `${file}.tmp` : file
  const fd = openSync(path, how === 'saved' ? 'w' : 'r+')
  writeSync(fd, Buffer.alloc(Number(bytes), version % 256))
  closeSync(fd)
  if (how === 'saved') renameSync(path, file)
  else Atomics.wait(pause, 0, 0, PAUSE_MS)
}
process.stdout.write(`${version}\n`)
