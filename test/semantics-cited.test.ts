/**
 * Keeps docs/SEMANTICS.md honest: every claim in it is cited by a test as `[Sn]` in the test's name, and nothing is cited that
 * is not claimed.
 */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { test } from 'node:test'

const root = new URL('..', import.meta.url)

function citedIn(folder: string, pattern: RegExp): Set<string> {
  const cited = new Set<string>()
  for (const file of readdirSync(new URL(folder, root), { recursive: true, encoding: 'utf8' })) {
    if (!pattern.test(file)) continue
    for (const [, list] of readFileSync(new URL(`${folder}/${file}`, root), 'utf8').matchAll(
      /\[(S\d+(?:, S\d+)*)\]/g,
    )) {
      for (const claim of (list as string).split(', ')) cited.add(claim)
    }
  }
  return cited
}

const claimed = [...readFileSync(new URL('docs/SEMANTICS.md', root), 'utf8').matchAll(/^- \*\*(S\d+)\*\*/gm)].map(
  ([, claim]) => claim as string,
)
const cited = new Set([...citedIn('src', /\.test\.ts$|^store\/suite\//), ...citedIn('test', /\.test\.ts$/)])

test('each number is of one claim', () => {
  assert.equal(new Set(claimed).size, claimed.length)
})

test('every claim is cited by a test', () => {
  assert.deepEqual(
    claimed.filter((claim) => !cited.has(claim)),
    [],
  )
})

test('every citation is of a claim', () => {
  assert.deepEqual(
    [...cited].filter((claim) => !claimed.includes(claim)),
    [],
  )
})
