/**
 * What programs do in a mount, in a process of its own, as a process that serves a mount must not use it:
 *
 *   worker.ts sequential FILE BLOCK_BYTES          reads it to its end
 *   worker.ts random FILE BLOCK_BYTES READS SEED   reads blocks at random offsets that are multiples of a block
 *   worker.ts create DIRECTORY COUNT BYTES         creates, writes and closes files, one after another
 *   worker.ts write FILE BYTES                     writes in blocks of 1 MiB, and fsyncs
 *
 * Prints one line: milliseconds, and bytes.
 */
import { closeSync, fstatSync, fsyncSync, openSync, readSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { noise } from './far-bucket.ts'

const [what = '', place = '', ...numbers] = process.argv.slice(2)
const [first = 0, second = 0, third = 0] = numbers.map(Number)

const WORK: Readonly<Record<string, () => number>> = {
  sequential: () => {
    const fd = openSync(place, 'r')
    const buffer = Buffer.allocUnsafeSlow(first)
    let bytes = 0
    for (;;) {
      const count = readSync(fd, buffer, 0, first, null)
      if (count === 0) break
      bytes += count
    }
    closeSync(fd)
    return bytes
  },
  random: () => {
    const fd = openSync(place, 'r')
    const blocks = Math.floor(fstatSync(fd).size / first)
    const buffer = Buffer.allocUnsafeSlow(first)
    let state = third
    for (let count = 0; count < second; count++) {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
      const block = Math.floor((state / 2 ** 32) * blocks)
      if (readSync(fd, buffer, 0, first, block * first) !== first) throw new Error('a short read')
    }
    closeSync(fd)
    return first * second
  },
  create: () => {
    const bytes = Buffer.alloc(second, 'x')
    for (let count = 0; count < first; count++) writeFileSync(join(place, `new-${count}`), bytes)
    return first * second
  },
  write: () => {
    const block = noise(1 << 20)
    const fd = openSync(place, 'w')
    for (let at = 0; at < first; at += block.length) {
      block.writeInt32LE(at | 0, 0)
      for (let done = 0; done < block.length;) done += writeSync(fd, block, done)
    }
    fsyncSync(fd)
    closeSync(fd)
    return first
  },
}

const begin = performance.now()
const bytes = WORK[what]?.()
if (bytes === undefined) throw new Error(`there is no work "${what}"`)
process.stdout.write(`${performance.now() - begin} ${bytes}\n`)
