/**
 * How an object of a Swift and an entry of a tree stand for each other: its name, its version, and whether it has segments.
 *
 * A version is the etag; that of a static large object, which is a hash of hashes, has `slo:` before it, so that what is replaced or
 * deleted is known to have segments without asking.
 */
import type { IncomingHttpHeaders } from 'node:http'

import type { Version } from '#store/store.ts'
import type { Listed } from '#sync/actor.ts'
import type { TreeEntry } from '#sync/tree.ts'

import { headerOf } from './http-client.ts'

const SLO = 'slo:'

/** What a listing tells of an object. */
export interface ObjectRow {
  readonly name: string
  readonly bytes: number
  readonly hash: string
  readonly slo_etag?: string | undefined
}

/** The name of an object as it stands in a path. */
export function encodedName(name: string): string {
  return name.split('/').map(encodeURIComponent).join('/')
}

export function objectName({ path, kind }: Pick<TreeEntry, 'path' | 'kind'>): string {
  return kind === 'directory' ? `${path}/` : path
}

export function entryOf({ name, bytes, hash, slo_etag: slo }: ObjectRow): Listed {
  // A mark that other tools leave for a directory.
  if (name.endsWith('/')) return { path: name.slice(0, -1), size: 0, kind: 'directory', mtime: undefined }
  const version = slo === undefined ? (hash as Version) : largeVersion(slo)
  return { path: name, size: bytes, kind: 'file', mtime: undefined, version }
}

export function isLarge(entry: Pick<TreeEntry, 'version'> | undefined): boolean {
  return entry?.version?.startsWith(SLO) === true
}

/** The version that the etag of a large object is. */
export function largeVersion(etag: string): Version {
  return (SLO + unquoted(etag)) as Version
}

/** The version of what an answer is about. */
export function versionOf(headers: IncomingHttpHeaders): Version {
  const etag = headerOf(headers, 'etag') ?? ''
  const isSlo = /^true$/i.test(headerOf(headers, 'x-static-large-object') ?? '')
  return isSlo ? largeVersion(etag) : (unquoted(etag) as Version)
}

function unquoted(etag: string): string {
  return etag.replaceAll('"', '')
}
