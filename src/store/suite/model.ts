/**
 * Cases of the store suite: random operations, compared with a model of what the port promises. Where the port leaves a
 * choice, the model asks the store and goes on from there: whether a directory that came into being by itself stays when
 * its last entry goes, and which of several things wrong with a call it names.
 */
import assert from 'node:assert/strict'

import fc from 'fast-check'

import { isOperationError, type ErrorCode } from '#base/errors.ts'
import { isWithin, joinPath, parentOf } from '#store/path.ts'
import { ABSENT, ANY, ifVersion, type Guard, type Store, type Version } from '#store/store.ts'

import { assertContent, listAll, noise, type SuiteCase } from './case.ts'

type GuardChoice = 'any' | 'absent' | 'current' | 'stale'

type Step =
  | { readonly op: 'put'; readonly path: string; readonly guard: GuardChoice; readonly seed: number }
  | { readonly op: 'remove'; readonly path: string; readonly guard: GuardChoice }
  | { readonly op: 'rename'; readonly path: string; readonly to: string; readonly free: boolean }
  | { readonly op: 'exchange'; readonly path: string; readonly to: string }
  | { readonly op: 'copy'; readonly path: string; readonly to: string; readonly free: boolean }
  | { readonly op: 'makeDirectory'; readonly path: string; readonly free: boolean }
  | { readonly op: 'removeDirectory'; readonly path: string }

interface File {
  readonly seed: number
  readonly version: Version
}

/** Few names in few levels, so that steps meet each other; "a-" and "a0" sort around what lies under "a". */
const names = fc.constantFrom('a', 'a-', 'a0', 'ü')
const paths = fc.array(names, { minLength: 1, maxLength: 3 }).map((parts) => parts.join('/'))
const guards = fc.constantFrom<GuardChoice>('any', 'any', 'absent', 'current', 'stale')
const steps: fc.Arbitrary<Step> = fc.oneof(
  { weight: 5, arbitrary: fc.record({ op: fc.constant('put'), path: paths, guard: guards, seed: fc.nat(1000) }) },
  { weight: 2, arbitrary: fc.record({ op: fc.constant('remove'), path: paths, guard: guards }) },
  { weight: 3, arbitrary: fc.record({ op: fc.constant('rename'), path: paths, to: paths, free: fc.boolean() }) },
  { weight: 2, arbitrary: fc.record({ op: fc.constant('exchange'), path: paths, to: paths }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('copy'), path: paths, to: paths, free: fc.boolean() }) },
  { weight: 2, arbitrary: fc.record({ op: fc.constant('makeDirectory'), path: paths, free: fc.boolean() }) },
  { weight: 2, arbitrary: fc.record({ op: fc.constant('removeDirectory'), path: paths }) },
)

/** What should be in the store: files, and directories that were made; others follow from what lies under them. */
class Model {
  readonly files = new Map<string, File>()
  readonly made = new Set<string>()
  /** Directories that came into being by themselves and have lost their last entry: some stores keep them. */
  readonly maybe = new Set<string>()

  isDirectory(path: string): boolean {
    if (this.made.has(path)) return true
    return [...this.files.keys(), ...this.made].some((other) => other !== path && isWithin(other, path))
  }

  isEmpty(path: string): boolean {
    return ![...this.files.keys(), ...this.made].some((other) => other !== path && isWithin(other, path))
  }

  exists(path: string): boolean {
    return this.files.has(path) || this.isDirectory(path)
  }

  /** Whether a file is where a directory would have to be. */
  isUnderFile(path: string): boolean {
    for (let parent = parentOf(path); parent !== ''; parent = parentOf(parent)) {
      if (this.files.has(parent)) return true
    }
    return false
  }

  directories(): Set<string> {
    const found = new Set(this.made)
    for (const path of [...this.files.keys(), ...this.made]) {
      for (let parent = parentOf(path); parent !== ''; parent = parentOf(parent)) found.add(parent)
    }
    return found
  }

  exchange(path: string, other: string): void {
    // No name of the model's.
    const aside = '.aside'
    this.move(path, aside)
    this.move(other, path)
    this.move(aside, other)
  }

  move(from: string, to: string): void {
    for (const [path, file] of [...this.files]) {
      if (!isWithin(path, from)) continue
      this.files.delete(path)
      this.files.set(to + path.slice(from.length), file)
    }
    for (const path of [...this.made]) {
      if (!isWithin(path, from)) continue
      this.made.delete(path)
      this.made.add(to + path.slice(from.length))
    }
  }
}

/** Everything that is wrong with the step; none where it must succeed. */
function wrongsOf(model: Model, step: Step): ErrorCode[] {
  const { path } = step
  const wrongs: ErrorCode[] = []
  const file = model.files.get(path)
  const isDirectory = model.isDirectory(path)
  if (step.op !== 'put' && step.op !== 'makeDirectory' && !model.exists(path)) {
    wrongs.push('STORE_NOT_FOUND')
  }
  if (model.isUnderFile(path)) wrongs.push('STORE_NOT_DIRECTORY')
  switch (step.op) {
    case 'put':
    case 'remove':
      if (isDirectory) wrongs.push('STORE_IS_DIRECTORY')
      if (step.guard === 'absent' && model.exists(path)) wrongs.push('STORE_CONFLICT')
      if (step.guard === 'stale' || (step.guard === 'current' && file === undefined)) wrongs.push('STORE_CONFLICT')
      break
    case 'makeDirectory':
      if (file !== undefined) wrongs.push('STORE_NOT_DIRECTORY')
      if (step.free && model.exists(path)) wrongs.push('STORE_CONFLICT')
      break
    case 'removeDirectory':
      if (file !== undefined) wrongs.push('STORE_NOT_DIRECTORY')
      if (isDirectory && !model.isEmpty(path)) wrongs.push('STORE_NOT_EMPTY')
      break
    case 'exchange':
      if (!model.exists(step.to)) wrongs.push('STORE_NOT_FOUND')
      if (model.isUnderFile(step.to)) wrongs.push('STORE_NOT_DIRECTORY')
      if (step.to !== path && (isWithin(path, step.to) || isWithin(step.to, path))) wrongs.push('INPUT_INVALID')
      break
    case 'copy':
    case 'rename':
      wrongs.push(...wrongsOfTarget(model, step, isDirectory))
  }
  return wrongs
}

function wrongsOfTarget(
  model: Model,
  { op, path, to, free }: Extract<Step, { op: 'copy' | 'rename' }>,
  isDirectory: boolean,
): ErrorCode[] {
  const wrongs: ErrorCode[] = []
  if (op === 'copy' && isDirectory) wrongs.push('STORE_IS_DIRECTORY')
  if (free && model.exists(to)) wrongs.push('STORE_CONFLICT')
  if (model.isUnderFile(to)) wrongs.push('STORE_NOT_DIRECTORY')
  if (to === path) return wrongs
  if (isWithin(to, path)) wrongs.push('INPUT_INVALID')
  if (!isDirectory && model.isDirectory(to)) wrongs.push('STORE_IS_DIRECTORY')
  if (isDirectory && model.files.has(to)) wrongs.push('STORE_NOT_DIRECTORY')
  if (isDirectory && model.isDirectory(to) && !model.isEmpty(to)) wrongs.push('STORE_NOT_EMPTY')
  return wrongs
}

/** Whether a store that does not check its tree may do what the port forbids. */
function needsTreeCheck(model: Model, step: Step): boolean {
  const to = 'to' in step ? step.to : step.path
  if (model.isUnderFile(to) || model.isUnderFile(step.path)) return true
  if (step.op === 'makeDirectory') return model.files.has(to)
  if (step.op === 'put') return model.isDirectory(to)
  if (step.op === 'exchange') return isWithin(to, step.path) || isWithin(step.path, to)
  return 'to' in step && (isWithin(to, step.path) || (model.files.has(step.path) && model.isDirectory(to)))
}

async function perform(store: Store, model: Model, step: Step, at: (path: string) => string): Promise<void> {
  const { path } = step
  const before = model.directories()
  switch (step.op) {
    case 'put': {
      const { version } = await store.put(at(path), noise(step.seed, step.seed), { guard: guardOf(model, step) })
      model.files.set(path, { seed: step.seed, version })
      break
    }
    case 'remove':
      await store.remove(at(path), { guard: guardOf(model, step) })
      model.files.delete(path)
      break
    case 'makeDirectory':
      await store.makeDirectory(at(path), { guard: step.free ? ABSENT : ANY })
      model.made.add(path)
      break
    case 'removeDirectory':
      await store.removeDirectory(at(path))
      model.made.delete(path)
      break
    case 'copy': {
      const { version } = await store.copy(at(path), at(step.to), { guard: step.free ? ABSENT : ANY })
      model.files.set(step.to, { seed: model.files.get(path)?.seed ?? -1, version })
      break
    }
    case 'exchange':
      await store.exchange(at(path), at(step.to), { guard: ANY, otherGuard: ANY })
      if (step.to !== path) model.exchange(path, step.to)
      for (const name of [path, step.to]) {
        const file = model.files.get(name)
        if (file !== undefined) model.files.set(name, { ...file, version: (await store.stat(at(name))).version })
      }
      break
    case 'rename': {
      const renamed = await store.rename(at(path), at(step.to), {
        guard: ANY,
        targetGuard: step.free ? ABSENT : ANY,
      })
      if (step.to !== path) {
        model.files.delete(step.to)
        model.move(path, step.to)
      }
      const file = model.files.get(step.to)
      if (file !== undefined) model.files.set(step.to, { ...file, version: renamed.version })
    }
  }
  const after = model.directories()
  for (const directory of before) if (!after.has(directory)) model.maybe.add(directory)
}

function guardOf(model: Model, { path, guard }: { path: string; guard: GuardChoice }): Guard {
  if (guard === 'any') return ANY
  if (guard === 'absent') return ABSENT
  const version = guard === 'current' ? model.files.get(path)?.version : undefined
  return ifVersion(version ?? ('0123456789abcdef0123456789abcdef' as Version))
}

/** Asks the store about directories that it may or may not have kept. */
async function settle(store: Store, model: Model, at: (path: string) => string): Promise<void> {
  for (const path of model.maybe) {
    model.maybe.delete(path)
    if (model.exists(path)) continue
    try {
      const found = await store.stat(at(path))
      assert.equal(found.kind, 'directory')
      model.made.add(path)
    } catch (error) {
      if (!isOperationError(error, 'STORE_NOT_FOUND', 'STORE_NOT_DIRECTORY')) throw error
    }
  }
}

async function compare(store: Store, model: Model, root: string): Promise<void> {
  const at = (path: string): string => joinPath(root, path)
  const found = model.exists('a') || model.directories().size > 0 || model.files.size > 0
  const entries = found ? await listAll(store, root, { recursive: true }) : []
  const files = entries.filter((entry) => entry.kind === 'file').map((entry) => entry.path.slice(root.length + 1))
  assert.deepEqual(files.toSorted(), [...model.files.keys()].toSorted(), 'the files that are there')
  for (const [path, { seed }] of model.files) await assertContent(store, at(path), noise(seed, seed))
  for (const path of model.directories()) assert.equal((await store.stat(at(path))).kind, 'directory', path)
}

export const modelCases: readonly SuiteCase[] = [
  {
    name: 'model: random operations do what the port says',
    run: async ({ store, at, options }) => {
      let run = 0
      const property = fc.asyncProperty(fc.array(steps, { minLength: 1, maxLength: 25 }), async (sequence) => {
        const root = at(`run-${run++}`)
        const model = new Model()
        const inRoot = (path: string): string => joinPath(root, path)
        for (const step of sequence) {
          await settle(store, model, inRoot)
          if (step.op === 'copy' && step.path === step.to) continue
          if (!options.treeChecked && needsTreeCheck(model, step)) continue
          const wrongs = wrongsOf(model, step)
          if (wrongs.length === 0) {
            await perform(store, model, step, inRoot)
          } else {
            await assert.rejects(
              perform(store, model, step, inRoot),
              (error: unknown) => isOperationError(error, ...wrongs),
              `${JSON.stringify(step)} is ${wrongs.join(' or ')}`,
            )
          }
        }
        await settle(store, model, inRoot)
        await compare(store, model, root)
      })
      await fc.assert(property, { seed: options.propertySeed, numRuns: options.propertyRuns })
    },
  },
]
