/** The OpenAPI description of the registry's HTTP API, made from its table of routes and from the schemas here. */
import { EVENTS_PATH, METRICS_PATH, OPENAPI_PATH, ROUTES, type Route } from './http-routes.ts'

type Schema = Readonly<Record<string, unknown>>

const integer: Schema = { type: 'integer', minimum: 0 }
const maybeInteger: Schema = { type: ['integer', 'null'], minimum: 0 }
const text: Schema = { type: 'string' }
const time: Schema = { type: 'string', format: 'date-time' }
const maybeTime: Schema = { type: ['string', 'null'], format: 'date-time' }
const reference = (name: string): Schema => ({ $ref: `#/components/schemas/${name}` })
const listOf = (name: string): Schema => ({ type: 'array', items: reference(name) })
const version: Schema = { ...integer, description: 'Grows with each change that others must know.' }

const cluster: Schema = {
  type: 'string',
  pattern: '^[0-9a-f]{32}$',
  description: 'Which cluster this is, from its first start on.',
}
const clockAheadMs: Schema = {
  type: ['integer', 'null'],
  description: 'By how much its clock is ahead of that of the registry; null where that is not known.',
}

function object(properties: Readonly<Record<string, Schema>>, description?: string): Schema {
  const required = Object.keys(properties)
  return { type: 'object', ...(description === undefined ? {} : { description }), required, properties }
}

const health = {
  state: {
    type: 'string',
    enum: ['good', 'degraded', 'down'],
    description:
      'good: all is there. degraded: files can be read and written, and something is to be looked at. down: some cannot.',
  },
  sentence: text,
  disks: integer,
  domains: { ...integer, description: 'Failure domains.' },
  capacityBytes: integer,
  usedBytes: integer,
  freeBytes: { ...integer, description: 'Disks on one file system share its free bytes, which count once.' },
}
const process = {
  address: text,
  location: text,
  status: {
    type: 'string',
    enum: ['ok', 'unheard', 'stale', 'skewed'],
    description:
      'unheard: not heard of since the registry started. stale: silent for too long. skewed: it is there, and its clock is not to be used.',
  },
  lastHeard: maybeTime,
  clockAheadMs,
}
const shards = { first: integer, last: integer }
const diskStatus: Schema = {
  type: 'string',
  enum: ['ok', 'unheard', 'full', 'drained', 'unread', 'failed', 'stale', 'terminated'],
  description: 'The one thing that matters most. unheard: not heard of since the registry started.',
}
const diskFlags: Schema = {
  type: 'array',
  items: { type: 'string', enum: ['stale', 'no-read', 'no-write', 'decommissioned'] },
}
const place = { id: integer, address: text, class: integer, domain: text, location: text }

const SCHEMAS: Readonly<Record<string, Schema>> = {
  Health: object({ cluster, version, ...health }),
  Map: object({
    cluster,
    version,
    shards: { type: 'array', items: object({ ...shards, address: text, status: process.status }) },
    coordinator: { type: ['string', 'null'], description: 'Its address.' },
    disks: { type: 'array', items: object({ ...place, status: diskStatus, flags: diskFlags }) },
  }),
  Disk: object({
    ...place,
    path: text,
    status: diskStatus,
    flags: diskFlags,
    failure: { ...text, description: 'Why it has failed; empty where it has not.' },
    capacityBytes: { ...maybeInteger, description: 'Null where the disk was not heard of since the registry started.' },
    usedBytes: maybeInteger,
    freeBytes: maybeInteger,
    blocks: maybeInteger,
    firstSeen: time,
    lastHeard: maybeTime,
    clockAheadMs,
  }),
  Process: object(process),
  ShardRange: object({ ...shards, ...process }),
  Disks: object({ version, disks: listOf('Disk') }),
  Shards: object({ version, shards: listOf('ShardRange') }),
  Coordinator: object({ version, coordinator: { oneOf: [reference('Process'), { type: 'null' }] } }),
  ChangedDisk: object({ version, disk: reference('Disk') }),
  Cluster: object(
    {
      cluster,
      version,
      now: time,
      health: object(health),
      shards: listOf('ShardRange'),
      coordinator: { oneOf: [reference('Process'), { type: 'null' }] },
      disks: listOf('Disk'),
    },
    'The data of an event. In one called "all" there are all disks, in one called "change" those that have changed.',
  ),
  Error: object({
    code: { ...text, description: 'As in docs/operating/errors.md.' },
    message: text,
    hint: text,
  }),
}

const ERRORS: Readonly<Record<string, string>> = {
  401: 'The secret is missing or wrong.',
  403: 'Not from there.',
  404: 'There is no such disk.',
  409: 'That cannot be said of the disk as it is.',
  415: 'The content type is not application/json.',
}
const ID = { name: 'id', in: 'path', required: true, schema: integer, description: 'The id of a disk.' }

function json(schema: Schema): Schema {
  return { 'application/json': { schema } }
}

function answers(route: Route): Schema {
  const errors = route.method === 'post' ? Object.keys(ERRORS) : ['401', '403']
  return {
    200: { description: 'Done.', content: json(reference(route.answer)) },
    ...Object.fromEntries(
      errors.map((status) => [status, { description: ERRORS[status], content: json(reference('Error')) }]),
    ),
  }
}

function operationOf(route: Route): Schema {
  return {
    operationId: route.operation,
    summary: route.summary,
    ...(route.path.includes('{id}') ? { parameters: [ID] } : {}),
    ...(route.method === 'post' ? { requestBody: { required: false, content: json({ type: 'object' }) } } : {}),
    responses: answers(route),
  }
}

function other(operationId: string, summary: string, type: string, schema: Schema): Schema {
  return {
    get: { operationId, summary, responses: { 200: { description: 'Done.', content: { [type]: { schema } } } } },
  }
}

export function openApi(): Schema {
  const paths: Record<string, Schema> = {}
  for (const route of ROUTES) paths[route.path] = { ...paths[route.path], [route.method]: operationOf(route) }
  paths[EVENTS_PATH] = other(
    'watch',
    'The cluster as it changes, as server-sent events.',
    'text/event-stream',
    reference('Cluster'),
  )
  paths[OPENAPI_PATH] = other('getDescription', 'This description.', 'application/json', { type: 'object' })
  paths[METRICS_PATH] = other('getMetrics', 'Metrics for Prometheus.', 'text/plain', text)
  paths['/'] = other('getPage', 'The page for people.', 'text/html', text)
  return {
    openapi: '3.1.0',
    info: {
      title: 'Eider registry',
      version: '1',
      description:
        'Where the parts of a cluster are, and how they are. With a secret, changes and requests from other machines need it, as a bearer token or as the password of HTTP basic.',
    },
    security: [{ bearer: [] }, { basic: [] }, {}],
    paths,
    components: {
      schemas: SCHEMAS,
      securitySchemes: { bearer: { type: 'http', scheme: 'bearer' }, basic: { type: 'http', scheme: 'basic' } },
    },
  }
}
