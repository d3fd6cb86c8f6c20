/**
 * From `--actor NAME` to a module that opens an actor: one of the built-in ones by its short name, or anybody's by the path of a
 * module. What somebody else wrote is checked here, once, so that a sentence names what is missing rather than a sync stopping
 * in its midst; what its calls give is checked where it is taken (`actor-listing.ts`).
 *
 * Names of options come as their authors like them (`targetUrl`, `target_url`, `target-url`) and leave here in one form, in capitals;
 * the author's `open` is given them under the names that it declared.
 */
import { stat } from 'node:fs/promises'
import { resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import * as v from 'valibot'

import { isOperationError, OperationError } from '#base/errors.ts'
import { withDeadline } from '#os/deadline.ts'
import { untilAborted } from '#store/abort.ts'

import { heldActor } from './actor-calls.ts'
import { brokenBy } from './actor-listing.ts'
import type { Actor, ActorContext, ActorModule, ActorOption } from './actor.ts'

/** A module that has not come by then waits for something that does not happen. */
const IMPORT_MS_MAX = 30_000
const CALLS_NEEDED = ['list', 'upload', 'delete'] as const
const CALLS_MORE = [
  ...['deleteAll', 'stat', 'copy', 'rename', 'hash', 'makeDirectory', 'symlink', 'readLink', 'setAttributes', 'close'],
] as const
const EXAMPLE_HINT = 'See examples/my-actor.ts for a whole one.'

/** The actors that have a short name. The stores' are opened by the command line, which knows how a store is named. */
const BUILT_IN_ACTORS: Readonly<Record<string, () => Promise<ActorModule>>> = {
  s3: () => Promise.reject(storeNamedBy('s3', 's3://BUCKET/PREFIX')),
  directory: () => Promise.reject(storeNamedBy('directory', '/DIRECTORY')),
  http: async () => (await import('./actors/http-actor.ts')).httpActor,
  swift: async () => (await import('./actors/swift-actor.ts')).swiftActor,
}

function storeNamedBy(name: string, url: string): OperationError {
  const hint = `Name the store by --to ${url}.`
  return new OperationError('INPUT_INVALID', `Cannot open the actor "${name}" by its name alone`, { hint })
}

/**
 * The actor that `name` names; the path of a module is relative to `cwd`. The names of its options are in normal form
 * (`normalOptionName`), and what it opens is known to have the calls that a sync needs.
 * @throws OperationError `INPUT_INVALID` where there is none, or it is not what an actor's module has to be.
 */
export async function loadActor(name: string, cwd: string): Promise<ActorModule> {
  if (!/[./]/.test(name)) {
    const load = Object.hasOwn(BUILT_IN_ACTORS, name) ? BUILT_IN_ACTORS[name] : undefined
    if (load !== undefined) return load()
    const known = Object.keys(BUILT_IN_ACTORS).join(', ')
    throw refused(
      name,
      `the built-in ones are ${known}`,
      'Name one of them, or the path of a module, as ./my-actor.ts.',
    )
  }
  const path = resolve(cwd, name)
  await checkFile(name, path)
  return adapted(name, path, await imported(name, path))
}

/** The one form of an option's name: `targetUrl` for `target_url`, `target-url` and `targetUrl`. */
export function normalOptionName(name: string): string {
  return name
    .replace(/^[A-Z]/, (first) => first.toLowerCase())
    .replace(/[-_]+(.)/g, (_, next: string) => next.toUpperCase())
}

async function checkFile(name: string, path: string): Promise<void> {
  const found = await stat(path).catch((error: NodeJS.ErrnoException) => error)
  if (found instanceof Error) {
    // As autosync names its own: "autosync.actors.s3.Connection".
    const isPython = /^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$/.test(name) && !/\.(?:[cm]?[jt]s)$/.test(name)
    const hint = isPython
      ? 'Classes of Python cannot be loaded: name a built-in actor (s3, directory, http, swift) or a module in TypeScript or JavaScript.'
      : 'Name the path of a module, relative to the working directory, or a built-in actor: s3, directory, http, swift.'
    throw refused(name, found.code === 'ENOENT' ? `there is no file "${path}"` : found.message, hint, found)
  }
  if (!found.isFile()) throw refused(name, `"${path}" is not a file`, 'Name the file of the module itself.')
}

async function imported(name: string, path: string): Promise<Record<string, unknown>> {
  try {
    const action = `load the actor "${name}"`
    return await withDeadline(
      action,
      import(pathToFileURL(path).href) as Promise<Record<string, unknown>>,
      IMPORT_MS_MAX,
    )
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : ''
    throw refused(name, `"${path}" cannot be imported: ${textOf(error)}`, IMPORT_HINTS[code], error)
  }
}

const IMPORT_HINTS: Readonly<Record<string, string>> = {
  ERR_MODULE_NOT_FOUND:
    'Install what the module imports where it lies; imports of own files need their whole names, as ./x.ts.',
  ERR_UNSUPPORTED_NODE_MODULES_TYPE_STRIPPING:
    'Node runs no TypeScript below node_modules: name a .js file, or keep the module elsewhere.',
  ERR_UNSUPPORTED_TYPESCRIPT_SYNTAX:
    'Use no enum, namespace or parameter property: Node takes types away and compiles nothing.',
}

const TEXT = v.string('a text is expected')
const SWITCH = v.boolean('true or false is expected')
const OPTIONS = v.record(
  v.string(),
  v.strictObject(
    {
      help: TEXT,
      placeholder: v.optional(TEXT),
      default: v.optional(TEXT),
      required: v.optional(SWITCH),
      secret: v.optional(SWITCH),
    },
    ({ expected, received }) =>
      expected === 'never' ? 'an option has no such member' : `an object with "help" is expected, not ${received}`,
  ),
  'an object from names to { help } is expected',
)
const KEEPS = v.looseObject({
  mtimePrecisionNs: v.optional(v.pipe(v.number('a number is expected'), v.minValue(1, 'at least 1 is expected'))),
  attributes: v.optional(SWITCH),
  directories: v.optional(SWITCH),
  symlinks: v.optional(SWITCH),
  pathBytesMax: v.optional(v.pipe(v.number('a number is expected'), v.minValue(1, 'at least 1 is expected'))),
})

/** The module as the sync takes it: `open` and `options` exported by name, or together as the default export. */
function adapted(name: string, path: string, exports: Record<string, unknown>): ActorModule {
  const base = 'open' in exports ? exports : exports['default']
  const { open, options } = (isObject(base) ? base : {}) as { readonly open?: unknown; readonly options?: unknown }
  if (typeof open !== 'function') {
    const has = Object.keys(exports)
    const detail = open === undefined ? 'does not export' : 'exports something that is no function as'
    const what = has.length === 0 ? 'it exports nothing' : `its exports are ${has.join(', ')}`
    throw refused(name, `"${path}" ${detail} "open" (${what})`, EXAMPLE_HINT)
  }
  const declared = declaredOptions(name, options)
  const opener = open as ActorModule['open']
  return {
    options: Object.fromEntries([...declared].map(([normal, { option }]) => [normal, option])),
    async open(context: ActorContext): Promise<Actor> {
      const values = Object.entries(context.options).map(([key, value]) => [declared.get(key)?.declared ?? key, value])
      const given = { ...context, options: Object.fromEntries(values) as Readonly<Record<string, string>> }
      const action = `open the actor "${name}"`
      const opened = (async () => opener.call(base, given))()
      return checkedActor(name, path, await untilAborted(action, opened.catch(openingFailed(name)), context.signal))
    },
  }
}

function openingFailed(name: string): (error: unknown) => never {
  return (error) => {
    if (isOperationError(error)) throw error
    throw new OperationError('INPUT_INVALID', `Cannot open the actor "${name}": ${textOf(error)}`, {
      cause: error,
      hint: 'The words are those of the actor itself.',
    })
  }
}

interface Declared {
  readonly declared: string
  readonly option: ActorOption
}

function declaredOptions(name: string, options: unknown): ReadonlyMap<string, Declared> {
  const all = new Map<string, Declared>()
  if (options === undefined) return all
  const checked = v.safeParse(OPTIONS, options)
  if (!checked.success)
    throw refused(name, `its "options" are not well formed: ${issueText(checked.issues[0])}`, EXAMPLE_HINT)
  for (const [declared, option] of Object.entries(options as Readonly<Record<string, ActorOption>>)) {
    const hint = 'Names are letters and digits with dashes, underscores or capitals between words.'
    if (!/^[A-Za-z][A-Za-z0-9]*(?:[-_][A-Za-z0-9]+)*$/.test(declared)) {
      throw refused(name, `it declares an option ${JSON.stringify(declared)}, which can be no flag`, hint)
    }
    const normal = normalOptionName(declared)
    const other = all.get(normal)
    if (other !== undefined) throw refused(name, `its options "${other.declared}" and "${declared}" are one flag`, hint)
    all.set(normal, { declared, option })
  }
  return all
}

/**
 * What an author's `open` gave, as an actor: one with private members cannot be copied, so its calls are bound to it. What it does
 * not say of itself, its file says.
 */
function checkedActor(name: string, path: string, actor: unknown): Actor {
  if (!isObject(actor)) throw refused(name, `its "open" gives no object`, EXAMPLE_HINT)
  const lacks = CALLS_NEEDED.filter((call) => typeof actor[call] !== 'function')
  if (lacks.length > 0) throw refused(name, `what "${path}" opens lacks ${lacks.join(', ')}`, EXAMPLE_HINT)
  const calls: Record<string, unknown> = {}
  for (const call of [...CALLS_NEEDED, ...CALLS_MORE]) {
    const member = actor[call]
    if (member === undefined) continue
    if (typeof member !== 'function') throw refused(name, `its "${call}" is no function`, EXAMPLE_HINT)
    calls[call] = member.bind(actor)
  }
  calls['upload'] = checkedUpload(name, calls['upload'] as Actor['upload'])
  const { url = pathToFileURL(path).href, alreadySorted = false, keeps = {} } = actor
  if (typeof url !== 'string') throw refused(name, `its "url" is no text`, EXAMPLE_HINT)
  if (typeof alreadySorted !== 'boolean')
    throw refused(name, `its "alreadySorted" is neither true nor false`, EXAMPLE_HINT)
  const checked = v.safeParse(KEEPS, keeps)
  if (!checked.success)
    throw refused(name, `its "keeps" is not well formed: ${issueText(checked.issues[0])}`, EXAMPLE_HINT)
  return heldActor(name, { url, alreadySorted, keeps, ...calls } as unknown as Actor)
}

function checkedUpload(name: string, upload: Actor['upload']): Actor['upload'] {
  return async (file, options) => {
    const listed = (await upload(file, options)) ?? undefined
    if (listed === undefined) return
    const detail = brokenBy(listed)
    if (detail === undefined) return listed
    throw new OperationError(
      'STORE_PROTOCOL',
      `Cannot take what the actor "${name}" tells of "${file.path}": ${detail}`,
      {
        hint: 'An upload gives nothing, or the entry that is there then: { path, size, … }.',
      },
    )
  }
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null
}

function issueText(issue: v.BaseIssue<unknown>): string {
  const at = v.getDotPath(issue)
  return at === null ? issue.message : `at "${at}", ${issue.message}`
}

function textOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}

function refused(name: string, detail: string, hint?: string, cause?: unknown): OperationError {
  return new OperationError('INPUT_INVALID', `Cannot use the actor "${name}": ${detail}`, {
    ...(hint === undefined ? {} : { hint }),
    ...(cause === undefined ? {} : { cause }),
  })
}
