import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync, renameSync, statSync, unlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { test } from 'node:test'

import fc from 'fast-check'

import type { Journal } from './journal.ts'
import { openFileJournal } from './file-journal.ts'
import { notRoot, Place } from './place-fixture.ts'

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
  const journal = await openFileJournal(place.directory)
  assert.deepEqual([journal.first, journal.last], [1, 0])
  await check(journal)
  await appendUntil(journal, 60)
  const { last } = journal
  for (const from of [1, 2, 17, last, last + 1]) await check(journal, from)
  await journal.close()
  const again = await openFileJournal(place.directory)
  assert.deepEqual([again.first, again.last], [1, last])
  await check(again)
  const large = Buffer.alloc(5 << 20, 'large')
  await again.append(last + 1, [large, Buffer.alloc(0), large])
  await again.read(last + 1, (number, bytes) => assert.equal(bytes.length, number === last + 2 ? 0 : large.length))
  await again.close()
})

/** Small ones, so that a test sees many. */
const SMALL = { segmentBytes: 16 << 10 }

function segmentsIn(place: Place): string[] {
  return readdirSync(place.journal).filter((name) => name.endsWith('.segment'))
}

test('whole segments are let go of, while others are appended, and numbers go on', async () => {
  using place = new Place()
  const journal = await openFileJournal(place.directory, SMALL)
  await appendUntil(journal, 2000)
  assert.ok(segmentsIn(place).length > 40)
  const appending = appendUntil(journal, 2100)
  await journal.trim(1500)
  await appending
  assert.ok(journal.first <= 1501 && journal.first > 1400, String(journal.first))
  await check(journal)
  await assert.rejects(
    journal.read(1, () => undefined),
    { code: 'JOURNAL_CORRUPT', message: /entry 1 is gone/ },
  )
  await journal.trim(journal.last)
  const { first, last } = journal
  assert.equal(segmentsIn(place).length, 1)
  await journal.close()
  const again = await openFileJournal(place.directory, SMALL)
  assert.deepEqual([again.first, again.last], [first, last])
  await appendUntil(again, last + 500)
  await check(again)
  await again.close()
})

test('files of what was let go of are used again', async () => {
  using place = new Place()
  const journal = await openFileJournal(place.directory, SMALL)
  const group = Array.from({ length: 8 }, () => Buffer.alloc(1000))
  const inodes = new Set<number>()
  let known = 0
  for (let count = 0; count < 400; count++) {
    await journal.append(journal.last + 1, group)
    for (const name of segmentsIn(place)) inodes.add(statSync(join(place.journal, name)).ino)
    if (count % 3 === 2) await journal.trim(journal.last)
    if (count === 40) known = inodes.size
  }
  await journal.close()
  assert.equal(inodes.size, known, '3.2 MB went through the same files')
  for (const name of readdirSync(place.journal)) assert.equal(statSync(join(place.journal, name)).size, 16 << 10)
})

test('[S170] what is let go of before the first append of a start is used again for this start', async () => {
  using place = new Place()
  let lineages: readonly Buffer[] = []
  const state = {
    get lineages() {
      return lineages
    },
    setLineages: async (all: readonly Buffer[]) => {
      lineages = all
    },
  }
  const open = (): Promise<Journal> => openFileJournal(place.directory, { ...SMALL, state })
  for (let start = 1; start <= 3; start++) {
    const journal = await open()
    // As where the state is stored by what the process before has left.
    await journal.trim(journal.last)
    await appendUntil(journal, start === 1 ? 200 : journal.last + 5)
    await check(journal)
    await journal.close()
    assert.equal(lineages.length, 1)
  }
  // One that has written nothing has changed nothing, and what another state knows is none of it.
  const [known] = lineages
  await (await open()).close()
  assert.deepEqual(lineages, [known])
  lineages = [Buffer.alloc(16, 7)]
  await assert.rejects(open(), { code: 'JOURNAL_CORRUPT', message: /it is that of another state/ })
})

test('a group of many segments is appended and let go of', async () => {
  using place = new Place()
  const journal = await openFileJournal(place.directory, SMALL)
  await appendUntil(journal, 100)
  const { last } = journal
  const large = Buffer.alloc(100 << 10, 'large')
  await journal.append(last + 1, [large, large])
  await appendUntil(journal, last + 200)
  await journal.read(last + 1, (number, bytes) => {
    if (number < last + 3) assert.ok(bytes.equals(large))
  })
  await journal.trim(journal.last)
  await journal.close()
  for (const name of readdirSync(place.journal)) assert.equal(statSync(join(place.journal, name)).size, 16 << 10)
})

test('each group is one write that asks for nothing but its own bytes', async () => {
  using place = new Place()
  const journal = await openFileJournal(place.directory)
  const file = join(place.journal, segmentsIn(place)[0] ?? '')
  const before = statSync(file)
  await appendUntil(journal, 3000)
  const after = statSync(file)
  assert.deepEqual([after.size, after.blocks], [before.size, before.blocks], 'its room was there before')
  assert.equal(segmentsIn(place).length, 1)
  await journal.close()
})

test('one process has it at a time, however the files in it are treated', async () => {
  using place = new Place()
  const journal = await openFileJournal(place.directory)
  for (const name of readdirSync(place.journal)) renameSync(join(place.journal, name), join(place.directory, name))
  const busy = { code: 'JOURNAL_FAILED', message: /process \d+ uses it/ }
  await assert.rejects(openFileJournal(place.directory), busy)
  const program = `
    import { openFileJournal } from ${JSON.stringify(new URL('file-journal.ts', import.meta.url).href)}
    await openFileJournal(process.argv[1]).catch((error) => console.log(error.code, error.message))`
  const other = spawnSync(process.execPath, ['--input-type=module-typescript', '-e', program, place.directory], {
    encoding: 'utf8',
    cwd: import.meta.dirname,
    timeout: 30_000,
  })
  assert.match(other.stdout, new RegExp(`^JOURNAL_FAILED .*process ${process.pid} uses it`), other.stderr)
  await journal.close()
  await assert.rejects(journal.append(1, groupAt(1)), { code: 'JOURNAL_FAILED' })
  await (await openFileJournal(place.directory)).close()
})

test('damage is told, and nothing is thrown away', async () => {
  using place = new Place()
  const journal = await openFileJournal(place.directory)
  for (let count = 0; count < 8; count++) {
    await journal.append(journal.last + 1, [Buffer.alloc(9000, `group ${journal.last + 1};`)])
  }
  await journal.close()
  const file = join(place.journal, segmentsIn(place)[0] ?? '')
  const sound = readFileSync(file)
  const open = async (): Promise<string> => {
    try {
      await using opened = await reading(place.directory)
      await opened.journal.read(1, () => undefined)
      return `read ${opened.journal.last}`
    } catch (error) {
      const { code, message } = error as { code: string; message: string }
      return `${code} ${message}`
    }
  }
  const groupPlace = (number: number): number => sound.indexOf(`group ${number};group ${number};`)

  // In its bytes, in its head, and the whole of it.
  for (const [from, to] of [
    [groupPlace(3), groupPlace(3) + 1],
    [groupPlace(3) - 28, groupPlace(3) - 27],
    [groupPlace(3) - 28, groupPlace(3) + 9000],
  ] as const) {
    const flipped = Buffer.from(sound)
    for (let at = from; at < to; at++) flipped.writeUInt8(flipped.readUInt8(at) ^ 1, at)
    writeFileSync(file, flipped)
    assert.match(await open(), /^JOURNAL_CORRUPT .*the group from entry 3 on is damaged/)
    assert.ok(readFileSync(file).equals(flipped))
  }

  const headless = Buffer.from(sound)
  headless.writeUInt8(headless.readUInt8(20) ^ 1, 20)
  for (const other of [headless, Buffer.from('eider'), Buffer.alloc(100_000, 'eider'), Buffer.alloc(0)]) {
    writeFileSync(file, other)
    assert.match(await open(), /^JOURNAL_CORRUPT .*does not begin as a segment does/)
    assert.ok(readFileSync(file).equals(other))
  }

  // What was being written at the end is there in part, or not at all, and nobody was told of it.
  for (let bytes = groupPlace(8) + 8999; bytes > groupPlace(8) - 32; bytes -= 997) {
    writeFileSync(file, Buffer.concat([sound.subarray(0, bytes), Buffer.alloc(sound.length - bytes)]))
    assert.equal(await open(), 'read 7', `zeros from ${bytes} on`)
    writeFileSync(file, sound.subarray(0, bytes))
    assert.equal(await open(), 'read 7', `cut to ${bytes}`)
  }

  writeFileSync(file, sound)
  assert.equal(await open(), 'read 8')
})

test('of a group whose sectors came to the disk in any order, some of them not, all is there or nothing', async () => {
  using place = new Place()
  const journal = await openFileJournal(place.directory)
  const file = join(place.journal, segmentsIn(place)[0] ?? '')
  await appendUntil(journal, 30)
  const { last } = journal
  const before = readFileSync(file)
  await journal.append(last + 1, [entry(last + 1), Buffer.alloc(5000, 'large'), entry(last + 3)])
  const after = readFileSync(file)
  await journal.close()
  const from = before.findIndex((byte, at) => byte !== after[at])
  const sectors: number[] = []
  for (let at = from - (from % 512); at < from + 8192; at += 512) {
    if (!before.subarray(at, at + 512).equals(after.subarray(at, at + 512))) sectors.push(at)
  }
  assert.ok(sectors.length > 10)
  await fc.assert(
    fc.asyncProperty(fc.subarray(sectors), async (written) => {
      const found = Buffer.from(before)
      for (const at of written) after.copy(found, at, at, at + 512)
      writeFileSync(file, found)
      await using opened = await reading(place.directory)
      assert.equal(opened.journal.last, written.length === sectors.length ? last + 3 : last)
      // What is appended now is read by the next start, whatever lies behind it.
      const number = opened.journal.last + 1
      await opened.journal.append(number, [Buffer.from('next')])
      await using again = await reopened(opened.journal, place.directory)
      assert.equal(again.journal.last, number)
    }),
    { seed: 168, numRuns: 200, examples: [[[]], [sectors], [sectors.slice(1)], [sectors.slice(0, -1)]] },
  )
})

async function reopened(journal: Journal, directory: string): Promise<{ journal: Journal } & AsyncDisposable> {
  await journal.close()
  return reading(directory)
}

test('a segment that is missing, or is damaged at its end, is told of by what comes after it', async () => {
  using place = new Place()
  const journal = await openFileJournal(place.directory, SMALL)
  await appendUntil(journal, 300)
  await journal.close()
  const names = segmentsIn(place).toSorted()
  const second = join(place.journal, names[1] ?? '')
  const third = Number((names[2] ?? '').slice(0, 16))
  const sound = readFileSync(second)

  // Its last group.
  const flipped = Buffer.from(sound)
  const salt = sound.subarray(16, 24)
  const lastAt = sound.lastIndexOf(salt)
  flipped.writeUInt8(flipped.readUInt8(lastAt + 40) ^ 1, lastAt + 40)
  writeFileSync(second, flipped)
  {
    await using opened = await reading(place.directory)
    await assert.rejects(check(opened.journal), { code: 'JOURNAL_CORRUPT', message: /the group from entry \d+ on is/ })
    // What it does not have is not looked at.
    await check(opened.journal, third)
  }
  unlinkSync(second)
  {
    await using opened = await reading(place.directory)
    await assert.rejects(check(opened.journal), { code: 'JOURNAL_CORRUPT', message: /the group from entry \d+ on is/ })
  }
  writeFileSync(second, sound)
  await using opened = await reading(place.directory)
  await check(opened.journal)
})

test('old groups behind the end of a segment that is used again are none of it', async () => {
  using place = new Place()
  const journal = await openFileJournal(place.directory, SMALL)
  for (let round = 1; round <= 20; round++) {
    await appendUntil(journal, round * 50)
    await journal.trim(journal.last)
  }
  const { first, last } = journal
  await journal.close()
  const bytes = readFileSync(join(place.journal, segmentsIn(place)[0] ?? ''))
  assert.ok(
    bytes.subarray(-2000).some((byte) => byte !== 0),
    'it was used before',
  )
  await using opened = await reading(place.directory)
  assert.deepEqual([opened.journal.first, opened.journal.last], [first, last])
  await check(opened.journal)
})

async function reading(directory: string): Promise<{ journal: Journal } & AsyncDisposable> {
  const journal = await openFileJournal(directory, SMALL)
  return { journal, [Symbol.asyncDispose]: () => journal.close() }
}

test('after SIGKILL at any moment all is there that was acknowledged, in whole groups', async () => {
  using place = new Place()
  const program = `
    import { openFileJournal } from ${JSON.stringify(new URL('file-journal.ts', import.meta.url).href)}
    const journal = await openFileJournal(process.argv[1], { segmentBytes: 65536 })
    const entry = ${entry.toString()}
    for (;;) {
      const at = journal.last + 1
      await journal.append(at, Array.from({ length: 1 + (at % 5) }, (_, index) => entry(at + index)))
      process.stdout.write(journal.last + '\\n')
      if (at % 50 === 0) await journal.trim(Math.max(0, journal.last - 100))
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
    const journal = await openFileJournal(place.directory, SMALL)
    const failed = { code: 'JOURNAL_FAILED', message: /^Cannot write the journal: .*, with \d+ bytes free/ }
    await assert.rejects(appendUntil(journal, 1e6), failed)
    const { last } = journal
    assert.ok(last > 1000)
    await assert.rejects(journal.append(last + 1, groupAt(last + 1)), failed, 'a machine is to stop')
    await journal.close()
    const again = await openFileJournal(place.directory, SMALL)
    assert.ok(again.last === last, `${again.last} of ${last}`)
    await check(again)
    place.grow('8m')
    await appendUntil(again, last + 100)
    await again.trim(last)
    await check(again)
    await again.close()
  },
)
