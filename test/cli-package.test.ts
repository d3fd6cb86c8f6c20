/** The package as npm packs it: it installs globally under an older Node, brings its own, and runs. */
import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { after, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { olderNodeFolder } from './older-node.ts'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const folder = olderNodeFolder()
const scratch = mkdtempSync(join(tmpdir(), 'eider-package-'))
after(() => rmSync(scratch, { recursive: true }))

test(
  'npm pack gives a package that installs and runs under an older Node',
  {
    skip:
      folder === undefined || !existsSync(join(folder, 'npm')) ? 'no Node older than 24 with npm is on PATH' : false,
  },
  () => {
    // Only the older Node is to be found: not the checkout's own.
    const environment = { ...process.env, PATH: [folder, '/usr/bin', '/bin'].join(delimiter) }
    const npm = (...args: string[]): void => {
      execFileSync(join(folder ?? '', 'npm'), [...args, '--loglevel=error'], {
        cwd: ROOT,
        env: environment,
        stdio: 'pipe',
      })
    }
    npm('pack', '--pack-destination', scratch)
    const archive = readdirSync(scratch).find((name) => name.endsWith('.tgz'))
    assert(archive !== undefined)
    const prefix = join(scratch, 'prefix')
    npm('install', '--global', '--prefer-offline', '--prefix', prefix, join(scratch, archive))

    const installed = join(prefix, 'lib', 'node_modules', 'eider')
    assert.ok(existsSync(join(installed, 'dist', 'THIRD-PARTY-LICENSES.txt')))
    assert.ok(!existsSync(join(installed, 'src')), 'sources are not shipped, as Node refuses TypeScript there')
    const eider = (...args: string[]): { status: number | null; stdout: string } =>
      spawnSync(join(prefix, 'bin', 'eider'), args, { cwd: scratch, env: environment, encoding: 'utf8' })
    assert.match(eider('--version').stdout, /^eider \d+\.\d+\.\d+\n$/)
    const doctor = eider('doctor', '--json')
    const { findings } = JSON.parse(doctor.stdout) as { findings: { subject: string; found: string; state: string }[] }
    const node = findings.find(({ subject }) => subject === 'Node')
    assert.match(node?.found ?? '', /^v2[4-9]/)
    // What comes in by dynamic import is in the bundle in a form that works: here the credentials of a profile.
    mkdirSync(join(scratch, '.aws'))
    writeFileSync(join(scratch, '.aws', 'credentials'), '[some]\naws_access_key_id = A\naws_secret_access_key = B\n')
    const args = [
      'mount',
      's3://bucket?endpoint=http://127.0.0.1:1&profile=some',
      join(scratch, 'mnt'),
      '--mkdir',
      '-f',
    ]
    const refused = spawnSync(join(prefix, 'bin', 'eider'), args, {
      cwd: scratch,
      env: { PATH: environment.PATH, HOME: scratch },
      encoding: 'utf8',
    })
    assert.equal(refused.status, 1)
    assert.match(refused.stderr, /Cannot open bucket "bucket" at http:\/\/127\.0\.0\.1:1: .*ECONNREFUSED/)
    assert.equal(doctor.status, findings.some(({ state }) => state === 'missing') ? 1 : 0)
  },
)
