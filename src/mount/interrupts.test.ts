/** Changes whose callers are killed while the store does not answer. */
import assert from 'node:assert/strict'
import { test } from 'node:test'

import { setLogLevel } from '#base/log.ts'
import type { Caller } from '#fuse/file-system.ts'
import { openMemoryStore } from '#store/memory-store.ts'
import { ABSENT, ANY, type Store } from '#store/store.ts'

import { CALLER, codeOf, Gate, replacing, rig, type Rig } from './kernel-double.ts'

setLogLevel('silent')

interface Held extends AsyncDisposable {
  readonly it: Rig
  readonly memory: Store
  readonly gate: Gate
  /** Whether the caller is being killed. */
  readonly caller: { isDying: boolean }
  /** Runs a call that the store does not answer, interrupted. */
  readonly interrupted: <T>(call: (caller: Caller) => Promise<T>) => Promise<T>
  /** Lets the time pass after which a call is given up, or asked about again. */
  readonly pass: () => void
}

async function held(timers: { tick(ms: number): void }): Promise<Held> {
  const memory = openMemoryStore()
  await memory.put('old', Buffer.from('x'), { guard: ABSENT })
  await memory.makeDirectory('empty', { guard: ABSENT })
  const gate = new Gate()
  let isHeld = false
  const after = async <T>(work: () => Promise<T>): Promise<T> => {
    if (isHeld) await gate.pass()
    return work()
  }
  const store = replacing(memory, {
    stat: (...args) => after(() => memory.stat(...args)),
    makeDirectory: (...args) => after(() => memory.makeDirectory(...args)),
    symlink: (...args) => after(() => memory.symlink(...args)),
    remove: (...args) => after(() => memory.remove(...args)),
    removeDirectory: (...args) => after(() => memory.removeDirectory(...args)),
    rename: (...args) => after(() => memory.rename(...args)),
    setAttributes: (...args) => after(() => memory.setAttributes(...args)),
  })
  const caller = { isDying: true }
  const it = await rig(store, { isDying: () => caller.isDying })
  for (const name of ['old', 'empty']) await it.kernel.stat(name)
  const interrupted = async <T>(call: (caller: Caller) => Promise<T>): Promise<T> => {
    isHeld = true
    const ending = new AbortController()
    const calling = call({ ...CALLER, signal: ending.signal })
    calling.catch(() => undefined)
    await gate.reached
    ending.abort()
    timers.tick(2000)
    return calling
  }
  const pass = (): void => timers.tick(2000)
  return { it, memory, gate, caller, interrupted, pass, [Symbol.asyncDispose]: () => it[Symbol.asyncDispose]() }
}

const CALLS: Record<string, (it: Rig, caller: Caller) => Promise<unknown>> = {
  mkdir: async ({ fs }, caller) => fs.mkdir(1, 'made', 0o755, 0, caller),
  symlink: async ({ fs }, caller) => fs.symlink(1, 'made', 'target', caller),
  create: async (it, caller) => {
    it.clock.ms += 2000
    return it.fs.create(1, 'made', 0o644, 0, 0o102, caller)
  },
  unlink: async ({ fs }, caller) => fs.unlink(1, 'old', caller),
  rmdir: async ({ fs }, caller) => fs.rmdir(1, 'empty', caller),
  rename: async ({ fs }, caller) => fs.rename(1, 'old', 1, 'made', 0, caller),
  setattr: async ({ fs, kernel }, caller) => fs.setattr(await kernel.node('old'), { mode: 0o600 }, caller),
}

for (const [name, call] of Object.entries(CALLS)) {
  test(`[S129] a ${name} whose caller is killed ends, and takes effect when the store answers`, async (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] })
    await using all = await held(t.mock.timers)
    assert.equal(await codeOf(all.interrupted((caller) => call(all.it, caller))), 'ABORTED')
    all.gate.open()
    const happened = async (): Promise<boolean> => {
      if (name === 'setattr') return (await all.memory.stat('old')).attributes?.mode === 0o600
      const gone = name === 'rmdir' ? 'empty' : 'old'
      const looked = name === 'unlink' || name === 'rmdir' ? gone : 'made'
      const isThere = await all.memory.stat(looked).then(
        () => true,
        () => false,
      )
      return isThere === (looked === 'made')
    }
    while (!(await happened())) await new Promise(setImmediate)
    // Nothing of it is left behind: what comes after finds a file system that goes on.
    await all.it.kernel.writeFile('later', 'y')
    assert.equal((await all.memory.stat('later')).size, 1)
    while (all.it.fs.status.openFiles > 0) await new Promise(setImmediate)
  })
}

test('[S129] other signals do not end a change, and one that is killed later ends then', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  await using all = await held(t.mock.timers)
  all.caller.isDying = false
  let isSettled = false
  const making = all.interrupted((caller) => all.it.fs.mkdir(1, 'made', 0o755, 0, caller))
  void making.then(
    () => (isSettled = true),
    () => (isSettled = true),
  )
  await all.gate.reached
  for (let turn = 0; turn < 5; turn++) {
    all.pass()
    await new Promise(setImmediate)
  }
  assert.equal(isSettled, false)
  all.caller.isDying = true
  all.pass()
  assert.equal(await codeOf(making), 'ABORTED')
  all.gate.open()
})

test('[S129] a file that a killed program was about to make is empty when the store answers', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  await using all = await held(t.mock.timers)
  assert.equal(await codeOf(all.interrupted((caller) => CALLS['create']?.(all.it, caller) ?? assert.fail())), 'ABORTED')
  all.gate.open()
  while (all.it.fs.status.openFiles > 0 || all.it.fs.status.dirtyFiles > 0 || all.it.fs.status.knownNodes < 4) {
    await new Promise(setImmediate)
  }
  assert.equal((await all.memory.stat('made')).size, 0)
  await all.memory.remove('made', { guard: ANY })
})
