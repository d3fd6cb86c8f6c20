import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, statSync, truncateSync, unlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { test } from 'node:test'

import type { Journal } from './journal.ts'
import { openLmdbJournal } from './lmdb-journal.ts'

const notRoot = process.getuid?.() === 0 ? false : 'only root makes a small disk'

class Place {
  readonly directory = mkdtempSync(join(tmpdir(), 'eider-journal-'))
  readonly file = join(this.directory, 'journal', 'data.lmdb')
  #isMounted = false

  mountSmall(bytes: string): void {
    const { status, stderr } = spawnSync(
      'mount',
      ['-t', 'tmpfs', '-o', `size=${bytes}`, 'eider-test', this.directory],
      {
        encoding: 'utf8',
      },
    )
    assert.equal(status, 0, stderr)
    this.#isMounted = true
  }

  [Symbol.dispose](): void {
    if (this.#isMounted) assert.equal(spawnSync('umount', ['--lazy', this.directory]).status, 0)
    rmSync(this.directory, { recursive: true })
  }
}

/** Entry n of any journal of these tests: its length and bytes follow from its number. */
function entry(number: number): Buffer {
  return Buffer.alloc((number * 7919) % 700, `${number},`)
}

/** How many entries the group has that begins with entry `at`. */
function countAt(at: number): number {
  return 1 + (at % 5)
}

function groupAt(at: number): Buffer[] {
  return Array.from({ length: countAt(at) }, (_, index) => entry(at + index))
}

async function appendUntil(journal: Journal, last: number): Promise<void> {
  while (journal.last < last) await journal.append(journal.last + 1, groupAt(journal.last + 1))
}

/** Reads all, and finds each entry as it should be. */
async function check(journal: Journal, from = journal.first): Promise<void> {
  let next = from
  await journal.read(from, (number, bytes) => {
    assert.equal(number, next++)
    assert.ok(bytes.equals(entry(number)), `entry ${number}`)
  })
  assert.equal(next, journal.last + 1)
}

test('entries are read in order, from any of them on, also by the next start', async () => {
  using place = new Place()
  const journal = await openLmdbJournal(place.directory)
  assert.deepEqual([journal.first, journal.last], [1, 0])
  await check(journal)
  await appendUntil(journal, 60)
  const { last } = journal
  for (const from of [1, 2, 17, last, last + 1]) await check(journal, from)
  await journal.close()
  const again = await openLmdbJournal(place.directory)
  assert.deepEqual([again.first, again.last], [1, last])
  await check(again)
  const large = Buffer.alloc(5 << 20, 'large')
  await again.append(last + 1, [large, Buffer.alloc(0), large])
  await again.read(last + 1, (number, bytes) => assert.equal(bytes.length, number === last + 2 ? 0 : large.length))
  await again.close()
})

test('whole groups are let go of, while others are appended, and numbers go on', async () => {
  using place = new Place()
  const journal = await openLmdbJournal(place.directory)
  await appendUntil(journal, 2000)
  const appending = appendUntil(journal, 2100)
  await journal.trim(1500)
  await appending
  assert.ok(journal.first <= 1501 && journal.first > 1490, String(journal.first))
  await check(journal)
  await assert.rejects(
    journal.read(1, () => undefined),
    { code: 'JOURNAL_CORRUPT', message: /entry 1 is gone/ },
  )
  await journal.trim(journal.last)
  const { first, last } = journal
  assert.equal(first + countAt(first) - 1, last, 'the last group stays')
  await journal.close()
  const again = await openLmdbJournal(place.directory)
  assert.deepEqual([again.first, again.last], [first, last])
  await appendUntil(again, last + 10)
  await check(again)
  await again.close()
})

test('room of what was let go of is used again', async () => {
  using place = new Place()
  const journal = await openLmdbJournal(place.directory)
  const group = Array.from({ length: 8 }, () => Buffer.alloc(4096))
  for (let count = 0; count < 400; count++) {
    await journal.append(journal.last + 1, group)
    if (count % 20 === 19) await journal.trim(journal.last)
  }
  await journal.close()
  assert.ok(statSync(place.file).size < 4 << 20, `${statSync(place.file).size} bytes for 13 MB that went through`)
})

test('one process has it at a time, however the files in it are treated', async () => {
  using place = new Place()
  const journal = await openLmdbJournal(place.directory)
  unlinkSync(`${place.file}-lock`)
  const busy = { code: 'JOURNAL_FAILED', message: /process \d+ uses it/ }
  await assert.rejects(openLmdbJournal(place.directory), busy)
  const program = `
    import { openLmdbJournal } from ${JSON.stringify(new URL('lmdb-journal.ts', import.meta.url).href)}
    await openLmdbJournal(process.argv[1]).catch((error) => console.log(error.code, error.message))`
  const other = spawnSync(process.execPath, ['--input-type=module-typescript', '-e', program, place.directory], {
    encoding: 'utf8',
    cwd: import.meta.dirname,
    timeout: 30_000,
  })
  assert.match(other.stdout, new RegExp(`^JOURNAL_FAILED .*process ${process.pid} uses it`), other.stderr)
  await journal.close()
  await assert.rejects(journal.append(1, groupAt(1)), { code: 'JOURNAL_FAILED' })
  await (await openLmdbJournal(place.directory)).close()
})

test('damage is told, and nothing is thrown away', async () => {
  using place = new Place()
  const journal = await openLmdbJournal(place.directory)
  for (let count = 0; count < 8; count++) {
    await journal.append(journal.last + 1, [Buffer.alloc(9000, `group ${journal.last + 1};`)])
  }
  await journal.close()
  const sound = readFileSync(place.file)
  const open = async (): Promise<string> => {
    try {
      await using opened = await reading(place.directory)
      await opened.journal.read(1, () => undefined)
      return 'read'
    } catch (error) {
      const { code, message } = error as { code: string; message: string }
      return `${code} ${message}`
    }
  }

  const flipped = Buffer.from(sound)
  const at = flipped.indexOf('group 3;group 3;')
  flipped.writeUInt8(flipped.readUInt8(at) ^ 1, at)
  writeFileSync(place.file, flipped)
  assert.match(await open(), /^JOURNAL_CORRUPT .*the group from entry 3 on is damaged/)
  assert.ok(readFileSync(place.file).equals(flipped))

  const headless = Buffer.from(sound)
  headless.fill(0, 0, 8192)
  for (const other of [headless, Buffer.from('eider'), Buffer.alloc(100_000, 'eider')]) {
    writeFileSync(place.file, other)
    assert.match(await open(), /^JOURNAL_CORRUPT .*does not begin as one does/)
    assert.ok(readFileSync(place.file).equals(other))
  }

  for (let bytes = sound.length - 4096; bytes >= 8192; bytes -= 4096) {
    writeFileSync(place.file, sound)
    truncateSync(place.file, bytes)
    const found = await open()
    assert.match(found, /^read$|^JOURNAL_/, `cut to ${bytes}`)
    if (bytes < 9000 * 7) assert.match(found, /^JOURNAL_CORRUPT/, `cut to ${bytes}`)
  }

  writeFileSync(place.file, sound)
  assert.equal(await open(), 'read')
})

async function reading(directory: string): Promise<{ journal: Journal } & AsyncDisposable> {
  const journal = await openLmdbJournal(directory)
  return { journal, [Symbol.asyncDispose]: () => journal.close() }
}

test('after SIGKILL at any moment all is there that was acknowledged, in whole groups', async () => {
  using place = new Place()
  const program = `
    import { openLmdbJournal } from ${JSON.stringify(new URL('lmdb-journal.ts', import.meta.url).href)}
    const journal = await openLmdbJournal(process.argv[1])
    const entry = ${entry.toString()}
    for (;;) {
      const at = journal.last + 1
      await journal.append(at, Array.from({ length: 1 + (at % 5) }, (_, index) => entry(at + index)))
      process.stdout.write(journal.last + '\\n')
      if (at % 50 === 0) await journal.trim(journal.last - 100 < 0 ? 0 : journal.last - 100)
    }`
  let acknowledged = 0
  for (let round = 0; round < 8; round++) {
    const child = spawn(process.execPath, ['--input-type=module-typescript', '-e', program, place.directory], {
      stdio: ['ignore', 'pipe', 'inherit'],
      cwd: import.meta.dirname,
    })
    const until = acknowledged + 40 + round * 60
    for await (const line of createInterface(child.stdout)) {
      acknowledged = Number(line)
      if (acknowledged > until) child.kill('SIGKILL')
    }
    if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
    assert.ok(acknowledged > until)
    await using opened = await reading(place.directory)
    const { journal } = opened
    assert.ok(journal.last >= acknowledged, `${journal.last} of ${acknowledged}`)
    await check(journal)
    let at = journal.first
    while (at <= journal.last) at += countAt(at)
    assert.equal(at, journal.last + 1, 'the last group is whole')
  }
})

test(
  'a full disk ends appending, loses nothing, and is gone on from when there is room',
  { skip: notRoot },
  async () => {
    using place = new Place()
    place.mountSmall('2m')
    const journal = await openLmdbJournal(place.directory)
    const failed = { code: 'JOURNAL_FAILED', message: /^Cannot write the journal: .*, with \d+ bytes free/ }
    await assert.rejects(appendUntil(journal, 1e6), failed)
    const { last } = journal
    assert.ok(last > 1000)
    await assert.rejects(journal.append(last + 1, groupAt(last + 1)), failed, 'a machine is to stop')
    await journal.close()
    const again = await openLmdbJournal(place.directory)
    assert.ok(again.last === last, `${again.last} of ${last}`)
    await check(again)
    assert.equal(spawnSync('mount', ['-o', 'remount,size=8m', place.directory]).status, 0)
    await appendUntil(again, last + 100)
    await again.trim(last)
    await check(again)
    await again.close()
  },
)
