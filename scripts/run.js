/** Runs a TypeScript file of the project under its own Node: node scripts/run.js FILE [ARGUMENT...] */
import { resolve } from 'node:path'
import { runUnderNode } from '../bin/find-node.js'

const [file, ...args] = process.argv.slice(2)
if (file === undefined) {
  process.stderr.write('usage: node scripts/run.js FILE [ARGUMENT...]\n')
  process.exit(2)
}
await runUnderNode(resolve(file), args)
