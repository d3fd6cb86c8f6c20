/** What becomes of what was acknowledged before the store has it: refusals, others' changes, writers that go on, full disks. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { constants, readFileSync, renameSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { setImmediate } from 'node:timers/promises'

import { OperationError } from '#base/errors.ts'
import { setLogLevel } from '#base/log.ts'
import { ANY } from '#store/store.ts'

import { codeOf, content, Gate, O_RDWR } from './kernel-double.ts'
import { Journal } from './journal.ts'
import { StagedFile } from './staged-file.ts'
import { Machine, settled } from './write-back-double.ts'

setLogLevel('silent')

test('[S98] [S117] a put that waited for the one before it stores what was closed of a file that is being written by then', async () => {
  await using it = await new Machine().boot()
  it.endpoint.mode = 'up'
  const gate = new Gate()
  it.endpoint.gate = gate
  await it.write('f', 'first')
  await gate.reached
  await it.write('f', 'second')
  const third = await it.kernel.open('f', O_RDWR | constants.O_TRUNC)
  it.endpoint.gate = undefined
  gate.open()
  await settled(() => it.journal.length === 0)
  assert.equal(it.endpoint.puts, 2)
  for (let turns = 0; turns < 200; turns++) await setImmediate()
  assert.equal(await content(it.endpoint.inner, 'f'), 'second')
  await it.kernel.write(third, 0, 'third')
  await it.kernel.close(third)
  await it.stored()
  assert.equal(await content(it.endpoint.inner, 'f'), 'third')
  assert.deepEqual(it.kept, [])
})

test('[S99] what the store refuses for good is kept, and told of', async () => {
  await using it = await new Machine().boot()
  it.endpoint.mode = 'up'
  it.endpoint.refusal = 'STORE_FILE_TOO_LARGE'
  await it.write('f', 'bytes')
  await settled(() => it.fs.status.dirtyFiles === 0)
  assert.deepEqual(it.kept, ['bytes'])
  assert.deepEqual(it.journal, [])
})

test('[S118] what the store refuses for another reason than the file itself stays acknowledged, is told of and tried again', async () => {
  const refusals = ['STORE_DENIED', 'CREDENTIALS_REFUSED', 'CLOCK_SKEWED', 'STORE_NO_SPACE', 'STORE_PROTOCOL'] as const
  for (const refusal of refusals) {
    await using it = await new Machine().boot()
    it.endpoint.mode = 'up'
    it.endpoint.refusal = refusal
    await it.write('f', 'bytes')
    await settled(() => it.fs.status.failing !== undefined)
    assert.deepEqual(it.fs.status.failing, { files: 1, error: 'Cannot put: refused' })
    assert.equal(it.journal.length, 2)
    assert.deepEqual(it.kept, [])
    assert.equal(String(await it.kernel.readFile('f')), 'bytes')
    await it.crash()
    await it.boot()
    await settled(() => it.fs.status.failing !== undefined)
    it.endpoint.refusal = undefined
    await it.stored()
    assert.equal(it.fs.status.failing, undefined)
    assert.equal(await content(it.endpoint.inner, 'f'), 'bytes')
    assert.deepEqual(it.kept, [], refusal)
  }
})

test('[S99] [S118] what the store still refuses at the end of the mount is kept', async () => {
  await using it = await new Machine().boot()
  it.endpoint.mode = 'up'
  it.endpoint.refusal = 'STORE_DENIED'
  await it.write('f', 'bytes')
  await it.fs.publishAll()
  assert.deepEqual(await it.fs.keepUnpublished(), [])
  assert.deepEqual(it.kept, ['bytes'])
  assert.deepEqual(it.journal, [])
})

for (const onConflict of ['last-writer', 'keep-both'] as const) {
  test(`[S115] ${onConflict}: what others have stored before an acknowledged file is dealt with at once`, async () => {
    await using it = await new Machine({ onConflict }).boot()
    it.endpoint.mode = 'up'
    await it.write('f', 'base')
    await settled(() => it.fs.status.dirtyFiles === 0)
    const file = await it.kernel.open('f', O_RDWR)
    await it.kernel.write(file, 0, 'ours')
    await it.endpoint.inner.put('f', Buffer.from('theirs'), { guard: ANY })
    await it.kernel.close(file)
    await settled(() => it.fs.status.dirtyFiles === 0 && it.journal.length === 0)
    const stored = (await Array.fromAsync(it.endpoint.inner.list(''))).flat().map(({ path }) => path)
    const contents = await Promise.all(stored.map((path) => content(it.endpoint.inner, path)))
    assert.deepEqual(contents.sort(), onConflict === 'last-writer' ? ['ours'] : ['ours', 'theirs'])
    // Whatever comes later is not gone over.
    await it.endpoint.inner.put('f', Buffer.from('newer'), { guard: ANY })
    await it.fs.publishAll()
    assert.equal(await content(it.endpoint.inner, 'f'), 'newer')
    assert.deepEqual(it.kept, [])
  })

  test(`[S115] ${onConflict}: what is acknowledged and written again since is stored as it was acknowledged`, async () => {
    await using it = await new Machine({ onConflict }).boot({ starts: false })
    it.endpoint.mode = 'up'
    await it.endpoint.inner.put('f', Buffer.from('base'), { guard: ANY })
    const file = await it.kernel.open('f', O_RDWR)
    await it.kernel.write(file, 0, 'ours')
    await it.endpoint.inner.put('f', Buffer.from('theirs'), { guard: ANY })
    await it.kernel.fsync(file)
    await it.kernel.write(file, 0, 'half')
    it.fs.start()
    await settled(() => it.journal.length === 0)
    const stored = async (): Promise<string[]> => {
      const entries = (await Array.fromAsync(it.endpoint.inner.list(''))).flat()
      return (await Promise.all(entries.map(({ path }) => content(it.endpoint.inner, path)))).sort()
    }
    assert.deepEqual(await stored(), onConflict === 'last-writer' ? ['ours'] : ['ours', 'theirs'])
    await it.kernel.write(file, 4, ' whole')
    await it.kernel.close(file)
    await it.stored()
    assert.deepEqual(await stored(), onConflict === 'last-writer' ? ['half whole'] : ['half whole', 'theirs'])
    assert.deepEqual(it.kept, [])
  })
}

test('[S115] fail: both what was acknowledged and what was written since are kept', async () => {
  await using it = await new Machine().boot({ starts: false })
  it.endpoint.mode = 'up'
  const file = await it.kernel.create('f')
  await it.kernel.write(file, 0, 'acknowledged')
  await it.endpoint.inner.put('f', Buffer.from('theirs'), { guard: ANY })
  await it.kernel.fsync(file)
  await it.kernel.setattr('f', { size: 0 })
  await it.kernel.write(file, 0, 'later')
  it.fs.start()
  await settled(() => it.fs.status.dirtyFiles === 0)
  assert.equal(await content(it.endpoint.inner, 'f'), 'theirs')
  assert.deepEqual(it.kept.sort(), ['acknowledged', 'later'])
  assert.deepEqual(it.journal, [])
})

for (const onConflict of ['last-writer', 'fail'] as const) {
  test(`[S116] ${onConflict}: what others put on top of what was stored stays after a crash`, async () => {
    await using it = await new Machine({ onConflict }).boot()
    it.endpoint.mode = 'up'
    await it.write('f', 'base')
    await settled(() => it.fs.status.dirtyFiles === 0)
    const file = await it.kernel.open('f', O_RDWR)
    await it.kernel.write(file, 0, 'line one')
    const gate = new Gate()
    it.endpoint.gate = gate
    await it.kernel.fsync(file)
    await gate.reached
    await it.kernel.write(file, 8, ', not synced')
    it.endpoint.gate = undefined
    gate.open()
    await settled(() => it.journal.length === 0)
    assert.equal(it.fs.status.dirtyFiles, 1)
    await it.endpoint.inner.put('f', Buffer.from('line one, and theirs'), { guard: ANY })
    await it.crash()
    await it.boot()
    await it.stored()
    assert.equal(await content(it.endpoint.inner, 'f'), 'line one, and theirs')
    assert.deepEqual(it.kept, [])
  })
}

test('[S116] a close during the put of the one before it is over what that put stored', async () => {
  await using it = await new Machine().boot()
  it.endpoint.mode = 'up'
  const gate = new Gate()
  it.endpoint.gate = gate
  const file = await it.kernel.create('f')
  await it.kernel.write(file, 0, 'first')
  await it.kernel.fsync(file)
  await gate.reached
  await it.kernel.write(file, 0, 'later')
  await it.kernel.fsync(file)
  const second = new Gate()
  it.endpoint.gate = second
  gate.open()
  await second.reached
  const { version } = await it.endpoint.inner.stat('f')
  const [record = ''] = it.journal.filter((name) => name.endsWith('.json'))
  const told: unknown = JSON.parse(readFileSync(join(it.staging, 'journal', record), 'utf8'))
  assert.ok(typeof told === 'object' && told !== null && 'version' in told)
  assert.equal(told.version, version)
  await it.crash()
  it.endpoint.gate = undefined
  second.open()
  await it.boot()
  await it.stored()
  assert.equal(await content(it.endpoint.inner, 'f'), 'later')
  assert.deepEqual(it.kept, [])
})

test('[S117] what was synced of a file that its writer goes on with is stored while it is open', async () => {
  await using it = await new Machine().boot({ starts: false })
  it.endpoint.mode = 'up'
  const file = await it.kernel.create('log')
  await it.kernel.write(file, 0, 'committed')
  await it.kernel.fsync(file)
  await it.kernel.write(file, 9, ' and half a li')
  it.fs.start()
  await settled(() => it.journal.length === 0)
  assert.equal(await content(it.endpoint.inner, 'log'), 'committed')
  assert.equal((await it.kernel.read(file, 0, 100)).toString(), 'committed and half a li')
  await it.kernel.write(file, 23, 'ne')
  await it.kernel.close(file)
  await it.stored()
  assert.equal(await content(it.endpoint.inner, 'log'), 'committed and half a line')
  assert.deepEqual(it.kept, [])
})

test(
  '[S117] what was synced before a write that found no room is stored after the last close',
  { skip: process.getuid?.() === 0 ? false : 'only root makes a small disk' },
  async () => {
    await using it = new Machine()
    const { status, stderr } = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=4m', 'eider-test', it.staging])
    assert.equal(status, 0, String(stderr))
    try {
      await it.boot({ starts: false })
      it.endpoint.mode = 'up'
      const file = await it.kernel.create('f')
      await it.kernel.write(file, 0, 'synced')
      await it.kernel.fsync(file)
      it.endpoint.mode = 'down'
      await it.kernel.write(file, 0, 'WRITTEN SINCE')
      const filler = Buffer.alloc(1 << 20, 'x')
      for (let failed = false, at = 13; !failed;) {
        await it.kernel.write(file, at, filler).then(
          (written) => (at += written),
          () => (failed = true),
        )
      }
      assert.equal(await codeOf(it.kernel.close(file)), 'STAGING_NO_SPACE')
      assert.equal(String(await it.kernel.readFile('f')), 'synced')
      it.fs.start()
      await it.stored()
      assert.equal(await content(it.endpoint.inner, 'f'), 'synced')
      assert.deepEqual(it.kept, [])
    } finally {
      await it.crash()
      spawnSync('umount', ['-l', it.staging])
    }
  },
)

test('[S119] pending files leave descriptors for everything else', () => {
  const script = `
    import { openMemoryStore } from '#store/memory-store.ts'
    import { setLogLevel } from '#base/log.ts'
    import { codeOf, replacing, rig } from '#mount/kernel-double.ts'
    import { OperationError } from '#base/errors.ts'
    setLogLevel('silent')
    const down = async () => { throw new OperationError('STORE_UNAVAILABLE', 'Cannot reach it') }
    await using it = await rig(replacing(openMemoryStore(), { put: down }), { writeBack: true })
    let answered = 0
    let code
    while (code === undefined) {
      const file = await it.kernel.create('f' + answered)
      await it.kernel.write(file, 0, 'x')
      code = await it.kernel.close(file).then(() => undefined, (error) => error.code)
      if (code === undefined) answered++
    }
    console.log(JSON.stringify([answered, code]))
    process.exit()`
  const limited = 'ulimit -n 256 && exec "$0" --input-type=module-typescript -e "$1"'
  const { stdout, stderr } = spawnSync('bash', ['-c', limited, process.execPath, script], { timeout: 60_000 })
  assert.equal(String(stdout).trim(), '[64,"STORE_UNAVAILABLE"]', String(stderr))
})

test('[S119] a rename has succeeded once the name has moved, whether it can be journaled or not', async (t) => {
  await using it = await new Machine().boot({ starts: false })
  it.endpoint.mode = 'up'
  await it.write('a', 'bytes')
  const failing = t.mock.method(Journal.prototype, 'write', async () => {
    throw new OperationError('STAGING_NO_SPACE', 'Cannot journal: no space is left')
  })
  await it.kernel.rename('a', 'b')
  assert.equal(failing.mock.callCount(), 1)
  failing.mock.restore()
  assert.deepEqual(await it.kernel.names(''), ['b'])
  it.fs.start()
  await settled(() => it.fs.status.dirtyFiles === 0)
  assert.equal(await content(it.endpoint.inner, 'b'), 'bytes')
  assert.deepEqual(it.journal, [])
})

test('[S119] where the staging disk tells nothing of its room a close waits for the store', async () => {
  await using it = await new Machine().boot({ starts: false })
  it.endpoint.mode = 'up'
  const file = await it.kernel.create('f')
  await it.kernel.write(file, 0, 'bytes')
  renameSync(it.staging, `${it.staging}.away`)
  try {
    await it.kernel.close(file)
  } finally {
    renameSync(`${it.staging}.away`, it.staging)
  }
  assert.equal(await content(it.endpoint.inner, 'f'), 'bytes')
  assert.equal(it.fs.status.dirtyFiles, 0)
})

test('[S117] what is written in place waits for its next close, and is stored as it is where that has no room', async (t) => {
  const base = 'b'.repeat(100_000)
  const edited = (text: string): string => base.slice(0, 50_000) + text + base.slice(50_000 + text.length)
  for (const isFull of [false, true]) {
    await using it = await new Machine({ wholeBytesMax: 1000 }).boot({ starts: false })
    it.endpoint.mode = 'up'
    await it.endpoint.inner.put('f', Buffer.from(base), { guard: ANY })
    const file = await it.kernel.open('f', O_RDWR)
    await it.kernel.write(file, 50_000, 'edit')
    await it.kernel.fsync(file)
    await it.kernel.write(file, 50_000, 'LATER')
    it.fs.start()
    for (let turns = 0; turns < 200; turns++) await setImmediate()
    assert.equal(await content(it.endpoint.inner, 'f'), base)
    assert.equal(it.journal.length, 2)
    if (isFull) {
      const writing = t.mock.method(StagedFile.prototype, 'write', () => {
        throw new OperationError('STAGING_NO_SPACE', 'Cannot write: no space is left')
      })
      assert.equal(await codeOf(it.kernel.write(file, 60_000, 'MORE')), 'STAGING_NO_SPACE')
      writing.mock.restore()
      assert.equal(await codeOf(it.kernel.close(file)), 'STAGING_NO_SPACE')
    } else {
      await it.kernel.close(file)
    }
    await settled(() => it.fs.status.dirtyFiles === 0 && it.journal.length === 0)
    assert.equal(await content(it.endpoint.inner, 'f'), edited('LATER'))
    assert.deepEqual(it.kept, [])
  }
})
