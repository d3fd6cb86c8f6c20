/** Syncs to actors from the command line: somebody's own module, and the web service of autosync's README. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { appendFile, mkdir, mkdtemp, readdir, readFile, rm, utimes, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { after, before, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { gunzipSync } from 'node:zlib'

import { eider, startEider, type Outcome } from './eider-process.ts'
import { startSwift, swiftMissing } from './servers/swift.ts'

const EXAMPLES = fileURLToPath(new URL('../examples', import.meta.url))
const SECRET = 'fuzzy puppies make me smile in the sunshine'

let root = ''
let source = ''

before(async () => {
  root = await mkdtemp(join(tmpdir(), 'eider-actors-'))
  source = join(root, 'audioroot/main')
  await mkdir(join(source, 'a'), { recursive: true })
  await writeFile(join(source, 'one.mp3'), 'one')
  await writeFile(join(source, 'a/two.MP3'), 'two')
  await writeFile(join(source, 'a/notes.txt'), 'notes')
  // Older than a tick of the clock, so that times can decide at once.
  for (const name of ['one.mp3', 'a/two.MP3', 'a/notes.txt'])
    await utimes(join(source, name), 1_700_000_000, 1_700_000_000)
})
after(() => rm(root, { recursive: true, force: true }))

async function sync(
  state: string,
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<Outcome> {
  const outcome = await eider(['sync', '--once', '--state', join(root, state), ...args], { cwd: EXAMPLES, env })
  assert.equal(outcome.code, 0, outcome.stderr)
  return outcome
}

describe("the example of an actor of one's own", () => {
  const archive = (): string => join(root, 'archive')
  const run = (...args: string[]): Promise<Outcome> =>
    sync('own', ['--actor', './my-actor.ts', `--archive_directory=${archive()}`, ...args, source])

  /** What the archive has, unpacked, by path. */
  async function kept(): Promise<Record<string, string>> {
    const paths = new Set<string>()
    for (const line of (await readFile(join(archive(), 'index.jsonl'), 'utf8')).trimEnd().split('\n')) {
      const { path, file } = JSON.parse(line) as { path: string; file: unknown }
      if (file === null) paths.delete(path)
      else paths.add(path)
    }
    const found: Record<string, string> = {}
    for (const path of paths) {
      const object = join(archive(), 'objects', `${createHash('sha256').update(path).digest('hex')}.gz`)
      found[path] = gunzipSync(await readFile(object)).toString()
    }
    return found
  }

  test('it takes all files, then only what has changed, and nothing where nothing has', async () => {
    await run('--compression-level=9')
    assert.deepEqual(await kept(), { 'one.mp3': 'one', 'a/two.MP3': 'two', 'a/notes.txt': 'notes' })
    const lines = (await readFile(join(archive(), 'index.jsonl'), 'utf8')).split('\n').length
    await run()
    assert.equal((await readFile(join(archive(), 'index.jsonl'), 'utf8')).split('\n').length, lines)
    await appendFile(join(source, 'a/notes.txt'), ', more')
    await writeFile(join(source, 'gone'), 'x')
    await run()
    assert.deepEqual(await kept(), { 'one.mp3': 'one', 'a/two.MP3': 'two', 'a/notes.txt': 'notes, more', gone: 'x' })
    await rm(join(source, 'gone'))
    await run('--delete=after')
    assert.deepEqual(await kept(), { 'one.mp3': 'one', 'a/two.MP3': 'two', 'a/notes.txt': 'notes, more' })
    assert.equal((await readdir(join(archive(), 'objects'))).length, 3)
  })

  test('a required option that is missing is told with its help', async () => {
    const { code, stderr } = await eider(['sync', '--once', '--actor', './my-actor.ts', source], { cwd: EXAMPLES })
    assert.equal(code, 2)
    assert.match(stderr, /needs --archive-directory: where the archive is/)
  })

  test('its options are in the help', async () => {
    const { stdout } = await eider(['sync', '--actor', './my-actor.ts', '--help'], { cwd: EXAMPLES })
    assert.match(stdout, /--archive-directory DIRECTORY\s+where the archive is/)
    assert.match(stdout, /--compression-level NUMBER/)
  })
})

describe('the web service of the README of autosync', () => {
  test('its command line sends what its filter lets through, under the names that it says, and shows no secret', async (t) => {
    const media = join(root, 'media')
    const child = spawn(process.execPath, [join(EXAMPLES, 'media-files-server.ts'), media], {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: { ...process.env, MEDIA_FILES_SECRET: SECRET },
    })
    t.after(() => child.kill('SIGKILL'))
    const [url] = (await once(createInterface(child.stdout), 'line')) as [string]
    const words = [
      '--actor=http',
      `--url=${url}`,
      `--source_prefix=${source}/`,
      '--threads=1',
      '--source_filter=^.*[mM][pP]3$',
    ]
    const first = await sync('media', [...words, `--secret=${SECRET}`, '--log-level=trace', `${source}/`])
    assert.doesNotMatch(first.stdout + first.stderr, /fuzzy/)
    assert.deepEqual(await sent(media), ['a/two.MP3', 'one.mp3'])
    assert.equal(await readFile(join(media, 'files/a/two.MP3'), 'utf8'), 'two')
    // By the variable, from another machine that remembers nothing: times decide, and nothing is sent again.
    await sync('elsewhere', [...words, `${source}/`], { EIDER_SECRET: SECRET })
    assert.deepEqual(await sent(media), ['a/two.MP3', 'one.mp3'])
  })

  /** Paths in the order in which the service took them in. */
  async function sent(media: string): Promise<string[]> {
    const lines = (await readFile(join(media, 'index.jsonl'), 'utf8')).trimEnd().split('\n')
    return lines.map((line) => (JSON.parse(line) as { path: string }).path).toSorted()
  }
})

describe('a container of Swift', { skip: swiftMissing() ?? false }, () => {
  test("is kept equal to a directory as it changes, by its clients' variables", async (t) => {
    const swift = await startSwift()
    t.after(() => swift.stop())
    const env = { ST_AUTH: swift.authUrl, ST_USER: swift.user, ST_KEY: swift.key }
    const auth = await fetch(swift.authUrl, { headers: { 'x-auth-user': swift.user, 'x-auth-key': swift.key } })
    const token = auth.headers.get('x-auth-token') ?? ''
    const names = async (): Promise<string[]> => {
      const answer = await fetch(`${auth.headers.get('x-storage-url') ?? ''}/kept`, {
        headers: { 'x-auth-token': token },
      })
      return (await answer.text()).split('\n').filter((name) => name !== '')
    }
    const state = ['--state', join(root, 'swift')]
    const words = ['sync', '--actor=swift', '--target-container=kept', `--source-prefix=${source}/`, ...state, source]
    const running = startEider(words, { env })
    t.after(() => running.child.kill('SIGKILL'))
    const until = async (wanted: readonly string[]): Promise<void> => {
      while (JSON.stringify(await names()) !== JSON.stringify(wanted)) {
        assert.equal(running.child.exitCode, null, running.stderr)
        await new Promise((resolve) => setTimeout(resolve, 20))
      }
    }
    const first = ['a/notes.txt', 'a/two.MP3', 'one.mp3']
    await until(first)
    await writeFile(join(source, 'later'), 'later')
    await until(['a/notes.txt', 'a/two.MP3', 'later', 'one.mp3'])
    running.child.kill('SIGTERM')
    assert.equal(await running.ended, 0, running.stderr)
  })
})
