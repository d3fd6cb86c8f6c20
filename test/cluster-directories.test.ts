/** Directories of the parts of a cluster that were mixed up, or of which something is gone: none is taken for a new one, and nothing is changed. */
import assert from 'node:assert/strict'
import { cpSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'

import { isOperationError, type OperationError } from '#base/errors.ts'
import { ClusterClient } from '#cluster/client/cluster-client.ts'
import { startCoordinator } from '#cluster/daemons/coordinator-daemon.ts'
import { startRegistry } from '#cluster/daemons/registry-daemon.ts'
import { startShard } from '#cluster/daemons/shard-daemon.ts'
import { crc32c } from '#cluster/erasure/crc32c.ts'
import { ROOT_INODE } from '#cluster/inode-id.ts'
import { systemSurroundings } from '#cluster/system-surroundings.ts'

const scratch = mkdtempSync(join(tmpdir(), 'eider-directories-'))
after(() => rmSync(scratch, { recursive: true }))
const ATTRIBUTES = { mode: 0o755, uid: 0, gid: 0, mtime: undefined, atime: undefined }
const onFailed = (error: OperationError): void => assert.fail(error)

interface Running extends AsyncDisposable {
  readonly registry: string
}

async function registryIn(directory: string): Promise<Running> {
  const registry = await startRegistry({ data: join(directory, 'registry'), listen: '127.0.0.1:0', onFailed })
  return { registry: registry.address, [Symbol.asyncDispose]: () => registry.close() }
}

function common(directory: string, part: string, registry: string) {
  return { data: join(directory, part), registry, location: 'here', listen: '127.0.0.1:0', onFailed }
}

function shardsOf(directory: string, registry: string) {
  return startShard({ ...common(directory, 'shards', registry), first: 0, last: 255, reserveBytes: 0 })
}

/** Makes directories of these names, in a cluster that is there or begun for it. */
async function makeDirectories(directory: string, names: readonly string[]): Promise<void> {
  await using running = await registryIn(directory)
  const { registry } = running
  const shards = await shardsOf(directory, registry)
  const coordinator = await startCoordinator(common(directory, 'coordinator', registry))
  const client = await ClusterClient.connect({ surroundings: systemSurroundings(), registry })
  for (const name of names) await client.makeDirectory({ directory: ROOT_INODE, name }, ATTRIBUTES)
  client.close()
  await coordinator.close()
  await shards.close()
}

const base = join(scratch, 'base')
before(() => makeDirectories(base, ['a', 'b']))

function copyOf(directory: string, name: string): string {
  const copy = join(scratch, name)
  cpSync(directory, copy, { recursive: true })
  return copy
}

/** Checksums of all files of a directory but locks of lmdb. */
function filesOf(directory: string): Map<string, number> {
  const names = readdirSync(directory, { recursive: true, withFileTypes: true })
  const files = names.filter((entry) => entry.isFile() && !entry.name.endsWith('-lock'))
  const paths = files.map((entry) => join(entry.parentPath, entry.name))
  return new Map(paths.map((path) => [path, crc32c(readFileSync(path))]))
}

async function refused(
  directory: string,
  part: 'shards' | 'coordinator',
  message: RegExp,
  isUntouched = true,
): Promise<void> {
  await using running = await registryIn(directory)
  const data = join(directory, part)
  const files = filesOf(data)
  const start =
    part === 'shards'
      ? shardsOf(directory, running.registry)
      : startCoordinator(common(directory, part, running.registry))
  const ended = start.then((daemon) => daemon.close())
  await assert.rejects(ended, (error) => {
    assert.ok(isOperationError(error, 'JOURNAL_CORRUPT'), String(error))
    assert.match(error.message, message)
    return true
  })
  if (isUntouched) assert.deepEqual(filesOf(data), files)
}

test('[S170] a part that has served and lost its state, its journal, or both, is not begun anew', async () => {
  for (const part of ['shards', 'coordinator'] as const) {
    for (const gone of [['state'], ['journal'], ['state', 'journal']]) {
      const directory = copyOf(base, `${part}-without-${gone.join('-')}`)
      for (const each of gone) rmSync(join(directory, part, each), { recursive: true })
      await refused(directory, part, /a process has served from it, and its state or its journal is gone/)
    }
  }
})

test('[S170] a state with the journal of another, or of another time, is refused', async () => {
  const other = join(scratch, 'other')
  await makeDirectories(other, ['c', 'd', 'e', 'f', 'g'])
  const mixed = copyOf(base, 'mixed')
  rmSync(join(mixed, 'shards', 'journal'), { recursive: true })
  cpSync(join(other, 'shards', 'journal'), join(mixed, 'shards', 'journal'), { recursive: true })
  await refused(mixed, 'shards', /it is that of another state/)
  // Two copies that went on apart, each with the journal of the other.
  const [left, right] = [copyOf(base, 'left'), copyOf(base, 'right')]
  await makeDirectories(left, ['x'])
  await makeDirectories(right, ['x', 'y', 'z'])
  for (const part of ['shards', 'coordinator'] as const) {
    const [mine, others] = [join(left, part, 'journal'), join(right, part, 'journal')]
    renameSync(mine, `${mine}-kept`)
    renameSync(others, mine)
    renameSync(`${mine}-kept`, others)
    await refused(left, part, /it is that of another state/)
    await refused(right, part, /it is that of another state/)
  }
})

test('[S170] the state of a copy that was started since does not go on by the journal of before', async () => {
  const later = copyOf(base, 'later')
  await makeDirectories(later, ['l'])
  rmSync(join(later, 'shards', 'journal'), { recursive: true })
  cpSync(join(base, 'shards', 'journal'), join(later, 'shards', 'journal'), { recursive: true })
  await refused(later, 'shards', /it is that of another state/)
  // What belongs together goes on.
  await makeDirectories(copyOf(base, 'whole'), ['w'])
})

test('[S170] what a part of another kind has is not taken for its own', async () => {
  const swapped = copyOf(base, 'swapped')
  renameSync(join(swapped, 'shards'), join(swapped, 'kept'))
  renameSync(join(swapped, 'coordinator'), join(swapped, 'shards'))
  renameSync(join(swapped, 'kept'), join(swapped, 'coordinator'))
  await refused(swapped, 'shards', /the directory is none of shards/, false)
  await refused(swapped, 'coordinator', /the directory is none of a coordinator/, false)
  // Put back, each goes on.
  renameSync(join(swapped, 'shards'), join(swapped, 'kept'))
  renameSync(join(swapped, 'coordinator'), join(swapped, 'shards'))
  renameSync(join(swapped, 'kept'), join(swapped, 'coordinator'))
  await makeDirectories(swapped, ['after'])
})
