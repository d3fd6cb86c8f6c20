/**
 * DeleteObject and DeleteObjects. What is not there counts as deleted, as in S3, unless a condition asks for it. A
 * directory that is left with nothing in it, and that nobody put as an object, goes with its last object.
 */
import { isOperationError } from '#base/errors.ts'
import { ANY, ifVersion } from '#store/store.ts'
import { childrenOf, textOf, type XmlElement, type XmlNode } from '#store/s3/xml.ts'
import { parentOf } from '#store/path.ts'

import { isNothingThere, S3Error, s3ErrorOf } from './errors.ts'
import { matchesEtag } from './etag.ts'
import { METADATA_XATTR } from './object-metadata.ts'
import { isMarked, type ObjectTree } from './object-tree.ts'
import { readXml, type Operation } from './operation.ts'

const KEYS_MAX = 1000
/** Keys of one request that are deleted at a time. */
const PARALLEL = 16
/** How often a delete under a condition looks again because the object changed meanwhile. */
const ATTEMPTS = 4
/** 1,000 keys of 1,024 bytes, each with its tag, escaped. */
const DELETE_XML_BYTES_MAX = 2 << 20

export const deleteObject: Operation = {
  name: 'DeleteObject',
  takesBody: false,
  async run({ exchange, tree }) {
    const { bucket, key, signal } = exchange
    const versionId = exchange.query.get('versionId')
    if (versionId !== undefined && versionId !== 'null') throw new S3Error('NoSuchVersion')
    await tree.requireBucket(bucket, signal)
    const path = await removeKey(tree, bucket, key, exchange.header('if-match'), signal)
    if (path !== undefined) await tree.pruneAbove(path, signal)
    exchange.answer(204)
  },
}

export const deleteObjects: Operation = {
  name: 'DeleteObjects',
  takesBody: true,
  async run(request) {
    const { exchange, tree } = request
    const { bucket, signal } = exchange
    const document = await readXml(request, 'Delete', DELETE_XML_BYTES_MAX)
    await tree.requireBucket(bucket, signal)
    const objects = childrenOf(document, 'Object')
    if (objects.length === 0 || objects.length > KEYS_MAX) throw new S3Error('MalformedXML')
    const quiet = textOf(document, 'Quiet')?.trim() === 'true'
    const results: XmlNode[] = []
    const parents = new Set<string>()
    let next = 0
    const work = async (): Promise<void> => {
      for (let index = next++; index < objects.length; index = next++) {
        const object = objects[index]
        if (object === undefined) return
        results[index] = await deleteOne(tree, bucket, object, parents, signal)
      }
    }
    await Promise.all(Array.from({ length: PARALLEL }, work))
    // Once for each directory, the deepest first, so that one pass is enough.
    const deepestFirst = [...parents].sort((a, b) => b.length - a.length)
    for (const parent of deepestFirst) await tree.pruneAbove(`${parent}/x`, signal)
    exchange.answerXml('DeleteResult', quiet ? results.filter(([name]) => name === 'Error') : results)
  },
}

async function deleteOne(
  tree: ObjectTree,
  bucket: string,
  object: XmlElement,
  parents: Set<string>,
  signal: AbortSignal,
): Promise<XmlNode> {
  const key = textOf(object, 'Key') ?? ''
  const versionId = textOf(object, 'VersionId')
  try {
    if (key === '') throw new S3Error('MalformedXML')
    if (versionId !== undefined && versionId !== 'null') throw new S3Error('NoSuchVersion')
    const path = await removeKey(tree, bucket, key, textOf(object, 'ETag'), signal)
    if (path !== undefined) parents.add(parentOf(path))
    return ['Deleted', [['Key', key]]]
  } catch (error) {
    if (signal.aborted) throw error
    const { code, message } = s3ErrorOf(error)
    return [
      'Error',
      [
        ['Key', key],
        ['Code', code],
        ['Message', message],
      ],
    ]
  }
}

/** Removes the object of a key and says which path went, if one did. */
async function removeKey(
  tree: ObjectTree,
  bucket: string,
  key: string,
  ifMatch: string | undefined,
  signal: AbortSignal,
): Promise<string | undefined> {
  const path = tree.pathSought(bucket, key)
  if (path === undefined || ifMatch !== undefined) {
    if (ifMatch === undefined) return undefined
    return removeMatching(tree, bucket, key, ifMatch, signal)
  }
  if (key.endsWith('/')) return (await removeDirectory(tree, path, signal)) ? path : undefined
  try {
    await tree.store.remove(path, { guard: ANY, signal })
    return path
  } catch (error) {
    // A directory is not the object of a key without a slash at its end.
    if (isNothingThere(error) || isOperationError(error, 'STORE_IS_DIRECTORY')) return undefined
    throw error
  }
}

async function removeMatching(
  tree: ObjectTree,
  bucket: string,
  key: string,
  ifMatch: string,
  signal: AbortSignal,
): Promise<string | undefined> {
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const { etag, entry } = await tree.require(bucket, key, signal)
    if (!matchesEtag(ifMatch, etag)) throw new S3Error('PreconditionFailed')
    try {
      if (entry.kind === 'directory') await removeDirectory(tree, entry.path, signal)
      else await tree.store.remove(entry.path, { guard: ifVersion(entry.version), signal })
      return entry.path
    } catch (error) {
      if (!isOperationError(error, 'STORE_CONFLICT', 'STORE_NOT_FOUND')) throw error
    }
  }
  throw new S3Error('ConditionalRequestConflict')
}

/** Takes the object away that a directory is: the directory itself, or only its mark while there are keys under it. */
async function removeDirectory(tree: ObjectTree, path: string, signal: AbortSignal): Promise<boolean> {
  return tree.lockDirectory(path, async () => {
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      try {
        await tree.store.removeDirectory(path, { signal })
        return true
      } catch (error) {
        if (isNothingThere(error)) return false
        if (!isOperationError(error, 'STORE_NOT_EMPTY')) throw error
      }
      try {
        const entry = await tree.store.stat(path, { signal })
        if (!isMarked(entry)) return false
        const xattrs = new Map(entry.attributes?.xattrs)
        xattrs.delete(METADATA_XATTR)
        await tree.store.setAttributes(path, { xattrs }, { guard: ifVersion(entry.version), signal })
        return false
      } catch (error) {
        // Its last entry may have gone meanwhile, or another has come: look again.
        if (!isOperationError(error, 'STORE_CONFLICT', 'STORE_NOT_FOUND')) throw error
      }
    }
    throw new S3Error('OperationAborted')
  })
}
