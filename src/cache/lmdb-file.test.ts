/** A file of lmdb whose pages were damaged behind its back, by processes, as the damage may end them by a signal. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { copyFileSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'

const PAGE_BYTES = 4096
const ENTRIES = 3000
const DAMAGES = 24

const scratch = mkdtempSync(join(tmpdir(), 'eider-lmdb-file-'))
after(() => rmSync(scratch, { recursive: true }))

const PROGRAM = `
const { closeLmdbFile, commitBatch, openBytesDatabase, openLmdbFile, queued } = await import(process.argv[1])
const [, , path, work] = process.argv
const file = await openLmdbFile(path, (opened) => ({ opened, entries: openBytesDatabase(opened, 'entries') }))
if (work === 'fill') {
  await commitBatch(file.opened, () => {
    for (let at = 0; at < ${ENTRIES}; at++) queued(file.entries.put(Buffer.from('key ' + at), Buffer.alloc(200, at)))
  })
  process.kill(process.pid, 'SIGKILL')
}
let count = 0
for (const { value } of file.entries.getRange({})) if (value.length === 200) count++
await closeLmdbFile(file.opened)
process.stdout.write(String(count))
`

function run(path: string, work: 'fill' | 'read'): { readonly signal: NodeJS.Signals | null; readonly stdout: string } {
  const module = new URL('./lmdb-file.ts', import.meta.url).href
  const args = ['--input-type=module', '-e', PROGRAM, module, path, work]
  const { signal, stdout, stderr, status } = spawnSync(process.execPath, args, { encoding: 'utf8' })
  assert.ok(status === 0 || work === 'fill', `${signal} ${stderr}`)
  return { signal, stdout }
}

describe('a file of lmdb', () => {
  const sound = join(scratch, 'sound')

  test('that nobody closed is taken as it is, and leaves no mark once it is closed', () => {
    assert.equal(run(sound, 'fill').signal, 'SIGKILL')
    copyFileSync(sound, join(scratch, 'copy'))
    writeFileSync(join(scratch, 'copy-open'), '')
    assert.equal(run(join(scratch, 'copy'), 'read').stdout, String(ENTRIES))
    assert.ok(!existsSync(join(scratch, 'copy-open')))
  })

  test('that nobody closed, and whose pages are damaged, ends no process: it is begun anew', () => {
    const bytes = readFileSync(sound)
    const pages = bytes.length / PAGE_BYTES
    let anew = 0
    for (let seed = 0; seed < DAMAGES; seed++) {
      const damaged = Buffer.from(bytes)
      const page = 2 + ((seed * 7919) % (pages - 2))
      damaged.fill([0xff, 0, 0x5a][seed % 3] ?? 0, page * PAGE_BYTES, (page + 1) * PAGE_BYTES)
      const path = join(scratch, `damaged-${seed}`)
      writeFileSync(path, damaged)
      writeFileSync(`${path}-open`, '')
      if (run(path, 'read').stdout === '0') anew++
    }
    // The rest were pages of nothing, or that are not in use.
    assert.ok(anew >= DAMAGES / 3, `${anew} were begun anew`)
  })
})
