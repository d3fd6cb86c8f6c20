/**
 * Writes whole versions of one file, each all of one byte, as fast as it can: argv is FILE BYTES MILLISECONDS HOW. `in-place` writes over
 * what is there, `saved` writes a file of its own and renames it over. For tests. Prints the number of versions.
 */
import { closeSync, openSync, renameSync, writeSync } from 'node:fs'

const [file = '', bytes = '', ms = '', how = ''] = process.argv.slice(2)
const until = Date.now() + Number(ms)
let version = 0
while (Date.now() < until) {
  version++
  const path = how === 'saved' ? `${file}.tmp` : file
  const fd = openSync(path, how === 'saved' ? 'w' : 'r+')
  writeSync(fd, Buffer.alloc(Number(bytes), version % 256))
  closeSync(fd)
  if (how === 'saved') renameSync(path, file)
}
process.stdout.write(`${version}\n`)
