/** A process of block services for the benchmark of data: serves the directories named, and tells where; ends with its standard input. */
import { BlockServer } from '#cluster/block/block-server.ts'
import { Disk } from '#cluster/block/disk.ts'
import { LinuxBlockFiles } from '#cluster/block/linux-block-files.ts'
import { keepFreedBuffers } from '#os/malloc.ts'
import { systemSurroundings } from '#cluster/system-surroundings.ts'

/** What a process tells of one of its disks. */
export interface ToldDisk {
  readonly disk: number
  readonly key: string
  readonly address: string
  readonly directory: string
}

/** Serves each directory as a disk, all at one address. */
export async function serveDirectories(
  directories: readonly string[],
): Promise<{ readonly told: ToldDisk[]; readonly server: BlockServer }> {
  const surroundings = systemSurroundings()
  const disks = await Promise.all(
    directories.map(async (directory) => {
      const disk = await Disk.open({ files: LinuxBlockFiles.open(directory), reserveBytes: 0 })
      return { disk, class: 2, domain: directory, path: directory, fileSystem: 0 }
    }),
  )
  const server = new BlockServer({ surroundings, disks })
  const address = await server.listen('127.0.0.1:0')
  const told = disks.map(({ disk, path }) => {
    const key = Buffer.from(disk.identity.key).toString('hex')
    return { disk: disk.id, key, address, directory: path }
  })
  return { told, server }
}

if (import.meta.main) {
  keepFreedBuffers(64 << 20)
  const { told, server } = await serveDirectories(process.argv.slice(2))
  process.stdout.write(`${JSON.stringify(told)}\n`)
  process.stdin.resume().on('end', () => void server.close().then(() => process.exit(0)))
}
