/** One run of `eider fs fsck`: opens the directories, checks, lists or extracts, and tells what came of it. */
import { isOperationError, OperationError } from '#base/errors.ts'
import { setLogLevel } from '#base/log.ts'
import { type InodeId, inodeType, shownInode } from '#cluster/inode-id.ts'
import { type CheckedCluster, checkCluster } from '#cluster/offline/check-cluster.ts'
import { OfflineCluster } from '#cluster/offline/offline-cluster.ts'
import { OfflineFiles } from '#cluster/offline/offline-files.ts'
import type { Problem, Severity } from '#cluster/offline/problem.ts'

import { EXIT, type ExitCode } from '#cli/command.ts'
import { Extraction } from './fsck-extract.ts'
import type { FSCK_OPTIONS } from './fsck.ts'
import { FsOutput, OutputClosed } from './output.ts'
import { below } from './place.ts'
import { parseTime } from './time.ts'
import type { OptionValues } from '#cli/options.ts'
import { about } from '#cli/status-screen.ts'
import { stopSignal } from '#cli/stop-signal.ts'

type Values = OptionValues<typeof FSCK_OPTIONS>

/** What was found wrong, told as it is found. */
class Findings {
  readonly counts: Record<Severity, number> = { lost: 0, degraded: 0, leak: 0 }
  readonly #out: FsOutput
  readonly #isJson: boolean

  constructor(out: FsOutput, isJson: boolean) {
    this.#out = out
    this.#isJson = isJson
  }

  get all(): number {
    return this.counts.lost + this.counts.degraded + this.counts.leak
  }

  tell = ({ severity, where, detail }: Problem): void => {
    this.counts[severity]++
    // Most calls only remember the line; who waits for the others is `settle`.
    if (this.#isJson) void this.#out.json({ what: 'problem', severity, where, detail })
    else void this.#out.line(`${severity.padEnd(8)}  ${where}: ${detail}`)
  }
}

/** @throws JOURNAL_FAILED where a process runs, or nothing can be read; USAGE */
export async function runFsck(data: readonly string[], values: Values): Promise<ExitCode> {
  const signal = stopSignal()
  setLogLevel('error')
  const out = new FsOutput()
  const findings = new Findings(out, values.json)
  const disks = values.disk.map(({ text }) => text)
  let cluster: OfflineCluster | undefined
  try {
    cluster = await OfflineCluster.open(data, disks, findings.tell)
    const asOf = values.asOf === undefined ? undefined : parseTime(values.asOf)
    if (!values.path.startsWith('/')) {
      throw new OperationError('USAGE', `Cannot use --path ${values.path}: a path of the cluster starts with "/"`)
    }
    if (values.list) await list(cluster, values, asOf, out, findings)
    else if (values.extract !== undefined) {
      const extraction = new Extraction(cluster, values.extract, findings.tell, signal)
      const totals = await extraction.run(values.path, asOf)
      if (values.json) await out.json({ what: 'extracted', ...totals, problems: findings.counts })
      else {
        const { files, directories, symlinks, bytes, failed } = totals
        const what = `${files} files of ${about(bytes)}, ${directories} directories, ${symlinks} symlinks`
        await out.line(`Extracted ${what}${failed === 0 ? '' : `; ${failed} could not be`}`)
      }
    } else {
      const found = await checkCluster({
        cluster,
        onProblem: findings.tell,
        readsBlocks: values.blocks,
        nowMs: Date.now(),
      })
      await tellSummary(found, findings, out, values)
    }
    await out.flush()
  } catch (error) {
    if (error instanceof OutputClosed) return EXIT.failed
    await out.flush()
    throw error
  } finally {
    await cluster?.close()
  }
  return findings.all === 0 ? EXIT.done : EXIT.partly
}

async function tellSummary(
  found: CheckedCluster,
  findings: Findings,
  out: FsOutput,
  { json, blocks }: Values,
): Promise<void> {
  if (json) {
    await out.json({ what: 'summary', ...found, problems: findings.counts })
    return
  }
  const { directories, removedDirectories, files, bytes, historyFiles, historyBytes, transients } = found
  await out.line(`${directories - removedDirectories} directories, ${files} files of ${about(bytes)}`)
  await out.line(
    `History: ${historyFiles} files of ${about(historyBytes)}, ${removedDirectories} directories; ${transients} files not linked`,
  )
  const checked = blocks ? 'read' : 'looked for'
  await out.line(`${found.spans} spans; ${found.blocks} blocks, ${checked}: ${found.blocksMissing} missing or bad`)
  if (found.transactions > 0) await out.line(`${found.transactions} transactions of the coordinator are under way`)
  if (found.unknown > 0) await out.line(`${found.unknown} names and directories point to shards that are not there`)
  if (found.orphansYoung > 0) await out.line(`${found.orphansYoung} blocks of less than a day have no span yet`)
  const { lost, degraded, leak } = findings.counts
  await out.line(
    findings.all === 0
      ? `Clean${blocks ? '' : ' as far as was looked: with --blocks all bytes are read'}`
      : `${lost} lost, ${degraded} degraded, ${leak} leaked`,
  )
}

async function list(
  cluster: OfflineCluster,
  { path, json }: Values,
  asOf: number | undefined,
  out: FsOutput,
  findings: Findings,
): Promise<void> {
  const files = new OfflineFiles(cluster)
  const top = files.find(path, asOf)
  const show = async (at: string, inode: InodeId, directory: InodeId, name: string): Promise<void> => {
    const type = inodeType(inode)
    const { size, mode, uid, gid, mtime } = files.status(inode)
    const versions = type === 'directory' ? 1 : files.versions(directory, name)
    if (json) {
      await out.json({ what: 'entry', path: at, inode: shownInode(inode), type, size, versions, mode, uid, gid, mtime })
    } else await out.line(`${type.padEnd(9)} ${String(size).padStart(14)} ${String(versions).padStart(4)}  ${at}`)
  }
  const attempt = async <T>(at: string, work: () => Promise<T> | T): Promise<T | undefined> => {
    try {
      return await work()
    } catch (error) {
      if (!isOperationError(error)) throw error
      findings.tell({ severity: 'lost', where: at, detail: error.message })
      return undefined
    }
  }
  await attempt(path, () => show(path, top.inode, top.directory, top.name))
  if (inodeType(top.inode) !== 'directory') return
  const stack = [{ path, directory: top.inode, names: files.names(top.inode, asOf) }]
  for (let at = stack.at(-1); at !== undefined; at = stack.at(-1)) {
    const { path: above, directory, names } = at
    const next = await attempt(above, () => names.next())
    if (next === undefined || next.done === true) {
      stack.pop()
      continue
    }
    const { name, inode } = next.value
    const own = below(above, name)
    await attempt(own, () => show(own, inode, directory, name))
    if (inodeType(inode) === 'directory') stack.push({ path: own, directory: inode, names: files.names(inode, asOf) })
  }
}
