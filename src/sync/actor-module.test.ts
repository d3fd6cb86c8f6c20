import assert from 'node:assert/strict'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { after, before, describe, test } from 'node:test'

import { isOperationError, type OperationError } from '#base/errors.ts'
import { timestamp } from '#base/time.ts'

import type { Actor, ActorContext, FileToSend } from './actor.ts'
import { loadActor, normalOptionName } from './actor-module.ts'

const CONTEXT: ActorContext = { options: {}, container: undefined, threads: 1, signal: new AbortController().signal }
const CALLS = 'list: async function* () {}, upload: async () => {}, delete: async () => {}'
let directory = ''
let modules = 0

before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'eider-actor-module-'))
})
after(() => rm(directory, { recursive: true, force: true }))

async function written(name: string, text: string): Promise<string> {
  await mkdir(dirname(join(directory, name)), { recursive: true })
  await writeFile(join(directory, name), text)
  return `./${name}`
}

async function opened(name: string, options: Record<string, string> = {}): Promise<Actor> {
  const module = await loadActor(name, directory)
  return module.open({ ...CONTEXT, options })
}

/** That it is refused, by a sentence with those words and a hint with those. */
function refused(words: RegExp, hint = /./): (error: OperationError) => boolean {
  return (error) => {
    assert.ok(isOperationError(error, 'INPUT_INVALID'), String(error))
    assert.match(error.message, words)
    assert.match(error.hint, hint)
    return true
  }
}

describe('which actor a name means', () => {
  test('a module is found by its path from the working directory, and opened with what it is given', async () => {
    const name = await written('plain.mjs', `export const open = (context) => ({ url: 'mine:', context, ${CALLS} })`)
    for (const path of [name, 'plain.mjs', join(directory, 'plain.mjs')]) {
      assert.equal((await opened(path)).url, 'mine:')
    }
  })

  test('TypeScript is run as it is', async () => {
    const name = await written(
      'typed.ts',
      `interface Said { path: string }
       class Mine {
         readonly #said: Said[] = [{ path: 'x' }]
         get alreadySorted(): boolean { return true }
         async *list() { for (const { path } of this.#said) yield { path, size: 1 } }
         async upload(): Promise<void> {}
         async delete(): Promise<void> {}
       }
       export async function open(): Promise<Mine> { return new Mine() }`,
    )
    const actor = await opened(name)
    assert.equal(actor.alreadySorted, true)
    assert.match(actor.url, /^file:\/\/.*typed\.ts$/)
    const found: unknown[] = []
    for await (const listed of actor.list({ under: '' })) found.push(listed)
    assert.deepEqual(found, [{ path: 'x', size: 1 }])
  })

  test('exports may be gathered in a default one', async () => {
    const name = await written(
      'default.mjs',
      `export default { options: { a: { help: 'b' } }, made: 'here', open() { return { url: this.made, ${CALLS} } } }`,
    )
    assert.deepEqual(Object.keys((await loadActor(name, directory)).options ?? {}), ['a'])
    assert.equal((await opened(name)).url, 'here')
  })

  test('a name that is none is told with those that are', async () => {
    await assert.rejects(
      loadActor('rackspace', directory),
      refused(/built-in ones are s3, directory, http, swift/, /my-actor/),
    )
    await assert.rejects(loadActor('constructor', directory), refused(/built-in ones/))
  })

  test('stores are named by --to', async () => {
    for (const name of ['s3', 'directory']) await assert.rejects(loadActor(name, directory), refused(/alone/, /--to/))
  })

  test("a class of Python's is told to be one", async () => {
    await assert.rejects(
      loadActor('autosync.actors.s3.Connection', directory),
      refused(/no file/, /Python cannot be loaded/),
    )
  })

  test('a path without a file, and one of a directory, are told', async () => {
    await assert.rejects(
      loadActor('./missing.ts', directory),
      refused(/there is no file ".*missing\.ts"/, /working directory/),
    )
    await assert.rejects(loadActor('./', directory), refused(/is not a file/))
  })
})

describe('what a module has to be', () => {
  for (const [what, text, words, hint] of [
    ['throws while it is imported', `throw new Error('out of order')`, /cannot be imported: out of order/, /./],
    [
      'imports what is not there',
      `import './nowhere.mjs'; export const open = 1`,
      /nowhere\.mjs/,
      /Install what the module/,
    ],
    ['exports nothing', ``, /does not export "open" \(it exports nothing\)/, /examples\/my-actor/],
    [
      'exports something else',
      `export const connect = () => {}`,
      /does not export "open" \(its exports are connect\)/,
      /./,
    ],
    ['exports an "open" that is no function', `export const open = 1`, /no function as "open"/, /./],
    ['has options that are none', `export const options = 7, open = 1`, /no function/, /./],
  ] as const) {
    test(`one that ${what} is refused`, async () => {
      const name = await written(`${what.replaceAll(/\W/g, '-')}.mjs`, text)
      await assert.rejects(loadActor(name, directory), refused(words, hint))
    })
  }

  for (const [options, words] of [
    [`7`, /"options" are not well formed: an object from names/],
    [`{ a: 'help' }`, /at "a", an object with "help" is expected/],
    [`{ a: {} }`, /at "a\.help"/],
    [`{ a: { help: 1 } }`, /at "a\.help", a text is expected/],
    [`{ a: { help: '', defaults: '1' } }`, /at "a\.defaults", an option has no such member/],
    [`{ a: { help: '', required: 'yes' } }`, /at "a\.required", true or false is expected/],
    [`{ '9a': { help: '' } }`, /"9a", which can be no flag/],
    [`{ 'a b': { help: '' } }`, /"a b", which can be no flag/],
    [`{ targetUrl: { help: '' }, 'target_url': { help: '' } }`, /"targetUrl" and "target_url" are one flag/],
  ] as const) {
    test(`options ${options} are refused`, async () => {
      const name = await written(`options-${++modules}.mjs`, `export const options = ${options}, open = () => {}`)
      await assert.rejects(loadActor(name, directory), refused(words))
    })
  }

  for (const [actor, words] of [
    [`undefined`, /its "open" gives no object/],
    [`{}`, /opens lacks list, upload, delete/],
    [`{ list() {}, delete: 1 }`, /opens lacks upload, delete/],
    [`{ ${CALLS}, stat: true }`, /its "stat" is no function/],
    [`{ ${CALLS}, url: 1 }`, /its "url" is no text/],
    [`{ ${CALLS}, alreadySorted: 'yes' }`, /its "alreadySorted" is neither/],
    [`{ ${CALLS}, keeps: { mtimePrecisionNs: 0 } }`, /its "keeps" is not well formed: at "mtimePrecisionNs"/],
  ] as const) {
    test(`an actor ${actor} is refused when it is opened`, async () => {
      const name = await written(`actor-${++modules}.mjs`, `export const open = () => (${actor})`)
      await assert.rejects(opened(name), refused(words))
    })
  }

  test('what "open" throws is told in its own words', async () => {
    const name = await written('throwing.mjs', `export const open = () => { throw new Error('--speed is a number') }`)
    await assert.rejects(opened(name), refused(/Cannot open the actor "\.\/throwing\.mjs": --speed is a number/))
  })

  test('an "open" that never ends is given up with the sync', async () => {
    const name = await written('endless.mjs', `export const open = () => new Promise(() => {})`)
    const module = await loadActor(name, directory)
    const signal = AbortSignal.abort()
    await assert.rejects(async () => module.open({ ...CONTEXT, signal }), { code: 'ABORTED' })
  })

  test('what an upload tells has to be an entry, or nothing', async () => {
    const name = await written(
      'telling.mjs',
      `const answers = [undefined, null, { path: 'x', size: 1 }, true, { path: 'x' }]
       export const open = () => ({ ${CALLS}, upload: async () => answers.shift() })`,
    )
    const actor = await opened(name)
    const file = { path: 'x' } as FileToSend
    assert.equal(await actor.upload(file, {}), undefined)
    assert.equal(await actor.upload(file, {}), undefined)
    assert.deepEqual(await actor.upload(file, {}), { path: 'x', size: 1 })
    for (const words of [/there is no entry/, /the size is no number/]) {
      await assert.rejects(async () => actor.upload(file, {}), { code: 'STORE_PROTOCOL', message: words })
    }
  })
})

describe('names of options', () => {
  test('have one form, however they are written', () => {
    for (const name of ['targetUrl', 'target_url', 'target-url', 'TargetUrl']) {
      assert.equal(normalOptionName(name), 'targetUrl')
    }
    assert.equal(normalOptionName('url'), 'url')
  })

  test('come back to who declared them as they were declared', async () => {
    const name = await written(
      'named.mjs',
      `export const options = { target_url: { help: 'a' }, 'time-out': { help: 'b', default: '3' }, plain: { help: 'c' } }
       export const open = ({ options }) => ({ url: JSON.stringify(options), ${CALLS} })`,
    )
    const { options } = await loadActor(name, directory)
    assert.deepEqual(options, { targetUrl: { help: 'a' }, timeOut: { help: 'b', default: '3' }, plain: { help: 'c' } })
    const actor = await opened(name, { targetUrl: 'x', timeOut: '4' })
    assert.deepEqual(JSON.parse(actor.url), { target_url: 'x', 'time-out': '4' })
  })
})

test('calls of an actor keep their object, and only those that there are', async () => {
  const name = await written(
    'bound.mjs',
    `class Mine {
       #time = { seconds: 5, nanoseconds: 6 }
       async *list() {}
       async upload() {}
       async delete() {}
       async stat(path) { return { path, kind: 'file', size: 0, mtime: this.#time } }
     }
     export const open = () => new Mine()`,
  )
  const actor = await opened(name)
  assert.equal('rename' in actor, false)
  assert.equal('close' in actor, false)
  assert.deepEqual((await actor.stat?.('x', {}))?.mtime, timestamp(5, 6))
})
