/**
 * Who asks a Swift, and for which account: from the actor's options, else from the variables that the `swift` client reads, to a
 * storage URL and a token. Two ways: version 1, which Swift's own TempAuth and many providers have, and version 3 of Keystone with a
 * password. The key goes into requests alone.
 */
import * as v from 'valibot'

import { OperationError } from '#base/errors.ts'

import { headerOf, refusal, type HttpAnswer, type HttpClient } from './http-client.ts'
import { jsonOf } from './json-answer.ts'

/** Of a token whose end is not told. */
const LIFETIME_MS = 3_600_000
/** A token is renewed so long before it ends. */
const REST_MS = 60_000
const MISSING_HINT =
  'Give --auth-url, --user and --key; or set ST_AUTH, ST_USER and ST_KEY, or for Keystone OS_AUTH_URL, OS_USERNAME, OS_PASSWORD and OS_PROJECT_NAME.'

export interface SwiftLogin {
  readonly version: 1 | 3
  readonly authUrl: URL
  readonly user: string
  readonly key: string
  /** Of Keystone; a name or an id. */
  readonly project: Named | undefined
  readonly userDomain: Named
  readonly projectDomain: Named
  readonly region: string | undefined
  /** `public`, `internal` or `admin`. */
  readonly reach: string
}
type Named = { readonly id: string } | { readonly name: string }

export interface SwiftSession {
  /** Without a slash at its end. */
  readonly storageUrl: URL
  readonly token: string
  /** Some time before it ends. */
  readonly renewAtMs: number
}

/** @throws OperationError `CREDENTIALS_MISSING`, `INPUT_INVALID`. */
export function swiftLogin(
  options: Readonly<Record<string, string>>,
  env: Readonly<Record<string, string | undefined>>,
): SwiftLogin {
  const first = (...values: readonly (string | undefined)[]): string | undefined =>
    values.find((value) => value !== undefined && value !== '')
  const authUrl = first(options['authUrl'], env['ST_AUTH'], env['OS_AUTH_URL'])
  const user = first(options['user'], env['ST_USER'], env['OS_USERNAME'])
  const key = first(options['key'], env['ST_KEY'], env['OS_PASSWORD'])
  if (authUrl === undefined || user === undefined || key === undefined) {
    const lacks = [authUrl === undefined && 'auth URL', user === undefined && 'user', key === undefined && 'key']
    const detail = `no ${lacks.filter((what) => what !== false).join(', no ')} is given`
    throw new OperationError('CREDENTIALS_MISSING', `Cannot open the actor "swift": ${detail}`, { hint: MISSING_HINT })
  }
  const named = (id: string | undefined, name: string | undefined): Named | undefined =>
    name !== undefined ? { name } : id === undefined ? undefined : { id }
  const url = checkedUrl(authUrl)
  const isKeystone = first(options['authUrl'], env['ST_AUTH']) === undefined
  const told = first(env['ST_AUTH_VERSION'], env['OS_AUTH_VERSION'], env['OS_IDENTITY_API_VERSION'])
  return {
    version: versionOf(told, url, isKeystone),
    authUrl: url,
    user,
    key,
    project: named(
      first(env['OS_PROJECT_ID'], env['OS_TENANT_ID']),
      first(options['osProjectName'], env['OS_PROJECT_NAME'], env['OS_TENANT_NAME']),
    ),
    userDomain: named(
      first(env['OS_USER_DOMAIN_ID'], 'default'),
      first(options['osUserDomainName'], env['OS_USER_DOMAIN_NAME']),
    ) ?? { id: 'default' },
    projectDomain: named(
      first(env['OS_PROJECT_DOMAIN_ID'], 'default'),
      first(options['osProjectDomainName'], env['OS_PROJECT_DOMAIN_NAME']),
    ) ?? { id: 'default' },
    region: first(options['osRegionName'], env['OS_REGION_NAME']),
    reach: first(env['OS_ENDPOINT_TYPE'], env['OS_INTERFACE'])?.replace(/URL$/, '') ?? 'public',
  }
}

/** The auth URL tells it, where it names a version; one of Keystone's variables alone means Keystone. */
function versionOf(told: string | undefined, { pathname }: URL, isKeystone: boolean): 1 | 3 {
  const version = /\/v([123])(?:\.\d+)?(?:\/|$)/.exec(pathname)?.[1] ?? told?.[0] ?? (isKeystone ? '3' : '1')
  if (version === '1') return 1
  if (version === '3') return 3
  throw new OperationError(
    'INPUT_INVALID',
    `Cannot open the actor "swift": version ${version} of the auth is not spoken`,
    {
      hint: 'Use version 1, or version 3 of Keystone: an auth URL that ends in /v1.0 or /v3.',
    },
  )
}

function checkedUrl(text: string): URL {
  const url = URL.parse(text)
  if (url !== null && /^https?:$/.test(url.protocol)) return url
  throw new OperationError('INPUT_INVALID', 'Cannot open the actor "swift": the auth URL is no http or https URL', {
    hint: 'As --auth-url=https://HOST/auth/v1.0, or https://HOST:5000/v3 for Keystone.',
  })
}

/** Asks for a token. @throws OperationError `CREDENTIALS_REFUSED`, and what a request can end with. */
export async function logIn(client: HttpClient, login: SwiftLogin): Promise<SwiftSession> {
  return login.version === 1 ? logInByVersion1(client, login) : logInByKeystone(client, login)
}

async function logInByVersion1(client: HttpClient, { authUrl, user, key }: SwiftLogin): Promise<SwiftSession> {
  const action = `get a token from ${authUrl.origin}`
  const answer = await client.request({
    action,
    method: 'GET',
    origin: authUrl.origin,
    path: authUrl.pathname + authUrl.search,
    headers: { 'x-auth-user': user, 'x-auth-key': key },
  })
  checkLogin(action, answer)
  const token = headerOf(answer.headers, 'x-auth-token') ?? headerOf(answer.headers, 'x-storage-token')
  const seconds = Number(headerOf(answer.headers, 'x-auth-token-expires') ?? Number.NaN)
  const lifetimeMs = Number.isFinite(seconds) ? seconds * 1000 : LIFETIME_MS
  return sessionOf(action, token, headerOf(answer.headers, 'x-storage-url'), lifetimeMs)
}

const KEYSTONE = v.looseObject({
  token: v.looseObject({
    expires_at: v.optional(v.string()),
    catalog: v.optional(
      v.array(
        v.looseObject({
          type: v.string(),
          endpoints: v.array(
            v.looseObject({
              interface: v.optional(v.string()),
              region: v.nullish(v.string()),
              region_id: v.nullish(v.string()),
              url: v.string(),
            }),
          ),
        }),
      ),
      [],
    ),
  }),
})

async function logInByKeystone(client: HttpClient, login: SwiftLogin): Promise<SwiftSession> {
  const { authUrl, user, key, project, userDomain, projectDomain, region, reach } = login
  const action = `get a token from ${authUrl.origin}`
  const base = authUrl.pathname.replace(/\/+$/, '')
  const scope =
    project === undefined
      ? {}
      : { scope: { project: { ...project, ...('name' in project ? { domain: projectDomain } : {}) } } }
  const identity = { methods: ['password'], password: { user: { name: user, domain: userDomain, password: key } } }
  const answer = await client.request({
    action,
    method: 'POST',
    origin: authUrl.origin,
    path: `${base.endsWith('/v3') ? base : `${base}/v3`}/auth/tokens`,
    headers: { 'content-type': 'application/json', accept: 'application/json' },
    body: Buffer.from(JSON.stringify({ auth: { identity, ...scope } })),
  })
  checkLogin(action, answer)
  const { token } = jsonOf(action, KEYSTONE, answer)
  const endpoints = token.catalog.filter(({ type }) => type === 'object-store').flatMap((service) => service.endpoints)
  const found = endpoints.find(
    (one) =>
      (one.interface ?? 'public') === reach && (region === undefined || (one.region_id ?? one.region) === region),
  )
  if (found === undefined) {
    const known = endpoints.map(
      (one) => `${one.interface ?? 'public'} in ${one.region_id ?? one.region ?? 'no region'}`,
    )
    const detail = known.length === 0 ? 'it names no object store' : `it names object stores ${known.join(', ')} only`
    throw new OperationError('INPUT_INVALID', `Cannot ${action}: ${detail}`, {
      hint: 'Name the project by --os-project-name, and the region by --os-region-name where there are several.',
    })
  }
  const expiresAt = Date.parse(token.expires_at ?? '')
  const lifetimeMs = Number.isNaN(expiresAt) ? LIFETIME_MS : expiresAt - Date.now()
  return sessionOf(action, headerOf(answer.headers, 'x-subject-token'), found.url, lifetimeMs)
}

function checkLogin(action: string, answer: HttpAnswer): void {
  if (answer.status >= 200 && answer.status < 300) return
  if (answer.status === 401 || answer.status === 403) {
    throw new OperationError(
      'CREDENTIALS_REFUSED',
      `Cannot ${action}: user or key are not accepted (${answer.status})`,
      {
        hint: 'Check --user (of version 1 as ACCOUNT:USER) and --key, and for Keystone --os-project-name and the domains.',
      },
    )
  }
  throw refusal(action, answer, answer.status === 404 ? 'Check --auth-url.' : undefined)
}

function sessionOf(
  action: string,
  token: string | undefined,
  storageUrl: string | undefined,
  lifetimeMs: number,
): SwiftSession {
  const url = URL.parse(storageUrl?.replace(/\/+$/, '') ?? '')
  if (token === undefined || url === null || !/^https?:$/.test(url.protocol)) {
    throw new OperationError('STORE_PROTOCOL', `Cannot ${action}: the answer has no token or no storage URL`, {
      hint: 'Check that --auth-url is that of the auth of a Swift.',
    })
  }
  return { storageUrl: url, token, renewAtMs: Date.now() + lifetimeMs - Math.min(REST_MS, lifetimeMs / 4) }
}
