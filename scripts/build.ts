/**
 * Builds what an installed package runs: one bundle in dist/, split so that a command loads only what it needs. koffi and
 * lmdb stay outside, as they have native parts; every other library is inside, and its licence goes along.
 */
import { build, type Metafile } from 'esbuild'
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

const OUTPUT = 'dist'

rmSync(OUTPUT, { recursive: true, force: true })
const { metafile } = await build({
  entryPoints: { main: 'src/main.ts' },
  outdir: OUTPUT,
  bundle: true,
  splitting: true,
  chunkNames: 'chunks/[name]-[hash]',
  format: 'esm',
  platform: 'node',
  target: 'node24',
  // Packages in both forms go in as ES modules: a dynamic import of CommonJS has a default export only.
  mainFields: ['module', 'main'],
  external: ['koffi', 'lmdb'],
  sourcemap: false,
  legalComments: 'none',
  metafile: true,
  logLevel: 'warning',
  // Libraries in CommonJS call require for Node's own modules.
  banner: {
    js: "import { createRequire as eiderRequire } from 'node:module'; const require = eiderRequire(import.meta.url);",
  },
})
const packages = packagesIn(metafile)
writeFileSync(join(OUTPUT, 'THIRD-PARTY-LICENSES.txt'), packages.map(licenceOf).join('\n'))
const kilobytes = Object.values(metafile.outputs).reduce((sum, output) => sum + output.bytes, 0) / 1000
process.stdout.write(
  `${OUTPUT}: ${Object.keys(metafile.outputs).length} files, ${kilobytes.toFixed(0)} kB, ${packages.length} libraries inside\n`,
)

/** The folders of the packages whose files are in the bundle. */
function packagesIn({ inputs }: Metafile): string[] {
  const folders = Object.keys(inputs).flatMap((input) => {
    const match = /^(.*node_modules\/(?:@[^/]+\/)?[^/]+)\//.exec(input)
    return match?.[1] === undefined ? [] : [match[1]]
  })
  return [...new Set(folders)].toSorted()
}

function licenceOf(folder: string): string {
  const { name, version, license } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as {
    name: string
    version: string
    license?: string
  }
  const file = readdirSync(folder).find((candidate) => /^(?:licen[cs]e|copying)/i.test(candidate))
  if (license === undefined && file === undefined) throw new Error(`Cannot name the licence of ${name}: it has none`)
  const notice = readdirSync(folder).find((candidate) => /^notice/i.test(candidate))
  const texts = [file, notice]
    .filter((candidate) => candidate !== undefined && existsSync(join(folder, candidate)))
    .map((candidate) => readFileSync(join(folder, candidate ?? ''), 'utf8').trim())
  return ['='.repeat(80), `${name} ${version} (${license ?? 'see below'})`, '', ...texts, ''].join('\n')
}
