/** The Content-Type that a new object gets, by the end of its name; browsers and other S3 tools go by it. */
import type { SpecialKind } from '#store/store.ts'

const BY_EXTENSION: Readonly<Record<string, string>> = {
  avif: 'image/avif',
  bz2: 'application/x-bzip2',
  css: 'text/css',
  csv: 'text/csv',
  gif: 'image/gif',
  gz: 'application/gzip',
  htm: 'text/html',
  html: 'text/html',
  ico: 'image/vnd.microsoft.icon',
  jpeg: 'image/jpeg',
  jpg: 'image/jpeg',
  js: 'text/javascript',
  json: 'application/json',
  md: 'text/markdown',
  mjs: 'text/javascript',
  mp3: 'audio/mpeg',
  mp4: 'video/mp4',
  ogg: 'audio/ogg',
  parquet: 'application/vnd.apache.parquet',
  pdf: 'application/pdf',
  png: 'image/png',
  svg: 'image/svg+xml',
  tar: 'application/x-tar',
  tif: 'image/tiff',
  tiff: 'image/tiff',
  toml: 'application/toml',
  txt: 'text/plain',
  wasm: 'application/wasm',
  wav: 'audio/wav',
  webm: 'video/webm',
  webp: 'image/webp',
  xml: 'application/xml',
  yaml: 'application/yaml',
  yml: 'application/yaml',
  zip: 'application/zip',
  zst: 'application/zstd',
}

export const DIRECTORY_TYPE = 'application/x-directory'
export const SYMLINK_TYPE = 'application/x-symlink'
/** Names of the shared MIME-info database. */
export const SPECIAL_TYPES: Readonly<Record<SpecialKind, string>> = { fifo: 'inode/fifo', socket: 'inode/socket' }

/** The Content-Type of a file of that name. */
export function contentTypeOf(name: string): string {
  const dot = name.lastIndexOf('.')
  const type = dot === -1 ? undefined : BY_EXTENSION[name.slice(dot + 1).toLowerCase()]
  return type ?? 'application/octet-stream'
}
