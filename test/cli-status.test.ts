/** What an operator sees of a running mount, and how it is mounted from fstab: through mount(8) itself where root may. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { mountRequest } from '#cli/mount-helper.ts'
import { removeMountRecord } from '#cli/mount-records.ts'
import { probeFuse } from '#fuse/probe.ts'
import { unmountFuse } from '#os/fuse-unmount.ts'
import { mounts, mountsOf } from '#os/mount-table.ts'
import { eider, gone } from './eider-process.ts'

const fuse = await probeFuse()
const skip = fuse.available ? false : `no mount can be made here: ${fuse.why}`
const HELPER = '/sbin/mount.fuse.eider'
const scratch = mkdtempSync(join(tmpdir(), 'eider-cli-status-'))
const data = join(scratch, 'data')
const env = { XDG_STATE_HOME: join(scratch, 'state') }
mkdirSync(data)

after(async () => {
  for (const { directory } of mounts()) {
    if (directory.startsWith(`${scratch}/`)) await unmountFuse(directory, { lazy: true })
  }
  rmSync(scratch, { recursive: true, force: true })
})

interface Told {
  readonly mounts: readonly {
    directory: string
    openFiles: number
    dirtyFiles: number
    dirtyBytes: number
    pid: number
  }[]
}

async function told(folder: string): Promise<Told['mounts'][number]> {
  const { stdout, code } = await eider(['status', '--json', `--mount=${folder}`], { env })
  assert.equal(code, 0)
  const [mount] = (JSON.parse(stdout) as Told).mounts
  assert.ok(mount !== undefined)
  return mount
}

test('status tells what is open and what is not yet stored, in lines and as JSON', { skip }, async () => {
  const folder = join(scratch, 'mnt')
  await eider(['mount', data, folder, '--mkdir'], { env })
  try {
    assert.equal((await told(folder)).openFiles, 0)
    // Another process writes: what this one had open it would hold through its children, too.
    const writer = spawn('sh', ['-c', 'exec 9>"$0/being-written"; printf 12345 >&9; echo written; read line', folder], {
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    await once(writer.stdout, 'data')
    const { openFiles, dirtyFiles, dirtyBytes } = await told(folder)
    assert.deepEqual({ openFiles, dirtyFiles, dirtyBytes }, { openFiles: 1, dirtyFiles: 1, dirtyBytes: 5 })
    const { stdout } = await eider(['status'], { env })
    assert.match(stdout, new RegExp(`^${folder}  file://${data}$`, 'm'))
    assert.match(stdout, /^ {2}not stored +1 file, 5 B$/m)
    writer.stdin.end('\n')
    await once(writer, 'exit')
    assert.equal((await told(folder)).dirtyFiles, 0)
    assert.equal(readFileSync(join(data, 'being-written'), 'utf8'), '12345')
  } finally {
    await eider(['unmount', folder], { env })
  }
  const missing = await eider(['status', `--mount=${folder}`], { env })
  assert.equal(missing.code, 1)
  assert.match(missing.stderr, /^eider: Cannot show '.*mnt': no mount of Eider is there/)
})

test('a mount whose process was killed is shown as dead, with and without its record', { skip }, async () => {
  const folder = join(scratch, 'dead')
  await eider(['mount', data, folder, '--mkdir'], { env })
  const { pid } = await told(folder)
  process.kill(pid, 'SIGKILL')
  await gone(pid)
  for (const known of [true, false]) {
    const { code, stdout } = await eider(['status', `--mount=${folder}`], { env })
    assert.equal(code, 1)
    const who = known ? `its process \\(${pid}\\)` : 'its process'
    assert.match(
      stdout,
      new RegExp(`^${folder}  file://${data}\n  state +dead: ${who} is gone: mount it again, or "eider unmount" it\n`),
    )
    assert.match((await eider(['status'], { env })).stdout, new RegExp(`^${folder}  `, 'm'))
    const json = await eider(['status', '--json', `--mount=${folder}`], { env })
    assert.equal(json.code, 1)
    const { dead, mounts: living } = JSON.parse(json.stdout) as { dead: { pid?: number }[]; mounts: unknown[] }
    assert.deepEqual(living, [])
    assert.deepEqual(
      dead.map((each) => each.pid),
      [known ? pid : undefined],
    )
    removeMountRecord(folder, pid)
  }
  assert.equal((await eider(['unmount', folder], { env })).code, 0)
})

test('SIGUSR2 steps the log level of a running mount', { skip }, async () => {
  const folder = join(scratch, 'levels')
  const log = join(scratch, 'levels.log')
  await eider(['mount', data, folder, '--mkdir', `--log=${log}`], { env })
  const { pid } = await told(folder)
  const changes = (): number => readFileSync(log, 'utf8').split('log level changed by SIGUSR2').length - 1
  process.kill(pid, 'SIGUSR2')
  // The signal is taken before a request that comes after it is answered.
  await told(folder)
  assert.equal(changes(), 1)
  const [line = ''] = readFileSync(log, 'utf8').match(/^.*log level changed by SIGUSR2.*$/m) ?? []
  assert.match(line, /"logLevel":"debug"/)
  const names = Array.from(line.matchAll(/"(\w+)":/g), ([, name]) => name)
  assert.equal(new Set(names).size, names.length, `each key once: ${line}`)
  await eider(['unmount', folder], { env })
})

test('mount options become options of eider mount, and a misspelled one is an error', () => {
  const mountCommand = (argv: readonly string[]): readonly string[] => mountRequest(argv).words
  assert.deepEqual(mountCommand(['s3://b/p', '/mnt', '-o', 'ro,_netdev,nofail,validity=5s,part_bytes=8MiB']), [
    ...['mount', 's3://b/p', '/mnt', '--read-only', '--validity=5s', '--part-bytes=8MiB'],
  ])
  assert.deepEqual(
    mountCommand(['-s', '-v', 's3://b', '/mnt', '-t', 'eider', '-o', 'no-metadata,x-systemd.automount']),
    [...['mount', 's3://b', '/mnt', '--no-metadata']],
  )
  assert.deepEqual(mountCommand(['s3://b', '/mnt', '-o', 'staging=/a\\054b,region="eu,west"']), [
    ...['mount', 's3://b', '/mnt', '--staging=/a,b', '--region=eu,west'],
  ])
  assert.throws(
    () => mountCommand(['s3://b', '/mnt', '-o', 'validty=5s']),
    /"validty": there is none; did you mean validity\?/,
  )
  assert.throws(() => mountCommand(['s3://b']), /SOURCE DIR/)
})

test('mount -f asks for all but the mount, and no word in the places of others does', () => {
  assert.equal(mountRequest(['s3://b', '/mnt', '-sfv', '-o', 'ro']).fake, true)
  assert.equal(mountRequest(['s3://b', '/mnt', '-sv', '-o', 'staging=-f', '-t', '-f']).fake, false)
})

const isRoot = process.getuid?.() === 0
const skipFstab =
  skip !== false
    ? skip
    : !isRoot
      ? 'only root mounts through mount(8)'
      : existsSync(HELPER)
        ? `${HELPER} is there`
        : false

test('mount(8) mounts the type fuse.eider, with the options of fstab', { skip: skipFstab }, async () => {
  const folder = join(scratch, 'fstab')
  mkdirSync(folder)
  await writeFile(join(data, 'seen'), 'through mount(8)')
  symlinkSync(fileURLToPath(new URL('../bin/mount-eider.js', import.meta.url)), HELPER)
  try {
    assert.equal(await run('mount', ['-t', 'fuse.eider', data, folder, '-o', 'ro,nofail,validity=5s']), 0)
    const [mount] = mountsOf(folder)
    assert.equal(mount?.type, 'fuse.eider')
    assert.equal(readFileSync(join(folder, 'seen'), 'utf8'), 'through mount(8)')
    assert.equal(await run('touch', [join(folder, 'new')]), 1)
    assert.equal(await run('umount', [folder]), 0)
    const [comma, table] = [join(scratch, 'a,b'), join(scratch, 'table')]
    for (const [words, typed] of [
      [['-T', table, folder], 'a\\134054b'],
      [['-t', 'fuse.eider', data, folder, '-o'], 'a\\054b'],
    ] as const) {
      const options = `staging=${join(scratch, typed)}`
      writeFileSync(table, `${data} ${folder} fuse.eider noauto,${options} 0 0\n`)
      assert.equal(await run('mount', words.at(-1) === '-o' ? [...words, options] : words), 0)
      assert.ok(existsSync(comma), `${typed} means a comma`)
      const { pid } = await told(folder)
      assert.equal(await run('umount', [folder]), 0)
      await gone(pid)
      rmSync(comma, { recursive: true })
    }
    assert.notEqual(await run('mount', ['-t', 'fuse.eider', data, folder, '-o', 'validty=5s']), 0)
    const fake = ['-f', '-n', '-t', 'fuse.eider']
    assert.equal(await run('mount', [...fake, data, folder, '-o', 'validity=5s']), 0)
    assert.deepEqual(mountsOf(folder), [])
    assert.notEqual(await run('mount', [...fake, data, folder, '-o', 'validty=5s']), 0)
    assert.notEqual(await run('mount', [...fake, join(scratch, 'absent'), folder]), 0)
    assert.notEqual(await run('mount', [...fake, data, join(scratch, 'absent')]), 0)
    assert.equal(await run('mount', [...fake, data, join(scratch, 'absent'), '-o', 'mkdir']), 0)
    assert.ok(!existsSync(join(scratch, 'absent')))
    assert.deepEqual(mountsOf(folder), [])
  } finally {
    if (lstatSync(HELPER, { throwIfNoEntry: false })?.isSymbolicLink() === true) rmSync(HELPER)
  }
})

/** Its exit code. It has no terminal and none of this test's output. */
async function run(program: string, args: readonly string[]): Promise<number | null> {
  const child = spawn(program, args, { stdio: 'ignore', env: { ...process.env, ...env }, timeout: 30_000 })
  const [code] = (await once(child, 'exit')) as [number | null]
  return code
}
