/**
 * Entity tags. One is the MD5 of the bytes where that was computed; S3's form `md5(md5s)-N` for an object of parts;
 * and for everything else 128 bits in the form `…-1`, which no client takes for an MD5: hashing costs a gigabyte more
 * time than storing it. None has quotes here; quotes are put on when it is written.
 */
import { createHash, randomBytes } from 'node:crypto'

import type { Version } from '#store/store.ts'

/** Bodies up to here are hashed by MD5 even if their sender did not ask for it: some clients compare. */
export const MD5_BYTES_MAX = 16 * 1024 * 1024
/** MD5 of no bytes. */
export const EMPTY_MD5 = 'd41d8cd98f00b204e9800998ecf8427e'

/** The tag of bytes that were not hashed. */
export function randomEtag(): string {
  return `${randomBytes(16).toString('hex')}-1`
}

/** The tag of a file that the gateway did not put, or that changed since. */
export function etagOfVersion(version: Version): string {
  return `${createHash('sha256').update(version).digest('hex').slice(0, 32)}-1`
}

/** S3's tag of an object of parts: the MD5 of the parts' MD5s, and how many they are. */
export function multipartEtag(parts: readonly string[]): string {
  const hash = createHash('md5')
  for (const part of parts) hash.update(Buffer.from(part.slice(0, 32), 'hex'))
  return `${hash.digest('hex')}-${parts.length}`
}

/** A tag as a header or element has it: with or without quotes, perhaps marked as weak. */
export function unquoteEtag(text: string): string {
  return text
    .trim()
    .replace(/^W\//, '')
    .replace(/^"(.*)"$/, '$1')
}

/** Whether a condition's list of tags (or `*`) has `etag`. */
export function matchesEtag(list: string, etag: string): boolean {
  return list.split(',').some((item) => {
    const wanted = unquoteEtag(item)
    return wanted === '*' || wanted === etag
  })
}
