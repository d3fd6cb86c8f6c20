/**
 * How far ahead of a sequential reader the kernel reads on a mount: 128 KiB by default, which for a store across a
 * network is far too little. Set through /sys/class/bdi, which takes root.
 */
import { readFile, writeFile } from 'node:fs/promises'
import { mountsOf } from './mount-table.ts'

/**
 * Sets the read-ahead of the mount on that directory: the bytes in force afterwards, undefined where that cannot be told.
 * Where it is not permitted the old value stays: slower, never wrong.
 */
export async function setReadAhead(directory: string, bytes: number): Promise<number | undefined> {
  // From the mount table: asking the mount itself by stat could wait for the very process that asks.
  const device = mountsOf(directory).at(-1)?.device
  if (device === undefined) return undefined
  const file = `/sys/class/bdi/${device}/read_ahead_kb`
  try {
    await writeFile(file, String(Math.ceil(bytes / 1024)))
  } catch {
    // Not root, or /sys is read-only: what the kernel has is told below.
  }
  try {
    return Number.parseInt(await readFile(file, 'utf8'), 10) * 1024
  } catch {
    return undefined
  }
}
