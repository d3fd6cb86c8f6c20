/** What the registry answers by HTTP: one table, by which requests are answered and the OpenAPI description is made. */
import { OperationError } from '#base/errors.ts'
import type { DiskId } from '#cluster/block/permit.ts'

import type { OperatorFlag } from './registry-records.ts'
import type { RegistryServer } from './registry-server.ts'
import { shownCoordinator, shownDisk, shownHealth, shownShards } from './registry-status.ts'

export interface Route {
  readonly method: 'get' | 'post'
  /** With `{id}` where the id of a disk stands. */
  readonly path: string
  readonly operation: string
  readonly summary: string
  /** The name of the schema of its answer. */
  readonly answer: string
  readonly run: (server: RegistryServer, id: DiskId) => unknown
}

/** The parts of the page and of the API that are no JSON. */
export const EVENTS_PATH = '/api/v1/events'
export const OPENAPI_PATH = '/api/v1/openapi.json'
export const METRICS_PATH = '/metrics'

export const ROUTES: readonly Route[] = [
  {
    method: 'get',
    path: '/api/v1/health',
    operation: 'getHealth',
    summary: 'How the whole is, in one sentence and one word, and totals.',
    answer: 'Health',
    run: ({ cluster, view }) => ({ cluster, version: view.version, ...shownHealth(view) }),
  },
  {
    method: 'get',
    path: '/api/v1/map',
    operation: 'getMap',
    summary: 'Where everything is.',
    answer: 'Map',
    run: ({ cluster, view }) => ({
      cluster,
      version: view.version,
      shards: view.shards
        .map(shownShards)
        .map(({ first, last, address, status }) => ({ first, last, address, status })),
      coordinator: view.coordinator?.record.address ?? null,
      disks: view.disks.map(shownDisk).map(({ id, address, class: storageClass, domain, location, status, flags }) => {
        return { id, address, class: storageClass, domain, location, status, flags }
      }),
    }),
  },
  {
    method: 'get',
    path: '/api/v1/disks',
    operation: 'listDisks',
    summary: 'All disks, in order of their ids.',
    answer: 'Disks',
    run: ({ view }) => ({ version: view.version, disks: view.disks.map(shownDisk) }),
  },
  {
    method: 'get',
    path: '/api/v1/shards',
    operation: 'listShards',
    summary: 'Who serves which shards.',
    answer: 'Shards',
    run: ({ view }) => ({ version: view.version, shards: view.shards.map(shownShards) }),
  },
  {
    method: 'get',
    path: '/api/v1/coordinator',
    operation: 'getCoordinator',
    summary: 'Where the coordinator is; null before it has registered.',
    answer: 'Coordinator',
    run: ({ view }) => ({ version: view.version, coordinator: shownCoordinator(view) }),
  },
  change('drain', 'The disk takes no new blocks; what it has is read on.', ['no-write'], []),
  change('resume', 'What an operator has said of the disk holds no more.', [], ['no-read', 'no-write']),
  change('terminate', 'The disk is gone for ever. Only where it is silent or has failed.', ['decommissioned'], []),
]

function change(verb: string, summary: string, set: readonly OperatorFlag[], clear: readonly OperatorFlag[]): Route {
  return {
    method: 'post',
    path: `/api/v1/disks/{id}/${verb}`,
    operation: `${verb}Disk`,
    summary,
    answer: 'ChangedDisk',
    run: async (server, id) => {
      const disk = await server.setFlags(id, { set, clear })
      return { version: server.view.version, disk: shownDisk(disk) }
    },
  }
}

const MATCHERS = ROUTES.map((route) => ({
  route,
  pattern: new RegExp(`^${route.path.replace('{id}', '(\\d{1,16})')}$`),
}))

/** The routes of a path, of which a method is one, and the id that is in it. @throws OperationError `DISK_NOT_FOUND` */
export function routesOf(path: string): { readonly routes: readonly Route[]; readonly id: DiskId } {
  const found = MATCHERS.flatMap(({ route, pattern }) => {
    const match = pattern.exec(path)
    return match === null ? [] : [{ route, id: Number(match[1] ?? 0) }]
  })
  const id = found[0]?.id ?? 0
  if (!Number.isSafeInteger(id)) throw new OperationError('DISK_NOT_FOUND', `Cannot find disk ${id}: no id is so large`)
  return { routes: found.map(({ route }) => route), id: id as DiskId }
}
