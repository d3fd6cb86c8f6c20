import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { describe, test } from 'node:test'

import { ROOT_INODE } from '#cluster/inode-id.ts'

import { KEYS_END, TestShard } from './shard-fixture.ts'
import { findDirectory, findOwner, pastKey } from './records.ts'
import { shardMessages as m } from './shard-messages.ts'

/** The page that says how records lie in a state. */
const PAGE = readFileSync('docs/formats/shard.md', 'utf8')

describe('records', () => {
  test('are those of the example in docs/formats, and so are the entries', () => {
    const shard = new TestShard(0, 0)
    shard.create('a', { content: 'abc' })
    const rows: string[] = []
    shard.state.range('', KEYS_END, (key, value) => {
      rows.push(`| \`${Buffer.from(key, 'latin1').toString('hex')}\` | \`${value.toString('hex')}\` |`)
      return true
    })
    for (const [index, entry] of shard.entries.entries()) rows.push(`| ${index + 1} | \`${entry.toString('hex')}\` |`)
    const example = PAGE.slice(PAGE.indexOf('## Example'))
    assert.deepEqual(
      example.split('\n').filter((line) => /^\| [`\d]/.test(line)),
      rows,
    )
  })

  test("a directory's owner is read from its record as it lies there", () => {
    const shard = new TestShard()
    const directory = shard.makeDirectory('d', 2 ** 42)
    const below = shard.makeDirectory('e', 5, directory)
    for (const each of [ROOT_INODE, directory, below]) {
      assert.equal(findOwner(shard.state, each), findDirectory(shard.state, each)?.owner)
    }
    assert.equal(findOwner(shard.state, below), directory)
    shard.write(m.removeOwner, { directory: below, policy: undefined })
    assert.equal(findOwner(shard.state, below), 0)
  })

  test('past edges of a name stand together, whatever bytes names begin with', () => {
    const names = ['a', 'a\u0001', 'a\u0006', 'aa', 'b']
    const keys = names.flatMap((name) =>
      [0, 6e14, Number.MAX_SAFE_INTEGER].map((time) => pastKey(ROOT_INODE, name, time)),
    )
    assert.deepEqual(keys.toSorted(), keys)
  })
})
