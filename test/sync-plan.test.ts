/** Plans through the whole program: shown, carried out, refused where anything is another than it was planned on. */
import assert from 'node:assert/strict'
import {
  appendFileSync,
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  rmdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { describe, test } from 'node:test'

import { eider, type Outcome } from './eider-process.ts'
import { content, fill, names, withPlaces, type Places } from './sync/tree.ts'

interface PlanPlaces extends Places {
  readonly plan: string
  /** A sync of the two. */
  readonly sync: (...more: readonly string[]) => Promise<Outcome>
  readonly apply: (...more: readonly string[]) => Promise<Outcome>
}

/** A source of three files, and no target yet. */
async function withPlan(use: (places: PlanPlaces) => Promise<void>): Promise<void> {
  await withPlaces(async (places) => {
    const { base, source, target, words } = places
    rmdirSync(target)
    fill(source, { a: 'a', 'd/b': 'b', c: 'c' })
    const plan = join(base, 'plan')
    const sync = (...more: readonly string[]): Promise<Outcome> => eider(['sync', ...words, ...more])
    const apply = (...more: readonly string[]): Promise<Outcome> => eider(['sync', 'apply', plan, ...more])
    await use({ ...places, plan, sync, apply })
  })
}

/** Makes both equal, then changes the source: one file is new, one is another, one is gone; and plans. */
async function planned({ source, plan, sync }: PlanPlaces): Promise<string> {
  assert.equal((await sync('--once')).code, 0)
  writeFileSync(join(source, 'a'), 'another')
  writeFileSync(join(source, 'd/new'), 'new')
  rmSync(join(source, 'c'))
  const { code, stdout, stderr } = await sync('--dry-run', '--json')
  assert.equal(code, 0, stderr)
  writeFileSync(plan, stdout)
  return stdout
}

describe('[S139] a plan', () => {
  test('is shown, before a first run too, and changes nothing', () =>
    withPlan(async ({ target, sync }) => {
      const { code, stdout, stderr } = await sync('--dry-run')
      assert.equal(code, 0, stderr)
      assert.match(
        stdout,
        /^send +a +1B\nsend +c +1B\nsend +d\/b +1B\n3 operations, 3B to send, 0 to delete; nothing was done\n$/,
      )
      assert.equal(existsSync(target), false)
    }))

  test('is carried out as it is', () =>
    withPlan(async (places) => {
      const { target, apply } = places
      const lines = (await planned(places)).trim().split('\n')
      assert.deepEqual(
        lines.slice(1, -1).map((line) => {
          const { do: what, path } = JSON.parse(line) as { do: string; path: string }
          return `${what} ${path}`
        }),
        ['send a', 'send d/new', 'delete c'],
      )
      assert.equal(content(join(target, 'a')), 'a')
      const { code, stderr } = await apply()
      assert.equal(code, 0, stderr)
      assert.equal(content(join(target, 'a')), 'another')
      assert.deepEqual(names(target), ['a', 'd'])
      assert.deepEqual(readdirSync(join(target, 'd')), ['b', 'new'])
      const again = await apply()
      assert.equal(again.code, 1, 'not a second time')
      assert.match(again.stderr, /Cannot carry out the plan: .*the target is another/)
    }))

  const changes: readonly (readonly [name: string, change: (places: PlanPlaces) => void])[] = [
    ['a file of the source that was changed since', ({ source }) => appendFileSync(join(source, 'd/new'), 'x')],
    ['a file of the source that is gone', ({ source }) => rmSync(join(source, 'a'))],
    ['a file of the source that is there again', ({ source }) => writeFileSync(join(source, 'c'), 'c')],
    ['a file of the target that was changed since', ({ target }) => appendFileSync(join(target, 'a'), 'x')],
    ['a file of the target that came since', ({ target }) => writeFileSync(join(target, 'd/new'), 'x')],
  ]
  for (const [name, change] of changes) {
    test(`is refused as a whole for ${name}`, () =>
      withPlan(async (places) => {
        const { target, apply } = places
        await planned(places)
        change(places)
        const before = ['a', 'c', 'd/new'].map((path) => content(join(target, path)))
        const { code, stderr } = await apply()
        assert.equal(code, 1)
        assert.match(stderr, /Cannot carry out the plan: .+: the (source|target) is another\n {2}hint: Make a new plan/)
        const after = ['a', 'c', 'd/new'].map((path) => content(join(target, path)))
        assert.deepEqual(after, before)
      }))
  }

  test('sets the attributes of directories, the top one included, where nothing else is to be done', () =>
    withPlan(async ({ source, target, plan, sync, apply }) => {
      assert.equal((await sync('--once', '--metadata')).code, 0)
      mkdirSync(join(source, 'empty'))
      assert.equal((await sync('--once', '--metadata')).code, 0)
      chmodSync(join(source, 'empty'), 0o700)
      chmodSync(source, 0o750)
      writeFileSync(plan, (await sync('--metadata', '--dry-run', '--json')).stdout)
      const { code, stdout } = await apply()
      assert.equal(code, 0)
      assert.match(stdout, /Set the attributes of 2/)
      assert.deepEqual(
        [target, join(target, 'empty')].map((path) => statSync(path).mode & 0o777),
        [0o750, 0o700],
      )
    }))

  test('is refused where it was cut, or is none', () =>
    withPlan(async (places) => {
      const { plan, apply } = places
      const lines = (await planned(places)).trimEnd().split('\n')
      for (const text of [lines.slice(0, -1).join('\n'), [lines[0], ...lines.slice(2)].join('\n'), 'no plan', '']) {
        writeFileSync(plan, text)
        const { code, stderr } = await apply()
        assert.equal(code, 1)
        assert.match(stderr, /Cannot read the plan /)
      }
    }))

  test('tells where its deletions would be refused, and is carried out then if it is meant', () =>
    withPlan(async (places) => {
      const { source, target, plan, sync, apply } = places
      assert.equal((await sync('--once')).code, 0)
      for (const name of ['a', 'c', 'd']) rmSync(join(source, name), { recursive: true })
      writeFileSync(plan, (await sync('--dry-run', '--json')).stdout)
      assert.match((await sync('--dry-run')).stdout, /The deletions would be refused: the source is empty/)
      assert.equal((await apply()).code, 1)
      assert.ok(existsSync(join(target, 'a')))
      const { code, stderr } = await apply('--yes-delete')
      assert.equal(code, 0, stderr)
      assert.deepEqual(names(target), [])
    }))
})
