/**
 * Runs the tests: those beside the code first, then those of the whole world (real mounts, real servers). All in one run of
 * Node's test runner, whose closing lines come last. Every test has a time limit, so nothing hangs for ever; what a
 * killed test left behind (processes, mounts, files) is ended and removed afterwards.
 *
 *   node scripts/run.js scripts/test.ts [FILE...] [--node-test-option...]
 */
import { spawn, spawnSync } from 'node:child_process'
import { chmodSync, globSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** Two at a time suits two cores; more would only make time limits tight. */
const CONCURRENCY = 2
/** For one test and for one file: far more than any needs, on a busy machine too. */
const TIMEOUT_MS = 300_000

const args = process.argv.slice(2)
const named = args.filter((arg) => !arg.startsWith('-'))
const files =
  named.length > 0 ? named : ['src', 'sim', 'test'].flatMap((folder) => globSync(`${folder}/**/*.test.ts`).toSorted())

const scratch = mkdtempSync(join(tmpdir(), 'eider-test-'))
// Tests run parts as other users, who must be able to reach what is made below for them.
chmodSync(scratch, 0o711)
const marker = `EIDER_TEST_SCRATCH=${scratch}`
const runner = spawn(
  process.execPath,
  [
    '--test',
    `--test-concurrency=${CONCURRENCY}`,
    `--test-timeout=${TIMEOUT_MS}`,
    '--test-reporter=spec',
    ...args.filter((arg) => arg.startsWith('-')),
    ...files,
  ],
  { stdio: 'inherit', env: { ...process.env, TMPDIR: scratch, EIDER_TEST_SCRATCH: scratch } },
)
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => runner.kill(signal))
runner.on('exit', (code) => {
  cleanUp()
  process.exitCode = code ?? 1
})

function cleanUp(): void {
  for (const pid of leftProcesses()) {
    process.stderr.write(`test: ended process ${pid}, which a test left behind\n`)
    try {
      process.kill(pid, 'SIGKILL')
    } catch {
      // It ended by itself in between.
    }
  }
  for (const mountPoint of leftMounts()) {
    process.stderr.write(`test: unmounted ${mountPoint}, which a test left behind\n`)
    if (spawnSync('umount', ['-l', mountPoint]).status !== 0) spawnSync('fusermount3', ['-uz', mountPoint])
  }
  if (leftMounts().length === 0) rmSync(scratch, { recursive: true, force: true })
}

/** Processes that were started by this run: its mark is in their environment. */
function leftProcesses(): number[] {
  return readdirSync('/proc')
    .map(Number)
    .filter((pid) => Number.isInteger(pid) && pid !== process.pid)
    .filter((pid) => {
      try {
        return readFileSync(`/proc/${pid}/environ`, 'latin1').split('\0').includes(marker)
      } catch {
        return false
      }
    })
}

function leftMounts(): string[] {
  return readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .map((line) => line.split(' ')[1] ?? '')
    .filter((mountPoint) => mountPoint.startsWith(`${scratch}/`))
    .toReversed()
}
