/** Runs one benchmark by name: npm run bench -- NAME [WORD…] [--json FILE]. A benchmark is a file here with `run(words)`. */
import { globSync, writeFileSync } from 'node:fs'
import { basename } from 'node:path'
import { type BenchTable, formatTable } from './table.ts'

const NOT_BENCHMARKS = new Set(['bench', 'table'])
const names = globSync('bench/*.ts')
  .map((path) => basename(path, '.ts'))
  .filter((name) => !NOT_BENCHMARKS.has(name))
  .toSorted()

const args = process.argv.slice(2)
const jsonAt = args.indexOf('--json')
const jsonFile = jsonAt === -1 ? undefined : args.splice(jsonAt, 2)[1]
const name = args[0]
if (name === undefined || !names.includes(name) || (jsonAt !== -1 && jsonFile === undefined)) {
  process.stderr.write(`usage: npm run bench -- NAME [WORD…] [--json FILE]; NAME is one of ${names.join(', ')}\n`)
  process.exit(2)
}
const { run } = (await import(`./${name}.ts`)) as { run: (words: readonly string[]) => Promise<BenchTable> }
const table = await run(args.slice(1))
process.stdout.write(`\n${formatTable(table)}`)
if (jsonFile !== undefined) writeFileSync(jsonFile, `${JSON.stringify(table, null, 2)}\n`)
// Servers and connections of the benchmark may still be open.
process.exit(0)
